//! FRRouting's zebra, a real router daemon whose terminal is reached by telnet: one password lets in, one raises.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::install;
use crate::namespace::Namespace;

/// The password that lets in.
pub const INITIAL_PASSWORD: &str = "Init-Passw0rd!1";
/// The password of the privileged mode.
pub const ENABLE_PASSWORD: &str = "Enable-Init-1";

/// What a password is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Logging in.
    Login,
    /// The privileged mode.
    Enable,
}

/// One daemon.
pub struct Frr {
    namespace: Namespace,
}

impl Frr {
    /// Starts one at port 2601.
    pub fn start() -> Result<Frr> {
        install::ensure(install::For::Devices)?;
        let (login, enable) = (crypt(INITIAL_PASSWORD, "$6$abcdefgh$")?, crypt(ENABLE_PASSWORD, "$6$abcdefgh$")?);
        Ok(Frr { namespace: Namespace::start(include_str!("frr/zebra.sh"), &[&login, &enable], &[])? })
    }

    /// Where it listens.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address
    }

    /// Whether it is the password now: the running configuration is read by FRR's own shell.
    pub fn opens(&self, door: Door, password: &str) -> Result<bool> {
        holds(&self.namespace.run("vtysh -d zebra -c 'show running-config'")?, door, password)
    }

    /// Whether it is the password after a restart.
    pub fn keeps(&self, door: Door, password: &str) -> Result<bool> {
        holds(&self.namespace.run("cat /etc/frr/zebra.conf")?, door, password)
    }

    /// Sets a password with FRR's own shell.
    pub fn set(&self, door: Door, password: &str) -> Result<()> {
        let field = crypt(password, "$6$hgfedcba$")?;
        let line = if door == Door::Enable { "enable password" } else { "password" };
        self.namespace
            .run(&format!("vtysh -d zebra -c 'configure terminal' -c '{line} 8 {field}' -c end -c 'write file'"))
            .map(|_| ())
    }
}

fn holds(configuration: &str, door: Door, password: &str) -> Result<bool> {
    let start = if door == Door::Enable { "enable password 8 " } else { "password 8 " };
    let field = configuration.lines().find_map(|line| line.strip_prefix(start)).context("a password")?;
    Ok(crypt(password, field.trim())? == field.trim())
}

/// The system's own crypt(3).
fn crypt(password: &str, setting: &str) -> Result<String> {
    let script = "print crypt($ENV{P}, $ENV{S})";
    let output = Command::new("perl").args(["-e", script]).env("P", password).env("S", setting).output()?;
    ensure!(output.status.success(), "perl has no crypt");
    Ok(String::from_utf8(output.stdout)?)
}
