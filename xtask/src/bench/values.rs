//! Reading values through the API: how many per second, and what each costs the gateway.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::figure::Report;
use super::fill::{Full, READABLE, name};
use super::load::{Load, Outcome, request, send};
use super::process::{TICK_US, ticks, ticks_of_all};
use super::rotations::sign_in;

/// Secrets read over and over when keys are to be cached: by a crowd, and by somebody alone.
const HOT: [usize; 2] = [1_000, 50];
const ROUNDS: usize = 5;
/// Secrets of one round when no key may be cached: all of them are new.
const COLD: usize = READABLE / ROUNDS;
/// Connections of a crowd, and of somebody alone.
const CROWD: usize = 256;
const ROUND: Duration = Duration::from_secs(4);

/// What the rounds of one kind gave.
#[derive(Default)]
struct Rounds {
    rate: Vec<f64>,
    gateway_us: Vec<f64>,
    holders_us: Vec<f64>,
    middle_ms: Vec<f64>,
    late_ms: Vec<f64>,
}

/// Measures reads with cold and with cached keys.
pub async fn run(full: &mut Full, report: &mut Report) -> Result<()> {
    let token = sign_in(&full.gateway).await?;
    let requests = |range: std::ops::Range<usize>| -> Arc<Vec<Vec<u8>>> {
        let one = |n| request("rotated-secret-get-value", &json!({"name": name(n), "token": token}));
        Arc::new(range.map(one).collect())
    };
    let mut cold = Rounds::default();
    let once = Load { connections: CROWD, lasts: Duration::from_secs(60), again: false };
    for round in 0..ROUNDS {
        cold.measure(full, &requests(round * COLD..(round + 1) * COLD), once).await?;
    }
    cold.report(report, &format!("get-value, no key cached, {CROWD} connections"), ["", ""]);
    for (connections, secrets, goals) in [(CROWD, HOT[0], ["≥ 25,000", "≤ 40"]), (1, HOT[1], ["", ""])] {
        let hot = requests(0..secrets);
        let load = Load { connections, lasts: ROUND, again: true };
        send(&address(full), &hot, Load { lasts: Duration::from_secs(2), ..load }).await?;
        let mut cached = Rounds::default();
        for _ in 0..ROUNDS {
            cached.measure(full, &hot, load).await?;
        }
        let plural = if connections == 1 { "" } else { "s" };
        cached.report(report, &format!("get-value, keys cached, {connections} connection{plural}"), goals);
    }
    report.note("the load generator shares the processors; every read leaves a durable, hash-chained audit entry before its answer");
    Ok(())
}

impl Rounds {
    async fn measure(&mut self, full: &Full, requests: &Arc<Vec<Vec<u8>>>, load: Load) -> Result<()> {
        let (pid, holders) = (full.gateway.pid(), full.gateway.holders());
        let before = (ticks(pid)?, ticks_of_all(&holders)?);
        let outcome: Outcome = send(&address(full), requests, load).await?;
        let after = (ticks(pid)?, ticks_of_all(&holders)?);
        ensure!(outcome.refused == 0, "{} of the reads were refused", outcome.refused);
        let each = |ticks: u64| ticks as f64 * TICK_US / outcome.answered.max(1) as f64;
        self.rate.push(outcome.rate());
        self.gateway_us.push(each(after.0 - before.0));
        self.holders_us.push(each(after.1 - before.1));
        self.middle_ms.push(outcome.latency_ms(0.5));
        self.late_ms.push(outcome.latency_ms(0.99));
        Ok(())
    }

    fn report(self, report: &mut Report, name: &str, [rate, cpu]: [&'static str; 2]) {
        report.add(name, "reads/s", self.rate, rate);
        report.add(format!("{name}: gateway's processor time each"), "µs", self.gateway_us, cpu);
        report.add(format!("{name}: holders' processor time each"), "µs", self.holders_us, "");
        report.add(format!("{name}: latency, half of the reads"), "ms", self.middle_ms, "");
        report.add(format!("{name}: latency, 99 of 100"), "ms", self.late_ms, "");
    }
}

fn address(full: &Full) -> String {
    full.gateway.admin.url.trim_start_matches("http://").to_owned()
}
