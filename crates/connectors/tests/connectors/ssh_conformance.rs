//! The conformance suite on hosts reached over SSH.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::connector::Connector;

use super::conformance::{Subject, passes};
use super::*;

struct Account {
    host: Option<Host>,
    case: Case,
    connector: Arc<dyn Connector>,
}

impl Account {
    async fn on(kind: HostKind, acting: ActingAs) -> Self {
        let host = Host::start(kind).expect("starts");
        let case = Case::new(&host, "root", acting, "app1").await;
        Self { host: Some(host), case, connector: registry().get("ssh").expect("is there") }
    }

    fn host(&self) -> &Host {
        self.host.as_ref().expect("a host")
    }
}

#[async_trait]
impl Subject for Account {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::clone(&self.connector)
    }

    fn case(&self) -> &Case {
        &self.case
    }

    fn case_mut(&mut self) -> &mut Case {
        &mut self.case
    }

    fn peer(&self) -> SocketAddr {
        self.host().addr
    }

    fn reach(&mut self, address: SocketAddr) {
        self.case.target.plain.insert("host".into(), json!(address.ip().to_string()));
        self.case.target.plain.insert("port".into(), json!(address.port().to_string()));
        self.case.pinned[0].address = address.to_string();
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        let password = credential.expose_text("password").expect("has one");
        self.host().shadow_is("app1", password).expect("ground truth")
    }

    fn spoil(&mut self) {
        match self.case.acting {
            ActingAs::Target => self.case.target.secret = Credential::default().with("ssh-password", "Wrong-1".into()),
            ActingAs::User => self.case.current = Credential::user_password("app1", "Wrong-1".into()),
        }
        self.connector = registry().get("ssh").expect("is there");
    }

    async fn demote(&mut self) -> bool {
        self.case.target.plain.insert("ssh-username".into(), json!("app2"));
        self.case.acting == ActingAs::Target
    }

    fn weak(&self) -> Option<Credential> {
        let strict = self.host().kind == HostKind::Strict && self.case.acting == ActingAs::User;
        strict.then(|| Credential::user_password("app1", "abc".into()))
    }

    async fn swap(&mut self) -> bool {
        self.host = self.host.take().map(|host| host.replace().expect("another machine"));
        true
    }

    async fn save(&mut self) -> bool {
        self.host().read("cp -p /etc/shadow /root/shadow.old").expect("copies");
        true
    }

    async fn restore(&mut self) {
        self.host().read("cp -p /root/shadow.old /etc/shadow").expect("restores");
    }

    async fn failures(&mut self) -> Option<usize> {
        Some(failures(self.host()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_conforms_where_root_acts() {
    passes("ssh (Debian, root acts)", async || Account::on(HostKind::Debian, ActingAs::Target).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_conforms_where_the_account_changes_itself() {
    passes("ssh (own password)", async || Account::on(HostKind::Strict, ActingAs::User).await).await;
}
