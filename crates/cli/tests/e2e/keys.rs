//! The customer's fragment with the built programs and a real host.

use std::process::Command;

use volvelle_testkit::gateway::built_program;

use super::*;

/// Makes a fragment with the program; gives its id.
fn generate(file: &std::path::Path) -> Result<String> {
    let made = Command::new(built_program("volvelle")?)
        .args(["gen-customer-fragment", "--name", "safe", "--description", "of the test", "--out"])
        .arg(file)
        .env_clear()
        .output()?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "{said}");
    ensure!(said.contains("loses everything") && made.stdout.is_empty(), "losing it is spoken of: {said}");
    let text: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let one = &text["customer_fragments"][0];
    ensure!(one["name"] == "safe" && one["description"] == "of the test", "the vendor's format");
    let value = one["value"].as_str().context("a value")?;
    ensure!(!said.contains(value), "the value is in the file only");
    Ok(one["id"].as_str().context("an id")?.to_owned())
}

async fn refused(gateway: &mut DevGateway, operation: &str, body: Value) -> Result<()> {
    let (status, answer) = gateway.post(operation, body).await?;
    ensure!(status == 503 && answer["code"] == "customer_fragment_missing", "{operation}: {status} {answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_the_fragment_keeps_its_hands_off_what_needs_it() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    let (file, away) = (gateway.data_dir().join("customer_fragments.json"), gateway.data_dir().join("away"));
    let id = generate(&file)?;
    ensure!(generate(&file).is_err(), "a fragment that is there is not overwritten");
    gateway.stop().await?;
    gateway.restart().await?;
    let key = json!({"name": "/keys/safe", "alg": "AES256GCM", "customer-frg-id": id});
    succeed(&mut gateway, "create-dfc-key", key).await?;
    let target = json!({"name": "/e2e/target", "host": host.addr.ip().to_string(), "port": host.addr.port(),
        "ssh-username": "root", "ssh-password": INITIAL_PASSWORD, "key": "/keys/safe"});
    succeed(&mut gateway, "target-create-ssh", target).await?;
    let secret = json!({"name": "/e2e/secret", "target-name": "/e2e/target", "rotator-type": "password",
        "rotated-username": "app1", "authentication-credentials": "use-target-creds", "key": "/keys/safe"});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/e2e/secret"})).await?;
    let first = value(&mut gateway, "/e2e/secret").await?;
    ensure!(host.shadow_is("app1", &first)?, "the first value is the host's");
    gateway.stop().await?;

    std::fs::rename(&file, &away)?;
    gateway.restart().await?;
    ensure!(gateway.log()?.contains(&id), "the log names the fragment");
    ensure!(gateway.get("health").await?.1.contains("\"customer_fragments\":\"missing\""));
    refused(&mut gateway, "rotated-secret-get-value", json!({"name": "/e2e/secret"})).await?;
    refused(&mut gateway, "gateway-rotate-secret", json!({"name": "/e2e/secret"})).await?;
    refused(&mut gateway, "target-get-details", json!({"name": "/e2e/target"})).await?;
    succeed(&mut gateway, "create-secret", json!({"name": "/e2e/other", "value": "v"})).await?;
    ensure!(host.shadow_is("app1", &first)?, "nothing was changed");
    gateway.stop().await?;

    std::fs::rename(&away, &file)?;
    gateway.restart().await?;
    ensure!(value(&mut gateway, "/e2e/secret").await? == first);
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/e2e/secret"})).await?;
    let second = value(&mut gateway, "/e2e/secret").await?;
    ensure!(second != first && host.shadow_is("app1", &second)?, "it rotates again");
    gateway.stop().await?;

    let text = std::fs::read_to_string(&file)?;
    let kept: Value = serde_json::from_str(&text)?;
    let kept = kept["customer_fragments"][0]["value"].as_str().context("a value")?;
    ensure!(!gateway.log()?.contains(kept), "the log has the fragment");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o604))?;
    ensure!(gateway.restart().await.is_err() && gateway.log()?.contains("everybody can read"));
    Ok(())
}
