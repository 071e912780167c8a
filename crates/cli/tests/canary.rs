//! A password that the product knows occurs nowhere but on the wire to those who may see it: not in
//! logs, files, metrics, error answers or process lists; and no process that knows one may leave a core file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use volvelle_testkit::{
    gateway::DevGateway,
    hosts::{Host, HostKind},
};

const CANARY: &str = "Canary-8f2c61d0-Passw0rd!";

#[tokio::test(flavor = "multi_thread")]
async fn a_known_password_occurs_nowhere() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    host.set_password("root", CANARY)?;
    let target = json!({"name": "/canary/target", "host": host.addr.ip().to_string(), "port": "22",
        "ssh-username": "root", "ssh-password": CANARY});
    let mut answers = vec![gateway.post("target-create-ssh", target).await?.1];
    let secret = json!({"name": "/canary/secret", "target-name": "/canary/target", "rotator-type": "password",
        "rotated-username": "root", "rotated-password": CANARY, "authentication-credentials": "use-user-creds"});
    let (status, answer) = gateway.post("rotated-secret-create-ssh", secret.clone()).await?;
    ensure!(status < 300, "creating the secret: {status}");
    answers.push(answer);
    answers.push(gateway.post("rotated-secret-create-ssh", secret).await?.1);
    let processes = process_list()?;
    answers.push(gateway.post("gateway-rotate-secret", json!({"name": "/canary/secret"})).await?.1);
    let (_, read) = gateway.post("rotated-secret-get-value", json!({"name": "/canary/secret"})).await?;
    let rotated = read["value"]["password"].as_str().context("a password")?.to_owned();
    assert!(host.shadow_is("root", &rotated)?);
    answers.push(gateway.post("describe-item", json!({"name": "/canary/secret", "show-versions": true})).await?.1);
    answers.push(gateway.post("rotated-secret-create-ssh", json!({"name": 7, "rotated-password": CANARY})).await?.1);

    for pid in gateway.holders().into_iter().chain([gateway.pid()]) {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("the limit")?;
        let words: Vec<&str> = core.split_whitespace().collect();
        ensure!(words[4..6] == ["0", "0"], "process {pid} may leave a core file: {core}");
    }

    let (_, metrics) = gateway.get("metrics").await?;
    let (log, host_log) = (gateway.log()?, host.server_log()?);
    let answers = Value::Array(answers).to_string();
    let places = [
        ("log", &log),
        ("host log", &host_log),
        ("metrics", &metrics),
        ("answers", &answers),
        ("processes", &processes),
    ];
    for secret in [CANARY, &rotated] {
        for (place, text) in places {
            assert!(!text.contains(secret), "a password is in the {place}");
        }
        for file in files(&gateway.data_dir())? {
            assert!(!contains(&std::fs::read(&file)?, secret), "a password is in {}", file.display());
        }
    }
    Ok(())
}

fn process_list() -> Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&line));
    }
    Ok(text)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
