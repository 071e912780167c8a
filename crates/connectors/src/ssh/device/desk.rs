//! What is done at a device: read the stored password, change it, keep the change or take it back; at its command line or over NETCONF.
//!
//! What must stay true: where a platform can take a change back by itself, it is on trial until somebody has logged in with the new
//! password; only then is it kept.

use volvelle_domain::Secret;
use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass};

use super::super::session::text;
use super::super::visit::Visit;
use super::line::Line;
use super::netconf::Netconf;
use super::profile::{Place, Profile, Trial};
use super::terminal::Terminal;
use super::{config, filled};

/// A place to work at.
pub(super) enum Desk<'a> {
    Cli(Box<Cli<'a>>),
    Netconf(Box<Netconf<'a>>),
}

/// A change that was not made, in the device's own words.
pub(super) fn refusal(words: &str) -> Failure {
    let lower = words.to_lowercase();
    let policy = ["length", "complex", "weak", "history", "reuse"].iter().any(|word| lower.contains(word));
    let class = if policy { FailureClass::Policy } else { FailureClass::Config };
    Failure::new(class, format!("the device refuses the change: {words}"), "check device-type and its version")
}

/// The configuration is somebody else's for now.
pub(super) fn occupied(words: &str) -> Failure {
    Failure::new(
        FailureClass::Timeout,
        format!("somebody else is changing the configuration of the device: {words}"),
        "let them finish, then rotate again",
    )
}

/// A change that the device has and may lose.
pub(super) fn not_kept(words: &str) -> ApplyOutcome {
    let message = format!("the device has the new password, but its configuration was not saved {words}");
    ApplyOutcome::Ambiguous(Failure::new(FailureClass::Protocol, message.trim_end(), "save it on the device"))
}

impl<'a> Desk<'a> {
    /// Opens one for somebody who has logged in. `keys` are tried in order where the privileged mode asks for a password.
    pub(super) async fn open(
        visit: &Visit<'_>,
        line: &'a mut Line,
        profile: &'a Profile,
        keys: &[&Secret],
    ) -> Result<Desk<'a>, Failure> {
        if text(visit.call.target, "device-transport") == "netconf"
            && let Line::Ssh(session) = line
        {
            let part = profile.netconf.as_ref().ok_or_else(|| no_netconf(&profile.summary))?;
            return Ok(Self::Netconf(Box::new(Netconf::open(session, part).await?)));
        }
        let place = profile.place(visit.call.rotator_type)?;
        Ok(Self::Cli(Box::new(Cli { terminal: shell(line, profile, keys).await?, profile, place })))
    }

    /// Whether changes are on trial until they are kept.
    pub(super) fn tries(&self) -> bool {
        match self {
            Self::Cli(cli) => cli.profile.trial.is_some(),
            Self::Netconf(_) => true,
        }
    }

    /// Proves that the configuration can be changed, where that can be done without changing it.
    pub(super) async fn rehearse(&mut self) -> Result<(), Failure> {
        match self {
            Self::Cli(cli) if cli.profile.trial.is_none() => Ok(()),
            Self::Cli(cli) => {
                cli.configure().await?;
                cli.terminal.run(&cli.profile.leave).await.map(|_| ())
            }
            Self::Netconf(netconf) => netconf.rehearse().await,
        }
    }

    /// The user's stored password in the running configuration.
    pub(super) async fn running(&mut self, user: &str) -> Result<Option<Secret>, Failure> {
        match self {
            Self::Cli(cli) => cli.stored(&cli.place.running, user).await,
            Self::Netconf(netconf) => netconf.stored(user).await,
        }
    }

    /// The user's stored password in what a restart comes back to.
    pub(super) async fn saved(&mut self, user: &str) -> Result<Option<Secret>, Failure> {
        match self {
            Self::Cli(cli) => cli.stored(&cli.place.saved, user).await,
            Self::Netconf(netconf) => netconf.stored(user).await,
        }
    }

    /// Puts a stored form into the configuration. The outcome, if it was not done.
    pub(super) async fn change(&mut self, visit: &Visit<'_>, verifier: &str) -> Result<Option<ApplyOutcome>, Failure> {
        match self {
            Self::Cli(cli) => cli.change(visit, verifier).await,
            Self::Netconf(netconf) => netconf.change(visit, verifier).await,
        }
    }

    /// Saves the configuration, or confirms what is on trial.
    pub(super) async fn keep(&mut self) -> Result<ApplyOutcome, Failure> {
        match self {
            Self::Cli(cli) => cli.keep().await,
            Self::Netconf(netconf) => netconf.keep().await,
        }
    }

    /// Takes back what is on trial; whether that went well.
    pub(super) async fn undo(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Cli(cli) => cli.undo().await,
            Self::Netconf(netconf) => netconf.undo().await,
        }
    }
}

/// A platform is not spoken with over NETCONF.
pub(super) fn no_netconf(summary: &str) -> Failure {
    config(format!("{summary} is not spoken with over NETCONF"), "set device-transport to cli")
}

/// A privileged shell with paging off.
async fn shell<'a>(line: &'a mut Line, profile: &'a Profile, keys: &[&Secret]) -> Result<Terminal<'a>, Failure> {
    let mut terminal = Terminal::open(line, profile).await?;
    if !terminal.is_privileged() && !terminal.rise(keys).await? {
        let message = "the device does not admit the acting user to its privileged mode";
        return Err(Failure::new(
            FailureClass::Privilege,
            message,
            "set enable-password, or give the user privilege 15",
        ));
    }
    for command in &profile.quiet {
        terminal.run(command).await?;
    }
    Ok(terminal)
}

/// A command line.
pub(super) struct Cli<'a> {
    terminal: Terminal<'a>,
    profile: &'a Profile,
    place: &'a Place,
}

impl<'a> Cli<'a> {
    async fn stored(&mut self, command: &str, user: &str) -> Result<Option<Secret>, Failure> {
        let shown = self.terminal.run(&filled(command, user)).await?;
        Ok(self.place.stored(&shown))
    }

    async fn configure(&mut self) -> Result<(), Failure> {
        let said = self.terminal.run(&self.profile.configure).await?;
        if self.terminal.is_configuring() {
            return Ok(());
        }
        if let Some(words) = self.profile.refusal(&said)
            && ["locked", "modified", "exclusive"].iter().any(|word| words.contains(word))
        {
            return Err(occupied(&words));
        }
        let message = "the device does not admit the acting user to its configuration";
        Err(Failure::new(FailureClass::Privilege, message, "give the user privilege 15, or the class super-user"))
    }

    async fn change(&mut self, visit: &Visit<'_>, verifier: &str) -> Result<Option<ApplyOutcome>, Failure> {
        self.configure().await?;
        let command = filled(&self.place.change, visit.user()).replace("{{VERIFIER}}", verifier);
        visit.sending();
        let said = self.terminal.run(&command).await?;
        let refused = self.profile.refusal(&said);
        let profile = self.profile;
        match (&profile.trial, refused) {
            (None, refused) => {
                self.terminal.run(&profile.leave).await?;
                Ok(refused.map(|words| ApplyOutcome::Rejected(refusal(&words))))
            }
            (Some(trial), Some(words)) => self.abandon(trial, &words).await.map(Some),
            (Some(trial), None) => self.attempt(trial).await,
        }
    }

    async fn attempt(&mut self, trial: &Trial) -> Result<Option<ApplyOutcome>, Failure> {
        let said = self.terminal.run(&trial.attempt).await?;
        if self.profile.kept.is_match(&said) {
            return Ok(None);
        }
        match self.profile.refusal(&said) {
            Some(words) => self.abandon(trial, &words).await.map(Some),
            None => Ok(Some(not_kept(""))),
        }
    }

    async fn abandon(&mut self, trial: &Trial, words: &str) -> Result<ApplyOutcome, Failure> {
        self.terminal.run(&trial.abandon).await?;
        self.terminal.run(&self.profile.leave).await?;
        Ok(ApplyOutcome::Rejected(refusal(words)))
    }

    async fn keep(&mut self) -> Result<ApplyOutcome, Failure> {
        let on_trial = self.profile.trial.is_some();
        if on_trial && !self.terminal.is_configuring() {
            self.configure().await?;
        }
        let said = self.terminal.run(&self.profile.save).await?;
        if !self.profile.kept.is_match(&said) {
            return Ok(not_kept(&self.profile.refusal(&said).unwrap_or_default()));
        }
        if on_trial {
            self.terminal.run(&self.profile.leave).await?;
        }
        Ok(ApplyOutcome::Applied)
    }

    async fn undo(&mut self) -> Result<bool, Failure> {
        let Some(trial) = &self.profile.trial else { return Ok(false) };
        if !self.terminal.is_configuring() {
            self.configure().await?;
        }
        let mut said = String::new();
        for command in &trial.undo {
            said = self.terminal.run(command).await?;
        }
        self.terminal.run(&self.profile.leave).await?;
        Ok(self.profile.kept.is_match(&said))
    }
}
