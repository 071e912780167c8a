//! The SSH connector against real SSH servers, each a host with its own `/etc/shadow`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, json};
use volvelle_connectors::registry;
use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Call, Evidence, FailureClass, PasswordPolicy, PeerIdentity, ProbeOutcome, TargetParams,
};
use volvelle_domain::ids::Entropy;
use volvelle_domain::{Credential, Secret};
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};

#[path = "connectors/accounts.rs"]
mod accounts;
#[path = "connectors/aws.rs"]
mod aws;
#[path = "connectors/aws_console.rs"]
mod aws_console;
#[path = "connectors/bmc.rs"]
mod bmc;
#[path = "connectors/conformance.rs"]
mod conformance;
#[path = "connectors/custom.rs"]
mod custom;
#[path = "connectors/devices.rs"]
mod devices;
#[path = "connectors/faults.rs"]
mod faults;
#[path = "connectors/frr.rs"]
mod frr;
#[path = "connectors/hooks.rs"]
mod hooks;
#[path = "connectors/junos.rs"]
mod junos;
#[path = "connectors/keys.rs"]
mod keys;
#[path = "connectors/ldap.rs"]
mod ldap;
#[path = "connectors/ldap_conformance.rs"]
mod ldap_conformance;
#[path = "connectors/parents.rs"]
mod parents;
#[path = "connectors/proxy.rs"]
mod proxy;
#[path = "connectors/ssh_conformance.rs"]
mod ssh_conformance;
#[path = "connectors/windows.rs"]
mod windows;
#[path = "connectors/windows_kerberos.rs"]
mod windows_kerberos;
#[path = "connectors/windows_ssh.rs"]
mod windows_ssh;
#[path = "connectors/winrm.rs"]
mod winrm;

struct Os;

impl Entropy for Os {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("randomness");
    }
}

/// A secret on a host, as the engine would hold it.
pub struct Case {
    target: TargetParams,
    pinned: Vec<PeerIdentity>,
    rotator_type: &'static str,
    params: Map<String, serde_json::Value>,
    acting: ActingAs,
    current: Credential,
    memory: BTreeMap<String, String>,
    timeout: Duration,
}

impl Case {
    async fn new(host: &Host, target_user: &str, acting: ActingAs, user: &str) -> Self {
        let plain = json!({"host": host.addr.ip().to_string(), "port": host.addr.port().to_string(),
            "ssh-username": target_user, "allow-legacy-algorithms": host.kind == HostKind::Legacy});
        let target = TargetParams {
            plain: plain.as_object().expect("an object").clone(),
            secret: Credential::default().with("ssh-password", INITIAL_PASSWORD.into()),
            parent: None,
        };
        let connector = registry().get("ssh").expect("is there");
        let pin = connector.learn_identity(&target, Duration::from_secs(10)).await.expect("learns").expect("has one");
        assert_eq!(pin.public_key, host.host_key().expect("ground truth").trim());
        Self {
            target,
            pinned: vec![pin],
            rotator_type: "password",
            params: Map::new(),
            acting,
            current: Credential::user_password(user, INITIAL_PASSWORD.into()),
            memory: BTreeMap::new(),
            timeout: Duration::from_secs(20),
        }
    }

    fn call(&self) -> Call<'_> {
        Call {
            target: &self.target,
            pinned: &self.pinned,
            rotator_type: self.rotator_type,
            params: &self.params,
            acting: self.acting,
            current: &self.current,
            memory: &self.memory,
            proof: "proof-of-the-caller",
            login_budget: 2,
            timeout: self.timeout,
        }
    }

    /// Preflight, generate, apply, probe; gives the new password and what the probe said of new and old.
    async fn rotate(&mut self) -> (String, Vec<ProbeOutcome>) {
        let ssh = registry().get("ssh").expect("is there");
        let policy = PasswordPolicy::default();
        let preflight = ssh.preflight(&self.call(), &policy).await.expect("preflight");
        self.memory = preflight.memory;
        let candidate = ssh.generate(&self.call(), &policy, &Os).expect("generates");
        assert_eq!(ssh.apply(&self.call(), &candidate).await, ApplyOutcome::Applied);
        let report = ssh.probe(&self.call(), &[&candidate, &self.current]).await;
        assert_eq!(report.failed_logins, 0, "{report:?}");
        (candidate.expose_text("password").expect("has one").to_owned(), report.outcomes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_changes_another_account_and_reads_the_outcome() {
    for kind in [HostKind::Debian, HostKind::Dropbear, HostKind::Legacy] {
        let host = Host::start(kind).expect("starts");
        let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
        let (new, outcomes) = case.rotate().await;
        let witnessed = [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];
        assert_eq!(outcomes, witnessed, "{kind:?}");
        assert_eq!(case.memory["method"], "chpasswd-e", "{kind:?}");
        assert!(host.shadow_is("app1", &new).expect("ground truth"), "{kind:?}");
        assert!(host.opens("app1", &new), "{kind:?}");
        assert!(!host.opens("app1", INITIAL_PASSWORD), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_changes_itself() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::User, "root").await;
    let (new, outcomes) = case.rotate().await;
    assert_eq!(outcomes[0], ProbeOutcome::Opens(Evidence::Login));
    assert_eq!(outcomes[1], ProbeOutcome::Refused(Evidence::WitnessRead));
    assert!(host.opens("root", &new));
}

#[tokio::test(flavor = "multi_thread")]
async fn sudo_is_used_with_and_without_a_password() {
    let host = Host::start(HostKind::Sudo).expect("starts");
    for (acting, rise) in [("ops", "sudo-password"), ("rot", "sudo")] {
        let mut case = Case::new(&host, acting, ActingAs::Target, "app1").await;
        let ssh = registry().get("ssh").expect("is there");
        let preflight = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight");
        assert_eq!(preflight.memory["rise"], rise);
        case.memory = preflight.memory;
        let candidate = Credential::user_password("app1", format!("By-{acting}-9876543").as_str().into());
        assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "{acting}");
        let password = candidate.expose_text("password").expect("has one");
        assert!(host.shadow_is("app1", password).expect("ground truth"), "{acting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_its_own_password_at_the_prompt() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    assert_eq!((case.memory["method"].as_str(), case.memory["rise"].as_str()), ("passwd", "never"));
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    assert!(host.shadow_is("app1", candidate.expose_text("password").expect("has one")).expect("ground truth"));
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "again changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_rejection_is_told_apart_and_changes_nothing() {
    let host = Host::start(HostKind::Strict).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let weak = Credential::user_password("app1", "abc".into());
    let ApplyOutcome::Rejected(failure) = ssh.apply(&case.call(), &weak).await else { panic!("rejected") };
    assert_eq!(failure.class, FailureClass::Policy);
    assert!(host.shadow_is("app1", INITIAL_PASSWORD).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_key_stops_everything_before_a_password_is_sent() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let host = host.replace().expect("another machine at the same address");
    let ssh = registry().get("ssh").expect("is there");
    let failure = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("stops");
    assert_eq!(failure.class, FailureClass::PeerIdentity);
    assert!(failure.message.contains("SHA256:"), "{failure:?}");
    let candidate = Credential::user_password("app1", "Never-Sent-123".into());
    assert!(matches!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Rejected(_)));
    assert_eq!(failures(&host), 0, "no password was tried");
    let unpinned = Call { pinned: &[], ..case.call() };
    let failure = ssh.preflight(&unpinned, &PasswordPolicy::default()).await.expect_err("stops");
    assert_eq!(failure.class, FailureClass::PeerIdentity);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_apart() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let ssh = registry().get("ssh").expect("is there");
    let policy = PasswordPolicy::default();
    let mut case = Case::new(&host, "root", ActingAs::Target, "nobody-here").await;
    assert_eq!(ssh.preflight(&case.call(), &policy).await.expect_err("no account").class, FailureClass::Config);
    case.current = Credential::user_password("app1", INITIAL_PASSWORD.into());
    case.target.secret = Credential::default().with("ssh-password", Secret::from("wrong"));
    assert_eq!(ssh.preflight(&case.call(), &policy).await.expect_err("wrong").class, FailureClass::Auth);
    let mut plain = Case::new(&host, "app2", ActingAs::Target, "app1").await;
    assert_eq!(ssh.preflight(&plain.call(), &policy).await.expect_err("no right").class, FailureClass::Privilege);
    plain.target.plain.insert("port".into(), json!("1"));
    plain.pinned[0].address = format!("{}:1", host.addr.ip());
    assert_eq!(ssh.preflight(&plain.call(), &policy).await.expect_err("closed").class, FailureClass::Unreachable);
    plain.target.plain.insert("port".into(), json!("70000"));
    assert_eq!(ssh.check_target(&plain.target).expect_err("no port").class, FailureClass::Config);
    let hostile = Credential::user_password("x'; reboot; '", "y".into());
    assert_eq!(ssh.check_secret(&case.call(), &hostile).expect_err("no name").class, FailureClass::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_device_is_reached_only_by_flag() {
    let host = Host::start(HostKind::Legacy).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    case.target.plain.insert("allow-legacy-algorithms".into(), json!(false));
    let ssh = registry().get("ssh").expect("is there");
    let failure = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("stops");
    assert_eq!(failure.class, FailureClass::Config);
    assert!(failure.hint.contains("allow-legacy-algorithms"), "{failure:?}");
}

/// Failed logins that the server itself counted.
fn failures(host: &Host) -> usize {
    let counts = |line: &&str| line.starts_with("Failed password") || line.contains("PAM: Authentication failure");
    host.server_log().expect("a log").lines().filter(counts).count()
}

/// Changes the server's configuration and makes it read it again.
fn reconfigure(host: &Host, script: &str) {
    let done = host.exec(&format!("{script}; kill -HUP $(pgrep -o -x sshd)")).expect("enters");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::thread::sleep(Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_password_of_an_expired_account_is_not_refused() {
    let host = Host::start(HostKind::ExpiredForce).expect("starts");
    let case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    let report = ssh.probe(&case.call(), &[&case.current]).await;
    assert!(!matches!(report.outcomes[0], ProbeOutcome::Refused(_)), "{report:?}");
    reconfigure(&host, "sed -i 's/^PasswordAuthentication.*/PasswordAuthentication no/' /etc/ssh/sshd_config");
    let report = ssh.probe(&case.call(), &[&case.current]).await;
    assert!(!matches!(report.outcomes[0], ProbeOutcome::Refused(_)), "at the prompt: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_account_changes_its_own_password() {
    let host = Host::start(HostKind::ExpiredForce).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    let outcome = ssh.apply(&case.call(), &candidate).await;
    let changed = host.shadow_is("app1", candidate.expose_text("password").expect("has one")).expect("ground truth");
    assert!(outcome == ApplyOutcome::Applied && changed, "{outcome:?} {changed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_costs_no_login() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    let wrong = Credential::user_password("app1", "Wrong-1".into());
    let none = Call { login_budget: 0, current: &wrong, ..case.call() };
    ssh.probe(&none, &[&wrong]).await;
    assert_eq!(failures(&host), 0, "probe");
    let memory = BTreeMap::from([("rise".to_owned(), "never".to_owned()), ("method".to_owned(), "passwd".to_owned())]);
    ssh.apply(&Call { memory: &memory, ..none }, &Credential::user_password("app1", "Wrong-2".into())).await;
    assert_eq!(failures(&host), 0, "apply");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failed_login_of_a_probe_is_reported() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    case.target.secret = Credential::default().with("ssh-password", Secret::from("wrong"));
    let ssh = registry().get("ssh").expect("is there");
    let wrong = Credential::user_password("app1", "Wrong-1".into());
    let report = ssh.probe(&case.call(), &[&wrong, &wrong]).await;
    assert_eq!(report.failed_logins as usize, failures(&host), "{report:?}");
    assert!(failures(&host) <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_given_by_the_user_is_enforced() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    case.target.plain.insert("host-key".into(), json!(other));
    let ssh = registry().get("ssh").expect("is there");
    let learned = ssh.learn_identity(&case.target, Duration::from_secs(10)).await;
    assert_eq!(learned.expect_err("another key").class, FailureClass::PeerIdentity);
    // A host that is down yet needs not be asked for what was given.
    case.target.plain.insert("port".into(), json!("1"));
    let given = ssh.learn_identity(&case.target, Duration::from_secs(10)).await.expect("the key that was given");
    assert_eq!(given.expect("a key").public_key, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_asks_again_is_a_rejection_at_once() {
    let host = Host::start(HostKind::Strict).expect("starts");
    host.exec("sed -i 's/retry=1 minlen/retry=3 minlen/' /etc/pam.d/common-password").expect("enters");
    let mut case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let weak = Credential::user_password("app1", "abc".into());
    let outcome = ssh.apply(&case.call(), &weak).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_without_chpasswd_or_without_passwords_are_rotated() {
    for kind in [HostKind::Busybox, HostKind::KeyOnly, HostKind::Tinyssh] {
        let host = Host::start(kind).expect("starts");
        let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
        if kind != HostKind::Busybox {
            case.target.secret = Credential::default().with("private-key", host.private_key().into());
        }
        let (new, outcomes) = case.rotate().await;
        assert!(host.shadow_is("app1", &new).expect("ground truth"), "{kind:?}");
        assert_eq!(outcomes[0], ProbeOutcome::Opens(Evidence::WitnessRead), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_cannot_be_compared_is_not_a_refusal() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    for field in ["$6$rounds=50$abcdefgh$x", "$y$zzzz$a$b", "$6$"] {
        host.exec(&format!("sed -i 's|^app1:[^:]*:|app1:{field}:|' /etc/shadow")).expect("enters");
        let report = ssh.probe(&case.call(), &[&case.current]).await;
        assert!(matches!(report.outcomes[0], ProbeOutcome::Unknown(_)), "{field}: {report:?}");
    }
}
