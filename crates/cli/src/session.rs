//! A signed-in client. A token is kept between calls and tried first; when the gateway refuses it, signing in again
//! happens once. Nothing else is asked of the gateway before the call itself.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ArgMatches;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use volvelle_api::{Client, ClientError};

use crate::failure::{DENIED, Failed};
use crate::locate::{self, Login};
use crate::{print, profile};

/// Seconds before its end at which a kept token is no longer used.
const MARGIN: i64 = 30;

/// Calls of one identity at one gateway.
#[derive(Clone)]
pub struct Session {
    client: Client,
    login: Arc<Login>,
    token: Arc<Mutex<Option<String>>>,
}

impl Session {
    /// Finds the gateway and the identity; asks nobody yet.
    pub fn open(leaf: &ArgMatches) -> Result<Self, Failed> {
        Self::new(leaf, locate::login(leaf)?)
    }

    /// A session of a known identity.
    pub fn new(leaf: &ArgMatches, login: Login) -> Result<Self, Failed> {
        let file = locate::flag(leaf, "ca-cert").or_else(|| locate::env(locate::CA_CERT));
        let root = file
            .map(|file| {
                std::fs::read(&file)
                    .map_err(|e| Failed::new(format!("cannot read the certificate {file}: {}", locate::plain(&e)), ""))
            })
            .transpose()?;
        let client = Client::new(&login.url, root.as_deref())?;
        if locate::is_open(&login.url) {
            print::warning(&format!("{} is not encrypted: secrets can be read on the way", login.url));
        }
        let token = login.token.clone().or_else(|| kept(&login));
        Ok(Self { client, login: Arc::new(login), token: Arc::new(Mutex::new(token)) })
    }

    /// Who signs in.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Calls an operation.
    pub async fn call(&self, operation: &str, params: Map<String, Value>) -> Result<Value, Failed> {
        let kept = self.token.lock().await.clone();
        let token = match &kept {
            Some(token) => token.clone(),
            None => self.renewed(None).await?,
        };
        let refused = match self.with(&token, operation, params.clone()).await {
            Err(ClientError::Refused { status: 401, body })
                if body.code == "unauthenticated" || body.code.is_empty() =>
            {
                body
            }
            other => return Ok(other?),
        };
        if kept.is_none() || self.login.token.is_some() {
            return Err(ClientError::Refused { status: 401, body: refused }.into());
        }
        let token = self.renewed(Some(&token)).await?;
        Ok(self.with(&token, operation, params).await?)
    }

    /// Calls an operation without signing in.
    pub async fn call_unsigned(&self, operation: &str, params: Map<String, Value>) -> Result<Value, Failed> {
        Ok(self.client.call(operation, params).await?)
    }

    async fn with(&self, token: &str, operation: &str, params: Map<String, Value>) -> Result<Value, ClientError> {
        let mut client = self.client.clone();
        client.set_token(Some(token.to_owned()));
        client.call(operation, params).await
    }

    /// A token that is not `refused`; of many calls at once only one signs in.
    async fn renewed(&self, refused: Option<&str>) -> Result<String, Failed> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_deref().filter(|token| Some(*token) != refused) {
            return Ok(token.to_owned());
        }
        let token = self.sign_in().await?;
        *held = Some(token.clone());
        Ok(token)
    }

    /// Signs in and keeps the token.
    pub async fn sign_in(&self) -> Result<String, Failed> {
        let login = &self.login;
        if login.id.is_empty() || login.key.is_empty() {
            let missing = if login.id.is_empty() { "access id" } else { "access key" };
            return Err(Failed::with(
                DENIED,
                format!("no {missing} is known for {}", login.url),
                "run `volvelle configure`, give --data-dir DIR, or set VOLVELLE_ACCESS_ID and VOLVELLE_ACCESS_KEY",
            ));
        }
        let body = json!({"access-id": login.id, "access-key": login.key, "access-type": "access_key"});
        let answer =
            self.client.call("auth", body.as_object().cloned().unwrap_or_default()).await.map_err(|error| {
                let mut failed = Failed::from(error);
                if failed.reason == "unauthenticated" {
                    failed.message = format!("{} refuses {} with this access key", login.url, login.id);
                    failed.hint = format!("the access id and key come from {}", login.from);
                }
                failed
            })?;
        let token = answer["token"].as_str().ok_or_else(|| Failed::new("the gateway gave no token", ""))?;
        // A cache that cannot be written only costs one more sign-in.
        let _ = keep(login, token, answer["creds"]["expiry"].as_i64().unwrap_or(0));
        Ok(token.to_owned())
    }
}

fn cache() -> PathBuf {
    profile::folder().join("tokens.json")
}

fn slot(login: &Login) -> String {
    format!("{} {}", login.url, login.id)
}

/// All kept tokens; none if the file could have been read or written by others.
fn all() -> Map<String, Value> {
    let file = cache();
    let private = std::fs::metadata(&file).is_ok_and(|meta| meta.permissions().mode() & 0o077 == 0);
    let text = if private { std::fs::read_to_string(&file).ok() } else { None };
    let tokens: Map<String, Value> = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let now = jiff::Timestamp::now().as_second();
    tokens.into_iter().filter(|(_, kept)| kept["expiry"].as_i64().is_some_and(|end| end - MARGIN > now)).collect()
}

fn kept(login: &Login) -> Option<String> {
    if login.id.is_empty() { None } else { all().get(&slot(login))?["token"].as_str().map(str::to_owned) }
}

fn keep(login: &Login, token: &str, expiry: i64) -> std::io::Result<()> {
    let mut tokens = all();
    tokens.insert(slot(login), json!({"token": token, "expiry": expiry}));
    profile::private(&cache(), &Value::Object(tokens).to_string())
}

/// Drops the tokens kept for an access id.
pub fn forget(id: &str) {
    let mut tokens = all();
    tokens.retain(|slot, _| slot.rsplit(' ').next() != Some(id));
    // An old token left behind ends by itself.
    let _ = profile::private(&cache(), &Value::Object(tokens).to_string());
}
