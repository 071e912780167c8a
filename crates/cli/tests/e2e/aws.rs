//! AWS access keys through a real gateway: the value that is read opens, whatever is killed, and nothing else is left on the user.

use anyhow::bail;
use volvelle_testkit::aws::{Aws, Key};
use volvelle_testkit::gateway::built_program;

use super::*;

const NAME: &str = "/aws/app";
const MOST_SAVES: u32 = 64;

/// A gateway that reaches this AWS, an administrator's key as the target, and a secret for the key of the user `app`.
async fn start(aws: &Aws, more: Value) -> Result<DevGateway> {
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ["iam:ListAccessKeys",
        "iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey", "iam:GetAccessKeyLastUsed"]}]});
    let admin = aws.user("admin", Some(policy), 1).await?.remove(0);
    let key = aws.user("app", None, 1).await?.remove(0);
    let mut gateway =
        DevGateway::start_program(built_program("volvelle")?, &[("AWS_ENDPOINT_URL", aws.url().as_str())]).await?;
    let target =
        json!({"name": "/aws/target", "access-key-id": admin.id, "access-key": admin.secret, "region": "eu-central-1"});
    succeed(&mut gateway, "target-create-aws", target).await?;
    let mut secret = json!({"name": NAME, "target-name": "/aws/target", "rotator-type": "api-key", "api-id": key.id,
        "api-key": key.secret, "authentication-credentials": "use-target-creds"});
    for (name, value) in more.as_object().context("an object")? {
        secret[name] = value.clone();
    }
    succeed(&mut gateway, "rotated-secret-create-aws", secret).await?;
    Ok(gateway)
}

/// The key that readers get.
async fn read(gateway: &mut DevGateway, name: &str) -> Result<Key> {
    let answer = succeed(gateway, "rotated-secret-get-value", json!({"name": name})).await?;
    let field = |field: &str| answer["value"][field].as_str().map(str::to_owned).context("a text");
    Ok(Key { id: field("username")?, secret: field("password")?, status: "Active".to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_key_is_replaced_and_the_former_one_deleted() -> Result<()> {
    let aws = Aws::start()?;
    let mut gateway = start(&aws, json!({})).await?;
    let mut before = read(&mut gateway, NAME).await?;
    for _ in 0..2 {
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
        let after = read(&mut gateway, NAME).await?;
        assert_ne!(before.id, after.id);
        assert_eq!(aws.keys("app").await?, std::slice::from_ref(&after));
        before = after;
    }
    let verified = succeed(&mut gateway, "rotated-secret-verify", json!({"name": NAME})).await?;
    assert_eq!(verified["hosts"][0]["status"], "valid", "{verified}");
    // A key of somebody else takes the second place: nothing is deleted, and it is said why.
    aws.add_key("app").await?;
    let (status, answer) = gateway.post("gateway-rotate-secret", json!({"name": NAME})).await?;
    assert!(status >= 400 && answer["error"].to_string().contains("two access keys"), "{status} {answer}");
    assert_eq!(aws.keys("app").await?.len(), 2);
    assert_eq!(read(&mut gateway, NAME).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_targets_own_key_rotates_and_goes_on_acting() -> Result<()> {
    let aws = Aws::start()?;
    let mut gateway = start(&aws, json!({})).await?;
    let own = json!({"name": "/aws/own", "target-name": "/aws/target", "rotator-type": "target"});
    succeed(&mut gateway, "rotated-secret-create-aws", own).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/aws/own"})).await?;
    assert_eq!(aws.keys("admin").await?, [read(&mut gateway, "/aws/own").await?]);
    let details = succeed(&mut gateway, "target-get-details", json!({"name": "/aws/target"})).await?;
    let shown = &details["value"]["aws_target_details"]["aws_access_key_id"];
    assert_eq!(shown.as_str(), Some(aws.keys("admin").await?[0].id.as_str()), "{details}");
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
    assert_eq!(aws.keys("app").await?, [read(&mut gateway, NAME).await?]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_at_any_save_leaves_one_key_and_it_is_the_one_that_is_read() -> Result<()> {
    let aws = Aws::start()?;
    let mut gateway = start(&aws, json!({})).await?;
    for save in 1..=MOST_SAVES {
        gateway.stop().await?;
        gateway.set_env("VOLVELLE_CRASH_AT", Some(&save.to_string()));
        let started = gateway.restart().await;
        ensure!(started.is_ok() || gateway.ended()?.is_some(), "save {save}: the gateway neither starts nor ends");
        let rotated = gateway.post("gateway-rotate-secret", json!({"name": NAME})).await;
        let finished = rotated.is_ok_and(|(status, _)| status < 300);
        gateway.set_env("VOLVELLE_CRASH_AT", None);
        if gateway.ended()?.is_none() {
            if finished {
                ensure!(save > 3, "the gateway was never killed");
                return Ok(());
            }
            gateway.kill9()?;
        }
        gateway.restart().await?;
        only_the_current_key_is_left(&aws, &mut gateway).await.with_context(|| format!("save {save}"))?;
    }
    bail!("a rotation did not finish within {MOST_SAVES} saves")
}

async fn only_the_current_key_is_left(aws: &Aws, gateway: &mut DevGateway) -> Result<()> {
    let mut keys = Vec::new();
    for _ in 0..400 {
        // A rotation may end between the questions; what is read opened then, so it is on the user before or after.
        let before = aws.keys("app").await?;
        let current = read(gateway, NAME).await?;
        keys = aws.keys("app").await?;
        ensure!(before.contains(&current) || keys.contains(&current), "what is read does not open: {}", current.id);
        let rotations = succeed(gateway, "rotation-list", json!({"name": NAME, "limit": 1})).await?;
        let over = matches!(rotations["rotations"][0]["stage"].as_str(), None | Some("done" | "failed"));
        if over && keys.len() == 1 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    bail!("{} keys are left", keys.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_its_grace_the_former_key_lives_on_and_then_goes() -> Result<()> {
    let aws = Aws::start()?;
    let grace = json!({"grace-rotation": "true", "grace-rotation-interval": "3", "grace-rotation-timing": "after",
        "auto-rotate": "true", "rotation-interval": "30"});
    let mut gateway = start(&aws, grace).await?;
    let first = read(&mut gateway, NAME).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
    let second = read(&mut gateway, NAME).await?;
    assert_eq!(aws.keys("app").await?, [first.clone(), second.clone()], "both live");
    days_pass(&mut gateway, 4).await?;
    assert_eq!(once_there_are(&aws, 1).await?, std::slice::from_ref(&second));
    assert_eq!(read(&mut gateway, NAME).await?, second, "the end of a grace is no rotation");
    // On demand, within the grace: there is room for two, so the grace ends.
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
    let third = read(&mut gateway, NAME).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
    assert_eq!(aws.keys("app").await?, [third, read(&mut gateway, NAME).await?]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_timing_before_the_next_key_is_made_ahead_of_the_date_on_which_the_former_one_goes() -> Result<()> {
    let aws = Aws::start()?;
    let grace = json!({"grace-rotation": "true", "grace-rotation-interval": "4", "grace-rotation-timing": "before",
        "auto-rotate": "true", "rotation-interval": "30"});
    let mut gateway = start(&aws, grace).await?;
    let first = read(&mut gateway, NAME).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": NAME})).await?;
    let second = read(&mut gateway, NAME).await?;
    assert_eq!(aws.keys("app").await?, [first, second.clone()], "both live");
    days_pass(&mut gateway, 5).await?;
    assert_eq!(once_there_are(&aws, 1).await?, std::slice::from_ref(&second));
    // The date is 34 days after the first key was made, so that the next one is made on the thirtieth.
    days_pass(&mut gateway, 23).await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(aws.keys("app").await?, std::slice::from_ref(&second), "not yet");
    days_pass(&mut gateway, 3).await?;
    let both = once_there_are(&aws, 2).await?;
    assert_eq!(both[0], second, "it lives until the date");
    for _ in 0..300 {
        if read(&mut gateway, NAME).await? == both[1] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(read(&mut gateway, NAME).await?, both[1]);
    days_pass(&mut gateway, 5).await?;
    assert_eq!(once_there_are(&aws, 1).await?, &both[1..]);
    Ok(())
}

/// The user's keys, as soon as they are so many.
async fn once_there_are(aws: &Aws, count: usize) -> Result<Vec<Key>> {
    for _ in 0..600 {
        let keys = aws.keys("app").await?;
        if keys.len() == count {
            return Ok(keys);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    bail!("there never were {count} keys")
}

/// Puts the dates of all secrets back, as if the gateway had slept.
async fn days_pass(gateway: &mut DevGateway, days: u32) -> Result<()> {
    const SCRIPT: &str = r#"
import json, sqlite3, sys
db, span = sqlite3.connect(sys.argv[1]), int(sys.argv[2]) * 86400 * 1000000
for row, rotator, due in db.execute("SELECT rowid, rotator, next_rotation_at FROM items WHERE rotator IS NOT NULL").fetchall():
    rotator = json.loads(rotator)
    for name in ("next_rotation_at", "last_rotation_at"):
        if rotator.get(name):
            rotator[name] -= span
    db.execute("UPDATE items SET rotator = ?, next_rotation_at = ? WHERE rowid = ?", (json.dumps(rotator), due and due - span, row))
db.commit()
"#;
    gateway.stop().await?;
    let done = std::process::Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(gateway.data_dir().join("volvelle.db"))
        .arg(days.to_string())
        .output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    gateway.restart().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_volvelle_made_goes_with_its_secret_and_one_of_others_stays() -> Result<()> {
    let aws = Aws::start()?;
    let mut gateway = start(&aws, json!({})).await?;
    let own = "/aws/own-key";
    let make = json!({"name": own, "target-name": "/aws/target", "rotator-type": "api-key", "aws-user-name": "app",
        "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-aws", make.clone()).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": own})).await?;
    let (theirs, ours) = (read(&mut gateway, NAME).await?, read(&mut gateway, own).await?);
    assert_eq!(aws.keys("app").await?, [theirs.clone(), ours]);
    let shown = succeed(&mut gateway, "describe-item", json!({"name": own})).await?;
    let details = &shown["item_general_info"]["rotated_secret_details"];
    assert_eq!(details["managed_by_akeyless"], true, "{details}");
    // The provider refuses: everything stays as it is, until it is said that it may.
    aws.throttle(1000).await?;
    let (status, answer) = gateway.post("rotated-secret-delete", json!({"name": own})).await?;
    assert!(status >= 400 && answer["hint"].to_string().contains("force-delete"), "{status} {answer}");
    read(&mut gateway, own).await?;
    aws.throttle(0).await?;
    succeed(&mut gateway, "rotated-secret-delete", json!({"name": own})).await?;
    assert_eq!(aws.keys("app").await?, std::slice::from_ref(&theirs), "what was there before stays");
    succeed(&mut gateway, "rotated-secret-create-aws", make).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": own})).await?;
    aws.throttle(1000).await?;
    succeed(&mut gateway, "rotated-secret-delete", json!({"name": own, "force-delete": true})).await?;
    aws.throttle(0).await?;
    assert_eq!(aws.keys("app").await?.len(), 2, "only our side is gone");
    succeed(&mut gateway, "rotated-secret-delete", json!({"name": NAME})).await?;
    assert_eq!(aws.keys("app").await?.len(), 2, "a key that was given is not Volvelle's to delete");
    Ok(())
}
