//! Accounts of baseboard management controllers (BMCs), over Redfish or IPMI 2.0.
//!
//! Rights needed: to act as the target, a user that manages users (`ConfigureUsers`, or IPMI's administrator); to act as the account
//! itself, `ConfigureSelf` over Redfish, and over IPMI administrator as well.
//!
//! What must stay true: a password leaves only inside a connection that was authenticated (TLS with a known certificate, or an encrypted
//! session that both sides have proven); over IPMI a wrong password never becomes a failed login.

mod http;
mod ipmi;
mod messages;
mod redfish;
mod rmcp;
mod service;
mod trial;
mod visit;

use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Call, Capabilities, Connector, Declaration, Failure, FailureClass, Feed, PasswordPolicy,
    PeerIdentity, Preflight, ProbeReport, RotatorType, TargetParams,
};
use volvelle_domain::ids::Entropy;
use volvelle_domain::{Credential, password};

use crate::ldap::tls;
use crate::parameters::{config, text};
use crate::sent::nobody_knows;
use visit::{Address, Protocol, Visit};

/// A management controller.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct BmcTarget {
    /// Host name or address of the controller.
    #[schemars(extend("x-details" = "host"))]
    pub host: String,
    /// Port; 443 for Redfish and 623 for IPMI if empty.
    #[schemars(extend("x-details" = "port"))]
    pub port: String,
    /// What is spoken: redfish or ipmi.
    #[schemars(extend("x-details" = "protocol"))]
    pub protocol: String,
    /// The privileged user.
    #[schemars(extend("x-details" = "username"))]
    pub username: String,
    /// The privileged user's password.
    #[schemars(extend("x-secret" = true, "x-details" = "password"))]
    pub password: String,
    /// Certificates to trust over Redfish, as PEM: of the authority, or the controller's own. The machine's authorities if empty.
    #[schemars(extend("x-details" = "certificate"))]
    pub certificate: String,
    /// Over IPMI, also use cipher suite 3 (SHA-1) where the controller does not know suite 17 (SHA-256).
    pub allow_legacy_algorithms: bool,
}

impl Default for BmcTarget {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: String::new(),
            protocol: "redfish".into(),
            username: String::new(),
            password: String::new(),
            certificate: String::new(),
            allow_legacy_algorithms: false,
        }
    }
}

/// An account of a controller whose password is rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct BmcSecret {
    /// The account to rotate (rotator type `password`).
    #[schemars(extend("x-details" = "rotated_username"))]
    pub rotated_username: String,
    /// Its present password; may be left out when the target's credential acts.
    #[schemars(extend("x-secret" = true))]
    pub rotated_password: String,
}

const ROTATOR_TYPES: &[RotatorType] = &[
    RotatorType {
        name: "password",
        wire_name: "user-pass-rotator",
        summary: "the password of a given account",
        feeds: &[],
    },
    RotatorType {
        name: "target",
        wire_name: "target-rotator",
        summary: "the password of the target's own account",
        feeds: &[Feed { field: "password", parameter: "password", optional: false }],
    },
];

/// The connector for kind `bmc`.
pub struct Bmc {
    declaration: Declaration,
}

impl Default for Bmc {
    fn default() -> Self {
        Self {
            declaration: Declaration {
                kind: "bmc",
                secret_kind: "bmc",
                summary: "accounts of baseboard management controllers, over Redfish or IPMI",
                target: schema_for!(BmcTarget),
                secret: schema_for!(BmcSecret),
                details_key: "bmc_target_details",
                rotator_types: ROTATOR_TYPES,
                capabilities: Capabilities::default(),
            },
        }
    }
}

/// A timed-out call.
fn timed_out() -> Failure {
    Failure::new(FailureClass::Timeout, "the BMC did not answer in time", "check host and port, and the network")
}

/// An answer that makes no sense.
fn strange(what: impl std::fmt::Display) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the BMC's answer cannot be used: {what}"), "")
}

/// What a BMC admits as the name of a user.
fn check_username(name: &str, parameter: &str, protocol: Protocol) -> Result<(), Failure> {
    let longest = if protocol == Protocol::Ipmi { rmcp::LONGEST_NAME } else { 64 };
    let bad = |c: char| c.is_control() || c.is_whitespace() || "/\\:\"".contains(c);
    if name.is_empty() || name.len() > longest || name.contains(bad) {
        return Err(config(
            format!("{parameter} must be the name of a user of the BMC, at most {longest} long"),
            format!("set {parameter}"),
        ));
    }
    Ok(())
}

/// What preflight found of the lengths that the controller takes.
fn length_within(call: &Call<'_>, wanted: u16) -> u16 {
    let told = |name: &str| call.memory.get(name).and_then(|text| text.parse::<u16>().ok());
    let usual = Address::of(call.target).ok().filter(|address| address.protocol == Protocol::Ipmi);
    let longest = told("longest").or(usual.map(|_| ipmi::LONGEST)).unwrap_or(password::LONGEST);
    wanted.max(told("shortest").unwrap_or(0)).min(longest)
}

/// The credential of the target itself as a version of a secret of rotator type `target`.
fn target_credential(target: &TargetParams) -> Credential {
    let credential = Credential::default().with("username", text(target, "username").into());
    match target.secret.field("password") {
        Some(password) => credential.with("password", password.clone()),
        None => credential,
    }
}

#[async_trait]
impl Connector for Bmc {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn check_target(&self, target: &TargetParams) -> Result<(), Failure> {
        let address = Address::of(target)?;
        tls::certificates(text(target, "certificate"), "certificate")?;
        let user = text(target, "username");
        if user.is_empty() { Ok(()) } else { check_username(user, "username", address.protocol) }
    }

    fn check_secret(&self, call: &Call<'_>, initial: &Credential) -> Result<(), Failure> {
        if !ROTATOR_TYPES.iter().any(|t| t.name == call.rotator_type) {
            return Err(config(
                format!("rotator-type {:?} is not one of password, target", call.rotator_type),
                "set rotator-type to password or target",
            ));
        }
        let parameter = if call.rotator_type == "target" { "username" } else { "rotated-username" };
        let protocol = Address::of(call.target)?.protocol;
        check_username(initial.expose_text("username").unwrap_or_default(), parameter, protocol)?;
        if call.acting == ActingAs::User && call.rotator_type != "target" && initial.field("password").is_none() {
            return Err(config(
                "rotated-password is needed when the account changes its own password",
                "give rotated-password, or set authentication-credentials to use-target-creds",
            ));
        }
        Ok(())
    }

    fn initial_credential(
        &self,
        rotator_type: &str,
        target: &TargetParams,
        given: &TargetParams,
    ) -> Result<Credential, Failure> {
        if rotator_type == "target" {
            return Ok(target_credential(target));
        }
        let user = text(given, "rotated-username").trim();
        check_username(user, "rotated-username", Address::of(target)?.protocol)?;
        let credential = Credential::default().with("username", user.into());
        Ok(match given.secret.field("rotated-password") {
            Some(password) => credential.with("password", password.clone()),
            None => credential,
        })
    }

    fn generate(&self, call: &Call<'_>, policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Credential, Failure> {
        let user = call.current.expose_text("username").unwrap_or_default();
        let policy = PasswordPolicy { length: length_within(call, policy.length), ..policy.clone() };
        let password = password::generate(&policy, entropy)
            .map_err(|error| config(error.to_string(), "change the password policy"))?;
        Ok(Credential::user_password(user, password))
    }

    async fn learn_identity(&self, _: &TargetParams, _: Duration) -> Result<Option<PeerIdentity>, Failure> {
        // Redfish has a certificate that is checked against what the target names; over IPMI the BMC proves with every session that it
        // knows the password.
        Ok(None)
    }

    async fn preflight(&self, call: &Call<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
        let visit = Visit::new(call)?;
        let run = async {
            match visit.address.protocol {
                Protocol::Redfish => Box::pin(redfish::preflight(&visit, policy)).await,
                Protocol::Ipmi => Box::pin(ipmi::preflight(&visit, policy)).await,
            }
        };
        tokio::time::timeout(call.timeout, run).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn apply(&self, call: &Call<'_>, candidate: &Credential) -> ApplyOutcome {
        let visit = match Visit::new(call) {
            Ok(visit) => visit,
            Err(failure) => return ApplyOutcome::Rejected(failure),
        };
        let Some(new) = candidate.field("password").filter(|password| !password.is_empty()) else {
            return ApplyOutcome::Rejected(config("the candidate has no password", "rotate again"));
        };
        let run = async {
            match visit.address.protocol {
                Protocol::Redfish => Box::pin(redfish::apply(&visit, new)).await,
                Protocol::Ipmi => Box::pin(ipmi::apply(&visit, new)).await,
            }
        };
        visit.sent.within(call.timeout, run, timed_out).await
    }

    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
        let visit = match Visit::new(call) {
            Ok(visit) => visit,
            Err(failure) => return nobody_knows(credentials, &failure),
        };
        match visit.address.protocol {
            Protocol::Redfish => Box::pin(trial::probe(&visit, credentials)).await,
            Protocol::Ipmi => match tokio::time::timeout(call.timeout, ipmi::probe(&visit, credentials)).await {
                Ok(outcomes) => ProbeReport { outcomes, failed_logins: 0 },
                Err(_) => nobody_knows(credentials, &timed_out()),
            },
        }
    }
}
