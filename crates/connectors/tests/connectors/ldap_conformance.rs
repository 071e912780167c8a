//! The conformance suite on a real OpenLDAP server and a real Active Directory domain controller.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::connector::Connector;
use volvelle_testkit::samba::Domain;
use volvelle_testkit::slapd::Slapd;

use super::conformance::{Subject, passes};
use super::ldap;
use super::*;

enum Peer {
    Slapd { server: Slapd, kept: String },
    Domain(Arc<Domain>),
}

struct Account {
    peer: Peer,
    case: Case,
}

impl Account {
    fn in_slapd(service: &str, acting: ActingAs) -> Self {
        let server = Slapd::start().expect("starts");
        let case = ldap::slapd(&server, service, acting, "app1");
        Self { peer: Peer::Slapd { server, kept: String::new() }, case }
    }

    fn in_domain(domain: &Arc<Domain>, acting: ActingAs) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let user = format!("conf{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        domain.tool(&format!("user create {user} {INITIAL_PASSWORD}")).expect("creates");
        let mut case = ldap::domain(domain, acting, "rot", &user);
        case.target.plain.insert("kdc-host".into(), json!(domain.address().to_string()));
        Self { peer: Peer::Domain(Arc::clone(domain)), case }
    }

    fn user(&self) -> String {
        self.case.current.expose_text("username").expect("a name").to_owned()
    }
}

#[async_trait]
impl Subject for Account {
    fn connector(&self) -> Arc<dyn Connector> {
        registry().get("ldap").expect("is there")
    }

    fn case(&self) -> &Case {
        &self.case
    }

    fn case_mut(&mut self) -> &mut Case {
        &mut self.case
    }

    fn peer(&self) -> SocketAddr {
        match &self.peer {
            Peer::Slapd { server, .. } => (server.address(), 636).into(),
            Peer::Domain(domain) => (domain.address(), 636).into(),
        }
    }

    fn reach(&mut self, address: SocketAddr) {
        self.case.target.plain.insert("ldap-url".into(), json!(format!("ldaps://{address}")));
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        let (user, password) = (self.user(), credential.expose_text("password").expect("has one"));
        match &self.peer {
            Peer::Slapd { server, .. } => server.holds(&Slapd::person(&user), password).expect("ground truth"),
            Peer::Domain(domain) => domain.opens(&user, password).expect("ground truth"),
        }
    }

    fn spoil(&mut self) {
        match self.case.acting {
            ActingAs::Target => {
                self.case.target.secret = Credential::default().with("bind-dn-password", "Wrong-1".into());
            }
            ActingAs::User => self.case.current = Credential::user_password(&self.user(), "Wrong-1".into()),
        }
    }

    async fn demote(&mut self) -> bool {
        let weak = match &self.peer {
            Peer::Slapd { .. } => Slapd::service("weak"),
            Peer::Domain(_) => "weak@corp.test".to_owned(),
        };
        self.case.target.plain.insert("bind-dn".into(), json!(weak));
        self.case.acting == ActingAs::Target
    }

    fn weak(&self) -> Option<Credential> {
        Some(Credential::user_password(&self.user(), "abc".into()))
    }

    async fn save(&mut self) -> bool {
        let dn = Slapd::person(&self.user());
        let Peer::Slapd { server, kept } = &mut self.peer else { return false };
        *kept = server.attribute(&dn, "userPassword").expect("reads").remove(0);
        true
    }

    async fn restore(&mut self) {
        let dn = Slapd::person(&self.user());
        let Peer::Slapd { server, kept } = &self.peer else { return };
        let ldif = format!("dn: {dn}\nchangetype: modify\nreplace: userPassword\nuserPassword:{kept}\n");
        server.modify(&ldif).expect("restores");
    }

    async fn failures(&mut self) -> Option<usize> {
        match &self.peer {
            Peer::Slapd { server, .. } => Some(server.failures(&Slapd::person(&self.user())).expect("counts")),
            Peer::Domain(domain) => usize::try_from(domain.failures(&self.user()).expect("counts")).ok(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ldap_conforms_where_the_outcome_is_read() {
    passes("ldap (slapd, read)", async || Account::in_slapd("rotator", ActingAs::Target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ldap_conforms_where_the_account_changes_itself() {
    passes("ldap (slapd, own password)", async || Account::in_slapd("weak", ActingAs::User)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ldap_conforms_in_a_domain() {
    let domain = Arc::new(Domain::start().expect("starts"));
    // The truth is asked of Kerberos, and the sweep asks for wrong passwords on purpose.
    domain.tool("domain passwordsettings set --account-lockout-threshold=0").expect("sets");
    passes("ldap (domain, reset)", async || Account::in_domain(&domain, ActingAs::Target)).await;
    passes("ldap (domain, own password)", async || Account::in_domain(&domain, ActingAs::User)).await;
}
