//! The whole product against real directories: what the stored value says is what opens the account.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use volvelle_testkit::gateway::DevGateway;
use volvelle_testkit::samba::{Domain, INITIAL_PASSWORD};
use volvelle_testkit::slapd::Slapd;

#[tokio::test(flavor = "multi_thread")]
async fn a_directorys_account_is_rotated_and_read_back() -> Result<()> {
    let (mut gateway, server) = (DevGateway::start().await?, Slapd::start()?);
    let target = json!({"name": "/dir/slapd", "ldap-url": format!("ldaps://{}", server.address()),
        "bind-dn": Slapd::service("rotator"), "bind-dn-password": INITIAL_PASSWORD, "ldap-ca-cert": server.authority()?});
    succeed(&mut gateway, "create-ldap-target", target).await?;
    let secret = json!({"name": "/dir/app1", "target-name": "/dir/slapd", "rotator-type": "ldap", "rotated-username": "app1",
        "user-dn": "ou=people,dc=example,dc=org", "user-attribute": "uid", "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-ldap", secret).await?;
    let own = json!({"name": "/dir/rotator", "target-name": "/dir/slapd", "rotator-type": "target"});
    succeed(&mut gateway, "rotated-secret-create-ldap", own).await?;
    for name in ["/dir/app1", "/dir/rotator", "/dir/app1"] {
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": name})).await?;
    }
    assert!(server.opens(&Slapd::person("app1"), &value(&mut gateway, "/dir/app1").await?)?);
    assert!(!server.opens(&Slapd::person("app1"), INITIAL_PASSWORD)?);
    let own = value(&mut gateway, "/dir/rotator").await?;
    assert!(server.opens(&Slapd::service("rotator"), &own)?);
    let details = succeed(&mut gateway, "target-get-details", json!({"name": "/dir/slapd"})).await?;
    let details = &details["value"]["ldap_target_details"];
    assert_eq!(details["ldap_bind_password"], own.as_str(), "the target's record follows its own secret");
    assert_eq!(details["implementation_type"], "OpenLDAP");
    let item = succeed(&mut gateway, "describe-item", json!({"name": "/dir/app1"})).await?;
    assert_eq!(item["item_general_info"]["rotated_secret_details"]["rotator_type"], "ldap-rotator");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domains_account_is_rotated_and_its_previous_password_is_not_taken_for_it() -> Result<()> {
    let (mut gateway, domain) = (DevGateway::start().await?, Domain::start()?);
    let target = json!({"name": "/dir/domain", "ldap-url": format!("ldaps://{}", domain.address()), "server-type": "ActiveDirectory",
        "bind-dn": "rot@corp.test", "bind-dn-password": INITIAL_PASSWORD, "ldap-ca-cert": domain.authority()?});
    succeed(&mut gateway, "target-create-ldap", target).await?;
    let secret = json!({"name": "/dir/app1", "target-name": "/dir/domain", "rotator-type": "ldap", "rotated-username": "app1",
        "user-attribute": "sAMAccountName", "rotated-password": INITIAL_PASSWORD});
    succeed(&mut gateway, "rotated-secret-create-ldap", secret).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/dir/app1"})).await?;
    assert!(domain.opens("app1", &value(&mut gateway, "/dir/app1").await?)?);
    assert!(!domain.opens("app1", INITIAL_PASSWORD)?);
    let verified = succeed(&mut gateway, "rotated-secret-verify", json!({"name": "/dir/app1"})).await?;
    assert_eq!(verified["hosts"][0]["status"], "valid", "{verified}");
    // Somebody resets it: the stored value still logs in by LDAP, and is known to be wrong all the same.
    domain.tool("user setpassword app1 --newpassword=Somebody-Else-12345")?;
    let verified = succeed(&mut gateway, "rotated-secret-verify", json!({"name": "/dir/app1"})).await?;
    assert_eq!(verified["hosts"][0]["status"], "invalid", "{verified}");
    Ok(())
}

async fn succeed(gateway: &mut DevGateway, operation: &str, body: Value) -> Result<Value> {
    let (status, answer) = gateway.post(operation, body).await?;
    ensure!((200..300).contains(&status), "{operation}: {status} {answer}");
    Ok(answer)
}

async fn value(gateway: &mut DevGateway, name: &str) -> Result<String> {
    let answer = succeed(gateway, "rotated-secret-get-value", json!({"name": name})).await?;
    Ok(answer["value"]["password"].as_str().context("a password")?.to_owned())
}
