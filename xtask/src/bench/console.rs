//! The console in Debian's Chromium: how much travels, and how soon something is seen.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use volvelle_testkit::gateway::DevGateway;
use volvelle_testkit::python;

use super::figure::Report;
use crate::host;

const ROUNDS: usize = 15;

#[derive(Deserialize)]
struct Seen {
    bytes: f64,
    paints: Vec<f64>,
}

/// Opens it several times in a new gateway.
pub async fn run(report: &mut Report) -> Result<()> {
    let python = python::playwright()?;
    let gateway = DevGateway::start_program(host::built("volvelle")?, &[]).await?;
    let mut browser = Command::new(python)
        .args(["-c", include_str!("paint.py"), &gateway.admin.url, &gateway.admin.access_id, &ROUNDS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a browser")?;
    let mut key = browser.stdin.take().context("standard input of the browser")?;
    writeln!(key, "{}", gateway.admin.access_key)?;
    let output = browser.wait_with_output()?;
    ensure!(output.status.success(), "the browser ended with {}", output.status);
    let seen: Seen = serde_json::from_slice(&output.stdout).context("what the browser saw")?;
    report.add("the console over the wire, first visit", "kB", vec![seen.bytes / 1000.0], "< 200");
    report.add("first contentful paint of the console", "ms", seen.paints, "< 200");
    Ok(())
}
