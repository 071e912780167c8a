//! Rules as callers meet them.

use serde_json::{Value, json};

use crate::world::World;

async fn rule(world: &World, role: &str, rule_type: &str, path: &str, capability: Value) {
    let body = json!({"role-name": role, "rule-type": rule_type, "path": path, "capability": capability});
    world.done("set-role-rule", body).await;
}

async fn reads(world: &World, token: &str, name: &str) -> bool {
    let (status, answer) = world.call(token, "get-secret-value", json!({"names": [name]})).await;
    assert!(matches!(status, 200 | 401), "{name}: {status} {answer}");
    status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_grant_deny_and_end_as_written() {
    let world = World::start().await;
    for name in ["/app/dev-1/x", "/app/prod/x", "/app/prod/deep/x", "/app/secret/x", "/other"] {
        world.done("create-secret", json!({"name": name, "value": "v"})).await;
    }
    let ann = world.person("/ann").await;
    world
        .role("/readers", "/ann", &[("item-rule", "app/+/x", "read"), ("item-rule", "/app/dev-*", "read,update")])
        .await;
    assert!(reads(&world, &ann.token, "/app/prod/x").await, "+ is one segment");
    assert!(!reads(&world, &ann.token, "/app/prod/deep/x").await);
    assert!(reads(&world, &ann.token, "/app/dev-1/x").await);
    assert!(!reads(&world, &ann.token, "/other").await);
    assert!(reads(&world, &ann.token, "/app/secret/x").await);
    rule(&world, "/readers", "item-rule", "/app/secret/*", json!(["deny"])).await;
    assert!(!reads(&world, &ann.token, "/app/secret/x").await, "deny wins");
    let listed = world.done_as(&ann.token, "list-items", json!({})).await;
    let names: Vec<&str> =
        listed["items"].as_array().expect("a list").iter().filter_map(|i| i["item_name"].as_str()).collect();
    assert_eq!(names, ["/app/dev-1/x", "/app/prod/x"]);
    assert_eq!(
        world.refused(&ann.token, "update-secret-val", json!({"name": "/app/prod/x", "value": "w"})).await.0,
        401
    );
    world.done_as(&ann.token, "update-secret-val", json!({"name": "/app/dev-1/x", "value": "w"})).await;

    // A rule of one type says nothing about another.
    rule(&world, "/readers", "target-rule", "/*", json!("read")).await;
    assert_eq!(world.refused(&ann.token, "target-get", json!({"name": "/t"})).await.0, 404);
    assert_eq!(world.refused(&ann.token, "get-role", json!({"name": "/readers"})).await.0, 401);
    assert!(!reads(&world, &ann.token, "/other").await);
    let may = |path: &str, kind: &str| json!({"path": path, "type": kind});
    let shown = world.done_as(&ann.token, "describe-permissions", may("app/dev-1/x", "item")).await;
    assert_eq!(shown["client_permissions"], json!(["list", "read", "update"]));
    let shown = world.done_as(&ann.token, "describe-permissions", may("/app/secret/x", "item-rule")).await;
    assert_eq!(shown["client_permissions"], json!([]));
    let shown = world.done_as(&ann.token, "describe-permissions", may("/a", "target")).await;
    assert_eq!(shown["client_permissions"], json!(["list", "read"]));

    world
        .done("set-role-rule", json!({"role-name": "/readers", "path": "/other", "capability": "read", "ttl": "2"}))
        .await;
    assert!(reads(&world, &ann.token, "/other").await);
    world.pass(125);
    assert!(!reads(&world, &ann.token, "/other").await, "its time is over");
    world.done("delete-role-rule", json!({"role-name": "/readers", "path": "app/+/x"})).await;
    assert!(!reads(&world, &ann.token, "/app/prod/x").await);
    let again = world
        .refused(&world.admin.token, "delete-role-rule", json!({"role-name": "/readers", "path": "app/+/x"}))
        .await;
    assert_eq!(again.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn associations_ask_for_their_claims() {
    let world = World::start().await;
    world.done("create-secret", json!({"name": "/x", "value": "v"})).await;
    let ann = world.person("/ann").await;
    let assoc = world.role("/readers", "/ann", &[("item-rule", "/*", "read")]).await;
    let twice =
        world.refused(&world.admin.token, "assoc-role-am", json!({"role-name": "/readers", "am-name": "/ann"})).await;
    assert_eq!(twice, (409, "already_exists".to_owned()));
    assert!(reads(&world, &ann.token, "/x").await);
    let claims = json!({"groups": "developers, admins", "team": ["b", "a"]});
    world.done("update-assoc", json!({"assoc-id": assoc, "sub-claims": claims, "case-sensitive": "false"})).await;
    assert!(!reads(&world, &ann.token, "/x").await, "an access key has no claims");
    let role = world.done("get-role", json!({"name": "/readers"})).await;
    let shown = &role["role_auth_methods_assoc"][0];
    assert_eq!(shown["auth_method_sub_claims"], json!({"groups": ["developers", "admins"], "team": ["b", "a"]}));
    assert_eq!((&shown["sub_claims_case_sensitive"], &shown["auth_method_name"]), (&json!(false), &json!("/ann")));
    assert_eq!(shown["auth_method_access_id"], json!(ann.id));
    let method = world.done("get-auth-method", json!({"name": "ann"})).await;
    assert_eq!(method["auth_method_roles_assoc"][0]["role_name"], json!("/readers"));
    assert_eq!(
        method["auth_method_roles_assoc"][0]["auth_method_sub_claims"]["groups"],
        json!(["developers", "admins"])
    );
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(ann.key.as_bytes()));
    assert!(!method.to_string().contains(&hash) && !method.to_string().contains(&ann.key));

    world.done("update-assoc", json!({"assoc-id": assoc, "sub-claims": {}})).await;
    assert!(reads(&world, &ann.token, "/x").await);
    world.done("auth-method-update-api-key", json!({"name": "/ann", "force-sub-claims": true})).await;
    assert!(!reads(&world, &ann.token, "/x").await, "an association without claims does not count");
    world.done("auth-method-update-api-key", json!({"name": "/ann", "force-sub-claims": false})).await;
    assert!(reads(&world, &ann.token, "/x").await);
    world.done("delete-assoc", json!({"assoc-id": assoc})).await;
    assert!(!reads(&world, &ann.token, "/x").await);
    for operation in ["delete-assoc", "update-assoc"] {
        assert_eq!(world.refused(&world.admin.token, operation, json!({"assoc-id": assoc})).await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_come_back_as_they_were_set() {
    let world = World::start().await;
    let made = json!({"name": "r", "description": "one", "delete_protection": "true", "audit-access": "all", "analytics-access": "own", "sra-reports-access": "none"});
    world.done("create-role", made).await;
    rule(&world, "/r", "item-rule", "terraform-tests/*", json!(["read"])).await;
    let role = world.done("get-role", json!({"name": "/r"})).await;
    let rules: Vec<(String, String)> = role["rules"]["path_rules"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|rule| (rule["type"].as_str().expect("text").to_owned(), rule["path"].as_str().expect("text").to_owned()))
        .collect();
    let wanted = [("search-rule", "/*"), ("reports-rule", "/self"), ("item-rule", "/terraform-tests/*")];
    assert_eq!(rules, wanted.map(|(kind, path)| (kind.to_owned(), path.to_owned())));
    assert_eq!(role["rules"]["path_rules"][2]["capabilities"], json!(["read"]));
    assert_eq!(
        (&role["comment"], &role["delete_protection"], &role["role_name"]),
        (&json!("one"), &json!(true), &json!("/r"))
    );
    assert_eq!(world.refused(&world.admin.token, "delete-role", json!({"name": "/r"})).await.0, 409);

    let update = json!({"name": "/r", "new-name": "/s", "description": "default_comment", "new-comment": "two", "delete_protection": "false", "audit-access": "own", "analytics-access": "none"});
    assert_eq!(world.done("update-role", update).await, json!({"updated": true}));
    assert_eq!(world.refused(&world.admin.token, "get-role", json!({"name": "/r"})).await.0, 404);
    let role = world.done("get-role", json!({"name": "/s"})).await;
    assert_eq!((&role["comment"], role["rules"]["path_rules"].as_array().map(Vec::len)), (&json!("two"), Some(2)));
    world.done("update-role", json!({"name": "/s", "description": "default_comment", "delete_protection": ""})).await;
    assert_eq!(
        world.done("get-role", json!({"name": "/s"})).await["comment"],
        json!("two"),
        "nothing said, nothing changed"
    );
    let listed = world.done("list-roles", json!({"filter": "s"})).await;
    assert_eq!((listed["roles"].as_array().map(Vec::len), &listed["next_page"]), (Some(1), &json!("")));
    world.done("delete-role", json!({"name": "/s"})).await;
    assert_eq!(world.refused(&world.admin.token, "delete-role", json!({"name": "/s"})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_his_own_audit_entries_reads_no_others() {
    let world = World::start().await;
    let ann = world.person("/ann").await;
    assert_eq!(world.refused(&ann.token, "audit-list", json!({})).await.0, 401);
    world.done("create-role", json!({"name": "/own", "audit-access": "own"})).await;
    world.done("assoc-role-am", json!({"role-name": "/own", "am-name": "/ann"})).await;
    let own = world.done_as(&ann.token, "audit-list", json!({"actor": world.admin.id})).await;
    let entries = own["entries"].as_array().expect("a list");
    assert!(!entries.is_empty() && entries.iter().all(|entry| entry["actor"] == json!(ann.id)), "{own}");
    assert_eq!(world.refused(&ann.token, "audit-verify", json!({})).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_a_target_cannot_have_its_secret_sent_elsewhere() {
    let world = World::start().await;
    let target = json!({"name": "/t/root", "host": "127.0.0.1", "port": "1", "username": "root", "password": "p"});
    world.done("target-create-ssh", target).await;
    let ann = world.person("/ann").await;
    world.role("/a", "/ann", &[("target-rule", "/t/*", "list,update,create")]).await;
    let moved = json!({"name": "/t/root", "host": "127.0.0.9"});
    let linked = json!({"name": "/t/linked", "hosts": "127.0.0.9:1", "parent-target-name": "/t/root"});
    assert_eq!(world.refused(&ann.token, "target-get-details", json!({"name": "/t/root"})).await.0, 401);
    assert_eq!(world.refused(&ann.token, "target-update-ssh", moved.clone()).await.0, 401);
    assert_eq!(world.refused(&ann.token, "target-create-linked", linked.clone()).await.0, 401);
    world
        .done_as(&ann.token, "target-update-ssh", json!({"name": "/t/root", "host": "127.0.0.1", "description": "d"}))
        .await;
    world.done("target-create-linked", linked).await;
    let more = json!({"name": "/t/linked", "add-hosts": "127.0.0.8:1"});
    assert_eq!(world.refused(&ann.token, "target-update-linked", more.clone()).await.0, 401);
    world.done_as(&ann.token, "target-update-linked", json!({"name": "/t/linked", "description": "d"})).await;
    rule(&world, "/a", "target-rule", "/t/*", json!("list,update,create,read")).await;
    world.done_as(&ann.token, "target-update-linked", more).await;
    world.done_as(&ann.token, "target-update-ssh", moved).await;
}
