//! Network devices over SSH: the CLI of fake-switches, with live logins and the password commands that it lacks; and a scripted Junos with
//! its command line and NETCONF, which netmiko and ncclient accept.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::python;

/// Password of `admin` (privilege 15), `ops` (privilege 1) and `app1` (privilege 15).
pub const INITIAL_PASSWORD: &str = "Init-Passw0rd!1";
/// Password of the privileged mode.
pub const ENABLE_PASSWORD: &str = "Enable-Init-1";

/// One device. It ends with the value, or with the test process.
pub struct Switch {
    /// Where its SSH server listens.
    pub addr: SocketAddr,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Switch {
    /// Starts one of this platform: `cisco-ios`, `cisco-nxos`, `arista-eos` or `juniper-junos`.
    pub fn start(platform: &str) -> Result<Switch> {
        Self::start_with(platform, "1.1")
    }

    /// The same; `netconf` is the version of NETCONF's confirmed commits (Junos).
    pub fn start_with(platform: &str, netconf: &str) -> Result<Switch> {
        let addr = crate::port::free()?;
        let (python, script, last) = if platform == "juniper-junos" {
            (python()?, include_str!("switch/junos.py"), netconf)
        } else {
            (fake_switches()?, include_str!("switch/device.py"), platform)
        };
        let mut child = Command::new(python)
            .args(["-W", "ignore", "-c", script])
            .args([addr.ip().to_string(), addr.port().to_string(), last.to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting a device")?;
        let to = child.stdin.take().context("standard input of the device")?;
        let mut from = BufReader::new(child.stdout.take().context("standard output of the device")?);
        let mut line = String::new();
        from.read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the device did not start");
        Ok(Switch { addr, child, to, from })
    }

    /// Whether the user's password is this one now.
    pub fn opens(&mut self, user: &str, password: &str) -> Result<bool> {
        self.ask(&json!({"opens": [user, password]}))?.as_bool().context("a boolean")
    }

    /// Every line that was typed at any of its prompts.
    pub fn typed(&mut self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.ask(&json!({"typed": true}))?["lines"].clone())?)
    }

    /// Logins that failed.
    pub fn failures(&mut self) -> Result<usize> {
        Ok(serde_json::from_value(self.ask(&json!({"typed": true}))?["failures"].clone())?)
    }

    /// Restarts it: what was not saved is gone.
    pub fn reload(&mut self) -> Result<()> {
        self.ask(&json!({"reload": true})).map(|_| ())
    }

    /// Whether its memory is full, so that nothing can be saved.
    pub fn fill(&mut self, full: Memory) -> Result<()> {
        self.ask(&json!({"full": full == Memory::Full})).map(|_| ())
    }

    /// Remembers both configurations.
    pub fn keep(&mut self) -> Result<()> {
        self.ask(&json!({"keep": true})).map(|_| ())
    }

    /// Puts the remembered configurations back.
    pub fn put_back(&mut self) -> Result<()> {
        self.ask(&json!({"back": true})).map(|_| ())
    }

    /// Lets minutes pass for a change that is on trial (Junos).
    pub fn age(&mut self, minutes: u32) -> Result<()> {
        self.ask(&json!({"age": minutes})).map(|_| ())
    }

    /// The user's logins go on with the present password, whatever is committed (Junos).
    pub fn hold_logins(&mut self, user: &str) -> Result<()> {
        self.ask(&json!({"stuck": user})).map(|_| ())
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.to, "{request}")?;
        self.to.flush()?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        serde_json::from_str(&line).context("the device's answer")
    }
}

/// Python with paramiko, netmiko and ncclient, in an environment made once in the target folder.
pub fn python() -> Result<PathBuf> {
    python::venv("junos-venv", &["ncclient==0.7.1", "netmiko==4.8.0"], "import ncclient, netmiko, paramiko, lxml")
}

fn fake_switches() -> Result<PathBuf> {
    let packages = [
        "fake-switches==1.5.0",
        "Twisted==22.10.0",
        "cryptography<43",
        "bcrypt<4",
        "pyasn1",
        "netaddr",
        "lxml",
        "tftpy",
        "appdirs",
        "flask",
        "cached_property",
        "setuptools<70",
    ];
    let import = "import fake_switches, twisted.conch.ssh.keys, bcrypt, flask";
    python::venv_without_deps("fsw-venv", &packages, import)
}

/// Room for the saved configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// There is room.
    Free,
    /// There is none.
    Full,
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
