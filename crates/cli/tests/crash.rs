//! A killed gateway never loses an account: it is killed at every save of a rotation and at random
//! moments, and each time the value it stores afterwards is the one that opens the real account.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use volvelle_testkit::{
    gateway::DevGateway,
    hosts::{Host, HostKind, INITIAL_PASSWORD},
};

const NAME: &str = "/crash/secret";
const MOST_SAVES: u32 = 64;
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn no_account_is_lost_however_often_the_gateway_dies() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    create(&mut gateway, &host).await?;
    let mut lost = 0;
    let saves = at_every_save(&mut gateway, &host, &mut lost).await?;
    let kills = std::env::var("VOLVELLE_CRASH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_u32);
    at_random_moments(&mut gateway, &host, kills, &mut lost).await?;
    report(&format!("killed at {saves} saves and {kills} random moments; accounts lost: {lost}"));
    assert_eq!(lost, 0);
    Ok(())
}

/// Raises the number of the fatal save until a whole rotation survives; answers how many saves there are.
async fn at_every_save(gateway: &mut DevGateway, host: &Host, lost: &mut u32) -> Result<u32> {
    for save in 1..=MOST_SAVES {
        gateway.stop().await?;
        gateway.set_env("VOLVELLE_CRASH_AT", Some(&save.to_string()));
        // The fatal save may already be one of the start itself.
        let started = gateway.restart().await;
        ensure!(started.is_ok() || gateway.ended()?.is_some(), "save {save}: the gateway neither starts nor ends");
        let rotated = gateway.post("gateway-rotate-secret", json!({"name": NAME})).await;
        let finished = rotated.is_ok_and(|(status, _)| status < 300);
        gateway.set_env("VOLVELLE_CRASH_AT", None);
        if finished && gateway.ended()?.is_none() {
            ensure!(save > 3, "the gateway was never killed: crash points are not active in this build");
            gateway.kill9()?;
            gateway.restart().await?;
            return Ok(save - 1);
        }
        if gateway.ended()?.is_none() {
            gateway.kill9()?;
        }
        gateway.restart().await?;
        *lost += u32::from(!settles(gateway, host).await?);
        ensure!(host.opens("root", &value(gateway).await?), "save {save}: an independent client cannot log in");
    }
    bail!("a rotation did not finish within {MOST_SAVES} saves")
}

/// Kills at random moments of rotations and of their recovery. After each, some stored value opens the account; every tenth time
/// it is waited for that the current one does.
async fn at_random_moments(gateway: &mut DevGateway, host: &Host, kills: u32, lost: &mut u32) -> Result<()> {
    let (mut longest, mut under_way) = (Duration::ZERO, 0);
    for n in 1..=kills {
        let wait = Duration::from_micros(u64::from(random()?) % 500_000);
        let killed = tokio::time::timeout(wait, gateway.post("gateway-rotate-secret", json!({"name": NAME}))).await;
        drop(killed);
        gateway.kill9()?;
        gateway.restart().await?;
        let began = Instant::now();
        if newest_stage(gateway).await?.is_some_and(|stage| stage != "done" && stage != "failed") {
            under_way += 1;
        }
        let opens = some_stored_value_opens(gateway, host).await?;
        *lost += u32::from(!opens);
        if n % 10 == 0 || n == kills {
            *lost += u32::from(!settles(gateway, host).await?);
            longest = longest.max(began.elapsed());
        }
    }
    report(&format!(
        "{under_way} of {kills} kills hit a rotation; longest time from ready to settled: {} ms",
        longest.as_millis()
    ));
    ensure!(under_way * 4 > kills, "the kills hardly ever hit a rotation");
    Ok(())
}

/// The stage of the newest rotation.
async fn newest_stage(gateway: &mut DevGateway) -> Result<Option<String>> {
    let rotations = succeed(gateway, "rotation-list", json!({"name": NAME, "limit": 1})).await?;
    Ok(rotations["rotations"][0]["stage"].as_str().map(str::to_owned))
}

/// Whether one of the versions that are kept is what the real account has.
async fn some_stored_value_opens(gateway: &mut DevGateway, host: &Host) -> Result<bool> {
    for _ in 0..20 {
        let item = succeed(gateway, "describe-item", json!({"name": NAME, "show-versions": true})).await?;
        for version in item["item_versions"].as_array().into_iter().flatten() {
            let asked = json!({"name": NAME, "version": version["version"]});
            let (status, answer) = gateway.post("rotated-secret-get-value", asked).await?;
            let opens =
                answer["value"]["password"].as_str().map(|password| host.shadow_is("root", password)).transpose()?;
            if status == 200 && opens == Some(true) {
                return Ok(true);
            }
        }
        // The account may have been changed between reading it and reading the versions.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

/// Waits until no rotation is open and the stored value is that of the real account; false when it never becomes so.
async fn settles(gateway: &mut DevGateway, host: &Host) -> Result<bool> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    while Instant::now() < deadline {
        let over = newest_stage(gateway).await?.is_none_or(|stage| stage == "done" || stage == "failed");
        if over && host.shadow_is("root", &value(gateway).await?)? {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

async fn create(gateway: &mut DevGateway, host: &Host) -> Result<()> {
    let target = json!({"name": "/crash/target", "host": host.addr.ip().to_string(), "port": "22",
        "ssh-username": "root", "ssh-password": INITIAL_PASSWORD});
    succeed(gateway, "target-create-ssh", target).await?;
    let secret = json!({"name": NAME, "target-name": "/crash/target", "rotator-type": "password", "rotated-username": "root",
        "rotated-password": INITIAL_PASSWORD, "authentication-credentials": "use-user-creds"});
    succeed(gateway, "rotated-secret-create-ssh", secret).await?;
    Ok(())
}

async fn value(gateway: &mut DevGateway) -> Result<String> {
    let answer = succeed(gateway, "rotated-secret-get-value", json!({"name": NAME})).await?;
    Ok(answer["value"]["password"].as_str().context("a password")?.to_owned())
}

async fn succeed(gateway: &mut DevGateway, operation: &str, body: Value) -> Result<Value> {
    let (status, answer) = gateway.post(operation, body).await?;
    ensure!((200..300).contains(&status), "{operation}: {status} {}", answer["error"]);
    Ok(answer)
}

fn random() -> Result<u32> {
    let mut bytes = [0_u8; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Past the test's own capture: the figure is what this test is run for.
fn report(text: &str) {
    let line = format!("{text}\n");
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}
