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
use super::super::session::{Session, lost};
use super::profile::Profile;

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

/// A shell.
pub(super) struct Terminal<'a> {
    channel: Channel<Msg>,
    profile: &'a Profile,
    shown: &'a str,
    /// The last line of the last answer.
    pub(super) prompt: String,
}

impl<'a> Terminal<'a> {
    /// Opens a shell and waits for its first prompt.
    pub(super) async fn open(session: &'a Session, profile: &'a Profile) -> Result<Self, Failure> {
        let channel = session.open().await?;
        let shown = session.shown.as_str();
        channel.request_pty(false, "vt100", 511, 1000, 0, 0, &[]).await.map_err(|e| lost(shown, &e))?;
        channel.request_shell(false).await.map_err(|e| lost(shown, &e))?;
        let mut terminal = Self { channel, profile, shown, prompt: String::new() };
        terminal.heard("").await?;
        Ok(terminal)
    }

    /// Whether commands that change something are admitted.
    pub(super) fn is_privileged(&self) -> bool {
        self.prompt.trim_end().ends_with('#')
    }

    /// Whether the device is in its configuration mode.
    pub(super) fn is_configuring(&self) -> bool {
        self.prompt.contains("(config")
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

    /// Enters the privileged mode; `false` if the device refuses the password.
    pub(super) async fn rise(&mut self, password: Option<&Secret>) -> Result<bool, Failure> {
        self.send(self.profile.enable.as_bytes()).await?;
        let (_, waits) = self.heard(&self.profile.enable).await?;
        if waits == Waits::Password {
            self.send(password.map_or(&[][..], Secret::expose)).await?;
            let (_, again) = self.heard("").await?;
            if again != Waits::Command {
                // It asks again: no second try.
                return Ok(false);
            }
        }
        Ok(self.is_privileged())
    }

    async fn send(&self, line: &[u8]) -> Result<(), Failure> {
        let line = Zeroizing::new([line, b"\r"].concat());
        self.channel.data(line.as_slice()).await.map_err(|e| lost(self.shown, &e))
    }

    /// Reads until the device waits for something.
    async fn heard(&mut self, echo: &str) -> Result<(String, Waits), Failure> {
        let mut raw = Zeroizing::new(String::new());
        while let Some(message) = self.channel.wait().await {
            let ChannelMsg::Data { data } = message else { continue };
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
        ["[confirm]", "[y/n]", "(y/n)?", "]?"].iter().any(|end| lower.ends_with(end)).then_some(Waits::Confirmation)
    }
}

/// The text without carriage returns and terminal controls.
fn plain(text: &str) -> String {
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
