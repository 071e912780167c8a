//! What other kinds borrow from this one: one program on a host with a pinned key, with its input and its output.

use volvelle_domain::Credential;
use volvelle_domain::connector::{Call, Failure, PeerIdentity, TargetParams};

use super::login::Login;
use super::session::{self, Session};
use super::{broken, runs_nothing};

/// Somebody who is logged in.
pub(crate) struct Errand {
    session: Session,
}

/// What came of a login.
pub(crate) enum Entry {
    In(Box<Errand>),
    /// The credential was refused.
    Refused,
    /// The host says something else about the account, which is no answer about its password.
    Barred(String),
}

/// Whether the key given as `host-key` is one.
pub(crate) fn check(target: &TargetParams) -> Result<(), Failure> {
    session::given(target).map(drop)
}

/// Asks a host for its key, without trusting it and without logging in.
pub(crate) async fn learn(target: &TargetParams) -> Result<PeerIdentity, Failure> {
    session::learn(target).await
}

/// Connects to the call's target and logs in; one failed login at most.
pub(crate) async fn enter(call: &Call<'_>, credential: &Credential) -> Result<Entry, Failure> {
    let mut session = Session::connect(call).await?;
    Ok(match session.log_in(credential, 1).await? {
        Login::In => Entry::In(Box::new(Errand { session })),
        Login::Refused => Entry::Refused,
        Login::Expired => Entry::Barred("its password has expired".to_owned()),
        Login::Locked(said) => Entry::Barred(said),
    })
}

impl Errand {
    /// Runs a program with this input, and gives its output. `sending` is called just before the input leaves.
    pub(crate) async fn run(
        &self,
        command: &str,
        input: &[u8],
        sending: &(dyn Fn() + Sync),
    ) -> Result<String, Failure> {
        let channel = self.session.open().await?;
        let ran = self.session.feed(channel, command, input, sending).await?;
        if ran.refused {
            return Err(runs_nothing());
        }
        if ran.status.is_none() {
            return Err(broken("before the program on the host ended"));
        }
        Ok(String::from_utf8_lossy(ran.stdout.expose()).into_owned())
    }
}
