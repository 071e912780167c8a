//! Two accounts: neither sees nor changes anything of the other.

use serde_json::{Value, json};

use crate::world::{Names, Person, World, body};

/// Stands in every text that belongs to the account under attack.
const MARK: &str = "only-in-b";

async fn furnish(world: &World, token: &str) -> String {
    world
        .done_as(
            token,
            "create-secret",
            json!({"name": "/b/item", "value": "only-in-b-value", "description": MARK, "tags": [MARK]}),
        )
        .await;
    let target = json!({"name": "/b/target", "hosts": "127.0.0.1:1;only-in-b", "type": "ssh", "description": MARK});
    world.done_as(token, "target-create-linked", target).await;
    world.done_as(token, "auth-method-create-api-key", json!({"name": "/b/method", "description": MARK})).await;
    world.done_as(token, "create-role", json!({"name": "/b/role", "description": MARK})).await;
    world
        .done_as(token, "set-role-rule", json!({"role-name": "/b/role", "path": "/only-in-b/*", "capability": "read"}))
        .await;
    let assoc = world.done_as(token, "assoc-role-am", json!({"role-name": "/b/role", "am-name": "/b/method"})).await;
    assoc["assoc_id"].as_str().expect("an id").to_owned()
}

async fn attack(world: &World, attacker: &Person, victim: &Person, assoc: &str) {
    let before = world.picture(&victim.token).await;
    let account = before["get-account-settings"]["account_id"].as_str().expect("an id").to_owned();
    let method =
        before["auth-method-list"]["auth_methods"][1]["auth_method_access_id"].as_str().expect("an id").to_owned();
    let log = world.done_as(&victim.token, "audit-list", json!({"limit": 1})).await["entries"][0]["seq"]
        .as_i64()
        .expect("a number");
    let names = Names { item: "/b/item", target: "/b/target", role: "/b/role", method: "/b/method", assoc };
    let mut ops: Vec<_> = world.app.operations.iter().filter(|op| !op.name.starts_with("revoke-")).collect();
    // First everything while the attacker has no such names himself, then once more when creations have given him some.
    ops.extend(ops.clone());
    for op in ops {
        let mut full = body(op, &names);
        for (name, value) in [
            ("item-id", json!(1)),
            ("show-versions", json!(true)),
            ("actor", json!(victim.id)),
            ("path", json!("/b/*")),
        ] {
            if op.params.get("properties").and_then(|p| p.get(name)).is_some() && full.get(name).is_none() {
                full[name] = value;
            }
        }
        let (status, answer) = world.call(&attacker.token, &op.name, full).await;
        let text = answer.to_string();
        for secret in [MARK, &account, &victim.id, &method] {
            let echoed = op.name == "audit-list" && secret == victim.id;
            assert!(echoed || !text.contains(secret), "{} gives away {secret}: {status} {text}", op.name);
        }
        if op.name.ends_with("-assoc") {
            assert_eq!(status, 404, "{}: {answer}", op.name);
        }
    }
    for (secret, token) in [(&victim.key, false), (&victim.token, true)] {
        let text = world.done_as(&attacker.token, "audit-list", json!({"limit": 1000})).await.to_string();
        assert!(!text.contains(secret.as_str()), "the log holds no key and no token ({token})");
    }
    assert_eq!(world.picture(&victim.token).await, before, "nothing of the victim has changed");
    let entries = world.done_as(&victim.token, "audit-list", json!({"limit": 1000})).await["entries"].clone();
    let new: Vec<&Value> =
        entries.as_array().expect("a list").iter().filter(|e| e["seq"].as_i64() > Some(log)).collect();
    assert!(new.iter().all(|entry| entry["actor"] == json!(victim.id)), "no trace of the attacker in the victim's log");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_reaches_another_account() {
    let world = World::start().await;
    let (one, two) = (world.tenant("one").await, world.tenant("two").await);
    let assoc = furnish(&world, &two.token).await;
    attack(&world, &one, &two, &assoc).await;
    attack(&world, &world.admin, &two, &assoc).await;
    let value = world.done_as(&two.token, "get-secret-value", json!({"names": "/b/item"})).await;
    assert_eq!(value, json!({"/b/item": "only-in-b-value"}));
    let refused = world.refused(&one.token, "account-create", json!({"name": "three"})).await;
    assert_eq!(refused.0, 401, "only the operator makes accounts");
}
