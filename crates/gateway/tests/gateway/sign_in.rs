//! Signing in, and everything that ends it.

use serde_json::{Value, json};

use crate::world::World;

const HERE: &str = "127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_for_the_guesser_only() {
    let world = World::start().await;
    let ann = world.person("/ann").await;
    let mut last = (0, Value::Null);
    for _ in 0..8 {
        last = world.sign_in(HERE, &[], &ann.id, "wrong").await;
    }
    assert_eq!((last.0, &last.1["code"]), (429, &json!("slow_down")), "{}", last.1);
    assert_eq!(world.sign_in(HERE, &[], &ann.id, &ann.key).await.0, 429, "even the right key waits");
    assert_eq!(world.sign_in("127.0.0.2", &[], &ann.id, &ann.key).await.0, 200, "the owner elsewhere does not");
    assert_eq!(world.sign_in(HERE, &[], &world.admin.id, &world.admin.key).await.0, 200, "nor do others here");
    assert_eq!(world.sign_in(HERE, &["127.0.0.9"], &ann.id, &ann.key).await.0, 429, "a header does not help");
    world.pass(61);
    assert_eq!(world.sign_in(HERE, &[], &ann.id, &ann.key).await.0, 200);
    for n in 0..60 {
        last = world.sign_in("127.0.0.3", &[], &format!("p-{n}"), "wrong").await;
    }
    assert_eq!(last.0, 429, "one address cannot try many ids");
    assert_eq!(world.sign_in("127.0.0.3", &[], &ann.id, &ann.key).await.0, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_unknown_ids_are_told_alike() {
    let world = World::start().await;
    let (status, mut wrong) = world.sign_in(HERE, &[], &world.admin.id, "wrong").await;
    let (other, mut unknown) = world.sign_in(HERE, &[], "p-unknown00000", "wrong").await;
    wrong["request_id"] = Value::Null;
    unknown["request_id"] = Value::Null;
    assert_eq!((status, &wrong), (401, &unknown));
    assert_eq!(other, 401);
    let (status, answer) = world.send(HERE, &[], "/auth", &json!({"access-id": "p-1", "access-type": "saml"})).await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("bad_parameter")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_token_is_kept_for_the_holders_if_it_is_short_enough() {
    let world = World::start().await;
    let sign_in = async |jwt: String| {
        let body = json!({"access-id": world.admin.id, "access-key": world.admin.key, "jwt": jwt});
        world.send(HERE, &[], "/auth", &body).await
    };
    let (status, answer) = sign_in("a.b.c".to_owned()).await;
    assert_eq!(status, 200, "{answer}");
    let hash = volvelle_gateway::credentials::hash(answer["token"].as_str().expect("a token").as_bytes());
    let mut tx = world.store.read().await.expect("a reader");
    assert_eq!(volvelle_store::tokens::statement(&mut tx, &hash).await.expect("kept"), b"\x02a.b.c");
    let (status, answer) = sign_in("x".repeat(9000)).await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("bad_parameter")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end() {
    let world = World::start().await;
    let ann = world.person("/ann").await;
    let shown = world.done_as(&ann.token, "validate-token", json!({})).await;
    assert_eq!(shown["is_valid"], json!(true));
    assert!((3500..=3600).contains(&shown["ttl"].as_i64().expect("a number")), "{shown}");
    let second = world.token(&ann.id, &ann.key).await;
    world.done_as(&ann.token, "revoke-token", json!({})).await;
    assert_eq!(world.refused(&ann.token, "validate-token", json!({})).await.0, 401, "revoked");
    world.done_as(&second, "validate-token", json!({})).await;
    world.pass(3601);
    assert_eq!(
        world.refused(&second, "validate-token", json!({})).await,
        (401, "unauthenticated".to_owned()),
        "expired"
    );
    let admin = world.token(&world.admin.id, &world.admin.key).await;
    world.done_as(&admin, "auth-method-update-api-key", json!({"name": "/ann", "jwt-ttl": 2})).await;
    let short = world.token(&ann.id, &ann.key).await;
    world.pass(119);
    world.done_as(&short, "validate-token", json!({})).await;
    world.pass(2);
    assert_eq!(world.refused(&short, "validate-token", json!({})).await.0, 401, "its own life is two minutes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_key_and_its_tokens_are_dead_at_once() {
    let world = World::start().await;
    let ann = world.person("/ann").await;
    world.done_as(&ann.token, "validate-token", json!({})).await;
    let fresh = world.done("reset-access-key", json!({"name": "ann"})).await["access_key"].clone();
    let fresh = fresh.as_str().expect("a key");
    assert_ne!(fresh, ann.key);
    assert_eq!(world.refused(&ann.token, "validate-token", json!({})).await.0, 401);
    assert_eq!(world.sign_in(HERE, &[], &ann.id, &ann.key).await.0, 401);
    let token = world.token(&ann.id, fresh).await;
    world.done("auth-method-delete", json!({"name": "/ann"})).await;
    assert_eq!(world.refused(&token, "validate-token", json!({})).await.0, 401, "deleted");
    assert_eq!(world.sign_in(HERE, &[], &ann.id, fresh).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_expires() {
    let world = World::start().await;
    let ann = world.person("/ann").await;
    let at = world.app.now().0 / 1_000_000 + 100;
    world.done("auth-method-update-api-key", json!({"name": "/ann", "access-expires": at})).await;
    world.done_as(&ann.token, "validate-token", json!({})).await;
    world.pass(101);
    assert_eq!(world.refused(&ann.token, "validate-token", json!({})).await.0, 401, "its tokens too");
    assert_eq!(world.sign_in(HERE, &[], &ann.id, &ann.key).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_addresses_hold_for_keys_and_for_tokens() {
    let world = World::start().await;
    let made = json!({"name": "/ann", "bound-ips": ["127.0.0.2/32", "10.9.0.0/16"]});
    let made = world.done("auth-method-create-api-key", made).await;
    let (id, key) = (made["access_id"].as_str().expect("an id"), made["access_key"].as_str().expect("a key"));
    assert_eq!(world.sign_in(HERE, &[], id, key).await.0, 401);
    let (status, answer) = world.sign_in("127.0.0.2", &[], id, key).await;
    assert_eq!(status, 200);
    let body = json!({"token": answer["token"]});
    assert_eq!(world.send("127.0.0.2", &[], "/validate-token", &body).await.0, 200);
    assert_eq!(world.send(HERE, &[], "/validate-token", &body).await.0, 401, "a stolen token is of no use elsewhere");
    assert_eq!(
        world.send(HERE, &[], "/get-rotated-secret-value", &json!({"token": answer["token"], "names": "/x"})).await.0,
        401
    );
    assert_eq!(world.sign_in(HERE, &["10.9.1.1"], id, key).await.0, 401, "anybody can write the header");

    let gateway = json!({"name": "/ann", "gw-bound-ips": ["127.0.0.1/32"]});
    world.done("auth-method-update-api-key", gateway).await;
    assert_eq!(world.sign_in(HERE, &["10.9.1.1"], id, key).await.0, 200, "the named gateway is believed");
    assert_eq!(world.sign_in(HERE, &["8.8.8.8, 10.9.1.1"], id, key).await.0, 200);
    assert_eq!(
        world.sign_in(HERE, &["10.9.1.1, 8.8.8.8"], id, key).await.0,
        401,
        "what the client put in front is not"
    );
    assert_eq!(world.sign_in(HERE, &["10.9.1.1", "8.8.8.8"], id, key).await.0, 401, "nor is a header of its own");
    assert_eq!(world.sign_in(HERE, &[], id, key).await.0, 401);
    assert_eq!(world.sign_in("127.0.0.3", &["10.9.1.1"], id, key).await.0, 401, "another machine is no gateway");
}
