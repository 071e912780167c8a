//! `cargo xtask demo`: a real root password on a real sshd rotates itself.

use anyhow::Result;

use crate::{host, install};

/// Builds the release and runs the demonstration.
pub fn run() -> Result<()> {
    install::ensure()?;
    host::run("cargo", &["build", "--workspace", "--release", "--locked"])
}
