//! The Windows connector over OpenSSH for Windows, against a simulated host that OpenSSH's own client accepts too.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::connector::Connector;
use volvelle_testkit::winrm::Simulated;

use super::conformance::{Subject, passes};
use super::winrm::{TRIED, connector, refused, rotate};
use super::*;

async fn case(host: &Simulated, admin: &str, acting: ActingAs, user: &str) -> Case {
    let mut case = winrm::case(host, "22", admin, acting, user);
    let learned = connector().learn_identity(&case.target, Duration::from_secs(20)).await.expect("learns");
    let pin = learned.expect("has one");
    assert_eq!(pin.public_key, host.host_key().expect("ground truth"));
    case.pinned.push(pin);
    case
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_accepts_the_simulator() {
    let host = Simulated::start().expect("starts");
    let log_in = |password: &str| {
        let output = Command::new("sshpass")
            .args(["-e", "ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "NumberOfPasswordPrompts=1", &format!("app1@{}", host.address()), "whoami"])
            .env("SSHPASS", password)
            .output()
            .expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(log_in(INITIAL_PASSWORD), (true, "win1\\app1\r\n".to_owned()));
    assert!(!log_in("Wrong-1").0);
    assert_eq!(host.failures("app1").expect("counts"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_resets_over_ssh() {
    let host = Simulated::start().expect("starts");
    let mut case = case(&host, "Administrator", ActingAs::Target, "app1").await;
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert_eq!(case.memory["method"], "ssh-reset");
    assert!(host.holds("app1", &new).expect("ground truth"));
    assert_eq!(host.failures("app1").expect("counts"), 0);
    let lines = host.command_lines().expect("reads");
    assert!(!lines.contains(&new) && lines.contains("EncodedCommand"), "nothing secret is in a command line");
    assert!(host.logins().expect("reads").is_empty(), "WinRM was not used");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_may_log_in_with_a_key() {
    let host = Simulated::start().expect("starts");
    let mut case = case(&host, "Administrator", ActingAs::Target, "app1").await;
    case.target.secret = Credential::default().with("private-key", host.private_key().expect("reads").as_str().into());
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert!(host.holds("app1", &new).expect("ground truth"));
    // An account that acts for itself is asked about its password, not about the key.
    case.acting = ActingAs::User;
    case.current = Credential::user_password("Administrator", Secret::from("Wrong-1"));
    assert_eq!(refused(&case).await.class, FailureClass::Auth);
    case.target.secret = Credential::default();
    case.acting = ActingAs::Target;
    assert!(refused(&case).await.message.contains("there is no password"), "neither password nor key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_itself_over_ssh() {
    let host = Simulated::start().expect("starts");
    let mut case = case(&host, "", ActingAs::User, "weak").await;
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert_eq!(case.memory["method"], "ssh-change");
    assert!(host.holds("weak", &new).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_goes_to_a_host_whose_key_is_unknown_or_another() {
    let host = Simulated::start().expect("starts");
    let mut unpinned = case(&host, "Administrator", ActingAs::Target, "app1").await;
    let pinned = std::mem::take(&mut unpinned.pinned);
    let failure = refused(&unpinned).await;
    assert!(failure.class == FailureClass::PeerIdentity && failure.hint.contains("trust-host-key"), "{failure:?}");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    unpinned.target.plain.insert("host-key".into(), json!(other));
    let learned = connector().learn_identity(&unpinned.target, Duration::from_secs(20)).await;
    assert_eq!(learned.expect_err("another key").class, FailureClass::PeerIdentity);
    unpinned.target.plain.insert("host-key".into(), json!("no key"));
    assert_eq!(connector().check_target(&unpinned.target).expect_err("no key").class, FailureClass::Config);
    unpinned.pinned = pinned;
    host.swap_host_key().expect("swaps");
    let failure = refused(&unpinned).await;
    assert!(failure.class == FailureClass::PeerIdentity && failure.message.contains("SHA256:"), "{failure:?}");
    assert_eq!(host.failures("Administrator").expect("counts"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_over_ssh_is_told_before_anything_changes() {
    let host = Simulated::start().expect("starts");
    let failure = refused(&case(&host, "weak", ActingAs::Target, "app1").await).await;
    assert!(failure.class == FailureClass::Privilege && failure.message.contains("no administrator"), "{failure:?}");
    let failure = refused(&case(&host, "Administrator", ActingAs::Target, "nobody9").await).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("no account"), "{failure:?}");
    let mut wrong = case(&host, "Administrator", ActingAs::Target, "app1").await;
    wrong.target.secret = Credential::default().with("password", Secret::from("Wrong-1"));
    let failure = refused(&wrong).await;
    assert!(failure.class == FailureClass::Auth && failure.message.contains("SSH does not tell why"), "{failure:?}");
    host.set("app1", "locked", &json!(true)).expect("sets");
    let locked = case(&host, "Administrator", ActingAs::Target, "app1").await;
    let failure = refused(&locked).await;
    assert!(failure.class == FailureClass::LoginBudget && failure.message.contains("locked"), "{failure:?}");
    let report = connector().probe(&locked.call(), &[&locked.current]).await;
    assert!(matches!(&report.outcomes[0], ProbeOutcome::Unknown(f) if f.message.contains("locked")), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_logs_on_with_the_account_on_the_target_gets_the_new_password_over_ssh() {
    let host = Simulated::start().expect("starts");
    let mut case = case(&host, "Administrator", ActingAs::Target, "app1").await;
    let elsewhere = format!("My Service@{}:5986", host.address());
    let params = json!({"services": format!("spool, {elsewhere}"), "scheduled-tasks": "\\Nightly\\backup"});
    case.params = params.as_object().expect("an object").clone();
    let (new, ..) = rotate(&mut case).await;
    let told = connector().hand_on(&case.call(), &Credential::user_password("app1", new.as_str().into())).await;
    assert!(told.len() == 3 && told.iter().all(|dependent| dependent.failure.is_none()), "{told:?}");
    for name in ["service:spool", "service:My Service"] {
        assert_eq!(host.dependent(name).expect("reads"), (new.clone(), 2), "{name}");
    }
    assert_eq!(host.dependent("task:\\Nightly\\backup").expect("reads"), (new, 1));
    assert_eq!(host.logins().expect("reads"), ["ntlm", "ntlm"], "only the one that names a host went over WinRM");
    case.params.insert("services".into(), json!("spool@other:22"));
    let initial = case.current.clone();
    let failure = connector().check_secret(&case.call(), &initial).expect_err("no key of that host is known");
    assert!(failure.class == FailureClass::Config && failure.message.contains("WinRM only"), "{failure:?}");
}

struct Account {
    host: Simulated,
    case: Case,
}

#[async_trait]
impl Subject for Account {
    fn connector(&self) -> Arc<dyn Connector> {
        connector()
    }

    fn case(&self) -> &Case {
        &self.case
    }

    fn case_mut(&mut self) -> &mut Case {
        &mut self.case
    }

    fn peer(&self) -> SocketAddr {
        (self.host.address(), 22).into()
    }

    fn reach(&mut self, address: SocketAddr) {
        let plain = &mut self.case.target.plain;
        plain.insert("hostname".into(), json!(address.ip().to_string()));
        plain.insert("port".into(), json!(address.port().to_string()));
        plain.insert("transport".into(), json!("ssh"));
        self.case.pinned[0].address = address.to_string();
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        self.host.holds("app1", credential.expose_text("password").expect("has one")).expect("ground truth")
    }

    fn spoil(&mut self) {
        match self.case.acting {
            ActingAs::Target => self.case.target.secret = Credential::default().with("password", "Wrong-1".into()),
            ActingAs::User => self.case.current = Credential::user_password("app1", "Wrong-1".into()),
        }
    }

    async fn demote(&mut self) -> bool {
        self.case.target.plain.insert("username".into(), json!("weak"));
        self.case.acting == ActingAs::Target
    }

    fn weak(&self) -> Option<Credential> {
        Some(Credential::user_password("app1", "abc".into()))
    }

    async fn swap(&mut self) -> bool {
        self.host.swap_host_key().expect("swaps");
        true
    }

    async fn save(&mut self) -> bool {
        true
    }

    async fn restore(&mut self) {
        self.host.set("app1", "password", &json!(INITIAL_PASSWORD)).expect("sets");
    }

    async fn failures(&mut self) -> Option<usize> {
        usize::try_from(self.host.failures("app1").expect("counts")).ok()
    }
}

async fn conforms(label: &str, acting: ActingAs) {
    let fresh = async || {
        let host = Simulated::start().expect("starts");
        // The sweep asks for wrong passwords on purpose.
        host.set("app1", "exempt", &json!(true)).expect("sets");
        let case = case(&host, "Administrator", acting, "app1").await;
        Account { host, case }
    };
    passes(label, fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_conforms_over_ssh() {
    conforms("windows (SSH, reset, simulated)", ActingAs::Target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_conforms_over_ssh_where_the_account_changes_itself() {
    conforms("windows (SSH, own password, simulated)", ActingAs::User).await;
}
