//! Unix accounts over SSH.
//!
//! Rights needed: to act as the target, root or sudo for `chpasswd -e` (and to read `/etc/shadow`, so that the outcome is
//! read and not tried); to act as the account itself, nothing but a login.
//!
//! The password never appears in an argument list: hashes and passwords travel on standard input or to a prompt.

mod methods;
mod session;
mod shadow;

use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Call, Capabilities, Connector, Declaration, Failure, FailureClass, PasswordPolicy,
    PeerIdentity, Preflight, ProbeReport, RotatorType, TargetParams,
};
use volvelle_domain::ids::Entropy;
use volvelle_domain::{Credential, password};

/// A host that is reached over SSH.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct SshTarget {
    /// Host name or address.
    #[schemars(extend("x-details" = "host"))]
    pub host: String,
    /// Port of the SSH server.
    #[schemars(extend("x-details" = "port"))]
    pub port: String,
    /// The privileged user.
    #[schemars(extend("x-details" = "username"))]
    pub ssh_username: String,
    /// The privileged user's password.
    #[schemars(extend("x-secret" = true, "x-details" = "password"))]
    pub ssh_password: String,
    /// The privileged user's private key (OpenSSH or PEM).
    #[schemars(extend("x-secret" = true, "x-details" = "private_key"))]
    pub private_key: String,
    /// Passphrase of the private key.
    #[schemars(extend("x-secret" = true, "x-details" = "private_key_password"))]
    pub private_key_password: String,
    /// Also offer SHA-1 and CBC algorithms, for devices that know nothing better.
    pub allow_legacy_algorithms: bool,
    /// The host's public key (`ssh-ed25519 AAAA…`); learned once and shown if not given.
    pub host_key: String,
}

impl Default for SshTarget {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: "22".into(),
            ssh_username: String::new(),
            ssh_password: String::new(),
            private_key: String::new(),
            private_key_password: String::new(),
            allow_legacy_algorithms: false,
            host_key: String::new(),
        }
    }
}

/// A Unix account whose credential is rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct SshSecret {
    /// The account to rotate (rotator type `password`).
    pub rotated_username: String,
    /// Its present password; may be left out when the target's credential acts.
    #[schemars(extend("x-secret" = true))]
    pub rotated_password: String,
}

const ROTATOR_TYPES: &[RotatorType] = &[
    RotatorType { name: "password", wire_name: "user-pass-rotator", summary: "the password of a given user" },
    RotatorType { name: "target", wire_name: "target-rotator", summary: "the password of the target's own user" },
];

/// The connector for kind `ssh`.
pub struct Ssh {
    declaration: Declaration,
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            declaration: Declaration {
                kind: "ssh",
                summary: "Unix accounts over SSH",
                target: schema_for!(SshTarget),
                secret: schema_for!(SshSecret),
                details_key: "ssh_target_details",
                rotator_types: ROTATOR_TYPES,
                capabilities: Capabilities { witness_read: true, pinned_identity: true, linked: true },
            },
        }
    }
}

/// A `Config` failure that names its parameter.
fn config(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Config, message, hint)
}

/// A timed-out call.
fn timed_out() -> Failure {
    Failure::new(FailureClass::Timeout, "the host did not answer in time", "check the host's load and the network")
}

/// Names that need no quoting anywhere and are what `useradd` admits.
fn check_username(name: &str, parameter: &str) -> Result<(), Failure> {
    let good = !name.is_empty()
        && name.len() <= 32
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good {
        return Ok(());
    }
    Err(config(
        format!("{parameter} must be a Unix user name of letters, digits, '_', '.' and '-', at most 32 long"),
        format!("set {parameter}"),
    ))
}

#[async_trait]
impl Connector for Ssh {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn check_target(&self, target: &TargetParams) -> Result<(), Failure> {
        session::Address::of(target)?;
        session::given(target)?;
        let user = session::text(target, "ssh-username");
        if !user.is_empty() {
            check_username(user, "ssh-username")?;
        }
        Ok(())
    }

    fn check_secret(&self, call: &Call<'_>, initial: &Credential) -> Result<(), Failure> {
        if !ROTATOR_TYPES.iter().any(|t| t.name == call.rotator_type) {
            return Err(config(
                format!("rotator-type {:?} is not one of password, target", call.rotator_type),
                "set rotator-type to password or target",
            ));
        }
        let user = initial.expose_text("username").unwrap_or_default();
        check_username(user, if call.rotator_type == "target" { "ssh-username" } else { "rotated-username" })?;
        if call.acting == ActingAs::User && initial.field("password").is_none() {
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
            return Ok(self.target_credential(target));
        }
        let user = session::text(given, "rotated-username");
        check_username(user, "rotated-username")?;
        let credential = Credential::default().with("username", user.into());
        Ok(match given.secret.field("rotated-password") {
            Some(password) => credential.with("password", password.clone()),
            None => credential,
        })
    }

    fn target_credential(&self, target: &TargetParams) -> Credential {
        let user = session::text(target, "ssh-username");
        let credential = Credential::default().with("username", user.into());
        match target.secret.field("ssh-password") {
            Some(password) => credential.with("password", password.clone()),
            None => credential,
        }
    }

    fn with_target_credential(&self, target: &TargetParams, credential: &Credential) -> TargetParams {
        let mut changed = target.clone();
        if let Some(password) = credential.field("password") {
            changed.secret = changed.secret.with("ssh-password", password.clone());
        }
        changed
    }

    fn generate(&self, call: &Call<'_>, policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Credential, Failure> {
        let user = call.current.expose_text("username").unwrap_or_default();
        let password = password::generate(policy, entropy)
            .map_err(|error| config(error.to_string(), "change the password policy"))?;
        Ok(Credential::user_password(user, password))
    }

    async fn learn_identity(&self, target: &TargetParams, timeout: Duration) -> Result<Option<PeerIdentity>, Failure> {
        let learned = session::learn(target);
        tokio::time::timeout(timeout, learned).await.unwrap_or_else(|_| Err(timed_out())).map(Some)
    }

    async fn preflight(&self, call: &Call<'_>, _policy: &PasswordPolicy) -> Result<Preflight, Failure> {
        let run = methods::preflight(call);
        tokio::time::timeout(call.timeout, run).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn apply(&self, call: &Call<'_>, candidate: &Credential) -> ApplyOutcome {
        let run = methods::apply(call, candidate);
        tokio::time::timeout(call.timeout, run).await.unwrap_or_else(|_| ApplyOutcome::Ambiguous(timed_out()))
    }

    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
        methods::probe(call, credentials).await
    }
}
