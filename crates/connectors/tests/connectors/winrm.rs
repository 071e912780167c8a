//! The Windows connector over WinRM, against a simulated host that two independent clients accept too.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::connector::{Connector, Failure};
use volvelle_testkit::winrm::{Simulated, python};

use super::conformance::{Subject, passes};
use super::*;

pub(super) fn connector() -> Arc<dyn Connector> {
    registry().get("windows").expect("is there")
}

pub(super) fn case(host: &Simulated, port: &str, admin: &str, acting: ActingAs, user: &str) -> Case {
    let plain = json!({"hostname": host.address().to_string(), "port": port, "username": admin,
        "certificate": host.authority().expect("reads")});
    Case {
        target: TargetParams {
            plain: plain.as_object().expect("an object").clone(),
            secret: Credential::default().with("password", INITIAL_PASSWORD.into()),
            parent: None,
        },
        pinned: Vec::new(),
        rotator_type: "password",
        params: Map::new(),
        acting,
        current: Credential::user_password(user, INITIAL_PASSWORD.into()),
        memory: BTreeMap::new(),
        timeout: Duration::from_secs(20),
    }
}

pub(super) async fn rotate(case: &mut Case) -> (String, Vec<ProbeOutcome>, u32) {
    let (connector, policy) = (connector(), PasswordPolicy::default());
    case.memory = connector.preflight(&case.call(), &policy).await.expect("preflight").memory;
    let candidate = connector.generate(&case.call(), &policy, &Os).expect("generates");
    assert_eq!(connector.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    let report = connector.probe(&case.call(), &[&candidate, &case.current]).await;
    (candidate.expose_text("password").expect("has one").to_owned(), report.outcomes, report.failed_logins)
}

pub(super) async fn refused(case: &Case) -> Failure {
    connector().preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("does not work")
}

pub(super) const TRIED: [ProbeOutcome; 2] =
    [ProbeOutcome::Opens(Evidence::Login), ProbeOutcome::Refused(Evidence::Login)];

#[tokio::test(flavor = "multi_thread")]
async fn independent_clients_accept_the_simulator() {
    let host = Simulated::start().expect("starts");
    let script = r#"
import sys, winrm
from pypsrp.client import Client
address, password, authority = sys.argv[1:]
for url in (f"http://{address}:5985/wsman", f"https://{address}:5986/wsman"):
    session = winrm.Session(url, auth=("app1", password), transport="ntlm", ca_trust_path=authority)
    result = session.run_cmd("whoami")
    assert result.std_out == b"win1\\app1\r\n" and result.status_code == 0, result
    try:
        winrm.Session(url, auth=("app2", "Wrong-1"), transport="ntlm", ca_trust_path=authority).run_cmd("whoami")
        sys.exit("a wrong password gets in")
    except winrm.exceptions.InvalidCredentialsError:
        pass
for secure in (False, True):
    client = Client(address, username="app1", password=password, ssl=secure, auth="ntlm", cert_validation=authority)
    out, err, code = client.execute_cmd("whoami")
    assert (out, code) == ("win1\\app1\r\n", 0), (out, err, code)
print("accepted")
"#;
    let output = Command::new(python().expect("installs"))
        .args(["-W", "ignore", "-c", script, &host.address().to_string(), INITIAL_PASSWORD])
        .arg(host.authority_file())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("accepted"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(host.failures("app2").expect("counts"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_resets_over_http_with_sealed_messages_and_over_https() {
    let host = Simulated::start().expect("starts");
    for (port, user) in [("5985", "app1"), ("5986", "app2")] {
        let mut case = case(&host, port, "Administrator", ActingAs::Target, user);
        let (new, outcomes, failed) = rotate(&mut case).await;
        assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0), "{port}");
        assert_eq!(case.memory["method"], "winrm-reset");
        assert!(host.holds(user, &new).expect("ground truth"));
        assert_eq!(host.failures(user).expect("counts"), 0);
        let lines = host.command_lines().expect("reads");
        assert!(!lines.contains(&new) && lines.contains("EncodedCommand"), "nothing secret is in a command line");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_itself_over_winrm() {
    let host = Simulated::start().expect("starts");
    let mut case = case(&host, "5985", "", ActingAs::User, "weak");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert!(host.holds("weak", &new).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_over_winrm_is_told_before_anything_changes() {
    let host = Simulated::start().expect("starts");
    let failure = refused(&case(&host, "5985", "weak", ActingAs::Target, "app1")).await;
    assert!(failure.class == FailureClass::Privilege && failure.message.contains("no administrator"), "{failure:?}");
    let failure = refused(&case(&host, "5985", "", ActingAs::User, "app3")).await;
    assert!(
        failure.class == FailureClass::Privilege && failure.hint.contains("Remote Management Users"),
        "{failure:?}"
    );
    let failure = refused(&case(&host, "5985", "Administrator", ActingAs::Target, "nobody9")).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("no account"), "{failure:?}");
    let mut wrong = case(&host, "5986", "Administrator", ActingAs::Target, "app1");
    wrong.target.plain.remove("certificate");
    let failure = refused(&wrong).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("certificate"), "{failure:?}");
    wrong.target.plain.insert("certificate".into(), host.authority().expect("reads").into());
    wrong.target.secret = Credential::default().with("password", Secret::from("Wrong-1"));
    assert_eq!(refused(&wrong).await.class, FailureClass::Auth);
    host.set("app1", "locked", &json!(true)).expect("sets");
    let case = case(&host, "5985", "Administrator", ActingAs::Target, "app1");
    let failure = refused(&case).await;
    assert!(failure.class == FailureClass::LoginBudget && failure.message.contains("locked"), "{failure:?}");
    let report = connector().probe(&case.call(), &[&case.current]).await;
    assert!(matches!(&report.outcomes[0], ProbeOutcome::Unknown(f) if f.message.contains("locked")), "{report:?}");
    host.set("app1", "locked", &json!(false)).expect("sets");
    let wrong = Credential::user_password("app1", "Wrong-Candidate-1".into());
    let report = connector().probe(&case.call(), &[&wrong, &wrong, &wrong, &case.current]).await;
    assert_eq!((report.failed_logins, host.failures("app1").expect("counts")), (2, 2), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_logs_on_with_the_account_gets_the_new_password_and_each_failure_is_told() {
    let host = Simulated::start().expect("starts");
    let address = host.address();
    let mut case = case(&host, "5986", "Administrator", ActingAs::Target, "app1");
    let params = json!({"services": format!("spool, My Service@{address}:5985, gone, foreign, spool@127.0.0.1:1"),
        "iis-app-pools": "site", "scheduled-tasks": "\\Nightly\\backup"});
    case.params = params.as_object().expect("an object").clone();
    let (new, _, _) = rotate(&mut case).await;
    let told = connector().hand_on(&case.call(), &Credential::user_password("app1", new.as_str().into())).await;
    let failed: Vec<_> = told.iter().map(|d| d.failure.as_ref().map(|f| f.class)).collect();
    let (config, away) = (Some(FailureClass::Config), Some(FailureClass::Unreachable));
    assert_eq!(failed, [None, None, config, config, away, None, None], "{told:?}");
    for name in ["service:spool", "service:My Service", "pool:site"] {
        assert_eq!(host.dependent(name).expect("reads"), (new.clone(), 2), "{name}");
    }
    assert_eq!(host.dependent("task:\\Nightly\\backup").expect("reads"), (new, 1));
    assert_eq!(host.dependent("service:foreign").expect("reads"), (INITIAL_PASSWORD.to_owned(), 1));
    case.params.insert("services".into(), "spool@host:port".into());
    let initial = case.current.clone();
    assert!(connector().check_secret(&case.call(), &initial).is_err());
    // An account that changes itself has no claim on the target's account.
    case.params.insert("services".into(), format!("spool@{address}:5985").into());
    case.acting = ActingAs::User;
    let refused = connector().check_secret(&case.call(), &initial).expect_err("the target's account does not act");
    assert!(refused.hint.contains("use-target-creds"), "{refused:?}");
    let logins = host.logins().expect("reads").len();
    let told = connector().hand_on(&case.call(), &initial).await;
    assert!(told.iter().all(|dependent| dependent.failure.is_some()) && told.len() == 3, "{told:?}");
    assert_eq!(host.logins().expect("reads").len(), logins, "nobody logged in anywhere");
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
        (self.host.address(), 5985).into()
    }

    fn reach(&mut self, address: SocketAddr) {
        let plain = &mut self.case.target.plain;
        plain.insert("hostname".into(), json!(address.ip().to_string()));
        plain.insert("port".into(), json!(address.port().to_string()));
        plain.insert("transport".into(), json!("winrm"));
        plain.insert("use-tls".into(), json!("false"));
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        self.host.holds("app1", credential.expose_text("password").expect("has one")).expect("ground truth")
    }

    fn spoil(&mut self) {
        self.case.target.secret = Credential::default().with("password", "Wrong-1".into());
    }

    async fn demote(&mut self) -> bool {
        self.case.target.plain.insert("username".into(), json!("weak"));
        true
    }

    fn weak(&self) -> Option<Credential> {
        Some(Credential::user_password("app1", "abc".into()))
    }

    fn has_identity(&self) -> bool {
        false
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

#[tokio::test(flavor = "multi_thread")]
async fn windows_conforms_over_winrm() {
    let fresh = || {
        let host = Simulated::start().expect("starts");
        // The sweep asks for wrong passwords on purpose.
        host.set("app1", "exempt", &json!(true)).expect("sets");
        let case = case(&host, "5985", "Administrator", ActingAs::Target, "app1");
        Account { host, case }
    };
    passes("windows (WinRM, simulated)", async || fresh()).await;
}
