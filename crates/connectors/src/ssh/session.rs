//! With `login`, the only module that knows the SSH library: connect to a pinned host, run a script, talk to a prompt.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{self, Handle, Msg};
use russh::keys::{HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Preferred, cipher, kex, mac};
use volvelle_domain::Secret;
use volvelle_domain::connector::{Call, Failure, FailureClass, PeerIdentity, TargetParams};
use zeroize::Zeroizing;

use super::config;

/// Most bytes of a command's output that are kept.
const MOST_OUTPUT: usize = 64 * 1024;

/// Reads a script of one line from standard input and runs it, under any login shell; what follows is the script's input.
const RUN_A_LINE: &str = r#"exec sh -c 'IFS= read -r s; eval "$s"'"#;

/// What Ctrl-D sends on a terminal: end of input. (`passwd` may ignore Ctrl-C while it asks.)
const END_OF_INPUT: &[u8] = b"\x04";
/// The exit status assumed of a command whose input was ended and that reported none.
const GAVE_UP: u32 = 1;

/// A plain parameter as text; empty if it is not set.
pub(super) fn text<'a>(target: &'a TargetParams, name: &str) -> &'a str {
    target.plain.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// A plain parameter as yes or no.
pub(super) fn flag(target: &TargetParams, name: &str) -> bool {
    match target.plain.get(name) {
        Some(serde_json::Value::Bool(value)) => *value,
        Some(serde_json::Value::String(value)) => value == "true",
        _ => false,
    }
}

/// Where a target is.
#[derive(Debug)]
pub(super) struct Address {
    host: String,
    port: u16,
    legacy: bool,
}

impl Address {
    pub(super) fn of(target: &TargetParams) -> Result<Self, Failure> {
        let host = text(target, "host");
        if host.is_empty() {
            return Err(config("host is empty", "set host to the target's name or address"));
        }
        let port = match target.plain.get("port") {
            None => 22,
            Some(value) => value
                .as_u64()
                .or_else(|| value.as_str().and_then(|text| if text.is_empty() { Some(22) } else { text.parse().ok() }))
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| config("port must be between 1 and 65535", "set port, usually 22"))?,
        };
        Ok(Self { host: host.to_owned(), port, legacy: flag(target, "allow-legacy-algorithms") })
    }

    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) fn pair(&self) -> (&str, u16) {
        (self.host.as_str(), self.port)
    }
}

/// Looks at the host's key and lets it in or not; keeps what it saw.
pub(super) struct Gate {
    pinned: Option<Vec<String>>,
    seen: Arc<Mutex<Option<PublicKey>>>,
}

impl client::Handler for Gate {
    type Error = russh::Error;

    async fn check_server_key(&mut self, peer: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = peer else { return Ok(false) };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        let written = line(key);
        Ok(self.pinned.as_ref().is_some_and(|pinned| pinned.contains(&written)))
    }
}

/// The key as `algorithm base64`, without comment.
fn line(key: &PublicKey) -> String {
    key.to_openssh().map(|text| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

fn identity(address: &Address, key: &PublicKey) -> PeerIdentity {
    PeerIdentity {
        address: address.shown(),
        algorithm: key.algorithm().to_string(),
        public_key: line(key),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
    }
}

fn client_config(legacy: bool) -> Arc<client::Config> {
    let mut config = client::Config { nodelay: true, ..client::Config::default() };
    if legacy {
        let mut preferred = Preferred::default();
        let kex = [kex::DH_GEX_SHA1, kex::DH_G14_SHA1, kex::DH_G1_SHA1];
        preferred.kex = Cow::Owned([&preferred.kex[..], &kex].concat());
        let ciphers = [cipher::AES_256_CBC, cipher::AES_128_CBC, cipher::TRIPLE_DES_CBC];
        preferred.cipher = Cow::Owned([&preferred.cipher[..], &ciphers].concat());
        preferred.mac = Cow::Owned([&preferred.mac[..], &[mac::HMAC_SHA1]].concat());
        let rsa = russh::keys::Algorithm::Rsa { hash: None };
        if !preferred.key.contains(&rsa) {
            preferred.key = Cow::Owned([&preferred.key[..], &[rsa]].concat());
        }
        config.gex = client::GexParams::new(2048, 2048, 8192).unwrap_or(config.gex);
        config.preferred = preferred;
    }
    Arc::new(config)
}

/// What opened a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing yet.
    None,
    /// A key, which a change of password does not touch.
    Key,
    /// The account's password.
    Password,
}

/// What was last read of an account's shadow field, and the password it is known to hold.
pub(super) struct Seen {
    pub(super) user: String,
    pub(super) field: Secret,
    pub(super) password: Option<Secret>,
}

/// A connection to a host whose key was checked.
pub(super) struct Session {
    pub(super) handle: Handle<Gate>,
    pub(super) shown: String,
    /// The host's key as `algorithm base64`.
    pub(super) host_key: String,
    pub(super) way: Way,
    pub(super) seen: Option<Seen>,
}

/// What a command did.
pub(super) struct Ran {
    /// Exit status; `None` if the connection ended before it came.
    pub(super) status: Option<u32>,
    /// The server does not run commands at all.
    pub(super) refused: bool,
    pub(super) stdout: Secret,
    pub(super) stderr: String,
}

impl Ran {
    /// The lines `name=value` that a script answered with.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.stdout.expose().split(|byte| *byte == b'\n');
        lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once('='))
    }

    /// The first answer of this name that is not empty.
    pub(super) fn answer(&self, name: &str) -> Option<&str> {
        self.answers().find(|(n, value)| *n == name && !value.is_empty()).map(|(_, value)| value)
    }
}

/// The key the user pinned with `host-key`, if there is one.
pub(super) fn given(target: &TargetParams) -> Result<Option<PublicKey>, Failure> {
    let text = text(target, "host-key").trim();
    if text.is_empty() {
        return Ok(None);
    }
    PublicKey::from_openssh(text)
        .map(Some)
        .map_err(|_| config("host-key is not a public key", "give it as in known_hosts: `ssh-ed25519 AAAA…`"))
}

/// Asks a host for its key, without trusting it and without logging in. A key that was given needs no host to confirm it, but
/// a host that answers must show the same.
pub(super) async fn learn(target: &TargetParams) -> Result<PeerIdentity, Failure> {
    let address = Address::of(target)?;
    let seen = Arc::new(Mutex::new(None));
    let gate = Gate { pinned: None, seen: Arc::clone(&seen) };
    let refused = client::connect(client_config(address.legacy), (address.host.as_str(), address.port), gate).await;
    let key = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (key, given(target)?, refused) {
        (Some(key), Some(given), _) if line(&given) != line(&key) => {
            Err(changed(&address, &key, "is not the one given in host-key"))
        }
        (Some(key), ..) | (None, Some(key), Err(_)) => Ok(identity(&address, &key)),
        (None, None, Err(error)) => Err(unreachable(&address.shown(), &error)),
        (None, _, Ok(_)) => Err(Failure::new(FailureClass::Protocol, "the host showed no key", "")),
    }
}

impl Session {
    /// Connects to the call's target; only to a host with a pinned key.
    pub(super) async fn connect(call: &Call<'_>) -> Result<Self, Failure> {
        let address = Address::of(call.target)?;
        let shown = address.shown();
        let pinned: Vec<String> =
            call.pinned.iter().filter(|p| p.address == shown).map(|p| p.public_key.clone()).collect();
        if pinned.is_empty() {
            return Err(Failure::new(
                FailureClass::PeerIdentity,
                format!("no host key is pinned for {shown}"),
                "run `volvelle target trust-host-key` after comparing the fingerprint",
            ));
        }
        let seen = Arc::new(Mutex::new(None));
        let gate = Gate { pinned: Some(pinned.clone()), seen: Arc::clone(&seen) };
        let config = client_config(address.legacy);
        match client::connect(config, (address.host.as_str(), address.port), gate).await {
            Ok(handle) => {
                let host_key = seen.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(line);
                let host_key = host_key.unwrap_or_default();
                Ok(Self { handle, shown, host_key, way: Way::None, seen: None })
            }
            Err(error) => {
                let key = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(match key.filter(|key| !pinned.contains(&line(key))) {
                    Some(key) => changed(&address, &key, "changed"),
                    None => unreachable(&shown, &error),
                })
            }
        }
    }

    /// Opens a channel. Until it is open, nothing of a command has been sent.
    pub(super) async fn open(&self) -> Result<Channel<Msg>, Failure> {
        self.handle.channel_open_session().await.map_err(|e| lost(&self.shown, &e))
    }

    /// Runs a script of one line on the channel; it reads `lines` with `read`, so that neither it nor they are in the
    /// host's process list.
    pub(super) async fn run(&self, channel: Channel<Msg>, script: &str, lines: &[&[u8]]) -> Result<Ran, Failure> {
        let mut input = Zeroizing::new(Vec::with_capacity(MOST_OUTPUT));
        for line in [script.as_bytes()].iter().chain(lines) {
            input.extend_from_slice(line);
            input.push(b'\n');
        }
        self.feed(channel, RUN_A_LINE, &input, &|| ()).await
    }

    /// Runs a command with this input. `sending` is called just before the input leaves.
    pub(super) async fn feed(
        &self,
        channel: Channel<Msg>,
        command: &str,
        input: &[u8],
        sending: &(dyn Fn() + Sync),
    ) -> Result<Ran, Failure> {
        channel.exec(true, command).await.map_err(|e| lost(&self.shown, &e))?;
        sending();
        channel.data(input).await.map_err(|e| lost(&self.shown, &e))?;
        channel.eof().await.map_err(|e| lost(&self.shown, &e))?;
        Ok(collect(channel).await)
    }

    /// Runs a command on a terminal and answers its prompts in order: `(what the prompt may contain, answer)`. A prompt for
    /// a password that is not the next one is answered with the end of input, which `passwd` takes as "change nothing".
    pub(super) async fn converse(
        &self,
        mut channel: Channel<Msg>,
        command: &str,
        dialogue: &[(&[&str], &Secret)],
    ) -> Result<Ran, Failure> {
        let modes = [(russh::Pty::ECHO, 0)];
        channel.request_pty(true, "dumb", 200, 24, 0, 0, &modes).await.map_err(|e| lost(&self.shown, &e))?;
        channel.exec(true, command).await.map_err(|e| lost(&self.shown, &e))?;
        let (mut heard, mut unanswered, mut status, mut next) = (String::new(), String::new(), None, 0);
        let mut gave_up = false;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } if heard.len() < MOST_OUTPUT => {
                    let part = String::from_utf8_lossy(&data).into_owned();
                    heard.push_str(&part);
                    unanswered.push_str(&part.to_lowercase());
                    let Some(prompt) = asked(&unanswered) else { continue };
                    if let Some((_, answer)) =
                        dialogue.get(next).filter(|(any, _)| any.iter().any(|p| prompt.contains(p)))
                    {
                        let reply = Zeroizing::new([answer.expose(), b"\n"].concat());
                        channel.data(reply.as_slice()).await.map_err(|e| lost(&self.shown, &e))?;
                        next += 1;
                    } else {
                        gave_up = true;
                        channel.data(END_OF_INPUT).await.map_err(|e| lost(&self.shown, &e))?;
                    }
                    unanswered.clear();
                }
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
        let status = status.or(gave_up.then_some(GAVE_UP));
        Ok(Ran { status, refused: false, stdout: Secret::from(""), stderr: heard })
    }
}

/// The prompt for a password that the text ends with, if it does. `BAD PASSWORD:` is a remark and no prompt.
fn asked(text: &str) -> Option<&str> {
    let line = text.trim_end().rsplit(['\n', '\r']).next()?;
    (line.ends_with(':') && line.contains("password") && !line.contains("bad password")).then_some(line)
}

async fn collect(mut channel: Channel<Msg>) -> Ran {
    // Room from the start: a vector that grows leaves copies of what it held behind.
    let (mut stdout, mut stderr, mut status) = (Vec::with_capacity(2 * MOST_OUTPUT), Vec::new(), None);
    let mut refused = false;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } if stdout.len() < MOST_OUTPUT => stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } if stderr.len() < MOST_OUTPUT => stderr.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Failure => refused = true,
            _ => {}
        }
    }
    Ran { status, refused, stdout: Secret::new(stdout), stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

fn changed(address: &Address, key: &PublicKey, how: &str) -> Failure {
    let now = identity(address, key);
    Failure::new(
        FailureClass::PeerIdentity,
        format!("the host key of {} {how}: it is {} {}", now.address, now.algorithm, now.fingerprint),
        "find out why; if the change is right, accept it with `volvelle target trust-host-key`",
    )
}

fn unreachable(shown: &str, error: &russh::Error) -> Failure {
    if let russh::Error::NoCommonAlgo { kind, .. } = error {
        return Failure::new(
            FailureClass::Config,
            format!("{shown} and Volvelle have no {kind:?} algorithm in common"),
            "for an old device, set allow-legacy-algorithms on the target",
        );
    }
    Failure::new(
        FailureClass::Unreachable,
        format!("{shown} cannot be reached: {error}"),
        "check host and port of the target, and the network between",
    )
}

pub(super) fn lost(shown: &str, error: &russh::Error) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the connection to {shown} broke: {error}"), "try again")
}

#[cfg(test)]
mod tests {
    use super::asked;

    #[test]
    fn only_an_unfinished_line_that_asks_for_a_password_is_a_prompt() {
        assert_eq!(asked("changing password for app1.\r\ncurrent password: "), Some("current password:"));
        assert_eq!(asked("bad password:"), None);
        assert_eq!(asked("bad password: it is too short\r\nnew password: "), Some("new password:"));
        assert_eq!(asked("changing password for app1\r\n"), None);
        assert_eq!(asked("passwd: password updated successfully\r\n"), None);
    }
}
