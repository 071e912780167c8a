//! What a kill costs: the time until everything is settled again, and how many accounts are lost, which must be none.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use volvelle_testkit::gateway::DevGateway;
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};

use super::figure::Report;
use super::rotations::succeed;
use crate::host;

const ROUNDS: u64 = 21;
const SECRET: &str = "/bench/root";
/// A rotation takes about this long, so kills are spread over it.
const SPREAD_MS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the gateway during rotations, and measures until the rotation is over and the stored value is the host's.
pub async fn settle(report: &mut Report) -> Result<()> {
    let mut gateway = DevGateway::start_program(host::built("volvelle")?, &[]).await?;
    let host = tokio::task::spawn_blocking(|| Host::start(HostKind::Debian)).await??;
    let target = json!({"name": "/bench/host", "host": host.addr.ip().to_string(), "port": "22",
        "ssh-username": "root", "ssh-password": INITIAL_PASSWORD});
    succeed(&mut gateway, "target-create-ssh", target).await?;
    let secret = json!({"name": SECRET, "target-name": "/bench/host", "rotator-type": "target"});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    let (mut settled, mut open) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let wait = Duration::from_millis(10 + round * SPREAD_MS / ROUNDS);
        // The answer that does not come is the point.
        let rotated = tokio::time::timeout(wait, gateway.post("gateway-rotate-secret", json!({"name": SECRET}))).await;
        open += u32::from(rotated.is_err());
        let killed = Instant::now();
        gateway.kill9()?;
        gateway.restart().await?;
        wait_until_settled(&mut gateway, &host).await?;
        settled.push(killed.elapsed().as_secs_f64());
    }
    report.add("kill -9 during a rotation to settled, restart included", "s", settled, "< 5");
    report.note(format!("{open} of {ROUNDS} of these kills came before the rotation had answered"));
    Ok(())
}

async fn wait_until_settled(gateway: &mut DevGateway, host: &Host) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = succeed(gateway, "rotation-list", json!({"name": SECRET, "limit": 1})).await?;
        let stage = answer["rotations"][0]["stage"].as_str().unwrap_or("done");
        if matches!(stage, "done" | "failed") {
            let value = succeed(gateway, "rotated-secret-get-value", json!({"name": SECRET})).await?;
            let password = value["value"]["password"].as_str().context("a password")?;
            ensure!(host.shadow_is("root", password)?, "the stored value is not the one of the host");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "nothing is settled after {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs the crash test with so many random kills. It needs the crash points of a build without optimisation.
pub fn kill(kills: u32, report: &mut Report) -> Result<()> {
    host::run("cargo", &["build", "--locked", "--bin", "volvelle", "--bin", "volvelle-holder"])?;
    eprintln!("killing the gateway {kills} times ...");
    let began = Instant::now();
    let output = Command::new("cargo")
        .args(["test", "--locked", "--package", "volvelle-cli", "--test", "crash", "--", "--nocapture"])
        .env("VOLVELLE_CRASH_KILLS", kills.to_string())
        .current_dir(host::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told =
        text.lines().find(|line| line.contains("accounts lost")).context("the crash test did not say what was lost")?;
    let lost: f64 = told.rsplit(' ').next().and_then(|word| word.parse().ok()).context("a number of accounts lost")?;
    report.add(
        format!("accounts lost in {kills} kills at random moments and one at every save"),
        "accounts",
        vec![lost],
        "0",
    );
    report.note(format!("{told} ({:.0} s)", began.elapsed().as_secs_f64()));
    text.lines().filter(|line| line.contains("settled")).for_each(|line| report.note(line.trim()));
    ensure!(output.status.success(), "the crash test failed: {told}");
    Ok(())
}
