//! The whole product against real directories: what the stored value says is what opens the account.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use volvelle_testkit::gateway::DevGateway;
use volvelle_testkit::samba::{Domain, INITIAL_PASSWORD, Standalone};
use volvelle_testkit::slapd::Slapd;
use volvelle_testkit::winrm::Simulated;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_windows_hosts_accounts_are_rotated_over_smb() -> Result<()> {
    let (mut gateway, host) = (DevGateway::start().await?, Standalone::start()?);
    let target = json!({"name": "/win/host", "hostname": host.address().to_string(), "port": "445", "username": "Administrator",
        "password": INITIAL_PASSWORD});
    succeed(&mut gateway, "target-create-windows", target).await?;
    let secret = json!({"name": "/win/app1", "target-name": "/win/host", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-windows", secret).await?;
    for _ in 0..2 {
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/win/app1"})).await?;
        assert!(host.opens("app1", &value(&mut gateway, "/win/app1").await?)?);
    }
    assert!(!host.holds("app1", INITIAL_PASSWORD)?);
    let details = succeed(&mut gateway, "target-get-details", json!({"name": "/win/host"})).await?;
    assert_eq!(details["value"]["windows_target_details"]["password"], INITIAL_PASSWORD);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_get_the_new_password_is_told_and_the_others_have_it() -> Result<()> {
    let (mut gateway, host) = (DevGateway::start().await?, Simulated::start()?);
    let target = json!({"name": "/win/simulated", "hostname": host.address().to_string(), "username": "Administrator",
        "password": INITIAL_PASSWORD, "certificate": host.authority()?});
    succeed(&mut gateway, "create-windows-target", target).await?;
    let secret = json!({"name": "/win/svc", "target-name": "/win/simulated", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "services": "spool,gone", "iis-app-pools": "site"});
    succeed(&mut gateway, "rotated-secret-create-windows", secret).await?;
    gateway.post("gateway-rotate-secret", json!({"name": "/win/svc", "rotate-all-services": "true"})).await?;
    let new = value(&mut gateway, "/win/svc").await?;
    assert!(host.holds("app1", &new)?);
    assert_eq!(host.dependent("service:spool")?, (new.clone(), 2));
    assert_eq!(host.dependent("pool:site")?, (new, 2));
    let item = succeed(&mut gateway, "describe-item", json!({"name": "/win/svc", "services-details": true})).await?;
    let details = &item["item_general_info"]["rotated_secret_details"];
    assert_eq!(details["rotator_status"], "RotationPartialSucceeded", "{details}");
    assert_eq!(details["services_details"][0]["status"], "updated", "{details}");
    assert_eq!(details["services_details"][1]["status"], "failed");
    assert_eq!(details["iis_apps_details"][0]["attributes"]["iis_app_pool"], true);
    assert!(details["last_rotation_error"].as_str().is_some_and(|error| error.contains("gone")), "{details}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_domain_is_a_parent_target_and_its_new_password_reaches_the_hosts_services() -> Result<()> {
    let (mut gateway, domain, host) = (DevGateway::start().await?, Domain::start()?, Simulated::start()?);
    let parent = json!({"name": "/dir/corp", "ldap-url": format!("ldaps://{}", domain.address()), "server-type": "ActiveDirectory",
        "bind-dn": "Administrator@corp.test", "bind-dn-password": INITIAL_PASSWORD, "ldap-ca-cert": domain.authority()?});
    succeed(&mut gateway, "target-create-ldap", parent).await?;
    // The simulated host is no member: it has an Administrator of its own with the same password.
    let target = json!({"name": "/win/h1", "hostname": host.address().to_string(), "certificate": host.authority()?,
        "connection-type": "parent-target", "parent-target-name": "/dir/corp", "username": "dummy_value",
        "password": "dummy_value", "domain": "WIN1", "winrm-auth": "ntlm"});
    succeed(&mut gateway, "target-create-windows", target).await?;
    let secret = json!({"name": "/win/app1", "target-name": "/win/h1", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "services": "spool"});
    succeed(&mut gateway, "rotated-secret-create-windows", secret).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/win/app1"})).await?;
    let new = value(&mut gateway, "/win/app1").await?;
    assert!(domain.opens("app1", &new)? && !domain.opens("app1", INITIAL_PASSWORD)?);
    assert_eq!(host.dependent("service:spool")?, (new, 2));

    // The parent's own password changes, and it gets another name: its children follow.
    let own = json!({"name": "/dir/admin", "target-name": "/dir/corp", "rotator-type": "target"});
    succeed(&mut gateway, "rotated-secret-create-ldap", own).await?;
    succeed(&mut gateway, "target-update-ldap", json!({"name": "/dir/corp", "new-name": "/dir/moved"})).await?;
    for name in ["/dir/admin", "/win/app1"] {
        // The host's own Administrator keeps his password.
        if name == "/win/app1" {
            let alone = json!({"name": name, "services": ""});
            succeed(&mut gateway, "rotated-secret-update-windows", alone).await?;
        }
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": name})).await?;
    }
    assert!(domain.opens("Administrator", &value(&mut gateway, "/dir/admin").await?)?);
    assert!(!domain.opens("Administrator", INITIAL_PASSWORD)?);
    assert!(domain.opens("app1", &value(&mut gateway, "/win/app1").await?)?);
    let verified = succeed(&mut gateway, "rotated-secret-verify", json!({"name": "/win/app1"})).await?;
    assert_eq!(verified["hosts"][0]["status"], "valid", "{verified}");
    let shown = succeed(&mut gateway, "target-get-details", json!({"name": "/win/h1"})).await?;
    assert_eq!(shown["target"]["parent_target_name"], "/dir/moved");
    let (status, refused) = gateway.post("target-delete", json!({"name": "/dir/moved"})).await?;
    assert!(status == 409 && refused.to_string().contains("/win/h1"), "{status} {refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_children_of_a_parent_never_lock_its_account_together() -> Result<()> {
    let (mut gateway, domain) = (DevGateway::start().await?, Domain::start()?);
    let mut parent = json!({"name": "/dir/corp", "ldap-url": format!("ldaps://{}", domain.address()),
        "bind-dn": "rot@corp.test", "bind-dn-password": "Wrong-Passw0rd!1", "ldap-ca-cert": domain.authority()?});
    succeed(&mut gateway, "target-create-ldap", parent.clone()).await?;
    for (n, user) in ["app1", "app2", "app3", "weak"].into_iter().enumerate() {
        let (target, name) = (format!("/win/h{n}"), format!("/win/{user}"));
        let host = json!({"name": target, "hostname": "host.corp.test", "connection-type": "parent-target",
            "parent-target-name": "/dir/corp"});
        succeed(&mut gateway, "target-create-windows", host).await?;
        let secret = json!({"name": name, "target-name": target, "rotator-type": "password", "rotated-username": user,
            "authentication-credentials": "use-target-creds", "skip-dry-run": true});
        succeed(&mut gateway, "rotated-secret-create-windows", secret).await?;
    }
    for user in ["app1", "app2", "app3", "weak"] {
        let (status, _) = gateway.post("gateway-rotate-secret", json!({"name": format!("/win/{user}")})).await?;
        ensure!(status >= 300, "{user}: rotated with a wrong password");
    }
    assert_eq!(domain.failures("rot")?, 2, "every child tried it");
    let item = succeed(&mut gateway, "describe-item", json!({"name": "/win/weak"})).await?;
    let error = item["item_general_info"]["rotated_secret_details"]["last_rotation_error"].to_string();
    assert!(error.contains("/dir/corp") && error.contains("auth"), "{error}");
    // Correcting the parent ends the wait of all.
    parent["bind-dn-password"] = json!(INITIAL_PASSWORD);
    succeed(&mut gateway, "target-update-ldap", parent).await?;
    for user in ["app1", "weak"] {
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": format!("/win/{user}")})).await?;
        assert!(domain.opens(user, &value(&mut gateway, &format!("/win/{user}")).await?)?);
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_member_hosts_account_and_its_service_are_rotated_by_an_account_of_the_domain_with_kerberos() -> Result<()> {
    let (mut gateway, domain) = (DevGateway::start().await?, Domain::start()?);
    let host = Simulated::joined(&domain)?;
    let target = json!({"name": "/win/member", "hostname": host.address().to_string(), "port": "5985", "use-tls": "false",
        "username": "rot", "domain": "corp.test", "password": INITIAL_PASSWORD, "winrm-auth": "kerberos",
        "kdc-host": domain.address().to_string(), "kerberos-hostname": "win1.corp.test"});
    succeed(&mut gateway, "target-create-windows", target).await?;
    let secret = json!({"name": "/win/svc", "target-name": "/win/member", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "services": format!("spool@{}:5985", host.address())});
    succeed(&mut gateway, "rotated-secret-create-windows", secret).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/win/svc"})).await?;
    let new = value(&mut gateway, "/win/svc").await?;
    assert!(host.holds("app1", &new)?);
    assert_eq!(host.dependent("service:spool")?, (new, 2));
    assert!(host.logins()?.iter().all(|login| login == "kerberos"), "{:?}", host.logins()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_windows_hosts_account_is_rotated_over_ssh_while_its_key_is_the_known_one() -> Result<()> {
    let (mut gateway, host) = (DevGateway::start().await?, Simulated::start()?);
    let target = json!({"name": "/win/ssh", "hostname": host.address().to_string(), "port": "22", "username": "Administrator",
        "password": INITIAL_PASSWORD});
    succeed(&mut gateway, "target-create-windows", target).await?;
    let secret = json!({"name": "/win/app1", "target-name": "/win/ssh", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "services": "spool"});
    succeed(&mut gateway, "rotated-secret-create-windows", secret).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/win/app1"})).await?;
    let new = value(&mut gateway, "/win/app1").await?;
    assert!(host.holds("app1", &new)?);
    assert_eq!(host.dependent("service:spool")?, (new.clone(), 2));
    host.swap_host_key()?;
    let (status, answer) = gateway.post("gateway-rotate-secret", json!({"name": "/win/app1"})).await?;
    ensure!(!(200..300).contains(&status) && answer.to_string().contains("host key"), "{status} {answer}");
    assert!(host.holds("app1", &new)?, "nothing went to another machine");
    Ok(())
}
