//! Network devices and management controllers through a real gateway.

use volvelle_testkit::bmc::{Ipmi, Redfish, Server};
use volvelle_testkit::frr::{Door, Frr};
use volvelle_testkit::switch::{ENABLE_PASSWORD, INITIAL_PASSWORD, Switch};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_is_rotated_and_keeps_the_new_password_over_a_restart() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    let mut switch = Switch::start("cisco-ios")?;
    let target = json!({"name": "/net/sw1", "host": "127.0.0.1", "port": switch.addr.port().to_string(), "ssh-username": "admin",
        "ssh-password": INITIAL_PASSWORD, "device-type": "cisco-ios"});
    succeed(&mut gateway, "target-create-ssh", target).await?;
    let secret = json!({"name": "/net/app1", "target-name": "/net/sw1", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
    let own = json!({"name": "/net/admin", "target-name": "/net/sw1", "rotator-type": "target"});
    succeed(&mut gateway, "rotated-secret-create-ssh", own).await?;
    for (name, user) in [("/net/app1", "app1"), ("/net/admin", "admin"), ("/net/app1", "app1")] {
        succeed(&mut gateway, "gateway-rotate-secret", json!({"name": name})).await?;
        let password = value(&mut gateway, name).await?;
        switch.reload()?;
        assert!(switch.opens(user, &password)?, "{name}");
        assert!(!switch.opens(user, INITIAL_PASSWORD)?, "{name}");
    }
    let verified = succeed(&mut gateway, "rotated-secret-verify", json!({"name": "/net/app1"})).await?;
    assert_eq!(verified["hosts"][0]["status"], "valid", "{verified}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accounts_of_bmcs_are_rotated_over_redfish_and_ipmi() -> Result<()> {
    let (mut gateway, redfish, ipmi) = (DevGateway::start().await?, Redfish::start()?, Ipmi::start(Server::OpenIpmi)?);
    let target = json!({"name": "/bmc/r", "host": redfish.address().to_string(), "username": "admin", "password": INITIAL_PASSWORD,
        "certificate": redfish.authority()?});
    succeed(&mut gateway, "target-create-bmc", target).await?;
    let target = json!({"name": "/bmc/i", "host": ipmi.address().to_string(), "protocol": "ipmi", "username": "admin",
        "password": INITIAL_PASSWORD, "allow-legacy-algorithms": true});
    succeed(&mut gateway, "target-create-bmc", target).await?;
    for target in ["/bmc/r", "/bmc/i"] {
        let secret = json!({"name": format!("{target}/app1"), "target-name": target, "rotator-type": "password", "rotated-username": "app1",
            "authentication-credentials": "use-target-creds"});
        succeed(&mut gateway, "rotated-secret-create-bmc", secret).await?;
        let own = json!({"name": format!("{target}/admin"), "target-name": target, "rotator-type": "target"});
        succeed(&mut gateway, "rotated-secret-create-bmc", own).await?;
        for user in ["app1", "admin", "app1"] {
            let name = format!("{target}/{user}");
            succeed(&mut gateway, "gateway-rotate-secret", json!({"name": name})).await?;
            let password = value(&mut gateway, &name).await?;
            let opens = if target == "/bmc/r" { redfish.holds(user, &password)? } else { ipmi.opens(user, &password)? };
            assert!(opens, "{name}");
        }
        let details = succeed(&mut gateway, "target-get-details", json!({"name": target})).await?;
        let own = value(&mut gateway, &format!("{target}/admin")).await?;
        assert_eq!(
            details["value"]["bmc_target_details"]["password"],
            own.as_str(),
            "the record follows its own secret"
        );
    }
    assert_eq!(redfish.field("app1", "all")?, 0, "no login failed");
    let verified = succeed(&mut gateway, "rotated-secret-verify", json!({"name": "/bmc/i/app1"})).await?;
    assert_eq!(verified["hosts"][0]["status"], "valid", "{verified}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn junos_is_rotated_on_both_ways_and_a_change_is_confirmed() -> Result<()> {
    let mut gateway = DevGateway::start().await?;
    for transport in ["cli", "netconf"] {
        let mut device = Switch::start("juniper-junos")?;
        let (target, name) = (format!("/net/mx-{transport}"), format!("/net/mx-{transport}/app1"));
        let made = json!({"name": target, "host": "127.0.0.1", "port": device.addr.port().to_string(), "ssh-username": "admin",
            "ssh-password": INITIAL_PASSWORD, "device-type": "juniper-junos", "device-transport": transport});
        succeed(&mut gateway, "target-create-ssh", made).await?;
        let secret = json!({"name": name, "target-name": target, "rotator-type": "password", "rotated-username": "app1",
            "authentication-credentials": "use-target-creds"});
        succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
        for _ in 0..2 {
            succeed(&mut gateway, "gateway-rotate-secret", json!({"name": name})).await?;
            device.age(60)?;
            assert!(device.opens("app1", &value(&mut gateway, &name).await?)?, "{transport}: it went back");
        }
        assert_eq!(device.failures()?, 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn enable_secrets_are_secrets_of_their_own_over_ssh_and_telnet() -> Result<()> {
    let (mut gateway, mut switch, router) = (DevGateway::start().await?, Switch::start("cisco-ios")?, Frr::start()?);
    let target = json!({"name": "/net/sw1", "host": "127.0.0.1", "port": switch.addr.port().to_string(), "ssh-username": "admin",
        "ssh-password": INITIAL_PASSWORD, "device-type": "cisco-ios"});
    succeed(&mut gateway, "target-create-ssh", target).await?;
    let target = json!({"name": "/net/r1", "host": router.address().to_string(), "port": "2601", "ssh-username": "vty",
        "ssh-password": INITIAL_PASSWORD, "device-type": "frr", "device-transport": "telnet", "allow-telnet": true});
    succeed(&mut gateway, "target-create-ssh", target).await?;
    for target in ["/net/sw1", "/net/r1"] {
        let name = format!("{target}/enable");
        let secret = json!({"name": name, "target-name": target, "rotator-type": "enable", "rotated-password": ENABLE_PASSWORD,
            "authentication-credentials": "use-target-creds"});
        succeed(&mut gateway, "rotated-secret-create-ssh", secret).await?;
        for _ in 0..2 {
            succeed(&mut gateway, "gateway-rotate-secret", json!({"name": name})).await?;
        }
        let password = value(&mut gateway, &name).await?;
        let opens = if target == "/net/r1" {
            router.keeps(Door::Enable, &password)?
        } else {
            switch.opens("enable", &password)?
        };
        assert!(opens, "{name}");
        let item = succeed(&mut gateway, "describe-item", json!({"name": name})).await?;
        assert_eq!(item["item_general_info"]["rotated_secret_details"]["rotator_type"], "enable-rotator");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enable_secret_is_written_back_into_its_target_wherever_the_gateway_is_killed() -> Result<()> {
    let (mut gateway, mut switch) = (DevGateway::start().await?, Switch::start("cisco-ios")?);
    // The acting user needs the privileged mode's password, and so does every other secret of the target.
    let target = json!({"name": "/net/sw1", "host": "127.0.0.1", "port": switch.addr.port().to_string(), "ssh-username": "ops",
        "ssh-password": INITIAL_PASSWORD, "enable-password": ENABLE_PASSWORD, "device-type": "cisco-ios"});
    succeed(&mut gateway, "target-create-ssh", target).await?;
    let enable = json!({"name": "/net/enable", "target-name": "/net/sw1", "rotator-type": "enable",
        "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-ssh", enable).await?;
    let other = json!({"name": "/net/app1", "target-name": "/net/sw1", "rotator-type": "password", "rotated-username": "app1",
        "authentication-credentials": "use-target-creds"});
    succeed(&mut gateway, "rotated-secret-create-ssh", other).await?;
    let mut killed = 0;
    for save in 1..=64 {
        gateway.stop().await?;
        gateway.set_env("VOLVELLE_CRASH_AT", Some(&save.to_string()));
        let started = gateway.restart().await;
        ensure!(started.is_ok() || gateway.ended()?.is_some(), "save {save}: the gateway neither starts nor ends");
        let rotated = gateway.post("gateway-rotate-secret", json!({"name": "/net/enable"})).await;
        let survived = rotated.is_ok_and(|(status, _)| status < 300) && gateway.ended()?.is_none();
        gateway.set_env("VOLVELLE_CRASH_AT", None);
        if gateway.ended()?.is_none() {
            gateway.kill9()?;
        }
        gateway.restart().await?;
        settled(&mut gateway, "/net/enable").await?;
        let password = value(&mut gateway, "/net/enable").await?;
        assert!(switch.opens("enable", &password)?, "save {save}");
        let details = succeed(&mut gateway, "target-get-details", json!({"name": "/net/sw1"})).await?;
        let recorded = details["value"]["ssh_target_details"]["enable_password"].as_str().context("is recorded")?;
        assert_eq!(recorded, password, "save {save}: the target's record is another one");
        if survived {
            break;
        }
        killed += 1;
    }
    ensure!((3..64).contains(&killed), "killed {killed} times");
    // With the new one the target's user gets up.
    succeed(&mut gateway, "gateway-rotate-secret", json!({"name": "/net/app1"})).await?;
    assert!(switch.opens("app1", &value(&mut gateway, "/net/app1").await?)?);
    Ok(())
}

/// Waits until no rotation of a secret is open.
async fn settled(gateway: &mut DevGateway, name: &str) -> Result<()> {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let rotations = succeed(gateway, "rotation-list", json!({"name": name, "limit": 1})).await?;
        let stage = rotations["rotations"][0]["stage"].as_str().unwrap_or("done").to_owned();
        if stage == "done" || stage == "failed" {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < until, "{name} stays {stage}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
