//! `cargo xtask test`: formatting, tidy, every test of the workspace, against real servers, and the demo.

use anyhow::{Context as _, Result, ensure};

use crate::{host, install, tidy};

/// Installs what is missing and runs everything.
pub fn run() -> Result<()> {
    install::ensure_for_tests()?;
    ensure!(install::is_root(), "the tests make hosts of their own in namespaces and need root: run them with sudo");
    host::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    host::run("cargo", &["build", "--workspace", "--locked"])?;
    // Most tests wait for their peers most of the time. Everything that fails is named in one run.
    let threads = format!("--test-threads={}", std::thread::available_parallelism().map_or(2, |cores| cores.get() * 2));
    host::run("cargo", &["test", "--workspace", "--locked", "--no-fail-fast", "--", &threads])?;
    // The README's first command, on the programs that were just built.
    let own = std::env::current_exe().context("where this program is")?;
    host::run(&own.display().to_string(), &["demo", "built"])
}
