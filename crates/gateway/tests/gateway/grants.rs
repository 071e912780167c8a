//! Nobody grants more than he has, and an account keeps an administrator.

use serde_json::{Value, json};

use crate::world::{Person, World};

/// Somebody who runs one team's roles and identities.
async fn leader(world: &World) -> Person {
    let all = "create,read,update,delete,list";
    let lead = world.person("/lead").await;
    let rules = [
        ("role-rule", "/team/*", all),
        ("auth-method-rule", "/team/*", all),
        ("item-rule", "/team/*", "read,list"),
        ("item-rule", "/team/hidden/*", "deny"),
    ];
    world.role("/leads", "/lead", &rules).await;
    lead
}

fn rule(role: &str, path: &str, capability: &str) -> Value {
    json!({"role-name": role, "path": path, "capability": capability})
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_grants_more_than_he_has() {
    let world = World::start().await;
    let lead = leader(&world).await;
    let lead = &lead.token;
    world.done_as(lead, "create-role", json!({"name": "/team/r"})).await;
    let made = world.done_as(lead, "auth-method-create-api-key", json!({"name": "/team/bob"})).await;
    world.done_as(lead, "set-role-rule", rule("/team/r", "/team/shared/*", "read")).await;
    world.done_as(lead, "assoc-role-am", json!({"role-name": "/team/r", "am-name": "/team/bob"})).await;
    for refused in [
        rule("/team/r", "/team/shared/*", "read,update"),
        rule("/team/r", "/other/*", "read"),
        rule("/team/r", "/*", "read"),
        rule("/team/r", "/team/hidden/x", "read"),
        rule("/team/r", "/team/*", "read"),
        rule("/leads", "/team/x", "read"),
        json!({"role-name": "/team/r", "path": "/team/*", "capability": "read", "rule-type": "target-rule"}),
    ] {
        assert_eq!(world.refused(lead, "set-role-rule", refused.clone()).await.0, 401, "{refused}");
    }
    for access in ["audit-access", "analytics-access"] {
        assert_eq!(world.refused(lead, "update-role", json!({"name": "/team/r", access: "all"})).await.0, 401);
        assert_eq!(world.refused(lead, "create-role", json!({"name": "/team/s", access: "own"})).await.0, 401);
    }
    assert_eq!(world.refused(lead, "update-role", json!({"name": "/team/r", "new-name": "/admins/r"})).await.0, 401);
    assert_eq!(
        world.refused(lead, "assoc-role-am", json!({"role-name": "/admin", "am-name": "/team/bob"})).await.0,
        401
    );
    assert_eq!(world.refused(lead, "assoc-role-am", json!({"role-name": "/team/r", "am-name": "/admin"})).await.0, 401);

    // A role that an administrator made stronger is no longer his to give, but still his to take away.
    world.done("set-role-rule", rule("/team/r", "/prod/*", "read")).await;
    world.done_as(lead, "auth-method-create-api-key", json!({"name": "/team/eve"})).await;
    assert_eq!(
        world.refused(lead, "assoc-role-am", json!({"role-name": "/team/r", "am-name": "/team/eve"})).await.0,
        401
    );
    let role = world.done_as(lead, "get-role", json!({"name": "/team/r"})).await;
    let assoc = role["role_auth_methods_assoc"][0]["assoc_id"].clone();
    assert_eq!(world.refused(lead, "update-assoc", json!({"assoc-id": assoc, "sub-claims": {}})).await.0, 401);

    // Nor can he take over an identity that can do more.
    assert_eq!(world.refused(lead, "reset-access-key", json!({"name": "/team/bob"})).await.0, 401);
    assert_eq!(world.refused(lead, "reset-access-key", json!({"name": "/admin"})).await.0, 401);
    assert_eq!(
        world
            .refused(lead, "auth-method-update-api-key", json!({"name": "/team/bob", "bound-ips": "10.0.0.0/8"}))
            .await
            .0,
        401
    );
    world
        .done_as(lead, "auth-method-update-api-key", json!({"name": "/team/bob", "description": "renamed only"}))
        .await;
    world.token(made["access_id"].as_str().expect("an id"), made["access_key"].as_str().expect("a key")).await;
    world.done_as(lead, "delete-assoc", json!({ "assoc-id": assoc })).await;
    world.done_as(lead, "reset-access-key", json!({"name": "/team/bob"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_lifted_only_by_who_has_what_it_denies() {
    let world = World::start().await;
    let lead = leader(&world).await;
    let lead = &lead.token;
    world.done("auth-method-create-api-key", json!({"name": "/team/bob"})).await;
    let assoc = world.role("/team/no", "/team/bob", &[("item-rule", "/prod/*", "deny")]).await;
    for (operation, body) in [
        ("delete-role", json!({"name": "/team/no"})),
        ("delete-role-rule", json!({"role-name": "/team/no", "path": "/prod/*"})),
        ("set-role-rule", rule("/team/no", "/prod/*", "read")),
        ("set-role-rule", json!({"role-name": "/team/no", "path": "/prod/*", "capability": "deny", "ttl": 1})),
        ("delete-assoc", json!({ "assoc-id": assoc })),
        ("update-assoc", json!({"assoc-id": assoc, "sub-claims": {"a": "b"}})),
    ] {
        assert_eq!(world.refused(lead, operation, body.clone()).await.0, 401, "{operation} {body}");
    }
    world.done_as(lead, "set-role-rule", rule("/team/no", "/more/*", "deny")).await;
    world.done("delete-role", json!({"name": "/team/no"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_of_limited_time_is_not_passed_on_for_ever() {
    let world = World::start().await;
    let lead = leader(&world).await;
    world
        .done("set-role-rule", json!({"role-name": "/leads", "path": "/guest/*", "capability": "read", "ttl": 10}))
        .await;
    world.done_as(&lead.token, "create-role", json!({"name": "/team/r"})).await;
    let grant = |ttl: i64| json!({"role-name": "/team/r", "path": "/guest/*", "capability": "read", "ttl": ttl});
    assert_eq!(world.refused(&lead.token, "set-role-rule", grant(0)).await.0, 401);
    assert_eq!(world.refused(&lead.token, "set-role-rule", grant(11)).await.0, 401);
    world.done_as(&lead.token, "set-role-rule", grant(5)).await;
}

/// What would leave the account without an administrator.
fn hazards(assoc: &str) -> Vec<(&'static str, Value)> {
    let admin = |rule_type: &str, path: &str| json!({"role-name": "/admin", "path": path, "rule-type": rule_type});
    let with = |mut body: Value, name: &str, value: Value| {
        body[name] = value;
        body
    };
    vec![
        ("delete-role-rule", admin("role-rule", "/*")),
        ("delete-role-rule", admin("item-rule", "/*")),
        ("set-role-rule", with(admin("role-rule", "/*"), "capability", json!("deny"))),
        ("set-role-rule", with(admin("role-rule", "/*"), "capability", json!("read"))),
        ("set-role-rule", with(admin("item-rule", "/x"), "capability", json!("deny"))),
        (
            "set-role-rule",
            with(
                with(admin("role-rule", "/*"), "capability", json!("create,read,update,delete,list")),
                "ttl",
                json!(60),
            ),
        ),
        ("update-role", json!({"name": "/admin", "audit-access": "none"})),
        ("update-assoc", json!({"assoc-id": assoc, "sub-claims": {"a": "b"}})),
        ("auth-method-update-api-key", json!({"name": "/admin", "access-expires": 10000})),
        ("auth-method-update-api-key", json!({"name": "/admin", "force-sub-claims": true})),
        ("delete-assoc", json!({ "assoc-id": assoc })),
        ("delete-role", json!({"name": "/admin"})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_administrator_cannot_be_taken_away() {
    let world = World::start().await;
    let role = world.done("get-role", json!({"name": "/admin"})).await;
    let assoc = role["role_auth_methods_assoc"][0]["assoc_id"].as_str().expect("an id").to_owned();
    let before = world.picture(&world.admin.token).await;
    for (operation, body) in hazards(&assoc) {
        let (status, answer) = world.call(&world.admin.token, operation, body.clone()).await;
        assert_eq!((status, &answer["code"]), (409, &json!("conflict")), "{operation} {body}: {answer}");
        assert!(answer["error"].as_str().expect("text").contains("no administrator left"), "{answer}");
    }
    let away = json!({"name": "/admin", "bound-ips": ["10.0.0.0/8"]});
    assert_eq!(world.refused(&world.admin.token, "auth-method-update-api-key", away).await.0, 400);
    assert_eq!(world.refused(&world.admin.token, "auth-method-delete", json!({"name": "/admin"})).await.0, 409);
    assert_eq!(world.picture(&world.admin.token).await, before);

    // With a second one, each is allowed.
    let second = world.person("/second").await;
    world.done("create-role", json!({"name": "/second"})).await;
    for rule in role["rules"]["path_rules"].as_array().expect("rules") {
        let rule = json!({"role-name": "/second", "path": rule["path"], "rule-type": rule["type"], "capability": rule["capabilities"]});
        world.done("set-role-rule", rule).await;
    }
    world.done("assoc-role-am", json!({"role-name": "/second", "am-name": "/second"})).await;
    for (operation, body) in hazards(&assoc) {
        let (status, answer) = world.call(&second.token, operation, body.clone()).await;
        // What a step before has taken away already is not there any more.
        assert!(status < 300 || status == 404, "{operation} {body}: {status} {answer}");
    }
    let own = world.refused(&second.token, "auth-method-delete", json!({"name": "/second"})).await;
    assert_eq!(own.0, 409, "nobody deletes himself");
    world.done_as(&second.token, "auth-method-delete", json!({"name": "/admin"})).await;
    assert_eq!(world.refused(&world.admin.token, "validate-token", json!({})).await.0, 401);
}
