//! All operations at once: each is handled, each asks for a right, and the document lists them all.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use volvelle_api::Operation;

use crate::world::{Names, World, body};

const NOBODYS: Names<'static> =
    Names { item: "/none/item", target: "/none/target", role: "/none/role", method: "/none/method", assoc: "ass-none" };

/// Operations that any identity may call.
const OPEN: &[&str] = &[
    "auth",
    "validate-token",
    "revoke-token",
    "revoke-all-tokens",
    "item-search",
    "folder-list",
    "account-overview",
    "get-account-settings",
    "describe-permissions",
    "auth-method-list",
    "list-roles",
    "target-list",
    "list-items",
    "gateway-list-rotated-secrets",
    "rotated-secret-list",
    "delete-items",
];

fn names(op: &Operation) -> impl Iterator<Item = &String> {
    std::iter::once(&op.name).chain(&op.aliases)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_and_alias_is_handled() {
    let world = World::start().await;
    for op in &world.app.operations {
        for name in names(op).filter(|name| !name.starts_with("revoke-")) {
            let (status, answer) = world.call(&world.admin.token, name, body(op, &NOBODYS)).await;
            assert!(status != 500 && answer["code"] != "unknown_command", "{name}: {status} {answer}");
            if status < 300 {
                assert_eq!(status, op.status, "{name}");
            }
        }
    }
    world.done("revoke-token", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_without_roles_may_nothing_and_changes_nothing() {
    let world = World::start().await;
    world.done("create-secret", json!({"name": "/none/item", "value": "s"})).await;
    let target = json!({"name": "/none/target", "hosts": "127.0.0.1:1", "type": "ssh"});
    world.done("target-create-linked", target).await;
    world.done("auth-method-create-api-key", json!({"name": "/none/method"})).await;
    let assoc = world.role("/none/role", "/none/method", &[("item-rule", "/none/*", "read")]).await;
    let before = world.picture(&world.admin.token).await;
    let nobody = world.person("/nobody").await;
    let there = Names { assoc: &assoc, ..NOBODYS };
    let absent =
        Names { item: "/no/item", target: "/no/target", role: "/no/role", method: "/no/method", assoc: "ass-no" };
    let without_token = ["auth", "validate-producer-credentials"];
    for op in world.app.operations.iter().filter(|op| !op.name.starts_with("revoke-")) {
        if without_token.contains(&op.name.as_str()) {
            continue;
        }
        let mut answers = Vec::new();
        for wanted in [&there, &absent] {
            let (status, answer) = world.call(&nobody.token, &op.name, body(op, wanted)).await;
            if OPEN.contains(&op.name.as_str()) {
                assert!(status < 300, "{}: {status} {answer}", op.name);
                for list in ["auth_methods", "roles", "targets", "items", "producers", "deleted_items"] {
                    assert!(answer[list].as_array().is_none_or(Vec::is_empty), "{}: {answer}", op.name);
                }
            } else {
                assert_eq!((status, &answer["code"]), (401, &json!("unauthorized")), "{}: {answer}", op.name);
                answers.push(answer["error"].clone());
            }
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{} tells what exists", op.name);
    }
    let none =
        world.done_as(&nobody.token, "describe-permissions", json!({"path": "/none/item", "type": "item"})).await;
    assert_eq!(none["client_permissions"], json!([]));
    world.done("auth-method-delete", json!({"name": "/nobody"})).await;
    assert_eq!((world.picture(&world.admin.token).await, world.accounts().await), (before, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_a_text_a_code_a_hint_and_an_id() {
    let world = World::start().await;
    let token = &world.admin.token;
    let cases = [
        ("no-such-thing", json!({}), 404, "unknown_command", "unknown command no-such-thing"),
        ("describe-item", json!({"name": "/absent"}), 404, "not_found", "failed to obtain item /absent"),
        ("describe-item", json!({}), 400, "bad_parameter", "name: is required"),
        (
            "create-secret",
            json!({"name": "/x", "value": "v", "max-versions": "many"}),
            400,
            "bad_parameter",
            "max-versions",
        ),
        (
            "create-secret",
            json!({"name": "/x", "value": "v", "delete_protection": "maybe"}),
            400,
            "bad_parameter",
            "delete_protection",
        ),
        ("create-secret", json!({"name": "/x", "value": {"a": 1}}), 400, "bad_parameter", "value: must be a string"),
        ("create-secret", json!({"name": "/x", "value": "v", "tags": [{"a": 1}]}), 400, "bad_parameter", "tags"),
        (
            "assoc-role-am",
            json!({"role-name": "/x", "am-name": "/y", "sub-claims": "x"}),
            400,
            "bad_parameter",
            "sub-claims",
        ),
        ("auth-method-create-api-key", json!({"name": "/x", "jwt-ttl": 100_000}), 400, "bad_parameter", "jwt-ttl"),
        (
            "auth-method-create-api-key",
            json!({"name": "/x", "bound-ips": "10.0.0.0/40"}),
            400,
            "bad_parameter",
            "bound-ips",
        ),
        (
            "set-role-rule",
            json!({"role-name": "/admin", "path": "/a/*/b", "capability": "read"}),
            400,
            "bad_parameter",
            "path",
        ),
        (
            "set-role-rule",
            json!({"role-name": "/admin", "path": "/a", "capability": "fly"}),
            400,
            "bad_parameter",
            "capability",
        ),
        (
            "set-role-rule",
            json!({"role-name": "/admin", "path": "/a", "capability": "read", "rule-type": "x"}),
            400,
            "bad_parameter",
            "rule-type",
        ),
        ("create-role", json!({"name": "/x", "audit-access": "some"}), 400, "bad_parameter", "audit-access"),
        ("create-role", json!({"name": "/admin"}), 409, "already_exists", "AlreadyExists"),
        ("auth-method-create-api-key", json!({"name": "admin"}), 409, "already_exists", "AlreadyExists"),
        ("describe-permissions", json!({"path": "/", "type": "moon"}), 400, "bad_parameter", "type"),
    ];
    for (operation, body, status, code, text) in cases {
        for base in ["", "/v2", "/api/v2"] {
            let mut body = body.clone();
            body["token"] = json!(token);
            let (got, answer) = world.send("127.0.0.1", &[], &format!("{base}/{operation}"), &body).await;
            assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{operation}: {answer}");
            assert!(answer["error"].as_str().expect("text").contains(text), "{operation}: {answer}");
            assert!(
                answer["hint"].is_string() && answer["request_id"].as_str().is_some_and(|id| id.len() == 16),
                "{answer}"
            );
        }
    }
    for body in [json!({}), json!({"token": ""}), json!({"token": "t-wrong"}), json!({"uid-token": "u-wrong"})] {
        let (status, answer) = world.send("127.0.0.1", &[], "/list-items", &body).await;
        assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn booleans_and_numbers_may_be_texts() {
    let world = World::start().await;
    for (n, (yes, three)) in
        [(json!(true), json!(3)), (json!("true"), json!("3")), (json!(1), json!(" 3 "))].into_iter().enumerate()
    {
        let name = format!("/forms/{n}");
        world
            .done("create-secret", json!({"name": name, "value": "v", "delete_protection": yes, "max-versions": three}))
            .await;
        let shown = world.done("describe-item", json!({"name": name, "show-versions": yes})).await;
        assert_eq!(
            (&shown["delete_protection"], shown["item_versions"].as_array().map(Vec::len)),
            (&json!(true), Some(1))
        );
        let method = json!({"name": name, "jwt-ttl": three, "force-sub-claims": yes, "access-expires": "0", "bound-ips": "10.0.0.0/8,::1"});
        world.done("auth-method-create-api-key", method).await;
        let info = &world.done("auth-method-get", json!({"name": name})).await["access_info"];
        assert_eq!(
            (&info["jwt_ttl"], &info["force_sub_claims"], &info["cidr_whitelist"]),
            (&json!(3), &json!(true), &json!("10.0.0.0/8,::1"))
        );
    }
    let (_, answer) = world
        .call(&world.admin.token, "create-secret", json!({"name": "/n", "value": "v", "unknown-key": {"a": []}}))
        .await;
    assert_eq!(answer, json!({"name": "/n"}), "unknown keys are ignored");
}

/// Finds every reference, and schemas that are none.
fn walk(document: &Value, at: &Value, path: &str) {
    match at {
        Value::Object(map) => {
            if let Some(reference) = map.get("$ref") {
                let pointer = reference.as_str().and_then(|r| r.strip_prefix('#')).expect("a local reference");
                assert!(document.pointer(pointer).is_some_and(Value::is_object), "{path}: {pointer} leads nowhere");
            }
            if let Some(kind) = map.get("type").filter(|_| path.ends_with("schema") || path.contains("/properties/")) {
                let known = ["string", "integer", "number", "boolean", "array", "object", "null"];
                let kinds = kind.as_array().map_or_else(|| vec![kind], |kinds| kinds.iter().collect());
                assert!(kinds.iter().all(|k| k.as_str().is_some_and(|k| known.contains(&k))), "{path}: {kind}");
                assert!(kind != "array" || map["items"].is_object(), "{path}: an array says of what");
            }
            if let (Some(required), Some(properties)) =
                (map.get("required").and_then(Value::as_array), map.get("properties"))
            {
                for name in required {
                    assert!(
                        properties.get(name.as_str().expect("a name")).is_some(),
                        "{path}: {name} is required and absent"
                    );
                }
            }
            map.iter().for_each(|(key, value)| walk(document, value, &format!("{path}/{key}")));
        }
        Value::Array(values) => values.iter().for_each(|value| walk(document, value, path)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_openapi_and_lists_exactly_the_operations() {
    let world = World::start().await;
    let url = format!("http://{}/openapi.json", world.address);
    let document: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let paths = document["paths"].as_object().expect("paths");
    let wanted: BTreeSet<String> = world.app.operations.iter().flat_map(names).map(|name| format!("/{name}")).collect();
    assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(wanted.len(), world.app.operations.iter().flat_map(names).count(), "no name means two things");
    let mut ids = BTreeSet::new();
    for (path, item) in paths {
        assert_eq!(item.as_object().expect("an object").keys().collect::<Vec<_>>(), ["post"], "{path}");
        let post = &item["post"];
        assert!(ids.insert(post["operationId"].as_str().expect("an id")), "{path}");
        assert!(!post["summary"].as_str().expect("a summary").is_empty(), "{path}");
        let schema = &post["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!((&schema["type"], schema["properties"].is_object()), (&json!("object"), true), "{path}");
        let responses = post["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|status| status.starts_with('2')) && responses.contains_key("default"), "{path}");
        for response in responses.values() {
            assert!(
                response["description"].is_string() && response["content"]["application/json"]["schema"].is_object()
            );
        }
    }
    walk(&document, &document, "");
}
