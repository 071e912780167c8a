//! Accounts of directories: OpenLDAP and others by RFC 3062 or `userPassword`, Active Directory by `unicodePwd`.
//!
//! Rights needed: to act as the target, `write` on `userPassword` of the accounts (with `read` the outcome is read and not tried), in a
//! domain `Reset Password` on them; to act as the account itself, nothing but its password and `self write`.
//!
//! What must stay true: passwords travel encrypted to a server whose certificate was checked, unless `allow-plaintext` says
//! otherwise; a domain's previous password, which still lets in for an hour, is never taken for the present one.

mod answers;
mod change;
mod hashed;
mod link;
mod probe;
pub(crate) mod tls;
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

pub(crate) use crate::parameters::{config, flag, text};
use crate::sent::nobody_knows;
use visit::Visit;
pub(crate) use visit::is_dn;

/// A directory server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct LdapTarget {
    /// Address: `ldaps://HOST[:PORT]`, or `ldap://HOST[:PORT]`, which uses StartTLS.
    #[schemars(extend("x-details" = "ldap_url"))]
    pub ldap_url: String,
    /// The privileged account: its distinguished name, or in a domain also `user@domain`.
    #[schemars(extend("x-details" = "ldap_bind_dn"))]
    pub bind_dn: String,
    /// The privileged account's password.
    #[schemars(extend("x-secret" = true, "x-details" = "ldap_bind_password"))]
    pub bind_dn_password: String,
    /// Certificates to trust, as PEM: of the authority, or the server's own. The machine's authorities if empty.
    #[schemars(extend("x-details" = "ldap_certificate"))]
    pub ldap_ca_cert: String,
    /// OpenLDAP or ActiveDirectory; what the server says of itself counts.
    #[schemars(extend("x-details" = "implementation_type"))]
    pub server_type: String,
    /// Kept and echoed; has no meaning for rotation.
    #[schemars(extend("x-details" = "ldap_token_expiration"))]
    pub token_expiration: String,
    /// The name that values of rotator type `target` carry instead of bind-dn.
    #[schemars(extend("x-details" = "ldap_username"))]
    pub username: String,
    /// The domain controller that answers Kerberos (port 88), if it is not the host of ldap-url.
    pub kdc_host: String,
    /// Let `ldap://` go without encryption; passwords can then be read on the network.
    pub allow_plaintext: bool,
}

impl Default for LdapTarget {
    fn default() -> Self {
        Self {
            ldap_url: String::new(),
            bind_dn: String::new(),
            bind_dn_password: String::new(),
            ldap_ca_cert: String::new(),
            server_type: "OpenLDAP".into(),
            token_expiration: String::new(),
            username: String::new(),
            kdc_host: String::new(),
            allow_plaintext: false,
        }
    }
}

/// An account in a directory whose password is rotated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct LdapSecret {
    /// The account to rotate (rotator type `ldap`): the value of `user-attribute`, or a distinguished name.
    #[schemars(extend("x-details" = "rotated_username"))]
    pub rotated_username: String,
    /// Its present password; may be left out when the target's credential acts.
    #[schemars(extend("x-secret" = true))]
    pub rotated_password: String,
    /// Distinguished name below which the account is searched; the directory's base if empty.
    #[schemars(extend("x-details" = "ldap_user_dn"))]
    pub user_dn: String,
    /// Attribute that holds rotated-username, such as cn, uid or sAMAccountName.
    #[schemars(extend("x-details" = "ldap_user_attr"))]
    pub user_attribute: String,
}

impl Default for LdapSecret {
    fn default() -> Self {
        Self {
            rotated_username: String::new(),
            rotated_password: String::new(),
            user_dn: String::new(),
            user_attribute: "cn".into(),
        }
    }
}

const ROTATOR_TYPES: &[RotatorType] = &[
    RotatorType { name: "ldap", wire_name: "ldap-rotator", summary: "the password of a given account", feeds: &[] },
    RotatorType {
        name: "target",
        wire_name: "target-rotator",
        summary: "the password of the target's own account",
        feeds: &[Feed { field: "password", parameter: "bind-dn-password", optional: false }],
    },
];

/// The connector for kind `ldap`.
pub struct Ldap {
    declaration: Declaration,
}

impl Default for Ldap {
    fn default() -> Self {
        Self {
            declaration: Declaration {
                kind: "ldap",
                secret_kind: "ldap",
                summary: "accounts of directories: OpenLDAP, Active Directory and others",
                target: schema_for!(LdapTarget),
                secret: schema_for!(LdapSecret),
                details_key: "ldap_target_details",
                rotator_types: ROTATOR_TYPES,
                capabilities: Capabilities { witness_read: true, ..Capabilities::default() },
            },
        }
    }
}

/// A timed-out call.
fn timed_out() -> Failure {
    Failure::new(FailureClass::Timeout, "the directory did not answer in time", "check the server and the network")
}

/// An attribute's name goes into a search filter as it is.
fn check_attribute(name: &str) -> Result<(), Failure> {
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b';');
    if good && name.len() <= 64 {
        return Ok(());
    }
    Err(config("user-attribute must be the name of an attribute", "set user-attribute, such as cn or sAMAccountName"))
}

/// The credential of the target itself as a version of a secret of rotator type `target`.
fn target_credential(target: &TargetParams) -> Credential {
    let shown = match text(target, "username") {
        "" => text(target, "bind-dn"),
        given => given,
    };
    let credential = Credential::default().with("username", shown.into());
    match target.secret.field("bind-dn-password") {
        Some(password) => credential.with("password", password.clone()),
        None => credential,
    }
}

#[async_trait]
impl Connector for Ldap {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn check_target(&self, target: &TargetParams) -> Result<(), Failure> {
        link::Server::of(target)?;
        if text(target, "bind-dn").trim().is_empty() {
            return Err(config("bind-dn is empty", "set bind-dn to the privileged account's distinguished name"));
        }
        Ok(())
    }

    fn check_secret(&self, call: &Call<'_>, initial: &Credential) -> Result<(), Failure> {
        if !ROTATOR_TYPES.iter().any(|t| t.name == call.rotator_type) {
            return Err(config(
                format!("rotator-type {:?} is not one of ldap, target", call.rotator_type),
                "set rotator-type to ldap or target",
            ));
        }
        let attribute = call.params.get("user-attribute").and_then(serde_json::Value::as_str).unwrap_or_default();
        check_attribute(attribute)?;
        if call.rotator_type == "target" {
            return match call.target.secret.field("bind-dn-password").or_else(|| initial.field("password")) {
                Some(_) => Ok(()),
                None => Err(config("the target has no bind-dn-password", "set bind-dn-password on the target")),
            };
        }
        if initial.expose_text("username").unwrap_or_default().is_empty() {
            return Err(config("rotated-username is empty", "set rotated-username"));
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
        let user = text(given, "rotated-username").trim();
        if user.is_empty() {
            return Err(config("rotated-username is empty", "set rotated-username"));
        }
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

    async fn learn_identity(&self, _: &TargetParams, _: Duration) -> Result<Option<PeerIdentity>, Failure> {
        // The certificate is checked against its authority at every connection; nothing is pinned.
        Ok(None)
    }

    async fn preflight(&self, call: &Call<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
        let visit = Visit::new(call)?;
        let run = change::preflight(&visit, policy);
        tokio::time::timeout(call.timeout, Box::pin(run)).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn apply(&self, call: &Call<'_>, candidate: &Credential) -> ApplyOutcome {
        let visit = match Visit::new(call) {
            Ok(visit) => visit,
            Err(failure) => return ApplyOutcome::Rejected(failure),
        };
        visit.sent.within(call.timeout, change::apply(&visit, candidate), timed_out).await
    }

    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
        match Visit::new(call) {
            Ok(visit) => Box::pin(probe::passwords(&visit, credentials)).await,
            Err(failure) => nobody_knows(credentials, &failure),
        }
    }
}
