//! A user's own command: it changes the password, and shows it to nobody.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_command_of_ones_own_changes_the_password_and_shows_it_to_nobody() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let command = "sleep 2; printf '%s:%s\\n' {{USERNAME}} \"{{NEW_PASSWORD}}\" | chpasswd\ntest '{{OLD_PASSWORD}}' = \"$VOLVELLE_OLD_PASSWORD\"";
    case.params.insert("rotator-custom-cmd".into(), json!(command));
    let ssh = registry().get("ssh").expect("is there");
    ssh.check_secret(&case.call(), &case.current).expect("fits");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    assert_eq!(case.memory["method"], "custom");
    let new = "Quote'Space \"Dollar$HOME`id`-1";
    let candidate = Credential::user_password("app1", new.into());
    let watching = async {
        let mut seen = String::new();
        for _ in 0..20 {
            seen +=
                &host.read("ps axww -o args; cat /home/*/.*history /root/.*history 2>/dev/null; true").expect("looks");
            tokio::time::sleep(Duration::from_millis(90)).await;
        }
        seen
    };
    let call = case.call();
    let (outcome, seen) = tokio::join!(ssh.apply(&call, &candidate), watching);
    assert_eq!(outcome, ApplyOutcome::Applied);
    assert!(host.shadow_is("app1", new).expect("ground truth"));
    assert!(seen.contains("sleep 2"), "the command was watched while it ran");
    for part in ["Quote'Space", "Dollar$HOME", INITIAL_PASSWORD] {
        assert!(!seen.contains(part), "{part} was in the process list or a history");
    }
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    assert_eq!(report.outcomes[0], ProbeOutcome::Opens(Evidence::WitnessRead));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_command_is_found_out_by_probing() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    case.params.insert("rotator-custom-cmd".into(), json!("test -n {{NEW_PASSWORD}}; exit 7"));
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    let outcome = ssh.apply(&case.call(), &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::Ambiguous(f) if f.message.contains("exit status 7")), "{outcome:?}");
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    let witnessed = [ProbeOutcome::Refused(Evidence::WitnessRead), ProbeOutcome::Opens(Evidence::WitnessRead)];
    assert_eq!(report.outcomes, witnessed);
    case.params.insert("rotator-custom-cmd".into(), json!("true"));
    assert_eq!(ssh.check_secret(&case.call(), &case.current).expect_err("no password").class, FailureClass::Config);
}
