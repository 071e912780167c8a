//! Verified rotations of every kind of target, one after the other: what one costs, and how many go into a second.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use volvelle_testkit::aws::Aws;
use volvelle_testkit::bmc::{Ipmi, Redfish, Server};
use volvelle_testkit::gateway::DevGateway;
use volvelle_testkit::hook::Hook;
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};
use volvelle_testkit::samba::{Domain, Standalone};
use volvelle_testkit::slapd::Slapd;
use volvelle_testkit::switch::Switch;
use volvelle_testkit::winrm::Simulated;

use super::figure::Report;
use super::process::{TICK_US, ticks, ticks_of_all};
use super::rotations::succeed;
use crate::host;

const SECRET: &str = "/bench/secret";
const TARGET: &str = "/bench/target";
const ROUNDS: usize = 3;
/// Rotations of one round: enough for the kernel's coarse count of processor time.
const ROTATIONS: usize = 10;

/// What to make, and of which kinds.
struct Subject {
    name: &'static str,
    kinds: (&'static str, &'static str),
    target: Value,
    secret: Value,
}

/// Measures one kind after the other, each with a gateway and a peer of its own.
pub async fn run(report: &mut Report) -> Result<()> {
    unix(report).await?;
    devices(report).await?;
    controllers(report).await?;
    directories(report).await?;
    windows(report).await?;
    cloud_and_hooks(report).await?;
    report.note("one rotation at a time: the rate is that of one peer, and much of it is the peer's own work");
    Ok(())
}

async fn unix(report: &mut Report) -> Result<()> {
    let host = block_in_place(|| Host::start(HostKind::Debian))?;
    let mut subject = Subject {
        name: "ssh: root resets an account, OpenSSH",
        kinds: ("ssh", "ssh"),
        target: json!({"host": host.addr.ip().to_string(), "port": "22", "ssh-username": "root",
            "ssh-password": INITIAL_PASSWORD}),
        secret: reset_by_the_target(),
    };
    measure(report, &[], &subject).await?;
    subject.name = "ssh: a key pair, OpenSSH";
    subject.secret["rotator-type"] = json!("key");
    measure(report, &[], &subject).await?;
    Ok(())
}

async fn devices(report: &mut Report) -> Result<()> {
    for (name, platform, transport) in [
        ("ssh: Cisco IOS, fake-switches", "cisco-ios", "cli"),
        ("ssh: Arista EOS, fake-switches", "arista-eos", "cli"),
        ("ssh: Junos at its command line, scripted", "juniper-junos", "cli"),
        ("ssh: Junos over NETCONF, scripted", "juniper-junos", "netconf"),
    ] {
        let switch = block_in_place(|| Switch::start(platform))?;
        let target = json!({"host": "127.0.0.1", "port": switch.addr.port().to_string(), "ssh-username": "admin",
            "ssh-password": INITIAL_PASSWORD, "device-type": platform, "device-transport": transport});
        measure(report, &[], &Subject { name, kinds: ("ssh", "ssh"), target, secret: reset_by_the_target() }).await?;
    }
    Ok(())
}

async fn controllers(report: &mut Report) -> Result<()> {
    let (redfish, ipmi) = block_in_place(|| anyhow::Ok((Redfish::start()?, Ipmi::start(Server::OpenIpmi)?)))?;
    let target = json!({"host": redfish.address().to_string(), "username": "admin", "password": INITIAL_PASSWORD,
        "certificate": redfish.authority()?});
    let name = "bmc: Redfish, simulator";
    measure(report, &[], &Subject { name, kinds: ("bmc", "bmc"), target, secret: reset_by_the_target() }).await?;
    let target = json!({"host": ipmi.address().to_string(), "protocol": "ipmi", "username": "admin",
        "password": INITIAL_PASSWORD, "allow-legacy-algorithms": true});
    let name = "bmc: IPMI, OpenIPMI's simulator";
    measure(report, &[], &Subject { name, kinds: ("bmc", "bmc"), target, secret: reset_by_the_target() }).await
}

/// A secret whose account the target's account gives new passwords.
fn reset_by_the_target() -> Value {
    json!({"rotator-type": "password", "rotated-username": "app1", "authentication-credentials": "use-target-creds"})
}

async fn directories(report: &mut Report) -> Result<()> {
    let server = block_in_place(Slapd::start)?;
    let subject = Subject {
        name: "ldap: OpenLDAP",
        kinds: ("ldap", "ldap"),
        target: json!({"ldap-url": format!("ldaps://{}", server.address()), "bind-dn": Slapd::service("rotator"),
            "bind-dn-password": INITIAL_PASSWORD, "ldap-ca-cert": server.authority()?}),
        secret: json!({"rotator-type": "ldap", "rotated-username": "app1", "user-dn": "ou=people,dc=example,dc=org",
            "user-attribute": "uid", "authentication-credentials": "use-target-creds"}),
    };
    measure(report, &[], &subject).await?;
    let domain = block_in_place(Domain::start)?;
    let subject = Subject {
        name: "ldap: Active Directory, Samba",
        kinds: ("ldap", "ldap"),
        target: json!({"ldap-url": format!("ldaps://{}", domain.address()), "server-type": "ActiveDirectory",
            "bind-dn": "rot@corp.test", "bind-dn-password": INITIAL_PASSWORD, "ldap-ca-cert": domain.authority()?}),
        secret: json!({"rotator-type": "ldap", "rotated-username": "app1", "user-attribute": "sAMAccountName",
            "authentication-credentials": "use-target-creds"}),
    };
    measure(report, &[], &subject).await
}

async fn windows(report: &mut Report) -> Result<()> {
    let secret = reset_by_the_target();
    let target =
        |address: String| json!({"hostname": address, "username": "Administrator", "password": INITIAL_PASSWORD});
    let host = block_in_place(Standalone::start)?;
    let mut smb = target(host.address().to_string());
    smb["port"] = json!("445");
    let name = "windows: SAMR over SMB, Samba";
    measure(report, &[], &Subject { name, kinds: ("windows", "windows"), target: smb, secret: secret.clone() }).await?;
    let host = block_in_place(Simulated::start)?;
    let mut winrm = target(host.address().to_string());
    winrm["certificate"] = json!(host.authority()?);
    let name = "windows: WinRM, simulator";
    measure(report, &[], &Subject { name, kinds: ("windows", "windows"), target: winrm, secret: secret.clone() })
        .await?;
    let host = block_in_place(Simulated::start)?;
    let mut ssh = target(host.address().to_string());
    ssh["port"] = json!("22");
    let name = "windows: OpenSSH, simulator";
    measure(report, &[], &Subject { name, kinds: ("windows", "windows"), target: ssh, secret: secret.clone() }).await?;
    let (domain, member) = block_in_place(|| {
        let domain = Domain::start()?;
        let member = Simulated::joined(&domain)?;
        anyhow::Ok((domain, member))
    })?;
    let kerberos = json!({"hostname": member.address().to_string(), "port": "5985", "use-tls": "false", "username": "rot",
        "domain": "corp.test", "password": INITIAL_PASSWORD, "winrm-auth": "kerberos",
        "kdc-host": domain.address().to_string(), "kerberos-hostname": "win1.corp.test"});
    let name = "windows: WinRM with Kerberos, simulator with Samba's tickets";
    measure(report, &[], &Subject { name, kinds: ("windows", "windows"), target: kerberos, secret }).await
}

async fn cloud_and_hooks(report: &mut Report) -> Result<()> {
    let aws = block_in_place(Aws::start)?;
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ["iam:ListAccessKeys",
        "iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey", "iam:GetAccessKeyLastUsed",
        "iam:GetLoginProfile", "iam:UpdateLoginProfile", "iam:GetAccountPasswordPolicy"]}]});
    let admin = aws.user("admin", Some(policy), 1).await?.remove(0);
    let key = aws.user("app", None, 1).await?.remove(0);
    let subject = Subject {
        name: "aws: an access key, moto",
        kinds: ("aws", "aws"),
        target: json!({"access-key-id": admin.id, "access-key": admin.secret, "region": "eu-central-1"}),
        secret: json!({"rotator-type": "api-key", "api-id": key.id, "api-key": key.secret,
            "authentication-credentials": "use-target-creds"}),
    };
    measure(report, &[("AWS_ENDPOINT_URL", aws.url().as_str())], &subject).await?;
    aws.user("ann", None, 0).await?;
    aws.log_in("ann", Some(INITIAL_PASSWORD)).await?;
    let subject = Subject {
        name: "aws: a console password (IAM's answer), moto",
        secret: json!({"rotator-type": "password", "rotated-username": "ann",
            "authentication-credentials": "use-target-creds"}),
        ..subject
    };
    measure(report, &[("AWS_ENDPOINT_URL", aws.url().as_str())], &subject).await?;
    let hook = Hook::start("first").await?;
    let subject = Subject {
        name: "custom: a web hook",
        kinds: ("web", "custom"),
        target: json!({"url": hook.url()}),
        secret: json!({"custom-payload": "first"}),
    };
    measure(report, &[], &subject).await
}

/// Rotates again and again. The value that is read at the end was witnessed by the engine; what a peer holds is the tests' business.
async fn measure(report: &mut Report, environment: &[(&str, &str)], subject: &Subject) -> Result<()> {
    let Subject { name, kinds: (target_kind, secret_kind), target, secret } = subject;
    eprintln!("{name} ...");
    let mut gateway = DevGateway::start_program(host::built("volvelle")?, environment).await?;
    let (mut target, mut secret) = (target.clone(), secret.clone());
    target["name"] = json!(TARGET);
    secret["name"] = json!(SECRET);
    secret["target-name"] = json!(TARGET);
    succeed(&mut gateway, &format!("target-create-{target_kind}"), target).await?;
    succeed(&mut gateway, &format!("rotated-secret-create-{secret_kind}"), secret).await?;
    let rotate = json!({"name": SECRET});
    succeed(&mut gateway, "gateway-rotate-secret", rotate.clone())
        .await
        .with_context(|| format!("{name}: the first rotation"))?;
    let (mut rate, mut gateway_ms, mut holders_ms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = (ticks(gateway.pid())?, ticks_of_all(&gateway.holders())?);
        let began = Instant::now();
        for _ in 0..ROTATIONS {
            succeed(&mut gateway, "gateway-rotate-secret", rotate.clone()).await.with_context(|| (*name).to_owned())?;
        }
        rate.push(ROTATIONS as f64 / began.elapsed().as_secs_f64());
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 * TICK_US / 1000.0 / ROTATIONS as f64;
        gateway_ms.push(each(ticks(gateway.pid())?, before.0));
        holders_ms.push(each(ticks_of_all(&gateway.holders())?, before.1));
    }
    report.add(format!("{name}: verified rotations, one after the other"), "rotations/s", rate, "");
    report.add(format!("{name}: gateway's processor time each"), "ms", gateway_ms, "");
    report.add(format!("{name}: holders' processor time each"), "ms", holders_ms, "");
    Ok(())
}
