//! AWS access keys against moto's IAM and STS, every call signed and permitted.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_connectors::aws::Aws as Keys;
use volvelle_domain::connector::{Connector, INTENT, IssueOutcome};
use volvelle_testkit::aws::{ACCOUNT, Aws, Key};

use super::conformance::{Subject, passes};
use super::*;

/// The policy of docs/targets/aws.md for a user who rotates the own key.
fn own_policy() -> serde_json::Value {
    documented("own")
}

/// A policy as the documentation has it, with the account's number put in.
pub(super) fn documented(name: &str) -> serde_json::Value {
    let page = include_str!("../../../../docs/targets/aws.md");
    let start = format!("```json {name}\n");
    let text = page.split_once(start.as_str()).expect("the page has it").1.split_once("```").expect("it ends").0;
    serde_json::from_str(&text.replace("123456789012", ACCOUNT)).expect("a policy is JSON")
}

struct User {
    aws: Aws,
    case: Case,
    connector: Arc<dyn Connector>,
    /// Keys of others on the user.
    others: Vec<Key>,
}

impl User {
    /// A user `app` whose own key acts, or an `admin` that may rotate the keys of others.
    async fn new(acting: ActingAs) -> Self {
        let aws = Aws::start().expect("starts");
        let own = (acting == ActingAs::User).then(own_policy);
        let key = aws.user("app", own, 1).await.expect("a user").remove(0);
        let admin = aws.user("admin", Some(documented("others")), 1).await.expect("a user").remove(0);
        let secret = Credential::default()
            .with("access-key-id", admin.id.as_str().into())
            .with("access-key", admin.secret.as_str().into());
        let case = Case {
            target: TargetParams { plain: Map::new(), secret, parent: None },
            pinned: Vec::new(),
            rotator_type: "api-key",
            params: Map::new(),
            acting,
            current: Credential::user_password(&key.id, key.secret.as_str().into()),
            memory: BTreeMap::new(),
            timeout: Duration::from_secs(20),
        };
        let connector = Arc::new(Keys::at(&aws.url(), Duration::from_secs(2)));
        Self { aws, case, connector, others: Vec::new() }
    }

    async fn prepared(acting: ActingAs) -> Self {
        let mut user = Self::new(acting).await;
        user.case.memory =
            user.connector.preflight(&user.case.call(), &PasswordPolicy::default()).await.expect("ready").memory;
        user
    }

    async fn ids(&self) -> Vec<String> {
        self.aws.keys("app").await.expect("lists").into_iter().map(|key| key.id).collect()
    }

    async fn issued(&self) -> Credential {
        let intent = self.connector.intend(&self.case.call()).await.expect("intends");
        match self.connector.issue(&self.case.call(), &intent).await {
            IssueOutcome::Issued(issued) => issued,
            other => panic!("{other:?}"),
        }
    }
}

#[async_trait]
impl Subject for User {
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
        self.connector = Arc::new(Keys::at(&format!("http://{address}"), Duration::from_secs(2)));
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        let keys = self.aws.keys("app").await.expect("lists");
        keys.iter().any(|key| {
            credential.expose_text("username") == Some(&key.id)
                && credential.expose_text("password") == Some(&key.secret)
                && key.status == "Active"
        })
    }

    fn spoil(&mut self) {
        let wrong: Secret = "wrong".into();
        match self.case.acting {
            ActingAs::Target => self.case.target.secret = self.case.target.secret.clone().with("access-key", wrong),
            ActingAs::User => self.case.current = self.case.current.clone().with("password", wrong),
        }
    }

    async fn demote(&mut self) -> bool {
        let key = self.aws.user("nobody", None, 1).await.expect("a user").remove(0);
        let secret = Credential::default()
            .with("access-key-id", key.id.as_str().into())
            .with("access-key", key.secret.as_str().into());
        self.case.target.secret = secret;
        self.case.acting == ActingAs::Target
    }

    async fn beside(&mut self) -> usize {
        let keys = self.aws.keys("app").await.expect("lists");
        let current = self.case.current.expose_text("username").unwrap_or_default().to_owned();
        keys.iter().filter(|key| key.id != current && !self.others.contains(key)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_conforms_where_an_administrator_acts() {
    passes("aws (use-target-creds)", async || User::new(ActingAs::Target).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_conforms_where_the_key_rotates_itself() {
    passes("aws (own key)", async || User::new(ActingAs::User).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_there_before_stays_and_one_that_a_crash_left_goes() {
    let user = User::prepared(ActingAs::Target).await;
    let intent = user.connector.intend(&user.case.call()).await.expect("intends").with(INTENT, "yes".into());
    // The crash: the key was made, and its secret was lost.
    assert!(matches!(user.connector.issue(&user.case.call(), &intent).await, IssueOutcome::Issued(_)));
    assert_eq!(user.ids().await.len(), 2);
    user.connector.revoke(&user.case.call(), &intent).await.expect("clears");
    let current = user.case.current.expose_text("username").expect("has one").to_owned();
    assert_eq!(user.ids().await, std::slice::from_ref(&current));
    let other = user.aws.add_key("app").await.expect("another").remove(1);
    let intent = user.connector.intend(&user.case.call()).await.expect("intends").with(INTENT, "yes".into());
    let outcome = user.connector.issue(&user.case.call(), &intent).await;
    assert!(matches!(&outcome, IssueOutcome::Rejected(f) if f.class == FailureClass::Config), "{outcome:?}");
    user.connector.revoke(&user.case.call(), &intent).await.expect("clears");
    assert_eq!(user.ids().await, [current, other.id], "a key of others is not ours to delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_somebody_has_used_is_no_orphan() {
    let user = User::prepared(ActingAs::Target).await;
    let intent = user.connector.intend(&user.case.call()).await.expect("intends").with(INTENT, "yes".into());
    let issued = user.issued().await;
    let report = user.connector.probe(&user.case.call(), &[&issued]).await;
    assert_eq!(report.outcomes, [ProbeOutcome::Opens(Evidence::Login)]);
    user.connector.revoke(&user.case.call(), &intent).await.expect("clears");
    assert_eq!(user.ids().await.len(), 2, "its secret is known to somebody");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inactive_key_and_a_deleted_one_are_refused_by_reading() {
    let mut user = User::prepared(ActingAs::Target).await;
    let former = user.case.current.clone();
    user.case.current = user.issued().await;
    user.connector.revoke(&user.case.call(), &former).await.expect("takes off");
    let report = user.connector.probe(&user.case.call(), &[&former]).await;
    assert_eq!(report.outcomes, [ProbeOutcome::Refused(Evidence::WitnessRead)]);
    let failure = user.connector.revoke(&user.case.call(), &user.case.current).await.expect_err("never");
    assert_eq!(failure.class, FailureClass::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_waited_for_and_told_when_it_lasts() {
    let user = User::prepared(ActingAs::Target).await;
    user.aws.throttle(2).await.expect("throttles");
    user.connector.preflight(&user.case.call(), &PasswordPolicy::default()).await.expect("after two pauses");
    user.aws.throttle(100).await.expect("throttles");
    let intent = Credential::default().with("before", "".into());
    let outcome = user.connector.issue(&user.case.call(), &intent).await;
    assert!(matches!(&outcome, IssueOutcome::NotReached(f) if f.message.contains("slow down")), "{outcome:?}");
    assert_eq!(user.ids().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_with_its_external_id() {
    let mut user = User::new(ActingAs::Target).await;
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:user/base")},
        "Condition": {"StringEquals": {"sts:ExternalId": "only-we-know"}}}]});
    let arn = user.aws.role("rotator", trust, documented("others")).await.expect("a role");
    let may = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": arn}]});
    let base = user.aws.user("base", Some(may), 1).await.expect("a user").remove(0);
    user.case.target.secret = Credential::default()
        .with("access-key-id", base.id.as_str().into())
        .with("access-key", base.secret.as_str().into());
    user.case.target.plain.insert("role-arn".into(), json!(arn));
    user.connector.check_target(&user.case.target).expect("fine");
    let failure =
        user.connector.preflight(&user.case.call(), &PasswordPolicy::default()).await.expect_err("no external id");
    assert_eq!(failure.class, FailureClass::Privilege, "{failure:?}");
    user.case.target.plain.insert("external-id".into(), json!("only-we-know"));
    user.case.memory =
        user.connector.preflight(&user.case.call(), &PasswordPolicy::default()).await.expect("ready").memory;
    let issued = user.issued().await;
    assert!(user.opens(&issued).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_is_made_up_once_and_the_gateway_assumes_the_role_with_it() {
    let mut user = User::new(ActingAs::Target).await;
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/rotator");
    let asked = json!({"role-arn": arn, "generate-external-id": true, "use-gw-cloud-identity": "true"});
    let plain = asked.as_object().expect("an object").clone();
    let target = TargetParams { plain, secret: Credential::default(), parent: None };
    user.connector.check_target(&target).expect("no access key is needed");
    user.case.target = user.connector.completed(target, &Os);
    let made = user.case.target.plain["external-id"].as_str().expect("a text").to_owned();
    assert!(made.len() > 40, "{made}");
    let again = user.connector.completed(user.case.target.clone(), &Os);
    assert_eq!(again.plain["external-id"], json!(made), "it stays what the trust policy has");
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:user/gateway")},
        "Condition": {"StringEquals": {"sts:ExternalId": made}}}]});
    user.aws.role("rotator", trust, documented("others")).await.expect("a role");
    let may = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": arn}]});
    let own = user.aws.user("gateway", Some(may), 1).await.expect("a user").remove(0);
    let preflight = async |allowed: &str, case: &Case| {
        let variable = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some(user.aws.url()),
            "AWS_ACCESS_KEY_ID" => Some(own.id.clone()),
            "AWS_SECRET_ACCESS_KEY" => Some(own.secret.clone()),
            "VOLVELLE_ALLOW_AWS_IDENTITY" => Some(allowed.to_owned()),
            _ => None,
        };
        let connector = Keys::with(&variable, Duration::from_secs(2));
        connector.preflight(&case.call(), &PasswordPolicy::default()).await
    };
    let failure = preflight("", &user.case).await.expect_err("the gateway's configuration says nothing of it");
    assert!(
        failure.class == FailureClass::Config && failure.hint.contains("VOLVELLE_ALLOW_AWS_IDENTITY"),
        "{failure:?}"
    );
    preflight("true", &user.case).await.expect("with the external id");
    user.case.target.plain.insert("external-id".into(), json!("another"));
    let failure = preflight("true", &user.case).await.expect_err("the trust policy asks for the other one");
    assert_eq!(failure.class, FailureClass::Privilege, "{failure:?}");
    let homeless = TargetParams {
        plain: json!({"generate-external-id": true}).as_object().cloned().expect("one"),
        secret: user.case.current.clone(),
        parent: None,
    };
    assert!(user.connector.check_target(&homeless).is_err(), "an external id is for a role");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_that_the_gateway_runs_on_may_be_its_identity() {
    let mut user = User::new(ActingAs::Target).await;
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "ec2.amazonaws.com"}}]});
    let arn = user.aws.role("machine", trust, documented("others")).await.expect("a role");
    let plain = json!({"use-gw-cloud-identity": true}).as_object().expect("an object").clone();
    user.case.target = TargetParams { plain, secret: Credential::default(), parent: None };
    let url = user.aws.url();
    let variable = |name: &str| match name {
        "AWS_ENDPOINT_URL" | "AWS_EC2_METADATA_SERVICE_ENDPOINT" => Some(url.clone()),
        "VOLVELLE_ALLOW_AWS_IDENTITY" => Some("true".to_owned()),
        _ => None,
    };
    user.connector = Arc::new(Keys::with(&variable, Duration::from_secs(2)));
    let failure =
        user.connector.preflight(&user.case.call(), &PasswordPolicy::default()).await.expect_err("it has no role yet");
    assert!(failure.message.contains("metadata service"), "{failure:?}");
    user.aws.machine_role("machine", &arn).await.expect("gets a role");
    user.case.memory =
        user.connector.preflight(&user.case.call(), &PasswordPolicy::default()).await.expect("ready").memory;
    let issued = user.issued().await;
    assert!(user.opens(&issued).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_known_key_gets_one() {
    let mut user = User::new(ActingAs::Target).await;
    user.case.current = Credential::default();
    user.case.params.insert("aws-user-name".into(), json!("app"));
    user.connector.check_secret(&user.case.call(), &user.case.current).expect("fine");
    user.case.memory =
        user.connector.preflight(&user.case.call(), &PasswordPolicy::default()).await.expect("ready").memory;
    let issued = user.issued().await;
    assert!(user.opens(&issued).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_aws_forgot_is_refused_even_if_nobody_may_list() {
    let mut user = User::prepared(ActingAs::User).await;
    user.case.current = Credential::user_password("AKIAGONEGONEGONEGONE", "x".into());
    let report = user.connector.probe(&user.case.call(), &[&user.case.current]).await;
    assert_eq!(report.outcomes, [ProbeOutcome::Refused(Evidence::Login)]);
}
