//! What the holders witness, through a real gateway: their logs against the audit log, and what is deleted.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use volvelle_fragments::Place;
use volvelle_holder::Quorum;
use volvelle_holder::local::prepare;
use volvelle_testkit::gateway::{DevGateway, built_program};
use volvelle_testkit::hook::Hook;

async fn succeed(gateway: &mut DevGateway, operation: &str, body: Value) -> Result<Value> {
    let (status, answer) = gateway.post(operation, body).await?;
    ensure!((200..300).contains(&status), "{operation} answered {status}: {answer}");
    Ok(answer)
}

fn logs(gateway: &DevGateway) -> Vec<PathBuf> {
    (1..=3).map(|n| gateway.data_dir().join(format!("holders/holder-{n}/state/log"))).collect()
}

/// Runs `volvelle audit reconcile` over these logs; gives the exit code and what it found.
fn reconcile(gateway: &DevGateway, logs: &[PathBuf], more: &[&str]) -> Result<(i32, Value)> {
    let mut command = Command::new(built_program("volvelle")?);
    command.arg("--data-dir").arg(gateway.data_dir()).args(["audit", "reconcile", "--json"]).args(more);
    for log in logs {
        command.arg("--log").arg(log);
    }
    command.env("HOME", gateway.data_dir()).stdin(Stdio::null());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    Ok((output.status.code().context("an exit code")?, found))
}

/// Reads, writes, renames, deletes, rotates, fails and restarts.
async fn work(gateway: &mut DevGateway, hook: &Hook) -> Result<()> {
    succeed(gateway, "create-secret", json!({"name": "/w/one", "value": "1"})).await?;
    succeed(gateway, "create-secret", json!({"name": "/w/two", "value": "2"})).await?;
    succeed(gateway, "target-create-web", json!({"name": "/w/target", "url": hook.url()})).await?;
    let rotated =
        json!({"name": "/w/rotated", "target-name": "/w/target", "custom-payload": "first", "timeout-sec": 3});
    succeed(gateway, "rotated-secret-create-custom", rotated).await?;
    for _ in 0..3 {
        succeed(gateway, "get-secret-value", json!({"names": ["/w/one", "/w/two"]})).await?;
        succeed(gateway, "rotated-secret-get-value", json!({"name": "/w/rotated"})).await?;
        succeed(gateway, "gateway-rotate-secret", json!({"name": "/w/rotated"})).await?;
    }
    succeed(gateway, "update-secret-val", json!({"name": "/w/one", "value": "11"})).await?;
    succeed(gateway, "get-secret-value", json!({"names": "/w/one"})).await?;
    succeed(gateway, "update-item", json!({"name": "/w/one", "new-name": "/w/moved"})).await?;
    succeed(gateway, "delete-item", json!({"name": "/w/moved"})).await?;
    hook.set(volvelle_testkit::hook::Manners::Refuses(500));
    let (status, _) = gateway.post("gateway-rotate-secret", json!({"name": "/w/rotated"})).await?;
    ensure!(status >= 400, "the hook refuses");
    hook.set(volvelle_testkit::hook::Manners::Proper);
    gateway.stop().await?;
    gateway.restart().await?;
    let read = async |gateway: &mut DevGateway| succeed(gateway, "get-secret-value", json!({"names": "/w/two"})).await;
    read(gateway).await?;
    read(gateway).await?;
    buried(gateway, 2).await
}

/// Waits until every holder has buried so many versions.
async fn buried(gateway: &mut DevGateway, versions: u64) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = succeed(gateway, "fragments-status", json!({})).await?;
        let all = |holder: &Value| holder["tombstones"] == json!(versions) && holder["tombstones_pending"] == 0;
        if status["tombstones_pending"] == 0 && status["holders"].as_array().is_some_and(|list| list.iter().all(all)) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{versions} versions are buried: {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holders_logs_explain_everything_until_somebody_uses_a_stolen_identity() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let hook = Hook::start("first").await?;
    work(&mut gateway, &hook).await?;
    let (code, found) = reconcile(&gateway, &logs(&gateway), &["--all-holders"])?;
    ensure!(code == 0, "normal work is explained: {found:#}");
    ensure!(found["evaluations"].as_u64() > Some(30) && found["explained"] == found["evaluations"], "{found:#}");
    ensure!(found["burials"] == json!(6) && found["reads"].as_u64() > Some(8), "{found:#}");

    // The identity and the roster are all that a thief needs. He opens nothing through the gateway.
    let setup = prepare(&gateway.data_dir().join("holders"), 3, 2)?;
    let thief = Quorum::new(&setup.quorum)?;
    let realm = succeed(&mut gateway, "get-account-settings", json!({})).await?["realm"].clone();
    let mut bytes = [0; 16];
    hex::decode_to_slice(realm.as_str().context("a realm")?, &mut bytes)?;
    let place = Place { realm: bytes, key_id: 1, purpose: 1, item: [9; 16], version: 1, path: "/w/two".to_owned() };
    thief.seal(&place, b"sealing learns the key as opening does").await?;

    let exported: Vec<PathBuf> = (1..=3).map(|n| gateway.data_dir().join(format!("holder-{n}.jsonl"))).collect();
    for (log, file) in logs(&gateway).iter().zip(&exported) {
        let export = ["log", "export", "--dir"];
        let out = std::fs::File::create(file)?;
        let status = Command::new(built_program("volvelle-holder")?).args(export).arg(log).stdout(out).status()?;
        ensure!(status.success(), "exports");
    }
    let (code, found) = reconcile(&gateway, &exported, &["--all-holders"])?;
    let unexplained = found["unexplained"].as_array().context("a list")?;
    ensure!(code == 7 && unexplained.len() == 1, "{found:#}");
    let row = &unexplained[0];
    ensure!(row["path"] == "/w/two" && row["operation"] == "seal", "{row}");
    ensure!(row["why"] == "the gateway knows no such request", "{row}");
    ensure!(row["logs"].as_array().is_some_and(|logs| (2..=3).contains(&logs.len())), "{row}");

    // A log that was changed is not believed.
    let size = |file: &&PathBuf| std::fs::metadata(file).map_or(0, |meta| meta.len());
    let longest = exported.iter().max_by_key(size).context("three logs")?;
    let text = std::fs::read_to_string(longest)?;
    let changed = text.replacen("\"/w/two\"", "\"/w/one\"", 1);
    ensure!(changed != text, "it was asked for /w/two");
    std::fs::write(longest, changed)?;
    let (code, found) = reconcile(&gateway, std::slice::from_ref(longest), &[])?;
    ensure!(code == 7 && found["logs"][0]["valid"] == false, "{found:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_down_is_told_later_what_was_deleted() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    succeed(&mut gateway, "create-secret", json!({"name": "/gone", "value": "v"})).await?;
    // Stopped, not killed: the gateway would start another one.
    let holder = gateway.holders().into_iter().min().context("a holder")?;
    let pid = Pid::from_raw(holder.cast_signed()).context("a process id")?;
    kill_process(pid, Signal::STOP)?;
    succeed(&mut gateway, "delete-item", json!({"name": "/gone"})).await?;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = succeed(&mut gateway, "fragments-status", json!({})).await?;
        let holders = status["holders"].as_array().context("a list")?;
        let lacking = holders.iter().filter(|holder| holder["tombstones_pending"] == 1).count();
        if status["tombstones_pending"] == 1 && lacking == 1 {
            ensure!(status["tombstones_pending_since"].is_string(), "{status}");
            break;
        }
        ensure!(Instant::now() < until, "two of three have it: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    kill_process(pid, Signal::CONT)?;
    buried(&mut gateway, 1).await?;
    let (_, metrics) = gateway.get("metrics").await?;
    ensure!(metrics.contains("volvelle_tombstones_pending"), "there is a metric");
    Ok(())
}

/// Calls an operation with another token than the gateway's of the test.
async fn with_token(gateway: &DevGateway, token: &str, operation: &str, body: Value) -> Result<(u16, Value)> {
    let Value::Object(mut body) = body else { anyhow::bail!("an object") };
    body.insert("token".to_owned(), json!(token));
    gateway.post_as_is(operation, body).await
}

async fn sign_in(gateway: &DevGateway) -> Result<String> {
    let Value::Object(body) = json!({"access-id": gateway.admin.access_id, "access-key": gateway.admin.access_key})
    else {
        anyhow::bail!("an object")
    };
    let (status, answer) = gateway.post_as_is("auth", body).await?;
    ensure!(status == 200, "{answer}");
    Ok(answer["token"].as_str().context("a token")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_that_require_clients_serve_a_gateway_that_signs_them_in_and_no_thief() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let hook = Hook::start("first").await?;
    succeed(&mut gateway, "create-secret", json!({"name": "/a", "value": "v"})).await?;
    succeed(&mut gateway, "target-create-web", json!({"name": "/r/target", "url": hook.url()})).await?;
    let rotated = json!({"name": "/r/secret", "target-name": "/r/target", "custom-payload": "first", "timeout-sec": 3});
    succeed(&mut gateway, "rotated-secret-create-custom", rotated).await?;
    let realm = succeed(&mut gateway, "get-account-settings", json!({})).await?["realm"].clone();
    gateway.stop().await?;
    let key = gateway.data_dir().join("authorization.der");
    let made =
        Command::new(built_program("volvelle-holder")?).args(["authorization-key", "--file"]).arg(&key).output()?;
    ensure!(made.status.success(), "a signing key");
    let public = String::from_utf8(made.stdout)?.trim().to_owned();
    for n in 1..=3 {
        let file = gateway.data_dir().join(format!("holders/holder-{n}/holder.toml"));
        let text = std::fs::read_to_string(&file)?;
        let section = format!(
            "[authorization]\nmode = \"require\"\nsigning-keys = [\"{public}\"]\n[authorization.rotation]\nprefixes = [\"/r\"]\n"
        );
        std::fs::write(&file, format!("{text}\n{section}"))?;
    }
    gateway.restart().await?;

    // A token from before has no authorization; a new one has.
    let (status, answer) = gateway.post("get-secret-value", json!({"names": "/a"})).await?;
    ensure!(status == 403 && answer["code"] == "holders_refuse", "{status} {answer}");
    let text = answer["error"].as_str().context("text")?;
    ensure!((1..=3).all(|n| text.contains(&format!("holder {n}: no client's authorization"))), "{text}");
    let token = sign_in(&gateway).await?;
    for _ in 0..2 {
        let (status, answer) = with_token(&gateway, &token, "get-secret-value", json!({"names": "/a"})).await?;
        ensure!(status == 200 && answer["/a"] == "v", "{status} {answer}");
    }
    // A derived key is kept now; nobody without the right gets the value by that, and the old token's right is still its own.
    let (status, _) = with_token(&gateway, "t-unknown", "get-secret-value", json!({"names": "/a"})).await?;
    ensure!(status == 401, "who is not signed in gets nothing from the cache");

    // The engine rotates for nobody, within its prefix.
    let (status, answer) = with_token(&gateway, &token, "gateway-rotate-secret", json!({"name": "/r/secret"})).await?;
    ensure!(status == 200, "{status} {answer}");
    let (status, answer) =
        with_token(&gateway, &token, "rotated-secret-get-value", json!({"name": "/r/secret"})).await?;
    ensure!(status == 200 && answer["value"]["payload"] == json!(hook.known().payload), "{status} {answer}");

    // The identity alone opens nothing any more.
    let setup = prepare(&gateway.data_dir().join("holders"), 3, 2)?;
    let thief = Quorum::new(&setup.quorum)?;
    let mut bytes = [0; 16];
    hex::decode_to_slice(realm.as_str().context("a realm")?, &mut bytes)?;
    let place = Place { realm: bytes, key_id: 1, purpose: 1, item: [9; 16], version: 1, path: "/a".to_owned() };
    let refused = thief.seal(&place, b"x").await.err().context("the thief is refused")?.to_string();
    ensure!(refused.contains("no client's authorization"), "{refused}");

    // What he tried is in the holders' logs.
    let (code, found) = reconcile(&gateway, &logs(&gateway), &[])?;
    ensure!(code == 7, "{found:#}");
    ensure!(
        found["unexplained"].as_array().is_some_and(|rows| rows.iter().all(|row| row["status"] == "unauthorized")),
        "{found:#}"
    );
    Ok(())
}
