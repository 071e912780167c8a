//! `cargo xtask test`: formatting, tidy, every test of the workspace, against real servers, and the demo.

use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};

use crate::{host, install, tidy};

/// The tests that wait for somebody else's servers most of the time, so that more of them run at once.
const WAITING: &str = "connectors";

/// Installs what is missing and runs everything.
pub fn run() -> Result<()> {
    install::ensure_for_tests()?;
    ensure!(install::is_root(), "the tests make hosts of their own in namespaces and need root: run them with sudo");
    host::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    host::run("cargo", &["build", "--workspace", "--locked"])?;
    // Everything that fails is named in one run.
    let most = tests(&["--lib", "--bins", "--examples"], &integration_tests()?, 2);
    let waiting = tests(&[], &[WAITING.to_owned()], 4);
    let documents = host::run("cargo", &["test", "--workspace", "--locked", "--doc", "--quiet"]);
    most.and(waiting).and(documents)?;
    // The README's first command, on the programs that were just built.
    let own = std::env::current_exe().context("where this program is")?;
    host::run(&own.display().to_string(), &["demo", "built"])
}

/// Runs tests of the workspace, so many at once for each processor.
fn tests(kinds: &[&str], names: &[String], at_once: usize) -> Result<()> {
    let threads = format!("--test-threads={}", available_parallelism().map_or(1, usize::from) * at_once);
    let mut arguments = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    arguments.extend(kinds);
    arguments.extend(names.iter().flat_map(|name| ["--test", name]));
    arguments.extend(["--", &threads]);
    host::run("cargo", &arguments)
}

/// The names of all of them but [`WAITING`], as cargo knows them.
fn integration_tests() -> Result<Vec<String>> {
    let metadata = tidy::metadata()?;
    // The dependencies' are there too; only the workspace's have no source.
    let own = tidy::packages(&metadata).filter(|package| package["source"].is_null());
    let targets = own.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let names = tests.filter_map(|target| target["name"].as_str()).filter(|name| *name != WAITING);
    Ok(names.map(str::to_owned).collect())
}
