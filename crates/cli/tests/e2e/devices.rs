//! A network device through a real gateway.

use volvelle_testkit::switch::{INITIAL_PASSWORD, Switch};

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
