//! OpenSSH for Windows: PowerShell over a connection whose host key is pinned.

use serde_json::json;
use volvelle_domain::Credential;
use volvelle_domain::connector::{Call, Failure, FailureClass, TargetParams};

use super::login::Login;
use super::shell::{PROGRAM, arguments};
use super::visit::{Address, Visit, Who};
use crate::ldap::{config, text};
use crate::ssh::errand::{self, Entry, Errand};

/// Somebody who is logged in.
pub(super) struct Session {
    errand: Errand,
}

/// The target as the connector for SSH knows one.
pub(super) fn translated(target: &TargetParams, address: &Address) -> TargetParams {
    let plain = json!({"host": address.host, "port": address.port.to_string(), "host-key": text(target, "host-key")});
    TargetParams { plain: plain.as_object().cloned().unwrap_or_default(), secret: Credential::default(), parent: None }
}

/// Logs in, to a host with a pinned key only.
pub(super) async fn log_in(visit: &Visit<'_>, who: &Who<'_>) -> Result<Login<Session>, Failure> {
    let target = translated(visit.call.target, &visit.address);
    let call = Call { target: &target, ..visit.call.clone() };
    let name = match who.domain {
        Some(domain) if domain.contains('.') => format!("{}@{domain}", who.user),
        Some(domain) => format!("{domain}\\{}", who.user),
        None => who.user.to_owned(),
    };
    let credential = credential(visit, who, &name);
    if credential.field("password").is_none() && credential.field("private_key").is_none() {
        return Err(config(format!("there is no password of {}", who.user), "give it"));
    }
    match errand::enter(&call, &credential).await? {
        Entry::In(errand) => Ok(Login::In(Box::new(Session { errand: *errand }))),
        Entry::Refused => Ok(Login::Denied),
        Entry::Barred(said) => Err(Failure::new(
            FailureClass::LoginBudget,
            format!("the host bars {}: {said}", who.user),
            "unlock the account, or give it a password that has not expired",
        )),
    }
}

/// The target's account may have a key; what an account is asked about is its password, which a key would not show.
fn credential(visit: &Visit<'_>, who: &Who<'_>, name: &str) -> Credential {
    let mut credential = Credential::default().with("username", name.into());
    if let Some(password) = who.password.filter(|password| !password.is_empty()) {
        credential = credential.with("password", password.clone());
    }
    if visit.own() {
        return credential;
    }
    for (parameter, field) in [("private-key", "private_key"), ("private-key-password", "private_key_password")] {
        if let Some(value) = visit.call.target.secret.field(parameter).filter(|value| !value.is_empty()) {
            credential = credential.with(field, value.clone());
        }
    }
    credential
}

impl Session {
    /// Runs PowerShell with this input, and gives its output.
    pub(super) async fn run(&self, input: &str, sending: &(dyn Fn() + Sync)) -> Result<String, Failure> {
        self.errand.run(&format!("{PROGRAM} {}", arguments()), input.as_bytes(), sending).await
    }
}
