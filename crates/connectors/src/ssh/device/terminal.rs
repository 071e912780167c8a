//! A shell on a device, read up to its prompt.
//!
//! What must stay true: a password is sent only after the device has asked for one, so that it is never taken for a command (a
//! mistyped one is looked up as a host name, in the clear).

use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::super::broken;
use super::super::session::lost;
use super::line::Line;
use super::profile::Profile;
use super::telnet::Telnet;

/// Most characters of one answer.
const LONGEST: usize = 64 * 1024;
/// Most confirmations that one command may ask for.
const CONFIRMATIONS: usize = 3;

/// What the last line of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// The device waits for a command.
    Command,
    /// It asks for a password.
    Password,
    /// It asks whether to go on.
    Confirmation,
}

/// What a shell is reached through.
enum Wire<'a> {
    Ssh(Channel<Msg>, &'a str),
    Telnet(&'a mut Telnet),
}

/// A shell.
pub(super) struct Terminal<'a> {
    wire: Wire<'a>,
    profile: &'a Profile,
    /// The last line of the last answer.
    pub(super) prompt: String,
}

impl<'a> Terminal<'a> {
    /// Opens a shell and waits for its first prompt.
    pub(super) async fn open(line: &'a mut Line, profile: &'a Profile) -> Result<Self, Failure> {
        let wire = match line {
            Line::Telnet(telnet) => Wire::Telnet(telnet),
            Line::Ssh(session) => {
                let channel = session.open().await?;
                let shown = session.shown.as_str();
                channel.request_pty(false, "vt100", 511, 1000, 0, 0, &[]).await.map_err(|e| lost(shown, &e))?;
                channel.request_shell(false).await.map_err(|e| lost(shown, &e))?;
                Wire::Ssh(channel, shown)
            }
        };
        let mut terminal = Self { wire, profile, prompt: String::new() };
        terminal.heard("").await?;
        Ok(terminal)
    }

    /// Whether commands that change something are admitted.
    pub(super) fn is_privileged(&self) -> bool {
        self.profile.privileged.is_match(&self.prompt)
    }

    /// Whether the device is in its configuration mode.
    pub(super) fn is_configuring(&self) -> bool {
        self.profile.configuring.is_match(&self.prompt)
    }

    /// Runs a command, confirming what it asks; the answer is without the echo and the prompt.
    pub(super) async fn run(&mut self, command: &str) -> Result<String, Failure> {
        self.send(command.as_bytes()).await?;
        let (mut said, mut waits) = self.heard(command).await?;
        for _ in 0..CONFIRMATIONS {
            match waits {
                Waits::Command => return Ok(said),
                Waits::Password => break,
                Waits::Confirmation => {
                    self.send(b"").await?;
                    let (more, next) = self.heard("").await?;
                    said.push_str(&more);
                    waits = next;
                }
            }
        }
        Err(Failure::new(FailureClass::Protocol, "the device asks for something unexpected", "look at its prompt"))
    }

    /// Enters the privileged mode with the first password that the device takes; `false` if it takes none.
    pub(super) async fn rise(&mut self, passwords: &[&Secret]) -> Result<bool, Failure> {
        let none = Secret::from("");
        let passwords = if passwords.is_empty() { &[&none][..] } else { passwords };
        let mut waits = Waits::Command;
        for password in passwords {
            // After a wrong password the device asks again, or gives up and is asked again.
            if waits == Waits::Command {
                self.send(self.profile.enable.as_bytes()).await?;
                (_, waits) = self.heard(&self.profile.enable).await?;
            }
            if waits == Waits::Password {
                self.send(password.expose()).await?;
                (_, waits) = self.heard("").await?;
            }
            if waits == Waits::Command && self.is_privileged() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), Failure> {
        match &mut self.wire {
            Wire::Telnet(telnet) => telnet.send(line).await,
            Wire::Ssh(channel, shown) => {
                let line = Zeroizing::new([line, b"\r"].concat());
                channel.data(line.as_slice()).await.map_err(|e| lost(shown, &e))
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match &mut self.wire {
            Wire::Telnet(telnet) => telnet.receive().await,
            Wire::Ssh(channel, _) => loop {
                match channel.wait().await {
                    Some(ChannelMsg::Data { data }) => return Ok(Some(data.to_vec())),
                    Some(_) => {}
                    None => return Ok(None),
                }
            },
        }
    }

    /// Reads until the device waits for something.
    async fn heard(&mut self, echo: &str) -> Result<(String, Waits), Failure> {
        let mut raw = Zeroizing::new(String::new());
        while let Some(data) = self.receive().await? {
            if raw.len() + data.len() > LONGEST {
                return Err(Failure::new(FailureClass::Protocol, "the device's answer is too long", ""));
            }
            raw.push_str(&String::from_utf8_lossy(&data));
            let text = plain(&raw);
            // The device repeats what it was sent before it answers.
            let Some(text) = text.trim_start_matches(['\n', ' ']).strip_prefix(echo) else { continue };
            let (body, last) = text.rsplit_once('\n').unwrap_or(("", text));
            if let Some(waits) = self.waits(last) {
                last.clone_into(&mut self.prompt);
                return Ok((body.trim_matches('\n').to_owned(), waits));
            }
        }
        Err(broken("before the device showed its prompt"))
    }

    fn waits(&self, last: &str) -> Option<Waits> {
        let lower = last.trim_end().to_lowercase();
        if self.profile.prompt.is_match(last) {
            return Some(Waits::Command);
        }
        if lower.ends_with("password:") {
            return Some(Waits::Password);
        }
        ["[confirm]", "[y/n]", "(y/n)?", "]?", "(yes)"]
            .iter()
            .any(|end| lower.ends_with(end))
            .then_some(Waits::Confirmation)
    }
}

/// The text without carriage returns and terminal controls.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                if rest.next_if_eq(&'[').is_some() {
                    // The last character of a control sequence is a letter or one of a few signs.
                    for c in rest.by_ref() {
                        if ('@'..='~').contains(&c) {
                            break;
                        }
                    }
                } else {
                    rest.next();
                }
            }
            '\u{8}' => {
                out.pop();
            }
            '\r' | '\0' | '\u{7}' => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn terminal_controls_are_taken_away() {
        assert_eq!(plain("\u{1b}[4hsw1>en\u{8}n\r\n\u{1b}[2J\u{1b}=x"), "sw1>en\nx");
        assert_eq!(plain("\u{1b}["), "");
    }
}
