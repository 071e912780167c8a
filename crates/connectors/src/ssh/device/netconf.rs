//! NETCONF over SSH (RFC 6241, RFC 6242): the candidate configuration, locked, changed and committed on trial.
//!
//! What must stay true: nobody else's unfinished changes are committed (a lock is refused while there are any), and a commit is confirmed only
//! after the new password was seen to open. A device of version 1.1 keeps it on trial when the connection breaks; an older one goes back at once.

use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use volvelle_domain::Secret;
use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass};
use zeroize::Zeroizing;

use super::super::broken;
use super::super::session::{Session, lost};
use super::super::visit::Visit;
use super::desk::{not_kept, occupied, refusal};
use super::profile;
use super::{config, filled};

/// Longest message.
const LONGEST: usize = 256 * 1024;
/// The end of a message of version 1.0, and of every hello.
const END: &[u8] = b"]]>]]>";
/// Seconds after which the device goes back.
const TRIAL: u32 = 300;
/// What a commit on trial is called, so that another session can confirm it.
const NAME: &str = "volvelle";

const HELLO: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
    <hello xmlns=\"urn:ietf:params:xml:ns:netconf:base:1.0\"><capabilities>\
    <capability>urn:ietf:params:netconf:base:1.0</capability>\
    <capability>urn:ietf:params:netconf:base:1.1</capability></capabilities></hello>";

/// A session of the protocol.
pub(super) struct Netconf<'a> {
    channel: Channel<Msg>,
    shown: &'a str,
    part: &'a profile::Netconf,
    /// Messages in pieces with their lengths (version 1.1).
    pieces: bool,
    /// Commits on trial outlive the session.
    persists: bool,
    number: u32,
    heard: Zeroizing<Vec<u8>>,
    locked: bool,
}

/// What a call was refused with.
struct Refused {
    tag: String,
    words: String,
}

impl Refused {
    fn failure(&self) -> Failure {
        match self.tag.as_str() {
            "access-denied" => Failure::new(
                FailureClass::Privilege,
                format!("the device does not let the acting user do that: {}", self.words),
                "give the user the class super-user",
            ),
            "lock-denied" | "in-use" => occupied(&self.words),
            _ => refusal(&self.words),
        }
    }
}

fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the device's NETCONF cannot be used: {what}"), "")
}

impl<'a> Netconf<'a> {
    /// Opens the subsystem and exchanges hellos.
    pub(super) async fn open(session: &'a Session, part: &'a profile::Netconf) -> Result<Self, Failure> {
        let channel = session.open().await?;
        let shown = session.shown.as_str();
        channel.request_subsystem(true, "netconf").await.map_err(|e| lost(shown, &e))?;
        let heard = Zeroizing::new(Vec::with_capacity(LONGEST));
        let mut netconf =
            Self { channel, shown, part, pieces: false, persists: false, number: 0, heard, locked: false };
        netconf.send(HELLO).await?;
        let hello = netconf.message().await?;
        let knows = |name: &str| hello.contains(&format!(":{name}"));
        if !knows("candidate:") || !knows("confirmed-commit:") {
            return Err(config(
                "the device has no candidate configuration with confirmed commits",
                "use its command line",
            ));
        }
        (netconf.pieces, netconf.persists) = (knows("base:1.1"), knows("confirmed-commit:1.1"));
        Ok(netconf)
    }

    async fn send(&mut self, text: &str) -> Result<(), Failure> {
        let framed = if self.pieces { format!("\n#{}\n{text}\n##\n", text.len()) } else { format!("{text}]]>]]>") };
        let framed = Zeroizing::new(framed);
        self.channel.data(framed.as_bytes()).await.map_err(|e| lost(self.shown, &e))
    }

    /// The next message.
    async fn message(&mut self) -> Result<Zeroizing<String>, Failure> {
        loop {
            if let Some((message, length)) = whole(&self.heard, self.pieces)? {
                self.heard.drain(..length);
                return Ok(message);
            }
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) if self.heard.len() + data.len() <= LONGEST => {
                    self.heard.extend_from_slice(&data);
                }
                Some(ChannelMsg::Data { .. }) => return Err(strange("an answer is too long")),
                Some(ChannelMsg::Failure) => {
                    return Err(config(
                        "the device does not offer NETCONF at this port",
                        "set port, usually 830 or 22",
                    ));
                }
                Some(_) => {}
                None => return Err(broken("before the device answered")),
            }
        }
    }

    /// One call.
    async fn call(&mut self, body: &str) -> Result<Result<Zeroizing<String>, Refused>, Failure> {
        self.number += 1;
        let number = self.number;
        let text = Zeroizing::new(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><rpc message-id=\"{number}\" \
             xmlns=\"urn:ietf:params:xml:ns:netconf:base:1.0\">{body}</rpc>"
        ));
        self.send(&text).await?;
        let answer = self.message().await?;
        if !answer.contains(&format!("message-id=\"{number}\"")) {
            return Err(strange("it answers another call"));
        }
        Ok(match refused(&answer) {
            Some(refused) => Err(refused),
            None => Ok(answer),
        })
    }

    async fn must(&mut self, body: &str) -> Result<Zeroizing<String>, Failure> {
        self.call(body).await?.map_err(|refused| refused.failure())
    }

    /// The user's stored password in the running configuration.
    pub(super) async fn stored(&mut self, user: &str) -> Result<Option<Secret>, Failure> {
        let filter = filled(&self.part.read, user);
        let body =
            format!("<get-config><source><running/></source><filter type=\"subtree\">{filter}</filter></get-config>");
        let shown = self.must(&body).await?;
        let found = self.part.field.captures(&shown).and_then(|found| found.get(1));
        Ok(found.map(|found| Secret::from(found.as_str())))
    }

    async fn lock(&mut self) -> Result<(), Failure> {
        if !self.locked {
            self.must("<lock><target><candidate/></target></lock>").await?;
            self.locked = true;
        }
        Ok(())
    }

    async fn unlock(&mut self) -> Result<(), Failure> {
        self.locked = false;
        self.must("<unlock><target><candidate/></target></unlock>").await.map(|_| ())
    }

    /// Whether the candidate may be locked, and nobody else is at work on it.
    pub(super) async fn rehearse(&mut self) -> Result<(), Failure> {
        self.lock().await?;
        self.unlock().await
    }

    /// Puts a stored form into the configuration, on trial.
    pub(super) async fn change(&mut self, visit: &Visit<'_>, verifier: &str) -> Result<Option<ApplyOutcome>, Failure> {
        self.lock().await?;
        let change = Zeroizing::new(filled(&self.part.change, visit.user()).replace("{{VERIFIER}}", verifier));
        let edit = Zeroizing::new(format!(
            "<edit-config><target><candidate/></target><default-operation>merge</default-operation>\
             <config>{}</config></edit-config>",
            change.as_str()
        ));
        visit.sending();
        let persist = if self.persists { format!("<persist>{NAME}</persist>") } else { String::new() };
        let attempt = format!("<commit><confirmed/><confirm-timeout>{TRIAL}</confirm-timeout>{persist}</commit>");
        for body in [edit.as_str(), attempt.as_str()] {
            if let Err(refused) = self.call(body).await? {
                self.must("<discard-changes/>").await?;
                self.unlock().await?;
                return Ok(Some(ApplyOutcome::Rejected(refused.failure())));
            }
        }
        Ok(None)
    }

    /// Confirms what is on trial, if anything is.
    pub(super) async fn keep(&mut self) -> Result<ApplyOutcome, Failure> {
        self.lock().await?;
        let named = format!("<commit><persist-id>{NAME}</persist-id></commit>");
        let mut confirmed = if self.persists { self.call(&named).await? } else { self.call("<commit/>").await? };
        if self.persists && confirmed.is_err() {
            // Nothing is on trial under this name; it was confirmed already, or has gone back.
            confirmed = self.call("<commit/>").await?;
        }
        if let Err(refused) = confirmed {
            return Ok(not_kept(&refused.words));
        }
        self.unlock().await?;
        Ok(ApplyOutcome::Applied)
    }

    /// Takes back what is on trial.
    pub(super) async fn undo(&mut self) -> Result<bool, Failure> {
        if self.persists {
            let cancel = format!("<cancel-commit><persist-id>{NAME}</persist-id></cancel-commit>");
            let done = self.call(&cancel).await?.is_ok();
            self.unlock().await?;
            return Ok(done);
        }
        let done =
            self.call("<load-configuration rollback=\"1\"/>").await?.is_ok() && self.call("<commit/>").await?.is_ok();
        self.unlock().await?;
        Ok(done)
    }
}

/// The first error of an answer that is not only a warning.
fn refused(answer: &str) -> Option<Refused> {
    let mut rest = answer;
    while let Some(error) = inside(rest, "rpc-error") {
        if inside(error, "error-severity").map(str::trim) != Some("warning") {
            let words = inside(error, "error-message").unwrap_or_default().trim();
            let words: String = words.chars().filter(|c| !c.is_control()).take(160).collect();
            let tag = inside(error, "error-tag").unwrap_or_default().trim().to_owned();
            return Some(Refused { words: if words.is_empty() { tag.clone() } else { words }, tag });
        }
        rest = rest.split_once(error).map_or("", |(_, after)| after);
    }
    None
}

/// What is between the tags of the first element of this name, with or without a prefix.
fn inside<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut from = 0;
    loop {
        let open = from + text[from..].find('<')? + 1;
        let close = open + text[open..].find('>')?;
        let tag = text[open..close].split([' ', '\n', '\t', '/']).next().unwrap_or_default();
        if tag.rsplit(':').next() == Some(name) && !text[open..close].ends_with('/') {
            let end = text[close..].find(&format!("</{tag}>"))?;
            return Some(&text[close + 1..close + end]);
        }
        from = close;
    }
}

/// The first whole message in what was heard, and how much of it that is.
fn whole(heard: &[u8], pieces: bool) -> Result<Option<(Zeroizing<String>, usize)>, Failure> {
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| strange("an answer is no text"));
    if !pieces {
        let Some(at) = heard.windows(END.len()).position(|window| window == END) else { return Ok(None) };
        return Ok(Some((text(heard[..at].to_vec())?, at + END.len())));
    }
    let (mut message, mut at) = (Vec::new(), 0);
    loop {
        let Some(rest) = heard.get(at..).filter(|rest| rest.len() >= 4) else { return Ok(None) };
        let rest = rest.strip_prefix(b"\n#").ok_or_else(|| strange("a piece has no length"))?;
        if rest.starts_with(b"#\n") {
            return Ok(Some((text(message)?, at + 4)));
        }
        let Some(line) = rest.iter().take(12).position(|byte| *byte == b'\n') else {
            return if rest.len() > 12 { Err(strange("a piece has no length")) } else { Ok(None) };
        };
        let length = std::str::from_utf8(&rest[..line]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let length =
            length.filter(|n| (1..=LONGEST).contains(n)).ok_or_else(|| strange("a piece has a wrong length"))?;
        let Some(piece) = rest.get(line + 1..line + 1 + length) else { return Ok(None) };
        message.extend_from_slice(piece);
        at += 2 + line + 1 + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(heard: &[u8], pieces: bool) -> Option<(String, usize)> {
        whole(heard, pieces).expect("is fine").map(|(text, n)| (text.to_string(), n))
    }

    #[test]
    fn messages_are_found_in_both_framings() {
        assert_eq!(read(b"<hello/>]]>]]>\n#4", false), Some(("<hello/>".into(), 14)));
        assert_eq!(read(b"<hello/>]]>]]", false), None);
        let heard = b"\n#4\n<rpc\n#18\n message-id=\"102\">\n##\nrest";
        let (text, length) = read(heard, true).expect("is whole");
        assert_eq!((text.as_str(), &heard[length..]), ("<rpc message-id=\"102\">", &b"rest"[..]));
        for cut in 0..length {
            assert_eq!(read(&heard[..cut], true), None, "{cut}");
        }
        for wrong in [&b"<rpc>"[..], b"\n#x\n<a>", b"\n#0\n<a/>", b"\n#99999999999999"] {
            assert!(whole(wrong, true).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn errors_are_told_and_warnings_are_not() {
        let warning = "<nc:rpc-error><nc:error-severity>warning</nc:error-severity></nc:rpc-error>";
        assert!(refused(&format!("<rpc-reply>{warning}<ok/></rpc-reply>")).is_none());
        let error = "<rpc-error>\n<error-tag>lock-denied</error-tag><error-severity>error</error-severity>\
            <error-message xml:lang=\"en\">\nconfiguration database modified\n</error-message></rpc-error>";
        let told = refused(&format!("<rpc-reply>{warning}{error}</rpc-reply>")).expect("an error");
        assert_eq!((told.tag.as_str(), told.words.as_str()), ("lock-denied", "configuration database modified"));
        assert_eq!(told.failure().class, FailureClass::Timeout);
        assert!(refused("<rpc-reply><data/></rpc-reply>").is_none());
    }
}
