//! The hosts and databases that other tests stand on behave as they claim.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use serde_json::json;
use volvelle_testkit::{
    gateway::DevGateway,
    hosts::{Host, HostKind, INITIAL_PASSWORD},
    postgres::Postgres,
};

#[test]
fn every_kind_of_host_starts_and_opens_the_way_it_should() -> Result<()> {
    for kind in HostKind::ALL {
        let host = Host::start(kind)?;
        let key = host.host_key()?;
        assert!(key.starts_with("ssh-"), "{kind:?}: {key}");
        assert!(host.shadow("root")?.starts_with('$'), "{kind:?}");
        assert!(host.shadow_is("app2", INITIAL_PASSWORD)?, "{kind:?}");
        assert!(!host.shadow_is("app2", "wrong")?, "{kind:?}");
        let by_password = !matches!(kind, HostKind::KeyOnly | HostKind::Tinyssh);
        assert_eq!(host.opens("ops", INITIAL_PASSWORD), by_password, "{kind:?}: {}", host.server_log()?);
        let root = by_password && kind != HostKind::Sudo;
        assert_eq!(host.opens("root", INITIAL_PASSWORD), root, "{kind:?}: {}", host.server_log()?);
        assert!(host.opens_with_key("rot", host.private_key())?, "{kind:?}: {}", host.server_log()?);
    }
    Ok(())
}

#[test]
fn a_password_set_inside_opens_and_the_former_one_does_not() -> Result<()> {
    let host = Host::start(HostKind::Debian)?;
    host.set_password("root", "Another-1-password")?;
    assert!(host.opens("root", "Another-1-password"));
    assert!(!host.opens("root", INITIAL_PASSWORD));
    assert!(host.shadow_is("root", "Another-1-password")?);
    Ok(())
}

#[test]
fn the_machine_keeps_its_own_shadow_file_and_a_dropped_host_leaves_nothing() -> Result<()> {
    let before = std::fs::read("/etc/shadow")?;
    let host = Host::start(HostKind::Debian)?;
    let addr = host.addr;
    let key = host.host_key()?;
    let host = host.replace()?;
    assert_eq!(host.addr, addr);
    assert_ne!(host.host_key()?, key);
    drop(host);
    assert!(std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_err());
    assert_eq!(std::fs::read("/etc/shadow")?, before);
    Ok(())
}

#[test]
fn each_database_is_empty_and_its_own() -> Result<()> {
    let (first, second) = (Postgres::start()?, Postgres::start()?);
    assert_ne!(first.url(), second.url());
    for url in [first.url(), second.url()] {
        let output =
            Command::new("psql").args([url, "-qAtc", "create table t (x int); select count(*) from t"]).output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_is_called_killed_restarted_and_stopped() -> Result<()> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testkit/stand_in.py");
    let mut gateway = DevGateway::start_program(program, &[("MARK", "one")]).await?;
    let (status, answer) = gateway.post("describe-item", json!({"name": "/a"})).await?;
    assert_eq!((status, answer), (200, json!({"starts": 1, "mark": "one", "name": "/a"})));
    let (status, _) = gateway.post("describe-item", json!({"token": "t-2"})).await?;
    assert_eq!(status, 401);
    assert!(gateway.restart().await.is_err(), "a running gateway is not started twice");

    gateway.kill9()?;
    assert!(gateway.get("health").await.is_err());
    gateway.set_env("MARK", None);
    gateway.restart().await?;
    let (_, answer) = gateway.post("describe-item", json!({})).await?;
    assert_eq!(answer, json!({"starts": 2, "mark": null, "name": null}));
    assert!(gateway.log()?.contains("request /describe-item"));

    gateway.stop().await?;
    gateway.restart().await?;
    let pid = gateway.pid();
    drop(gateway);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}
