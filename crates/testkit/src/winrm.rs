//! A simulated Windows host that is reached over WinRM. There is no server of that protocol to install on Debian: this one has its NTLM
//! from pyspnego, and pywinrm and pypsrp, which people use against real hosts, talk to it as well. It runs no PowerShell.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::namespace::Namespace;

/// The password of every account of a new host.
pub const INITIAL_PASSWORD: &str = "Init-Passw0rd!1";

/// One simulated host, `WIN1`.
pub struct Simulated {
    namespace: Namespace,
}

impl Simulated {
    /// Starts a host with the accounts `Administrator`, `app1`, `app2`, `app3` (which may not use WinRM) and `weak` (no administrator);
    /// four wrong passwords lock an account.
    pub fn start() -> Result<Simulated> {
        let python = python()?.display().to_string();
        let arguments = [python.as_str(), include_str!("winrm/server.py")];
        let environment = [("PASSWORD", INITIAL_PASSWORD)];
        Ok(Simulated { namespace: Namespace::start(include_str!("winrm/server.sh"), &arguments, &environment)? })
    }

    /// Where it listens: 5985 and 5986.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address
    }

    /// The certificate of the authority that signed the host's.
    pub fn authority(&self) -> Result<String> {
        self.namespace.read("tls/ca.pem")
    }

    /// Where that certificate is, for other programs.
    pub fn authority_file(&self) -> PathBuf {
        self.namespace.file("tls/ca.pem")
    }

    /// Whether it is the account's password: read, no login.
    pub fn holds(&self, user: &str, password: &str) -> Result<bool> {
        Ok(self.state()?["accounts"][user]["password"] == password)
    }

    /// What a service (`service:NAME`), pool (`pool:NAME`) or task (`task:PATH`) logs on with, and how often it was started.
    pub fn dependent(&self, name: &str) -> Result<(String, u64)> {
        let found = &self.state()?["dependents"][name];
        let password = found["password"].as_str().context("a password")?.to_owned();
        Ok((password, found["starts"].as_u64().context("a number")?))
    }

    /// How many failed logins the host has counted since the last success.
    pub fn failures(&self, user: &str) -> Result<u64> {
        self.state()?["accounts"][user]["failures"].as_u64().context("a number")
    }

    /// Every command line that clients have sent.
    pub fn command_lines(&self) -> Result<String> {
        Ok(self.state()?["seen"].to_string())
    }

    /// Changes what the host knows of an account: `disabled`, `locked`, `failures` …
    pub fn set(&self, user: &str, field: &str, value: &Value) -> Result<()> {
        let answer = self.namespace.tell(&format!("set {user} {field} {value}"))?;
        ensure!(answer == "done", "the simulator answers {answer:?}");
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.namespace.read("state.json")?)?)
    }
}

/// Python with pywinrm and pypsrp, in an environment made once in the target folder.
pub fn python() -> Result<PathBuf> {
    crate::python::venv("winrm-venv", &["pywinrm==0.5.0", "pypsrp==0.9.1"], "import winrm, pypsrp")
}
