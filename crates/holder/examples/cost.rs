//! What opening and sealing cost: processor time of the gateway and of each holder, per record, over loopback and mutual TLS.
//!
//! `cargo build --release -p volvelle-holder && cargo run --release -p volvelle-holder --example cost [-- T N]`. Holders are real
//! processes; the figures are medians of rounds. Nothing is asserted: figures depend on the machine.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use volvelle_fragments::Place;
use volvelle_holder::Quorum;
use volvelle_holder::local::prepare;
use volvelle_holder::quorum::QuorumConfig;

const REALM: [u8; 16] = [7; 16];
const ROUNDS: usize = 7;
const RECORDS: u32 = 1024;

struct Holders(Vec<Child>);

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
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

struct Bench {
    holders: Holders,
    records: Vec<(Place, Vec<u8>)>,
    threshold: u32,
}

/// The median of `values`.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Bench {
    /// Runs `work` for several rounds and prints its costs per record.
    async fn measure<F: Future<Output = Result<()>>>(
        &self,
        name: &str,
        records: u32,
        work: impl Fn() -> F,
    ) -> Result<()> {
        work().await?;
        let (mut gateway, mut holder, mut wall) = (vec![], vec![], vec![]);
        let per = |time: Duration, parts: u32| time.as_secs_f64() * 1e6 / f64::from(parts);
        for _ in 0..ROUNDS {
            let holders = || self.holders.0.iter().map(|child| processor_time(child.id())).sum::<Result<Duration>>();
            let (own, theirs, begun) = (processor_time(std::process::id())?, holders()?, Instant::now());
            work().await?;
            wall.push(per(begun.elapsed(), records));
            gateway.push(per(processor_time(std::process::id())? - own, records));
            holder.push(per(holders()? - theirs, records * self.threshold));
        }
        let (gateway, holder, wall) = (median(gateway), median(holder), median(wall));
        writeln!(
            std::io::stdout(),
            "{name:<34} gateway {gateway:>7.1} µs   each holder {holder:>7.1} µs   wall {wall:>7.1} µs"
        )?;
        Ok(())
    }
}

fn start(folder: &Path, configs: &[PathBuf]) -> Result<Holders> {
    let own = std::env::current_exe()?;
    let program = own.parent().and_then(Path::parent).context("a program has a folder")?.join("volvelle-holder");
    ensure!(program.exists(), "{} is missing: build it first", program.display());
    let log = std::fs::File::create(folder.join("holders.log"))?;
    let start = |config: &PathBuf| {
        Command::new(&program).arg("--config").arg(config).stdin(Stdio::null()).stderr(log.try_clone()?).spawn()
    };
    Ok(Holders(configs.iter().map(start).collect::<Result<_, _>>()?))
}

#[tokio::main]
async fn main() -> Result<()> {
    let numbers: Vec<u8> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let (t, n) = if let [t, n] = numbers.as_slice() { (*t, *n) } else { (2, 3) };
    let folder = tempfile::tempdir()?;
    let setup = prepare(folder.path(), n, t)?;
    let holders = start(folder.path(), &setup.holder_configs)?;
    let cold = Quorum::new(&QuorumConfig { kek_cache_seconds: 0, ..setup.quorum.clone() })?;
    let until = Instant::now() + Duration::from_secs(20);
    while cold.status().await.iter().any(|holder| holder.state != "up") {
        ensure!(Instant::now() < until, "the holders do not come up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cold.create_key(REALM, 1).await?;
    let place = |n: u32| Place {
        realm: REALM,
        key_id: 1,
        purpose: 1,
        item: [1; 16],
        version: n,
        path: format!("/prod/host-{n}/root"),
    };
    let mut records = Vec::new();
    for n in 0..RECORDS {
        records.push((place(n), cold.seal(&place(n), &[7; 1024]).await?));
    }
    let bench = Bench { holders, records, threshold: u32::from(t) };
    writeln!(std::io::stdout(), "{t} of {n} holders, values of 1 KiB, medians of {ROUNDS} rounds, per record")?;
    // On a worker, as a gateway's requests are.
    tokio::spawn(async move { run(&bench, &cold, &setup.quorum).await }).await?
}

async fn run(bench: &Bench, cold: &Quorum, config: &QuorumConfig) -> Result<()> {
    let all = bench.records.as_slice();
    bench
        .measure("open, cold, one at a time", RECORDS, || async {
            for (place, record) in all {
                cold.open(place, record).await?;
            }
            Ok(())
        })
        .await?;
    bench
        .measure("open, cold, 16 tasks", RECORDS, || async {
            let mut tasks = tokio::task::JoinSet::new();
            for part in all.chunks(all.len() / 16) {
                let (cold, part) = (cold.clone(), part.to_vec());
                tasks.spawn(async move {
                    for (place, record) in &part {
                        cold.open(place, record).await?;
                    }
                    anyhow::Ok(())
                });
            }
            tasks.join_all().await.into_iter().collect()
        })
        .await?;
    bench
        .measure("open_many, cold, 64 per message", RECORDS, || async {
            cold.open_many(all).await.into_iter().try_for_each(|outcome| outcome.map(|_| ()))?;
            Ok(())
        })
        .await?;
    bench
        .measure("seal, proved, one at a time", 256, || async {
            for (place, _) in &all[..256] {
                cold.seal(place, &[7; 1024]).await?;
            }
            Ok(())
        })
        .await?;
    let cached = Quorum::new(&QuorumConfig { kek_cache_seconds: 30, ..config.clone() })?;
    bench
        .measure("open, cached", RECORDS * 20, || async {
            for _ in 0..20 {
                for (place, record) in all {
                    cached.open(place, record).await?;
                }
            }
            Ok(())
        })
        .await
}
