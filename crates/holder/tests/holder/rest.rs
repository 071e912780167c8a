//! Fragments at rest: what opens them, and what a copy of the disk is worth without it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::refusal;
use crate::{Process, place, replace_files, start, state_of, until_up};

fn private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("sets the mode");
}

/// Appends to a holder's configuration.
fn configure(config: &Path, more: &str) {
    let text = fs::read_to_string(config).expect("reads");
    let text = text.split("\n[unlock]").next().expect("a beginning");
    private(config, format!("{text}\n{more}").as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_or_a_key_file_opens_fragments_that_lay_open_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let (one, two) = (setup.holder_configs[0].clone(), setup.holder_configs[1].clone());
    (processes[0], processes[1]) = (None, None);
    let kept = folder.path().join("kept");
    fs::hard_link(state_of(&setup, 0).join("seal.key"), &kept).expect("links");
    let secret = folder.path().join("passphrase");
    private(&secret, b"correct horse battery\n");
    private(&folder.path().join("key"), &[9; 32]);
    let passphrase = format!("[unlock]\npassphrase-file = {secret:?}\nmemory-mib = 19\n");
    configure(&one, &passphrase);
    configure(&two, &format!("[unlock]\nkey-file = {:?}\n", folder.path().join("key")));
    processes[0] = Some(Process::start(&one));
    processes[1] = Some(Process::start(&two));
    until_up(&quorum).await;
    for n in [0, 1] {
        assert!(!state_of(&setup, n).join("seal.key").exists() && state_of(&setup, n).join("seal.sealed").exists());
    }
    assert!(fs::read(kept).expect("reads").iter().all(|byte| *byte == 0), "the open key was overwritten");
    quorum.refresh().await.expect("refreshes");
    (processes[0], processes[2]) = (None, None);
    processes[0] = Some(Process::start(&one));
    // Deriving the key takes its time.
    let until = Instant::now() + Duration::from_secs(60);
    let opened = loop {
        match quorum.open(&place("/a"), &record).await {
            Ok(opened) => break opened,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(opened.as_slice(), b"v");
    processes[0] = None;

    private(&secret, b"wrong horse battery\n");
    assert!(refusal(&one).contains("the passphrase does not open"));
    private(&secret, b"short\n");
    assert!(refusal(&one).contains("fewer than 12"));
    configure(&one, "");
    assert!(refusal(&one).contains("does not say what unlocks it"));
    configure(&one, &format!("[unlock]\nkey-file = {:?}\n", folder.path().join("key")));
    assert!(refusal(&one).contains("is opened by a passphrase"));
    private(&secret, b"correct horse battery");
    configure(&one, &passphrase);
    fs::remove_file(state_of(&setup, 0).join("seal.sealed")).expect("removes");
    assert!(refusal(&one).contains("put it back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_put_back_and_an_older_one_is_cured_by_repair() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    quorum.refresh().await.expect("refreshes");
    let current = folder.path().join("current");
    // Taken while the holder runs.
    replace_files(&current, &state_of(&setup, 2));
    let put_back = |processes: &mut Vec<Option<Process>>| {
        processes[2] = None;
        replace_files(&state_of(&setup, 2), &current);
        processes[2] = Some(Process::start(&setup.holder_configs[2]));
    };
    put_back(&mut processes);
    until_up(&quorum).await;
    processes[0] = None;
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    until_up(&quorum).await;
    quorum.refresh().await.expect("refreshes");
    put_back(&mut processes);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(quorum.status().await[2].state, "stale");
    assert_eq!(quorum.repair(3).await.expect("repairs").restored, 1);
    processes[1] = None;
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
}

#[test]
fn memory_is_locked_where_the_limit_allows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = volvelle_holder::local::prepare(folder.path(), 3, 2).expect("prepares");
    let line =
        format!("ulimit -l unlimited 2>/dev/null; exec {} --config \"$0\"", env!("CARGO_BIN_EXE_volvelle-holder"));
    let mut child = Command::new("sh");
    child.args(["-c", &line]).arg(&setup.holder_configs[0]).stdin(Stdio::null()).stderr(Stdio::null());
    let process = Process(child.spawn().expect("starts"));
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).expect("reads");
        let locked = status.lines().find(|line| line.starts_with("VmLck")).unwrap_or_default().to_owned();
        if locked.split_whitespace().nth(1).is_some_and(|kib| kib != "0") {
            return;
        }
        assert!(Instant::now() < until, "{locked}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
