//! Which gateway is asked, as whom, and the token kept between calls.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::{Map, Value, json};
use volvelle_api::Client;

use crate::{Failed, secrets};

struct Login {
    url: String,
    id: String,
    key: String,
}

fn flag(leaf: &ArgMatches, name: &str) -> Option<String> {
    leaf.get_one::<String>(&format!("g:{name}")).cloned()
}

fn env(name: &str) -> Option<String> {
    ["VOLVELLE_", "AKEYLESS_"].iter().find_map(|p| std::env::var(format!("{p}{name}")).ok()).filter(|v| !v.is_empty())
}

fn home() -> PathBuf {
    etcetera::home_dir().unwrap_or_default()
}

fn login(leaf: &ArgMatches) -> Result<Login, Failed> {
    let mut out = Login { url: "http://127.0.0.1:8080".to_owned(), id: String::new(), key: String::new() };
    if let Some(dir) = flag(leaf, "data-dir") {
        let file = Path::new(&dir).join("admin.json");
        let text = std::fs::read_to_string(&file).map_err(|e| {
            Failed::new(format!("cannot read {}: {e}", file.display()), "has `volvelle dev` run with this folder?")
        })?;
        let admin: Value =
            serde_json::from_str(&text).map_err(|_| Failed::new(format!("{} is not JSON", file.display()), ""))?;
        take(&mut out, |name| admin[if name == "gateway-url" { "url" } else { name }].as_str().map(str::to_owned));
    } else {
        let name = flag(leaf, "profile").unwrap_or_else(|| "default".to_owned());
        let found = [".volvelle", ".akeyless"]
            .iter()
            .find_map(|d| std::fs::read_to_string(home().join(d).join("profiles").join(format!("{name}.toml"))).ok());
        if let Some(profile) = found.and_then(|t| t.parse::<toml::Table>().ok()) {
            let own = profile.get(&name).and_then(toml::Value::as_table).unwrap_or(&profile);
            take(&mut out, |n| {
                own.get(n).or_else(|| own.get(&n.replace('-', "_"))).and_then(toml::Value::as_str).map(str::to_owned)
            });
        }
        out.id = env("ACCESS_ID").unwrap_or(out.id);
        out.key = env("ACCESS_KEY").unwrap_or(out.key);
        out.url = env("GATEWAY_URL").unwrap_or(out.url);
    }
    out.url = flag(leaf, "gateway-url").unwrap_or(out.url);
    Ok(out)
}

fn take(out: &mut Login, get: impl Fn(&str) -> Option<String>) {
    out.url = get("gateway-url").unwrap_or(std::mem::take(&mut out.url));
    out.id = get("access-id").or_else(|| get("access_id")).unwrap_or_default();
    out.key = get("access-key").or_else(|| get("access_key")).unwrap_or_default();
}

/// A client which is not signed in.
pub fn connect(leaf: &ArgMatches) -> Result<Client, Failed> {
    client(&login(leaf)?.url, leaf)
}

fn client(url: &str, leaf: &ArgMatches) -> Result<Client, Failed> {
    let ca = flag(leaf, "ca-cert")
        .map(std::fs::read)
        .transpose()
        .map_err(|e| Failed::new(format!("cannot read the certificate: {e}"), ""))?;
    Ok(Client::new(url, ca.as_deref())?)
}

/// A signed-in client.
pub async fn open(leaf: &ArgMatches) -> Result<Client, Failed> {
    let login = login(leaf)?;
    let mut client = client(&login.url, leaf)?;
    if login.id.is_empty() {
        return Err(Failed {
            code: 4,
            message: "nobody is signed in".to_owned(),
            hint: "volvelle configure, --data-dir DIR or VOLVELLE_ACCESS_ID".to_owned(),
        });
    }
    let cache = home().join(".volvelle").join("tokens.json");
    let mut tokens: Map<String, Value> =
        std::fs::read_to_string(&cache).ok().and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
    let slot = format!("{} {}", login.url, login.id);
    if let Some(token) = tokens.get(&slot).and_then(Value::as_str) {
        client.set_token(Some(token.to_owned()));
        if client.call("validate-token", Map::new()).await.is_ok_and(|a| a["is_valid"] == true) {
            return Ok(client);
        }
        client.set_token(None);
    }
    let body = json!({"access-id": login.id, "access-key": login.key, "access-type": "access_key"});
    let answer = client.call("auth", body.as_object().cloned().unwrap_or_default()).await?;
    let token =
        answer["token"].as_str().map(str::to_owned).ok_or_else(|| Failed::new("the gateway gave no token", ""))?;
    tokens.insert(slot, Value::String(token.clone()));
    // A cache that cannot be written only costs one more sign-in.
    let _ = private(&cache, &Value::Object(tokens).to_string());
    client.set_token(Some(token));
    Ok(client)
}

/// Writes a profile.
pub fn configure(leaf: &ArgMatches) -> Result<(), Failed> {
    let key = secrets::read("access-key", leaf.get_one::<String>("access-key").map_or("?", String::as_str))?;
    let name = flag(leaf, "profile").unwrap_or_else(|| "default".to_owned());
    let mut table = toml::Table::new();
    table.insert("access_id".to_owned(), leaf.get_one::<String>("access-id").cloned().unwrap_or_default().into());
    table.insert("access_key".to_owned(), key.into());
    table.insert("access_type".to_owned(), "access_key".into());
    if let Some(url) = flag(leaf, "gateway-url") {
        table.insert("gateway_url".to_owned(), url.into());
    }
    let mut outer = toml::Table::new();
    outer.insert(name.clone(), table.into());
    let file = home().join(".volvelle").join("profiles").join(format!("{name}.toml"));
    private(&file, &outer.to_string()).map_err(|e| Failed::new(format!("cannot write {}: {e}", file.display()), ""))?;
    println!("wrote {}", file.display());
    Ok(())
}

fn private(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?.write_all(text.as_bytes())?;
    std::fs::rename(part, file)
}
