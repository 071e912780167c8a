//! The directory connector against a real OpenLDAP server and a real Active Directory domain controller (Samba).

use std::sync::LazyLock;

use volvelle_domain::connector::{Connector, Failure};
use volvelle_testkit::samba::Domain;
use volvelle_testkit::slapd::Slapd;

use super::*;

static SLAPD: LazyLock<Slapd> = LazyLock::new(|| Slapd::start().expect("starts"));
static DOMAIN: LazyLock<Domain> = LazyLock::new(|| Domain::start().expect("starts"));

fn connector() -> std::sync::Arc<dyn Connector> {
    registry().get("ldap").expect("is there")
}

fn case(url: String, authority: String, bind_dn: &str, acting: ActingAs, user: &str, attribute: &str) -> Case {
    let plain = json!({"ldap-url": url, "bind-dn": bind_dn, "ldap-ca-cert": authority});
    let params = json!({"user-attribute": attribute});
    Case {
        target: TargetParams {
            plain: plain.as_object().expect("an object").clone(),
            secret: Credential::default().with("bind-dn-password", INITIAL_PASSWORD.into()),
            parent: None,
        },
        pinned: Vec::new(),
        rotator_type: "ldap",
        params: params.as_object().expect("an object").clone(),
        acting,
        current: Credential::user_password(user, INITIAL_PASSWORD.into()),
        memory: BTreeMap::new(),
        timeout: Duration::from_secs(20),
    }
}

pub(super) fn slapd(server: &Slapd, service: &str, acting: ActingAs, user: &str) -> Case {
    let authority = server.authority().expect("reads");
    case(format!("ldaps://{}", server.address()), authority, &Slapd::service(service), acting, user, "uid")
}

pub(super) fn domain(domain: &Domain, acting: ActingAs, admin: &str, user: &str) -> Case {
    let authority = domain.authority().expect("reads");
    let url = format!("ldaps://{}", domain.address());
    case(url, authority, &format!("{admin}@corp.test"), acting, user, "sAMAccountName")
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

const READ: [ProbeOutcome; 2] =
    [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];
const TRIED: [ProbeOutcome; 2] = [ProbeOutcome::Opens(Evidence::Login), ProbeOutcome::Refused(Evidence::Login)];

#[tokio::test(flavor = "multi_thread")]
async fn a_rotator_with_read_changes_and_reads_the_outcome() {
    let server = Slapd::start().expect("starts");
    let mut case = slapd(&server, "rotator", ActingAs::Target, "app1");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&READ[..], 0));
    assert_eq!(case.memory["method"], "passmod");
    let dn = Slapd::person("app1");
    assert!(server.opens(&dn, &new).expect("asks") && !server.opens(&dn, INITIAL_PASSWORD).expect("asks"));
    assert!(server.attribute(&dn, "pwdReset").expect("reads").is_empty(), "nobody is there to change it once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotator_that_may_only_write_logs_in_once() {
    let mut case = slapd(&SLAPD, "blind", ActingAs::Target, "app2");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!(outcomes[0], ProbeOutcome::Opens(Evidence::Login));
    assert!(matches!(&outcomes[1], ProbeOutcome::Unknown(f) if f.class == FailureClass::LoginBudget), "{outcomes:?}");
    let dn = Slapd::person("app2");
    assert_eq!((failed, SLAPD.failures(&dn).expect("counts")), (0, 0));
    assert!(SLAPD.holds(&dn, &new).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_itself_with_its_old_password() {
    let mut case = slapd(&SLAPD, "weak", ActingAs::User, "app3");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((&outcomes[0], failed), (&ProbeOutcome::Opens(Evidence::Login), 0));
    assert!(SLAPD.holds(&Slapd::person("app3"), &new).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_targets_own_account_changes() {
    let server = Slapd::start().expect("starts");
    let mut case = slapd(&server, "rotator", ActingAs::User, "shown-name");
    case.rotator_type = "target";
    case.target.secret = Credential::default().with("bind-dn-password", Secret::from("Older-Than-Current-1"));
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes[0].clone(), failed), (ProbeOutcome::Opens(Evidence::Login), 0));
    assert!(matches!(&outcomes[1], ProbeOutcome::Refused(Evidence::WitnessRead)), "it may read itself: {outcomes:?}");
    assert!(server.opens(&Slapd::service("rotator"), &new).expect("asks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn start_tls_is_used_and_plain_text_needs_a_flag() {
    let server = Slapd::start().expect("starts");
    let mut case = slapd(&server, "rotator", ActingAs::Target, "app1");
    case.target.plain.insert("ldap-url".into(), format!("ldap://{}", server.address()).into());
    let (_, outcomes, _) = rotate(&mut case).await;
    assert_eq!(outcomes, READ);
    case.target.plain.insert("ldap-ca-cert".into(), server.other_authority().expect("reads").into());
    assert_eq!(refused(&case).await.class, FailureClass::Config);
    case.target.plain.insert("allow-plaintext".into(), true.into());
    connector().preflight(&case.call(), &PasswordPolicy::default()).await.expect("goes without");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_stops_everything() {
    let mut case = slapd(&SLAPD, "rotator", ActingAs::Target, "app1");
    case.target.plain.insert("ldap-ca-cert".into(), SLAPD.other_authority().expect("reads").into());
    let failure = refused(&case).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("signed by nobody"), "{failure:?}");
    case.target.plain.remove("ldap-ca-cert");
    assert_eq!(refused(&case).await.class, FailureClass::Config, "the machine's authorities do not know it either");
    case.target.plain.insert("ldap-ca-cert".into(), SLAPD.authority().expect("reads").into());
    case.target.plain.insert("ldap-url".into(), "ldaps://localhost:1".into());
    assert_eq!(refused(&case).await.class, FailureClass::Unreachable);
    case.target.plain.insert("ldap-url".into(), format!("ldaps://{}", SLAPD.address()).into());
    case.target.plain.insert("ldap-ca-cert".into(), "not a certificate".into());
    assert!(refused(&case).await.message.contains("ldap-ca-cert"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_and_a_missing_entry_are_told_before_anything_changes() {
    let mut case = slapd(&SLAPD, "weak", ActingAs::Target, "app1");
    let failure = refused(&case).await;
    assert!(failure.class == FailureClass::Privilege && failure.hint.contains("userPassword"), "{failure:?}");
    case.current = Credential::user_password("nobody", INITIAL_PASSWORD.into());
    assert_eq!(refused(&case).await.class, FailureClass::Config);
    case.params = json!({"user-attribute": "objectClass"}).as_object().expect("an object").clone();
    case.current = Credential::user_password("inetOrgPerson", INITIAL_PASSWORD.into());
    assert!(refused(&case).await.message.contains("more than one"));
    case.target.secret = Credential::default().with("bind-dn-password", Secret::from("Wrong-1"));
    assert_eq!(refused(&case).await.class, FailureClass::Auth);
    case.target.secret = Credential::default().with("bind-dn-password", Secret::from(""));
    assert_eq!(refused(&case).await.class, FailureClass::Config, "an empty password would be an anonymous login");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_policy_answers_in_sentences() {
    let server = Slapd::start().expect("starts");
    let mut case = slapd(&server, "rotator", ActingAs::Target, "app1");
    let connector = connector();
    case.memory = connector.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let outcome = connector.apply(&case.call(), &Credential::user_password("app1", "Short-1".into())).await;
    assert!(
        matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy && f.message.contains("too short")),
        "{outcome:?}"
    );
    assert!(server.holds(&Slapd::person("app1"), INITIAL_PASSWORD).expect("ground truth"), "nothing has changed");
    let first = Credential::user_password("app1", "First-Passw0rd-123".into());
    let second = Credential::user_password("app1", "Second-Passw0rd-123".into());
    assert_eq!(connector.apply(&case.call(), &first).await, ApplyOutcome::Applied);
    assert_eq!(connector.apply(&case.call(), &first).await, ApplyOutcome::Applied, "again changes nothing");
    assert_eq!(connector.apply(&case.call(), &second).await, ApplyOutcome::Applied);
    let outcome = connector.apply(&case.call(), &first).await;
    assert!(
        matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy && f.message.contains("used before")),
        "{outcome:?}"
    );
    case.acting = ActingAs::User;
    let own = Credential::user_password("app1", "Third-Passw0rd-123".into());
    let outcome = connector.apply(&case.call(), &own).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Auth), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_account_is_no_answer_about_its_password() {
    let server = Slapd::start().expect("starts");
    let dn = Slapd::person("app1");
    for _ in 0..3 {
        assert!(!server.opens(&dn, "Wrong-1").expect("asks"));
    }
    for service in ["rotator", "blind"] {
        let case = slapd(&server, service, ActingAs::Target, "app1");
        let report = connector().probe(&case.call(), &[&case.current]).await;
        assert!(
            matches!(&report.outcomes[0], ProbeOutcome::Unknown(f) if f.message.contains("locked")),
            "{service}: {report:?}"
        );
    }
    let failure = refused(&slapd(&server, "weak", ActingAs::User, "app1")).await;
    assert!(failure.class == FailureClass::LoginBudget && failure.message.contains("locked"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_stored_password_never_locks_an_account() {
    let server = Slapd::start().expect("starts");
    let mut case = slapd(&server, "blind", ActingAs::Target, "app1");
    case.current = Credential::user_password("app1", "Wrong-Stored-123".into());
    let wrong = Credential::user_password("app1", "Wrong-Candidate-1".into());
    let report = connector().probe(&case.call(), &[&wrong, &case.current, &wrong, &case.current]).await;
    assert_eq!((report.failed_logins, server.failures(&Slapd::person("app1")).expect("counts")), (2, 2), "{report:?}");
    assert!(server.opens(&Slapd::person("app1"), INITIAL_PASSWORD).expect("asks"), "not locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_resets_and_only_kerberos_is_believed() {
    let mut case = domain(&DOMAIN, ActingAs::Target, "rot", "app1");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert_eq!(case.memory["method"], "domain-reset");
    assert!(DOMAIN.opens("app1", &new).expect("asks") && !DOMAIN.opens("app1", INITIAL_PASSWORD).expect("asks"));
    let before = DOMAIN.failures("app1").expect("counts");
    // The previous password still lets in by LDAP for an hour; that must not be taken for the present one.
    let report = connector().probe(&case.call(), &[&case.current]).await;
    assert_eq!(report.outcomes, [ProbeOutcome::Refused(Evidence::Login)], "{report:?}");
    assert!(report.failed_logins <= 1 && DOMAIN.failures("app1").expect("counts") <= before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_account_changes_itself() {
    let mut case = domain(&DOMAIN, ActingAs::User, "weak", "app2");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert_eq!(case.memory["method"], "domain-change");
    assert!(DOMAIN.opens("app2", &new).expect("asks"));
    let outcome = connector().apply(&case.call(), &Credential::user_password("app2", new.as_str().into())).await;
    assert!(matches!(outcome, ApplyOutcome::Applied | ApplyOutcome::Rejected(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_domains_refusals_are_sentences() {
    let mut case = domain(&DOMAIN, ActingAs::Target, "rot", "app3");
    let connector = connector();
    case.memory = connector.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let outcome = connector.apply(&case.call(), &Credential::user_password("app3", "aaaaaaaaaaaa".into())).await;
    assert!(
        matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy && f.message.contains("52D")),
        "{outcome:?}"
    );
    let weak = domain(&DOMAIN, ActingAs::Target, "weak", "app3");
    let failure = refused(&weak).await;
    assert!(failure.class == FailureClass::Privilege && failure.hint.contains("Reset Password"), "{failure:?}");
    let mut plain = domain(&DOMAIN, ActingAs::Target, "rot", "app3");
    plain.target.secret = Credential::default().with("bind-dn-password", Secret::from("Wrong-1"));
    let failure = refused(&plain).await;
    assert!(failure.class == FailureClass::Auth && failure.message.contains("52e"), "{failure:?}");
    DOMAIN.tool("user disable app3").expect("disables");
    let failure = refused(&case).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("disabled"), "{failure:?}");
    DOMAIN.tool("user enable app3").expect("enables");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_rotator_needs_reset_password_and_nothing_else() {
    let server = Domain::start().expect("starts");
    server.tool(&format!("user create deleg {INITIAL_PASSWORD}")).expect("creates");
    let mut case = domain(&server, ActingAs::Target, "deleg", "app1");
    assert_eq!(refused(&case).await.class, FailureClass::Privilege);
    let shown = server.tool("user show deleg --attributes=objectSid").expect("shows");
    let sid = shown.lines().find_map(|line| line.strip_prefix("objectSid: ")).expect("a SID");
    // What the documented dsacls line grants: the extended right `Reset Password` on users below.
    let right = "00299570-246d-11d0-a768-00aa006e0529;bf967aba-0de6-11d0-a285-00aa003049e2";
    let grant = format!("dsacl set --objectdn=CN=Users,DC=corp,DC=test --sddl='(OA;CIIO;CR;{right};{sid})'");
    server.tool(&grant).expect("grants");
    let (new, outcomes, failed) = rotate(&mut case).await;
    assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0));
    assert!(server.opens("app1", &new).expect("asks"));
}
