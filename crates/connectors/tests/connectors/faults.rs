//! The fault suite: a proxy between us and the host cuts, delays and swallows; what is answered is what really happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const PASS: u8 = 0;
/// Connections end as soon as something is sent on them, and new ones at once.
const CUT: u8 = 1;
/// What we send arrives; what the host answers does not, and then the connection ends.
const DEAF: u8 = 2;
/// Nothing arrives on either side and nothing ends.
const HOLE: u8 = 3;
/// Everything arrives late.
const SLOW: u8 = 4;

struct Proxy {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    async fn start(host: &Host) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let (address, mode) = (listener.local_addr().expect("has one"), Arc::new(AtomicU8::new(PASS)));
        let (to, shared) = (host.addr, Arc::clone(&mode));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) == CUT {
                    continue;
                }
                let server = TcpStream::connect(to).await.expect("the host is there");
                let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
                tokio::spawn(pump(client_in, server_out, Arc::clone(&shared), false));
                tokio::spawn(pump(server_in, client_out, Arc::clone(&shared), true));
            }
        });
        Self { address, mode }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    /// The case, reached through the proxy.
    fn between(&self, mut case: Case) -> Case {
        case.target.plain.insert("host".into(), json!("127.0.0.1"));
        case.target.plain.insert("port".into(), json!(self.address.port().to_string()));
        case.pinned[0].address = self.address.to_string();
        case
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mode: Arc<AtomicU8>,
    answers: bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        match mode.load(Ordering::SeqCst) {
            CUT => return,
            DEAF if answers => {
                // Long enough for the host to do what it was told.
                tokio::time::sleep(Duration::from_secs(2)).await;
                return;
            }
            HOLE => continue,
            SLOW => tokio::time::sleep(Duration::from_millis(150)).await,
            _ => {}
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

/// A case behind a proxy after its preflight, with a candidate.
async fn prepared(host: &Host) -> (Arc<dyn volvelle_domain::connector::Connector>, Proxy, Case, Credential) {
    let proxy = Proxy::start(host).await;
    let mut case = proxy.between(Case::new(host, "root", ActingAs::Target, "app1").await);
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
    proxy.set(CUT);
    let outcome = ssh.apply(&case.call(), &candidate).await;
    assert!(matches!(outcome, ApplyOutcome::NotReached(_)), "{outcome:?}");
    assert!(in_force(&host, &case.current));
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    assert!(report.outcomes.iter().all(|o| matches!(o, ProbeOutcome::Unknown(_))), "{report:?}");
    assert_eq!(report.failed_logins, 0);
    proxy.set(PASS);
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
                proxy.set(DEAF);
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
    proxy.set(PASS);
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    let witnessed = [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];
    assert_eq!(report.outcomes, witnessed);
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "once more changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_before_the_change_is_not_reached_and_slowness_is_waited_for() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let (ssh, proxy, case, candidate) = prepared(&host).await;
    proxy.set(HOLE);
    let short = Call { timeout: Duration::from_secs(4), ..case.call() };
    let outcome = ssh.apply(&short, &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::NotReached(f) if f.class == FailureClass::Timeout), "{outcome:?}");
    let failure = ssh.preflight(&short, &PasswordPolicy::default()).await.expect_err("silence");
    assert_eq!(failure.class, FailureClass::Timeout);
    assert!(in_force(&host, &case.current));
    proxy.set(SLOW);
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
