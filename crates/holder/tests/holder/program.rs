//! The program as an operator meets it: what it refuses, how it ends, what it protects.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use volvelle_holder::local::prepare;

use crate::{Process, place, start};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_volvelle-holder")).args(arguments).stdin(Stdio::null()).output().expect("runs")
}

/// Starts a holder that must refuse, and gives what it says.
pub(crate) fn refusal(config: &Path) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_volvelle-holder"))
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let until = Instant::now() + Duration::from_secs(10);
    while child.try_wait().expect("waits").is_none() {
        if Instant::now() > until {
            child.kill().ok();
            panic!("it starts although it should refuse");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("ended");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn open_to_all(file: &Path) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).expect("changes the mode");
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_files_that_others_may_read_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, processes, _quorum) = start(folder.path()).await;
    drop(processes);
    let home = |n: usize| setup.holder_configs[n].parent().expect("a folder").to_path_buf();
    let fragment: PathBuf = std::fs::read_dir(home(0).join("state"))
        .expect("lists")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "json"))
        .expect("a fragment");
    for (n, file) in [(0, fragment), (1, home(1).join("state/seal.key")), (2, home(2).join("key.der"))] {
        open_to_all(&file);
        let said = refusal(&setup.holder_configs[n]);
        assert!(said.contains(&format!("run `chmod 600 {}`", file.display())), "{said}");
        assert_eq!(said.contains("runs as root"), rustix::process::geteuid().is_root(), "{said}");
    }
    std::fs::set_permissions(home(1).join("state/seal.key"), std::fs::Permissions::from_mode(0o600)).expect("mode");
    std::fs::remove_file(home(1).join("state/seal.key")).expect("removes");
    let said = refusal(&setup.holder_configs[1]);
    assert!(said.contains("seal.key is missing"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_cleanly_on_sigterm_while_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let asking = tokio::spawn({
        let quorum = quorum.clone();
        async move { while quorum.open(&place("/a"), &record).await.is_ok() {} }
    });
    for process in processes.iter_mut().flatten() {
        let pid = i32::try_from(process.0.id()).expect("small");
        let pid = rustix::process::Pid::from_raw(pid).expect("not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sends");
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(status) = process.0.try_wait().expect("waits") {
                assert!(status.success(), "{status}");
                break;
            }
            assert!(Instant::now() < until, "it ends within five seconds");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("reads end too").expect("no panic");
}

#[test]
fn no_core_file_can_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = prepare(folder.path(), 3, 2).expect("prepares");
    let process = Process::start(&setup.holder_configs[0]);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.0.id())).expect("reads");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or("").to_owned();
        if core.split_whitespace().filter(|word| *word == "0").count() == 2 {
            return;
        }
        assert!(Instant::now() < until, "{core}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_identity_is_made_once_and_never_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("h").display().to_string();
    let init = ["init", "--dir", &dir, "--index", "1", "--listen", "127.0.0.1:7301"];
    let first = run(&init);
    assert!(first.status.success(), "{first:?}");
    assert_eq!(first.stdout, run(&init).stdout);
    let other = run(&["init", "--dir", &dir, "--index", "2", "--listen", "127.0.0.1:7301"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("nothing was changed"), "{other:?}");
    let key = std::fs::metadata(folder.path().join("h/key.der")).expect("a key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let every = run(&["init", "--dir", &dir, "--index", "1", "--listen", "0.0.0.0:7301"]);
    assert!(String::from_utf8_lossy(&every.stderr).contains("--address"), "{every:?}");
}

#[test]
fn a_roster_that_makes_no_sense_is_not_printed() {
    let line = |index: u8, pin: u8| format!("{index},127.0.0.1:{index},{},{}", hex::encode([pin; 32]), "00".repeat(32));
    let (one, two, three, gateway) = (line(1, 1), line(2, 2), line(3, 3), "ff".repeat(32));
    let roster = |threshold: &str, members: &[&str]| {
        let mut arguments = vec!["roster", "--threshold", threshold, "--gateway-pin", &gateway];
        arguments.extend(members.iter().flat_map(|member| ["--member", member]));
        run(&arguments)
    };
    let good = roster("2", &[&three, &one, &two]);
    assert!(good.status.success(), "{good:?}");
    for (threshold, members, why) in [
        ("1", vec![one.as_str(), &two], "threshold must be between 2"),
        ("3", vec![one.as_str(), &two], "threshold must be between 2"),
        ("2", vec![one.as_str(), &three], "in order"),
        ("2", vec![one.as_str(), &line(2, 1)], "a pin of its own"),
        ("2", vec![one.as_str(), "2,host:1,abc,def"], "64 hexadecimal digits"),
        ("2", vec![one.as_str(), "nonsense"], "a member is INDEX"),
    ] {
        let bad = roster(threshold, &members);
        assert!(!bad.status.success() && bad.stdout.is_empty());
        assert!(String::from_utf8_lossy(&bad.stderr).contains(why), "{bad:?}");
    }
}

#[test]
fn help_tells_the_whole_way() {
    let help = String::from_utf8(run(&["--help"]).stdout).expect("text");
    for word in ["init", "gateway-identity", "roster", "--config", "roster.toml", "Signals"] {
        assert!(help.contains(word), "{help}");
    }
}
