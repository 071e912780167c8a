//! Web hooks and local programs through a real gateway.

use std::os::unix::fs::PermissionsExt;

use volvelle_testkit::gateway::built_program;
use volvelle_testkit::hook::{Hook, Manners};

use super::*;

const NAME: &str = "/hooks/secret";

async fn create(gateway: &mut DevGateway, url: &str, more: Value) -> Result<()> {
    succeed(gateway, "target-create-web", json!({"name": "/hooks/target", "url": url})).await?;
    let mut secret = json!({"name": NAME, "target-name": "/hooks/target", "custom-payload": "first", "timeout-sec": 3});
    for (name, value) in more.as_object().context("an object")? {
        secret[name] = value.clone();
    }
    succeed(gateway, "rotated-secret-create-custom", secret).await.map(|_| ())
}

async fn payload(gateway: &mut DevGateway) -> Result<String> {
    let answer = succeed(gateway, "rotated-secret-get-value", json!({"name": NAME})).await?;
    Ok(answer["value"]["payload"].as_str().context("a payload")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_rotates_a_payload_and_its_schedule_counts_minutes() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let hook = Hook::start("first").await?;
    let more = json!({"auto-rotate": "true", "rotation-interval": "90", "enable-password-policy": "true", "password-length": "31"});
    create(&mut gateway, &hook.url(), more).await?;
    assert_eq!(payload(&mut gateway).await?, "first");
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
    assert_eq!(payload(&mut gateway).await?, hook.known().payload);
    let sent = hook.known().requests.remove(0).1;
    assert_eq!((&sent["payload"], &sent["password-length"]), (&json!("first"), &json!("31")));
    let item = succeed(&mut gateway, "describe-item", json!({"name": NAME})).await?;
    let details = &item["item_general_info"]["rotated_secret_details"];
    assert_eq!(details["rotation_interval_min"], true, "{item}");
    assert_eq!(details["rotator_type"], "custom-rotator", "{item}");
    assert_eq!(item["item_targets_assoc"][0]["target_type"], "web", "{item}");
    // A refusal keeps the value, and says so.
    hook.set(Manners::Refuses(500));
    let (status, answer) = gateway.post("gateway-rotate-secret", json!({"name": NAME})).await?;
    assert!(status >= 400 && answer["code"] == "rotation_failed", "{status} {answer}");
    assert_eq!(payload(&mut gateway).await?, "payload 1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_dropped() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let hook = Hook::start("first").await?;
    create(&mut gateway, &hook.url(), json!({})).await?;
    hook.set(Manners::Silent);
    let asked = tokio::time::timeout(
        std::time::Duration::from_secs(4),
        gateway.post("gateway-rotate-secret", json!({"name": NAME})),
    );
    drop(asked.await);
    assert!(hook.known().changes >= 1, "the hook made the change");
    hook.set(Manners::Proper);
    for _ in 0..300 {
        if payload(&mut gateway).await? == hook.known().payload {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    anyhow::bail!("the stored payload is {} and the hook has {}", payload(&mut gateway).await?, hook.known().payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_asks_the_gateway_who_called_it() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let hook = Hook::start("first").await?;
    create(&mut gateway, &hook.url(), json!({})).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
    let headers = hook.known().requests.remove(0).0;
    let proof = headers.iter().find(|(name, _)| name == "akeylesscreds").context("the header")?.1.clone();
    let account = proof.split('.').next().context("an account")?.to_owned();
    let ask = async |proof: &str, account: &str, item: &str| {
        let body = json!({"creds": proof, "expected_access_id": account, "expected_item_name": item});
        let Value::Object(body) = body else { anyhow::bail!("an object") };
        gateway.post_as_is("validate-producer-credentials", body).await
    };
    for item in ["", NAME] {
        let (status, answer) = ask(&proof, &account, item).await?;
        assert_eq!((status, answer["access_id"].as_str()), (200, Some(account.as_str())), "{answer}");
    }
    let forged = format!("{}00", &proof[..proof.len() - 2]);
    let of_another = proof.replacen(&account, "acc-000000000000", 1);
    for (proof, expected, item) in [
        (forged.as_str(), account.as_str(), ""),
        (of_another.as_str(), "acc-000000000000", ""),
        (proof.as_str(), "p-another", ""),
        (proof.as_str(), account.as_str(), "/hooks/other"),
    ] {
        assert_eq!(ask(proof, expected, item).await?.0, 401, "{expected} {item}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_rotates_only_where_the_gateway_allows_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rotate");
    std::fs::write(&path, "#!/bin/sh\ncat >/dev/null\nprintf '{\"payload\": \"by a program\"}'\n")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let url = format!("exec:{}", path.display());
    let mut closed = DevGateway::start().await?;
    let (status, answer) = closed.post("target-create-web", json!({"name": "/hooks/target", "url": url})).await?;
    assert!(status >= 400 && answer.to_string().contains("VOLVELLE_ALLOW_EXEC"), "{status} {answer}");
    let allowed = path.display().to_string();
    let mut open =
        DevGateway::start_program(built_program("volvelle")?, &[("VOLVELLE_ALLOW_EXEC", allowed.as_str())]).await?;
    create(&mut open, &url, json!({})).await?;
    succeed(&mut open, "gateway-rotate-secret", json!({"name": NAME})).await?;
    assert_eq!(payload(&mut open).await?, "by a program");
    Ok(())
}
