//! The production set-up: two gateways with TLS on one PostgreSQL, three holder processes, a real host.

#[path = "production/rekey.rs"]
mod rekey;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use volvelle_holder::local::LocalSetup;
use volvelle_testkit::gateway::built_program;
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};
use volvelle_testkit::postgres::Postgres;
use volvelle_testkit::softhsm::{PIN, Token};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn holder(config: &Path) -> Result<Self> {
        Ok(Self(Command::new(built_program("volvelle-holder")?).arg("--config").arg(config).spawn()?))
    }
}

struct Site {
    folder: tempfile::TempDir,
    setup: LocalSetup,
    holders: Vec<Running>,
    client: reqwest::Client,
}

impl Site {
    fn start() -> Result<Self> {
        Self::start_of(3, 2)
    }

    fn start_of(n: u8, t: u8) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let setup = volvelle_holder::local::prepare(&folder.path().join("holders"), n, t)?;
        let mut holders = Vec::new();
        for config in &setup.holder_configs {
            holders.push(Running::holder(config)?);
        }
        secret_file(&folder.path().join("quorum.toml"), &toml::to_string(&setup.quorum)?)?;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem())?;
        secret_file(&folder.path().join("key.pem"), &made.signing_key.serialize_pem())?;
        let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes())?;
        let client = reqwest::Client::builder().add_root_certificate(root).timeout(Duration::from_secs(150)).build()?;
        Ok(Self { folder, setup, holders, client })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, name: &str, port: u16, store: &str) -> Result<PathBuf> {
        let path = self.file(name);
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\nstore = \"{store}\"\nquorum = {:?}\n[tls]\ncert = {:?}\nkey = {:?}\n",
            self.file("quorum.toml"),
            self.file("cert.pem"),
            self.file("key.pem"),
        );
        secret_file(&path, &text)?;
        Ok(path)
    }

    /// Starts a gateway and waits until it is ready.
    async fn gateway(&self, name: &str, store: &str) -> Result<(Running, String)> {
        self.gateway_with(name, store, ("", &[])).await
    }

    /// The same with more in its configuration and its environment.
    async fn gateway_with(
        &self,
        name: &str,
        store: &str,
        (more, environment): (&str, &[(&str, &Path)]),
    ) -> Result<(Running, String)> {
        let port = volvelle_testkit::port::free()?.port();
        let config = self.config(name, port, store)?;
        secret_file(&config, &format!("{}{more}", std::fs::read_to_string(&config)?))?;
        let mut command = Command::new(built_program("volvelle")?);
        command.args(["gateway", "--config"]).arg(config).arg("--first-account").arg(self.file("admin.json"));
        command.envs(environment.iter().copied());
        command.stderr(std::fs::OpenOptions::new().create(true).append(true).open(self.file("log"))?);
        let mut running = Running(command.spawn()?);
        let url = format!("https://localhost:{port}");
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = running.0.try_wait()? {
                bail!("the gateway ended with {status}: {}", std::fs::read_to_string(self.file("log"))?);
            }
            if self.client.get(format!("{url}/health")).send().await.is_ok_and(|answer| answer.status() == 200) {
                return Ok((running, url));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the gateway was not ready in time")
    }

    async fn post(&self, url: &str, operation: &str, body: Value) -> Result<Value> {
        let (status, body) = self.call(url, operation, body).await?;
        ensure!((200..300).contains(&status), "{operation}: {status} {body}");
        Ok(body)
    }

    async fn call(&self, url: &str, operation: &str, body: Value) -> Result<(u16, Value)> {
        let answer = self.client.post(format!("{url}/v2/{operation}")).json(&body).send().await?;
        Ok((answer.status().as_u16(), answer.json::<Value>().await?))
    }

    async fn token(&self, url: &str) -> Result<Value> {
        let admin: Value = serde_json::from_slice(&std::fs::read(self.file("admin.json"))?)?;
        let login = json!({"access-id": admin["access_id"], "access-key": admin["access_key"]});
        Ok(self.post(url, "auth", login).await?["token"].clone())
    }
}

fn secret_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).context("protecting a file")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_one_postgresql_rotate_and_read_the_same_secret() -> Result<()> {
    let (site, database) = (Site::start()?, Postgres::start()?);
    let host = Host::start(HostKind::Debian)?;
    let (_one, first) = site.gateway("one.toml", database.url()).await?;
    let (_two, second) = site.gateway("two.toml", database.url()).await?;
    let token = site.token(&first).await?;
    let target = json!({"token": token, "name": "/p/host", "host": host.addr.ip().to_string(), "ssh-username": "root",
        "ssh-password": INITIAL_PASSWORD});
    site.post(&first, "target-create-ssh", target).await?;
    for user in ["app1", "app2"] {
        let secret = json!({"token": token, "name": format!("/p/{user}"), "target-name": "/p/host", "rotator-type": "password",
            "rotated-username": user, "authentication-credentials": "use-target-creds"});
        site.post(&second, "rotated-secret-create-ssh", secret).await?;
    }
    let mut last = String::new();
    for round in 0..3 {
        // Both are asked at once, each through another gateway; one host is worked on by one worker at a time.
        let rotate = |url: String, name: &str| {
            let body = json!({"token": token, "name": name});
            let site = &site;
            async move { site.post(&url, "gateway-rotate-secret", body).await }
        };
        let (a, b) = tokio::join!(rotate(first.clone(), "/p/app1"), rotate(second.clone(), "/p/app2"));
        (a?, b?);
        for (url, user) in [(&first, "app1"), (&second, "app1"), (&first, "app2"), (&second, "app2")] {
            let body = json!({"token": token, "name": format!("/p/{user}")});
            let read = site.post(url, "rotated-secret-get-value", body).await?;
            let password = read["value"]["password"].as_str().context("a password")?.to_owned();
            assert!(host.shadow_is(user, &password)?, "round {round}: {user} read through {url} is stale");
            last = password;
        }
    }
    assert!(host.opens("app2", &last));
    let verified = site.post(&first, "audit-verify", json!({"token": token})).await?;
    assert_eq!(verified["valid"], true, "{verified}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_does_not_start_on_a_secret_that_everybody_can_read() -> Result<()> {
    let site = Site::start()?;
    let config = site.config("open.toml", 1, &format!("sqlite://{}", site.file("v.db").display()))?;
    std::fs::set_permissions(site.file("key.pem"), std::fs::Permissions::from_mode(0o644))?;
    let output = Command::new(built_program("volvelle")?)
        .args(["gateway", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("key.pem") && said.contains("chmod"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_in_a_token_seals_what_no_other_gateway_opens() -> Result<()> {
    let (site, hsm) = (Site::start()?, Token::start()?);
    hsm.make_key("fragment")?;
    // No derived key is kept, so that each read asks the token.
    let quorum = std::fs::read_to_string(site.file("quorum.toml"))?;
    secret_file(&site.file("quorum.toml"), &quorum.replace("kek_cache_seconds = 30", "kek_cache_seconds = 0"))?;
    let database = Postgres::start()?;
    let section = format!(
        "[customer_fragment.pkcs11]\nid = \"cf-token\"\nname = \"in the safe\"\nmodule = {:?}\ntoken = \"volvelle\"\n\
         key = \"fragment\"\npin_file = {:?}\n",
        hsm.module(),
        hsm.pin_file()
    );
    let configuration = hsm.configuration();
    let environment = [("SOFTHSM2_CONF", configuration.as_path())];
    let (owner, url) = site.gateway_with("owner.toml", database.url(), (&section, &environment)).await?;
    let (_other, elsewhere) = site.gateway("other.toml", database.url()).await?;
    let token = site.token(&url).await?;
    let listed = site.post(&url, "gateway-list-customer-fragments", json!({"token": token})).await?;
    assert_eq!(listed["customer_fragments"][0]["kept_in"], "token", "{listed}");
    let key = json!({"token": token, "name": "/k", "alg": "AES256GCM", "customer-frg-id": "cf-token"});
    site.post(&url, "create-dfc-key", key).await?;
    let secret = json!({"token": token, "name": "/s", "value": "of the token", "protection_key": "/k"});
    site.post(&url, "create-secret", secret).await?;
    let read = || json!({"token": token, "names": ["/s"]});
    for _ in 0..3 {
        assert_eq!(site.post(&url, "get-secret-value", read()).await?["/s"], "of the token");
    }
    let (status, answer) = site.call(&elsewhere, "get-secret-value", read()).await?;
    assert_eq!((status, &answer["code"]), (503, &json!("customer_fragment_missing")), "{answer}");

    // A restart finds the token again.
    drop(owner);
    let (owner, url) = site.gateway_with("owner.toml", database.url(), (&section, &environment)).await?;
    assert_eq!(site.post(&url, "get-secret-value", read()).await?["/s"], "of the token");
    let line = std::fs::read(format!("/proc/{}/cmdline", owner.0.id()))?;
    assert!(!String::from_utf8_lossy(&line).contains(PIN));

    // The key goes while the gateway runs, and then before it starts.
    hsm.destroy_key("fragment")?;
    let (status, answer) = site.call(&url, "get-secret-value", read()).await?;
    assert_eq!((status, &answer["code"]), (503, &json!("customer_fragment_token")), "{answer}");
    let (status, answer) =
        site.call(&url, "update-secret-val", json!({"token": token, "name": "/s", "value": "x"})).await?;
    assert_eq!((status, &answer["code"]), (503, &json!("customer_fragment_token")), "{answer}");
    // A key of the same name that comes while it runs is another fragment, and nothing is sealed with it.
    hsm.make_key("fragment")?;
    let more = json!({"token": token, "name": "/s2", "value": "v", "protection_key": "/k"});
    for (operation, body) in [("get-secret-value", read()), ("create-secret", more)] {
        let (status, answer) = site.call(&url, operation, body).await?;
        assert_eq!((status, &answer["code"]), (503, &json!("customer_fragment_token")), "{answer}");
        assert!(
            answer["error"].as_str().is_some_and(|text| text.contains("another one than at the start")),
            "{answer}"
        );
    }
    hsm.destroy_key("fragment")?;
    drop(owner);
    let started = site.gateway_with("owner.toml", database.url(), (&section, &environment)).await;
    let refused = started.err().context("it does not start")?.to_string();
    assert!(refused.contains("cf-token") && refused.contains("no secret key with the label"), "{refused}");
    // Another key under the same name is another fragment, and it is noticed.
    hsm.make_key("fragment")?;
    let (_owner, url) = site.gateway_with("owner.toml", database.url(), (&section, &environment)).await?;
    let (status, answer) = site.call(&url, "get-secret-value", read()).await?;
    assert_eq!((status, &answer["code"]), (503, &json!("customer_fragment_wrong")), "{answer}");
    assert!(!std::fs::read_to_string(site.file("log"))?.contains(PIN), "the log has the PIN");
    Ok(())
}
