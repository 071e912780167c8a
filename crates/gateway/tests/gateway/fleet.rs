//! Everything at once: searching, the overview, folders, and the rules' explanation, for those who may see all and those who may not.

use serde_json::{Value, json};

use crate::world::World;

async fn furnished(world: &World) {
    for name in ["/a/1/key", "/a/2/key", "/a/2/deep/key", "/b/key", "/top"] {
        world.done("create-secret", json!({"name": name, "value": "v", "tags": ["t", name]})).await;
    }
    let target =
        json!({"name": "/host", "host": "127.0.0.1", "port": "9", "ssh-username": "root", "ssh-password": "x"});
    world.done("target-create-ssh", target).await;
    for (n, auto) in [(1, true), (2, false)] {
        let secret = json!({"name": format!("/a/{n}/root"), "target-name": "/host", "rotator-type": "password",
            "authentication-credentials": "use-target-creds", "rotated-username": "root", "skip-dry-run": true,
            "auto-rotate": auto, "rotation-interval": 5});
        world.done("rotated-secret-create-ssh", secret).await;
    }
}

fn names(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().expect("a list").iter().filter_map(|item| item["item_name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_found_by_every_filter_in_every_order_page_by_page() {
    let world = World::start().await;
    furnished(&world).await;
    let find = |body: Value| world.done("item-search", body);
    let all = find(json!({})).await;
    assert_eq!((all["total"].as_i64(), names(&all).len()), (Some(7), 7));
    assert_eq!(all["states"], json!({"static": 5, "new": 2}));
    assert_eq!(names(&find(json!({"filter": "DEEP"})).await), ["/a/2/deep/key"]);
    assert_eq!(names(&find(json!({"filter": "_"})).await), Vec::<&str>::new(), "no letter is a wildcard");
    assert_eq!(names(&find(json!({"path": "/a/2"})).await), ["/a/2/deep/key", "/a/2/key", "/a/2/root"]);
    assert_eq!(names(&find(json!({"tag": "/b/key"})).await), ["/b/key"]);
    assert_eq!(names(&find(json!({"kind": "ssh", "state": ["new"]})).await), ["/a/1/root", "/a/2/root"]);
    assert_eq!(names(&find(json!({"target-name": "/host"})).await).len(), 2);
    assert_eq!(names(&find(json!({"target-name": "/other"})).await).len(), 0);
    assert_eq!(names(&find(json!({"sort": "next", "limit": 1})).await), ["/a/1/root"], "what has no date comes last");
    assert_eq!(names(&find(json!({"sort": "name", "descending": true, "limit": 1})).await), ["/top"]);
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = find(json!({"limit": 2, "pagination-token": token})).await;
        seen.extend(names(&page).into_iter().map(str::to_owned));
        page["next_page"].as_str().expect("text").clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, names(&all));
    let wrong = world.refused(&world.admin.token, "item-search", json!({"state": ["well"]})).await;
    assert_eq!(wrong, (400, "bad_parameter".to_owned()));
    let folders = world.done("folder-list", json!({})).await;
    assert_eq!(folders["folders"], json!(["/a/", "/b/"]));
    let folders = world.done("folder-list", json!({"path": "/a"})).await;
    assert_eq!(folders["folders"], json!(["/a/1/", "/a/2/"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_a_part_is_told_of_that_part_only() {
    let world = World::start().await;
    furnished(&world).await;
    let ann = world.person("/ann").await;
    world.role("/part", "/ann", &[("item-rule", "/a/2/*", "read")]).await;
    let found = world.done_as(&ann.token, "item-search", json!({})).await;
    assert_eq!(names(&found), ["/a/2/deep/key", "/a/2/key", "/a/2/root"]);
    assert_eq!(found["total"], Value::Null, "what may be counted only by looking at everything is not counted");
    assert_eq!(world.done_as(&ann.token, "folder-list", json!({})).await["folders"], json!(["/a/"]));
    assert_eq!(world.done_as(&ann.token, "folder-list", json!({"path": "/a"})).await["folders"], json!(["/a/2/"]));
    let overview = world.done_as(&ann.token, "account-overview", json!({})).await;
    assert_eq!(overview["states"], json!({"static": 2, "new": 1}));
    assert_eq!(overview["has_targets"], json!(false));
    assert_eq!(overview["oldest"]["item_name"], json!("/a/2/root"));
    assert_eq!(overview["coming"], json!([]), "the rotation to come is another's");
    let all = world.done("account-overview", json!({})).await;
    assert_eq!(all["states"], json!({"static": 5, "new": 2}));
    assert_eq!(all["coming"].as_array().map(Vec::len), Some(1), "{all}");
    assert_eq!(world.refused(&ann.token, "holder-list", json!({})).await.0, 401);
    assert_eq!(world.done("holder-list", json!({})).await["holders"].as_array().map(Vec::len), Some(3));
    world.pass(6 * 86_400);
    let mut world = world;
    world.renew_admin().await;
    let late = world.done("account-overview", json!({})).await;
    assert_eq!(late["trouble"][0]["state"], json!("overdue"), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_explain_their_answer() {
    let world = World::start().await;
    furnished(&world).await;
    let ann = world.person("/ann").await;
    world.role("/part", "/ann", &[("item-rule", "/a/*", "read"), ("item-rule", "/a/2/*", "deny")]).await;
    let told = world.done("explain-access", json!({"path": "/a/1/key", "am-name": "/ann"})).await;
    let first = &told["identities"][0];
    assert_eq!((&first["capabilities"], &told["complete"]), (&json!(["list", "read"]), &json!(true)));
    assert_eq!(first["reasons"][0]["role_name"], json!("/part"));
    assert_eq!(first["reasons"][0]["rule_path"], json!("/a/*"));
    let denied = world.done("explain-access", json!({"path": "/a/2/key", "am-name": "/ann"})).await;
    assert_eq!(denied["identities"][0]["capabilities"], json!([]));
    assert_eq!(denied["identities"][0]["reasons"][1]["denies"], json!(true));
    let all = world.done("explain-access", json!({"path": "/a/1/key"})).await;
    assert_eq!(all["identities"].as_array().map(Vec::len), Some(2), "the administrator, and ann");
    let own = world.done_as(&ann.token, "explain-access", json!({"path": "/a/1/key"})).await;
    assert_eq!((&own["identities"], &own["complete"]), (&json!([]), &json!(false)), "she may know of no identity");
    assert_eq!(world.refused(&ann.token, "explain-access", json!({"path": "/b/key"})).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_makes_nothing_and_a_compared_fingerprint_is_held_against_the_host() {
    let world = World::start().await;
    let target = json!({"name": "/host", "host": "127.0.0.1", "port": "9", "ssh-username": "root", "ssh-password": "x",
        "test-only": true});
    let tested = world.done("target-create-ssh", target).await;
    assert_eq!((&tested["tested"], tested["warnings"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{tested}");
    assert_eq!(world.done("target-list", json!({})).await["targets"], json!([]));
    furnished(&world).await;
    let secret = json!({"name": "/new", "target-name": "/host", "rotator-type": "password", "rotated-username": "root",
        "authentication-credentials": "use-target-creds", "skip-dry-run": true, "test-only": true});
    let (status, code) = world.refused(&world.admin.token, "rotated-secret-create-ssh", secret).await;
    assert!(status == 400 && code.starts_with("target_"), "the test is not skipped: {status} {code}");
    assert_eq!(world.call(&world.admin.token, "describe-item", json!({"name": "/new"})).await.0, 404);
}
