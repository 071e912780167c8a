//! The fault suite: a proxy between us and the host cuts, delays and swallows; what is answered is what really happened.

use std::sync::Arc;

use super::proxy::{Mode, Proxy};
use super::*;

/// The case, reached through the proxy.
fn between(proxy: &Proxy, mut case: Case) -> Case {
    case.target.plain.insert("host".into(), json!("127.0.0.1"));
    case.target.plain.insert("port".into(), json!(proxy.address.port().to_string()));
    case.pinned[0].address = proxy.address.to_string();
    case
}

/// A case behind a proxy after its preflight, with a candidate.
async fn prepared(host: &Host) -> (Arc<dyn volvelle_domain::connector::Connector>, Proxy, Case, Credential) {
    let proxy = Proxy::start(host.addr).await;
    let mut case = between(&proxy, Case::new(host, "root", ActingAs::Target, "app1").await);
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    (ssh, proxy, case, candidate)
}

fn in_force(host: &Host, credential: &Credential) -> bool {
    host.shadow_is("app1", credential.expose_text("password").expect("has one")).expect("ground truth")
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_before_anything_is_sent_is_not_reached() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let (ssh, proxy, case, candidate) = prepared(&host).await;
    proxy.set(Mode::Cut);
    let outcome = ssh.apply(&case.call(), &candidate).await;
    assert!(matches!(outcome, ApplyOutcome::NotReached(_)), "{outcome:?}");
    assert!(in_force(&host, &case.current));
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    assert!(report.outcomes.iter().all(|o| matches!(o, ProbeOutcome::Unknown(_))), "{report:?}");
    assert_eq!(report.failed_logins, 0);
    proxy.set(Mode::Pass);
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "the same candidate, later");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_after_the_change_is_ambiguous_and_the_probe_finds_out() {
    let host = Host::start(HostKind::Debian).expect("starts");
    // Nothing of the answer arrives: neither that the channel is open (nothing sent then) nor what became of the change.
    let (ssh, proxy, case, candidate) = prepared(&host).await;
    let call = Call { timeout: Duration::from_secs(8), ..case.call() };
    let deaf_later = async {
        // The change is under way once the host runs it: a slow chpasswd shows that moment.
        for _ in 0..100 {
            if host.read("pgrep -x sleep || true").is_ok_and(|text| !text.is_empty()) {
                proxy.set(Mode::Deaf);
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the change never began");
    };
    host.read("mv /usr/sbin/chpasswd /usr/sbin/chpasswd.real; printf '#!/bin/sh\\nsleep 1; exec /usr/sbin/chpasswd.real \"$@\"\\n' > /usr/sbin/chpasswd; chmod 755 /usr/sbin/chpasswd").expect("writes");
    let (outcome, ()) = tokio::join!(ssh.apply(&call, &candidate), deaf_later);
    assert!(matches!(outcome, ApplyOutcome::Ambiguous(_)), "{outcome:?}");
    assert!(in_force(&host, &candidate), "it did arrive");
    proxy.set(Mode::Pass);
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    let witnessed = [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];
    assert_eq!(report.outcomes, witnessed);
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "once more changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_before_the_change_is_not_reached_and_slowness_is_waited_for() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let (ssh, proxy, case, candidate) = prepared(&host).await;
    proxy.set(Mode::Hole);
    let short = Call { timeout: Duration::from_secs(4), ..case.call() };
    let outcome = ssh.apply(&short, &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::NotReached(f) if f.class == FailureClass::Timeout), "{outcome:?}");
    let failure = ssh.preflight(&short, &PasswordPolicy::default()).await.expect_err("silence");
    assert_eq!(failure.class, FailureClass::Timeout);
    assert!(in_force(&host, &case.current));
    proxy.set(Mode::Slow);
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    assert!(in_force(&host, &candidate));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_behind_the_same_address_stops_the_change() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let (ssh, _proxy, case, candidate) = prepared(&host).await;
    let other = host.replace().expect("another machine");
    let outcome = ssh.apply(&case.call(), &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::PeerIdentity), "{outcome:?}");
    assert!(in_force(&other, &case.current));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_restored_from_its_backup_is_seen_as_it_is() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let (ssh, _proxy, case, candidate) = prepared(&host).await;
    host.read("cp -p /etc/shadow /root/shadow.old").expect("copies");
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    host.read("cp -p /root/shadow.old /etc/shadow").expect("restores");
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    let witnessed = [ProbeOutcome::Refused(Evidence::WitnessRead), ProbeOutcome::Opens(Evidence::WitnessRead)];
    assert_eq!(report.outcomes, witnessed);
}
