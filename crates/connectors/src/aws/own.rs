//! The gateway's own identity in AWS: an access key of its environment, or the role of the machine it runs on.
//!
//! What must stay true: it acts only where the gateway's own configuration allows it, because whoever may make targets makes it act.

use std::time::Duration;

use serde::Deserialize;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroize;

use super::config;
use super::query::Key;

/// Allows targets to act as the gateway.
const ALLOW: &str = "VOLVELLE_ALLOW_AWS_IDENTITY";
/// Where a machine in AWS asks for its credentials.
const METADATA: &str = "http://169.254.169.254";
/// Longest answer of the metadata service.
const LONGEST: usize = 64 * 1024;
/// Time for one question to it; it is on the same machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the gateway's identity comes from.
#[derive(Clone)]
pub(super) enum Own {
    /// The gateway's configuration does not allow it.
    Forbidden,
    /// An access key in the environment.
    Key(Key),
    /// The metadata service at this address.
    Machine(String),
}

impl Own {
    /// What these variables say.
    pub(super) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        if !given(ALLOW).is_some_and(|word| word.eq_ignore_ascii_case("true")) {
            return Self::Forbidden;
        }
        if let (Some(id), Some(secret)) = (given("AWS_ACCESS_KEY_ID"), given("AWS_SECRET_ACCESS_KEY")) {
            let token = given("AWS_SESSION_TOKEN").map(|token| token.as_str().into());
            return Self::Key(Key { id, secret: secret.as_str().into(), token });
        }
        Self::Machine(given("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| METADATA.to_owned()))
    }

    /// The key to sign with.
    pub(super) async fn key(&self, http: &reqwest::Client) -> Result<Key, Failure> {
        match self {
            Self::Forbidden => Err(config(
                "the gateway does not let targets act with its own identity",
                format!("start the gateway with {ALLOW}=true, or give access-key-id and access-key"),
            )),
            Self::Key(key) => Ok(key.clone()),
            Self::Machine(at) => of_the_machine(http, at.trim_end_matches('/')).await,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Session {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

/// The second version of the protocol: a token is put, and shown with each question.
async fn of_the_machine(http: &reqwest::Client, at: &str) -> Result<Key, Failure> {
    let token = http.put(format!("{at}/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = read(token).await?;
    let roles = format!("{at}/latest/meta-data/iam/security-credentials/");
    let ask = |url: String| http.get(url).header("x-aws-ec2-metadata-token", token.trim());
    let role = read(ask(roles.clone())).await?;
    let role = role.lines().next().unwrap_or_default().trim();
    if role.is_empty() || !role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte)) {
        return Err(nowhere("it names no role"));
    }
    let answer = read(ask(format!("{roles}{role}"))).await?;
    let mut session: Session = serde_json::from_str(&answer).map_err(|_| nowhere("its credentials cannot be read"))?;
    let (secret, token) = (session.secret_access_key.as_str().into(), session.token.as_str().into());
    session.secret_access_key.zeroize();
    session.token.zeroize();
    Ok(Key { id: session.access_key_id, secret, token: Some(token) })
}

async fn read(request: reqwest::RequestBuilder) -> Result<zeroize::Zeroizing<String>, Failure> {
    let mut response = request.timeout(PATIENCE).send().await.map_err(|_| nowhere("it does not answer"))?;
    if !response.status().is_success() {
        return Err(nowhere(&format!("it answers with status {}", response.status().as_u16())));
    }
    let mut text = zeroize::Zeroizing::new(Vec::new());
    while let Some(piece) = response.chunk().await.map_err(|_| nowhere("it breaks off"))? {
        if text.len() + piece.len() > LONGEST {
            return Err(nowhere("its answer is too long"));
        }
        text.extend_from_slice(&piece);
    }
    Ok(zeroize::Zeroizing::new(String::from_utf8_lossy(&text).into_owned()))
}

fn nowhere(why: &str) -> Failure {
    let message = format!("the gateway has no identity in AWS: the metadata service cannot be used ({why})");
    let hint = "give the machine a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the gateway";
    Failure::new(FailureClass::Unreachable, message, hint)
}
