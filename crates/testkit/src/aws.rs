//! AWS as far as access keys go: moto's IAM and STS, with authentication, permissions and inactive keys enforced.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::python;

/// The account that all of it is in.
pub const ACCOUNT: &str = "123456789012";

/// One access key, as the server has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Key {
    /// `AKIA…`.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// `Active` or `Inactive`.
    pub status: String,
}

/// One server. It ends with the value, or with the test process.
pub struct Aws {
    /// Where it listens.
    pub addr: SocketAddr,
    client: reqwest::Client,
    child: Child,
}

impl Aws {
    /// Starts one, installing it first if necessary.
    pub fn start() -> Result<Aws> {
        let python = python::venv("moto-venv", &["moto==5.2.5", "flask", "flask-cors"], "import moto, flask_cors")?;
        let addr = crate::port::free()?;
        let mut child = Command::new(python)
            .args(["-c", include_str!("aws/strict.py"), &addr.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting moto")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("standard output of moto")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "moto did not start");
        Ok(Aws { addr, client: reqwest::Client::new(), child })
    }

    /// Base address for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Makes a user with an inline policy and so many keys.
    pub async fn user(&self, name: &str, policy: Option<Value>, keys: usize) -> Result<Vec<Key>> {
        self.ask("user", json!({"name": name, "policy": policy, "keys": keys})).await
    }

    /// Makes a role; gives its ARN.
    pub async fn role(&self, name: &str, trust: Value, policy: Value) -> Result<String> {
        let made: Value = self.ask("role", json!({"name": name, "trust": trust, "policy": policy})).await?;
        Ok(made["arn"].as_str().context("an ARN")?.to_owned())
    }

    /// The keys of a user, whatever their status.
    pub async fn keys(&self, user: &str) -> Result<Vec<Key>> {
        self.ask("keys", json!({"name": user})).await
    }

    /// Makes one more key of a user, as somebody else would; gives all of them.
    pub async fn add_key(&self, user: &str) -> Result<Vec<Key>> {
        self.ask("key", json!({"name": user})).await
    }

    /// The next calls of the API are throttled.
    pub async fn throttle(&self, calls: u32) -> Result<()> {
        self.ask::<Value>("throttle", json!({"calls": calls})).await.map(|_| ())
    }

    /// The actions called since this was last asked.
    pub async fn calls(&self) -> Result<Vec<String>> {
        self.ask("calls", json!({})).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, what: &str, body: Value) -> Result<T> {
        let answer = self.client.post(format!("{}/strict/{what}", self.url())).json(&body).send().await?;
        ensure!(answer.status().is_success(), "{what}: {}", answer.status());
        Ok(answer.json().await?)
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
