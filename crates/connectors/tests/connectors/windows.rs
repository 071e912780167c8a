//! The Windows connector against a real Samba server with accounts of its own, and a real Active Directory domain controller (Samba).

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use volvelle_domain::connector::{Connector, Failure};
use volvelle_testkit::samba::{Domain, Standalone};

use super::conformance::{Subject, passes};
use super::*;

static HOST: LazyLock<Standalone> = LazyLock::new(|| Standalone::start().expect("starts"));

fn connector() -> Arc<dyn Connector> {
    registry().get("windows").expect("is there")
}

fn case(plain: serde_json::Value, acting: ActingAs, user: &str) -> Case {
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

fn local(host: &Standalone, admin: &str, acting: ActingAs, user: &str) -> Case {
    let plain = json!({"hostname": host.address().to_string(), "port": "445", "username": admin});
    case(plain, acting, user)
}

/// Preflight, generate, apply, probe; gives the new password, what the probe said of new and old, and the failed logins.
async fn rotate(case: &mut Case) -> (String, Vec<ProbeOutcome>, u32) {
    let (connector, policy) = (connector(), PasswordPolicy::default());
    case.memory = connector.preflight(&case.call(), &policy).await.expect("preflight").memory;
    let candidate = connector.generate(&case.call(), &policy, &Os).expect("generates");
    assert_eq!(connector.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    let report = connector.probe(&case.call(), &[&candidate, &case.current]).await;
    (candidate.expose_text("password").expect("has one").to_owned(), report.outcomes, report.failed_logins)
}

async fn refused(case: &Case) -> Failure {
    connector().preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("does not work")
}

const TRIED: [ProbeOutcome; 2] = [ProbeOutcome::Opens(Evidence::Login), ProbeOutcome::Refused(Evidence::Login)];

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_resets_a_hosts_account() {
    let mut case = local(&HOST, "Administrator", ActingAs::Target, "app1");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert_eq!(case.memory["method"], "samr-reset");
    assert!(HOST.opens("app1", &new).expect("asks"));
    assert!(!HOST.holds("app1", INITIAL_PASSWORD).expect("ground truth"));
    assert_eq!(HOST.failures("app1").expect("counts"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_account_changes_itself() {
    let mut case = local(&HOST, "", ActingAs::User, "app2");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert_eq!(case.memory["method"], "samr-change");
    assert!(HOST.opens("app2", &new).expect("asks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrators_own_password_changes() {
    let host = Standalone::start().expect("starts");
    let mut case = local(&host, "root", ActingAs::User, "root");
    case.rotator_type = "target";
    case.target.secret = Credential::default().with("password", Secret::from("Older-Than-Current-1"));
    let (new, outcomes, _) = rotate(&mut case).await;
    assert_eq!(outcomes, TRIED);
    assert!(host.opens("root", &new).expect("asks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_told_before_anything_changes() {
    let host = Standalone::start().expect("starts");
    let failure = refused(&local(&host, "weak", ActingAs::Target, "app1")).await;
    assert!(failure.class == FailureClass::Privilege && failure.message.contains("access denied"), "{failure:?}");
    let failure = refused(&local(&host, "Administrator", ActingAs::Target, "nobody9")).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("no such account"), "{failure:?}");
    let mut wrong = local(&host, "Administrator", ActingAs::Target, "app1");
    wrong.target.secret = Credential::default().with("password", Secret::from("Wrong-1"));
    assert_eq!(refused(&wrong).await.class, FailureClass::Auth);
    host.accounts("-r -u app3 -c '[D]'").expect("disables");
    let failure = refused(&local(&host, "Administrator", ActingAs::Target, "app3")).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("disabled"), "{failure:?}");
    let mut down = local(&host, "Administrator", ActingAs::Target, "app1");
    down.target.plain.insert("port".into(), "1445".into());
    down.target.plain.insert("transport".into(), "samr".into());
    assert_eq!(refused(&down).await.class, FailureClass::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_refuses_by_policy_in_a_sentence_and_asks_for_longer_passwords() {
    let host = Standalone::start().expect("starts");
    let mut case = local(&host, "", ActingAs::User, "app1");
    let connector = connector();
    let short = PasswordPolicy { length: 6, ..PasswordPolicy::default() };
    let preflight = connector.preflight(&case.call(), &short).await.expect("preflight");
    assert_eq!(preflight.policy.expect("a stricter one").length, 10);
    case.memory = preflight.memory;
    let outcome = connector.apply(&case.call(), &Credential::user_password("app1", "abc".into())).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy), "{outcome:?}");
    assert!(host.holds("app1", INITIAL_PASSWORD).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_stored_password_never_locks_an_account_and_a_lock_is_no_answer() {
    let host = Standalone::start().expect("starts");
    let mut case = local(&host, "", ActingAs::User, "app1");
    case.current = Credential::user_password("app1", "Wrong-Stored-1".into());
    let wrong = Credential::user_password("app1", "Wrong-Candidate-1".into());
    let report = connector().probe(&case.call(), &[&wrong, &case.current, &wrong, &case.current]).await;
    assert_eq!((report.failed_logins, host.failures("app1").expect("counts")), (2, 2), "{report:?}");
    for _ in 0..3 {
        let _ = host.opens("app1", "Wrong-1");
    }
    let right = local(&host, "", ActingAs::User, "app1");
    let report = connector().probe(&right.call(), &[&right.current]).await;
    assert!(matches!(&report.outcomes[0], ProbeOutcome::Unknown(f) if f.message.contains("locked")), "{report:?}");
    let failure = refused(&local(&host, "Administrator", ActingAs::Target, "app1")).await;
    assert!(failure.class == FailureClass::LoginBudget && failure.message.contains("locked"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domains_account_goes_through_its_directory_and_never_through_smb() {
    let domain = Domain::start().expect("starts");
    let address = domain.address().to_string();
    let certificate = domain.authority().expect("reads");
    let plain = json!({"hostname": address, "port": "636", "username": "rot", "domain": "corp.test", "certificate": certificate});
    let mut through_ldap = case(plain, ActingAs::Target, "app1");
    let (new, outcomes, failed) = rotate(&mut through_ldap).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert!(domain.opens("app1", &new).expect("asks") && !domain.opens("app1", INITIAL_PASSWORD).expect("asks"));
    let plain = json!({"hostname": address, "port": "445", "username": "rot", "domain": "CORP"});
    let failure = refused(&case(plain, ActingAs::Target, "app2")).await;
    assert!(failure.class == FailureClass::Config && failure.hint.contains("ldap"), "{failure:?}");
}

struct Account {
    host: Standalone,
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
        (self.host.address(), 445).into()
    }

    fn reach(&mut self, address: SocketAddr) {
        let plain = &mut self.case.target.plain;
        plain.insert("hostname".into(), json!(address.ip().to_string()));
        plain.insert("port".into(), json!(address.port().to_string()));
        plain.insert("transport".into(), json!("samr"));
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
        (self.case.acting == ActingAs::User).then(|| Credential::user_password("app1", "abc".into()))
    }

    fn has_identity(&self) -> bool {
        false
    }

    async fn failures(&mut self) -> Option<usize> {
        usize::try_from(self.host.failures("app1").expect("counts")).ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_conforms_over_smb() {
    let fresh = |acting: ActingAs| {
        let host = Standalone::start().expect("starts");
        // The sweep asks for wrong passwords on purpose.
        host.accounts("-P 'bad lockout attempt' -C 0").expect("sets");
        let case = local(&host, "Administrator", acting, "app1");
        Account { host, case }
    };
    passes("windows (SAMR, reset)", async || fresh(ActingAs::Target)).await;
    passes("windows (SAMR, own password)", async || fresh(ActingAs::User)).await;
}
