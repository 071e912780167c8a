//! `cargo xtask bench`: figures of this machine, as a table and as `target/bench/results.json`.
//!
//! What must stay true: every figure says its unit, how often it was measured, its median and its spread, and goals stand
//! beside figures without failing anything: figures depend on the machine and on what else it does.

mod console;
mod crash;
mod figure;
mod fill;
mod fragments;
mod kinds;
mod load;
mod process;
mod rotations;
mod sealing;
mod start;
mod values;

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use self::figure::Report;
use crate::{host, install};

/// Says that this process is the optimised one.
const OPTIMISED: &str = "VOLVELLE_BENCH_OPTIMISED";
/// What can be measured; `crash` takes long and runs only when it is named.
const NAMES: &[(&str, &str)] = &[
    ("sealing", "sealing and opening one value in process"),
    ("fragments", "reading and sealing through holders, and refreshing their fragments"),
    ("values", "reading values through the API, keys cached and not"),
    ("console", "what the console sends, and how soon a browser shows something"),
    ("start", "start and memory with 100,000 secrets in the store"),
    ("rotations", "verified rotations over 40 real hosts"),
    ("kinds", "verified rotations of every kind of target, and what one costs"),
    ("settle", "from kill -9 during a rotation to a settled secret"),
    ("crash", "kills at random moments (`bench crash 5000`; 2000 if not said) and accounts lost; only when named"),
];
const KILLS: u32 = 2000;

/// Measures what `arguments` name, or everything but `crash`.
pub fn run(arguments: &[String]) -> Result<()> {
    if arguments.first().map(String::as_str) == Some("list") {
        NAMES.iter().for_each(|(name, about)| println!("{name:<10} {about}"));
        return Ok(());
    }
    let kills = arguments.iter().find_map(|word| word.parse().ok()).unwrap_or(KILLS);
    let wanted: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| word.parse::<u32>().is_err()).collect();
    if let Some(unknown) = wanted.iter().find(|word| !NAMES.iter().any(|(name, _)| name == *word)) {
        bail!("no bench {unknown}; `cargo xtask bench list` names them");
    }
    install::ensure_for_tests()?;
    ensure!(install::is_root(), "the benches make hosts of their own in namespaces and need root: run them with sudo");
    if std::env::var_os(OPTIMISED).is_none() {
        return optimised(arguments);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = measure(&wanted, kills) => report,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })?;
    report.print();
    report.write(&host::root().join("target/bench/results.json"))
}

/// Builds everything optimised and goes on as the optimised program.
fn optimised(arguments: &[String]) -> Result<()> {
    let bins = ["--bin", "volvelle", "--bin", "volvelle-holder", "--bin", "xtask"];
    host::run("cargo", &[&["build", "--release", "--locked"], bins.as_slice()].concat())?;
    let own = std::env::current_exe().context("where this program is")?;
    let target = own.parent().and_then(std::path::Path::parent).context("a program has a folder")?;
    let status =
        Command::new(target.join("release/xtask")).arg("bench").args(arguments).env(OPTIMISED, "1").status()?;
    ensure!(status.success(), "the optimised bench ended with {status}");
    Ok(())
}

async fn measure(wanted: &[&str], kills: u32) -> Result<Report> {
    let mut report = Report::new();
    let is = |name: &str| if wanted.is_empty() { name != "crash" } else { wanted.contains(&name) };
    if is("sealing") {
        sealing::run(&mut report)?;
    }
    if is("fragments") {
        fragments::run(&mut report).await?;
    }
    if is("console") {
        console::run(&mut report).await?;
    }
    if is("values") || is("start") {
        let mut full = fill::Full::make(&mut report).await?;
        if is("start") {
            start::run(&mut full, &mut report).await?;
        }
        if is("values") {
            values::run(&mut full, &mut report).await?;
        }
    }
    if is("rotations") {
        rotations::run(&mut report).await?;
    }
    if is("kinds") {
        kinds::run(&mut report).await?;
    }
    if is("settle") {
        crash::settle(&mut report).await?;
    }
    if is("crash") {
        crash::kill(kills, &mut report)?;
    }
    Ok(report)
}
