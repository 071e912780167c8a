//! Rotators of one's own: hooks that behave and hooks that do not, and local programs.
//!
//! The conformance suite compares what a probe says with the truth; a hook cannot be probed, so that its cases are played here.

use std::os::unix::fs::PermissionsExt;

use volvelle_connectors::custom::Custom;
use volvelle_domain::connector::{Connector, Failure, IssueOutcome};
use volvelle_testkit::hook::{Hook, Manners};

use super::*;

fn secret_at(url: &str) -> Case {
    let mut plain = Map::new();
    plain.insert("url".into(), json!(url));
    Case {
        target: TargetParams { plain, secret: Credential::default(), parent: None },
        pinned: Vec::new(),
        rotator_type: "custom",
        params: Map::new(),
        acting: ActingAs::User,
        current: Credential::default().with("payload", "first".into()),
        memory: BTreeMap::new(),
        timeout: Duration::from_secs(3),
    }
}

async fn issued(custom: &Custom, case: &Case) -> IssueOutcome {
    custom.issue(&case.call(), &Credential::default()).await
}

fn payload(outcome: &IssueOutcome) -> &str {
    match outcome {
        IssueOutcome::Issued(credential) => credential.expose_text("payload").expect("has one"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_sent_the_payload_and_answers_with_the_next_one() {
    let hook = Hook::start("first").await.expect("starts");
    let (custom, mut case) = (Custom::default(), secret_at(&hook.url()));
    custom.check_target(&case.target).expect("fine");
    case.memory = custom.preflight(&case.call(), &PasswordPolicy::default()).await.expect("listens").memory;
    assert_eq!(hook.known().requests.len(), 0, "a preflight changes nothing");
    assert_eq!(payload(&issued(&custom, &case).await), "payload 1");
    let (headers, body) = hook.known().requests.remove(0);
    assert_eq!(body, json!({"payload": "first"}));
    assert!(headers.contains(&("akeylesscreds".to_owned(), "proof-of-the-caller".to_owned())), "{headers:?}");
    assert!(headers.contains(&("content-type".to_owned(), "application/json".to_owned())), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_travels_beside_the_payload_if_it_is_enabled() {
    let hook = Hook::start("first").await.expect("starts");
    let (custom, mut case) = (Custom::default(), secret_at(&hook.url()));
    case.params.insert("enable-password-policy".into(), json!("true"));
    let policy = PasswordPolicy { length: 20, special: false, ..PasswordPolicy::default() };
    case.memory = custom.preflight(&case.call(), &policy).await.expect("listens").memory;
    payload(&issued(&custom, &case).await);
    let body = hook.known().requests.remove(0).1;
    let expected = json!({"payload": "first", "password-length": "20", "PasswordLowercaseChar": "true",
        "PasswordUppercaseChar": "true", "PasswordRequireNumbers": "true", "PasswordRequireSymbols": "false"});
    assert_eq!(body, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hook_does_wrong_is_told_apart() {
    let hook = Hook::start("first").await.expect("starts");
    let (custom, case) = (Custom::default(), secret_at(&hook.url()));
    for status in [400, 401, 404, 500, 302] {
        hook.set(Manners::Refuses(status));
        let outcome = issued(&custom, &case).await;
        assert!(
            matches!(&outcome, IssueOutcome::Rejected(f) if f.message.contains(&status.to_string())),
            "{outcome:?}"
        );
    }
    assert_eq!(hook.known().changes, 0);
    for (manners, changes) in [(Manners::Silent, 1), (Manners::Garbled, 2), (Manners::Slow, 3)] {
        hook.set(manners);
        let outcome = issued(&custom, &case).await;
        assert!(matches!(outcome, IssueOutcome::Ambiguous(_)), "{manners:?}: {outcome:?}");
        assert_eq!(hook.known().changes, changes);
    }
    let url = hook.url();
    drop(hook);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let outcome = issued(&custom, &secret_at(&url)).await;
    assert!(matches!(outcome, IssueOutcome::NotReached(_)), "{outcome:?}");
    let failure = custom.preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("nobody listens");
    assert_eq!(failure.class, FailureClass::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_claims_to_know_whether_a_payload_is_valid() {
    let (custom, case) = (Custom::default(), secret_at("https://hook.example/rotate"));
    let next = Credential::default().with("payload", "next".into());
    let told = custom.probe(&case.call(), &[&next, &case.current]).await.outcomes;
    assert_eq!(told[0], ProbeOutcome::Opens(Evidence::Told));
    assert!(matches!(told[1], ProbeOutcome::Unknown(_)));
    let repair = custom.probe(&case.call(), &[&case.current, &next]).await.outcomes;
    assert!(repair.iter().all(|outcome| matches!(outcome, ProbeOutcome::Unknown(_))), "{repair:?}");
}

fn refused(custom: &Custom, url: &str) -> Failure {
    custom.check_target(&secret_at(url).target).expect_err("refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_only_if_the_gateway_allows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rotate");
    let script = "#!/bin/sh\nread request\n[ -z \"$VOLVELLE_ALLOW_EXEC$HOME\" ] || exit 9\n[ $# = 0 ] || exit 8\n\
                  printf '{\"payload\": \"after %s\"}' \"$(printf %s \"$request\" | sed 's/.*:\"//; s/\".*//')\"\n";
    std::fs::write(&path, script).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let url = format!("exec:{}", path.display());
    assert_eq!(refused(&Custom::default(), &url).class, FailureClass::Config);
    let custom = Custom::allowing(&path.display().to_string());
    for other in ["exec:/bin/sh", "exec:rotate", "exec:", "file:///etc/passwd", "ftp://h/x", "https://", ""] {
        assert_eq!(refused(&custom, other).class, FailureClass::Config, "{other}");
    }
    let case = secret_at(&url);
    custom.preflight(&case.call(), &PasswordPolicy::default()).await.expect("is there");
    // Another thread of this process may still have the file open for writing.
    let mut outcome = issued(&custom, &case).await;
    for _ in 0..20 {
        if !matches!(outcome, IssueOutcome::NotReached(_)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        outcome = issued(&custom, &case).await;
    }
    assert_eq!(payload(&outcome), "after first");
}
