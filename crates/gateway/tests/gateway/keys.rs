//! Protection keys and the customer's fragment, at gateways that have it, lack it, or have another one.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use volvelle_holder::{CustomerFragments, customer};
use volvelle_testkit::hook::Hook;

use crate::world::World;

/// A new fragment and its id; with `id` it gets that one.
fn fragment(id: Option<&str>) -> (CustomerFragments, String) {
    let text = customer::fresh("mine", "for tests").expect("made");
    let mut file: Value = serde_json::from_str(&text).expect("JSON");
    if let Some(id) = id {
        file["customer_fragments"][0]["id"] = Value::from(id);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("customer_fragments.json");
    std::fs::write(&path, file.to_string()).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    let id = file["customer_fragments"][0]["id"].as_str().expect("an id").to_owned();
    (CustomerFragments::read(&path).expect("read"), id)
}

async fn value(world: &World, name: &str) -> Value {
    world.done("get-secret-value", json!({"names": [name]})).await[name].clone()
}

/// Every sealed record of the database.
async fn records(world: &World) -> Vec<Vec<u8>> {
    let mut tx = world.store.read().await.expect("a reader");
    let account = volvelle_store::accounts::list(&mut tx).await.expect("accounts").remove(0).id;
    let mut out = Vec::new();
    for item in volvelle_store::items::list(&mut tx, &account, "", 100).await.expect("items") {
        let kept = volvelle_store::versions::list_item(&mut tx, &account, item.id).await.expect("versions");
        out.extend(kept.into_iter().map(|version| version.sealed));
    }
    for target in volvelle_store::targets::list(&mut tx, &account, "", 100).await.expect("targets") {
        let kept = volvelle_store::targets::list_versions(&mut tx, &account, target.id).await.expect("versions");
        out.extend(kept.into_iter().map(|version| version.sealed));
    }
    out
}

fn with_customer(record: &[u8]) -> bool {
    volvelle_fragments::Record::parse(record).expect("a record").with_customer()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_chosen_shown_and_not_deleted_while_it_is_needed() {
    let world = World::start().await;
    let admin = &world.admin.token;
    let made =
        world.done("create-dfc-key", json!({"name": "k/one", "alg": "AES256GCM", "tag": ["a"], "metadata": "m"})).await;
    assert_eq!(made["fragment_results"], json!([200, 200, 200]));
    let again = world.refused(admin, "create-dfc-key", json!({"name": "/k/one", "alg": "AES256GCM"})).await;
    assert_eq!(again, (409, "already_exists".to_owned()));
    for alg in ["RSA2048", "AES256SIV", "", "aes"] {
        assert_eq!(world.refused(admin, "create-dfc-key", json!({"name": "/k/x", "alg": alg})).await.0, 400, "{alg}");
    }
    let unknown = json!({"name": "/k/x", "alg": "AES256GCM", "customer-frg-id": "cf-none"});
    assert_eq!(world.refused(admin, "create-dfc-key", unknown).await, (400, "bad_parameter".to_owned()));
    let key = world.done("describe-item", json!({"name": "/k/one"})).await;
    assert_eq!((&key["item_type"], &key["item_tags"]), (&json!("AES256GCM"), &json!(["a"])));
    assert_eq!((&key["item_metadata"], &key["with_customer_fragment"]), (&json!("m"), &json!(false)));
    let listed = world.done("list-items", json!({"type": ["key"]})).await;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    let searched = world.done("item-search", json!({"type": ["key"]})).await;
    assert_eq!(searched["items"][0]["item_type"], json!("AES256GCM"), "{searched}");

    world.done("create-secret", json!({"name": "/s", "value": "v", "protection_key": "/k/one"})).await;
    let target = json!({"name": "/t", "hosts": "127.0.0.1:1", "type": "ssh", "key": "k/one"});
    world.done("target-create-linked", target).await;
    let shown = world.done("describe-item", json!({"name": "/s", "show-versions": true})).await;
    assert_eq!(shown["protection_key_name"], json!("/k/one"));
    assert_eq!(shown["item_versions"][0]["protection_key_name"], json!("/k/one"));
    let shown = world.done("target-get", json!({"name": "/t"})).await;
    assert_eq!((&shown["protection_key_name"], &shown["with_customer_fragment"]), (&json!("/k/one"), &json!(false)));
    world.done("update-item", json!({"name": "/k/one", "new-name": "/k/two"})).await;
    let listed = world.done("list-items", json!({"filter": "/s"})).await;
    assert_eq!(listed["items"][0]["protection_key_name"], json!("/k/two"), "a renamed key is the same key");
    for (operation, body) in [
        ("delete-item", json!({"name": "/k/two"})),
        ("create-secret", json!({"name": "/s2", "value": "v", "protection_key": "/s"})),
        ("set-item-state", json!({"name": "/k/two", "desired-state": "Disabled"})),
        ("get-secret-value", json!({"names": ["/k/two"]})),
        ("update-secret-val", json!({"name": "/k/two", "value": "v"})),
    ] {
        let status = world.refused(admin, operation, body).await.0;
        assert!([400, 409].contains(&status), "{operation}: {status}");
    }
    let missing = json!({"name": "/s2", "value": "v", "protection_key": "/k/absent"});
    assert_eq!(world.refused(admin, "create-secret", missing).await.0, 404);
    // Whoever may not read the key does not use it, and one that is kept needs no right.
    let ann = world.person("/ann").await;
    world.role("/a", "/ann", &[("item-rule", "/s*", "read,update,list,create")]).await;
    let body = json!({"name": "/s3", "value": "v", "protection_key": "/k/two"});
    assert_eq!(world.refused(&ann.token, "create-secret", body).await.0, 401);
    world.done_as(&ann.token, "update-secret-val", json!({"name": "/s", "value": "w", "key": "/k/two"})).await;
    let gone = world.done("delete-items", json!({"path": "/k/"})).await;
    assert_eq!(gone["deleted_items"], json!([]), "{gone}");
    world.done("update-item", json!({"name": "/s", "protection_key": "Default"})).await;
    assert!(world.done("describe-item", json!({"name": "/s"})).await["protection_key_name"].is_null());
    assert_eq!(value(&world, "/s").await, json!("w"));
    world.done("target-update-linked", json!({"name": "/t", "key": "Default"})).await;
    world.done("delete-item", json!({"name": "/k/two"})).await;
    assert_eq!(world.refused(admin, "describe-item", json!({"name": "/k/two"})).await.0, 404);
}

/// A world whose key `/k` has a fragment, with a static secret, a target and a rotated secret sealed with it.
async fn sealed_world() -> (World, String, Hook) {
    let (fragments, id) = fragment(None);
    let world = World::start_with(fragments).await;
    let hook = Hook::start("first").await.expect("a hook");
    world.done("create-dfc-key", json!({"name": "/k", "alg": "AES256GCM", "customer-frg-id": id})).await;
    world.done("create-secret", json!({"name": "/s", "value": "v1", "protection_key": "/k", "max-versions": 5})).await;
    world.done("update-secret-val", json!({"name": "/s", "value": "v2"})).await;
    world.done("target-create-web", json!({"name": "/t", "url": hook.url(), "key": "/k"})).await;
    let secret = json!({"name": "/r", "target-name": "/t", "custom-payload": "first", "key": "/k",
        "auto-rotate": "true", "rotation-interval": "90"});
    world.done("rotated-secret-create-custom", secret).await;
    (world, id, hook)
}

fn running(world: &World) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let (engine, stop) = (world.app.engine.clone(), CancellationToken::new());
    let ended = stop.clone();
    (stop, tokio::spawn(async move { engine.run(ended).await }))
}

async fn health(world: &World) -> Value {
    let text = reqwest::get(format!("http://{}/health", world.address)).await.expect("an answer");
    text.json().await.expect("JSON")
}

async fn rotations(world: &World) -> usize {
    let history = world.done("rotation-list", json!({"name": "/r"})).await;
    history["rotations"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_holders_and_the_whole_database_open_nothing_without_the_customers_fragment() {
    let (mut world, id, hook) = sealed_world().await;
    world.pass(7_000);
    world.renew_admin().await;
    world.done("create-secret", json!({"name": "/open", "value": "o"})).await;
    assert_eq!(value(&world, "/s").await, json!("v2"));
    for (operation, name) in
        [("describe-item", "/s"), ("describe-item", "/r"), ("target-get", "/t"), ("describe-item", "/k")]
    {
        let shown = world.done(operation, json!({"name": name, "show-versions": true})).await;
        assert_eq!(
            (&shown["with_customer_fragment"], &shown["customer_fragment_id"], &shown["customer_fragment_state"]),
            (&json!(true), &json!(id), &json!("present")),
            "{name}"
        );
        let versions = if operation == "target-get" { &shown["target_versions"] } else { &shown["item_versions"] };
        for version in versions.as_array().into_iter().flatten() {
            assert_eq!(version["customer_fragment_id"], json!(id), "{version}");
        }
    }
    assert_eq!(health(&world).await["customer_fragments"], json!("present"));
    let known = world.done("gateway-list-customer-fragments", json!({})).await;
    let one = &known["customer_fragments"][0];
    assert_eq!((&one["id"], &one["name"], &one["protection_keys"]), (&json!(id), &json!("mine"), &json!(["/k"])));
    assert!(one["value"].is_null(), "{one}");

    let before = records(&world).await;
    let (wrong, _) = fragment(Some(&id));
    let strangers = [
        (world.beside(CustomerFragments::default()).await, "missing"),
        (world.beside(fragment(None).0).await, "missing"),
        (world.beside(wrong).await, "wrong"),
    ];
    for (gateway, state) in &strangers {
        // Every holder answers this gateway, and it has the whole database.
        assert_eq!(value(gateway, "/open").await, json!("o"));
        let code = format!("customer_fragment_{state}");
        let token = &gateway.admin.token;
        for (operation, body) in [
            ("get-secret-value", json!({"names": ["/s"]})),
            ("get-secret-value", json!({"names": ["/s"], "version": 1})),
            ("rotated-secret-get-value", json!({"name": "/r"})),
            ("target-get-details", json!({"name": "/t"})),
            ("update-secret-val", json!({"name": "/s", "value": "x"})),
            ("rollback-secret", json!({"name": "/s", "old-version": 1})),
            ("update-item", json!({"name": "/s", "new-name": "/s2"})),
            ("update-item", json!({"name": "/s", "protection_key": "Default"})),
            ("update-item", json!({"name": "/open", "protection_key": "/k"})),
            ("create-secret", json!({"name": "/new", "value": "x", "protection_key": "/k"})),
            ("target-update-web", json!({"name": "/t", "url": "http://127.0.0.1:1/"})),
            ("gateway-rotate-secret", json!({"name": "/r"})),
            ("rotated-secret-verify", json!({"name": "/r"})),
            ("rotated-secret-repair", json!({"name": "/r"})),
        ] {
            assert_eq!(gateway.refused(token, operation, body).await, (503, code.clone()), "{operation}");
        }
        let shown = gateway.done("describe-item", json!({"name": "/r"})).await;
        assert_eq!(shown["customer_fragment_state"], json!(state));
        assert_eq!(health(gateway).await["customer_fragments"], json!(state));
        let overview = gateway.done("account-overview", json!({})).await;
        assert_eq!(
            overview["absent_customer_fragments"],
            json!([{"id": id, "state": state, "protection_keys": ["/k"]}])
        );
        // It is due, and this gateway neither plans nor claims it, however often it looks.
        let (stop, ended) = running(gateway);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        stop.cancel();
        ended.await.expect("the engine ends");
        assert_eq!((rotations(&world).await, hook.known().changes), (0, 0));
    }
    assert_eq!(records(&world).await, before, "nothing was written");

    // The gateway with the fragment does all of it, and what waits meanwhile is left alone by the others.
    let (stop, ended) = running(&strangers[0].0);
    let (own_stop, own_ended) = running(&world);
    for _ in 0..200 {
        if hook.known().changes == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.done("gateway-rotate-secret", json!({"name": "/r"})).await;
    let read = world.done("rotated-secret-get-value", json!({"name": "/r"})).await;
    assert_eq!(read["value"]["payload"].as_str(), Some(hook.known().payload.as_str()));
    assert!(
        hook.known().changes >= 1 && records(&world).await.iter().filter(|record| with_customer(record)).count() >= 5
    );
    stop.cancel();
    own_stop.cancel();
    ended.await.expect("the engine ends");
    own_ended.await.expect("the engine ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_seals_every_version_anew() {
    let (world, id, hook) = sealed_world().await;
    world.done("create-dfc-key", json!({"name": "/plain", "alg": "AES256GCM"})).await;
    assert!(records(&world).await.iter().all(|record| with_customer(record)));
    assert_eq!(value(&world, "/s").await, json!("v2"), "its key is cached now");
    for key in ["/plain", "/k", "Default"] {
        world.done("update-item", json!({"name": "/s", "protection_key": key})).await;
        world.done("rotated-secret-update-custom", json!({"name": "/r", "key": key, "skip-dry-run": true})).await;
        world.done("target-update-web", json!({"name": "/t", "key": key})).await;
        let sealed = records(&world).await;
        assert_eq!(sealed.len(), 4);
        assert!(sealed.iter().all(|record| with_customer(record) == (key == "/k")), "{key}");
        assert_eq!(value(&world, "/s").await, json!("v2"));
        let first = world.done("get-secret-value", json!({"names": ["/s"], "version": 1})).await;
        assert_eq!(first["/s"], json!("v1"));
        let read = world.done("rotated-secret-get-value", json!({"name": "/r"})).await;
        assert_eq!(read["value"]["payload"], json!("first"));
        let details = world.done("target-get-details", json!({"name": "/t"})).await;
        assert_eq!(details["target"]["with_customer_fragment"], json!(key == "/k"));
        assert!(details.to_string().contains(&hook.url()));
        // A new name keeps the key.
        world.done("update-item", json!({"name": "/s", "new-name": "/s2"})).await;
        assert_eq!(value(&world, "/s2").await, json!("v2"));
        world.done("update-item", json!({"name": "/s2", "new-name": "/s"})).await;
    }
    world.done("update-secret-val", json!({"name": "/s", "value": "v3", "key": "/k", "keep-prev-version": true})).await;
    let shown = world.done("describe-item", json!({"name": "/s"})).await;
    assert_eq!((&shown["customer_fragment_id"], &shown["last_version"]), (&json!(id), &json!(3)));
    assert_eq!(value(&world, "/s").await, json!("v3"));
    let open = world.done("delete-item", json!({"name": "/plain"})).await;
    assert_eq!(open["item_name"], json!("/plain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_the_database_cannot_have_the_next_value_sealed_without_the_fragment() {
    let (world, _, hook) = sealed_world().await;
    let mut tx = world.store.begin().await.expect("a writer");
    for table in ["items", "targets"] {
        let sql = format!(
            "UPDATE {table} SET protection_key = NULL, customer_check = NULL, \
             settings = json_remove(settings, '$.protection') WHERE name IN ('/s', '/r', '/t')"
        );
        tx.danger_execute(&sql).await.expect("changed");
    }
    tx.commit().await.expect("committed");
    let (stop, ended) = running(&world);
    for (operation, body) in [
        ("get-secret-value", json!({"names": ["/s"]})),
        ("rotated-secret-get-value", json!({"name": "/r"})),
        ("target-get-details", json!({"name": "/t"})),
    ] {
        assert_eq!(world.refused(&world.admin.token, operation, body).await.0, 503, "{operation}");
    }
    let body = json!({"name": "/r"});
    let asked =
        tokio::time::timeout(Duration::from_secs(3), world.call(&world.admin.token, "gateway-rotate-secret", body));
    assert!(asked.await.is_err(), "it waits for somebody to look");
    assert_eq!(hook.known().changes, 0);
    assert!(records(&world).await.iter().all(|record| with_customer(record)));
    stop.cancel();
    ended.await.expect("the engine ends");
}
