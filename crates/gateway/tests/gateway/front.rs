//! The gateway's front over real sockets, and the children's supervisor over real processes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use volvelle_gateway::ApiError;
use volvelle_gateway::children::{DirLock, supervise};
use volvelle_gateway::config::{Config, Tls, acceptor};
use volvelle_gateway::server::{Answer, Call, Limits, Operations, serve};

#[derive(Clone, Default)]
struct Echo {
    /// Operations `slow` that began, and that came to their end.
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

#[async_trait]
impl Operations for Echo {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, ApiError>> {
        Box::pin(async move {
            match call.operation.as_str() {
                "echo" => {
                    let params: Map<String, Value> =
                        serde_json::from_slice(&call.body).map_err(|_| ApiError::BadBody)?;
                    Ok(Answer::json(StatusCode::CREATED, &json!({"params": params, "from": &*call.from.remote.shown})))
                }
                "slow" => {
                    self.begun.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    self.ended.fetch_add(1, Ordering::SeqCst);
                    Ok(Answer::json(StatusCode::OK, &json!({})))
                }
                "sleep" => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    Ok(Answer::json(StatusCode::OK, &json!({})))
                }
                other => Err(ApiError::UnknownCommand(other.to_owned())),
            }
        })
    }

    async fn health(&self) -> Result<Value, ApiError> {
        Ok(json!({"status": "ok"}))
    }

    fn openapi(&self) -> Value {
        json!({"openapi": "3.1.0"})
    }

    fn metrics(&self) -> String {
        "up 1\n".to_owned()
    }
}

async fn started(tls: Option<&Tls>) -> (SocketAddr, CancellationToken) {
    let half_a_second = Duration::from_millis(500);
    started_with(tls, Limits { header: half_a_second, request: half_a_second, ..Limits::default() }).await
}

async fn started_with(tls: Option<&Tls>, limits: Limits) -> (SocketAddr, CancellationToken) {
    serving(Echo::default(), tls, limits).await
}

async fn serving(echo: Echo, tls: Option<&Tls>, limits: Limits) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let tls = tls.map(|tls| acceptor(tls).expect("certificate"));
    tokio::spawn(serve(listener, tls, limits, Arc::new(echo), stop.clone()));
    (address, stop)
}

async fn post(address: SocketAddr, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let answer =
        reqwest::Client::new().post(format!("http://{address}{path}")).body(body).send().await.expect("answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn operations_are_reached_under_every_base() {
    let (address, stop) = started(None).await;
    for base in ["", "/v2", "/api/v2"] {
        let (status, body) = post(address, &format!("{base}/echo"), r#"{"a":1}"#).await;
        assert_eq!((status, &body["params"]), (201, &json!({"a": 1})));
    }
    for path in ["/", "/v2/", "/v2", "/api/v2/", "/api/v2/nothing", "/x/y/z"] {
        let (status, body) = post(address, path, "").await;
        assert_eq!(status, 404);
        assert!(body["error"].as_str().expect("text").contains("unknown command"), "{path}: {body}");
        assert_eq!(body["code"], "unknown_command");
        assert_eq!(body["request_id"].as_str().expect("id").len(), 16);
    }
    for path in ["health", "openapi.json", "metrics"] {
        assert_eq!(reqwest::get(format!("http://{address}/{path}")).await.expect("answer").status(), 200);
    }
    stop.cancel();
}

#[tokio::test]
async fn bodies_and_time_are_bounded() {
    let (address, stop) = started(None).await;
    assert_eq!(post(address, "/echo", "[1]").await.1["code"], "bad_body");
    assert_eq!(post(address, "/echo", "{").await.0, 400);
    assert_eq!(post(address, "/sleep", "{}").await.1["code"], "timeout");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(post(address, "/echo", long).await.0, 413);
    let mut slow = TcpStream::connect(address).await.expect("connected");
    slow.write_all(b"POST /echo HTTP/1.1\r\n").await.expect("sent");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), slow.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "a head that never ends is cut off");
    stop.cancel();
}

const ECHO: &[u8] = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\n{\"a\":1}";

/// Sends `pieces`, with a pause before each but the first, and gives everything that comes until the connection ends.
async fn told(address: SocketAddr, pieces: &[&[u8]], no_more: bool) -> String {
    let mut client = TcpStream::connect(address).await.expect("connected");
    for (n, piece) in pieces.iter().enumerate() {
        tokio::time::sleep(Duration::from_secs(u64::from(n > 0))).await;
        client.write_all(piece).await.expect("sent");
    }
    if no_more {
        client.shutdown().await.expect("no more");
    }
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the connection ends");
    String::from_utf8(heard).expect("text")
}

#[tokio::test]
async fn each_request_of_a_connection_has_its_own_time() {
    let (address, stop) = started_with(None, Limits { header: Duration::from_secs(3), ..Limits::default() }).await;
    // Together they last longer than one head may, and each is in time; the last one never ends.
    let heard = told(address, &[ECHO, ECHO, ECHO, ECHO, b"POST /echo HTTP/1.1\r\n"], false).await;
    assert_eq!(heard.matches("HTTP/1.1 201").count(), 4, "{heard}");
    stop.cancel();
}

async fn reaches(count: &AtomicUsize, wanted: usize) {
    let all = async {
        while count.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("so many");
}

#[tokio::test]
async fn what_has_begun_is_brought_to_its_end_whoever_left() {
    let echo = Echo::default();
    let (address, stop) = serving(echo.clone(), None, Limits::default()).await;
    for (n, broken) in [(1, false), (2, true)] {
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await.expect("sent");
        reaches(&echo.begun, n).await;
        if broken {
            client.set_zero_linger().expect("set");
        }
        drop(client);
    }
    reaches(&echo.ended, 2).await;
    stop.cancel();
}

#[tokio::test]
async fn a_client_that_says_no_more_is_answered() {
    let (address, stop) = started(None).await;
    let heard = told(address, &[ECHO], true).await;
    assert!(heard.starts_with("HTTP/1.1 201") && heard.ends_with('}'), "{heard}");
    stop.cancel();
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
}

#[tokio::test]
async fn tls_serves_and_open_secret_files_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    let tls = Tls { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
    write(&tls.cert, &made.cert.pem(), 0o644);
    write(&tls.key, &made.signing_key.serialize_pem(), 0o600);
    let (address, stop) = started(Some(&tls)).await;
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).expect("root");
    let client =
        reqwest::Client::builder().tls_certs_only([root]).resolve("localhost", address).build().expect("client");
    let url = format!("https://localhost:{}/health", address.port());
    assert_eq!(client.get(url).send().await.expect("answer").status(), 200);
    stop.cancel();

    let quorum = dir.path().join("quorum.toml");
    write(&quorum, "", 0o600);
    let file = dir.path().join("gateway.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nstore = \"sqlite:///x.db\"\nquorum = {:?}\n[tls]\ncert = {:?}\nkey = {:?}\n",
        quorum, tls.cert, tls.key
    );
    write(&file, &text, 0o600);
    assert!(Config::load(&file).is_ok());
    write(&tls.key, &made.signing_key.serialize_pem(), 0o644);
    let refused = Config::load(&file).err().expect("refused").to_string();
    assert!(refused.contains("everybody can read it"), "{refused}");
}

#[test]
fn one_gateway_per_directory() {
    let dir = tempfile::tempdir().expect("dir");
    let held = DirLock::take(dir.path()).expect("free");
    assert!(DirLock::take(dir.path()).is_err());
    drop(held);
    assert!(DirLock::take(dir.path()).is_ok());
}

async fn pid_in(path: &Path, not: Option<i32>) -> i32 {
    for _ in 0..200 {
        let found = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        match found {
            Some(pid) if Some(pid) != not => return pid,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("no child wrote {}", path.display());
}

#[tokio::test]
async fn dead_children_come_back_and_none_outlives_the_end() {
    let dir = tempfile::tempdir().expect("dir");
    let script = dir.path().join("holder");
    write(&script, "#!/bin/sh\necho $$ > \"$2.pid\"\nexec cat\n", 0o700);
    let config = dir.path().join("h1");
    let pid_file = dir.path().join("h1.pid");
    let stop = CancellationToken::new();
    let running = tokio::spawn(supervise(script, vec![config], stop.clone()));
    let first = pid_in(&pid_file, None).await;
    let raw = rustix::process::Pid::from_raw(first).expect("a pid");
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).expect("killed");
    let second = pid_in(&pid_file, Some(first)).await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running).await.expect("stops in time").expect("no panic");
    assert!(!Path::new(&format!("/proc/{second}")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_many_are_in_an_unbroken_chain() {
    use volvelle_domain::account::{Account, AccountSettings};
    use volvelle_domain::ids::{AccountId, Micros, Uid};
    use volvelle_gateway::trail::{Basis, Noted, Written};
    use volvelle_store::audit::{self, Entry, Verdict};

    let dir = tempfile::tempdir().expect("dir");
    let url = format!("sqlite://{}/v.db", dir.path().display());
    let store = volvelle_store::Store::open(&url).await.expect("store");
    let ids = [AccountId("acc-aaaaaaaaaaaa".to_owned()), AccountId("acc-bbbbbbbbbbbb".to_owned())];
    let mut tx = store.begin().await.expect("tx");
    for (n, id) in (1_u8..).zip(&ids) {
        let account = Account {
            id: id.clone(),
            name: "test".to_owned(),
            realm: Uid([n; 16]),
            key_id: 1,
            generation: 0,
            content: 0,
            operator: false,
            created_at: Micros(0),
            settings: AccountSettings::default(),
        };
        volvelle_store::accounts::add(&mut tx, &account).await.expect("account");
    }
    tx.commit().await.expect("committed");
    let trail = volvelle_gateway::trail::start(store.clone());
    let readers = (0..200_usize).map(|n| {
        let (trail, id) = (trail.clone(), ids[n % 2].clone());
        tokio::spawn(async move {
            let entry = Entry {
                at: Micros(1),
                actor: "p-1".to_owned(),
                action: "get_secret_value".to_owned(),
                object: format!("/a/{n}"),
                outcome: "ok".to_owned(),
                remote: "127.0.0.1".to_owned(),
                detail: String::new(),
                request: String::new(),
            };
            trail.commit(Noted { account: id, line: entry.line(), basis: Basis::Nothing }).await
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await.expect("no panic").expect("durable"), Written::Durable);
    }
    // What was decided before a change is not written; what depends on the rules alone minds only them.
    let at = |basis| Noted {
        account: ids[0].clone(),
        basis,
        line: audit::Said {
            at: Micros(1),
            actor: "p-1",
            action: "stale",
            object: "",
            outcome: "ok",
            remote: "",
            detail: "",
            request: "",
        }
        .line(),
    };
    let mut tx = store.begin().await.expect("begins");
    let (generation, content) = volvelle_store::accounts::stamp(&mut tx, &ids[0]).await.expect("a stamp");
    volvelle_store::accounts::bump_content(&mut tx, &ids[0]).await.expect("a change");
    tx.commit().await.expect("committed");
    for (basis, written) in [
        (Basis::All((generation, content)), Written::Stale),
        (Basis::Rules(generation), Written::Durable),
        (Basis::Rules(generation - 1), Written::Stale),
    ] {
        assert_eq!(trail.commit(at(basis)).await.expect("decided"), written, "{basis:?}");
    }
    let mut tx = store.read().await.expect("reader");
    for id in &ids {
        assert_eq!(
            audit::verify(&mut tx, id).await.expect("verified"),
            Verdict::Whole(if *id == ids[0] { 101 } else { 100 })
        );
    }
}
