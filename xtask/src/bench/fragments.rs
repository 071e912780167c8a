//! Opening and sealing through real holder processes over mutual TLS on loopback: processor time of the gateway and of each
//! holder, latency, what a refresh costs, and how many records in a second get another key.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use volvelle_fragments::{Place, Suite};
use volvelle_holder::Quorum;
use volvelle_holder::local::prepare;
use volvelle_holder::quorum::QuorumConfig;

use super::figure::Report;

const REALM: [u8; 16] = [7; 16];
const ROUNDS: usize = 7;
const RECORDS: u32 = 1024;
/// Records that are there when refreshes are measured once more.
const MANY: u32 = 100_000;
const REFRESHES: usize = 9;
const VALUE: [u8; 1024] = [7; 1024];

struct Holders(Vec<Child>);

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

struct Bench {
    /// `2 of 3`.
    name: String,
    holders: Holders,
    quorum: Quorum,
    records: Arc<[(Place, Vec<u8>)]>,
    threshold: u32,
    suite: Suite,
}

/// Measures with two of three holders, and with three of five; and with two of three on the other suite's curve.
pub async fn run(report: &mut Report) -> Result<()> {
    for (t, n) in [(2, 3), (3, 5)] {
        let folder = Folder::make(&format!("volvelle-bench-{t}-{n}"))?;
        let bench = Bench::start(&folder.0, (t, n), Suite::Ristretto255).await?;
        bench.reads(report).await?;
        bench.refreshes(report).await?;
        bench.rekeys(report).await?;
    }
    let folder = Folder::make("volvelle-bench-p256")?;
    let bench = Bench::start(&folder.0, (2, 3), Suite::P256).await?;
    bench.reads(report).await?;
    bench.rekeys(report).await?;
    report
        .note("fragments: reads are cold, so each asks t holders; the gateway is this process, without HTTP and store");
    Ok(())
}

/// A folder that goes away.
struct Folder(std::path::PathBuf);

impl Folder {
    fn make(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn place(n: u32) -> Place {
    let path = format!("/prod/host-{n}/root");
    Place { realm: REALM, key_id: 1, purpose: 1, item: [1; 16], version: n, path }
}

/// Processor time of all threads of a process so far.
fn processor_time(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

/// Opens one after the other, in a task as a gateway's requests are; how long each took, in microseconds.
async fn one_by_one(quorum: Quorum, records: Arc<[(Place, Vec<u8>)]>) -> Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(records.len());
    for (place, record) in records.iter() {
        let begun = Instant::now();
        quorum.open(place, record).await?;
        latencies.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

impl Bench {
    async fn start(folder: &Path, (t, n): (u8, u8), suite: Suite) -> Result<Self> {
        let setup = prepare(folder, n, t)?;
        let program = std::env::current_exe()?.with_file_name("volvelle-holder");
        let log = std::fs::File::create(folder.join("holders.log"))?;
        let mut holders = Holders(vec![]);
        for config in &setup.holder_configs {
            let mut command = Command::new(&program);
            command.arg("--config").arg(config).stdin(Stdio::null()).stderr(log.try_clone()?);
            holders.0.push(command.spawn().with_context(|| format!("cannot start {}", program.display()))?);
        }
        let quorum = Quorum::new(&QuorumConfig { kek_cache_seconds: 0, suite, ..setup.quorum })?;
        let until = Instant::now() + Duration::from_secs(20);
        while quorum.status().await.iter().any(|holder| holder.state != "up") {
            ensure!(Instant::now() < until, "the holders do not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        quorum.create_key(REALM, 1).await?;
        let mut records = Vec::new();
        for n in 0..RECORDS {
            records.push((place(n), quorum.seal(&place(n), &VALUE).await?));
        }
        let name = match suite {
            Suite::Ristretto255 => format!("{t} of {n}"),
            Suite::P256 => format!("{t} of {n}, P-256"),
        };
        Ok(Self { name, holders, quorum, records: records.into(), threshold: u32::from(t), suite })
    }

    async fn reads(&self, report: &mut Report) -> Result<()> {
        let (quorum, all) = (&self.quorum, &self.records);
        let mut latencies = Vec::new();
        for _ in 0..4 {
            latencies.append(&mut tokio::spawn(one_by_one(quorum.clone(), Arc::clone(all))).await??);
        }
        latencies.sort_by(f64::total_cmp);
        let at = |part: usize| vec![latencies[latencies.len() * part / 100]];
        report.add(format!("{}: cold read over mTLS, p50", self.name), "µs", at(50), "");
        report.add(format!("{}: cold read over mTLS, p99", self.name), "µs", at(99), "");
        let one = self.measure(RECORDS, || async {
            tokio::spawn(one_by_one(quorum.clone(), Arc::clone(all))).await??;
            Ok(())
        });
        // The goals are those of the suite that is fast.
        let fast = |goal| if self.suite == Suite::Ristretto255 { goal } else { "" };
        self.tell(report, ("cold read, one at a time", fast("≤ 100"), fast("≤ 110")), one.await?);
        let busy = self.measure(RECORDS, || async {
            let mut tasks = tokio::task::JoinSet::new();
            for part in all.chunks(all.len() / 16) {
                let (quorum, part) = (quorum.clone(), part.to_vec());
                tasks.spawn(async move {
                    for (place, record) in &part {
                        quorum.open(place, record).await?;
                    }
                    anyhow::Ok(())
                });
            }
            tasks.join_all().await.into_iter().collect()
        });
        self.tell(report, ("cold read, 16 tasks", fast("≤ 100"), fast("≤ 110")), busy.await?);
        let batched = self.measure(RECORDS, || async {
            quorum.open_many(all).await.into_iter().try_for_each(|outcome| outcome.map(|_| ()))?;
            Ok(())
        });
        self.tell(report, ("cold read in batches of 64", fast("≤ 50"), ""), batched.await?);
        let seals = self.measure(256, || async {
            for (place, _) in &all[..256] {
                quorum.seal(place, &VALUE).await?;
            }
            Ok(())
        });
        self.tell(report, ("seal, proved", "", ""), seals.await?);
        Ok(())
    }

    /// Processor time per record of the gateway and of each holder that is asked, in microseconds, per round.
    async fn measure<F: Future<Output = Result<()>>>(
        &self,
        records: u32,
        work: impl Fn() -> F,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        work().await?;
        let (mut gateway, mut holder) = (vec![], vec![]);
        let per = |time: Duration, parts: u32| time.as_secs_f64() * 1e6 / f64::from(parts);
        for _ in 0..ROUNDS {
            let holders = || self.holders.0.iter().map(|child| processor_time(child.id())).sum::<Result<Duration>>();
            let (own, theirs) = (processor_time(std::process::id())?, holders()?);
            work().await?;
            gateway.push(per(processor_time(std::process::id())?.saturating_sub(own), records));
            holder.push(per(holders()?.saturating_sub(theirs), records * self.threshold));
        }
        Ok((gateway, holder))
    }

    fn tell(
        &self,
        report: &mut Report,
        (what, gateway_goal, holder_goal): (&str, &'static str, &'static str),
        (gateway, holder): (Vec<f64>, Vec<f64>),
    ) {
        let name = &self.name;
        let per_core = gateway.iter().map(|us| 1e6 / us).collect();
        report.add(format!("{name}: {what}, processor time of the gateway"), "µs", gateway, gateway_goal);
        report.add(format!("{name}: {what}, processor time of each holder"), "µs", holder, holder_goal);
        report.add(format!("{name}: {what}, per gateway core"), "/s", per_core, "");
    }

    /// Wrapping every record under another key, as `volvelle fragments rekey` does in the background, without its bound.
    async fn rekeys(&self, report: &mut Report) -> Result<()> {
        self.quorum.create_key_of(self.suite, REALM, 2).await?;
        let records: Vec<_> = self.records.iter().map(|(p, r)| (Place { key_id: 2, ..p.clone() }, r.clone())).collect();
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let outcomes = self.quorum.rekey_many(&records).await;
            rates.push(f64::from(RECORDS) / begun.elapsed().as_secs_f64());
            outcomes.into_iter().try_for_each(|outcome| outcome.map(|_| ()))?;
        }
        report.add(format!("{}: rekey, records wrapped under another key", self.name), "/s", rates, "");
        let work = self.measure(RECORDS, || async {
            self.quorum.rekey_many(&records).await.into_iter().try_for_each(|outcome| outcome.map(|_| ()))?;
            Ok(())
        });
        self.tell(report, ("rekey, proved, per record", "", ""), work.await?);
        Ok(())
    }

    /// A refresh of one key, with few records sealed under it and with many.
    async fn refreshes(&self, report: &mut Report) -> Result<()> {
        let few = format!("{}: refresh of a key, {RECORDS} records under it", self.name);
        report.add(few, "ms", self.refresh_times().await?, "");
        for from in (RECORDS..MANY).step_by(64) {
            let seals = (from..MANY.min(from + 64)).map(|n| {
                let quorum = self.quorum.clone();
                async move { quorum.seal(&place(n), &VALUE).await.map(|_| ()) }
            });
            let mut tasks = tokio::task::JoinSet::new();
            seals.for_each(|seal| {
                tasks.spawn(seal);
            });
            tasks.join_all().await.into_iter().collect::<Result<(), _>>()?;
        }
        let many = format!("{}: refresh of a key, {MANY} records under it", self.name);
        report.add(many, "ms", self.refresh_times().await?, "the same");
        Ok(())
    }

    async fn refresh_times(&self) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for _ in 0..REFRESHES {
            let begun = Instant::now();
            let done = self.quorum.refresh().await?;
            ensure!(done.keys == 1 && done.failed.is_empty(), "a refresh failed: {done:?}");
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    }
}
