//! The Windows connector over WinRM with Kerberos: tickets of a real Active Directory domain controller (Samba), at a simulated member host
//! whose Kerberos is MIT's.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use volvelle_domain::connector::Connector;
use volvelle_testkit::samba::Domain;
use volvelle_testkit::winrm::{Simulated, python};

use super::conformance::{Subject, passes};
use super::winrm::{TRIED, connector, refused, rotate};
use super::*;

static DOMAIN: LazyLock<Domain> = LazyLock::new(|| Domain::start().expect("starts"));

/// `rot` of the domain acts on an account of the host.
fn case(host: &Simulated, domain: &Domain, port: &str, user: &str) -> Case {
    let mut case = winrm::case(host, port, "rot@corp.test", ActingAs::Target, user);
    case.target.plain.insert("kdc-host".into(), json!(domain.address().to_string()));
    case.target.plain.insert("kerberos-hostname".into(), json!("win1.corp.test"));
    case
}

/// The same, as another account of the domain.
fn case_of(who: &str, host: &Simulated, domain: &Domain) -> Case {
    let mut case = case(host, domain, "5985", "app1");
    case.target.plain.insert("username".into(), json!(who));
    case
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_the_domain_resets_with_kerberos_over_http_with_sealed_messages_and_over_https() {
    let host = Simulated::joined(&DOMAIN).expect("starts");
    for (port, user) in [("5985", "app1"), ("5986", "app2")] {
        let mut case = case(&host, &DOMAIN, port, user);
        let preflight = connector().preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight");
        assert!(preflight.notes[0].contains("WinRM with Kerberos"), "{:?}", preflight.notes);
        let (new, outcomes, failed) = rotate(&mut case).await;
        assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0), "{port}");
        assert!(host.holds(user, &new).expect("ground truth"));
        assert_eq!(host.failures(user).expect("counts"), 0);
        assert!(!host.command_lines().expect("reads").contains(&new), "nothing secret is in a command line");
    }
    let logins = host.logins().expect("reads");
    let count = |way: &str| logins.iter().filter(|login| *login == way).count();
    assert_eq!((logins.len(), count("kerberos"), count("kerberos-bound")), (8, 4, 4), "{logins:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_name_of_a_domain_is_enough_where_its_controller_is_known() {
    let host = Simulated::joined(&DOMAIN).expect("starts");
    let mut case = case_of("CORP\\rot", &host, &DOMAIN);
    case.target.plain.insert("winrm-auth".into(), json!("kerberos"));
    let (new, ..) = rotate(&mut case).await;
    assert!(host.holds("app1", &new).expect("ground truth"));
    assert!(!host.logins().expect("reads").contains(&"ntlm".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_logs_on_with_the_account_gets_the_new_password_by_kerberos() {
    let host = Simulated::joined(&DOMAIN).expect("starts");
    let mut case = case(&host, &DOMAIN, "5985", "app1");
    let address = host.address();
    let params = json!({"services": format!("spool, My Service@{address}:5985"), "iis-app-pools": "site",
        "scheduled-tasks": "\\Nightly\\backup"});
    case.params = params.as_object().expect("an object").clone();
    let (new, ..) = rotate(&mut case).await;
    let told = connector().hand_on(&case.call(), &Credential::user_password("app1", new.as_str().into())).await;
    assert!(told.len() == 4 && told.iter().all(|dependent| dependent.failure.is_none()), "{told:?}");
    for name in ["service:spool", "service:My Service", "pool:site"] {
        assert_eq!(host.dependent(name).expect("reads"), (new.clone(), 2), "{name}");
    }
    assert!(!host.logins().expect("reads").contains(&"ntlm".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_clients_accept_the_simulators_kerberos() {
    let host = Simulated::joined(&DOMAIN).expect("starts");
    let script = r#"
import sys, winrm
from pypsrp.client import Client
address, authority = sys.argv[1:]
for url in (f"http://{address}:5985/wsman", f"https://{address}:5986/wsman"):
    session = winrm.Session(url, auth=("rot@CORP.TEST", None), transport="kerberos", ca_trust_path=authority,
                            kerberos_hostname_override="win1.corp.test")
    result = session.run_cmd("whoami")
    assert result.std_out == b"corp\\rot\r\n" and result.status_code == 0, result
for secure in (False, True):
    client = Client(address, username="rot@CORP.TEST", ssl=secure, auth="kerberos", cert_validation=authority,
                    negotiate_hostname_override="win1.corp.test", negotiate_service="HTTP")
    out, err, code = client.execute_cmd("whoami")
    assert (out, code) == ("corp\\rot\r\n", 0), (out, err, code)
print("accepted")
"#;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("krb5.conf");
    let known = std::fs::read_to_string(DOMAIN.kerberos_config()).expect("reads");
    let exact = known.replace("[realms]", "  dns_canonicalize_hostname = false\n  rdns = false\n[realms]");
    std::fs::write(&config, exact).expect("writes");
    let environment = [("KRB5_CONFIG", config.clone()), ("KRB5CCNAME", folder.path().join("tickets"))];
    let mut kinit = Command::new("kinit")
        .arg("rot@CORP.TEST")
        .envs(environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("runs");
    let mut input = kinit.stdin.take().expect("standard input");
    std::io::Write::write_all(&mut input, format!("{INITIAL_PASSWORD}\n").as_bytes()).expect("writes");
    drop(input);
    assert!(kinit.wait().expect("ends").success());
    let output = Command::new(python().expect("installs"))
        .args(["-W", "ignore", "-c", script, &host.address().to_string()])
        .arg(host.authority_file())
        .envs(environment)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("accepted"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_a_ticket_is_told_in_a_sentence() {
    let domain = Domain::start().expect("starts");
    let host = Simulated::joined(&domain).expect("starts");
    let tell = |failure: volvelle_domain::connector::Failure, class, words: &str| {
        assert!(failure.class == class && failure.message.contains(words), "{words}: {failure:?}");
    };
    let mut nameless = case(&host, &domain, "5985", "app1");
    nameless.target.plain.remove("kerberos-hostname");
    tell(refused(&nameless).await, FailureClass::Config, &format!("knows no service HTTP/{}", host.address()));
    let mut wrong = case(&host, &domain, "5985", "app1");
    wrong.target.secret = Credential::default().with("password", Secret::from("Wrong-1"));
    tell(refused(&wrong).await, FailureClass::Auth, "the domain refuses the password of rot");
    assert_eq!(domain.failures("rot").expect("counts"), 1);
    tell(refused(&case_of("nobody9@corp.test", &host, &domain)).await, FailureClass::Auth, "does not know nobody9");
    tell(refused(&case_of("rot@other.test", &host, &domain)).await, FailureClass::Auth, "OTHER.TEST does not know rot");
    tell(
        refused(&case_of("app1@corp.test", &host, &domain)).await,
        FailureClass::Privilege,
        "does not let it use WinRM",
    );
    tell(refused(&case_of("weak@corp.test", &host, &domain)).await, FailureClass::Privilege, "no administrator");
    domain.tool("user disable app2").expect("disables");
    tell(refused(&case_of("app2@corp.test", &host, &domain)).await, FailureClass::Auth, "disabled");
    let expire = format!("user setpassword app3 --newpassword={INITIAL_PASSWORD} --must-change-at-next-login");
    domain.tool(&expire).expect("expires");
    tell(refused(&case_of("app3@corp.test", &host, &domain)).await, FailureClass::Privilege, "has expired");
    let mut away = case(&host, &domain, "5985", "app1");
    away.target.plain.insert("kdc-host".into(), json!(host.address().to_string()));
    let failure = refused(&away).await;
    assert!(failure.hint.contains("winrm-auth"), "{failure:?}");
    tell(failure, FailureClass::Unreachable, "port 88");
    // The computer has other keys now than the host: it cannot open the ticket.
    domain.tool("user setpassword WIN1$ --newpassword=Another-Passw0rd!2").expect("sets");
    tell(refused(&case(&host, &domain, "5985", "app1")).await, FailureClass::Auth, "has a ticket of the domain");
    assert!(!host.logins().expect("reads").contains(&"ntlm".to_owned()), "nothing became NTLM");
}

#[tokio::test(flavor = "multi_thread")]
async fn kerberos_never_becomes_ntlm_and_ntlm_is_asked_for_by_name() {
    let alone = Simulated::start().expect("starts");
    let member = Simulated::joined(&DOMAIN).expect("starts");
    // A host that takes NTLM only, at the place of the one that the ticket is for.
    let failure = refused(&case(&alone, &DOMAIN, "5985", "app1")).await;
    assert_eq!(failure.class, FailureClass::Auth, "{failure:?}");
    assert_eq!(alone.logins().expect("reads"), ["kerberos-refused"]);
    let mut local = winrm::case(&member, "5985", "Administrator", ActingAs::Target, "app1");
    local.target.plain.insert("winrm-auth".into(), json!("kerberos"));
    assert_eq!(refused(&local).await.class, FailureClass::Config);
    assert_eq!(
        connector().check_target(&local.target).expect_err("an account of the host").class,
        FailureClass::Config
    );
    local.target.plain.insert("winrm-auth".into(), json!("basic"));
    assert!(
        connector().check_target(&local.target).expect_err("no login").message.contains("negotiate, kerberos, ntlm")
    );
    assert!(member.logins().expect("reads").is_empty(), "nothing was tried");
    let mut by_name = case(&member, &DOMAIN, "5985", "app1");
    by_name.target.plain.insert("winrm-auth".into(), json!("ntlm"));
    assert!(
        refused(&by_name).await.message.contains("does not tell why"),
        "the simulator knows the domain by Kerberos only"
    );
    assert_eq!(member.logins().expect("reads"), ["ntlm", "ntlm"]);
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
        self.case.target.plain.insert("username".into(), json!("weak@corp.test"));
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
async fn windows_conforms_over_winrm_with_kerberos() {
    let fresh = || {
        let host = Simulated::joined(&DOMAIN).expect("starts");
        // The sweep asks for wrong passwords on purpose.
        host.set("app1", "exempt", &json!(true)).expect("sets");
        let case = case(&host, &DOMAIN, "5985", "app1");
        Account { host, case }
    };
    passes("windows (WinRM with Kerberos, simulated)", async || fresh()).await;
}
