//! From start to ready with a full store, and the memory held then.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::figure::Report;
use super::fill::{Full, SECRETS};
use super::process::resident_mb;

const ROUNDS: usize = 7;
/// What a gateway does by itself after its start is over by then.
const REST: Duration = Duration::from_secs(2);

/// Restarts the gateway several times.
pub async fn run(full: &mut Full, report: &mut Report) -> Result<()> {
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        full.gateway.stop().await?;
        let began = Instant::now();
        full.gateway.restart().await?;
        ready.push(began.elapsed().as_secs_f64());
        tokio::time::sleep(REST).await;
        resident.push(resident_mb(full.gateway.pid())?);
    }
    report.add(format!("start to ready, {SECRETS} secrets, holders started too"), "s", ready, "< 2");
    report.add(format!("resident memory of the gateway then, {SECRETS} secrets"), "MB", resident, "< 100");
    Ok(())
}
