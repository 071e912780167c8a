//! Console passwords of IAM users against moto's IAM, every call signed and permitted, the account's password policy enforced.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_connectors::aws::Aws as Connected;
use volvelle_domain::connector::Connector;
use volvelle_testkit::aws::Aws;

use super::aws::documented;
use super::conformance::{Subject, passes};
use super::*;

const FIRST: &str = "The-First-Passw0rd";

struct Console {
    aws: Aws,
    case: Case,
    connector: Arc<dyn Connector>,
    saved: Option<String>,
}

impl Console {
    /// A user `app` with a console password, and an `admin` who may set it.
    async fn new() -> Self {
        let aws = Aws::start().expect("starts");
        aws.user("app", None, 0).await.expect("a user");
        aws.log_in("app", Some(FIRST)).await.expect("a login profile");
        let admin = aws.user("admin", Some(documented("console")), 1).await.expect("a user").remove(0);
        let secret = Credential::default()
            .with("access-key-id", admin.id.as_str().into())
            .with("access-key", admin.secret.as_str().into());
        let case = Case {
            target: TargetParams { plain: Map::new(), secret, parent: None },
            pinned: Vec::new(),
            rotator_type: "password",
            params: Map::new(),
            acting: ActingAs::Target,
            current: Credential::user_password("app", FIRST.into()),
            memory: BTreeMap::new(),
            timeout: Duration::from_secs(20),
        };
        let connector = Arc::new(Connected::at(&aws.url(), Duration::from_secs(2)));
        Self { aws, case, connector, saved: None }
    }

    async fn preflight(&mut self) -> (PasswordPolicy, Vec<String>) {
        let weak = PasswordPolicy { length: 6, lower: true, upper: false, digits: false, special: false };
        let done = self.connector.preflight(&self.case.call(), &weak).await.expect("ready");
        self.case.memory = done.memory;
        (done.policy.unwrap_or(weak), done.notes)
    }

    async fn outcome(&self) -> ProbeOutcome {
        self.connector.probe(&self.case.call(), &[&self.case.current]).await.outcomes.remove(0)
    }
}

#[async_trait]
impl Subject for Console {
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
        self.aws.addr
    }

    fn reach(&mut self, address: SocketAddr) {
        self.connector = Arc::new(Connected::at(&format!("http://{address}"), Duration::from_secs(2)));
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        self.aws.console_password("app").await.expect("tells").as_deref() == credential.expose_text("password")
    }

    fn spoil(&mut self) {
        self.case.target.secret = self.case.target.secret.clone().with("access-key", "wrong".into());
    }

    async fn demote(&mut self) -> bool {
        let key = self.aws.user("nobody", None, 1).await.expect("a user").remove(0);
        self.case.target.secret = Credential::default()
            .with("access-key-id", key.id.as_str().into())
            .with("access-key", key.secret.as_str().into());
        true
    }

    fn weak(&self) -> Option<Credential> {
        Some(Credential::user_password("app", "weak".into()))
    }

    async fn save(&mut self) -> bool {
        self.saved = self.aws.console_password("app").await.expect("tells");
        true
    }

    async fn restore(&mut self) {
        let saved = self.saved.as_deref().expect("was saved");
        self.aws.set_console_password("app", saved).await.expect("sets");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_console_passwords_conform() {
    passes("aws (console password)", Console::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_password_is_as_the_account_wants_it_and_need_not_be_changed() {
    let mut console = Console::new().await;
    let (policy, _) = console.preflight().await;
    assert_eq!((policy.length, policy.upper, policy.digits, policy.special), (8, true, true, false), "the usual one");
    console.aws.password_policy(30).await.expect("asks for more");
    console.aws.ask_for_a_change("app").await.expect("asks");
    let (policy, _) = console.preflight().await;
    assert_eq!(policy, PasswordPolicy { length: 30, ..PasswordPolicy::default() });
    for _ in 0..100 {
        // A comma is a special character of ours, but no symbol of IAM's.
        let made = console.connector.generate(&console.case.call(), &policy, &Os).expect("generates");
        let password = made.expose_text("password").expect("has one");
        assert!(password.contains(|c| "!@#$%^&*()_+-=[]{}|'".contains(c)) && password.len() == 30, "{password}");
    }
    let candidate = console.connector.generate(&console.case.call(), &policy, &Os).expect("generates");
    assert_eq!(candidate.names().collect::<Vec<_>>(), ["password", "username"]);
    assert_eq!(console.connector.apply(&console.case.call(), &candidate).await, ApplyOutcome::Applied);
    assert!(console.opens(&candidate).await, "it is usable as it is");
    let calls = console.aws.calls().await.expect("tells");
    assert!(!calls.contains(&"CreateLoginProfile".to_owned()), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_console_password_is_refused_and_told_how_to_get_one() {
    let mut console = Console::new().await;
    console.preflight().await;
    console.aws.log_in("app", None).await.expect("takes it away");
    let preflight = console.connector.preflight(&console.case.call(), &PasswordPolicy::default()).await;
    let failure = preflight.expect_err("there is none");
    assert!(failure.class == FailureClass::Config && failure.hint.contains("create-login-profile"), "{failure:?}");
    let candidate = Credential::user_password("app", "Some-0ther-Passw0rd".into());
    let outcome = console.connector.apply(&console.case.call(), &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.class == FailureClass::Config), "{outcome:?}");
    assert_eq!(console.outcome().await, ProbeOutcome::Refused(Evidence::WitnessRead), "without one nothing opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_profile_that_somebody_made_anew_is_noticed() {
    let mut console = Console::new().await;
    console.preflight().await;
    let said = |outcome: ProbeOutcome| match outcome {
        ProbeOutcome::Unknown(failure) => failure.message,
        other => panic!("{other:?}"),
    };
    assert!(said(console.outcome().await).starts_with("IAM tells nobody"));
    console.aws.log_in("app", Some("Somebody-Else-1")).await.expect("makes it anew");
    assert!(said(console.outcome().await).contains("made anew"));
    let candidate = Credential::user_password("app", "Some-0ther-Passw0rd".into());
    let outcome = console.connector.apply(&console.case.call(), &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.message.contains("made anew")), "{outcome:?}");
    let (_, notes) = console.preflight().await;
    assert!(notes.iter().any(|note| note.contains("made anew")), "{notes:?}");
    assert_eq!(console.connector.apply(&console.case.call(), &candidate).await, ApplyOutcome::Applied);
    assert!(console.opens(&candidate).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_targets_key_sets_a_console_password_and_there_is_no_grace() {
    let console = Console::new().await;
    let check = |call: &Call<'_>, initial: &Credential| console.connector.check_secret(call, initial);
    check(&console.case.call(), &console.case.current).expect("fine");
    let own = check(&Call { acting: ActingAs::User, ..console.case.call() }, &console.case.current);
    assert!(own.expect_err("refused").hint.contains("use-target-creds"));
    let params = json!({"grace-rotation": "true", "grace-rotation-interval": "3"}).as_object().expect("one").clone();
    assert!(check(&Call { params: &params, ..console.case.call() }, &console.case.current).is_err());
    let given = |name: &str| TargetParams {
        plain: json!({"rotated-username": name}).as_object().expect("one").clone(),
        secret: Credential::default().with("rotated-password", "x".into()),
        parent: None,
    };
    let initial = |name: &str| console.connector.initial_credential("password", &console.case.target, &given(name));
    let made = initial("app").expect("fine");
    assert_eq!((made.expose_text("username"), made.expose_text("password")), (Some("app"), Some("x")));
    assert!(initial("").is_err() && initial("a/b").is_err());
}
