//! One call of the connector: whose account it is, who acts, and how it gets in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::Channel;
use russh::client::Msg;
use volvelle_domain::connector::{ActingAs, Call, Failure, FailureClass};
use volvelle_domain::{Credential, Secret};

use super::kept::Kept;
use super::login::Login;
use super::session::{Session, Way, text};

/// How long a kept session may take to show that it still lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// A call with the sessions it may use.
pub(super) struct Visit<'a> {
    pub(super) call: &'a Call<'a>,
    kept: &'a Arc<Kept>,
    sent: AtomicBool,
}

/// A session with a channel open on it: nothing has been sent yet.
pub(super) struct Inside {
    pub(super) session: Session,
    pub(super) channel: Channel<Msg>,
}

/// What came of entering.
pub(super) enum Entry {
    Inside(Box<Inside>),
    /// The acting password is right, and has expired.
    Expired,
}

impl<'a> Visit<'a> {
    pub(super) fn new(call: &'a Call<'a>, kept: &'a Arc<Kept>) -> Self {
        Self { call, kept, sent: AtomicBool::new(false) }
    }

    /// From here on the change may arrive at the host.
    pub(super) fn sending(&self) {
        self.sent.store(true, Ordering::Release);
    }

    /// Whether the change may have arrived at the host.
    pub(super) fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    /// The account whose credential changes.
    pub(super) fn user(&self) -> &'a str {
        self.call.current.expose_text("username").unwrap_or_default()
    }

    /// Whether the account acts for itself.
    pub(super) fn own(&self) -> bool {
        self.acting().expose_text("username") == Some(self.user())
    }

    /// A plain parameter of the secret; empty if it is not set.
    pub(super) fn param(&self, name: &str) -> &'a str {
        self.call.params.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// The credential that logs in to make the change. Of rotator type `target` it is the target's key, which does not
    /// change, with the password last witnessed; the password in the target's record may be older or newer than that.
    pub(super) fn acting(&self) -> Credential {
        let call = self.call;
        let own_target = call.rotator_type == "target";
        if call.acting == ActingAs::User && !own_target {
            return call.current.clone();
        }
        let mut credential = Credential::default().with("username", text(call.target, "ssh-username").into());
        for (parameter, field) in [("private-key", "private_key"), ("private-key-password", "private_key_password")] {
            if let Some(value) = call.target.secret.field(parameter) {
                credential = credential.with(field, value.clone());
            }
        }
        let witnessed = call.current.field("password").filter(|_| own_target);
        match witnessed.or_else(|| call.target.secret.field("ssh-password")) {
            Some(password) => credential.with("password", password.clone()),
            None => credential,
        }
    }

    /// Gets in as `credential` and opens a channel: on a kept session if one is alive, else by a new login.
    pub(super) async fn enter(&self, credential: &Credential, budget: u32) -> Result<Entry, Failure> {
        if let Some(session) = self.kept.take(self.call, credential)
            && let Ok(Ok(channel)) = tokio::time::timeout(SIGN_OF_LIFE, session.open()).await
        {
            return Ok(Entry::Inside(Box::new(Inside { session, channel })));
        }
        let Some(session) = self.log_in(credential, budget).await? else { return Ok(Entry::Expired) };
        let channel = session.open().await?;
        Ok(Entry::Inside(Box::new(Inside { session, channel })))
    }

    /// [`Self::enter`] where an expired password is of no use.
    pub(super) async fn enter_unexpired(&self, credential: &Credential, budget: u32) -> Result<Inside, Failure> {
        match self.enter(credential, budget).await? {
            Entry::Inside(inside) => Ok(*inside),
            Entry::Expired => Err(expired(credential)),
        }
    }

    /// A new login. `None`: the password is right, and has expired.
    pub(super) async fn log_in(&self, credential: &Credential, budget: u32) -> Result<Option<Session>, Failure> {
        let mut session = Session::connect(self.call).await?;
        let who = credential.expose_text("username").unwrap_or_default();
        match session.log_in(credential, budget).await? {
            Login::In => Ok(Some(session)),
            Login::Expired => Ok(None),
            Login::Locked(said) => Err(locked(who, &said)),
            Login::Refused => Err(Failure::new(
                FailureClass::Auth,
                format!("the host refused the credential of {who}"),
                "run `volvelle rotated-secret verify`, or correct the credential of the target",
            )),
        }
    }

    /// The password that sudo may be asked with. The one that opened the session cannot fail; another one (beside a key) may,
    /// and sudo may count that twice.
    pub(super) fn for_sudo<'c>(&self, acting: &'c Credential, session: &Session) -> Option<&'c Secret> {
        acting.field("password").filter(|_| session.way == Way::Password || self.call.login_budget >= 2)
    }

    /// Leaves a session to the next stage. One that the account opened with the password that has now changed proves nothing
    /// any more, and is closed.
    pub(super) fn leave(&self, credential: &Credential, session: Session) {
        if !self.has_sent() || session.way == Way::Key || !self.own() {
            self.kept.keep(self.call, credential, session);
        }
    }
}

/// The acting password has expired and somebody else would have to change it.
pub(super) fn expired(credential: &Credential) -> Failure {
    let who = credential.expose_text("username").unwrap_or_default();
    Failure::new(
        FailureClass::Privilege,
        format!("the password of {who} has expired: the host demands a new one at login"),
        "change it, or let the target's privileged credential act (use-target-creds)",
    )
}

/// A locked account refuses the right password too, so that this is no answer about the password.
pub(super) fn locked(user: &str, said: &str) -> Failure {
    Failure::new(
        FailureClass::LoginBudget,
        format!("the account {user} is locked on the host: {said}"),
        format!("unlock it on the host (`faillock --user {user} --reset` or `usermod -U {user}`), then rotate again"),
    )
}
