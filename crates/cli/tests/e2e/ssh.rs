//! What else is rotated over SSH: key pairs, passwords by a command of one's own, and the own account of many hosts.

use super::*;

async fn target(gateway: &mut DevGateway, host: &Host) -> Result<()> {
    let target = json!({"name": "/ssh/target", "host": host.addr.ip().to_string(), "port": "22", "ssh-username": "root",
        "ssh-password": INITIAL_PASSWORD});
    succeed(gateway, "target-create-ssh", target).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_opens_the_account_and_the_former_one_does_not() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    target(&mut gateway, &host).await?;
    let secret = json!({"name": "/ssh/key", "target-name": "/ssh/target", "rotator-type": "key", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    let mut former: Option<String> = None;
    for _ in 0..2 {
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/ssh/key"})).await?;
        let answer = succeed(&mut gateway, "rotated-secret-get-value", json!({"name": "/ssh/key"})).await?;
        let key = answer["value"]["private_key"].as_str().context("a private key")?.to_owned();
        assert!(host.opens_with_key("app1", &key)?, "the key that is read");
        if let Some(former) = former.replace(key) {
            assert!(!host.opens_with_key("app1", &former)?, "the former key");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_ones_own_makes_the_change() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let host = Host::start(HostKind::Debian)?;
    target(&mut gateway, &host).await?;
    let command = "printf '%s:%s\\n' {{USERNAME}} {{NEW_PASSWORD}} | chpasswd && touch /root/by-command";
    let secret = json!({"name": "/ssh/command", "target-name": "/ssh/target", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds", "rotator-custom-cmd": command});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/ssh/command"})).await?;
    assert!(host.opens("app1", &value(&mut gateway, "/ssh/command").await?));
    assert!(!host.opens("app1", INITIAL_PASSWORD));
    host.read("test -e /root/by-command")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_account_of_many_hosts_gets_one_password_and_the_parent_follows() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let hosts = [Host::start(HostKind::Debian)?, Host::start(HostKind::Debian)?];
    target(&mut gateway, &hosts[0]).await?;
    let list: Vec<String> = hosts.iter().map(|host| host.addr.to_string()).collect();
    let linked = json!({"name": "/ssh/linked", "parent-target-name": "/ssh/target", "hosts": list.join(",")});
    succeed(&mut gateway, "target-create-linked", linked).await?;
    let secret = json!({"name": "/ssh/all", "target-name": "/ssh/linked", "rotator-type": "target"});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    for _ in 0..2 {
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/ssh/all"})).await?;
        let answer = succeed(&mut gateway, "rotated-secret-get-value", json!({"name": "/ssh/all"})).await?;
        let shown = |host: &Host| answer["value"]["linked_hosts"][host.addr.to_string()]["password"].as_str();
        let password = shown(&hosts[0]).context("a password")?;
        assert_eq!(shown(&hosts[1]), Some(password), "one for all");
        for host in &hosts {
            assert!(host.shadow_is("root", password)?);
        }
        let details = succeed(&mut gateway, "target-get-details", json!({"name": "/ssh/target"})).await?;
        assert_eq!(details["value"]["ssh_target_details"]["password"].as_str(), Some(password), "the parent follows");
    }
    Ok(())
}
