//! Windows hosts whose domain is another target, the parent, against a real Active Directory domain controller (Samba).

use std::sync::{Arc, LazyLock};

use volvelle_domain::connector::{Connector, Parent};
use volvelle_testkit::samba::Domain;
use volvelle_testkit::winrm::Simulated;

use super::*;

static DOMAIN: LazyLock<Domain> = LazyLock::new(|| Domain::start().expect("starts"));

fn connector() -> Arc<dyn Connector> {
    registry().get("windows").expect("is there")
}

fn params(plain: &serde_json::Value, password: Option<&str>) -> TargetParams {
    let secret = password.map(|name| Credential::default().with(name, INITIAL_PASSWORD.into())).unwrap_or_default();
    TargetParams { plain: plain.as_object().expect("an object").clone(), secret, parent: None }
}

/// A host that nobody answers at: all that is asked is its parent.
fn through(kind: &str, acting: ActingAs, user: &str) -> Case {
    let (address, authority) = (DOMAIN.address(), DOMAIN.authority().expect("reads"));
    let parent = match kind {
        "ldap" => params(
            &json!({"ldap-url": format!("ldaps://{address}"), "bind-dn": "rot@corp.test", "ldap-ca-cert": authority}),
            Some("bind-dn-password"),
        ),
        _ => params(
            &json!({"hostname": address.to_string(), "port": "636", "username": "rot", "domain": "corp.test",
                "certificate": authority}),
            Some("password"),
        ),
    };
    let mut target = params(&json!({"hostname": "host1.corp.test", "connection-type": "parent-target"}), None);
    target.parent = Some(Box::new(Parent { kind: kind.to_owned(), params: parent }));
    connector().check_target(&target).expect("fine");
    Case {
        target,
        pinned: Vec::new(),
        rotator_type: "password",
        params: Map::new(),
        acting,
        current: Credential::user_password(user, INITIAL_PASSWORD.into()),
        memory: BTreeMap::new(),
        timeout: Duration::from_secs(20),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domains_accounts_change_through_the_parents_directory_whoever_acts() {
    for (kind, acting, user) in
        [("ldap", ActingAs::Target, "app1"), ("windows", ActingAs::Target, "app2"), ("ldap", ActingAs::User, "app3")]
    {
        let (connector, policy, mut case) = (connector(), PasswordPolicy::default(), through(kind, acting, user));
        connector.check_secret(&case.call(), &case.current).expect("fine");
        case.memory = connector.preflight(&case.call(), &policy).await.expect("preflight").memory;
        let candidate = connector.generate(&case.call(), &policy, &Os).expect("generates");
        assert_eq!(connector.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "{kind} {user}");
        let report = connector.probe(&case.call(), &[&candidate, &case.current]).await;
        let tried = [ProbeOutcome::Opens(Evidence::Login), ProbeOutcome::Refused(Evidence::Login)];
        assert_eq!((report.outcomes.as_slice(), report.failed_logins), (&tried[..], 0), "{kind} {user}");
        let new = candidate.expose_text("password").expect("has one");
        assert!(DOMAIN.opens(user, new).expect("asks") && !DOMAIN.opens(user, INITIAL_PASSWORD).expect("asks"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_parent_lacks_is_told_before_anything_changes() {
    let policy = PasswordPolicy::default();
    let mut case = through("ldap", ActingAs::Target, "weak");
    let parent = case.target.parent.as_mut().expect("has one");
    parent.params.secret = Credential::default().with("bind-dn-password", "Wrong-1".into());
    let failure = connector().preflight(&case.call(), &policy).await.expect_err("refused");
    assert_eq!(failure.class, FailureClass::Auth, "{failure:?}");
    case.target.parent.as_mut().expect("has one").params.plain.remove("ldap-ca-cert");
    let failure = connector().preflight(&case.call(), &policy).await.expect_err("nobody vouches for it");
    assert_eq!(failure.class, FailureClass::Config, "{failure:?}");
    case.rotator_type = "target";
    let failure = connector().check_secret(&case.call(), &case.current).expect_err("has no account of its own");
    assert!(failure.hint.contains("on the parent"), "{failure:?}");
    // Dependents need somebody who can log in to the host.
    case.rotator_type = "password";
    case.params = json!({"services": "spool"}).as_object().expect("an object").clone();
    connector().check_secret(&case.call(), &case.current).expect("rot@corp.test can");
    let parent = case.target.parent.as_mut().expect("has one");
    parent.params.plain.insert("bind-dn".into(), json!("CN=rot,CN=Users,DC=corp,DC=test"));
    let failure = connector().check_secret(&case.call(), &case.current).expect_err("a distinguished name cannot");
    assert!(failure.hint.contains("username"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_transport_winrm_the_parents_account_changes_the_hosts_own_accounts() {
    let host = Simulated::start().expect("starts");
    let directory = json!({"ldap-url": "ldaps://nobody.corp.test", "username": "Administrator",
        "bind-dn": "CN=Administrator,CN=Users,DC=corp,DC=test"});
    let mut case = through("ldap", ActingAs::Target, "app1");
    // The simulated host is no member of the domain: its own Administrator has the same password.
    let target = json!({"hostname": host.address().to_string(), "certificate": host.authority().expect("reads"),
        "transport": "winrm", "winrm-auth": "ntlm", "domain": "WIN1", "connection-type": "parent-target"});
    case.target = params(&target, None);
    let parent = Parent { kind: "ldap".to_owned(), params: params(&directory, Some("bind-dn-password")) };
    case.target.parent = Some(Box::new(parent));
    let (connector, policy) = (connector(), PasswordPolicy::default());
    connector.check_target(&case.target).expect("fine");
    case.memory = connector.preflight(&case.call(), &policy).await.expect("preflight").memory;
    let candidate = connector.generate(&case.call(), &policy, &Os).expect("generates");
    assert_eq!(connector.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    assert!(host.holds("app1", candidate.expose_text("password").expect("has one")).expect("ground truth"));
}
