//! A simulated Windows host that is reached over WinRM or SSH. There is no server of the former to install on Debian: this one has its NTLM
//! and Kerberos from pyspnego, and pywinrm and pypsrp, which people use against real hosts, talk to it as well. It runs no PowerShell.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::samba::Domain;
use crate::{install, python as pip};

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
        Simulated::begin("")
    }

    /// Starts a host that is a member of a domain, as `win1.corp.test`: the domain's `rot` is an administrator of it, and its `weak` may
    /// use WinRM.
    pub fn joined(domain: &Domain) -> Result<Simulated> {
        Simulated::begin(&hex::encode(domain.join("WIN1", "HTTP/win1.corp.test")?))
    }

    fn begin(keytab: &str) -> Result<Simulated> {
        let python = python()?.display().to_string();
        let programs =
            [include_str!("winrm/host.py"), include_str!("winrm/openssh.py"), include_str!("winrm/server.py")];
        let arguments = [python.as_str(), programs[0], programs[1], programs[2]];
        let environment = [("PASSWORD", INITIAL_PASSWORD), ("KEYTAB", keytab)];
        Ok(Simulated { namespace: Namespace::start(include_str!("winrm/server.sh"), &arguments, &environment)? })
    }

    /// Its host key for SSH, as `algorithm base64`.
    pub fn host_key(&self) -> Result<String> {
        let line = self.namespace.read("host_key.pub")?;
        Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// The private key that `Administrator` may log in with over SSH.
    pub fn private_key(&self) -> Result<String> {
        self.namespace.read("client_key")
    }

    /// Where it listens: 22, 5985 and 5986.
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

    /// How everybody logged in over WinRM, or tried to: `ntlm` (twice for each), `kerberos`, `kerberos-bound` (to the
    /// certificate) or `kerberos-refused`.
    pub fn logins(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.state()?["logins"].clone())?)
    }

    /// Gives the host another host key for SSH, as if it were another machine.
    pub fn swap_host_key(&self) -> Result<()> {
        let answer = self.namespace.tell("swap")?;
        ensure!(answer == "done", "the simulator answers {answer:?}");
        Ok(())
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
    install::ensure(install::For::Directories)?;
    let packages =
        ["pywinrm==0.5.0", "pypsrp==0.9.1", "gssapi==1.12.0", "krb5==0.10.0", "pykerberos==1.2.4", "asyncssh==2.24.1"];
    pip::venv("winrm-venv", &packages, "import winrm, pypsrp, gssapi, krb5, kerberos, asyncssh")
}
