//! The program against one whole gateway with real hosts.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use serde_json::Value;
use volvelle_testkit::{
    gateway::{DevGateway, built_program},
    hosts::{Host, HostKind, INITIAL_PASSWORD},
};

use super::program::Person;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_finds_the_gateway_and_signs_in_once() -> Result<()> {
    let gateway = DevGateway::start().await?;
    let (url, id, key) = (&gateway.admin.url, &gateway.admin.access_id, &gateway.admin.access_key);
    let person = Person::new();

    person.succeeds(&format!("target list --data-dir {}", gateway.data_dir().display()));
    let absent = person.run("target list --data-dir /no/such/folder");
    assert!(absent.code == 1 && absent.err.contains("volvelle dev"), "{}", absent.err);

    let wrong = person.typing(&format!("configure --access-id {id} --access-key - -u {url}"), "wrong-key\n");
    assert_eq!(wrong.code, 4, "{}", wrong.err);
    assert!(!person.home().join(".volvelle/profiles/default.toml").exists(), "a wrong key was written");
    let configured = person.typing(&format!("configure --access-id {id} --access-key - -u {url}"), key);
    assert_eq!(configured.code, 0, "{}", configured.err);
    let tokens = person.home().join(".volvelle/tokens.json");
    for file in [&tokens, &person.home().join(".volvelle/profiles/default.toml")] {
        assert_eq!(std::fs::metadata(file)?.permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    person.succeeds("target list");

    let sign_ins = || person.succeeds("audit list --action authenticate --json --limit 100").matches("\"seq\"").count();
    let before = sign_ins();
    person.succeeds("validate-token");
    assert_eq!(sign_ins(), before, "a kept token was not used");
    let text = std::fs::read_to_string(&tokens)?;
    let kept: Value = serde_json::from_str(&text)?;
    let token = kept[format!("{url} {id}")]["token"].as_str().context("a kept token")?.to_owned();
    std::fs::write(&tokens, text.replace(&token, "t-00000000000000000000000000000000"))?;
    person.succeeds("target list");
    assert_eq!(sign_ins(), before + 1, "a refused token leads to one new sign-in");

    assert!(person.succeeds("auth").starts_with("Authentication succeeded.\nToken: t-"));
    person.typing(&format!("configure --profile other --access-id {id} --access-key - -u {url}"), key);
    person.succeeds("set-default-profile -n other");
    assert_eq!(person.succeeds("get-default-profile"), "other\n");
    person.succeeds("unconfigure --profile default");
    assert_eq!(person.run("target list --profile default").code, 1);
    person.succeeds("target list");

    let stranger = Person::new()
        .with("VOLVELLE_GATEWAY_URL", url.as_str())
        .with("VOLVELLE_ACCESS_ID", id.as_str())
        .with("VOLVELLE_ACCESS_KEY", "wrong");
    let said = stranger.run("target list");
    assert!(said.code == 4 && said.err.contains("the environment"), "{}", said.err);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_prose_tables_json_or_what_a_path_selects() -> Result<()> {
    let gateway = DevGateway::start().await?;
    let person = Person::new().with("VOLVELLE_DATA_DIR", gateway.data_dir().display().to_string());

    let made = person.typing("create-secret -n /app/key -t first --tag second --value -", "s3cret value\n");
    assert_eq!(made.out, "A new secret named /app/key was successfully created\n");
    assert_eq!(person.succeeds("get-secret-value -n /app/key"), "s3cret value\n");
    assert_eq!(person.succeeds("item tags -n /app/key"), "first\nsecond\n");
    let json: Value = serde_json::from_str(&person.succeeds("list-items --json"))?;
    assert_eq!(json["items"][0]["item_name"], "/app/key");
    assert_eq!(person.succeeds("item list --jsonpath $.items[*].item_name"), "/app/key\n");
    assert_eq!(person.run("item list --jsonpath $.nothing").code, 3);
    let table = person.succeeds("item list");
    assert!(table.starts_with("NAME") && table.contains("/app/key") && !table.contains('\x1b'), "{table}");

    let missing = person.run("describe-item -n /none");
    assert!(missing.code == 3 && missing.err.starts_with("error: there is no item /none"), "{}", missing.err);
    let empty = person.run("target list");
    assert!(empty.code == 0 && empty.out.is_empty() && empty.err == "there are no targets\n", "{}", empty.err);

    person.succeeds("create-role -n /ops");
    let rule = person.succeeds("set-role-rule -r /ops -p /app/* -c read,list -c update");
    assert_eq!(rule, "The requested rule was successfully set to the role /ops\n");
    let method = person.run("auth-method create api-key -n /ci");
    assert!(method.out.contains("- Access Key: ") && method.err.contains("shown this once"), "{}", method.err);
    person.succeeds("assoc-role-am -r /ops -a /ci -s groups=admins,developers -c true");
    let role = person.succeeds("role get -n /ops");
    assert!(role.contains("read, update, list") || role.contains("read, list, update"), "{role}");
    assert!(role.contains("groups=admins,developers"), "{role}");
    person.succeeds("update-item -n /app/key --delete-protection");
    assert_eq!(person.run("delete-item -n /app/key").code, 1);
    person.succeeds("update-item -n /app/key --delete_protection false");
    person.succeeds("delete-item -n /app/key");
    assert!(person.succeeds("audit verify").contains("whole"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_are_shown_refreshed_and_repaired_and_values_stay() -> Result<()> {
    built_program("volvelle-holder")?;
    let gateway = DevGateway::start_program(built_program("volvelle")?, &[("VOLVELLE_SUITE", "p256")]).await?;
    let person = Person::new().with("VOLVELLE_DATA_DIR", gateway.data_dir().display().to_string());
    person.typing("create-secret -n /app/key --value -", "s3cret value\n");
    let status = |at: &str| -> Result<Value> {
        let json: Value = serde_json::from_str(&person.succeeds("fragments status --json"))?;
        json.pointer(at).cloned().with_context(|| format!("{at} in {json}"))
    };
    assert_eq!((status("/threshold")?, status("/epoch")?), (Value::from(2), Value::from(0)));
    assert_eq!(status("/holders")?.as_array().map(Vec::len), Some(3));
    assert_eq!(status("/keys/0/suite")?, Value::from("p256"), "what `volvelle dev` was told");
    let said = person.succeeds("fragments refresh");
    assert_eq!(said, "The fragments of 1 keys were refreshed; the newest epoch is 1\n");
    for n in 0..3 {
        assert_eq!(status(&format!("/holders/{n}/index"))?, Value::from(n + 1));
        assert_eq!(status(&format!("/holders/{n}/state"))?, Value::from("up"));
        assert_eq!(status(&format!("/holders/{n}/epoch"))?, Value::from(1));
    }
    assert_eq!(person.succeeds("get-secret-value -n /app/key"), "s3cret value\n");
    let table = person.succeeds("fragments status");
    let keys = "1 account has a key of suite p256 of which 2 holders are needed\nHOLDER";
    assert!(table.starts_with(keys) && table.matches(" up ").count() == 3, "{table}");
    let doctor = person.succeeds("fragments doctor");
    assert!(doctor.contains("holders 1, 2, 3 are on one host") && !doctor.contains("not signed"), "{doctor}");
    let repaired = person.succeeds("fragments repair --holder 2");
    assert_eq!(repaired, "Holder 2 was repaired: 0 fragments restored, 1 were sound\n");
    let added = person.succeeds("fragments add-holder --holder 3");
    assert!(added.ends_with("the newest epoch is 2\n"), "{added}");
    let kept = person.run("fragments drop-holder --holder 3");
    assert!(kept.code != 0 && kept.err.contains("change-roster"), "{}", kept.err);
    assert!(person.succeeds("fragments drop-holder --holder 4").contains("what holder 4 kept is worth nothing"));
    assert!(person.run("fragments repair --holder 9").err.contains("no holder 9"));
    assert!(person.succeeds("audit list").contains("1 keys refreshed"));
    let said = person.succeeds("fragments rekey --rate 1000 --suite ristretto255");
    assert!(said.starts_with("1 accounts get another key, and new records have it"), "{said}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let done = loop {
        let now: Value = serde_json::from_str(&person.succeeds("fragments rekey --status --json"))?;
        if now["rekeys"][0]["stage"] == "wrapped" {
            break now["rekeys"][0].clone();
        }
        assert!(std::time::Instant::now() < deadline, "{now}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert_eq!((&done["done"], &done["left"], &done["new_key"]), (&Value::from(1), &Value::from(0), &Value::from(2)));
    assert_eq!(person.succeeds("get-secret-value -n /app/key"), "s3cret value\n");
    let status = person.run("fragments rekey --status");
    for word in ["wrapped", "in use", "ristretto255"] {
        assert!(status.out.contains(word), "{word}: {}", status.out);
    }
    assert!(person.run("fragments rekey --suite p384").err.contains("ristretto255 or p256"));
    assert!(status.err.contains("--retire"), "{}", status.err);
    assert!(person.succeeds("fragments rekey --retire").starts_with("The old keys are retired"));
    assert!(person.succeeds("fragments rekey --status").contains("destroyed at"));
    assert_eq!(person.succeeds("get-secret-value -n /app/key"), "s3cret value\n");
    assert!(person.run("fragments rekey --status --retire").code != 0);
    assert_eq!(person.run("fragments rekey --rate 0 --status").code, 0);
    let audit = person.succeeds("audit list");
    for word in ["every record has key 2 now", "the old keys of 1 accounts are retired", "1 accounts get another key"] {
        assert!(audit.contains(word), "{word}: {audit}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_secrets_rotate_after_their_canary_and_none_when_it_fails() -> Result<()> {
    let gateway = DevGateway::start().await?;
    let hosts = [Host::start(HostKind::Debian)?, Host::start(HostKind::Debian)?];
    let person = Person::new().with("VOLVELLE_DATA_DIR", gateway.data_dir().display().to_string());
    for (host, name) in hosts.iter().zip(["a", "b"]) {
        let line =
            format!("create-ssh-target -n /t/{name} --host {} --ssh-username root --ssh-password -", host.addr.ip());
        let made = person.typing(&line, INITIAL_PASSWORD);
        assert_eq!(made.code, 0, "{}", made.err);
        assert!(made.out.contains("SHA256:") && made.err.contains("ssh-keygen -lf"), "{}{}", made.out, made.err);
        let line = format!(
            "rotated-secret create ssh -n /prod/{name} --target-name /t/{name} --rotator-type password --rotated-username root \
             --rotated-password - --authentication-credentials use-user-creds"
        );
        let made = person.typing(&line, INITIAL_PASSWORD);
        assert_eq!(made.code, 0, "{}", made.err);
    }
    assert!(person.succeeds("rotated-secret list").contains("not rotated yet"));
    assert_eq!(
        person.succeeds("gateway-rotate-secret -n /prod/a"),
        "Rotated secret /prod/a was successfully rotated\n"
    );
    let password = person.succeeds("get-rotated-secret-value -n /prod/a --jsonpath $.value.password");
    assert!(hosts[0].shadow_is("root", password.trim_end())?, "the value read does not open the account");
    assert!(person.succeeds("rotated-secret verify -n /prod/a").contains("valid"));
    assert_eq!(person.succeeds("rotated-secret rotate --path /prod/*"), "2 rotated, 0 failed, 0 not tried\n");
    assert_eq!(person.run("rotated-secret rotate --path /pro").code, 3, "/pro is no prefix of /prod/a");

    let before = hosts[1].shadow("root")?;
    hosts[0].set_password("root", "Another-Passw0rd!9")?;
    let failed = person.run("rotated-secret rotate -p /prod/*");
    assert_eq!(failed.code, 6, "{}{}", failed.out, failed.err);
    assert!(failed.err.contains("the canary /prod/a failed"), "{}", failed.err);
    assert!(failed.out.contains("0 rotated, 1 failed, 1 not tried"), "{}", failed.out);
    assert_eq!(hosts[1].shadow("root")?, before, "something was touched after the canary had failed");
    let verified = person.run("rotated-secret verify -n /prod/a");
    assert_eq!(verified.code, 6, "{}{}", verified.out, verified.err);
    assert!(person.succeeds("rotated-secret history -n /prod/a").contains("manual"));
    Ok(())
}
