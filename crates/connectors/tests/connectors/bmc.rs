//! The connector for BMCs: Redfish against a simulated service that two independent clients accept too; IPMI 2.0 against OpenIPMI's
//! simulator and, for cipher suite 17, pyghmi's server.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::connector::{Connector, Failure};
use volvelle_testkit::bmc::{INITIAL_PASSWORD, Ipmi, Load, Redfish, Server, python};

use super::conformance::{Subject, passes};
use super::*;

fn connector() -> Arc<dyn Connector> {
    registry().get("bmc").expect("is there")
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

fn over_redfish(bmc: &Redfish, admin: &str, acting: ActingAs, user: &str) -> Case {
    let plain =
        json!({"host": bmc.address().to_string(), "username": admin, "certificate": bmc.authority().expect("reads")});
    case(plain, acting, user)
}

fn over_ipmi(bmc: &Ipmi, server: Server, admin: &str, acting: ActingAs, user: &str) -> Case {
    let plain = json!({"host": bmc.address().to_string(), "protocol": "ipmi", "username": admin,
        "allow-legacy-algorithms": server == Server::OpenIpmi});
    let mut case = case(plain, acting, user);
    case.timeout = Duration::from_secs(3);
    case
}

async fn rotate(case: &mut Case) -> (Credential, Vec<ProbeOutcome>, u32) {
    let (connector, policy) = (connector(), PasswordPolicy::default());
    connector.check_target(&case.target).expect("fine");
    connector.check_secret(&case.call(), &case.current).expect("fine");
    case.memory = connector.preflight(&case.call(), &policy).await.expect("preflight").memory;
    let candidate = connector.generate(&case.call(), &policy, &Os).expect("generates");
    assert_eq!(connector.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    let report = connector.probe(&case.call(), &[&candidate, &case.current]).await;
    (candidate, report.outcomes, report.failed_logins)
}

async fn refused(case: &Case) -> Failure {
    connector().preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("does not work")
}

fn password(credential: &Credential) -> &str {
    credential.expose_text("password").expect("has one")
}

const TRIED: [ProbeOutcome; 2] = [ProbeOutcome::Opens(Evidence::Login), ProbeOutcome::Refused(Evidence::Login)];
const READ: [ProbeOutcome; 2] =
    [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];

#[tokio::test(flavor = "multi_thread")]
async fn independent_clients_accept_the_redfish_simulator() {
    let bmc = Redfish::start().expect("starts");
    let script = r#"
import sys, redfish, sushy
address, password, authority = sys.argv[1:]
url, path = "https://" + address, "/redfish/v1/AccountService/Accounts/6"
for way in ("session", "basic"):
    client = redfish.redfish_client(base_url=url, username="admin", password=password, cafile=authority)
    client.login(auth=way)
    shown = client.get(path)
    assert shown.dict["UserName"] == "app2" and shown.dict["Password"] is None, shown.text
    answer = client.patch(path, body={"Password": "By-DMTF-" + way}, headers={"If-Match": shown.getheader("ETag")})
    assert answer.status == 200, answer.text
    client.logout()
try:
    redfish.redfish_client(base_url=url, username="app2", password=password, cafile=authority).login(auth="session")
    sys.exit("a former password gets in")
except redfish.rest.v1.InvalidCredentialsError:
    pass
root = sushy.Sushy(url, username="app2", password="By-DMTF-basic", verify=authority)
assert root.redfish_version == "1.17.0"
print("accepted")
"#;
    let output = Command::new(python().expect("installs"))
        .args(["-W", "ignore", "-c", script, &bmc.address().to_string(), INITIAL_PASSWORD])
        .arg(bmc.authority_file())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("accepted"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(bmc.field("app2", "all").expect("reads"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sets_a_password_over_redfish_and_leaves_no_session() {
    let bmc = Redfish::start().expect("starts");
    for (name, value) in [("keep_alive", json!(true)), ("keep_alive", json!(false)), ("sessions", json!(false))] {
        bmc.rule(name, &value).expect("sets");
        bmc.set("app1", "password", &json!(INITIAL_PASSWORD)).expect("sets");
        let mut case = over_redfish(&bmc, "admin", ActingAs::Target, "app1");
        let (new, outcomes, failed) = rotate(&mut case).await;
        assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0), "{name} {value}");
        assert!(bmc.holds("app1", password(&new)).expect("ground truth"));
        assert_eq!(password(&new).len(), 20, "the BMC takes no more");
        assert_eq!((bmc.sessions().expect("counts"), bmc.field("app1", "all").expect("counts")), (0, json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_only_change_itself_does_so_also_when_the_bmc_demands_it() {
    let bmc = Redfish::start().expect("starts");
    for demanded in [false, true] {
        bmc.set("ops", "change", &json!(demanded)).expect("sets");
        bmc.set("ops", "password", &json!(INITIAL_PASSWORD)).expect("sets");
        let mut case = over_redfish(&bmc, "", ActingAs::User, "ops");
        let (new, outcomes, failed) = rotate(&mut case).await;
        assert_eq!((outcomes.as_slice(), failed), (&TRIED[..], 0), "{demanded}");
        assert!(bmc.holds("ops", password(&new)).expect("ground truth"));
        // A change that was made already is found out by the login that the present password is refused.
        assert_eq!(connector().apply(&case.call(), &new).await, ApplyOutcome::Applied);
    }
    bmc.set("admin", "change", &json!(true)).expect("sets");
    let failure = refused(&over_redfish(&bmc, "admin", ActingAs::Target, "app1")).await;
    assert!(failure.class == FailureClass::Privilege && failure.message.contains("demands a new"), "{failure:?}");
    let mut own = over_redfish(&bmc, "admin", ActingAs::User, "admin");
    own.rotator_type = "target";
    let (new, outcomes, _) = rotate(&mut own).await;
    assert_eq!(outcomes, TRIED);
    assert!(bmc.holds("admin", password(&new)).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_over_redfish_is_told_before_anything_changes() {
    let bmc = Redfish::start().expect("starts");
    let of = |admin: &str, user: &str| over_redfish(&bmc, admin, ActingAs::Target, user);
    let failure = refused(&of("ops", "app1")).await;
    assert!(failure.class == FailureClass::Privilege && failure.hint.contains("ConfigureUsers"), "{failure:?}");
    assert!(refused(&of("admin", "nobody")).await.message.contains("no account nobody"));
    assert!(refused(&of("admin", "snmp")).await.message.contains("may not use Redfish"));
    let mut wrong = of("admin", "app1");
    wrong.target.plain.remove("certificate");
    let failure = refused(&wrong).await;
    assert!(failure.class == FailureClass::Config && failure.message.contains("certificate"), "{failure:?}");
    wrong.target.plain.insert("certificate".into(), bmc.certificate().expect("reads").into());
    connector().preflight(&wrong.call(), &PasswordPolicy::default()).await.expect("the BMC's own certificate will do");
    bmc.set("app1", "enabled", &json!(false)).expect("sets");
    assert!(refused(&of("admin", "app1")).await.message.contains("disabled"));
    bmc.set("app1", "enabled", &json!(true)).expect("sets");
    bmc.set("app1", "locked", &json!(true)).expect("sets");
    let case = of("admin", "app1");
    assert_eq!(refused(&case).await.class, FailureClass::LoginBudget);
    let report = connector().probe(&case.call(), &[&case.current]).await;
    assert!(matches!(&report.outcomes[0], ProbeOutcome::Unknown(f) if f.message.contains("locked")), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_never_locked_by_asking_about_it() {
    let bmc = Redfish::start().expect("starts");
    for (threshold, spent) in [(3, 2), (2, 1), (1, 0)] {
        bmc.rule("threshold", &json!(threshold)).expect("sets");
        bmc.set("app1", "failures", &json!(0)).expect("sets");
        bmc.set("app1", "all", &json!(0)).expect("sets");
        let mut case = over_redfish(&bmc, "admin", ActingAs::Target, "app1");
        case.memory = connector().preflight(&case.call(), &PasswordPolicy::default()).await.expect("ready").memory;
        let wrong = Credential::user_password("app1", "Wrong-Candidate-1".into());
        let report = connector().probe(&case.call(), &[&wrong, &wrong, &wrong, &wrong]).await;
        assert_eq!(
            (report.failed_logins, bmc.field("app1", "all").expect("counts")),
            (spent, json!(spent)),
            "{report:?}"
        );
        assert_eq!(bmc.field("app1", "locked").expect("reads"), false, "{threshold}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_told_without_the_password_and_two_actors_cannot_both_win() {
    let bmc = Redfish::start().expect("starts");
    let mut case = over_redfish(&bmc, "admin", ActingAs::Target, "app1");
    case.memory = connector().preflight(&case.call(), &PasswordPolicy::default()).await.expect("ready").memory;
    let weak = Credential::user_password("app1", "OnlyLettersHere".into());
    let ApplyOutcome::Rejected(failure) = connector().apply(&case.call(), &weak).await else { panic!("rejected") };
    assert!(
        failure.class == FailureClass::Policy && failure.message.contains("refuses the new password"),
        "{failure:?}"
    );
    assert!(!failure.message.contains("OnlyLettersHere"), "the service repeats it, we do not: {failure:?}");
    assert!(bmc.seen().expect("reads").iter().any(|line| line.starts_with("PATCH ")));
    // The simulator refuses a change without the state that it is made in (428) and one in another state (412).
    assert!(bmc.holds("app1", INITIAL_PASSWORD).expect("ground truth"));
}

struct OverRedfish(Redfish, Case, SocketAddr);

impl OverRedfish {
    fn new(acting: ActingAs) -> Self {
        let bmc = Redfish::start().expect("starts");
        let user = if acting == ActingAs::Target { "app1" } else { "ops" };
        let (case, peer) = (over_redfish(&bmc, "admin", acting, user), SocketAddr::from((bmc.address(), 443)));
        Self(bmc, case, peer)
    }

    fn user(&self) -> &str {
        self.1.current.expose_text("username").expect("has one")
    }
}

fn spoil(case: &mut Case) {
    match case.acting {
        ActingAs::Target => case.target.secret = Credential::default().with("password", "Wrong-1".into()),
        ActingAs::User => {
            let user = case.current.expose_text("username").expect("has one").to_owned();
            case.current = Credential::user_password(&user, "Wrong-1".into());
        }
    }
}

fn reach(case: &mut Case, address: SocketAddr) {
    case.target.plain.insert("host".into(), json!(address.ip().to_string()));
    case.target.plain.insert("port".into(), json!(address.port().to_string()));
}

#[async_trait]
impl Subject for OverRedfish {
    fn connector(&self) -> Arc<dyn Connector> {
        connector()
    }

    fn case(&self) -> &Case {
        &self.1
    }

    fn case_mut(&mut self) -> &mut Case {
        &mut self.1
    }

    fn peer(&self) -> SocketAddr {
        self.2
    }

    fn reach(&mut self, address: SocketAddr) {
        reach(&mut self.1, address);
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        self.0.holds(self.user(), password(credential)).expect("the truth")
    }

    fn spoil(&mut self) {
        spoil(&mut self.1);
    }

    async fn demote(&mut self) -> bool {
        // One that sees accounts and may not change them.
        self.0.set("admin", "role", &json!("Auditor")).expect("sets");
        self.1.acting == ActingAs::Target
    }

    fn weak(&self) -> Option<Credential> {
        Some(Credential::user_password(self.user(), "weak".into()))
    }

    async fn save(&mut self) -> bool {
        self.0.keep().expect("keeps");
        true
    }

    async fn restore(&mut self) {
        self.0.put_back().expect("puts back");
    }

    async fn failures(&mut self) -> Option<usize> {
        let failures = self.0.field(self.user(), "all").ok()?.as_u64()?;
        usize::try_from(failures).ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redfish_conforms_where_an_administrator_acts() {
    passes("bmc (Redfish, admin acts)", async || OverRedfish::new(ActingAs::Target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redfish_conforms_where_the_account_acts_itself() {
    passes("bmc (Redfish, the account itself)", async || OverRedfish::new(ActingAs::User)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmitool_accepts_both_servers() {
    for server in [Server::OpenIpmi, Server::Suite17] {
        let bmc = Ipmi::start(server).expect("starts");
        assert!(bmc.opens("app1", INITIAL_PASSWORD).expect("runs"), "{server:?}");
        assert!(!bmc.opens("app1", "Wrong-Passw0rd").expect("runs"), "{server:?}");
        let (done, said) =
            bmc.tool("admin", INITIAL_PASSWORD, &["user", "set", "password", "3", "By-Tool-1", "16"]).expect("runs");
        assert!(done && bmc.opens("app1", "By-Tool-1").expect("runs"), "{server:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_set_over_ipmi_and_no_login_fails() {
    for server in [Server::OpenIpmi, Server::Suite17] {
        let bmc = Ipmi::start(server).expect("starts");
        for (acting, user) in [(ActingAs::Target, "app1"), (ActingAs::User, "admin")] {
            let mut case = over_ipmi(&bmc, server, "admin", acting, user);
            let (new, outcomes, failed) = rotate(&mut case).await;
            assert_eq!((outcomes.as_slice(), failed), (&READ[..], 0), "{server:?} {acting:?}");
            assert_eq!(password(&new).len(), 16);
            assert!(bmc.opens(user, password(&new)).expect("ground truth"), "{server:?} {acting:?}");
            assert!(!bmc.opens(user, INITIAL_PASSWORD).expect("ground truth"), "{server:?} {acting:?}");
            assert_eq!(connector().apply(&case.call(), &new).await, ApplyOutcome::Applied, "again changes nothing");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_over_ipmi_is_told_before_anything_changes() {
    let server = Server::Suite17;
    let bmc = Ipmi::start(server).expect("starts");
    let of = |admin: &str, user: &str| over_ipmi(&bmc, server, admin, ActingAs::Target, user);
    assert_eq!(refused(&of("ops", "app1")).await.class, FailureClass::Privilege);
    assert_eq!(refused(&of("nobody", "app1")).await.class, FailureClass::Auth);
    assert!(refused(&of("admin", "nobody")).await.message.contains("no user nobody"));
    assert!(refused(&of("admin", "off")).await.message.contains("may not log in"));
    let case = of("admin", "app1");
    let weak = Credential::user_password("app1", "short".into());
    let ApplyOutcome::Rejected(failure) = connector().apply(&case.call(), &weak).await else { panic!("rejected") };
    assert_eq!(failure.class, FailureClass::Policy, "{failure:?}");
    bmc.be(Load::Busy).expect("tells");
    let candidate = Credential::user_password("app1", "Candidate-1".into());
    assert!(matches!(connector().apply(&case.call(), &candidate).await, ApplyOutcome::NotReached(_)));
    bmc.be(Load::Idle).expect("tells");
    let old = Ipmi::start(Server::OpenIpmi).expect("starts");
    let case = over_ipmi(&old, server, "admin", ActingAs::Target, "app1");
    let failure = refused(&case).await;
    assert!(failure.class == FailureClass::Config && failure.hint.contains("allow-legacy-algorithms"), "{failure:?}");
}

struct OverIpmi(Ipmi, Case);

impl OverIpmi {
    fn new(server: Server, acting: ActingAs) -> Self {
        let bmc = Ipmi::start(server).expect("starts");
        let case = over_ipmi(&bmc, server, "admin", acting, "app1");
        Self(bmc, case)
    }
}

#[async_trait]
impl Subject for OverIpmi {
    fn connector(&self) -> Arc<dyn Connector> {
        connector()
    }

    fn case(&self) -> &Case {
        &self.1
    }

    fn case_mut(&mut self) -> &mut Case {
        &mut self.1
    }

    fn peer(&self) -> SocketAddr {
        SocketAddr::from((self.0.address(), 623))
    }

    fn sends_datagrams(&self) -> bool {
        true
    }

    fn reach(&mut self, address: SocketAddr) {
        reach(&mut self.1, address);
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        self.0.opens("app1", password(credential)).expect("the truth")
    }

    fn spoil(&mut self) {
        spoil(&mut self.1);
    }

    fn weak(&self) -> Option<Credential> {
        Some(Credential::user_password("app1", "More-Than-16-Characters".into()))
    }

    async fn save(&mut self) -> bool {
        true
    }

    async fn restore(&mut self) {
        let former = password(&self.1.current).to_owned();
        let words = ["user", "set", "password", "3", &former, "16"];
        let (done, said) = self.0.tool("admin", INITIAL_PASSWORD, &words).expect("runs");
        assert!(done, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_conforms_where_an_administrator_acts() {
    passes("bmc (IPMI, OpenIPMI, admin acts)", async || OverIpmi::new(Server::OpenIpmi, ActingAs::Target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_conforms_where_the_account_acts_itself() {
    let fresh = async || OverIpmi::new(Server::Suite17, ActingAs::User);
    passes("bmc (IPMI, suite 17, the account itself)", fresh).await;
}
