//! AWS as far as access keys and console passwords go: moto's IAM and STS, with authentication, permissions and inactive keys enforced.

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

    /// Gives a user this console password, in a login profile that is made anew; without one the profile is deleted.
    pub async fn log_in(&self, user: &str, password: Option<&str>) -> Result<()> {
        self.ask::<Value>("login", json!({"name": user, "password": password})).await.map(|_| ())
    }

    /// The user's console password, unless it has to be changed at the next sign-in.
    pub async fn console_password(&self, user: &str) -> Result<Option<String>> {
        let seen: Value = self.ask("password", json!({"name": user})).await?;
        let usable = seen["reset"] == json!(false);
        Ok(seen["password"].as_str().filter(|_| usable).map(str::to_owned))
    }

    /// Puts a console password in place within the same login profile.
    pub async fn set_console_password(&self, user: &str, password: &str) -> Result<()> {
        self.ask::<Value>("password", json!({"name": user, "set": password})).await.map(|_| ())
    }

    /// The user has to change the console password at the next sign-in.
    pub async fn ask_for_a_change(&self, user: &str) -> Result<()> {
        self.ask::<Value>("reset", json!({"name": user})).await.map(|_| ())
    }

    /// What the account asks of console passwords: this length, letters of both cases, digits and symbols.
    pub async fn password_policy(&self, length: u16) -> Result<()> {
        self.ask::<Value>("policy", json!({"length": length, "symbols": true})).await.map(|_| ())
    }

    /// The machine that asks the metadata service has this role.
    pub async fn machine_role(&self, name: &str, arn: &str) -> Result<()> {
        self.ask::<Value>("machine", json!({"name": name, "arn": arn})).await.map(|_| ())
    }

    /// The next calls of the API are throttled.
    pub async fn throttle(&self, calls: u32) -> Result<()> {
        self.ask::<Value>("throttle", json!({"calls": calls})).await.map(|_| ())
    }

    /// The next calls of this action are carried out, and their answers are lost.
    pub async fn lose_answers(&self, action: &str, calls: u32) -> Result<()> {
        self.ask::<Value>("lose", json!({"action": action, "calls": calls})).await.map(|_| ())
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
