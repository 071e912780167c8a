//! The whole product against real hosts: what the stored value says is what opens the account.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use volvelle_testkit::{
    gateway::DevGateway,
    hosts::{Host, HostKind, INITIAL_PASSWORD},
};

#[path = "e2e/aws.rs"]
mod aws;
#[path = "e2e/aws_console.rs"]
mod aws_console;
#[path = "e2e/custom.rs"]
mod custom;
#[path = "e2e/devices.rs"]
mod devices;
#[path = "e2e/keys.rs"]
mod keys;
#[path = "e2e/ssh.rs"]
mod ssh;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_opens_the_account_and_the_former_one_does_not() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    create(&mut gateway, &host, "root").await?;
    for former in [None, Some(())] {
        let before = match former {
            None => INITIAL_PASSWORD.to_owned(),
            Some(()) => value(&mut gateway, "/e2e/secret").await?,
        };
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/e2e/secret"})).await?;
        let after = value(&mut gateway, "/e2e/secret").await?;
        assert_ne!(before, after);
        assert!(host.opens("root", &after));
        assert!(!host.opens("root", &before));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanged_host_key_stops_the_rotation_before_any_password_is_sent() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    create(&mut gateway, &host, "root").await?;
    let host = host.replace()?;
    let (status, _) = gateway.post("gateway-rotate-secret", json!({"name": "/e2e/secret"})).await?;
    assert!(status >= 400, "a changed host key was accepted");
    assert!(host.shadow_is("root", INITIAL_PASSWORD)?);
    assert!(!host.server_log()?.contains("Failed password"), "a password was sent to an unknown host");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_target_reports_each_host_and_keeps_what_each_host_has() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let hosts = [Host::start(HostKind::Debian)?, Host::start(HostKind::Debian)?];
    create(&mut gateway, &hosts[0], "root").await?;
    let list: Vec<String> = hosts.iter().map(|host| host.addr.to_string()).collect();
    let linked = json!({"name": "/e2e/linked", "parent-target-name": "/e2e/target", "hosts": list.join(",")});
    succeed(&mut gateway, "target-create-linked", linked).await?;
    let secret = json!({"name": "/e2e/many", "target-name": "/e2e/linked", "rotator-type": "password", "rotated-username": "app1",
        "rotated-password": INITIAL_PASSWORD, "authentication-credentials": "use-target-creds", "same-password": "false"});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    hosts[1].exec("kill -STOP $(pidof sshd)")?;
    gateway.post("gateway-rotate-secret", json!({"name": "/e2e/many"})).await?;
    let answer = succeed(&mut gateway, "rotated-secret-get-value", json!({"name": "/e2e/many"})).await?;
    for host in &hosts {
        let password = answer["value"]["linked_hosts"][host.addr.to_string()]["password"]
            .as_str()
            .context("a password per host")?;
        assert!(host.shadow_is("app1", password)?);
    }
    assert!(!hosts[0].shadow_is("app1", INITIAL_PASSWORD)?);
    assert!(hosts[1].shadow_is("app1", INITIAL_PASSWORD)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_is_noticed_shown_and_repaired() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    create(&mut gateway, &host, "root").await?;
    let secret = json!({"name": "/e2e/app", "target-name": "/e2e/target", "rotator-type": "password", "rotated-username": "app1",
        "rotated-password": INITIAL_PASSWORD, "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/e2e/app"})).await?;
    let read = succeed(&mut gateway, "rotated-secret-get-value", json!({"name": "/e2e/app"})).await?;
    assert!(read["last_verified_at"].is_string());
    gateway.stop().await?;
    let (data, backup) = (gateway.data_dir(), tempfile::tempdir()?);
    copy_database(&data, backup.path())?;
    gateway.restart().await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/e2e/app"})).await?;
    // The watermark follows the database with a short delay.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    gateway.stop().await?;
    copy_database(backup.path(), &data)?;
    gateway.restart().await?;
    let read = succeed(&mut gateway, "rotated-secret-get-value", json!({"name": "/e2e/app"})).await?;
    assert!(read["last_verified_at"].is_null() && read["warning"].is_string(), "a stale value is called verified");
    let mut status = String::new();
    for _ in 0..100 {
        let item = succeed(&mut gateway, "describe-item", json!({"name": "/e2e/app"})).await?;
        status =
            item["item_general_info"]["rotated_secret_details"]["rotator_status"].as_str().unwrap_or("").to_owned();
        if status == "OutOfSync" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(status, "OutOfSync");
    let (status, refused) = gateway.post("gateway-rotate-secret", json!({"name": "/e2e/app"})).await?;
    assert!(status >= 400 && refused["code"] == "rotation_out_of_sync", "{status} {refused}");
    let repaired = succeed(&mut gateway, "rotated-secret-repair", json!({"name": "/e2e/app"})).await?;
    assert_eq!(repaired["hosts"][0]["action"], "reapplied", "{repaired}");
    assert!(host.shadow_is("app1", &value(&mut gateway, "/e2e/app").await?)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_may_be_down_two_may_not_and_a_killed_one_comes_back() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let secret = |n: u32| json!({"name": format!("/h/{n}"), "value": "kept"});
    let read = |n: u32| json!({"names": [format!("/h/{n}")]});
    for n in 0..4 {
        succeed(&mut gateway, "create-secret", secret(n)).await?;
    }
    let holders = gateway.holders();
    ensure!(holders.len() == 3, "three holders, not {}", holders.len());
    signal(holders[0], "-STOP")?;
    assert_eq!(succeed(&mut gateway, "get-secret-value", read(0)).await?["/h/0"], "kept");
    signal(holders[1], "-STOP")?;
    let (status, answer) = gateway.post("get-secret-value", read(1)).await?;
    let told = answer["error"].as_str().unwrap_or_default();
    assert!(status == 503 && told.contains("holders are needed"), "{status} {answer}");
    signal(holders[0], "-CONT")?;
    signal(holders[1], "-CONT")?;
    signal(holders[2], "-KILL")?;
    for _ in 0..100 {
        if gateway.holders().iter().any(|pid| !holders.contains(pid)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let now = gateway.holders();
    assert!(now.iter().any(|pid| !holders.contains(pid)), "the killed holder was not started again: {now:?}");
    assert_eq!(succeed(&mut gateway, "get-secret-value", read(2)).await?["/h/2"], "kept");
    gateway.stop().await?;
    assert!(gateway.holders().is_empty(), "a holder outlived its gateway");
    Ok(())
}

fn signal(pid: u32, signal: &str) -> Result<()> {
    let status = std::process::Command::new("kill").args([signal, &pid.to_string()]).status()?;
    ensure!(status.success(), "kill {signal} {pid}");
    Ok(())
}

fn copy_database(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    for name in ["volvelle.db", "volvelle.db-wal", "volvelle.db-shm"] {
        match std::fs::remove_file(to.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

async fn create(gateway: &mut DevGateway, host: &Host, user: &str) -> Result<()> {
    let target = json!({"name": "/e2e/target", "host": host.addr.ip().to_string(), "port": "22",
        "ssh-username": user, "ssh-password": INITIAL_PASSWORD});
    succeed(gateway, "target-create-ssh", target).await?;
    let secret = json!({"name": "/e2e/secret", "target-name": "/e2e/target", "rotator-type": "password",
        "rotated-username": user, "rotated-password": INITIAL_PASSWORD, "authentication-credentials": "use-user-creds"});
    succeed(gateway, "rotated-secret-create-ssh", secret).await?;
    Ok(())
}

async fn value(gateway: &mut DevGateway, name: &str) -> Result<String> {
    let answer = succeed(gateway, "rotated-secret-get-value", json!({"name": name})).await?;
    Ok(answer["value"]["password"].as_str().context("a password")?.to_owned())
}

async fn succeed(gateway: &mut DevGateway, operation: &str, body: Value) -> Result<Value> {
    let (status, answer) = gateway.post(operation, body).await?;
    ensure!((200..300).contains(&status), "{operation}: {status} {}", answer["error"]);
    Ok(answer)
}
