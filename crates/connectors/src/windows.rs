//! Accounts of Windows: those of a host itself over WinRM, OpenSSH or SMB (SAMR), those of a domain over its directory (LDAPS).
//!
//! Rights needed: to act as the target, an account of the host's Administrators group, or in a domain `Reset Password` on the accounts; to
//! act as the account itself, nothing but its password.
//!
//! What must stay true: a password travels sealed, in no command line and in no script; a domain's account is never witnessed
//! by NTLM, which accepts the previous password for an hour.

mod dependents;
mod http;
mod local;
mod login;
mod ndr;
mod ntlm;
mod openssh;
mod parent;
mod remote;
mod samr;
mod shell;
mod smb;
mod status;
mod visit;
mod winrm;
mod xml;

use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Call, Capabilities, Connector, Declaration, Dependent, Failure, FailureClass, Feed,
    PasswordPolicy, PeerIdentity, Preflight, ProbeOutcome, ProbeReport, RotatorType, TargetParams,
};
use volvelle_domain::ids::Entropy;
use volvelle_domain::{Credential, password};

use crate::ldap::text;
use crate::ldap::{Ldap, config, tls};
use crate::ssh::errand;
use visit::{Address, Route, Visit, split};

/// The port of a target that names none.
const USUAL_PORT: u16 = 5986;
/// The values of `transport`.
const ROUTES: &str = "winrm, ssh, samr, ldap";

/// A Windows host, or the controller of a domain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct WindowsTarget {
    /// Host name or address; for accounts of a domain, that of a domain controller.
    #[schemars(extend("x-details" = "hostname"))]
    pub hostname: String,
    /// Port: 5986 for WinRM over HTTPS, 5985 over HTTP, 22 for OpenSSH, 445 for SMB, 636 or 389 for the directory of a domain.
    #[schemars(extend("x-details" = "port"))]
    pub port: String,
    /// The privileged user; none of its own with connection-type `parent-target`.
    #[schemars(extend("x-details" = "username", "x-none" = "dummy_value"))]
    pub username: String,
    /// The privileged user's password.
    #[schemars(extend("x-secret" = true, "x-details" = "password", "x-none" = "dummy_value"))]
    pub password: String,
    /// Domain of the privileged user; an account of the host itself if empty.
    #[schemars(extend("x-details" = "domain_name"))]
    pub domain: String,
    /// Certificates to trust for TLS, as PEM: of the authority, or the host's own. The machine's authorities if empty.
    #[schemars(extend("x-details" = "certificate"))]
    pub certificate: String,
    /// Whether WinRM uses HTTPS; over HTTP every message is sealed with the login's key.
    #[schemars(extend("x-details" = "use_tls"))]
    pub use_tls: bool,
    /// Whose account acts: `credentials` is the one given here, `parent-target` that of the parent target.
    #[schemars(extend("x-details" = "connection_type", "x-choices" = [
        {"value": "credentials", "meaning": "the user and password given here"},
        {"value": "parent-target", "meaning": "the account of the target of the host's domain"},
    ]))]
    pub connection_type: String,
    /// With connection-type `parent-target`: the target of the host's domain, of kind ldap, or windows with transport ldap. Accounts of the
    /// domain are changed through it; with transport winrm, ssh or samr its account changes those of the host itself.
    #[schemars(extend("x-parent" = {"kinds": ["ldap", "windows"], "when": {"connection-type": "parent-target"}}))]
    pub parent_target_name: String,
    /// The way to the host, if the port does not tell: winrm, ssh, samr or ldap.
    pub transport: String,
    /// The domain controller that answers Kerberos (port 88). If empty: over the directory hostname, over WinRM the domain's full name.
    pub kdc_host: String,
    /// How WinRM is logged in to: kerberos, ntlm, or negotiate, which is Kerberos for an account of a domain whose controller is known
    /// and NTLM for all others. None of them becomes another one because something fails.
    pub winrm_auth: String,
    /// The host's name in its domain, if hostname is an alias or an address: Kerberos asks for the service `HTTP/name`.
    pub kerberos_hostname: String,
    /// The privileged user's private key for OpenSSH (OpenSSH or PEM).
    #[schemars(extend("x-secret" = true, "x-none" = "dummy_value"))]
    pub private_key: String,
    /// Passphrase of the private key.
    #[schemars(extend("x-secret" = true, "x-none" = "dummy_value"))]
    pub private_key_password: String,
    /// The host's public key for OpenSSH (`ssh-ed25519 AAAA…`); learned once and shown if not given.
    pub host_key: String,
}

impl Default for WindowsTarget {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            port: USUAL_PORT.to_string(),
            username: String::new(),
            password: String::new(),
            domain: String::new(),
            certificate: String::new(),
            use_tls: true,
            connection_type: "credentials".into(),
            parent_target_name: String::new(),
            transport: String::new(),
            kdc_host: String::new(),
            winrm_auth: "negotiate".into(),
            kerberos_hostname: String::new(),
            private_key: String::new(),
            private_key_password: String::new(),
            host_key: String::new(),
        }
    }
}

/// A Windows account whose password is rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct WindowsSecret {
    /// The account to rotate (rotator type `password`).
    #[schemars(extend("x-details" = "rotated_username"))]
    pub rotated_username: String,
    /// Its present password; may be left out when the target's credential acts.
    #[schemars(extend("x-secret" = true))]
    pub rotated_password: String,
    /// Services that log on with the account, separated by commas: `name[@host[:port]]`. Each gets the new password over WinRM (on a
    /// target that is reached over SSH, and without a host, over SSH) and is started anew if it runs.
    pub services: String,
    /// IIS application pools that run as the account, in the same form.
    pub iis_app_pools: String,
    /// Scheduled tasks that run as the account, in the same form; a name may hold the folder (`\\Folder\\Task`).
    pub scheduled_tasks: String,
    /// Leave services and pools running with the password they started with.
    pub skip_restart: bool,
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

/// The connector for kind `windows`.
pub struct Windows {
    declaration: Declaration,
    directory: Ldap,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            declaration: Declaration {
                kind: "windows",
                secret_kind: "windows",
                summary: "Windows accounts, of hosts and of domains",
                target: schema_for!(WindowsTarget),
                secret: schema_for!(WindowsSecret),
                details_key: "windows_target_details",
                rotator_types: ROTATOR_TYPES,
                capabilities: Capabilities { linked: true, pinned_identity: true, ..Capabilities::default() },
            },
            directory: Ldap::default(),
        }
    }
}

/// A timed-out call.
fn timed_out() -> Failure {
    Failure::new(FailureClass::Timeout, "the host did not answer in time", "check the host and the network")
}

/// What Windows admits as the name of an account.
fn check_username(name: &str, parameter: &str) -> Result<(), Failure> {
    let bad = |c: char| c.is_control() || "\"/\\[]:;|=,+*?<>@".contains(c);
    if name.trim().is_empty() || name.chars().count() > 64 || name.contains(bad) {
        return Err(config(
            format!("{parameter} must be the name of a Windows account, without domain"),
            format!("set {parameter}; the domain goes into the target"),
        ));
    }
    Ok(())
}

/// A call as the directory's connector understands it.
struct Translated {
    target: TargetParams,
    params: Map<String, Value>,
}

impl Translated {
    fn of(call: &Call<'_>, address: &Address) -> Result<Self, Failure> {
        let target = match &call.target.parent {
            Some(parent) => parent::directory(parent)?,
            None => Self::directory(call.target, address),
        };
        let params = json!({"user-attribute": "sAMAccountName"});
        Ok(Self { target, params: params.as_object().cloned().unwrap_or_default() })
    }

    /// The directory that a host is.
    fn directory(target: &TargetParams, address: &Address) -> TargetParams {
        let (domain, user) = split(text(target, "username"), text(target, "domain"));
        let name = match domain {
            Some(domain) if domain.contains('.') => format!("{user}@{domain}"),
            Some(domain) => format!("{domain}\\{user}"),
            None => user.to_owned(),
        };
        let scheme = if [389, 3268].contains(&address.port) { "ldap" } else { "ldaps" };
        let plain = json!({
            "ldap-url": format!("{scheme}://{}:{}", address.host, address.port),
            "bind-dn": name,
            "ldap-ca-cert": text(target, "certificate"),
            "kdc-host": text(target, "kdc-host"),
        });
        let mut secret = Credential::default();
        if let Some(password) = target.secret.field("password") {
            secret = secret.with("bind-dn-password", password.clone());
        }
        TargetParams { plain: plain.as_object().cloned().unwrap_or_default(), secret, parent: None }
    }

    fn call<'a>(&'a self, call: &Call<'a>) -> Call<'a> {
        let rotator_type = if call.rotator_type == "target" { "target" } else { "ldap" };
        Call { target: &self.target, params: &self.params, rotator_type, ..call.clone() }
    }
}

/// The credential of the target itself as a version of a secret of rotator type `target`.
fn target_credential(target: &TargetParams) -> Credential {
    let (_, user) = split(text(target, "username"), text(target, "domain"));
    let credential = Credential::default().with("username", user.into());
    match target.secret.field("password") {
        Some(password) => credential.with("password", password.clone()),
        None => credential,
    }
}

#[async_trait]
impl Connector for Windows {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn check_target(&self, target: &TargetParams) -> Result<(), Failure> {
        Address::of(target)?;
        tls::certificates(text(target, "certificate"), "certificate")?;
        parent::check(target)?;
        errand::check(target)?;
        let acting = parent::acting_for(target)?;
        let target = &*acting;
        let (domain, user) = split(text(target, "username"), text(target, "domain"));
        login::Way::of(target, domain)?;
        if user.is_empty() { Ok(()) } else { check_username(user, "username") }
    }

    fn check_secret(&self, call: &Call<'_>, initial: &Credential) -> Result<(), Failure> {
        if !ROTATOR_TYPES.iter().any(|t| t.name == call.rotator_type) {
            return Err(config(
                format!("rotator-type {:?} is not one of password, target", call.rotator_type),
                "set rotator-type to password or target",
            ));
        }
        if call.rotator_type == "target" && call.target.parent.is_some() {
            return Err(config(
                "the target has no account of its own: that of its parent acts",
                "rotate it with a secret of rotator-type target on the parent",
            ));
        }
        let acting = parent::acting_for(call.target)?;
        let call = &Call { target: &acting, ..call.clone() };
        let parameter = if call.rotator_type == "target" { "username" } else { "rotated-username" };
        check_username(initial.expose_text("username").unwrap_or_default(), parameter)?;
        dependents::check(call)?;
        let (domain, _) = split(text(call.target, "username"), text(call.target, "domain"));
        let route = Address::of(call.target)?.route;
        if route == Route::WinRm && (call.acting == ActingAs::User || call.rotator_type == "target") {
            login::Way::of(call.target, None)?;
        }
        if call.rotator_type == "target" && domain.is_some() && route != Route::Ldap {
            return Err(config(
                "the target's own account belongs to a domain, and its password changes there only",
                "make a target for the domain (transport ldap)",
            ));
        }
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
        check_username(user, "rotated-username")?;
        let credential = Credential::default().with("username", user.into());
        Ok(match given.secret.field("rotated-password") {
            Some(password) => credential.with("password", password.clone()),
            None => credential,
        })
    }

    fn generate(&self, call: &Call<'_>, policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Credential, Failure> {
        let user = call.current.expose_text("username").unwrap_or_default();
        let password = password::generate(policy, entropy)
            .map_err(|error| config(error.to_string(), "change the password policy"))?;
        Ok(Credential::user_password(user, password))
    }

    async fn learn_identity(&self, target: &TargetParams, timeout: Duration) -> Result<Option<PeerIdentity>, Failure> {
        let address = Address::of(target)?;
        if address.route != Route::Ssh {
            // Over SMB the host proves with every login that it knows the account's password, with Kerberos that it is the one the
            // ticket is for; TLS is checked against its authority.
            return Ok(None);
        }
        let target = openssh::translated(target, &address);
        let learned = tokio::time::timeout(timeout, errand::learn(&target)).await;
        learned.unwrap_or_else(|_| Err(timed_out())).map(Some)
    }

    async fn preflight(&self, call: &Call<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
        let acting = parent::acting_for(call.target)?;
        let call = &Call { target: &acting, ..call.clone() };
        let visit = Visit::new(call)?;
        match visit.address.route {
            Route::Ldap => {
                let translated = Translated::of(call, &visit.address)?;
                self.directory.preflight(&translated.call(call), policy).await
            }
            Route::Samr => {
                let run = Box::pin(local::preflight(&visit, policy));
                tokio::time::timeout(call.timeout, run).await.unwrap_or_else(|_| Err(timed_out()))
            }
            Route::WinRm | Route::Ssh => {
                let run = Box::pin(remote::preflight(&visit, policy));
                tokio::time::timeout(call.timeout, run).await.unwrap_or_else(|_| Err(timed_out()))
            }
        }
    }

    async fn apply(&self, call: &Call<'_>, candidate: &Credential) -> ApplyOutcome {
        let acting = match parent::acting_for(call.target) {
            Ok(acting) => acting,
            Err(failure) => return ApplyOutcome::Rejected(failure),
        };
        let call = &Call { target: &acting, ..call.clone() };
        let visit = match Visit::new(call) {
            Ok(visit) => visit,
            Err(failure) => return ApplyOutcome::Rejected(failure),
        };
        let done = match visit.address.route {
            Route::Ldap => {
                let translated = match Translated::of(call, &visit.address) {
                    Ok(translated) => translated,
                    Err(failure) => return ApplyOutcome::Rejected(failure),
                };
                return self.directory.apply(&translated.call(call), candidate).await;
            }
            Route::Samr => tokio::time::timeout(call.timeout, Box::pin(local::apply(&visit, candidate))).await,
            Route::WinRm | Route::Ssh => {
                tokio::time::timeout(call.timeout, Box::pin(remote::apply(&visit, candidate))).await
            }
        };
        match done {
            Ok(outcome) => outcome,
            Err(_) if visit.has_sent() => ApplyOutcome::Ambiguous(timed_out()),
            Err(_) => ApplyOutcome::NotReached(timed_out()),
        }
    }

    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
        let unknown = |failure: &Failure| {
            let outcomes = credentials.iter().map(|_| ProbeOutcome::Unknown(failure.clone())).collect();
            ProbeReport { outcomes, failed_logins: 0 }
        };
        let acting = match parent::acting_for(call.target) {
            Ok(acting) => acting,
            Err(failure) => return unknown(&failure),
        };
        let call = &Call { target: &acting, ..call.clone() };
        let visit = match Visit::new(call) {
            Ok(visit) => visit,
            Err(failure) => return unknown(&failure),
        };
        match visit.address.route {
            Route::Ldap => match Translated::of(call, &visit.address) {
                Ok(translated) => self.directory.probe(&translated.call(call), credentials).await,
                Err(failure) => unknown(&failure),
            },
            Route::Samr => Box::pin(local::probe(&visit, credentials)).await,
            Route::WinRm | Route::Ssh => Box::pin(remote::probe(&visit, credentials)).await,
        }
    }

    async fn hand_on(&self, call: &Call<'_>, credential: &Credential) -> Vec<Dependent> {
        let Ok(acting) = parent::acting_for(call.target) else { return Vec::new() };
        let call = &Call { target: &acting, ..call.clone() };
        match Visit::new(call) {
            Ok(visit) => Box::pin(dependents::hand_on(&visit, credential)).await,
            Err(_) => Vec::new(),
        }
    }
}
