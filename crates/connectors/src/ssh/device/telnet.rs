//! Telnet (RFC 854), for devices that have nothing better, and only where `allow-telnet` says so.
//!
//! What must stay true: the password is sent once, and only after the device has asked for one. Nobody knows who answers, and everybody on the
//! way can read it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use volvelle_domain::Credential;
use volvelle_domain::connector::{Failure, FailureClass, TargetParams};
use zeroize::Zeroizing;

use super::super::broken;
use super::super::session::Address;
use super::profile::Profile;
use super::terminal::plain;

const CONNECT: Duration = Duration::from_secs(10);
/// Most characters before a login has ended.
const LONGEST: usize = 16 * 1024;

/// Commands of the protocol.
const COMMAND: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const BEGIN: u8 = 250;
const END: u8 = 240;
/// Options that are agreed to: the device repeats what it is sent, and nobody says that it is done.
const ECHO: u8 = 1;
const NO_GO_AHEAD: u8 = 3;

/// Where in a command the bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Text,
    Command,
    Option(u8),
    Inside,
    InsideCommand,
}

/// Takes the commands out of what is received.
#[derive(Debug, Default)]
struct Reader {
    at: At,
}

impl Reader {
    /// The text, and what is to be answered.
    fn read(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut text, mut answer) = (Vec::with_capacity(bytes.len()), Vec::new());
        for byte in bytes.iter().copied() {
            self.at = match (self.at, byte) {
                (At::Text, COMMAND) => At::Command,
                (At::Command, COMMAND) | (At::Text, _) => {
                    text.push(byte);
                    At::Text
                }
                (At::Command, DO | DONT | WILL | WONT) => At::Option(byte),
                (At::Command, BEGIN) => At::Inside,
                (At::Option(WILL), ECHO | NO_GO_AHEAD) => {
                    answer.extend_from_slice(&[COMMAND, DO, byte]);
                    At::Text
                }
                (At::Option(DO), NO_GO_AHEAD) => {
                    answer.extend_from_slice(&[COMMAND, WILL, byte]);
                    At::Text
                }
                (At::Option(asked @ (WILL | DO)), _) => {
                    answer.extend_from_slice(&[COMMAND, if asked == WILL { DONT } else { WONT }, byte]);
                    At::Text
                }
                (At::Command | At::Option(_), _) | (At::InsideCommand, END) => At::Text,
                (At::Inside, COMMAND) => At::InsideCommand,
                (At::Inside | At::InsideCommand, _) => At::Inside,
            };
        }
        (text, answer)
    }
}

/// A connection with somebody logged in.
pub(super) struct Telnet {
    stream: TcpStream,
    shown: String,
    reader: Reader,
    /// What was read and belongs to what comes next.
    unread: Zeroizing<Vec<u8>>,
}

fn refused(user: &str) -> Failure {
    Failure::new(
        FailureClass::Auth,
        format!("the device refused the credential of {user}"),
        "run `volvelle rotated-secret verify`, or correct the credential of the target",
    )
}

impl Telnet {
    /// Connects and logs in; a device without users asks for the password at once.
    pub(super) async fn log_in(
        target: &TargetParams,
        profile: &Profile,
        credential: &Credential,
        budget: u32,
    ) -> Result<Self, Failure> {
        if budget == 0 {
            let message = "no failed login may be risked on the device any more";
            return Err(Failure::new(FailureClass::LoginBudget, message, "wait until the login budget is free again"));
        }
        let address = Address::of(target)?;
        let shown = address.shown();
        let away = |why: String| {
            let message = format!("{shown} cannot be reached: {why}");
            Failure::new(FailureClass::Unreachable, message, "check host and port of the target (telnet: 23)")
        };
        let connect = tokio::time::timeout(CONNECT, TcpStream::connect(address.pair())).await;
        let stream = connect.map_err(|_| away("no answer".into()))?.map_err(|error| away(error.kind().to_string()))?;
        let _ = stream.set_nodelay(true);
        let unread = Zeroizing::new(Vec::new());
        let mut telnet = Self { stream, shown, reader: Reader::default(), unread };
        telnet.talk(profile, credential).await?;
        Ok(telnet)
    }

    async fn talk(&mut self, profile: &Profile, credential: &Credential) -> Result<(), Failure> {
        let user = credential.expose_text("username").unwrap_or_default();
        let password = credential.expose_text("password").unwrap_or_default();
        let (mut heard, mut named, mut given) = (Zeroizing::new(String::new()), false, false);
        while let Some(bytes) = self.receive().await? {
            heard.push_str(&String::from_utf8_lossy(&bytes));
            if heard.len() > LONGEST {
                return Err(Failure::new(FailureClass::Protocol, "the device does not ask for a login", "check port"));
            }
            let text = plain(&heard);
            let last = text.rsplit('\n').next().unwrap_or_default();
            let asked = last.trim_end().to_lowercase();
            let says_no = ["incorrect", "invalid", "bad password", "failed", "denied"];
            if given && says_no.iter().any(|word| text.to_lowercase().contains(word)) {
                return Err(refused(user));
            }
            if asked.ends_with("password:") || asked.ends_with("username:") || asked.ends_with("login:") {
                if given {
                    return Err(refused(user));
                }
                let wants_name = !asked.ends_with("password:");
                if wants_name && named {
                    return Err(refused(user));
                }
                named = true;
                given = !wants_name;
                self.send(if wants_name { user.as_bytes() } else { password.as_bytes() }).await?;
                heard.clear();
            } else if profile.prompt.is_match(last) {
                if !given {
                    let message = format!("the device lets {user} in without any password");
                    return Err(super::config(message, "give the device a password for its lines"));
                }
                self.unread = Zeroizing::new(last.as_bytes().to_vec());
                return Ok(());
            }
        }
        Err(if given { refused(user) } else { broken("before the login") })
    }

    /// Sends a line.
    pub(super) async fn send(&mut self, line: &[u8]) -> Result<(), Failure> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * line.len() + 2));
        for byte in line.iter().copied() {
            bytes.extend(std::iter::repeat_n(byte, if byte == COMMAND { 2 } else { 1 }));
        }
        bytes.extend_from_slice(b"\r\n");
        self.put(&bytes).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).await.map_err(|error| {
            let message = format!("the connection to {} broke: {}", self.shown, error.kind());
            Failure::new(FailureClass::Unreachable, message, "try again")
        })
    }

    /// Some text; `None` at the end.
    pub(super) async fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if !self.unread.is_empty() {
            return Ok(Some(std::mem::take(&mut *self.unread)));
        }
        let mut bytes = Zeroizing::new([0; 4096]);
        loop {
            let Ok(length @ 1..) = self.stream.read(bytes.as_mut_slice()).await else { return Ok(None) };
            let (text, answer) = self.reader.read(&bytes[..length]);
            if !answer.is_empty() {
                self.put(&answer).await?;
            }
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_answered_and_taken_out_wherever_they_are_cut() {
        let sent = [
            b"a",
            &[COMMAND, WILL, ECHO][..],
            b"b",
            &[COMMAND, DO, 31],
            &[COMMAND, BEGIN, 24, 1, COMMAND, END],
            b"c",
            &[COMMAND, COMMAND],
        ];
        let sent = sent.concat();
        let expected = (b"abc\xff".to_vec(), vec![COMMAND, DO, ECHO, COMMAND, WONT, 31]);
        for cut in 0..=sent.len() {
            let mut reader = Reader::default();
            let (mut text, mut answer) = reader.read(&sent[..cut]);
            let (more, again) = reader.read(&sent[cut..]);
            text.extend(more);
            answer.extend(again);
            assert_eq!((text, answer), expected, "{cut}");
        }
    }
}
