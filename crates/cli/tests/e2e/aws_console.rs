//! Console passwords of AWS, and roles that the gateway assumes with an external id, through a real gateway and the program.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::bail;
use volvelle_testkit::aws::{ACCOUNT, Aws};
use volvelle_testkit::gateway::built_program;

use super::*;

const NAME: &str = "/aws/ann";
const FIRST: &str = "The-First-Passw0rd";
const MOST_SAVES: u32 = 64;

/// A policy of docs/targets/aws.md.
fn documented(name: &str) -> Result<Value> {
    let page = include_str!("../../../../docs/targets/aws.md");
    let start = format!("```json {name}\n");
    let text = page.split_once(start.as_str()).context("the page has it")?.1.split_once("```").context("it ends")?.0;
    Ok(serde_json::from_str(&text.replace("123456789012", ACCOUNT))?)
}

/// Runs the program against a gateway; gives its JSON.
fn volvelle(gateway: &DevGateway, words: &[&str]) -> Result<Value> {
    let (code, said) = run(gateway, words)?;
    ensure!(code == 0, "volvelle {}: {code}", words.join(" "));
    Ok(said)
}

/// The same with the exit code, which also tells what an answer means.
fn run(gateway: &DevGateway, words: &[&str]) -> Result<(i32, Value)> {
    let mut command = Command::new(built_program("volvelle")?);
    command.arg("--data-dir").arg(gateway.data_dir()).args(words).arg("--json");
    let output = command.env("HOME", gateway.data_dir()).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().context("an exit code")?;
    let answer = serde_json::from_slice(&output.stdout).with_context(|| format!("{}: {said}", words.join(" ")))?;
    Ok((code, answer))
}

/// A user `ann` with a console password, and a secret for it.
async fn start(aws: &Aws) -> Result<DevGateway> {
    let admin = aws.user("admin", Some(documented("console")?), 1).await?.remove(0);
    aws.user("ann", None, 0).await?;
    aws.log_in("ann", Some(FIRST)).await?;
    let url = aws.url();
    let mut gateway =
        DevGateway::start_program(built_program("volvelle")?, &[("AWS_ENDPOINT_URL", url.as_str())]).await?;
    let target = json!({"name": "/aws/target", "access-key-id": admin.id, "access-key": admin.secret});
    succeed(&mut gateway, "target-create-aws", target).await?;
    let secret = json!({"name": NAME, "target-name": "/aws/target", "rotator-type": "password", "rotated-username": "ann",
        "authentication-credentials": "use-target-creds", "rotated-password": FIRST});
    succeed(&mut gateway, "rotated-secret-create-aws", secret).await?;
    Ok(gateway)
}

fn read(gateway: &DevGateway) -> Result<Value> {
    volvelle(gateway, &["rotated-secret", "get-value", "-n", NAME])
}

fn verdict(gateway: &DevGateway) -> Result<(String, String)> {
    let (code, verified) = run(gateway, &["rotated-secret", "verify", "-n", NAME])?;
    ensure!(code != 0, "nobody has seen that it opens");
    let field = |name: &str| verified["hosts"][0][name].as_str().unwrap_or_default().to_owned();
    Ok((field("status"), field("why")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_what_iam_took_and_nobody_calls_it_verified() -> Result<()> {
    let aws = Aws::start()?;
    let gateway = start(&aws).await?;
    for _ in 0..2 {
        volvelle(&gateway, &["rotated-secret", "rotate", "-n", NAME])?;
        let shown = read(&gateway)?;
        let value = shown["value"].as_object().context("a value")?;
        assert_eq!(value.keys().collect::<Vec<_>>(), ["password", "username"]);
        assert_eq!(value["password"].as_str(), aws.console_password("ann").await?.as_deref());
        assert_ne!(value["password"], FIRST);
        assert!(shown["last_verified_at"].is_null(), "{}", shown["last_verified_at"]);
    }
    let (status, why) = verdict(&gateway)?;
    assert!(status == "unknown" && why.starts_with("IAM tells nobody"), "{status} {why}");
    let history = volvelle(&gateway, &["rotated-secret", "history", "-n", NAME])?;
    let message = &history["rotations"][0]["message"];
    assert!(message.as_str().is_some_and(|text| text.starts_with("IAM tells nobody")), "{message}");
    aws.log_in("ann", Some("Somebody-Else-1")).await?;
    let (status, why) = verdict(&gateway)?;
    assert!(status == "unknown" && why.contains("made anew"), "{status} {why}");
    let mended = volvelle(&gateway, &["rotated-secret", "repair", "-n", NAME])?;
    assert_eq!(mended["hosts"][0]["action"], "reapplied", "{mended}");
    assert_eq!(read(&gateway)?["value"]["password"].as_str(), aws.console_password("ann").await?.as_deref());
    aws.log_in("ann", None).await?;
    assert_eq!(verdict(&gateway)?.0, "invalid", "without a login profile nothing opens");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_a_person_tells_is_believed_and_not_called_verified() -> Result<()> {
    let aws = Aws::start()?;
    let mut gateway = start(&aws).await?;
    aws.set_console_password("ann", "Told-by-a-Pers0n").await?;
    let told = json!({"name": NAME, "rotated-password": "Told-by-a-Pers0n"});
    succeed(&mut gateway, "rotated-secret-repair", told).await?;
    let shown = read(&gateway)?;
    assert_eq!(shown["value"]["password"], "Told-by-a-Pers0n");
    assert!(shown["last_verified_at"].is_null());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_are_asked_for_again_with_the_same_password() -> Result<()> {
    let aws = Aws::start()?;
    let mut gateway = start(&aws).await?;
    aws.lose_answers("UpdateLoginProfile", 2).await?;
    // In doubt, or over by the time of the answer.
    let _ = gateway.post("gateway-rotate-secret", json!({"name": NAME})).await?;
    settled(&aws, &mut gateway).await?;
    assert_ne!(aws.console_password("ann").await?.as_deref(), Some(FIRST));
    let versions = volvelle(&gateway, &["describe-item", "-n", NAME, "--show-versions", "true"])?;
    assert_eq!(versions["last_version"], 2, "it was one password all the time: {versions}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_at_any_save_ends_with_the_password_that_iam_has() -> Result<()> {
    let aws = Aws::start()?;
    let mut gateway = start(&aws).await?;
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
        settled(&aws, &mut gateway).await.with_context(|| format!("save {save}"))?;
    }
    bail!("a rotation did not finish within {MOST_SAVES} saves")
}

/// Waits until no rotation is left; then what is read is what IAM has.
async fn settled(aws: &Aws, gateway: &mut DevGateway) -> Result<()> {
    for _ in 0..1200 {
        let rotations = succeed(gateway, "rotation-list", json!({"name": NAME, "limit": 1})).await?;
        if matches!(rotations["rotations"][0]["stage"].as_str(), None | Some("done" | "failed")) {
            let current = value(gateway, NAME).await?;
            ensure!(aws.console_password("ann").await?.as_deref() == Some(&current), "IAM has another password");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the rotation does not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_with_an_external_id_that_the_gateway_made_up() -> Result<()> {
    let aws = Aws::start()?;
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/volvelle");
    let may = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": arn}]});
    let own = aws.user("gateway", Some(may), 1).await?.remove(0);
    aws.user("ann", None, 0).await?;
    aws.log_in("ann", Some(FIRST)).await?;
    let url = aws.url();
    let environment = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("VOLVELLE_ALLOW_AWS_IDENTITY", "true"),
        ("AWS_ACCESS_KEY_ID", own.id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", own.secret.as_str()),
    ];
    let gateway = DevGateway::start_program(built_program("volvelle")?, &environment).await?;
    let flags = ["--role-arn", &arn, "--use-gw-cloud-identity", "true", "--generate-external-id", "true"];
    volvelle(&gateway, &[&["target", "create", "aws", "-n", "/aws/target"][..], &flags].concat())?;
    let made = external_id(&gateway)?;
    let mut trust = documented("trust")?;
    trust["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = json!(made);
    aws.role("volvelle", trust, documented("console")?).await?;
    let secret = ["--target-name", "/aws/target", "--rotator-type", "password", "--rotated-username", "ann"];
    let acting = ["--authentication-credentials", "use-target-creds"];
    volvelle(&gateway, &[&["rotated-secret", "create", "aws", "-n", NAME][..], &secret, &acting].concat())?;
    volvelle(&gateway, &["target", "update", "aws", "-n", "/aws/target", "--region", "eu-west-1"])?;
    assert_eq!(external_id(&gateway)?, made, "it stays over updates");
    volvelle(&gateway, &["rotated-secret", "rotate", "-n", NAME])?;
    assert_eq!(read(&gateway)?["value"]["password"].as_str(), aws.console_password("ann").await?.as_deref());
    Ok(())
}

fn external_id(gateway: &DevGateway) -> Result<String> {
    let details = volvelle(gateway, &["target", "get-details", "-n", "/aws/target"])?;
    let block = &details["value"]["aws_target_details"];
    ensure!(block["use_gw_cloud_identity"] == true, "{block}");
    Ok(block["gw_cloud_identity_external_id_opt"].as_str().context("an external id")?.to_owned())
}
