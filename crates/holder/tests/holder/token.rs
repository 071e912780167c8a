//! Fragments whose key a PKCS#11 token keeps: SoftHSM, asked by real holder processes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use volvelle_testkit::softhsm::{PIN, Token};

use crate::{Process, place, start, state_of, until_up};

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("sets the mode");
}

/// Gives a holder's configuration this section, and no other for what unlocks it.
fn configure(config: &Path, section: &str) {
    let text = fs::read_to_string(config).expect("reads");
    let text = text.split("\n[unlock").next().expect("a beginning");
    private(config, &format!("{text}\n{section}"));
}

fn holder(config: &Path, token: &Token) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volvelle-holder"));
    command.arg("--config").arg(config).env("SOFTHSM2_CONF", token.configuration()).stdin(Stdio::null());
    command
}

fn started(config: &Path, token: &Token) -> Option<Process> {
    Some(Process(holder(config, token).stderr(Stdio::null()).spawn().expect("starts")))
}

/// What a holder says that does not start.
fn refusal(config: &Path, token: &Token) -> String {
    let mut child = holder(config, token).stderr(Stdio::piped()).spawn().expect("starts");
    let until = Instant::now() + Duration::from_secs(10);
    while child.try_wait().expect("waits").is_none() {
        if Instant::now() > until {
            child.kill().ok();
            panic!("it starts although it should refuse");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = String::from_utf8_lossy(&child.wait_with_output().expect("ended").stderr).into_owned();
    assert!(!said.contains(PIN), "the PIN is told: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_fragments_and_without_it_they_are_worth_nothing() {
    let token = Token::start().expect("a token");
    token.make_key("seal").expect("a key");
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let one = setup.holder_configs[0].clone();
    let section = |key: &str, pin_file: &Path| {
        format!(
            "[unlock.pkcs11]\nmodule = {:?}\ntoken = \"volvelle\"\nkey = \"{key}\"\npin-file = {pin_file:?}\n",
            token.module()
        )
    };
    let good = section("seal", &token.pin_file());
    configure(&one, &good);
    processes[0] = None;
    processes[0] = started(&one, &token);
    until_up(&quorum).await;
    assert!(!state_of(&setup, 0).join("seal.key").exists(), "the open key is gone");
    let sealed = fs::read_to_string(state_of(&setup, 0).join("seal.sealed")).expect("reads");
    assert!(sealed.contains("pkcs11"), "{sealed}");
    quorum.refresh().await.expect("refreshes");
    processes[0] = None;
    processes[0] = started(&one, &token);
    until_up(&quorum).await;
    processes[2] = None;
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    let line = fs::read(format!("/proc/{}/cmdline", processes[0].as_ref().expect("it runs").0.id())).expect("reads");
    assert!(!String::from_utf8_lossy(&line).contains(PIN));
    processes[0] = None;

    let wrong = folder.path().join("pin");
    private(&wrong, "000000\n");
    configure(&one, &section("seal", &wrong));
    assert!(refusal(&one, &token).contains("refuses the PIN"));
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o644)).expect("sets the mode");
    assert!(refusal(&one, &token).contains("may be read by others"));
    configure(&one, &section("other", &token.pin_file()));
    assert!(refusal(&one, &token).contains("no secret key with the label"));
    configure(&one, &good.replace("softhsm2.so", "none.so"));
    assert!(refusal(&one, &token).contains("no PKCS#11 module"));
    let elsewhere = Token::start().expect("another token");
    elsewhere.make_key("seal").expect("a key");
    configure(&one, &section("seal", &elsewhere.pin_file()));
    assert!(refusal(&one, &elsewhere).contains("the token does not open"));
    private(&wrong, "a passphrase of some length");
    configure(&one, &format!("[unlock]\npassphrase-file = {wrong:?}\n"));
    assert!(refusal(&one, &token).contains("is opened by a token"));
    configure(&one, &format!("[unlock]\npassphrase-file = {wrong:?}\n{good}"));
    assert!(refusal(&one, &token).contains("one of them only"));
    token.destroy_key("seal").expect("destroyed");
    configure(&one, &good);
    assert!(refusal(&one, &token).contains("no secret key with the label"));
}
