//! Unix accounts over SSH.
//!
//! Rights needed: to act as the target, root or sudo for `chpasswd -e` (and to read `/etc/shadow`, so that the outcome is
//! read and not tried); to act as the account itself, nothing but a login.
//!
//! The password never appears in an argument list: hashes and passwords travel on standard input or to a prompt. One rotation
//! costs one handshake and three commands where the acting credential is not the one that changes.

mod change;
mod custom;
mod device;
pub(crate) mod errand;
mod kept;
mod key;
mod login;
mod policy;
mod probe;
mod session;
mod shadow;
mod survey;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Call, Capabilities, Connector, Declaration, Failure, FailureClass, Feed, PasswordPolicy,
    PeerIdentity, Preflight, ProbeOutcome, ProbeReport, RotatorType, TargetParams,
};
use volvelle_domain::ids::Entropy;
use volvelle_domain::{Credential, password};

use visit::Visit;

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
    /// Network device instead of a Unix host: cisco-ios, cisco-nxos, arista-eos, juniper-junos, frr, or custom.
    pub device_type: String,
    /// How the device is spoken with: cli, netconf (juniper-junos), or telnet.
    pub device_transport: String,
    /// Let a device be reached by telnet, which sends every password in the clear.
    pub allow_telnet: bool,
    /// How a device of type custom is spoken with: a profile in TOML (docs/targets/devices.md).
    pub device_profile: String,
    /// The device's password for its privileged mode, if the acting user is not admitted to it at login.
    #[schemars(extend("x-secret" = true))]
    pub enable_password: String,
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
            device_type: String::new(),
            device_transport: "cli".into(),
            allow_telnet: false,
            device_profile: String::new(),
            enable_password: String::new(),
            host_key: String::new(),
        }
    }
}

/// A Unix account whose credential is rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct SshSecret {
    /// The account to rotate (rotator types `password` and `key`).
    #[schemars(extend("x-details" = "rotated_username"))]
    pub rotated_username: String,
    /// Its present password; may be left out when the target's credential acts.
    #[schemars(extend("x-secret" = true))]
    pub rotated_password: String,
    /// A command of your own that makes the change, run by `sh` as the acting user. `{{USERNAME}}`, `{{NEW_PASSWORD}}` and
    /// `{{OLD_PASSWORD}}` stand for the values, which travel on standard input and are in no process list; they are also in the
    /// environment as `VOLVELLE_USERNAME`, `VOLVELLE_NEW_PASSWORD` and `VOLVELLE_OLD_PASSWORD`. Do not pass them on to another
    /// program as arguments: that program's arguments can be seen on the host. Exit status 0 means done.
    #[schemars(extend("x-details" = "rotation_statement"))]
    pub rotator_custom_cmd: String,
    /// The present private key in base64 (rotator type `key`); may be left out when the target's credential acts.
    #[schemars(extend("x-secret" = true))]
    pub key_data_base64: String,
    /// Algorithm of new keys: ED25519 (default), RSA2048, RSA3072, RSA4096, ECDSA256, ECDSA384 or ECDSA521.
    #[schemars(extend("x-details" = "key_algorithm"))]
    pub key_algorithm: String,
    /// The file that holds the account's public keys, absolute or relative to its home folder; `.ssh/authorized_keys` if empty.
    #[schemars(extend("x-details" = "public_key_remote_path"))]
    pub public_key_remote_path: String,
}

const ROTATOR_TYPES: &[RotatorType] = &[
    RotatorType {
        name: "password",
        wire_name: "user-pass-rotator",
        summary: "the password of a given user",
        feeds: &[],
    },
    RotatorType {
        name: "target",
        wire_name: "target-rotator",
        summary: "the password of the target's own user",
        feeds: &[Feed { field: "password", parameter: "ssh-password", optional: false }],
    },
    RotatorType { name: "key", wire_name: "key-rotator", summary: "the key pair of a given user", feeds: &[] },
    RotatorType {
        name: "enable",
        wire_name: "enable-rotator",
        summary: "the enable secret of a network device",
        feeds: &[Feed { field: "password", parameter: "enable-password", optional: true }],
    },
];

/// The connector for kind `ssh`.
pub struct Ssh {
    declaration: Declaration,
    kept: Arc<kept::Kept>,
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            declaration: Declaration {
                kind: "ssh",
                secret_kind: "ssh",
                summary: "Unix accounts over SSH",
                target: schema_for!(SshTarget),
                secret: schema_for!(SshSecret),
                details_key: "ssh_target_details",
                rotator_types: ROTATOR_TYPES,
                capabilities: Capabilities {
                    witness_read: true,
                    pinned_identity: true,
                    linked: true,
                    ..Capabilities::default()
                },
            },
            kept: Arc::default(),
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

/// The connection ended before the answer came.
fn broken(when: &str) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the connection broke {when}"), "try again")
}

/// The server lets the user in and runs no command for it.
fn runs_nothing() -> Failure {
    Failure::new(FailureClass::Privilege, "the host runs no commands for the acting user", "give it a login shell")
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

/// The credential of the target itself as a version of a secret of rotator type `target`.
fn target_credential(target: &TargetParams) -> Credential {
    let user = session::text(target, "ssh-username");
    let credential = Credential::default().with("username", user.into());
    match target.secret.field("ssh-password") {
        Some(password) => credential.with("password", password.clone()),
        None => credential,
    }
}

#[async_trait]
impl Connector for Ssh {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn check_target(&self, target: &TargetParams) -> Result<(), Failure> {
        session::Address::of(target)?;
        session::given(target)?;
        device::check(target, None, "")?;
        let user = session::text(target, "ssh-username");
        if !user.is_empty() {
            check_username(user, "ssh-username")?;
        }
        Ok(())
    }

    fn check_secret(&self, call: &Call<'_>, initial: &Credential) -> Result<(), Failure> {
        if !ROTATOR_TYPES.iter().any(|t| t.name == call.rotator_type) {
            return Err(config(
                format!("rotator-type {:?} is not one of password, target, key, enable", call.rotator_type),
                "set rotator-type to password, target or key (or enable for a network device)",
            ));
        }
        let param = |name: &str| call.params.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let command = param("rotator-custom-cmd");
        device::check(call.target, Some(call.rotator_type), command)?;
        if !command.trim().is_empty() {
            custom::check(command)?;
        }
        if call.rotator_type == device::ENABLE && call.acting == ActingAs::User {
            return Err(config(
                "an enable secret cannot change itself",
                "set authentication-credentials to use-target-creds",
            ));
        }
        let user = initial.expose_text("username").unwrap_or_default();
        check_username(user, if call.rotator_type == "target" { "ssh-username" } else { "rotated-username" })?;
        if call.rotator_type == "key" {
            return check_key(call, initial, &param);
        }
        if call.rotator_type == "target" && call.target.secret.field("private-key").is_some() {
            return Ok(());
        }
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
            return Ok(target_credential(target));
        }
        let enable = rotator_type == device::ENABLE;
        let user = if enable { device::ENABLE } else { session::text(given, "rotated-username") };
        check_username(user, "rotated-username")?;
        if rotator_type == "key" {
            return key::initial(user, given.secret.field("key-data-base64"));
        }
        let credential = Credential::default().with("username", user.into());
        let recorded = target.secret.field("enable-password").filter(|_| enable);
        Ok(match given.secret.field("rotated-password").or(recorded) {
            Some(password) => credential.with("password", password.clone()),
            None => credential,
        })
    }

    fn generate(&self, call: &Call<'_>, policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Credential, Failure> {
        let user = call.current.expose_text("username").unwrap_or_default();
        if call.rotator_type == "key" {
            let algorithm = call.params.get("key-algorithm").and_then(serde_json::Value::as_str);
            return key::generate(user, algorithm.unwrap_or_default(), entropy);
        }
        let password = password::generate(policy, entropy)
            .map_err(|error| config(error.to_string(), "change the password policy"))?;
        Ok(Credential::user_password(user, password))
    }

    async fn learn_identity(&self, target: &TargetParams, timeout: Duration) -> Result<Option<PeerIdentity>, Failure> {
        if device::kind(target).is_some() && device::is_telnet(target) {
            // Whoever answers by telnet has no key to show.
            return Ok(None);
        }
        let learned = session::learn(target);
        tokio::time::timeout(timeout, learned).await.unwrap_or_else(|_| Err(timed_out())).map(Some)
    }

    async fn preflight(&self, call: &Call<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
        let visit = Visit::new(call, &self.kept);
        let run = async {
            if device::kind(call.target).is_some() {
                device::preflight(&visit).await
            } else if call.rotator_type == "key" {
                key::preflight(&visit).await
            } else {
                change::preflight(&visit, policy).await
            }
        };
        tokio::time::timeout(call.timeout, run).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn apply(&self, call: &Call<'_>, candidate: &Credential) -> ApplyOutcome {
        let visit = Visit::new(call, &self.kept);
        let run = async {
            if device::kind(call.target).is_some() {
                device::apply(&visit, candidate).await
            } else if call.rotator_type == "key" {
                key::apply(&visit, candidate).await
            } else {
                change::apply(&visit, candidate).await
            }
        };
        match tokio::time::timeout(call.timeout, run).await {
            Ok(outcome) => outcome,
            Err(_) if visit.has_sent() => ApplyOutcome::Ambiguous(timed_out()),
            Err(_) => ApplyOutcome::NotReached(timed_out()),
        }
    }

    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
        let visit = Visit::new(call, &self.kept);
        if device::kind(call.target).is_some() {
            let asked = tokio::time::timeout(call.timeout, device::probe(&visit, credentials));
            asked.await.unwrap_or_else(|_| ProbeReport {
                outcomes: credentials.iter().map(|_| ProbeOutcome::Unknown(timed_out())).collect(),
                failed_logins: 0,
            })
        } else if call.rotator_type == "key" {
            key::probe(&visit, credentials).await
        } else {
            probe::passwords(&visit, credentials).await
        }
    }
}

/// What rotator type `key` needs.
fn check_key<'a>(call: &Call<'_>, initial: &Credential, param: &dyn Fn(&str) -> &'a str) -> Result<(), Failure> {
    key::check_algorithm(param("key-algorithm"))?;
    key::check_path(param("public-key-remote-path"))?;
    if !param("rotator-custom-cmd").trim().is_empty() {
        return Err(config("rotator-custom-cmd changes passwords, not keys", "leave it out with rotator-type key"));
    }
    if call.acting == ActingAs::User && initial.field("private_key").is_none() {
        return Err(config(
            "key-data-base64 is needed when the account changes its own key",
            "give key-data-base64, or set authentication-credentials to use-target-creds",
        ));
    }
    Ok(())
}
