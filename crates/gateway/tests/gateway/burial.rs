//! What is deleted stays deleted, whoever has a backup of the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use volvelle_domain::ItemPath;
use volvelle_gateway::burial;
use volvelle_store::versions::Slot;
use volvelle_store::{accounts, items, versions};

use crate::world::World;

/// Waits until nothing is left to bury; gives how many each holder has buried.
async fn buried(world: &World) -> Vec<i64> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let status = world.done("fragments-status", json!({})).await;
        if status["tombstones_pending"] == json!(0) {
            let holders = status["holders"].as_array().expect("a list").iter();
            return holders.map(|holder| holder["tombstones"].as_i64().expect("a number")).collect();
        }
        assert!(Instant::now() < until, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_put_back_from_a_backup_does_not_open_and_a_new_one_does() {
    let world = World::start().await;
    let stop = CancellationToken::new();
    tokio::spawn(burial::follow(Arc::clone(&world.app), stop.clone()));
    let _stop = stop.drop_guard();
    world.done("create-secret", json!({"name": "/s/one", "value": "deleted"})).await;
    world.done("create-secret", json!({"name": "/s/two", "value": "kept"})).await;
    let path = ItemPath::parse("/s/one").expect("a path");
    let mut tx = world.store.read().await.expect("a reader");
    let account = accounts::list(&mut tx).await.expect("accounts").remove(0).id;
    let backup = items::find(&mut tx, &account, &path).await.expect("asks").expect("there");
    let record = versions::list_item(&mut tx, &account, backup.id).await.expect("asks").remove(0);
    drop(tx);
    world.done("delete-item", json!({"name": "/s/one"})).await;
    assert_eq!(buried(&world).await, [1, 1, 1]);

    let mut tx = world.store.begin().await.expect("a writer");
    let item = items::add(&mut tx, &backup).await.expect("put back");
    versions::add(&mut tx, &Slot { account, item, host: String::new() }, &record).await.expect("put back");
    tx.commit().await.expect("committed");
    let (status, answer) = world.call(&world.admin.token, "get-secret-value", json!({"names": "/s/one"})).await;
    assert_eq!((status, &answer["code"]), (403, &json!("holders_refuse")), "{answer}");
    assert!(answer["error"].as_str().expect("text").contains("this version was deleted"), "{answer}");
    let kept = world.done("get-secret-value", json!({"names": "/s/two"})).await;
    assert_eq!(kept["/s/two"], json!("kept"));

    // It can be deleted again, and its name is free for another one.
    world.done("delete-item", json!({"name": "/s/one"})).await;
    world.done("create-secret", json!({"name": "/s/one", "value": "new"})).await;
    assert_eq!(buried(&world).await, [1, 1, 1], "the same version is buried once");
    assert_eq!(world.done("get-secret-value", json!({"names": "/s/one"})).await["/s/one"], json!("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_targets_are_buried_and_what_leaves_the_history_is_not() {
    let world = World::start().await;
    let stop = CancellationToken::new();
    tokio::spawn(burial::follow(Arc::clone(&world.app), stop.clone()));
    let _stop = stop.drop_guard();
    world.done("create-secret", json!({"name": "/s", "value": "1", "max-versions": 3})).await;
    for n in 2..=6 {
        world.done("update-secret-val", json!({"name": "/s", "value": n.to_string()})).await;
    }
    assert_eq!(buried(&world).await, [0, 0, 0], "three left the history");
    world.done("delete-item", json!({"name": "/s", "version": 5})).await;
    assert_eq!(buried(&world).await, [1, 1, 1]);
    assert_eq!(world.done("get-secret-value", json!({"names": "/s"})).await["/s"], json!("6"));
    let older: Value = world.done("get-secret-value", json!({"names": "/s", "version": 4})).await;
    assert_eq!(older["/s"], json!("4"));
    world.done("target-create-web", json!({"name": "/t", "url": "http://127.0.0.1:9"})).await;
    world.done("target-delete", json!({"name": "/t"})).await;
    assert_eq!(buried(&world).await, [2, 2, 2]);
    world.done("delete-items", json!({"item": ["/s"]})).await;
    assert_eq!(buried(&world).await, [4, 4, 4], "the two versions that were left");
}
