//! A whole gateway in this process: three real holders on loopback, SQLite, the real front, and a clock that can be moved.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use volvelle_api::Operation;
use volvelle_domain::Secret;
use volvelle_domain::ids::{AccessId, Clock, Micros};
use volvelle_gateway::app::App;
use volvelle_gateway::console::Console;
use volvelle_gateway::credentials::OsEntropy;
use volvelle_gateway::run::{SystemClock, first_account};
use volvelle_gateway::server::{Limits, serve};
use volvelle_gateway::trail;
use volvelle_holder::daemon::{self, HolderConfig};
use volvelle_holder::quorum::QuorumConfig;
use volvelle_holder::{CustomerFragments, Quorum, local};
use volvelle_rotation::{Engine, Parts, Settings, Vault};
use volvelle_store::Store;

/// A clock that stands still until it is moved, so that a slow machine changes nothing.
struct Moved(AtomicI64);

impl Clock for Moved {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::Relaxed))
    }
}

/// Somebody who can sign in.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: String,
    pub key: String,
    pub token: String,
}

/// A running gateway.
pub struct World {
    pub app: Arc<App>,
    pub store: Store,
    /// The administrator of the operator's account.
    pub admin: Person,
    pub address: SocketAddr,
    pub quorum: QuorumConfig,
    clock: Arc<Moved>,
    stop: CancellationToken,
    folder: Arc<TempDir>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A gateway over a store that may have others.
fn put_together(store: &Store, quorum: &QuorumConfig, fragments: CustomerFragments, clock: &Arc<Moved>) -> Arc<App> {
    let registry = volvelle_connectors::registry();
    let known = registry.clone();
    let parts = Parts {
        store: store.clone(),
        vault: Vault::new(Quorum::with_customer(quorum, fragments).expect("a quorum")),
        connectors: Arc::new(move |kind| known.get(kind)),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        entropy: Arc::new(OsEntropy),
        name: "test".to_owned(),
        settings: Settings::default(),
    };
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    Arc::new(App::new(Engine::new(parts), registry, trail::start(store.clone()), metrics))
}

/// Serves a gateway; gives the address.
async fn front(app: &Arc<App>, stop: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let console = Arc::new(Console::new(Arc::clone(app)));
    tokio::spawn(serve(listener, None, Limits::default(), console, stop.clone()));
    address
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(CustomerFragments::default()).await
    }

    /// The same with fragments of the customer's.
    pub async fn start_with(fragments: CustomerFragments) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = CancellationToken::new();
        let setup = local::prepare(&folder.path().join("holders"), 3, 2).expect("holders");
        for config in &setup.holder_configs {
            let config = HolderConfig::load(config).expect("a configuration");
            let ended = stop.clone();
            tokio::spawn(async move { daemon::run(config, ended.cancelled_owned()).await.expect("a holder") });
        }
        let url = format!("sqlite://{}", folder.path().join("v.db").display());
        let store = Store::open(&url).await.expect("a store");
        let clock = Arc::new(Moved(AtomicI64::new(SystemClock.now().0)));
        let app = put_together(&store, &setup.quorum, fragments, &clock);
        let admin =
            Person { id: "p-operator0001".to_owned(), key: "the operator's key".to_owned(), token: String::new() };
        let until = Instant::now() + Duration::from_secs(60);
        while let Err(error) = first_account(&app, (AccessId(admin.id.clone()), Secret::from(admin.key.as_str()))).await
        {
            assert!(Instant::now() < until, "the first account is made: {error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let address = front(&app, &stop).await;
        let (quorum, folder) = (setup.quorum, Arc::new(folder));
        let mut world = Self { app, store, admin, address, quorum, clock, stop, folder };
        world.admin.token = world.token(&world.admin.id, &world.admin.key).await;
        world
    }

    /// Another gateway with the same holders, database and clock, and with other fragments of the customer's.
    pub async fn beside(&self, fragments: CustomerFragments) -> Self {
        let stop = self.stop.child_token();
        let app = put_together(&self.store, &self.quorum, fragments, &self.clock);
        let address = front(&app, &stop).await;
        Self {
            app,
            store: self.store.clone(),
            admin: self.admin.clone(),
            address,
            quorum: self.quorum.clone(),
            clock: Arc::clone(&self.clock),
            stop,
            folder: Arc::clone(&self.folder),
        }
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    /// Signs the administrator in again; tokens end when much time passes.
    pub async fn renew_admin(&mut self) {
        self.admin.token = self.token(&self.admin.id, &self.admin.key).await;
    }

    /// Sends a call exactly so.
    pub async fn send(&self, from: &str, headers: &[&str], path: &str, body: &Value) -> (u16, Value) {
        let from: IpAddr = from.parse().expect("an address");
        let client = reqwest::Client::builder().local_address(from).build().expect("a client");
        let mut request = client.post(format!("http://{}{path}", self.address)).json(body);
        for value in headers {
            request = request.header("x-forwarded-for", *value);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("JSON"))
    }

    /// Calls an operation with a token.
    pub async fn call(&self, token: &str, operation: &str, mut body: Value) -> (u16, Value) {
        body["token"] = Value::from(token);
        self.send("127.0.0.1", &[], &format!("/{operation}"), &body).await
    }

    /// Calls an operation as the administrator, which must succeed.
    pub async fn done(&self, operation: &str, body: Value) -> Value {
        self.done_as(&self.admin.token, operation, body).await
    }

    /// Calls an operation, which must succeed.
    pub async fn done_as(&self, token: &str, operation: &str, body: Value) -> Value {
        let (status, answer) = self.call(token, operation, body.clone()).await;
        assert!((200..300).contains(&status), "{operation} {body}: {status} {answer}");
        answer
    }

    /// Calls an operation, which must be refused; gives status and code.
    pub async fn refused(&self, token: &str, operation: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(token, operation, body.clone()).await;
        assert!(status >= 400, "{operation} {body}: {status} {answer}");
        (status, answer["code"].as_str().expect("a code").to_owned())
    }

    /// Signs in; gives status and answer.
    pub async fn sign_in(&self, from: &str, headers: &[&str], id: &str, key: &str) -> (u16, Value) {
        self.send(from, headers, "/auth", &json!({"access-id": id, "access-key": key})).await
    }

    pub async fn token(&self, id: &str, key: &str) -> String {
        let (status, answer) = self.sign_in("127.0.0.1", &[], id, key).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Makes an identity in the operator's account and signs in with it.
    pub async fn person(&self, name: &str) -> Person {
        let made = self.done("auth-method-create-api-key", json!({ "name": name })).await;
        self.known(&made).await
    }

    /// Signs in with what an operation has just made.
    pub async fn known(&self, made: &Value) -> Person {
        let text = |name: &str| made[name].as_str().expect(name).to_owned();
        let (id, key) = (text("access_id"), text("access_key"));
        let token = self.token(&id, &key).await;
        Person { id, key, token }
    }

    /// Makes a role with rules `(type, path, capabilities)` and gives it to an identity.
    pub async fn role(&self, name: &str, am: &str, rules: &[(&str, &str, &str)]) -> String {
        self.done("create-role", json!({ "name": name })).await;
        for (rule_type, path, capabilities) in rules {
            let rule = json!({"role-name": name, "rule-type": rule_type, "path": path, "capability": capabilities});
            self.done("set-role-rule", rule).await;
        }
        let assoc = self.done("assoc-role-am", json!({"role-name": name, "am-name": am})).await;
        assoc["assoc_id"].as_str().expect("an id").to_owned()
    }

    /// Another account and its administrator.
    pub async fn tenant(&self, name: &str) -> Person {
        let made = self.done("account-create", json!({ "name": name })).await;
        self.known(&made).await
    }

    /// Everything an administrator sees of his account.
    pub async fn picture(&self, token: &str) -> Value {
        let mut out = Map::new();
        for operation in ["list-items", "target-list", "auth-method-list", "list-roles", "get-account-settings"] {
            out.insert(operation.to_owned(), self.done_as(token, operation, json!({})).await);
        }
        Value::Object(out)
    }

    /// How many accounts there are.
    pub async fn accounts(&self) -> usize {
        let mut tx = self.store.read().await.expect("a reader");
        volvelle_store::accounts::list(&mut tx).await.expect("accounts").len()
    }
}

/// Names that a generated body uses.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    pub item: &'a str,
    pub target: &'a str,
    pub role: &'a str,
    pub method: &'a str,
    pub assoc: &'a str,
}

/// A body with everything that an operation requires.
pub fn body(op: &Operation, names: &Names<'_>) -> Value {
    let properties = op.params.get("properties").and_then(Value::as_object).expect("properties");
    let required = op.params.get("required").and_then(Value::as_array).expect("a list");
    let object = match op.name.as_str() {
        name if name.starts_with("target") => names.target,
        name if name.contains("auth-method") || name == "reset-access-key" => names.method,
        name if name.ends_with("-role") => names.role,
        _ => names.item,
    };
    let mut out = Map::new();
    for name in required.iter().map(|name| name.as_str().expect("text")) {
        let value = match name {
            "name" => Value::from(object),
            "names" if properties[name]["type"] == "array" => json!([names.item]),
            "names" | "path" => Value::from(names.item),
            "role-name" => Value::from(names.role),
            "am-name" => Value::from(names.method),
            "assoc-id" => Value::from(names.assoc),
            "target-name" => Value::from(names.target),
            "rotator-type" => json!("password"),
            "desired-state" => json!("disabled"),
            "capability" => json!(["read"]),
            "type" if op.name == "explain-access" => json!("item-rule"),
            "type" => json!("item"),
            _ => match properties[name]["type"].as_str().expect("a type") {
                "integer" => json!(1),
                "boolean" => json!(true),
                "array" => json!(["x"]),
                "object" => json!({"x": "y"}),
                _ => json!("x"),
            },
        };
        out.insert(name.to_owned(), value);
    }
    if op.name == "delete-items" {
        out.insert("item".to_owned(), json!([names.item]));
    }
    Value::Object(out)
}
