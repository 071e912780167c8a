//! A way to a device with somebody logged in: SSH, or telnet where the target allows it.

use volvelle_domain::Credential;
use volvelle_domain::connector::{Failure, TargetParams};

use super::super::session::{Session, flag, text};
use super::super::visit::{Visit, expired};
use super::config;
use super::profile::Profile;
use super::telnet::Telnet;

/// A connection.
pub(super) enum Line {
    Ssh(Box<Session>),
    Telnet(Box<Telnet>),
}

/// Whether the target is reached by telnet.
pub(in super::super) fn is_telnet(target: &TargetParams) -> bool {
    text(target, "device-transport") == "telnet"
}

/// Checks that telnet is used only where somebody has said that it may be.
pub(super) fn check(target: &TargetParams) -> Result<(), Failure> {
    if is_telnet(target) && !flag(target, "allow-telnet") {
        return Err(config(
            "telnet sends every password in the clear, to whoever answers",
            "use SSH, or set allow-telnet on a network that you trust",
        ));
    }
    Ok(())
}

/// Logs in; an expired password is of no use here.
pub(super) async fn log_in(
    visit: &Visit<'_>,
    profile: &Profile,
    credential: &Credential,
    budget: u32,
) -> Result<Line, Failure> {
    if is_telnet(visit.call.target) {
        check(visit.call.target)?;
        let telnet = Telnet::log_in(visit.call.target, profile, credential, budget).await?;
        return Ok(Line::Telnet(Box::new(telnet)));
    }
    let session = visit.log_in(credential, budget).await?.ok_or_else(|| expired(credential))?;
    Ok(Line::Ssh(Box::new(session)))
}

/// Whether a credential opens the account; one that has expired does.
pub(super) async fn opens(
    visit: &Visit<'_>,
    profile: &Profile,
    credential: &Credential,
    budget: u32,
) -> Result<(), Failure> {
    if is_telnet(visit.call.target) {
        return log_in(visit, profile, credential, budget).await.map(|_| ());
    }
    visit.log_in(credential, budget).await.map(|_| ())
}
