//! Baseboard management controllers: OpenIPMI's simulator (cipher suite 3), pyghmi's server with the hash functions of cipher suite 17, and
//! a simulated Redfish service, because none that enforces passwords can be installed. ipmitool and the DMTF's own client accept them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::install;
use crate::namespace::Namespace;

/// The password of every account of a new controller.
pub const INITIAL_PASSWORD: &str = "Init-Passw0rd!1";

/// A simulated Redfish service at port 443, with the accounts `admin`, `ops` (may only change itself), `app1`, `app2` (read only) and
/// `snmp` (may not use Redfish). Passwords have 8 to 20 characters and not only letters; three failures lock an account.
pub struct Redfish {
    namespace: Namespace,
}

impl Redfish {
    /// Starts one.
    pub fn start() -> Result<Redfish> {
        let arguments = [include_str!("bmc/redfish.py")];
        let environment = [("PASSWORD", INITIAL_PASSWORD)];
        Ok(Redfish { namespace: Namespace::start(include_str!("bmc/redfish.sh"), &arguments, &environment)? })
    }

    /// Where it listens.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address
    }

    /// The certificate of the authority that signed the service's.
    pub fn authority(&self) -> Result<String> {
        self.namespace.read("tls/ca.pem")
    }

    /// Where that certificate is, for other programs.
    pub fn authority_file(&self) -> PathBuf {
        self.namespace.file("tls/ca.pem")
    }

    /// The service's own certificate.
    pub fn certificate(&self) -> Result<String> {
        self.namespace.read("tls/cert.pem")
    }

    /// A field of an account: `password`, `locked`, `all` (failures ever) …
    pub fn field(&self, user: &str, field: &str) -> Result<Value> {
        let state = self.state()?;
        let accounts = state["accounts"].as_object().context("accounts")?;
        let account = accounts.values().find(|account| account["name"] == user).context("an account")?;
        Ok(account[field].clone())
    }

    /// Whether it is the account's password: read, no login.
    pub fn holds(&self, user: &str, password: &str) -> Result<bool> {
        Ok(self.field(user, "password")? == password)
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> Result<u64> {
        self.state()?["sessions"].as_u64().context("a number")
    }

    /// Every request that came, `METHOD /path`.
    pub fn seen(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.state()?["seen"].clone())?)
    }

    /// Changes a field of an account.
    pub fn set(&self, user: &str, field: &str, value: &Value) -> Result<()> {
        self.tell(&format!("set {user} {field} {value}"))
    }

    /// Changes a rule: `threshold`, `shortest`, `longest`, `sessions`, `keep_alive`.
    pub fn rule(&self, name: &str, value: &Value) -> Result<()> {
        self.tell(&format!("rule {name} {value}"))
    }

    /// Remembers the accounts.
    pub fn keep(&self) -> Result<()> {
        self.tell("keep")
    }

    /// Puts the remembered accounts back.
    pub fn put_back(&self) -> Result<()> {
        self.tell("back")
    }

    fn tell(&self, line: &str) -> Result<()> {
        let answer = self.namespace.tell(line)?;
        ensure!(answer == "done", "the simulator answers {answer:?}");
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.namespace.read("state.json")?)?)
    }
}

/// Which IPMI 2.0 server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// OpenIPMI's `ipmi_sim`: cipher suite 3 only.
    OpenIpmi,
    /// pyghmi's server, made to speak cipher suite 17.
    Suite17,
}

/// Whether a server has time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// It has.
    Idle,
    /// It has none.
    Busy,
}

/// An IPMI 2.0 server at port 623, with the users `admin` and `app1` (administrators), `ops` (user) and `off` (disabled).
pub struct Ipmi {
    namespace: Namespace,
    server: Server,
}

impl Ipmi {
    /// Starts one.
    pub fn start(server: Server) -> Result<Ipmi> {
        install::ensure(install::For::Devices)?;
        let environment = [("PASSWORD", INITIAL_PASSWORD)];
        let namespace = match server {
            Server::OpenIpmi => Namespace::start(include_str!("bmc/openipmi.sh"), &[], &environment)?,
            Server::Suite17 => {
                let python = python()?.display().to_string();
                let arguments = [python.as_str(), include_str!("bmc/suite17.py")];
                Namespace::start(include_str!("bmc/suite17.sh"), &arguments, &environment)?
            }
        };
        Ok(Ipmi { namespace, server })
    }

    /// Where it listens.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address
    }

    /// Which server it is.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Runs ipmitool as a user; whether that went well, and what it said.
    pub fn tool(&self, user: &str, password: &str, arguments: &[&str]) -> Result<(bool, String)> {
        let suite = if self.server == Server::OpenIpmi { "3" } else { "17" };
        let output = Command::new("ipmitool")
            .args([
                "-I",
                "lanplus",
                "-C",
                suite,
                "-N",
                "1",
                "-R",
                "2",
                "-H",
                &self.address().to_string(),
                "-U",
                user,
                "-E",
            ])
            .args(arguments)
            .env("IPMI_PASSWORD", password)
            .output()
            .context("starting ipmitool")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Whether ipmitool gets in with this password.
    pub fn opens(&self, user: &str, password: &str) -> Result<bool> {
        Ok(self.tool(user, password, &["mc", "info"])?.0)
    }

    /// Makes the server of cipher suite 17 answer that it is busy, or not.
    pub fn be(&self, load: Load) -> Result<()> {
        let line = if load == Load::Busy { "busy yes" } else { "busy no" };
        self.namespace.tell(line).map(|_| ())
    }
}

/// Python with pyghmi, the DMTF's Redfish client and sushy, in an environment made once in the target folder.
pub fn python() -> Result<PathBuf> {
    crate::python::venv(
        "bmc-venv",
        &["pyghmi==1.6.19", "redfish==3.4.2", "sushy==5.14.0"],
        "import pyghmi.ipmi.bmc, redfish, sushy",
    )
}
