//! The target's own account, locked and expired accounts, policies, and how few logins it all takes.

use super::*;

/// Preflight, a candidate, apply, probe on one registry, as the engine does it.
async fn rotation(case: &mut Case) -> (Credential, ApplyOutcome, Vec<ProbeOutcome>) {
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    let applied = ssh.apply(&case.call(), &candidate).await;
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    (candidate, applied, report.outcomes)
}

fn logins(host: &Host) -> usize {
    host.server_log().expect("a log").lines().filter(|line| line.starts_with("Accepted ")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_rotation_is_one_login_and_the_session_does_not_stay() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let (_, applied, _) = rotation(&mut case).await;
    assert_eq!(applied, ApplyOutcome::Applied);
    assert_eq!(logins(&host), 1);
    // The registry is gone and with it its sessions.
    for _ in 0..50 {
        if host.read("pgrep -fc 'sshd: roo[t]' || true").expect("counts").trim() == "0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the session stays: {}", host.read("ps ax").expect("lists"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_targets_own_password_changes_whatever_its_record_holds() {
    let host = Host::start(HostKind::Debian).expect("starts");
    for user in ["root", "ops", "rot"] {
        let mut case = Case::new(&host, user, ActingAs::User, user).await;
        case.rotator_type = "target";
        case.target.secret = Credential::default().with("ssh-password", Secret::from("Older-Than-Current-1"));
        let (candidate, applied, outcomes) = rotation(&mut case).await;
        assert_eq!(applied, ApplyOutcome::Applied, "{user}");
        assert_eq!(outcomes, [ProbeOutcome::Opens(Evidence::Login), ProbeOutcome::Refused(Evidence::WitnessRead)]);
        assert!(host.shadow_is(user, candidate.expose_text("password").expect("has one")).expect("ground truth"));
        let names: Vec<_> = candidate.names().collect();
        assert_eq!(names, ["password", "username"]);
    }
    assert_eq!(failures(&host), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_targets_key_stays_and_its_password_changes() {
    let host = Host::start(HostKind::KeyOnly).expect("starts");
    for user in ["root", "rot"] {
        let mut case = Case::new(&host, user, ActingAs::User, user).await;
        case.rotator_type = "target";
        case.target.secret = Credential::default().with("private-key", host.private_key().into());
        case.current = Credential::user_password(user, "Not-The-Password-1".into());
        let (candidate, applied, outcomes) = rotation(&mut case).await;
        assert_eq!(applied, ApplyOutcome::Applied, "{user}");
        let witnessed = [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];
        assert_eq!(outcomes, witnessed, "{user}");
        assert!(host.shadow_is(user, candidate.expose_text("password").expect("has one")).expect("ground truth"));
        assert!(host.opens_with_key(user, host.private_key()).expect("asks"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_stored_password_never_locks_an_account() {
    let host = Host::start(HostKind::Faillock).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let right = case.current.clone();
    case.current = Credential::user_password("app1", "Wrong-Stored-1".into());
    let ssh = registry().get("ssh").expect("is there");
    let wrong = Credential::user_password("app1", "Wrong-Candidate-1".into());
    let report = ssh.probe(&case.call(), &[&wrong, &case.current, &wrong, &case.current]).await;
    assert_eq!(report.failed_logins, 2, "{report:?}");
    assert_eq!(host.read("faillock --user app1 | grep -c ' V$'").expect("counts").trim(), "2");
    assert!(host.opens("app1", right.expose_text("password").expect("has one")), "not locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_beside_a_key_serves_sudo_and_a_wrong_one_locks_nobody() {
    let host = Host::start(HostKind::Faillock).expect("starts");
    let mut case = Case::new(&host, "ops", ActingAs::Target, "app1").await;
    case.target.secret = case.target.secret.with("private-key", host.private_key().into());
    let (_, applied, outcomes) = rotation(&mut case).await;
    assert_eq!(case.memory["rise"], "sudo-password");
    assert_eq!((applied, &outcomes[0]), (ApplyOutcome::Applied, &ProbeOutcome::Opens(Evidence::WitnessRead)));
    case.target.secret = case.target.secret.clone().with("ssh-password", Secret::from("Wrong-For-Sudo-1"));
    let ssh = registry().get("ssh").expect("is there");
    let failure = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("no right");
    assert_eq!(failure.class, FailureClass::Privilege, "{failure:?}");
    let counted = host.read("faillock --user ops | grep -c ' V$' || true").expect("counts");
    assert!(counted.trim().parse::<u32>().expect("a number") <= 2, "{counted}");
    assert!(host.opens("ops", INITIAL_PASSWORD), "not locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_account_is_no_answer_about_its_password() {
    let host = Host::start(HostKind::Faillock).expect("starts");
    // Only a lock that ends says so at the prompt; where it says nothing, nobody can tell.
    host.read("sed -i 's/unlock_time=0/unlock_time=900/g' /etc/pam.d/common-auth").expect("writes");
    for _ in 0..3 {
        assert!(!host.opens("app1", "Wrong-1"));
    }
    let ssh = registry().get("ssh").expect("is there");
    let own = Case::new(&host, "root", ActingAs::User, "app1").await;
    let report = ssh.probe(&own.call(), &[&own.current]).await;
    assert!(
        matches!(&report.outcomes[0], ProbeOutcome::Unknown(f) if f.message.contains("locked")),
        "the right password of a locked account is not refused: {report:?}"
    );
    let failure = ssh.preflight(&own.call(), &PasswordPolicy::default()).await.expect_err("locked");
    assert!(failure.message.contains("locked") && failure.hint.contains("faillock"), "{failure:?}");
    // Root rotates it all the same, and says that it is locked.
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let preflight = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight");
    assert!(preflight.notes.iter().any(|note| note.contains("locked after 3")), "{preflight:?}");
    let (_, applied, outcomes) = rotation(&mut case).await;
    assert_eq!((applied, &outcomes[0]), (ApplyOutcome::Applied, &ProbeOutcome::Opens(Evidence::WitnessRead)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_locked_by_hand_is_not_unlocked() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    host.read("usermod -L app1").expect("locks");
    let before = host.shadow("app1").expect("reads");
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    let fresh = registry().get("ssh").expect("is there");
    let outcome = fresh.apply(&case.call(), &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.message.contains("locked")), "{outcome:?}");
    assert_eq!(host.shadow("app1").expect("reads"), before);
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    assert_eq!(report.outcomes[0], ProbeOutcome::Refused(Evidence::WitnessRead));
    assert!(matches!(&report.outcomes[1], ProbeOutcome::Unknown(_)), "{report:?}");
    let failure = fresh.preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("locked");
    assert!(failure.hint.contains("usermod -U"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_somebody_else_in_between_is_not_overwritten_unseen() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::Target, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    host.set_password("app1", "By-A-Colleague-1").expect("sets");
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    let outcome = ssh.apply(&case.call(), &candidate).await;
    assert!(matches!(&outcome, ApplyOutcome::NotReached(f) if f.message.contains("somebody else")), "{outcome:?}");
    assert!(host.shadow_is("app1", "By-A-Colleague-1").expect("ground truth"));
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "the next try wins");
    assert!(host.shadow_is("app1", candidate.expose_text("password").expect("has one")).expect("ground truth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_the_host_is_read_before_it_can_refuse() {
    let host = Host::start(HostKind::Strict).expect("starts");
    let mut case = Case::new(&host, "root", ActingAs::User, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    let loose = PasswordPolicy { length: 8, lower: true, upper: false, digits: false, special: false };
    let preflight = ssh.preflight(&case.call(), &loose).await.expect("preflight");
    let tight = PasswordPolicy { length: 14, lower: true, upper: true, digits: true, special: true };
    assert_eq!(preflight.policy, Some(tight.clone()));
    assert!(preflight.notes.iter().any(|note| note.contains("last 5 passwords")), "{preflight:?}");
    case.memory = preflight.memory;
    let weak = Credential::user_password("app1", "abc".into());
    let ApplyOutcome::Rejected(failure) = ssh.apply(&case.call(), &weak).await else { panic!("rejected") };
    assert!(failure.message.contains("BAD PASSWORD"), "the host's own words: {failure:?}");
    let good = ssh.generate(&case.call(), &tight, &Os).expect("generates");
    assert_eq!(ssh.apply(&case.call(), &good).await, ApplyOutcome::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chpasswd_that_takes_no_hashes_is_given_the_password() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let wrapper = "#!/bin/sh\n[ $# = 0 ] || { echo usage: chpasswd >&2; exit 2; }\nexec /usr/sbin/chpasswd.real\n";
    host.read(&format!(
        "mv /usr/sbin/chpasswd /usr/sbin/chpasswd.real; printf '{wrapper}' > /usr/sbin/chpasswd; chmod 755 /usr/sbin/chpasswd"
    ))
    .expect("writes");
    for acting in ["root", "ops", "rot"] {
        let mut case = Case::new(&host, acting, ActingAs::Target, "app1").await;
        let (candidate, applied, outcomes) = rotation(&mut case).await;
        assert_eq!(case.memory["method"], "chpasswd", "{acting}");
        assert_eq!((applied, &outcomes[0]), (ApplyOutcome::Applied, &ProbeOutcome::Opens(Evidence::WitnessRead)));
        assert!(host.shadow_is("app1", candidate.expose_text("password").expect("has one")).expect("ground truth"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sudoers_lines_of_the_documentation_are_enough_and_without_grep_a_login_proves_it() {
    let host = Host::start(HostKind::Sudo).expect("starts");
    let page = include_str!("../../../../docs/targets/ssh.md");
    let lines = page.split_once("```sudoers\n").expect("the page has them").1.split_once("```").expect("they end").0;
    let both = lines.replace("rotator ", "rot ");
    let chpasswd = both.split_once(", /usr/bin/grep").expect("grep comes last").0.to_owned();
    for (allowed, evidence) in [(both, Evidence::WitnessRead), (chpasswd, Evidence::Login)] {
        host.read(&format!("echo '{allowed}' > /etc/sudoers.d/accounts")).expect("writes");
        let mut case = Case::new(&host, "rot", ActingAs::Target, "app1").await;
        let (candidate, applied, outcomes) = rotation(&mut case).await;
        assert_eq!((applied, &outcomes[0]), (ApplyOutcome::Applied, &ProbeOutcome::Opens(evidence)));
        assert!(host.shadow_is("app1", candidate.expose_text("password").expect("has one")).expect("ground truth"));
    }
    assert_eq!(failures(&host), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_account_changes_its_password_at_the_prompt_and_on_a_terminal() {
    let host = Host::start(HostKind::ExpiredForce).expect("starts");
    for (user, method) in [("app1", "login-change"), ("app2", "passwd")] {
        if method == "passwd" {
            reconfigure(&host, "sed -i 's/^Kbd.*/KbdInteractiveAuthentication no/' /etc/ssh/sshd_config");
        }
        let mut case = Case::new(&host, "root", ActingAs::User, user).await;
        let (candidate, applied, outcomes) = rotation(&mut case).await;
        assert_eq!(case.memory["method"], method);
        assert_eq!((applied, &outcomes[0]), (ApplyOutcome::Applied, &ProbeOutcome::Opens(Evidence::Login)), "{user}");
        assert!(host.opens(user, candidate.expose_text("password").expect("has one")), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_its_own_password_on_every_server() {
    for kind in [HostKind::Dropbear, HostKind::Busybox, HostKind::Legacy, HostKind::Faillock] {
        let host = Host::start(kind).expect("starts");
        // The host's own scheme: a static busybox knows no yescrypt.
        host.set_password("app1", INITIAL_PASSWORD).expect("sets");
        let mut case = Case::new(&host, "root", ActingAs::User, "app1").await;
        let (candidate, applied, outcomes) = rotation(&mut case).await;
        assert_eq!((applied, &outcomes[0]), (ApplyOutcome::Applied, &ProbeOutcome::Opens(Evidence::Login)), "{kind:?}");
        assert!(host.opens("app1", candidate.expose_text("password").expect("has one")), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_passwords_says_so_and_refuses_nothing() {
    for kind in [HostKind::Tinyssh, HostKind::KeyOnly] {
        let host = Host::start(kind).expect("starts");
        let case = Case::new(&host, "root", ActingAs::User, "app1").await;
        let ssh = registry().get("ssh").expect("is there");
        let report = ssh.probe(&case.call(), &[&case.current]).await;
        assert!(matches!(&report.outcomes[0], ProbeOutcome::Unknown(_)), "{kind:?}: {report:?}");
        let failure = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("no passwords");
        assert!(failure.message.contains("takes no passwords"), "{kind:?}: {failure:?}");
    }
}
