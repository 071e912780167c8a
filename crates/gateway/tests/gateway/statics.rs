//! Static secrets through their whole life.

use serde_json::{Value, json};

use crate::world::World;

async fn value(world: &World, name: &str) -> Value {
    world.done("get-secret-value", json!({"names": [name]})).await[name].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_have_versions() {
    let world = World::start().await;
    let admin = &world.admin.token;
    world.done("create-secret", json!({"name": "s/one", "value": "v1", "max-versions": "3"})).await;
    assert_eq!(
        world.refused(admin, "create-secret", json!({"name": "/s/one", "value": "x"})).await,
        (409, "already_exists".to_owned())
    );
    assert_eq!(value(&world, "/s/one").await, json!("v1"));
    world.done("update-secret-val", json!({"name": "/s/one", "value": "v2"})).await;
    assert_eq!(value(&world, "/s/one").await, json!("v2"));
    let old = world.done("get-secret-value", json!({"names": "/s/one", "version": 1})).await;
    assert_eq!(old["/s/one"], json!("v1"));
    assert_eq!(
        world.refused(admin, "update-secret-val", json!({"name": "/s/one", "value": "x", "last-version": 1})).await.0,
        409
    );
    let back = world.done("rollback-secret", json!({"name": "/s/one", "old-version": 1})).await;
    assert_eq!(back, json!({"name": "/s/one", "version": 3}));
    assert_eq!(value(&world, "/s/one").await, json!("v1"));
    world.done("update-secret-val", json!({"name": "/s/one", "value": "v4"})).await;
    let shown = world.done("describe-item", json!({"name": "/s/one", "show-versions": true})).await;
    let mut kept: Vec<i64> =
        shown["item_versions"].as_array().expect("a list").iter().filter_map(|v| v["version"].as_i64()).collect();
    kept.sort_unstable();
    assert_eq!(kept, [2, 3, 4], "three are kept");
    assert_eq!(shown["last_version"], json!(4));
    world.done("update-secret-val", json!({"name": "/s/one", "value": "v5", "keep-prev-version": false})).await;
    assert_eq!(world.refused(admin, "get-secret-value", json!({"names": "/s/one", "version": 4})).await.0, 404);
    world.done("update-item", json!({"name": "/s/one", "delete_protection": "true"})).await;
    assert_eq!(world.refused(admin, "delete-item", json!({"name": "/s/one"})).await.0, 409);
    world.done("update-item", json!({"name": "/s/one", "delete_protection": "false"})).await;
    let gone = world.done("delete-item", json!({"name": "/s/one"})).await;
    assert_eq!((&gone["item_name"], &gone["version_deleted"]), (&json!("/s/one"), &json!(-1)));
    assert_eq!(world.refused(admin, "get-secret-value", json!({"names": "/s/one"})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_secret_opens_and_a_moved_record_does_not() {
    let world = World::start().await;
    world.done("create-secret", json!({"name": "/a", "value": "of-a"})).await;
    world.done("create-secret", json!({"name": "/b", "value": "of-b"})).await;
    world.done("update-secret-val", json!({"name": "/a", "value": "of-a-2"})).await;
    world.done("update-item", json!({"name": "/a", "new-name": "/moved/a"})).await;
    assert_eq!(world.refused(&world.admin.token, "get-secret-value", json!({"names": "/a"})).await.0, 404);
    assert_eq!(value(&world, "/moved/a").await, json!("of-a-2"));
    let first = world.done("get-secret-value", json!({"names": "/moved/a", "version": 1})).await;
    assert_eq!(first["/moved/a"], json!("of-a"), "older versions too");
    let taken = world.refused(&world.admin.token, "update-item", json!({"name": "/b", "new-name": "/moved/a"})).await;
    assert_eq!(taken.0, 409);
    assert_eq!(value(&world, "/b").await, json!("of-b"));

    // Somebody with the database puts a record where he may read it.
    let mut tx = world.store.begin().await.expect("a writer");
    let sql = "UPDATE item_versions SET sealed = (SELECT v.sealed FROM item_versions v JOIN items i ON i.id = v.item \
               WHERE i.name = '/moved/a' AND v.version = 1) WHERE item = (SELECT id FROM items WHERE name = '/b')";
    assert_eq!(tx.danger_execute(sql).await.expect("changed"), 1);
    tx.commit().await.expect("committed");
    let (status, answer) = world.call(&world.admin.token, "get-secret-value", json!({"names": "/b"})).await;
    assert_eq!(status, 503, "{answer}");
    assert!(!answer.to_string().contains("of-a"), "{answer}");
    // Or moves the item itself to another path.
    let mut tx = world.store.begin().await.expect("a writer");
    tx.danger_execute("UPDATE items SET name = '/mine/a' WHERE name = '/moved/a'").await.expect("changed");
    tx.commit().await.expect("committed");
    assert_eq!(world.refused(&world.admin.token, "get-secret-value", json!({"names": "/mine/a"})).await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_folders_tags_and_pages() {
    let world = World::start().await;
    for name in ["/top", "/f/a", "/f/b", "/f/g/c", "/fx"] {
        world.done("create-secret", json!({"name": name, "value": "v", "tags": ["t", name]})).await;
    }
    let names = |answer: &Value| -> Vec<String> {
        let items = answer["items"].as_array().expect("a list").iter();
        items.map(|item| item["item_name"].as_str().expect("a name").to_owned()).collect()
    };
    let all = world.done("list-items", json!({})).await;
    assert_eq!(names(&all), ["/f/a", "/f/b", "/f/g/c", "/fx", "/top"]);
    assert_eq!((&all["has_next"], &all["next_page"]), (&json!(false), &json!("")));
    let folder = world.done("list-items", json!({"path": "/f/", "current-folder": true})).await;
    assert_eq!((names(&folder), &folder["folders"]), (vec!["/f/a".to_owned(), "/f/b".to_owned()], &json!(["/f/g/"])));
    let tagged = world.done("list-items", json!({"tag": "/fx", "minimal-view": true})).await;
    assert_eq!(names(&tagged), ["/fx"]);
    assert_eq!(names(&world.done("list-items", json!({"filter": "/g/"})).await), ["/f/g/c"]);
    assert!(names(&world.done("list-items", json!({"type": ["rotated-secret"]})).await).is_empty());
    assert_eq!(names(&world.done("list-items", json!({"type": "static-secret"})).await).len(), 5);
    assert_eq!(names(&world.done("list-items", json!({"pagination-token": "/f/g/c"})).await), ["/fx", "/top"]);

    world.done("update-item", json!({"name": "/top", "rm-tag": ["t"], "add-tag": "new"})).await;
    assert_eq!(world.done("get-tags", json!({"name": "/top"})).await, json!(["/top", "new"]));
    let gone = world.done("delete-items", json!({"path": "/f/"})).await;
    assert_eq!(gone["deleted_items"], json!(["/f/a", "/f/b", "/f/g/c"]));
    assert_eq!(names(&world.done("list-items", json!({})).await), ["/fx", "/top"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_and_the_next_one_goes_on() {
    let world = World::start().await;
    world.done("create-secret", json!({"name": "/p", "value": "v"})).await;
    let mut tx = world.store.begin().await.expect("a writer");
    let mut known = volvelle_store::accounts::list(&mut tx).await.expect("accounts");
    let account = known.remove(0).id;
    let path = |text: &str| volvelle_domain::ItemPath::parse(text).expect("a path");
    let one = volvelle_store::items::find(&mut tx, &account, &path("/p")).await.expect("found").expect("there");
    for n in 0..1500 {
        let mut item = one.clone();
        (item.name, item.uid.0) = (path(&format!("/many/{n:04}")), [u8::try_from(n % 250).expect("small"); 16]);
        item.uid.0[..2].copy_from_slice(&u16::try_from(n).expect("small").to_be_bytes());
        volvelle_store::items::add(&mut tx, &item).await.expect("added");
    }
    tx.commit().await.expect("committed");
    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let body = json!({"auto-pagination": "disabled", "pagination-token": token, "minimal-view": true});
        let page = world.done("list-items", body).await;
        seen.extend(
            page["items"].as_array().expect("a list").iter().map(|i| i["item_name"].as_str().expect("text").to_owned()),
        );
        page["next_page"].as_str().expect("text").clone_into(&mut token);
        pages += 1;
        assert_eq!(page["has_next"], json!(!token.is_empty()));
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (1501, 2));
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "each once, in order");
    let all = world.done("list-items", json!({"minimal-view": true})).await;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1501), "one answer unless pages were asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_checked_out_is_the_holders_alone() {
    let world = World::start().await;
    let rights = [("item-rule", "/l/*", "read,update,list")];
    let (ann, bob) = (world.person("/ann").await, world.person("/bob").await);
    world.role("/a", "/ann", &rights).await;
    world.role("/b", "/bob", &rights).await;
    world.done("create-secret", json!({"name": "/l/s", "value": "v"})).await;
    let read = json!({"names": "/l/s"});
    world.done_as(&ann.token, "lock-item", json!({"name": "/l/s", "lock-ttl": 5})).await;
    assert_eq!(world.refused(&bob.token, "get-secret-value", read.clone()).await, (423, "locked".to_owned()));
    assert_eq!(world.refused(&bob.token, "update-secret-val", json!({"name": "/l/s", "value": "w"})).await.0, 423);
    assert_eq!(world.refused(&bob.token, "lock-item", json!({"name": "/l/s"})).await.0, 423);
    world.done_as(&ann.token, "get-secret-value", read.clone()).await;
    let shown = world.done("describe-item", json!({"name": "/l/s"})).await;
    assert_eq!(shown["locking_info"]["locked_by"], json!(ann.id));
    world.done_as(&ann.token, "unlock-item", json!({"name": "/l/s"})).await;
    world.done_as(&bob.token, "get-secret-value", read.clone()).await;
    world.done_as(&ann.token, "lock-item", json!({"name": "/l/s", "actions": "update", "lock-ttl": 5})).await;
    world.done_as(&bob.token, "get-secret-value", read.clone()).await;
    assert_eq!(world.refused(&bob.token, "update-secret-val", json!({"name": "/l/s", "value": "w"})).await.0, 423);
    world.pass(301);
    world.done_as(&bob.token, "update-secret-val", json!({"name": "/l/s", "value": "w"})).await;

    world.done("update-item", json!({"name": "/l/s", "lock-on-read": true, "lock-ttl": 10})).await;
    world.done_as(&bob.token, "get-secret-value", read.clone()).await;
    assert_eq!(world.refused(&ann.token, "get-secret-value", read.clone()).await.0, 423, "reading checked it out");
    world.done_as(&bob.token, "get-secret-value", read.clone()).await;
    world.done_as(&bob.token, "unlock-item", json!({"name": "/l/s"})).await;
    world.done_as(&ann.token, "get-secret-value", read.clone()).await;
    world.pass(601);
    world.done_as(&bob.token, "get-secret-value", read.clone()).await;
    for wrong in ["fly", ","] {
        assert_eq!(
            world.refused(&world.admin.token, "lock-item", json!({"name": "/l/s", "actions": wrong})).await.0,
            400
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_secret_is_not_read() {
    let world = World::start().await;
    world.done("create-secret", json!({"name": "/s", "value": "v"})).await;
    world.done("set-item-state", json!({"name": "/s", "desired-state": "Disabled"})).await;
    assert_eq!(world.refused(&world.admin.token, "get-secret-value", json!({"names": "/s"})).await.0, 409);
    assert_eq!(world.done("describe-item", json!({"name": "/s"})).await["item_state"], json!("Disabled"));
    world.done("set-item-state", json!({"name": "/s", "desired-state": "enabled"})).await;
    assert_eq!(value(&world, "/s").await, json!("v"));
    assert_eq!(
        world.refused(&world.admin.token, "set-item-state", json!({"name": "/s", "desired-state": "x"})).await.0,
        400
    );
    assert_eq!(world.refused(&world.admin.token, "rotated-secret-get-value", json!({"name": "/s"})).await.0, 400);
}
