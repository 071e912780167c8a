//! Targets that are reached through another one: what is kept, shown and refused. Nothing here is called.

use serde_json::{Value, json};

use crate::world::World;

/// Calls an operation, which must be refused; gives status and the whole answer as text.
async fn refusal(world: &World, token: &str, operation: &str, body: Value) -> (u16, String) {
    let (status, answer) = world.call(token, operation, body.clone()).await;
    assert!(status >= 400, "{operation} {body}: {status} {answer}");
    (status, answer.to_string())
}

fn directory(name: &str) -> Value {
    json!({"name": name, "ldap-url": "ldaps://dc1.corp.test", "bind-dn": "rot@corp.test", "bind-dn-password": "Of-The-Parent-1"})
}

fn host(name: &str, parent: &str) -> Value {
    json!({"name": name, "hostname": "host1.corp.test", "connection-type": "parent-target", "parent-target-name": parent,
        "username": "dummy_value", "password": "dummy_value"})
}

async fn details(world: &World, name: &str) -> Value {
    world.done("target-get-details", json!({ "name": name })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_parent_has_no_credential_of_its_own_and_follows_it_under_every_name() {
    let world = World::start().await;
    world.done("target-create-ldap", directory("/dir/corp")).await;
    world.done("create-windows-target", host("/win/h1", "/dir/corp")).await;
    let shown = details(&world, "/win/h1").await;
    assert_eq!(shown["target"]["parent_target_name"], "/dir/corp");
    let block = &shown["value"]["windows_target_details"];
    assert_eq!((&block["connection_type"], &block["hostname"]), (&json!("parent-target"), &json!("host1.corp.test")));
    assert!(block["username"].is_null() && block["password"].is_null(), "{block}");
    assert!(!shown.to_string().contains("dummy_value") && !shown.to_string().contains("Of-The-Parent-1"));

    let secret = json!({"name": "/win/app1", "target-name": "/win/h1", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "services": "spool", "skip-dry-run": true});
    world.done("rotated-secret-create-windows", secret).await;
    world.done("target-update-ldap", json!({"name": "/dir/corp", "new-name": "/moved/corp"})).await;
    let item = world.done("describe-item", json!({"name": "/win/app1"})).await;
    assert_eq!(item["item_targets_assoc"][0]["parent_target_name"], "/moved/corp", "{item}");
    let listed = world.done("target-list", json!({"type": ["windows"]})).await;
    assert_eq!(listed["targets"][0]["parent_target_name"], "/moved/corp", "{listed}");
    let own = json!({"name": "/win/own", "target-name": "/win/h1", "rotator-type": "target", "skip-dry-run": true});
    let (status, said) = refusal(&world, &world.admin.token, "rotated-secret-create-windows", own).await;
    assert!(status == 400 || status == 422, "{status}");
    assert!(said.contains("on the parent"), "{said}");

    // What a client sends by itself changes nothing; what a person says does.
    let said =
        json!({"name": "/win/h1", "hostname": "host2.corp.test", "username": "dummy_value", "password": "dummy_value"});
    world.done("target-update-windows", said).await;
    let block = details(&world, "/win/h1").await["value"]["windows_target_details"].clone();
    assert_eq!((&block["hostname"], &block["username"]), (&json!("host2.corp.test"), &Value::Null));
    let own = json!({"name": "/win/h1", "connection-type": "credentials", "username": "Administrator", "password": "Own-Passw0rd-1"});
    world.done("target-update-windows", own).await;
    let shown = details(&world, "/win/h1").await;
    assert_eq!(shown["value"]["windows_target_details"]["password"], "Own-Passw0rd-1");
    assert!(shown["target"]["parent_target_name"].is_null(), "{shown}");
    let back = json!({"name": "/win/h1", "connection-type": "parent-target", "parent-target-name": "/moved/corp"});
    world.done("target-update-windows", back).await;
    let shown = details(&world, "/win/h1").await;
    assert_eq!(shown["target"]["parent_target_name"], "/moved/corp");
    assert!(!shown.to_string().contains("Administrator") && !shown.to_string().contains("Own-Passw0rd-1"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_acts_as_itself_sends_the_targets_account_nowhere() {
    let world = World::start().await;
    let admin = world.admin.token.clone();
    let target = json!({"name": "/win/h1", "hostname": "host1.corp.test", "username": "Administrator", "password": "Own-Passw0rd-1"});
    world.done("target-create-windows", target).await;
    let mut secret = json!({"name": "/win/app1", "target-name": "/win/h1", "rotator-type": "password", "rotated-username": "app1",
        "rotated-password": "Init-Passw0rd!1", "authentication-credentials": "use-user-creds", "services": "x@elsewhere:5985",
        "skip-dry-run": true});
    let (status, said) = refusal(&world, &admin, "rotated-secret-create-windows", secret.clone()).await;
    assert!((400..500).contains(&status) && said.contains("use-target-creds"), "{status} {said}");
    secret["services"] = json!("");
    world.done("rotated-secret-create-windows", secret).await;
    let later = json!({"name": "/win/app1", "services": "x@elsewhere:5985", "skip-dry-run": true});
    let (status, said) = refusal(&world, &admin, "rotated-secret-update-windows", later).await;
    assert!((400..500).contains(&status) && said.contains("use-target-creds"), "{status} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_parent_is_refused_in_a_sentence() {
    let world = World::start().await;
    let admin = world.admin.token.clone();
    world.done("target-create-ldap", directory("/dir/corp")).await;
    world.done("target-create-web", json!({"name": "/dir/web", "url": "https://x.example/rotate"})).await;
    world.done("target-create-windows", host("/win/h1", "/dir/corp")).await;
    let controller = json!({"name": "/win/dc", "hostname": "dc1.corp.test", "port": "636", "username": "rot", "domain": "corp.test",
        "password": "Of-The-Parent-1"});
    world.done("target-create-windows", controller).await;
    world.done("target-create-windows", host("/win/h2", "/win/dc")).await;
    let plain = json!({"name": "/win/h3", "hostname": "h3", "username": "Administrator", "password": "x"});
    world.done("target-create-windows", plain).await;

    let (status, said) = refusal(&world, &admin, "target-create-windows", host("/win/x", "/dir/none")).await;
    assert_eq!(status, 404, "{said}");
    for (parent, why) in [
        ("/dir/web", "ldap or windows"),
        ("/win/h1", "has a parent itself"),
        ("/win/h3", "no directory"),
        ("", "is required"),
    ] {
        let (status, said) = refusal(&world, &admin, "target-create-windows", host("/win/x", parent)).await;
        assert!(status < 404 || status == 422, "{parent}: {status} {said}");
        assert!(said.contains(why), "{parent}: {said}");
    }
    let linked = json!({"name": "/win/l", "parent-target-name": "/win/h1", "hosts": "h4"});
    let (_, said) = refusal(&world, &admin, "target-create-linked", linked).await;
    assert!(said.contains("has a parent itself"), "{said}");
    let mut both = host("/win/x", "/dir/corp");
    both["username"] = json!("Administrator");
    let (_, said) = refusal(&world, &admin, "target-create-windows", both).await;
    assert!(said.contains("username") && said.contains("of the parent"), "{said}");
    let alone = json!({"name": "/win/x", "hostname": "h", "parent-target-name": "/dir/corp"});
    let (_, said) = refusal(&world, &admin, "target-create-windows", alone).await;
    assert!(said.contains("goes with connection-type parent-target"), "{said}");

    // A ring of one, a ring of two, and a parent below another one.
    for parent in ["/win/dc", "/win/h2", "/dir/corp"] {
        let body = json!({"name": "/win/dc", "connection-type": "parent-target", "parent-target-name": parent});
        let (status, said) = refusal(&world, &admin, "target-update-windows", body).await;
        assert_eq!(status, 400, "{parent}: {said}");
    }
    let (_, said) = refusal(&world, &admin, "target-update-windows", json!({"name": "/win/dc", "port": "5986"})).await;
    assert!(said.contains("/win/h2") && said.contains("no directory"), "{said}");

    let (status, said) = refusal(&world, &admin, "target-delete", json!({"name": "/dir/corp"})).await;
    assert!(status == 409 && said.contains("/win/h1"), "{status} {said}");
    world.done("target-delete", json!({"name": "/win/h1"})).await;
    world.done("target-delete", json!({"name": "/dir/corp"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_a_parent_cannot_choose_where_it_is_used() {
    let world = World::start().await;
    world.done("target-create-ldap", directory("/dir/corp")).await;
    world.done("target-create-windows", host("/win/h1", "/dir/corp")).await;
    let ann = world.person("/ann").await;
    let all = "create,read,update,delete,list";
    let rules =
        [("target-rule", "/ann/*", all), ("item-rule", "/ann/*", all), ("target-rule", "/dir/*", "list,delete")];
    world.role("/anns", "/ann", &rules).await;
    let (status, _) = refusal(&world, &ann.token, "target-create-windows", host("/ann/h", "/dir/corp")).await;
    assert_eq!(status, 401);
    let (status, said) = refusal(&world, &ann.token, "target-delete", json!({"name": "/dir/corp"})).await;
    assert!(status == 409 && said.contains("another target") && !said.contains("/win/h1"), "{said}");
    let rule = |capability: &str| json!({"role-name": "/anns", "rule-type": "target-rule", "path": "/dir/*", "capability": capability});
    world.done("set-role-rule", rule("list,read")).await;
    world.done_as(&ann.token, "target-create-windows", host("/ann/h", "/dir/corp")).await;
    world.done("set-role-rule", rule("list")).await;
    let secret = json!({"name": "/ann/app1", "target-name": "/ann/h", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "skip-dry-run": true});
    let (status, _) = refusal(&world, &ann.token, "rotated-secret-create-windows", secret.clone()).await;
    assert_eq!(status, 401, "the parent's account would work for her");
    let elsewhere = json!({"name": "/ann/h", "hostname": "evil.example"});
    let (status, _) = refusal(&world, &ann.token, "target-update-windows", elsewhere).await;
    assert_eq!(status, 401);
    world.done_as(&ann.token, "target-update-windows", json!({"name": "/ann/h", "description": "mine"})).await;
    world.done("set-role-rule", rule("list,read")).await;
    world.done_as(&ann.token, "rotated-secret-create-windows", secret).await;
}
