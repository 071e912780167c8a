//! The console's files and sessions, as a browser and as an attacker sees them.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::world::World;

const OWN: &[(&str, &str)] = &[("x-volvelle-console", "user"), ("sec-fetch-site", "same-origin")];
const QUIET: &[(&str, &str)] = &[("x-volvelle-console", "page"), ("sec-fetch-site", "same-origin")];

async fn post(world: &World, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, HeaderMap, Value) {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        all.insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    let request = reqwest::Client::new().post(format!("http://{}{path}", world.address)).headers(all).json(body);
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.json().await.expect("JSON"))
}

/// Signs the administrator in; gives the cookie as the browser sends it back.
async fn signed_in(world: &World) -> String {
    let body = json!({"access-id": world.admin.id, "access-key": world.admin.key});
    let (status, headers, answer) = post(world, "/console/sign-in", OWN, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.to_string().contains("t-"), "the page is told no token: {answer}");
    let cookie = headers["set-cookie"].to_str().expect("text").to_owned();
    for word in ["__Host-volvelle-", "HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{word} is missing");
    }
    cookie.split(';').next().expect("a pair").to_owned()
}

async fn asked(world: &World, cookie: &str, headers: &[(&str, &str)]) -> u16 {
    post(world, "/list-items", &[headers, &[("cookie", cookie)]].concat(), &json!({})).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_counts_for_the_consoles_own_page_only() {
    let world = World::start().await;
    let cookie = signed_in(&world).await;
    assert_eq!(asked(&world, &cookie, OWN).await, 200);
    assert_eq!(asked(&world, &cookie, &[]).await, 401, "without the header");
    for site in ["cross-site", "same-site", "none"] {
        let foreign = [("x-volvelle-console", "user"), ("sec-fetch-site", site)];
        assert_eq!(asked(&world, &cookie, &foreign).await, 401, "{site}");
    }
    let elsewhere = [("x-volvelle-console", "user"), ("origin", "https://evil.example")];
    assert_eq!(asked(&world, &cookie, &elsewhere).await, 401);
    let body = json!({"access-id": world.admin.id, "access-key": world.admin.key});
    assert_eq!(post(&world, "/console/sign-in", &[], &body).await.0, 401, "nobody is signed in by another site");
    let mine = json!({"token": world.admin.token});
    let (status, ..) = post(&world, "/list-items", &[("cookie", "__Host-volvelle-1=t-1")], &mine).await;
    assert_eq!(status, 200, "a client's own token needs no header");
    let renamed = cookie.split_once('=').expect("a pair").1;
    assert_eq!(asked(&world, &format!("volvelle={renamed}"), OWN).await, 401, "no other cookie is one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_user_is_away_and_after_twelve_hours() {
    let world = World::start().await;
    let cookie = signed_in(&world).await;
    world.pass(29 * 60);
    assert_eq!(asked(&world, &cookie, OWN).await, 200);
    world.pass(29 * 60);
    assert_eq!(asked(&world, &cookie, QUIET).await, 200, "the page may ask");
    world.pass(2 * 60);
    assert_eq!(asked(&world, &cookie, QUIET).await, 401, "but keeps no session alive");
    let token = cookie.split_once('=').expect("a pair").1;
    assert_eq!(world.call(token, "list-items", json!({})).await.0, 401, "its token has ended too");

    let cookie = signed_in(&world).await;
    for _ in 0..24 {
        world.pass(29 * 60);
        assert_eq!(asked(&world, &cookie, OWN).await, 200);
    }
    world.pass(25 * 60);
    assert_eq!(asked(&world, &cookie, OWN).await, 401, "nobody stays for longer than twelve hours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_client_is_no_session_and_signing_out_ends_everything() {
    let world = World::start().await;
    let cookie = signed_in(&world).await;
    let name = cookie.split_once('=').expect("a pair").0;
    assert_eq!(asked(&world, &format!("{name}={}", world.admin.token), OWN).await, 401);
    let (status, headers, _) =
        post(&world, "/console/sign-out", &[OWN, &[("cookie", &cookie)]].concat(), &json!({})).await;
    assert_eq!(status, 200);
    assert!(headers["set-cookie"].to_str().expect("text").contains("Max-Age=0"));
    assert_eq!(asked(&world, &cookie, OWN).await, 401);

    let (one, other) = (signed_in(&world).await, signed_in(&world).await);
    let ended = post(&world, "/revoke-all-tokens", &[OWN, &[("cookie", &one)]].concat(), &json!({})).await;
    assert_eq!((ended.0, ended.2["revoked"].as_i64()), (200, Some(3)), "two sessions and a client's token");
    assert_eq!(asked(&world, &other, OWN).await, 401);
    assert_eq!(world.call(&world.admin.token, "list-items", json!({})).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_may_load_nothing_but_its_own_files() {
    let world = World::start().await;
    let client = reqwest::Client::new();
    let page = client.get(format!("http://{}/console/secrets?q=x", world.address)).send().await.expect("an answer");
    assert_eq!(page.status().as_u16(), 200, "every place is the page");
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]
    {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = page.text().await.expect("text");
    let script = text.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a script");
    let url = format!("http://{}{script}", world.address);
    let first = client.get(&url).header("accept-encoding", "gzip, br").send().await.expect("an answer");
    assert_eq!(first.headers()["content-encoding"], "gzip");
    assert!(first.headers()["cache-control"].to_str().expect("text").contains("immutable"));
    let tag = first.headers()["etag"].clone();
    let again = client.get(&url).header("if-none-match", tag).send().await.expect("an answer");
    assert_eq!(again.status().as_u16(), 304);
    for gone in ["/console/abc/main.js", "/console/../Cargo.toml.js"] {
        let answer = client.get(format!("http://{}{gone}", world.address)).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 404, "{gone}");
    }
    let document = client.get(format!("http://{}/openapi.json", world.address)).header("accept-encoding", "gzip");
    let packed = document.send().await.expect("an answer");
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert!(packed.bytes().await.expect("bytes").len() < 60_000);
}
