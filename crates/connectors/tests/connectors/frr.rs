//! Telnet: FRRouting's own terminal, a real one.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::connector::Connector;
use volvelle_testkit::frr::{Door, ENABLE_PASSWORD, Frr, INITIAL_PASSWORD};

use super::conformance::{Subject, passes};
use super::*;

struct Router {
    frr: Frr,
    case: Case,
    door: Door,
    kept: String,
}

impl Router {
    fn new(door: Door) -> Self {
        let frr = Frr::start().expect("starts");
        let plain = json!({"host": frr.address().to_string(), "port": "2601", "ssh-username": "vty", "device-type": "frr",
            "device-transport": "telnet", "allow-telnet": true});
        let mut secret = Credential::default().with("ssh-password", INITIAL_PASSWORD.into());
        if door == Door::Login {
            secret = secret.with("enable-password", ENABLE_PASSWORD.into());
        }
        let case = Case {
            target: TargetParams { plain: plain.as_object().expect("an object").clone(), secret, parent: None },
            pinned: Vec::new(),
            rotator_type: if door == Door::Login { "target" } else { "enable" },
            params: Map::new(),
            acting: if door == Door::Login { ActingAs::User } else { ActingAs::Target },
            current: match door {
                Door::Login => Credential::user_password("vty", INITIAL_PASSWORD.into()),
                Door::Enable => Credential::user_password("enable", ENABLE_PASSWORD.into()),
            },
            memory: BTreeMap::new(),
            timeout: Duration::from_secs(20),
        };
        Self { frr, case, door, kept: String::new() }
    }
}

fn password(credential: &Credential) -> &str {
    credential.expose_text("password").expect("has one")
}

#[async_trait]
impl Subject for Router {
    fn connector(&self) -> Arc<dyn Connector> {
        registry().get("ssh").expect("is there")
    }

    fn case(&self) -> &Case {
        &self.case
    }

    fn case_mut(&mut self) -> &mut Case {
        &mut self.case
    }

    fn peer(&self) -> SocketAddr {
        SocketAddr::from((self.frr.address(), 2601))
    }

    fn reach(&mut self, address: SocketAddr) {
        self.case.target.plain.insert("host".into(), json!(address.ip().to_string()));
        self.case.target.plain.insert("port".into(), json!(address.port().to_string()));
    }

    fn has_identity(&self) -> bool {
        false
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        self.frr.opens(self.door, password(credential)).expect("the truth")
    }

    fn spoil(&mut self) {
        match self.door {
            Door::Login => self.case.current = Credential::user_password("vty", "Wrong-1".into()),
            Door::Enable => self.case.target.secret = Credential::default().with("ssh-password", "Wrong-1".into()),
        }
    }

    async fn demote(&mut self) -> bool {
        match self.door {
            Door::Login => {
                self.case.target.secret = self.case.target.secret.clone().with("enable-password", "Wrong-1".into())
            }
            Door::Enable => self.case.current = Credential::user_password("enable", "Wrong-1".into()),
        }
        true
    }

    async fn save(&mut self) -> bool {
        self.kept = password(&self.case.current).to_owned();
        true
    }

    async fn restore(&mut self) {
        self.frr.set(self.door, &self.kept).expect("puts back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_conforms_over_telnet() {
    passes("ssh (frr over telnet, its own password)", async || Router::new(Door::Login)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routers_enable_password_conforms_over_telnet() {
    passes("ssh (frr over telnet, enable password)", async || Router::new(Door::Enable)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routers_passwords_are_rotated_and_kept_and_telnet_is_used_only_by_flag() {
    for door in [Door::Login, Door::Enable] {
        let mut router = Router::new(door);
        let (connector, policy) = (router.connector(), PasswordPolicy::default());
        connector.check_target(&router.case.target).expect("fine");
        connector.check_secret(&router.case.call(), &router.case.current).expect("fine");
        let learned = connector.learn_identity(&router.case.target, Duration::from_secs(5)).await.expect("asks nobody");
        assert!(learned.is_none(), "telnet has no identity");
        router.case.memory = connector.preflight(&router.case.call(), &policy).await.expect("ready").memory;
        let candidate = connector.generate(&router.case.call(), &policy, &Os).expect("generates");
        assert_eq!(connector.apply(&router.case.call(), &candidate).await, ApplyOutcome::Applied, "{door:?}");
        assert!(router.frr.keeps(door, password(&candidate)).expect("the truth"), "{door:?}: it was not saved");
        let report = connector.probe(&router.case.call(), &[&candidate, &router.case.current]).await;
        assert!(matches!(report.outcomes[0], ProbeOutcome::Opens(_)) && report.failed_logins == 0, "{report:?}");
        router.case.target.plain.insert("allow-telnet".into(), json!(false));
        let failure = connector.check_target(&router.case.target).expect_err("only by flag");
        assert!(failure.class == FailureClass::Config && failure.hint.contains("allow-telnet"), "{failure:?}");
        let outcome = connector.apply(&router.case.call(), &candidate).await;
        assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.hint.contains("allow-telnet")), "{outcome:?}");
    }
}
