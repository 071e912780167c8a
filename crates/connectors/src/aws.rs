//! Access keys and console passwords of IAM users.
//!
//! Rights needed: see docs/targets/aws.md; to rotate the own key, `iam:ListAccessKeys`, `iam:CreateAccessKey`,
//! `iam:UpdateAccessKey`, `iam:DeleteAccessKey` and `iam:GetAccessKeyLastUsed` on oneself.
//!
//! AWS makes the key and shows its secret once. So what is there before is stored first, the new key is stored at once, and a key
//! that a crash left behind is found by comparing. A user has at most two keys: the former one is deactivated and deleted after the
//! new one has opened, at once or after a grace. Asking costs nothing: AWS locks no key. A console password is chosen here; nobody can be
//! asked whether it opens.

mod console;
mod keys;
mod own;
mod place;
mod query;
mod sign;
mod visit;
mod xml;

use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use volvelle_domain::Credential;
use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Call, Capabilities, Connector, Declaration, Failure, FailureClass, Feed, IssueOutcome,
    PasswordPolicy, PeerIdentity, Preflight, ProbeOutcome, ProbeReport, RotatorType, TargetParams,
};
use volvelle_domain::grace::Grace;
use volvelle_domain::ids::Entropy;

use own::Own;
use place::Given;
use query::Client;
use visit::Visit;

use crate::parameters::{config, flag, text, word};
use crate::sent::nobody_knows;

/// Region where none was given.
const DEFAULT_REGION: &str = "us-east-2";
/// How long a new key may take to be known everywhere in AWS.
const PATIENCE: Duration = Duration::from_secs(12);
/// Parameter of a target: the gateway's own identity acts.
const OWN: &str = "use-gw-cloud-identity";
/// Parameter of a target: what is shown when the role is assumed.
const EXTERNAL_ID: &str = "external-id";
/// Random bytes of an external id that was made up.
const EXTERNAL_ID_BYTES: usize = 16;
/// Rotator type of console passwords.
const CONSOLE: &str = "password";

/// An AWS account, reached with an access key or a role.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct AwsTarget {
    /// Access key id.
    #[schemars(extend("x-secret" = true, "x-details" = "aws_access_key_id"))]
    pub access_key_id: String,
    /// Secret access key.
    #[schemars(extend("x-secret" = true, "x-details" = "aws_secret_access_key"))]
    pub access_key: String,
    /// Session token, if the access key is a temporary one.
    #[schemars(extend("x-secret" = true, "x-details" = "aws_session_token"))]
    pub session_token: String,
    /// Region; it also decides the partition (China, GovCloud and others).
    #[schemars(extend("x-details" = "aws_region"))]
    pub region: String,
    /// Role to assume with the access key.
    #[schemars(extend("x-details" = "role_arn"))]
    pub role_arn: String,
    /// External id that the role's trust policy asks for.
    #[schemars(extend("x-details" = "gw_cloud_identity_external_id_opt"))]
    pub external_id: String,
    /// Make up an external id for the role, once; target-get-details shows it, to be put into the role's trust policy.
    #[schemars(extend("x-details" = "generate_external_id"))]
    pub generate_external_id: bool,
    /// Act with the gateway's own identity in AWS in the place of an access key, if its configuration allows that.
    #[schemars(extend("x-details" = "use_gw_cloud_identity"))]
    pub use_gw_cloud_identity: bool,
}

impl Default for AwsTarget {
    fn default() -> Self {
        Self {
            access_key_id: String::new(),
            access_key: String::new(),
            session_token: String::new(),
            region: DEFAULT_REGION.into(),
            role_arn: String::new(),
            external_id: String::new(),
            generate_external_id: false,
            use_gw_cloud_identity: false,
        }
    }
}

/// An IAM user whose access key or console password is rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct AwsSecret {
    /// The present access key id (rotator type `api-key`); empty with use-target-creds: a key is made.
    #[schemars(extend("x-secret" = true))]
    pub api_id: String,
    /// The present secret access key.
    #[schemars(extend("x-secret" = true))]
    pub api_key: String,
    /// The IAM user whose console password is rotated (rotator type `password`).
    #[schemars(extend("x-details" = "rotated_username"))]
    pub rotated_username: String,
    /// The present console password, if it is known.
    #[schemars(extend("x-secret" = true))]
    pub rotated_password: String,
    /// Region, if it is another one than the target's.
    pub aws_region: String,
    /// Name of the IAM user whose key it is; found out by the present key if empty.
    #[schemars(extend("x-details" = "aws_user_name"))]
    pub aws_user_name: String,
    /// Let the former key live on for a while: true or false.
    #[schemars(extend("x-details" = "grace_rotation"))]
    pub grace_rotation: String,
    /// Days for which both keys live (1 to 365; less than the rotation interval).
    #[schemars(extend("x-details" = "grace_rotation_interval"))]
    pub grace_rotation_interval: String,
    /// Hour of the day (UTC) at which the former key goes.
    #[schemars(extend("x-details" = "grace_rotation_hour"))]
    pub grace_rotation_hour: Option<i64>,
    /// Whether the rotation date is that of the new key (after) or of the former one's end (before).
    #[schemars(extend("x-details" = "grace_rotation_timing"))]
    pub grace_rotation_timing: String,
}

/// Where the target holds its own key.
const OWN_KEY: &[Feed] = &[
    Feed { field: "username", parameter: "access-key-id", optional: false },
    Feed { field: "password", parameter: "access-key", optional: false },
];

const ROTATOR_TYPES: &[RotatorType] = &[
    RotatorType { name: "api-key", wire_name: "api-key-rotator", summary: "the access key of an IAM user", feeds: &[] },
    RotatorType {
        name: CONSOLE,
        wire_name: "user-pass-rotator",
        summary: "the console password of an IAM user",
        feeds: &[],
    },
    RotatorType { name: "target", wire_name: "target-rotator", summary: "the target's own access key", feeds: OWN_KEY },
];

/// The connector for kind `aws`.
pub struct Aws {
    declaration: Declaration,
    client: Result<Client, Failure>,
    patience: Duration,
}

impl Default for Aws {
    fn default() -> Self {
        Self::with(&|name| std::env::var(name).ok(), PATIENCE)
    }
}

impl Aws {
    /// The connector with one endpoint for everything, waiting at most `patience` for a key to become known.
    #[must_use]
    pub fn at(url: &str, patience: Duration) -> Self {
        Self::with(&|name| (name == "AWS_ENDPOINT_URL").then(|| url.to_owned()), patience)
    }

    /// The connector with these environment variables, waiting at most `patience` for a key to become known.
    #[must_use]
    pub fn with(variable: &dyn Fn(&str) -> Option<String>, patience: Duration) -> Self {
        Self {
            declaration: Declaration {
                kind: "aws",
                secret_kind: "aws",
                summary: "Access keys and console passwords of AWS users",
                target: schema_for!(AwsTarget),
                secret: schema_for!(AwsSecret),
                details_key: "aws_target_details",
                rotator_types: ROTATOR_TYPES,
                capabilities: Capabilities { witness_read: true, blind: &[CONSOLE], ..Capabilities::default() },
            },
            client: Client::new(Given::of(variable), Own::of(variable)),
            patience,
        }
    }
}

fn timed_out() -> Failure {
    Failure::new(FailureClass::Timeout, "AWS did not answer in time", "check the network")
}

/// A console password is set by the target's key, under the user's name.
fn check_console(call: &Call<'_>, initial: &Credential, grace: Option<Grace>) -> Result<(), Failure> {
    console::check_user(initial.expose_text("username").unwrap_or_default())?;
    if grace.is_some() {
        return Err(config("a user has one console password, so that there is no grace", "leave grace-rotation out"));
    }
    if call.acting == ActingAs::User {
        return Err(config(
            "a console password is set by the target's key",
            "set authentication-credentials to use-target-creds",
        ));
    }
    Ok(())
}

/// AWS makes its keys itself.
fn made_there() -> Failure {
    config("AWS makes access keys itself", "")
}

/// The credential of the target itself as a version of a secret of rotator type `target`.
fn target_credential(target: &TargetParams) -> Credential {
    let mut credential = Credential::default();
    for (from, to) in [("access-key-id", "username"), ("access-key", "password")] {
        if let Some(value) = target.secret.field(from) {
            credential = credential.with(to, value.clone());
        }
    }
    credential
}

#[async_trait]
impl Connector for Aws {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn check_target(&self, target: &TargetParams) -> Result<(), Failure> {
        let region = text(target, "region");
        if !region.is_empty() {
            place::check_region(region, "region")?;
        }
        for name in ["access-key-id", "access-key"] {
            if target.secret.field(name).is_none() && !flag(target, OWN) {
                return Err(config(format!("{name} is missing"), format!("set {name}, or {OWN}")));
            }
        }
        let role = text(target, "role-arn");
        if role.is_empty() && flag(target, "generate-external-id") {
            return Err(config("generate-external-id is for a role", "set role-arn"));
        }
        if role.is_empty() || (role.starts_with("arn:") && role.contains(":role/")) {
            return Ok(());
        }
        Err(config("role-arn is no ARN of a role", "give it as arn:aws:iam::123456789012:role/name"))
    }

    fn check_secret(&self, call: &Call<'_>, initial: &Credential) -> Result<(), Failure> {
        if !ROTATOR_TYPES.iter().any(|t| t.name == call.rotator_type) {
            let message = format!("rotator-type {:?} is not one of api-key, password, target", call.rotator_type);
            return Err(config(message, "set rotator-type to api-key, password or target"));
        }
        let region = word(call.params, "aws-region");
        if !region.is_empty() {
            place::check_region(region, "aws-region")?;
        }
        let grace = Grace::of(call.params)?;
        if call.rotator_type == CONSOLE {
            return check_console(call, initial, grace);
        }
        let another = !text(call.target, "role-arn").is_empty() || flag(call.target, OWN);
        if call.rotator_type == "target" && another {
            return Err(config(
                "a target that assumes a role or acts as the gateway has no key that could rotate itself",
                "use rotator-type api-key",
            ));
        }
        let (id, key) = (initial.field("username").is_some(), initial.field("password").is_some());
        if id != key || (call.acting == ActingAs::User && !id) {
            return Err(config(
                "api-id and api-key are needed together",
                "give both, or neither with authentication-credentials use-target-creds",
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
        let mut credential = Credential::default();
        let mut from_to = vec![("api-id", "username"), ("api-key", "password")];
        if rotator_type == CONSOLE {
            let user = text(given, "rotated-username").trim();
            console::check_user(user)?;
            credential = credential.with("username", user.into());
            from_to = vec![("rotated-password", "password")];
        }
        for (from, to) in from_to {
            if let Some(value) = given.secret.field(from) {
                credential = credential.with(to, value.clone());
            }
        }
        Ok(credential)
    }

    fn completed(&self, mut target: TargetParams, entropy: &dyn Entropy) -> TargetParams {
        if flag(&target, "generate-external-id") && text(&target, EXTERNAL_ID).is_empty() {
            let mut bytes = [0; EXTERNAL_ID_BYTES];
            entropy.fill(&mut bytes);
            let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            target.plain.insert(EXTERNAL_ID.to_owned(), format!("volvelle-{id}").into());
        }
        target
    }

    fn generate(&self, call: &Call<'_>, policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Credential, Failure> {
        if call.rotator_type == CONSOLE { console::generate(call, policy, entropy) } else { Err(made_there()) }
    }

    async fn learn_identity(&self, _: &TargetParams, _: Duration) -> Result<Option<PeerIdentity>, Failure> {
        Ok(None)
    }

    async fn preflight(&self, call: &Call<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
        let visit = Visit::new(self.client.clone()?, call);
        let run = async {
            match call.rotator_type {
                CONSOLE => console::preflight(&visit, policy).await,
                _ => keys::preflight(&visit).await,
            }
        };
        tokio::time::timeout(call.timeout, run).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn apply(&self, call: &Call<'_>, candidate: &Credential) -> ApplyOutcome {
        if call.rotator_type != CONSOLE {
            return ApplyOutcome::NotReached(made_there());
        }
        let visit = match &self.client {
            Ok(client) => Visit::new(client.clone(), call),
            Err(failure) => return ApplyOutcome::NotReached(failure.clone()),
        };
        visit.sent.within(call.timeout, console::apply(&visit, candidate), timed_out).await
    }

    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
        let visit = match &self.client {
            Ok(client) => Visit::new(client.clone(), call),
            Err(failure) => return nobody_knows(credentials, failure),
        };
        if call.rotator_type == CONSOLE {
            let seen = tokio::time::timeout(call.timeout, console::probe(&visit)).await;
            let seen = seen.unwrap_or_else(|_| ProbeOutcome::Unknown(timed_out()));
            return ProbeReport { outcomes: vec![seen; credentials.len()], failed_logins: 0 };
        }
        let asked = keys::probe(&visit, credentials, self.patience);
        tokio::time::timeout(call.timeout, asked).await.unwrap_or_else(|_| nobody_knows(credentials, &timed_out()))
    }

    fn issues(&self, rotator_type: &str) -> bool {
        rotator_type != CONSOLE
    }

    async fn intend(&self, call: &Call<'_>) -> Result<Credential, Failure> {
        let visit = Visit::new(self.client.clone()?, call);
        tokio::time::timeout(call.timeout, keys::intend(&visit)).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn issue(&self, call: &Call<'_>, _: &Credential) -> IssueOutcome {
        let visit = match &self.client {
            Ok(client) => Visit::new(client.clone(), call),
            Err(failure) => return IssueOutcome::NotReached(failure.clone()),
        };
        match tokio::time::timeout(call.timeout, keys::issue(&visit)).await {
            Ok(outcome) => outcome,
            Err(_) if visit.sent.may_have_arrived() => IssueOutcome::Ambiguous(timed_out()),
            Err(_) => IssueOutcome::NotReached(timed_out()),
        }
    }

    async fn revoke(&self, call: &Call<'_>, superseded: &Credential) -> Result<(), Failure> {
        let visit = Visit::new(self.client.clone()?, call);
        tokio::time::timeout(call.timeout, keys::revoke(&visit, superseded)).await.unwrap_or_else(|_| Err(timed_out()))
    }
}
