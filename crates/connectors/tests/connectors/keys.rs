//! Rotator type `key` on real hosts: the account's key and its line in `authorized_keys`.

use base64::Engine as _;

use super::*;

/// A case of rotator type `key` whose present key is the host's own.
async fn key_case(host: &Host, target_user: &str, acting: ActingAs, user: &str) -> Case {
    let mut case = Case::new(host, target_user, acting, user).await;
    case.rotator_type = "key";
    case.target.secret = Credential::default().with("private-key", host.private_key().into());
    let ssh = registry().get("ssh").expect("is there");
    let encoded = base64::engine::general_purpose::STANDARD.encode(host.private_key());
    let given = TargetParams {
        plain: json!({"rotated-username": user}).as_object().expect("an object").clone(),
        secret: Credential::default().with("key-data-base64", encoded.as_str().into()),
        parent: None,
    };
    case.current = ssh.initial_credential("key", &case.target, &given).expect("reads the key");
    ssh.check_secret(&case.call(), &case.current).expect("fits");
    case
}

/// Rotates once; gives the new key.
async fn rotate_key(case: &mut Case) -> (Credential, Vec<ProbeOutcome>) {
    let ssh = registry().get("ssh").expect("is there");
    case.memory = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect("preflight").memory;
    let candidate = ssh.generate(&case.call(), &PasswordPolicy::default(), &Os).expect("generates");
    assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied);
    let report = ssh.probe(&case.call(), &[&candidate, &case.current]).await;
    assert_eq!(report.failed_logins, 0);
    (candidate, report.outcomes)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_root_and_sudo_replace_a_key_in_one_line() {
    let host = Host::start(HostKind::Debian).expect("starts");
    for (target_user, acting, user) in
        [("root", ActingAs::User, "app1"), ("root", ActingAs::Target, "app2"), ("rot", ActingAs::Target, "ops")]
    {
        let home = format!("/home/{user}/.ssh");
        host.read(&format!(
            "echo '# mine' >> {home}/authorized_keys; sed -i 's/^ssh/no-pty ssh/' {home}/authorized_keys"
        ))
        .expect("writes");
        let mut case = key_case(&host, target_user, acting, user).await;
        let (candidate, outcomes) = rotate_key(&mut case).await;
        let seen = [ProbeOutcome::Opens(Evidence::Login), ProbeOutcome::Refused(Evidence::WitnessRead)];
        assert_eq!(outcomes, seen, "{user}");
        assert!(host.opens_with_key(user, candidate.expose_text("private_key").expect("has one")).expect("asks"));
        assert!(!host.opens_with_key(user, host.private_key()).expect("asks"), "{user}");
        let file =
            host.read(&format!("cat {home}/authorized_keys; stat -c '%U %a' {home}/authorized_keys; ls -A {home}"));
        let public = candidate.expose_text("public_key").expect("has one");
        assert!(public.ends_with(" volvelle"), "{public}");
        assert_eq!(file.expect("reads"), format!("no-pty {public}\n# mine\n{user} 600\nauthorized_keys\n"));
        let ssh = registry().get("ssh").expect("is there");
        if acting == ActingAs::Target {
            assert_eq!(ssh.apply(&case.call(), &candidate).await, ApplyOutcome::Applied, "again changes nothing");
        }
        let again = ssh.apply(&case.call(), &candidate).await;
        assert_eq!(again, ApplyOutcome::Applied, "the candidate is in force and shows it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_put_where_none_was_and_where_the_path_says() {
    let host = Host::start(HostKind::KeyOnly).expect("starts");
    host.read("rm -rf /home/app1/.ssh; mkdir -p /etc/ssh/keys; touch /etc/ssh/keys/app2").expect("writes");
    let mut case = key_case(&host, "root", ActingAs::Target, "app1").await;
    let (candidate, outcomes) = rotate_key(&mut case).await;
    assert_eq!(outcomes[0], ProbeOutcome::Opens(Evidence::Login));
    assert_eq!(
        host.read("stat -c '%U %a' /home/app1/.ssh /home/app1/.ssh/authorized_keys").expect("reads"),
        "app1 700\napp1 600\n"
    );
    assert!(host.opens_with_key("app1", candidate.expose_text("private_key").expect("has one")).expect("asks"));
    // A file the server does not read: the key is in it and opens nothing, which is not a definite refusal.
    let mut case = key_case(&host, "root", ActingAs::Target, "app2").await;
    case.params.insert("public-key-remote-path".into(), json!("/etc/ssh/keys/app2"));
    let (candidate, outcomes) = rotate_key(&mut case).await;
    assert!(matches!(outcomes[0], ProbeOutcome::Unknown(_)), "{outcomes:?}");
    let line = host.read("cat /etc/ssh/keys/app2; stat -c %U /etc/ssh/keys/app2").expect("reads");
    assert_eq!(line, format!("{}\nroot\n", candidate.expose_text("public_key").expect("has one")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_leads_root_nowhere() {
    let host = Host::start(HostKind::Debian).expect("starts");
    host.read("cd /home/app1/.ssh && rm authorized_keys && ln -s /etc/shadow authorized_keys").expect("writes");
    let case = key_case(&host, "root", ActingAs::Target, "app1").await;
    let ssh = registry().get("ssh").expect("is there");
    let failure = ssh.preflight(&case.call(), &PasswordPolicy::default()).await.expect_err("a link");
    assert_eq!(failure.class, FailureClass::Config, "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_makes_a_key_that_opens() {
    let host = Host::start(HostKind::Debian).expect("starts");
    for algorithm in ["ED25519", "RSA2048", "RSA3072", "RSA4096", "ECDSA256", "ECDSA384", "ECDSA521"] {
        let mut case = key_case(&host, "root", ActingAs::Target, "app1").await;
        case.params.insert("key-algorithm".into(), json!(algorithm));
        let (candidate, outcomes) = rotate_key(&mut case).await;
        assert_eq!(outcomes[0], ProbeOutcome::Opens(Evidence::Login), "{algorithm}");
        assert!(host.opens_with_key("app1", candidate.expose_text("private_key").expect("has one")).expect("asks"));
    }
    let ssh = registry().get("ssh").expect("is there");
    let mut case = key_case(&host, "root", ActingAs::Target, "app1").await;
    case.params.insert("key-algorithm".into(), json!("DSA"));
    assert_eq!(ssh.check_secret(&case.call(), &case.current).expect_err("unknown").class, FailureClass::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_on_small_servers() {
    for kind in [HostKind::Dropbear, HostKind::Tinyssh, HostKind::Busybox] {
        let host = Host::start(kind).expect("starts");
        for (acting, user) in [(ActingAs::User, "app1"), (ActingAs::Target, "app2")] {
            let mut case = key_case(&host, "root", acting, user).await;
            let (candidate, outcomes) = rotate_key(&mut case).await;
            assert_eq!(outcomes[0], ProbeOutcome::Opens(Evidence::Login), "{kind:?} {user}");
            assert!(matches!(outcomes[1], ProbeOutcome::Refused(_)), "{kind:?} {user}: {outcomes:?}");
            assert!(host.opens_with_key(user, candidate.expose_text("private_key").expect("has one")).expect("asks"));
        }
    }
}
