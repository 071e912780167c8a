//! Another key with another threshold or of another suite while everything goes on: readers on two gateways, a secret that rotates, gateways killed
//! in the middle; no read fails, no record is lost, and the old key is destroyed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use volvelle_holder::setup::{RosterChange, changed_roster};
use volvelle_holder::{Quorum, Roster};
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};
use volvelle_testkit::postgres::Postgres;

use super::{Running, Site};

const SECRETS: u64 = 600;
const READERS: u64 = 4;
/// Readers and rotations go on at least until this many went well.
const READS: u64 = 200;
const ROTATIONS: u64 = 3;
/// A step of 64 records is waited for: fast enough for a test, slow enough to kill somebody in the middle.
const RATE: u32 = 150;

/// What everybody in the test knows.
struct World {
    site: Site,
    store: String,
    token: Value,
    urls: Mutex<Vec<String>>,
    over: AtomicBool,
    reads: AtomicU64,
    failed: Mutex<Vec<String>>,
    rotations: AtomicU64,
}

impl World {
    fn urls(&self) -> Vec<String> {
        self.urls.lock().expect("not poisoned").clone()
    }

    /// Asks one gateway after the other, as a client with both addresses does, until one answers; that it answers with an error is
    /// a failure at once.
    async fn post(&self, turn: u64, operation: &str, body: &Value) -> Result<Value> {
        let mut why = Vec::new();
        for attempt in 0..6 {
            let urls = self.urls();
            let url = &urls[usize::try_from(turn + attempt)? % urls.len()];
            match self.site.post(url, operation, body.clone()).await {
                Err(error) if error.is::<reqwest::Error>() => why.push(error.to_string()),
                answered => return answered,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{}", why.join("; "))
    }

    async fn read_all_the_time(&self, reader: u64) {
        let mut turn = reader;
        while !self.over.load(Ordering::Relaxed) {
            turn += 1;
            let n = turn * 7919 % SECRETS;
            let name = format!("/s/{n}");
            let body = json!({"token": self.token, "names": [name]});
            let failure = match self.post(turn, "get-secret-value", &body).await {
                Ok(answer) if answer[&name] == format!("value {n}") => None,
                Ok(_) => Some(format!("{name}: another value")),
                Err(error) => Some(format!("{name}: {error}")),
            };
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.failed.lock().expect("not poisoned").extend(failure);
        }
    }

    /// Rotates and reads at once; a rotation may be cut off with its gateway, a read may not.
    async fn rotate_all_the_time(&self, host: &Host) -> Result<()> {
        let mut turn = 0;
        while !self.over.load(Ordering::Relaxed) {
            turn += 1;
            let body = json!({"token": self.token, "name": "/r/app"});
            if self.post(turn, "gateway-rotate-secret", &body).await.is_ok() {
                self.rotations.fetch_add(1, Ordering::Relaxed);
            }
            let read = self.post(turn, "rotated-secret-get-value", &body).await?;
            ensure!(read["value"]["password"].is_string(), "{read}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let body = json!({"token": self.token, "name": "/r/app"});
            let read = self.post(turn, "rotated-secret-get-value", &body).await?;
            if host.shadow_is("app1", read["value"]["password"].as_str().context("a password")?)? {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the stored value never became the account's");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn fill(self: &Arc<Self>) -> Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for part in 0..8 {
            let world = Arc::clone(self);
            tasks.spawn(async move {
                for n in (part..SECRETS).step_by(8) {
                    let body = json!({"token": world.token, "name": format!("/s/{n}"), "value": format!("value {n}")});
                    world.post(n, "create-secret", &body).await?;
                }
                anyhow::Ok(())
            });
        }
        tasks.join_all().await.into_iter().collect()
    }

    async fn rekey(&self, what: Value) -> Result<Value> {
        let mut body = what;
        body["token"] = self.token.clone();
        self.post(0, "fragments-rekey", &body).await
    }

    async fn progress(&self) -> Result<Value> {
        Ok(self.rekey(json!({"status": true})).await?["rekeys"][0].clone())
    }

    async fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let now = self.progress().await?;
            if reached(&now) {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "{what}: {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A slow machine rotates less while keys change; it goes on until there was enough, or a minute is over.
    async fn until_enough(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let few = || self.reads.load(Ordering::Relaxed) <= READS || self.rotations.load(Ordering::Relaxed) <= ROTATIONS;
        while few() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A gateway dies and another one takes its place.
    async fn kill(&self, gateways: &mut Vec<Running>, n: usize) -> Result<()> {
        gateways.remove(n);
        let (running, url) = self.site.gateway(&format!("g{n}.toml"), &self.store).await?;
        gateways.insert(n, running);
        self.urls.lock().expect("not poisoned")[n] = url;
        Ok(())
    }

    /// Everybody gets a roster with this threshold: holders one after the other, then the gateways.
    async fn change_threshold(&self, holders: &mut [Running], gateways: &mut Vec<Running>, t: u8) -> Result<()> {
        let setup = &self.site.setup;
        let change = RosterChange { threshold: Some(t), ..RosterChange::default() };
        std::fs::write(&setup.quorum.roster, changed_roster(Roster::load(&setup.quorum.roster)?, change)?)?;
        let quorum = Quorum::new(&setup.quorum).context("a quorum")?;
        for (holder, config) in holders.iter_mut().zip(&setup.holder_configs) {
            holder.0.kill()?;
            holder.0.wait()?;
            *holder = Running::holder(config)?;
            until_up(&quorum).await?;
        }
        for n in 0..gateways.len() {
            self.kill(gateways, n).await?;
        }
        Ok(())
    }
}

async fn until_up(quorum: &Quorum) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while quorum.status().await.iter().any(|holder| holder.state != "up") {
        ensure!(Instant::now() < deadline, "the holders come up: {:?}", quorum.status().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Retired keys are destroyed after some seconds, not after a week.
fn short_grace(config: &Path) -> Result<()> {
    let text = std::fs::read_to_string(config)?;
    std::fs::write(config, format!("retire_after_seconds = 3\n{text}")).context("writing a configuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_their_threshold_and_their_suite_while_everything_goes_on() -> Result<()> {
    let (mut site, database) = (Site::start_of(4, 2)?, Postgres::start()?);
    let host = Host::start(HostKind::Debian)?;
    let mut holders = std::mem::take(&mut site.holders);
    for config in &site.setup.holder_configs {
        short_grace(config)?;
    }
    let mut gateways = Vec::new();
    let mut urls = Vec::new();
    for n in 0..2 {
        let (running, url) = site.gateway(&format!("g{n}.toml"), database.url()).await?;
        gateways.push(running);
        urls.push(url);
    }
    let admin: Value = serde_json::from_slice(&std::fs::read(site.file("admin.json"))?)?;
    let login = json!({"access-id": admin["access_id"], "access-key": admin["access_key"]});
    let token = site.post(&urls[0], "auth", login).await?["token"].clone();
    let world = Arc::new(World {
        site,
        store: database.url().to_owned(),
        token,
        urls: Mutex::new(urls),
        over: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        failed: Mutex::default(),
        rotations: AtomicU64::new(0),
    });
    world.fill().await?;
    let target = json!({"token": world.token, "name": "/r/host", "host": host.addr.ip().to_string(),
        "ssh-username": "root", "ssh-password": INITIAL_PASSWORD});
    world.post(0, "target-create-ssh", &target).await?;
    let secret = json!({"token": world.token, "name": "/r/app", "target-name": "/r/host", "rotator-type": "password",
        "rotated-username": "app1", "authentication-credentials": "use-target-creds"});
    world.post(0, "rotated-secret-create-ssh", &secret).await?;

    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.read_all_the_time(n).await })
        })
        .collect();
    let outcome = tokio::join!(world.rotate_all_the_time(&host), async {
        let outcome = change_keys(&world, &mut holders, &mut gateways).await;
        if outcome.is_ok() {
            world.until_enough().await;
        }
        world.over.store(true, Ordering::Relaxed);
        outcome
    });
    for reader in readers {
        reader.await?;
    }
    (outcome.0?, outcome.1?);
    let failed = world.failed.lock().expect("not poisoned").clone();
    let (reads, rotations) = (world.reads.load(Ordering::Relaxed), world.rotations.load(Ordering::Relaxed));
    report(&format!("{reads} reads meanwhile, {} failed; {rotations} rotations", failed.len()));
    assert!(failed.is_empty(), "{failed:?}");
    assert!(reads > READS && rotations > ROTATIONS, "the readers and the rotations went on");

    // Two of four suffice again, and nothing is lost.
    holders.truncate(2);
    for n in 0..SECRETS {
        let name = format!("/s/{n}");
        let body = json!({"token": world.token, "names": [name]});
        assert_eq!(world.post(n, "get-secret-value", &body).await?[&name], format!("value {n}"));
    }
    Ok(())
}

/// Two of four become three of four; then two again, on NIST's curve; then the first curve again.
async fn change_keys(world: &World, holders: &mut [Running], gateways: &mut Vec<Running>) -> Result<()> {
    for (threshold, key, suite) in [(3, 2, None), (2, 3, Some("p256")), (2, 4, Some("ristretto255"))] {
        if key < 4 {
            world.change_threshold(holders, gateways, threshold).await?;
        }
        let mut asked = json!({"rate": RATE});
        if let Some(suite) = suite {
            asked["suite"] = json!(suite);
        }
        let began = world.rekey(asked).await?;
        ensure!(began["begun"] == 1 && began["failed"] == json!({}), "{began}");
        let (now, suite) = (&began["rekeys"][0], suite.unwrap_or("ristretto255"));
        let told = now["new_key"] == key && now["threshold"] == threshold && now["suite"] == suite;
        ensure!(told, "new records have the new key at once: {now}");
        ensure!(world.rekey(json!({})).await?["begun"] == 0, "one at a time");
        let early = world.rekey(json!({"retire": true})).await?;
        ensure!(early["failed"].as_object().is_some_and(|failed| failed.len() == 1), "too early: {early}");
        for (n, done) in [(0, 100), (1, 300)] {
            world.until("it goes on", |now| now["done"].as_u64() > Some(done)).await?;
            world.kill(gateways, n).await?;
        }
        let done = world.until("every record is wrapped", |now| now["stage"] == "wrapped").await?;
        report(&format!(
            "{} of {} records wrapped under a key of suite {suite} of which {threshold} are needed, {} a second (bound {RATE}), \
             both gateways killed meanwhile",
            done["done"], done["total"], done["per_second"]
        ));
        ensure!(done["not_wrapped"] == 0 && done["left"] == 0, "{done}");
        let retired = world.rekey(json!({"retire": true})).await?;
        ensure!(retired["failed"] == json!({}), "{retired}");
        let gone =
            |now: &Value| now["old_key_at_holders"].as_object().is_some_and(|at| at.values().all(|w| w == "gone"));
        world.until("the old key is destroyed", gone).await?;
        if suite == "p256" {
            live_on_nists_curve(world, holders).await?;
        }
    }
    Ok(())
}

/// Fragments of the other suite are refreshed, missed, lost and restored like those of the first, while everything goes on.
async fn live_on_nists_curve(world: &World, holders: &mut [Running]) -> Result<()> {
    let token = json!({"token": world.token});
    let refreshed = world.post(0, "fragments-refresh", &token).await?;
    ensure!(refreshed["keys"] == 1 && refreshed["failed"] == json!({}), "{refreshed}");
    let status = world.post(0, "fragments-status", &token).await?;
    let key = &status["keys"][0];
    ensure!(key["key"] == 3 && key["suite"] == "p256" && key["threshold"] == 2, "{status}");
    ensure!(status["holders"][3]["suites"] == json!(["ristretto255", "p256"]), "{status}");
    let (configs, quorum) = (&world.site.setup.holder_configs, Quorum::new(&world.site.setup.quorum)?);

    holders[0].0.kill()?;
    holders[0].0.wait()?;
    for n in 0..20 {
        let name = format!("/s/{n}");
        let read = world.post(n, "get-secret-value", &json!({"token": world.token, "names": [name]})).await?;
        ensure!(read[&name] == format!("value {n}"), "{read}");
    }
    holders[0] = Running::holder(&configs[0])?;
    until_up(&quorum).await?;

    holders[1].0.kill()?;
    holders[1].0.wait()?;
    std::fs::remove_dir_all(configs[1].parent().context("a folder")?.join("state"))?;
    holders[1] = Running::holder(&configs[1])?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let repair = json!({"token": world.token, "holder": 2});
    loop {
        match world.post(0, "fragments-repair", &repair).await {
            Ok(done) if done["restored"] == 1 && done["failed"] == json!({}) => break,
            other => ensure!(Instant::now() < deadline, "holder 2 is repaired: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until_up(&quorum).await
}

/// Past the test's own capture: the figure is what this test is run for.
fn report(text: &str) {
    let line = format!("{text}\n");
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}
