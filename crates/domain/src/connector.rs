//! The port every kind of target implements, and the words in which it answers.
//!
//! A connector knows one vendor protocol. It has no database, no retries, no schedule and logs no value.
//! What must stay true: `Refused` and `Unknown` are different answers, and nothing but a definite answer of
//! the target is ever reported as definite.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Credential;
use crate::ids::Entropy;

/// What a connector is called and which parameters it takes. From it come the endpoints, the CLI's
/// commands and help, the console's forms, the OpenAPI schemas and the reference page.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// The wire name of the kind: `ssh` in `/target-create-ssh`.
    pub kind: &'static str,
    /// The wire name of its rotated secrets, `custom` in `/rotated-secret-create-custom`; nearly always that of the target.
    pub secret_kind: &'static str,
    /// One sentence for help and documentation.
    pub summary: &'static str,
    /// JSON schema of the target's own parameters: property names are the wire names, descriptions the help
    /// text, `default` the default; `"x-secret": true` marks what is sealed and never echoed by `target-get`;
    /// `"x-details": "name"` is the field's name in `target-get-details`;
    /// `"x-parent": {"kinds": […], "when": {"parameter": "value"}}` marks the parameter that names the target through which this one is
    /// reached, and `"x-none": "word"` a parameter of the target's own credential, with the word that stands for none: the parent's counts instead.
    pub target: schemars::Schema,
    /// JSON schema of the rotated secret's own parameters, marked in the same way.
    pub secret: schemars::Schema,
    /// Key of the block in `target-get-details`, such as `ssh_target_details`.
    pub details_key: &'static str,
    /// What can be rotated.
    pub rotator_types: &'static [RotatorType],
    /// What the kind can do beyond the minimum.
    pub capabilities: Capabilities,
}

impl Declaration {
    /// The rotator type of that name.
    #[must_use]
    pub fn rotator_type(&self, name: &str) -> Option<&RotatorType> {
        self.rotator_types.iter().find(|own| own.name == name)
    }
}

/// One value of `rotator-type`.
#[derive(Clone, Copy, Debug)]
pub struct RotatorType {
    /// The request's spelling: `password`, `target`, `key`.
    pub name: &'static str,
    /// The answer's spelling: `user-pass-rotator`, `target-rotator`.
    pub wire_name: &'static str,
    /// One sentence for help.
    pub summary: &'static str,
    /// What of the target itself a rotated value takes the place of.
    pub feeds: &'static [Feed],
}

/// A secret parameter of the target that a rotated credential is written into, in the transaction that makes it current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The credential's field.
    pub field: &'static str,
    /// The target's parameter.
    pub parameter: &'static str,
    /// Whether a target that does not have the parameter goes on without it.
    pub optional: bool,
}

impl RotatorType {
    /// The parameters of the target that hold what is rotated.
    fn fed(&self, target: &TargetParams) -> impl Iterator<Item = &Feed> {
        self.feeds.iter().filter(|feed| !feed.optional || target.secret.field(feed.parameter).is_some())
    }

    /// Whether what is rotated is also in the target's own parameters.
    #[must_use]
    pub fn feeds_into(&self, target: &TargetParams) -> bool {
        self.fed(target).next().is_some()
    }

    /// The target's secret parameters with `credential` in them; `None` if it is there already.
    #[must_use]
    pub fn feed(&self, target: &TargetParams, credential: &Credential) -> Option<Credential> {
        let mut secret = target.secret.clone();
        for feed in self.fed(target) {
            if let Some(value) = credential.field(feed.field) {
                secret = secret.with(feed.parameter, value.clone());
            }
        }
        (!secret.ct_eq(&target.secret)).then_some(secret)
    }
}

/// What a kind can do; the conformance suite chooses its cases by this.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capabilities {
    /// The target lets a privileged credential read the stored verifier.
    pub witness_read: bool,
    /// The target has an identity (host key, certificate) to be pinned at creation.
    pub pinned_identity: bool,
    /// A linked target may fan out over many hosts of this kind.
    pub linked: bool,
    /// Rotator types of which nothing on the target tells whether a value opens: what the target answered to the change is all there
    /// is. Of these a probe answers `Unknown`, or `Refused` where the target shows that no stored value can open.
    pub blind: &'static [&'static str],
    /// `rotation-interval` counts minutes.
    pub minutes: bool,
    /// The target wants proof of which gateway and which secret a request comes from.
    pub caller_proof: bool,
}

/// The parameters of a target as stored: plain ones readable, secret ones as a credential.
#[derive(Clone, Debug, Default)]
pub struct TargetParams {
    /// Parameters without `x-secret`, by wire name.
    pub plain: Map<String, Value>,
    /// Parameters with `x-secret`, by wire name.
    pub secret: Credential,
    /// Those of the target through which this one is reached.
    pub parent: Option<Box<Parent>>,
}

/// The target through which another one is reached.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Its kind.
    pub kind: String,
    /// Its parameters.
    pub params: TargetParams,
}

/// A pinned identity of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// `host:port` it belongs to.
    pub address: String,
    /// Algorithm, such as `ssh-ed25519`.
    pub algorithm: String,
    /// The public key as the protocol writes it (OpenSSH text form without comment).
    pub public_key: String,
    /// The fingerprint a person compares, such as `SHA256:…`.
    pub fingerprint: String,
}

/// With whose credential the connector logs in to make the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActingAs {
    /// `use-user-creds`, `use-self-creds`: the secret's own current credential.
    User,
    /// `use-target-creds`: the target's privileged credential.
    Target,
}

/// Everything one call of a connector may know.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The target (of a linked target: the parent's parameters with `host` and `port` of this host).
    pub target: &'a TargetParams,
    /// Identities pinned for the target; empty means that nothing is trusted yet and the call must fail.
    pub pinned: &'a [PeerIdentity],
    /// `rotator-type` of the secret.
    pub rotator_type: &'a str,
    /// The secret's own plain parameters, by wire name.
    pub params: &'a Map<String, Value>,
    /// Who logs in.
    pub acting: ActingAs,
    /// The credential last witnessed to open the account, if there is one. It names the account
    /// (`username`) even when its password is not known.
    pub current: &'a Credential,
    /// What an earlier preflight recorded for this slot (see [`Preflight::memory`]).
    pub memory: &'a BTreeMap<String, String>,
    /// Proof of who calls, for a target that asks for it ([`Capabilities::caller_proof`]); empty otherwise. Not a secret of the target.
    pub proof: &'a str,
    /// Failed logins this call may still cause on the target.
    pub login_budget: u32,
    /// Time the whole call may take.
    pub timeout: Duration,
}

/// The rules a generated password obeys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordPolicy {
    /// Length in characters, 5 to 128.
    pub length: u16,
    /// At least one of `a-z`.
    pub lower: bool,
    /// At least one of `A-Z`.
    pub upper: bool,
    /// At least one of `0-9`.
    pub digits: bool,
    /// At least one special character.
    pub special: bool,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { length: 24, lower: true, upper: true, digits: true, special: true }
    }
}

/// Why something did not work, in words for a person and a class for the engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The class decides what the engine does next.
    pub class: FailureClass,
    /// What happened, in one lower-case sentence without a value in it.
    pub message: String,
    /// What the person can do about it; may be empty.
    pub hint: String,
}

impl Failure {
    /// A failure of `class`.
    pub fn new(class: FailureClass, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: hint.into() }
    }
}

/// Classes of failures; each is a different decision for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A parameter is wrong or missing: a person must change it.
    Config,
    /// The acting credential was refused.
    Auth,
    /// The acting credential works but lacks the right.
    Privilege,
    /// The target's own policy refuses the password.
    Policy,
    /// The peer is not the pinned one. Everything for this target stops.
    PeerIdentity,
    /// Nobody answered, or the connection broke before anything was sent.
    Unreachable,
    /// No answer within the time allowed.
    Timeout,
    /// The login budget is spent; asking more would lock the account.
    LoginBudget,
    /// The target answered something the connector does not understand.
    Protocol,
}

impl FailureClass {
    /// The class as it is written in answers, metrics and the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Auth => "auth",
            Self::Privilege => "privilege",
            Self::Policy => "policy",
            Self::PeerIdentity => "peer_identity",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::LoginBudget => "login_budget",
            Self::Protocol => "protocol",
        }
    }
}

/// What a preflight proved and what is worth remembering for apply and probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// Facts for later calls of this slot, such as `method` = `chpasswd-e`. Never a value.
    pub memory: BTreeMap<String, String>,
    /// The policy tightened to what the target enforces, if it says so.
    pub policy: Option<PasswordPolicy>,
    /// Whether the target lets us read the verifier, so that probing costs no login.
    pub witness_read: bool,
    /// Sentences for the person: what was checked and how the change will be made.
    pub notes: Vec<String>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// The target confirmed.
    Applied,
    /// Definitely not changed.
    Rejected(Failure),
    /// Definitely nothing was sent.
    NotReached(Failure),
    /// May have changed.
    Ambiguous(Failure),
}

/// What became of asking the target for a new credential.
#[derive(Clone, Debug)]
pub enum IssueOutcome {
    /// The target made one; nobody else has heard of it.
    Issued(Credential),
    /// Definitely none was made.
    Rejected(Failure),
    /// Definitely nothing was sent.
    NotReached(Failure),
    /// One may have been made, of which nobody will ever know the secret.
    Ambiguous(Failure),
}

/// How it was found out whether a credential opens the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The stored verifier was read with a privileged credential and compared: no login was tried.
    WitnessRead,
    /// A login was tried.
    Login,
    /// Whoever gave the value said so, and there is nobody else to ask.
    Told,
}

/// Whether one credential opens the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It does.
    Opens(Evidence),
    /// It definitely does not.
    Refused(Evidence),
    /// Nobody knows. Never erases anything.
    Unknown(Failure),
}

/// Answers of one probe, in the order in which the credentials were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// One per credential.
    pub outcomes: Vec<ProbeOutcome>,
    /// Failed logins the probe caused on the target.
    pub failed_logins: u32,
}

/// Something that logs on with an account, such as a service, and was given the account's new credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// What and where it is, as `services_details` shows it; never a value.
    pub shown: Map<String, Value>,
    /// Why it did not get the credential.
    pub failure: Option<Failure>,
}

/// One kind of target.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Names, parameters and capabilities.
    fn declaration(&self) -> &Declaration;

    /// Checks a target's parameters without I/O; the error names the parameter.
    ///
    /// # Errors
    /// `Config` naming the parameter.
    fn check_target(&self, target: &TargetParams) -> Result<(), Failure>;

    /// Checks a secret's parameters against its target without I/O. `initial` is the credential given at
    /// creation (it may lack the password when the acting credential is the target's).
    ///
    /// # Errors
    /// `Config` naming the parameter.
    fn check_secret(&self, call: &Call<'_>, initial: &Credential) -> Result<(), Failure>;

    /// The credential a new secret starts with: made of its own parameters `given` (rotator type `target`: of the target's).
    /// It names the account even when its password or key is not known yet.
    ///
    /// # Errors
    /// `Config` naming the parameter that is missing or cannot be read.
    fn initial_credential(
        &self,
        rotator_type: &str,
        target: &TargetParams,
        given: &TargetParams,
    ) -> Result<Credential, Failure>;

    /// The target's parameters with what the kind makes up itself where the person asked for it and it is not there yet. Stored with
    /// the rest, so that it stays the same.
    fn completed(&self, target: TargetParams, _entropy: &dyn Entropy) -> TargetParams {
        target
    }

    /// A new credential for the account, under `policy`. No I/O.
    ///
    /// # Errors
    /// `Config` if the parameters ask for something impossible.
    fn generate(&self, call: &Call<'_>, policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Credential, Failure>;

    /// Asks the peer who it is, trusting nothing. `None` for kinds without an identity.
    ///
    /// # Errors
    /// `Unreachable`, `Timeout` or `Protocol`.
    async fn learn_identity(&self, target: &TargetParams, timeout: Duration) -> Result<Option<PeerIdentity>, Failure>;

    /// Proves that the target is reachable, is the pinned one, that the acting credential works and has the
    /// right, and chooses the way of changing. Changes nothing.
    ///
    /// # Errors
    /// The first thing that would make the rotation fail.
    async fn preflight(&self, call: &Call<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure>;

    /// Makes `candidate` the account's credential. Idempotent: asks first whether it already is.
    async fn apply(&self, call: &Call<'_>, candidate: &Credential) -> ApplyOutcome;

    /// Finds out which of `credentials` open the account, preferring a witness read; spends at most
    /// [`Call::login_budget`] failed logins.
    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport;

    /// How long one call of the target may take, if the secret's parameters say so.
    fn patience(&self, _params: &Map<String, Value>) -> Option<Duration> {
        None
    }

    /// Hands a credential that was witnessed on to whatever logs on with the account elsewhere. A failure of one keeps nobody else
    /// from it, and the rotation stands. Idempotent.
    async fn hand_on(&self, _call: &Call<'_>, _credential: &Credential) -> Vec<Dependent> {
        Vec::new()
    }

    /// Whether the target makes credentials of this rotator type itself, several of which open the account at a time. Then
    /// [`Self::intend`], [`Self::issue`] and [`Self::revoke`] take the place of [`Self::generate`] and [`Self::apply`].
    fn issues(&self, _rotator_type: &str) -> bool {
        false
    }

    /// Writes down what is on the target before anything is issued. It is stored before [`Self::issue`] is called. Changes nothing.
    ///
    /// # Errors
    /// It cannot be found out, or the target would not make one more.
    async fn intend(&self, _call: &Call<'_>) -> Result<Credential, Failure> {
        Err(issues_nothing())
    }

    /// Lets the target make a new credential beside those that `intent` names.
    async fn issue(&self, _call: &Call<'_>, _intent: &Credential) -> IssueOutcome {
        IssueOutcome::NotReached(issues_nothing())
    }

    /// Takes a credential off the target. Given an intent: whatever is there, was not before, and is not [`Call::current`].
    /// Idempotent, and it never touches the current credential.
    ///
    /// # Errors
    /// It is still there, or may be.
    async fn revoke(&self, _call: &Call<'_>, _superseded: &Credential) -> Result<(), Failure> {
        Err(issues_nothing())
    }
}

/// Field that marks a stored version as an intent: what was on the target before, and no value.
pub const INTENT: &str = "intent";

fn issues_nothing() -> Failure {
    Failure::new(FailureClass::Config, "targets of this kind issue no credentials", "")
}
