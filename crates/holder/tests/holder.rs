//! Three real holder processes on loopback, asked over mutual TLS.

#[path = "holder/attack.rs"]
mod attack;
#[path = "holder/authorization.rs"]
mod authorization;
#[path = "holder/crashes.rs"]
mod crashes;
#[path = "holder/customer.rs"]
mod customer;
#[path = "holder/documents.rs"]
mod documents;
#[path = "holder/faults.rs"]
mod faults;
#[path = "holder/liars.rs"]
mod liars;
#[path = "holder/members.rs"]
mod members;
#[path = "holder/messages.rs"]
mod messages;
#[path = "holder/policies.rs"]
mod policies;
#[path = "holder/program.rs"]
mod program;
#[path = "holder/rekey.rs"]
mod rekey;
#[path = "holder/renewal.rs"]
mod renewal;
#[path = "holder/rest.rs"]
mod rest;
#[path = "holder/rosters.rs"]
mod rosters;
#[path = "holder/signatures.rs"]
mod signatures;
#[path = "holder/suites.rs"]
mod suites;
#[path = "holder/token.rs"]
mod token;
#[path = "holder/tombstones.rs"]
mod tombstones;
#[path = "holder/years.rs"]
mod years;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use volvelle_fragments::{Error, Place, Suite};
use volvelle_holder::local::{LocalSetup, prepare};
use volvelle_holder::{Quorum, QuorumError};

const REALM: [u8; 16] = [7; 16];

struct Process(Child);

impl Process {
    fn start(config: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_volvelle-holder"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Prepares and starts three holders, of which two are needed, and makes the realm's key.
async fn start(folder: &Path) -> (LocalSetup, Vec<Option<Process>>, Quorum) {
    start_of(folder, 3, 2).await
}

async fn start_of(folder: &Path, n: u8, t: u8) -> (LocalSetup, Vec<Option<Process>>, Quorum) {
    start_in(Suite::default(), folder, n, t).await
}

async fn start_in(suite: Suite, folder: &Path, n: u8, t: u8) -> (LocalSetup, Vec<Option<Process>>, Quorum) {
    let mut setup = prepare(folder, n, t).expect("prepares");
    setup.quorum.kek_cache_seconds = 0;
    setup.quorum.suite = suite;
    let processes = setup.holder_configs.iter().map(|c| Some(Process::start(c))).collect();
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    quorum.create_key(REALM, 1).await.expect("makes a key");
    (setup, processes, quorum)
}

async fn until_up(quorum: &Quorum) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let status = quorum.status().await;
        if status.iter().all(|h| h.state == "up") {
            return;
        }
        assert!(Instant::now() < until, "the holders come up: {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where a holder keeps its fragments.
fn state_of(setup: &LocalSetup, n: usize) -> PathBuf {
    setup.holder_configs[n].parent().expect("a folder").join("state")
}

/// Puts one folder's files in place of another's.
fn replace_files(of: &Path, with: &Path) {
    std::fs::remove_dir_all(of).ok();
    std::fs::create_dir(of).expect("makes the folder");
    std::fs::set_permissions(of, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("sets the mode");
    let files = std::fs::read_dir(with).expect("lists").flatten().filter(|entry| entry.path().is_file());
    for file in files {
        std::fs::copy(file.path(), of.join(file.file_name())).expect("copies");
    }
}

/// Puts the fragments of another installation's holder under this one's.
fn replace_fragment(of: &LocalSetup, with: &LocalSetup, n: usize) {
    replace_files(&state_of(of, n), &state_of(with, n));
}

fn place(path: &str) -> Place {
    Place { realm: REALM, key_id: 1, purpose: 1, item: [1; 16], version: 1, path: path.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_open_with_one_holder_down_and_not_with_two() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"s3cret").await.expect("seals");
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"s3cret");
    quorum.create_key(REALM, 1).await.expect("is there already");
    processes[0] = None;
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"s3cret");
    let second = quorum.seal(&place("/b"), b"two").await.expect("seals");
    processes[1] = None;
    let begun = Instant::now();
    let error = quorum.open(&place("/a"), &record).await.expect_err("one is not enough");
    // Whoever waited for them would do so for its patience of three seconds, and once more.
    assert!(begun.elapsed() < Duration::from_secs(3), "it says so at once: {:?}", begun.elapsed());
    assert!(matches!(error, QuorumError::TooFewHolders { needed: 2, .. }), "{error}");
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(quorum.open(&place("/b"), &second).await.expect("opens again").as_slice(), b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_record_does_not_open_and_a_renamed_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_setup, _processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/prod/root"), b"v").await.expect("seals");
    let moved = quorum.open(&place("/public/root"), &record).await.expect_err("moved");
    assert!(matches!(moved, QuorumError::Record(Error::Commitment)), "{moved}");
    let renamed = quorum.rewrap(&place("/prod/root"), &place("/prod/new"), &record).await.expect("renames");
    assert_eq!(quorum.open(&place("/prod/new"), &renamed).await.expect("opens").as_slice(), b"v");
    assert!(quorum.status().await.iter().all(|h| h.state == "up"), "nobody is blamed for a moved record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_answers_wrongly_is_named_and_the_value_still_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    // Another generation of the same key, made by other holders, is put under holder 1.
    let other = tempfile::tempdir().expect("a folder");
    let (other_setup, _others, _) = start(other.path()).await;
    processes[0] = None;
    replace_fragment(&setup, &other_setup, 0);
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    tokio::time::sleep(Duration::from_millis(700)).await;
    // Another client meets it when it seals: what it sealed is good all the same.
    let sealing = Quorum::new(&setup.quorum).expect("a quorum");
    for n in 0..3 {
        let path = format!("/new/{n}");
        let sealed = sealing.seal(&place(&path), b"new").await.expect("seals all the same");
        assert_eq!(quorum.open(&place(&path), &sealed).await.expect("opens").as_slice(), b"new");
    }
    assert_eq!(sealing.status().await[0].state, "quarantined");
    for _ in 0..3 {
        assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens all the same").as_slice(), b"v");
    }
    let states: Vec<_> = quorum.status().await.iter().map(|h| h.state).collect();
    assert_eq!(states, ["quarantined", "up", "up"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_in_the_roster_is_not_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, _processes, _) = start(folder.path()).await;
    let other = tempfile::tempdir().expect("a folder");
    let stranger = prepare(other.path(), 3, 2).expect("prepares");
    let mut config = setup.quorum.clone();
    config.identity = stranger.quorum.identity;
    let quorum = Quorum::new(&config).expect("a quorum");
    assert!(quorum.status().await.iter().all(|h| h.state == "down"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_generation_that_breaks_off_is_begun_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    processes[2] = None;
    let broken = quorum.create_key([8; 16], 1).await.expect_err("a holder is missing");
    assert!(matches!(broken, QuorumError::KeyGeneration(_)), "{broken}");
    processes[2] = Some(Process::start(&setup.holder_configs[2]));
    tokio::time::sleep(Duration::from_millis(700)).await;
    quorum.create_key([8; 16], 1).await.expect("makes it now");
    let there = Place { realm: [8; 16], ..place("/a") };
    let record = quorum.seal(&there, b"v").await.expect("seals");
    assert_eq!(quorum.open(&there, &record).await.expect("opens").as_slice(), b"v");
}

#[test]
fn a_readable_key_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = prepare(folder.path(), 3, 2).expect("prepares");
    std::fs::set_permissions(&setup.quorum.identity.key, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("changes the mode");
    let error = Quorum::new(&setup.quorum).err().expect("refused").to_string();
    assert!(error.contains("chmod 600"), "{error}");
}
