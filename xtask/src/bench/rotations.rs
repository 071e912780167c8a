//! Verified rotations over many real hosts, and who used the processors.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use volvelle_testkit::gateway::DevGateway;
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};

use super::figure::Report;
use super::load::{Connection, Load, request, send};
use super::process::{TICK_US, machine_ticks, ticks, ticks_of_all};
use crate::host;

const HOSTS: usize = 40;
const ROUNDS: usize = 3;
const CONCURRENCY: [usize; 3] = [1, 8, 32];
/// Logins of one observation of what a login costs by itself.
const BASELINE_LOGINS: u32 = 10;
/// Connections that read while others rotate, and for how long.
const READERS: usize = 32;
const READ_FOR: Duration = Duration::from_secs(2);
/// What the hosts' processes still do after the last answer is over by then.
const REST: Duration = Duration::from_millis(500);

/// Processor time so far.
struct Times {
    gateway: u64,
    holders: u64,
    hosts: u64,
    busy: u64,
    idle: u64,
}

/// Rotates the root password of every host, several times.
pub async fn run(report: &mut Report) -> Result<()> {
    eprintln!("starting {HOSTS} hosts ...");
    let mut gateway = DevGateway::start_program(host::built("volvelle")?, &[]).await?;
    let hosts =
        tokio::task::spawn_blocking(|| (0..HOSTS).map(|_| Host::start(HostKind::Debian)).collect::<Result<Vec<_>>>())
            .await??;
    for (n, host) in hosts.iter().enumerate() {
        create(&mut gateway, n, host).await?;
    }
    baseline(&hosts[0], report)?;
    let requests = requests(&gateway).await?;
    let logins = logins(&hosts)?;
    let mut rotated = 0.0;
    let address = gateway.admin.url.trim_start_matches("http://").to_owned();
    for at_once in CONCURRENCY {
        let (mut rate, mut shares) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new(), Vec::new()]);
        for _ in 0..ROUNDS {
            let before = Times::now(&gateway, &hosts)?;
            let began = Instant::now();
            rotate_all(&address, &requests, at_once).await?;
            rotated += HOSTS as f64;
            rate.push(HOSTS as f64 / began.elapsed().as_secs_f64());
            tokio::time::sleep(REST).await;
            for (share, value) in shares.iter_mut().zip(Times::now(&gateway, &hosts)?.since(&before)) {
                share.push(value);
            }
        }
        let name = format!("verified rotations, {HOSTS} hosts, {at_once} at once");
        report.add(&name, "rotations/s", rate, if at_once == 32 { "≥ 50, or sshd's own time" } else { "" });
        let [gateway, holders, hosts, busy] = shares;
        report.add(format!("{name}: gateway's processor time each"), "ms", gateway, "");
        report.add(format!("{name}: holders' processor time each"), "ms", holders, "");
        report.add(format!("{name}: hosts' (sshd and children) processor time each"), "ms", hosts, "");
        report.add(format!("{name}: processors busy"), "%", busy, "");
    }
    let caused = self::logins(&hosts)? - logins;
    report.add("logins that one rotation makes", "logins", vec![caused / rotated], "");
    reads_meanwhile(&gateway, &address, &requests, report).await?;
    proved(&mut gateway, &hosts).await?;
    report.note("after the rotations the stored value was compared with the shadow file of every host: all match");
    Ok(())
}

impl Times {
    fn now(gateway: &DevGateway, hosts: &[Host]) -> Result<Self> {
        let (busy, idle) = machine_ticks();
        Ok(Self {
            gateway: ticks(gateway.pid())?,
            holders: ticks_of_all(&gateway.holders())?,
            hosts: hosts.iter().map(Host::ticks).sum(),
            busy,
            idle,
        })
    }

    /// Milliseconds per rotation of gateway, holders and hosts, and the share of the machine that was busy.
    fn since(&self, before: &Self) -> [f64; 4] {
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 * TICK_US / 1000.0 / HOSTS as f64;
        let (busy, idle) = ((self.busy - before.busy) as f64, (self.idle - before.idle) as f64);
        [
            each(self.gateway, before.gateway),
            each(self.holders, before.holders),
            each(self.hosts, before.hosts),
            100.0 * busy / (busy + idle).max(1.0),
        ]
    }
}

/// What a host pays for one login and one command, without Volvelle: the least that a rotation can cost it.
fn baseline(host: &Host, report: &mut Report) -> Result<()> {
    let one = || {
        let before = host.ticks();
        for _ in 0..BASELINE_LOGINS {
            ensure!(host.opens("root", INITIAL_PASSWORD), "OpenSSH's client cannot log in");
        }
        std::thread::sleep(REST);
        Ok((host.ticks() - before) as f64 * TICK_US / 1000.0 / f64::from(BASELINE_LOGINS))
    };
    let observed = (0..ROUNDS).map(|_| one()).collect::<Result<Vec<_>>>()?;
    report.add("one login by OpenSSH's client: host's processor time", "ms", observed, "");
    Ok(())
}

/// Logins that the hosts have let in so far.
fn logins(hosts: &[Host]) -> Result<f64> {
    let logs = hosts.iter().map(Host::server_log).collect::<Result<Vec<_>>>()?;
    Ok(logs.iter().map(|log| log.matches("Accepted ").count()).sum::<usize>() as f64)
}

/// Reads one secret while all the others are rotated: every save of a rotation ends what the gateway remembers.
async fn reads_meanwhile(
    gateway: &DevGateway,
    address: &str,
    rotations: &[Vec<u8>],
    report: &mut Report,
) -> Result<()> {
    let token = sign_in(gateway).await?;
    let read = Arc::new(vec![request("rotated-secret-get-value", &json!({"name": secret(0), "token": token}))]);
    let (mut rate, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let load = Load { connections: READERS, lasts: READ_FOR, again: true };
        let (reads, rotated) = tokio::join!(send(address, &read, load), rotate_all(address, &rotations[1..], 8));
        rotated?;
        let reads = reads?;
        rate.push(reads.rate());
        refused.push(reads.refused as f64);
    }
    let name = format!("get-value, {READERS} connections, while 8 rotations at once run");
    report.add(&name, "reads/s", rate, "");
    report.add(format!("{name}: refused"), "reads", refused, "0");
    Ok(())
}

async fn create(gateway: &mut DevGateway, n: usize, host: &Host) -> Result<()> {
    let target = json!({"name": format!("/bench/{n}"), "host": host.addr.ip().to_string(), "port": "22",
        "ssh-username": "root", "ssh-password": INITIAL_PASSWORD});
    succeed(gateway, "target-create-ssh", target).await?;
    let secret = json!({"name": secret(n), "target-name": format!("/bench/{n}"), "rotator-type": "target"});
    succeed(gateway, "rotated-secret-create-ssh", secret).await?;
    Ok(())
}

fn secret(n: usize) -> String {
    format!("/bench/{n}/root")
}

async fn requests(gateway: &DevGateway) -> Result<Vec<Vec<u8>>> {
    let token = sign_in(gateway).await?;
    let one = |n| request("gateway-rotate-secret", &json!({"name": secret(n), "token": token}));
    Ok((0..HOSTS).map(one).collect())
}

/// A token of the administrator.
pub async fn sign_in(gateway: &DevGateway) -> Result<String> {
    let admin = &gateway.admin;
    let body = json!({"access-id": admin.access_id, "access-key": admin.access_key});
    let body: Map<_, _> = body.as_object().cloned().context("an object")?;
    let (_, answer) = gateway.post_as_is("auth", body).await?;
    answer["token"].as_str().map(str::to_owned).context("no token")
}

async fn rotate_all(address: &str, requests: &[Vec<u8>], at_once: usize) -> Result<()> {
    let left: Arc<Mutex<VecDeque<Vec<u8>>>> = Arc::new(Mutex::new(requests.iter().cloned().collect()));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (left, mut connection) = (Arc::clone(&left), Connection::open(address).await?);
        tasks.spawn(async move {
            loop {
                let Some(request) = left.lock().await.pop_front() else { return anyhow::Ok(()) };
                let status = connection.ask(&request).await?;
                ensure!(status == 200, "a rotation ended with {status}: {}", connection.text());
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn proved(gateway: &mut DevGateway, hosts: &[Host]) -> Result<()> {
    for (n, host) in hosts.iter().enumerate() {
        let answer = succeed(gateway, "rotated-secret-get-value", json!({"name": secret(n)})).await?;
        let password = answer["value"]["password"].as_str().context("a password")?;
        ensure!(host.shadow_is("root", password)?, "host {n} has another password than the store");
    }
    Ok(())
}

/// Calls an operation that must succeed.
pub async fn succeed(gateway: &mut DevGateway, operation: &str, body: Value) -> Result<Value> {
    let (status, answer) = gateway.post(operation, body).await?;
    ensure!((200..300).contains(&status), "{operation}: {status} {}", answer["error"]);
    Ok(answer)
}
