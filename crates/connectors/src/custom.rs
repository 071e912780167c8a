//! Rotators of one's own: a web hook by the vendor's contract, or a local program with the same request and answer.
//!
//! Rights needed: none here; the hook or the program has them.
//!
//! What is rotated is an opaque payload. The hook is sent the present one, makes the change, and answers with the next one. So the
//! new value exists nowhere before the answer, and nobody can be asked afterwards which value opens: there is no witness. An answer
//! that is lost is asked for again with the same payload, a bounded number of times; then a person is told, and nothing is dropped.

mod hook;
mod program;

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use volvelle_domain::Credential;
use volvelle_domain::connector::{
    ApplyOutcome, Call, Capabilities, Connector, Declaration, Evidence, Failure, FailureClass, IssueOutcome,
    PasswordPolicy, PeerIdentity, Preflight, ProbeOutcome, ProbeReport, RotatorType, TargetParams,
};
use volvelle_domain::ids::Entropy;

use program::Allowed;

/// Time for one request if `timeout-sec` is not given.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Longest answer.
const LONGEST: usize = 1 << 20;

/// A web server that rotates, or a local program.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct WebTarget {
    /// Where the rotation request is posted (`https://…`), or `exec:` and the absolute path of a program that the gateway allows.
    #[schemars(extend("x-details" = "url"))]
    pub url: String,
}

/// A payload that the hook exchanges for the next one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct CustomSecret {
    /// The present payload, any text; the hook is sent it and answers with the next one.
    #[schemars(extend("x-secret" = true))]
    pub custom_payload: String,
    /// Tell the hook the rules for passwords: true or false.
    #[schemars(extend("x-details" = "enable_custom_password_policy"))]
    pub enable_password_policy: String,
    /// Seconds that a request may take.
    #[schemars(extend("x-details" = "timeout_seconds"))]
    pub timeout_sec: i64,
}

impl Default for CustomSecret {
    fn default() -> Self {
        let timeout_sec = i64::try_from(TIMEOUT.as_secs()).unwrap_or(40);
        Self { custom_payload: String::new(), enable_password_policy: String::new(), timeout_sec }
    }
}

const ROTATOR_TYPES: &[RotatorType] =
    &[RotatorType { name: "custom", wire_name: "custom-rotator", summary: "a payload of your own", feeds: &[] }];

/// The connector for targets of kind `web` and secrets of kind `custom`.
pub struct Custom {
    declaration: Declaration,
    allowed: Allowed,
    /// Made when it is first needed: it reads every certificate that the machine trusts.
    http: OnceLock<Result<reqwest::Client, Failure>>,
}

impl Default for Custom {
    fn default() -> Self {
        Self::with_programs(Allowed::from_environment())
    }
}

impl Custom {
    /// The connector with these programs allowed, absolute paths separated by colons.
    #[must_use]
    pub fn allowing(programs: &str) -> Self {
        Self::with_programs(Allowed::parse(programs))
    }

    fn with_programs(allowed: Allowed) -> Self {
        Self {
            declaration: Declaration {
                kind: "web",
                secret_kind: "custom",
                summary: "Rotators of one's own: a web hook or a local program",
                target: schema_for!(WebTarget),
                secret: schema_for!(CustomSecret),
                details_key: "web_target_details",
                rotator_types: ROTATOR_TYPES,
                capabilities: Capabilities {
                    blind: &["custom"],
                    minutes: true,
                    caller_proof: true,
                    ..Capabilities::default()
                },
            },
            allowed,
            http: OnceLock::new(),
        }
    }

    fn way<'a>(&'a self, target: &'a TargetParams) -> Result<Way<'a>, Failure> {
        let url = target.plain.get("url").and_then(Value::as_str).unwrap_or_default();
        if let Some(path) = url.strip_prefix("exec:") {
            return self.allowed.check(path).map(Way::Program);
        }
        hook::check(url).map(Way::Hook)
    }
}

enum Way<'a> {
    Hook(reqwest::Url),
    Program(&'a std::path::Path),
}

fn config(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Config, message, hint)
}

/// What the hook is sent. With the policy on, its rules stand beside the payload under the vendor's names.
fn request(call: &Call<'_>) -> zeroize::Zeroizing<Vec<u8>> {
    let mut body = json!({"payload": call.current.expose_text("payload").unwrap_or_default()});
    for (name, value) in call.memory.iter().filter_map(|(name, value)| Some((name.strip_prefix("policy ")?, value))) {
        body[name] = Value::from(value.as_str());
    }
    let text = zeroize::Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default());
    if let Some(Value::String(payload)) = body.get_mut("payload") {
        zeroize::Zeroize::zeroize(payload);
    }
    text
}

/// The next payload, if that is what was answered.
fn payload(answer: &[u8]) -> Option<Credential> {
    #[derive(Deserialize)]
    struct Answer {
        payload: String,
    }
    let mut answer: Answer = serde_json::from_slice(answer).ok()?;
    let next =
        (!answer.payload.is_empty()).then(|| Credential::default().with("payload", answer.payload.as_str().into()));
    zeroize::Zeroize::zeroize(&mut answer.payload);
    next
}

fn unreadable(who: &str) -> Failure {
    let message = format!("{who} reports success, but its answer has no payload");
    Failure::new(FailureClass::Protocol, message, "it must answer with {\"payload\": \"…\"}")
}

#[async_trait]
impl Connector for Custom {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn check_target(&self, target: &TargetParams) -> Result<(), Failure> {
        self.way(target).map(|_| ())
    }

    fn check_secret(&self, call: &Call<'_>, _: &Credential) -> Result<(), Failure> {
        if call.rotator_type != "custom" {
            return Err(config(
                format!("rotator-type {:?} is not custom", call.rotator_type),
                "leave rotator-type out",
            ));
        }
        match call.params.get("timeout-sec").and_then(Value::as_i64) {
            Some(seconds) if !(1..=50).contains(&seconds) => {
                Err(config("timeout-sec must be between 1 and 50", "set timeout-sec"))
            }
            _ => Ok(()),
        }
    }

    fn initial_credential(&self, _: &str, _: &TargetParams, given: &TargetParams) -> Result<Credential, Failure> {
        let payload = given.secret.field("custom-payload").cloned();
        Ok(payload.map_or_else(Credential::default, |payload| Credential::default().with("payload", payload)))
    }

    fn generate(&self, _: &Call<'_>, _: &PasswordPolicy, _: &dyn Entropy) -> Result<Credential, Failure> {
        Err(config("a hook makes the next payload itself", ""))
    }

    async fn learn_identity(&self, _: &TargetParams, _: Duration) -> Result<Option<PeerIdentity>, Failure> {
        Ok(None)
    }

    /// The contract knows no request without effect: what can be proved is that somebody listens, or that the program is there.
    async fn preflight(&self, call: &Call<'_>, policy: &PasswordPolicy) -> Result<Preflight, Failure> {
        let note = match self.way(call.target)? {
            Way::Hook(url) => {
                hook::listens(&url, call.timeout).await?;
                "the hook listens; what it does is seen at the first rotation"
            }
            Way::Program(_) => "the program is there; what it does is seen at the first rotation",
        };
        let asked = call.params.get("enable-password-policy").and_then(Value::as_str) == Some("true");
        let word = |rule: bool| rule.to_string();
        let rules = [
            ("policy password-length", policy.length.to_string()),
            ("policy PasswordLowercaseChar", word(policy.lower)),
            ("policy PasswordUppercaseChar", word(policy.upper)),
            ("policy PasswordRequireNumbers", word(policy.digits)),
            ("policy PasswordRequireSymbols", word(policy.special)),
        ];
        let memory = rules.into_iter().filter(|_| asked).map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Preflight { memory, policy: None, witness_read: true, notes: vec![note.to_owned()] })
    }

    async fn apply(&self, _: &Call<'_>, _: &Credential) -> ApplyOutcome {
        ApplyOutcome::NotReached(config("a hook makes the next payload itself", ""))
    }

    /// The newest payload was told by the hook, or by a person; of every other one nobody knows.
    async fn probe(&self, call: &Call<'_>, credentials: &[&Credential]) -> ProbeReport {
        let nobody = || {
            let message = "a hook cannot be asked whether a payload is valid";
            ProbeOutcome::Unknown(Failure::new(FailureClass::Protocol, message, "ask its owner"))
        };
        let one = |(position, credential): (usize, &&Credential)| {
            let told = position == 0 && credential.field("payload").is_some() && !credential.ct_eq(call.current);
            if told { ProbeOutcome::Opens(Evidence::Told) } else { nobody() }
        };
        ProbeReport { outcomes: credentials.iter().enumerate().map(one).collect(), failed_logins: 0 }
    }

    fn patience(&self, params: &Map<String, Value>) -> Option<Duration> {
        let said = params.get("timeout-sec").and_then(Value::as_u64).filter(|seconds| (1..=50).contains(seconds));
        Some(said.map_or(TIMEOUT, Duration::from_secs))
    }

    fn issues(&self, _: &str) -> bool {
        true
    }

    /// There is nothing to list: the hook keeps one payload.
    async fn intend(&self, _: &Call<'_>) -> Result<Credential, Failure> {
        Ok(Credential::default())
    }

    async fn issue(&self, call: &Call<'_>, _: &Credential) -> IssueOutcome {
        let body = request(call);
        match self.way(call.target) {
            Ok(Way::Hook(url)) => match self.http.get_or_init(hook::client) {
                Ok(http) => hook::post(http, url, call, &body).await,
                Err(failure) => IssueOutcome::NotReached(failure.clone()),
            },
            Ok(Way::Program(path)) => program::run(path, call.timeout, &body).await,
            Err(failure) => IssueOutcome::NotReached(failure),
        }
    }

    /// The hook has put the next payload in the former one's place.
    async fn revoke(&self, _: &Call<'_>, _: &Credential) -> Result<(), Failure> {
        Ok(())
    }
}
