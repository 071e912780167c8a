//! `cargo xtask test`: formatting, tidy, and every test of the workspace, against real servers.

use anyhow::{Result, ensure};

use crate::{host, install, tidy};

/// Installs what is missing and runs everything.
pub fn run() -> Result<()> {
    install::ensure()?;
    ensure!(install::is_root(), "the tests make hosts of their own in namespaces and need root: run them with sudo");
    host::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    host::run("cargo", &["build", "--workspace", "--locked"])?;
    host::run("cargo", &["test", "--workspace", "--locked"])
}
