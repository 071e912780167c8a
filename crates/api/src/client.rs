//! A client which posts operations as JSON and maps error bodies.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Map, Value};

use crate::ErrorBody;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answered, or the connection broke.
    #[error("cannot reach the gateway at {url}: {reason}")]
    Unreachable {
        /// Base URL asked.
        url: String,
        /// What the transport said.
        reason: String,
    },
    /// The gateway answered with an error.
    #[error("{}", body.error)]
    Refused {
        /// HTTP status.
        status: u16,
        /// The error body.
        body: ErrorBody,
    },
    /// The client itself could not be set up.
    #[error("{0}")]
    Setup(String),
}

/// A connection to one gateway.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    token: Option<String>,
}

impl Client {
    /// A client of the gateway at `base`; `ca_pem` is an additional trusted root.
    ///
    /// # Errors
    /// `Setup` when the certificate cannot be read.
    pub fn new(base: &str, ca_pem: Option<&[u8]>) -> Result<Self, ClientError> {
        let setup = |e: reqwest::Error| ClientError::Setup(format!("the HTTP client cannot start: {e}"));
        // A redirection would carry the token, or a secret, to somebody who was not asked.
        let mut builder = reqwest::Client::builder()
            .timeout(Duration::from_secs(600))
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none());
        if base.starts_with("http://") {
            // Reading the machine's roots takes longer than most calls, and nobody would ask for them.
            builder = builder.tls_certs_only([]);
        }
        if ["http://127.", "http://localhost", "http://[::1]"].iter().any(|local| base.starts_with(local)) {
            builder = builder.no_proxy();
        }
        if let Some(pem) = ca_pem {
            builder = builder.add_root_certificate(reqwest::Certificate::from_pem(pem).map_err(setup)?);
        }
        Ok(Self { base: base.trim_end_matches('/').to_owned(), http: builder.build().map_err(setup)?, token: None })
    }

    /// The address it asks.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Uses `token` for every later call.
    pub fn set_token(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// Calls `operation` with `params` and gives its answer.
    ///
    /// # Errors
    /// `Unreachable` when nobody answered, `Refused` with the gateway's error body.
    pub async fn call(&self, operation: &str, mut params: Map<String, Value>) -> Result<Value, ClientError> {
        if let Some(token) = &self.token {
            params.insert("token".to_owned(), Value::String(token.clone()));
        }
        let body = Value::Object(params).to_string();
        let lost = |e: reqwest::Error| ClientError::Unreachable { url: self.base.clone(), reason: cause(&e) };
        let answer = self
            .http
            .post(format!("{}/{operation}", self.base))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .map_err(lost)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(lost)?;
        read_answer(status, &bytes)
    }
}

/// What lies at the bottom of a transport error: the outer layers only say that a request failed.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut at: &dyn std::error::Error = error;
    for _ in 0..16 {
        let Some(inner) = at.source() else { break };
        at = inner;
    }
    let text = at.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    match text {
        text if text.contains("UnknownIssuer") => {
            "its certificate is signed by nobody whom this machine trusts".to_owned()
        }
        text if text.contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority, not of a server".to_owned()
        }
        text if text.contains("NotValidForName") => "its certificate is for another name".to_owned(),
        text if text.contains("certificate") => "its certificate is not trusted".to_owned(),
        text => text.to_lowercase(),
    }
}

fn read_answer(status: StatusCode, bytes: &[u8]) -> Result<Value, ClientError> {
    if status.is_redirection() {
        let error = format!("the gateway answered {status}: give the address it really has");
        return Err(ClientError::Refused {
            status: status.as_u16(),
            body: ErrorBody { error, ..ErrorBody::default() },
        });
    }
    if !status.is_success() {
        let body = serde_json::from_slice(bytes)
            .unwrap_or_else(|_| ErrorBody { error: format!("the gateway answered {status}"), ..ErrorBody::default() });
        return Err(ClientError::Refused { status: status.as_u16(), body });
    }
    if bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(bytes).map_err(|_| ClientError::Refused {
        status: status.as_u16(),
        body: ErrorBody {
            error: "the answer is not JSON: is this the address of a gateway?".to_owned(),
            ..ErrorBody::default()
        },
    })
}
