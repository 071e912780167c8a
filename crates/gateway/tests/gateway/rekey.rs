//! Another key for every account: who may have it made, what he is told, and that nothing else notices.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// A change of keys that is begun, with somebody who works on it; how many accounts there are in it.
async fn begun(world: &World) -> Value {
    let rekeyer = world.app.rekeyer.clone();
    tokio::spawn(async move { rekeyer.run(CancellationToken::new()).await });
    let answer = world.done("fragments-rekey", json!({})).await;
    assert_eq!(answer["failed"], json!({}));
    answer["begun"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_administrator_changes_no_keys() {
    let world = World::start().await;
    let made = world.done("account-create", json!({"name": "tenant"})).await;
    let word = |name: &str| made[name].as_str().expect("a word").to_owned();
    let token = world.token(&word("access_id"), &word("access_key")).await;
    for body in [json!({}), json!({"status": true}), json!({"retire": true})] {
        assert_eq!(world.refused(&token, "fragments-rekey", body).await.0, 401);
    }
    // The operator's change is every account's.
    assert_eq!(begun(&world).await, 2);
    let shown = world.done("fragments-rekey", json!({"status": true})).await;
    assert_eq!(shown["rekeys"].as_array().map(Vec::len), Some(2));
    for key in shown["rekeys"].as_array().into_iter().flatten() {
        assert_eq!((&key["old_key"], &key["new_key"], &key["threshold"]), (&json!(1), &json!(2), &json!(2)));
        assert_eq!(key["suite"], "ristretto255", "it keeps its suite when nobody says");
        assert_ne!(key["stage"], "generate", "{key}");
    }
    let secret = json!({"name": "/a", "value": "v"});
    assert_eq!(world.call(&token, "create-secret", secret).await.0, 200);
    assert_eq!(world.call(&token, "get-secret-value", json!({"names": ["/a"]})).await.1["/a"], "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_make_no_sense_are_refused_and_the_rate_may_change_at_any_time() {
    let world = World::start().await;
    let admin = &world.admin.token;
    for body in [
        json!({"rate": 100_001}),
        json!({"rate": -1}),
        json!({"status": true, "retire": true}),
        json!({"suite": "p384"}),
        json!({"suite": "p256", "status": true}),
    ] {
        assert_eq!(world.refused(admin, "fragments-rekey", body).await.0, 400);
    }
    assert_eq!(world.done("fragments-rekey", json!({"status": true})).await["rekeys"], json!([]));
    assert_eq!(begun(&world).await, 1);
    world.done("fragments-rekey", json!({"status": true, "rate": 7})).await;
    let shown = world.done("fragments-status", json!({})).await["rekeys"][0].clone();
    assert_eq!(
        (&shown["rate"], &shown["old_key_at_holders"]),
        (&json!(7), &json!({"1": "in use", "2": "in use", "3": "in use"}))
    );
}
