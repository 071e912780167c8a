//! Rotations by the calendar, with a clock that is moved and a real host.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};

use crate::world::World;

const DAY: i64 = 86_400;

async fn secret(world: &World, host: &Host) {
    let target = json!({"name": "/s/host", "host": host.addr.ip().to_string(), "ssh-username": "root",
        "ssh-password": INITIAL_PASSWORD});
    world.done("target-create-ssh", target).await;
    let secret = json!({"name": "/s/app1", "target-name": "/s/host", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "auto-rotate": "true", "rotation-interval": "30", "rotation-hour": 3});
    world.done("rotated-secret-create-ssh", secret).await;
}

/// Describes the secret until `wanted` holds.
async fn until(world: &World, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let item = world.done("describe-item", json!({"name": "/s/app1"})).await;
        if wanted(&item) {
            return item;
        }
        assert!(Instant::now() < deadline, "{item}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn status(item: &Value) -> &str {
    item["item_general_info"]["rotated_secret_details"]["rotator_status"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_rotates_when_it_is_due_and_again_later_after_a_failure() {
    let (mut world, host) = (World::start().await, Host::start(HostKind::Debian).expect("a host"));
    let stop = CancellationToken::new();
    let (engine, ended) = (world.app.engine.clone(), stop.clone());
    let running = tokio::spawn(async move { engine.run(ended).await });
    secret(&world, &host).await;
    let before = until(&world, |_| true).await;
    assert_eq!(status(&before), "NotRotated");
    world.pass(31 * DAY);
    world.renew_admin().await;
    let first = until(&world, |item| status(item) == "RotationSucceeded").await;
    assert_ne!(first["next_rotation_date"], before["next_rotation_date"]);
    let read = world.done("rotated-secret-get-value", json!({"name": "/s/app1"})).await;
    let password = read["value"]["password"].as_str().expect("a password").to_owned();
    assert!(host.shadow_is("app1", &password).expect("the shadow file"));

    // The host is gone when the next date comes: nothing is lost, the failure is shown, and the next try is soon.
    host.exec("kill -STOP $(pidof sshd)").expect("stopping the server");
    world.pass(31 * DAY);
    world.renew_admin().await;
    let failed = until(&world, |item| status(item) == "RotationFailed").await;
    assert!(
        !failed["item_general_info"]["rotated_secret_details"]["last_rotation_error"].as_str().unwrap_or("").is_empty()
    );
    host.exec("kill -CONT $(pidof sshd)").expect("resuming the server");
    world.pass(3600);
    world.renew_admin().await;
    until(&world, |item| status(item) == "RotationSucceeded").await;
    let history = world.done("rotation-list", json!({"name": "/s/app1"})).await;
    let causes: Vec<_> = history["rotations"].as_array().expect("a list").iter().map(|r| r["cause"].as_str()).collect();
    assert_eq!(causes, [Some("schedule"); 3]);
    stop.cancel();
    running.await.expect("the engine ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_nobody_checks_in_rotates_when_its_lock_ends() {
    let (mut world, host) = (World::start().await, Host::start(HostKind::Debian).expect("a host"));
    let stop = CancellationToken::new();
    let (engine, ended) = (world.app.engine.clone(), stop.clone());
    let running = tokio::spawn(async move { engine.run(ended).await });
    secret(&world, &host).await;
    world.done("gateway-rotate-secret", json!({"name": "/s/app1"})).await;
    world.done("update-account-settings", json!({"item-locking-enabled": "true"})).await;
    let settings = json!({"name": "/s/app1", "lock-on-read": true, "lock-ttl": 30, "rotate-on-unlock": true});
    world.done("update-item", settings).await;
    let first = world.done("rotated-secret-get-value", json!({"name": "/s/app1"})).await;
    let locked = until(&world, |_| true).await;
    assert_eq!(locked["locking_info"]["locked_by"], json!(world.admin.id));
    assert_eq!(locked["item_general_info"]["pending_rotate_on_unlock"], json!(true));

    world.pass(31 * 60);
    world.renew_admin().await;
    until(&world, |item| item["last_rotation_date"] != locked["last_rotation_date"]).await;
    let after = until(&world, |item| status(item) == "RotationSucceeded").await;
    assert_eq!(after["locking_info"], Value::Null, "{after}");
    let read = json!({"name": "/s/app1", "ignore-cache": "true"});
    let second = world.done("rotated-secret-get-value", read).await;
    assert_ne!(first["value"]["password"], second["value"]["password"]);
    let password = second["value"]["password"].as_str().expect("a password");
    assert!(host.shadow_is("app1", password).expect("the shadow file"));
    stop.cancel();
    running.await.expect("the engine ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_secrets_due_at_once_never_lock_their_targets_own_account() {
    let (mut world, host) = (World::start().await, Host::start(HostKind::Debian).expect("a host"));
    let target = json!({"name": "/s/host", "host": host.addr.ip().to_string(), "ssh-username": "root",
        "ssh-password": INITIAL_PASSWORD});
    world.done("target-create-ssh", target).await;
    for n in 0..6 {
        let secret = json!({"name": format!("/s/{n}"), "target-name": "/s/host", "rotator-type": "password",
            "rotated-username": "app1", "authentication-credentials": "use-target-creds", "auto-rotate": "true",
            "rotation-interval": "1", "skip-dry-run": "true"});
        world.done("rotated-secret-create-ssh", secret).await;
    }
    host.set_password("root", "Somebody-Else-1!").expect("a careless colleague");
    let before = failures(&host);
    world.pass(2 * DAY);
    world.renew_admin().await;
    let stop = CancellationToken::new();
    let (engine, ended) = (world.app.engine.clone(), stop.clone());
    let running = tokio::spawn(async move { engine.run(ended).await });
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let items = world.done("list-items", json!({"path": "/s"})).await;
        let items = items["items"].as_array().expect("items").clone();
        if items.len() == 6 && items.iter().all(|item| status(item) == "RotationFailed") {
            break;
        }
        assert!(Instant::now() < deadline, "{items:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Nor do people who try again by hand.
    for n in 0..3 {
        let body = json!({"name": format!("/s/{n}")});
        assert_eq!(world.refused(&world.admin.token, "gateway-rotate-secret", body).await.1, "rotation_failed");
    }
    let spent = failures(&host) - before;
    assert!((1..=2).contains(&spent), "{spent} failed logins");
    stop.cancel();
    running.await.expect("the engine ends");
}

/// Logins the host has refused.
fn failures(host: &Host) -> usize {
    let log = host.server_log().expect("a log");
    log.lines().filter(|line| line.contains("Failed ") || line.contains("Authentication failure for")).count()
}
