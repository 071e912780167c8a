//! Every call leaves an entry, and no entry can be changed unseen.

use serde_json::{Value, json};
use volvelle_store::audit::{self, Filter};

use crate::world::{Names, World, body};

async fn newest(world: &World) -> audit::Chained {
    let mut tx = world.store.read().await.expect("a reader");
    let known = volvelle_store::accounts::list(&mut tx).await.expect("accounts");
    let account = known.iter().find(|account| account.operator).expect("the operator");
    let filter = Filter { order: audit::Order::NewestFirst, limit: 1, ..Filter::default() };
    audit::list(&mut tx, &account.id, &filter).await.expect("entries").entries.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_leaves_an_entry() {
    let world = World::start().await;
    let names = Names { item: "/i", target: "/t", role: "/r", method: "/m", assoc: "ass-none" };
    let nobody = world.person("/nobody").await;
    let mut seq = newest(&world).await.seq;
    // Without a token nobody is known whose log it could stand in; a proof that holds does leave an entry.
    let others = ["auth", "revoke-token", "revoke-all-tokens", "validate-producer-credentials"];
    for op in world.app.operations.iter().filter(|op| !others.contains(&op.name.as_str())) {
        for (person, denied) in [(&nobody, true), (&world.admin, false)] {
            let (status, answer) = world.call(&person.token, &op.name, body(op, &names)).await;
            let last = newest(&world).await;
            assert!(last.seq > seq, "{} leaves no entry: {status} {answer}", op.name);
            seq = last.seq;
            assert_eq!(
                (last.entry.actor.as_str(), last.entry.remote.as_str()),
                (person.id.as_str(), "127.0.0.1"),
                "{}",
                op.name
            );
            let word = match (status, denied) {
                (200..300, _) => "ok",
                (401, true) => "denied",
                _ => "failed",
            };
            assert_eq!(last.entry.outcome, word, "{}: {answer}", op.name);
        }
    }
    let fresh = world.token(&nobody.id, &nobody.key).await;
    assert_eq!(newest(&world).await.entry.action, "authenticate");
    world.done_as(&fresh, "revoke-token", json!({})).await;
    assert_eq!(newest(&world).await.entry.action, "revoke_token");
    let verdict = world.done("audit-verify", json!({})).await;
    assert_eq!((&verdict["valid"], verdict["entries"].as_i64() > Some(100)), (&json!(true), true), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log() {
    let world = World::start().await;
    world.done("create-secret", json!({"name": "/s", "value": "canary-value"})).await;
    world.done("get-secret-value", json!({"names": "/s"})).await;
    let made = world.done("auth-method-create-api-key", json!({"name": "/m"})).await;
    world
        .call(
            &world.admin.token,
            "target-create-ssh",
            json!({"name": "/t", "host": "127.0.0.1", "port": "1", "username": "u", "password": "canary-password"}),
        )
        .await;
    let log = world.done("audit-list", json!({"limit": 1000})).await.to_string();
    for secret in ["canary", made["access_key"].as_str().expect("a key"), &world.admin.key, &world.admin.token] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_or_missing_entry_is_found() {
    let world = World::start().await;
    for n in 0..5 {
        world.done("create-role", json!({"name": format!("/r{n}")})).await;
    }
    let verdict = world.done("audit-verify", json!({})).await;
    assert_eq!(verdict["valid"], json!(true));
    let mut tx = world.store.begin().await.expect("a writer");
    let changed =
        tx.danger_execute("UPDATE audit SET entries = replace(entries, '/r2', '/r9') WHERE entries LIKE '%/r2%'").await;
    assert_eq!(changed.expect("changed"), 1);
    tx.commit().await.expect("committed");
    let verdict: Value = world.done("audit-verify", json!({})).await;
    assert_eq!(verdict["valid"], json!(false), "{verdict}");
    let broken = verdict["broken_at"].as_i64().expect("a number");
    let mut tx = world.store.begin().await.expect("a writer");
    tx.danger_execute("UPDATE audit SET entries = replace(entries, '/r9', '/r2') WHERE entries LIKE '%/r9%'")
        .await
        .expect("undone");
    tx.commit().await.expect("committed");
    assert_eq!(world.done("audit-verify", json!({})).await["valid"], json!(true));
    let mut tx = world.store.begin().await.expect("a writer");
    tx.danger_execute(&format!("DELETE FROM audit WHERE seq = {broken}")).await.expect("deleted");
    tx.commit().await.expect("committed");
    assert_eq!(world.done("audit-verify", json!({})).await, json!({"valid": false, "broken_at": broken}));
}
