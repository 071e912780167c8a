//! Refresh and repair among real holder processes, with readers that must notice nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use volvelle_holder::Quorum;
use volvelle_holder::quorum::Refreshed;

use crate::{Process, REALM, place, replace_files, start, start_of, state_of, until_up};

/// Past the tests' own capture: figures belong to the result.
fn report(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// The file keys of a holder.
pub(crate) fn file_keys(state: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(state).expect("lists").flatten().map(|entry| entry.path());
    files.filter(|path| path.to_string_lossy().ends_with(".key") && !path.ends_with("seal.key")).collect()
}

async fn states(quorum: &Quorum) -> Vec<(&'static str, Option<u32>)> {
    quorum.status().await.iter().map(|holder| (holder.state, holder.epoch)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_refresh_every_pair_opens_and_old_fragments_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let other = Quorum::new(&setup.quorum).expect("another gateway");
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    assert_eq!(other.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    // A second name for each file key shows what becomes of its bytes.
    let mut seen = Vec::new();
    for n in 0..3 {
        for file in file_keys(&state_of(&setup, n)) {
            let kept = folder.path().join(format!("kept-{n}-{}", seen.len()));
            fs::hard_link(&file, &kept).expect("links");
            seen.push((file, kept));
        }
    }
    assert_eq!(seen.len(), 3);
    for epoch in 1..=3 {
        let done = quorum.refresh().await.expect("refreshes");
        assert_eq!((done.keys, done.epoch, done.failed.len()), (1, epoch, 0), "{done:?}");
    }
    for (file, kept) in seen {
        assert!(!file.exists(), "the old file key is gone");
        let bytes = fs::read(kept).expect("reads");
        assert!(bytes.len() > 32 && bytes.iter().all(|byte| *byte == 0), "and was overwritten");
    }
    for n in 0..3 {
        assert_eq!(file_keys(&state_of(&setup, n)).len(), 1);
    }
    let second = other.seal(&place("/b"), b"w").await.expect("one that knew nothing of it seals");
    assert_eq!(states(&quorum).await, [("up", Some(3)); 3]);
    for (n, config) in setup.holder_configs.iter().enumerate() {
        processes[n] = None;
        assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
        assert_eq!(other.open(&place("/b"), &second).await.expect("opens").as_slice(), b"w");
        processes[n] = Some(Process::start(config));
        until_up(&quorum).await;
    }
    assert_eq!(quorum.refresh_older_than(3600).await.expect("asks").keys, 0, "nothing is due");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_put_back_from_an_old_copy_is_named_and_repaired() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let backup = folder.path().join("backup");
    replace_files(&backup, &state_of(&setup, 1));
    quorum.refresh().await.expect("refreshes");
    processes[1] = None;
    replace_files(&state_of(&setup, 1), &backup);
    processes[1] = Some(Process::start(&setup.holder_configs[1]));
    tokio::time::sleep(Duration::from_millis(700)).await;
    // A gateway that meets the old one first is not led back.
    let fresh = Quorum::new(&setup.quorum).expect("another gateway");
    for _ in 0..6 {
        assert_eq!(fresh.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
        fresh.seal(&place("/b"), b"w").await.expect("seals");
    }
    for gateway in [&quorum, &fresh] {
        assert_eq!(states(gateway).await, [("up", Some(1)), ("stale", Some(0)), ("up", Some(1))]);
    }
    let refused = quorum.refresh().await.expect("tells");
    assert!(refused.failed[0].1.contains("repair first") && refused.failed[0].1.contains("holder 2"), "{refused:?}");
    let done = quorum.repair(2).await.expect("repairs");
    assert_eq!((done.restored, done.sound, done.failed.len()), (1, 0, 0), "{done:?}");
    assert_eq!(states(&fresh).await, [("up", Some(1)); 3]);
    processes[0] = None;
    assert_eq!(fresh.open(&place("/a"), &record).await.expect("it is needed now").as_slice(), b"v");
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    until_up(&quorum).await;
    assert_eq!(quorum.refresh().await.expect("refreshes").epoch, 2);
    assert_eq!(quorum.repair(2).await.expect("looks").sound, 1, "nothing to repair");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_lost_its_disk_is_repaired_by_any_three_of_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start_of(folder.path(), 5, 3).await;
    quorum.create_key([8; 16], 1).await.expect("makes another key");
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    quorum.refresh().await.expect("refreshes");
    for lost in [0_usize, 3] {
        processes[lost] = None;
        fs::remove_dir_all(state_of(&setup, lost)).expect("removes");
        processes[lost] = Some(Process::start(&setup.holder_configs[lost]));
        // One helper is away: three others are left.
        processes[4] = None;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(states(&quorum).await[lost].0, "lost");
        let index = u8::try_from(lost).expect("small") + 1;
        let done = quorum.repair(index).await.expect("repairs");
        assert_eq!((done.restored, done.failed.len()), (2, 0), "{done:?}");
        processes[4] = Some(Process::start(&setup.holder_configs[4]));
        until_up(&quorum).await;
    }
    // The two repaired ones and one other: nobody else is left to answer.
    (processes[1], processes[2]) = (None, None);
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    assert!(quorum.repair(9).await.is_err(), "there is no such holder");
    let few = quorum.repair(1).await.expect_err("too few helpers");
    assert!(few.to_string().contains("a repair needs 3 helpers"), "{few}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_from_before_there_were_epochs_are_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    drop(processes);
    for n in 0..3 {
        write_first_format(&state_of(&setup, n));
    }
    let _processes: Vec<Process> = setup.holder_configs.iter().map(|config| Process::start(config)).collect();
    until_up(&quorum).await;
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
    assert_eq!(quorum.refresh().await.expect("refreshes").epoch, 1);
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
}

/// Writes a holder's only fragment as holders did before there were epochs.
fn write_first_format(state: &Path) {
    let path = state.join(format!("{}-1.json", hex::encode(REALM)));
    let file: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("reads")).expect("JSON");
    let (mut info, name) = (file["epochs"][0]["info"].clone(), file["epochs"][0]["key_file"].as_str().expect("text"));
    info.as_object_mut().expect("an object").remove("epoch");
    let share = crate::attack::steal(state);
    let own = fs::read(state.join("seal.key")).expect("a key");
    let own = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &own).expect("a key"));
    let mut sealed = share.expose_bytes().to_vec();
    let aad = [b"FDK-share-v1", REALM.as_slice(), &1_u32.to_be_bytes()].concat();
    own.seal_in_place_append_tag(Nonce::assume_unique_for_key([7; 12]), Aad::from(aad), &mut sealed).expect("seals");
    let first = serde_json::json!({
        "version": 1, "epoch": 0, "info": info, "nonce": hex::encode([7; 12]), "sealed_share": hex::encode(sealed),
    });
    fs::write(&path, first.to_string()).expect("writes");
    fs::remove_file(state.join(name)).expect("removes");
}

/// What eight readers saw.
#[derive(Default)]
struct Reads {
    done: AtomicUsize,
    failed: AtomicUsize,
    slowest_us: AtomicUsize,
}

/// Reads, and now and then seals, until it is told to stop; gives what it sealed.
async fn read(quorum: Quorum, n: u32, first: Vec<u8>, reads: Arc<Reads>, stop: Arc<AtomicBool>) -> Vec<(u32, Vec<u8>)> {
    let at = |version: u32| volvelle_fragments::Place { version, ..place(&format!("/reader/{n}")) };
    let mut sealed = vec![(0, first)];
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let (version, record) = &sealed[count % sealed.len()];
        match quorum.open(&at(*version), record).await {
            Ok(value) => assert_eq!(value.as_slice(), format!("{n}/{version}").as_bytes()),
            Err(error) => {
                report(&format!("reader {n}: {error}"));
                reads.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        reads.done.fetch_add(1, Ordering::Relaxed);
        reads.slowest_us.fetch_max(usize::try_from(begun.elapsed().as_micros()).unwrap_or(0), Ordering::Relaxed);
        count += 1;
        if count.is_multiple_of(50) {
            let version = u32::try_from(sealed.len()).expect("few");
            match quorum.seal(&at(version), format!("{n}/{version}").as_bytes()).await {
                Ok(record) => sealed.push((version, record)),
                Err(error) => {
                    report(&format!("reader {n} seals: {error}"));
                    reads.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    sealed
}

/// Refreshes one after the other, whatever becomes of them: how many came to an end and how many were broken off. One that is
/// turned away since the other coordinator is at it counts as neither.
async fn refresh_on(quorum: Quorum, stop: Arc<AtomicBool>, refreshes: Arc<Refreshes>) {
    while !stop.load(Ordering::Relaxed) {
        match quorum.refresh().await {
            Ok(refreshed) if refreshed.failed.is_empty() => {
                refreshes.done.fetch_add(1, Ordering::Relaxed);
                refreshes.epoch.fetch_max(refreshed.epoch, Ordering::Relaxed);
                continue;
            }
            Ok(turned) if is_turned_away(&turned) => {}
            _ => {
                refreshes.broken.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_turned_away(refreshed: &Refreshed) -> bool {
    !refreshed.failed.is_empty() && refreshed.failed.iter().all(|(_, why)| why.contains("goes first"))
}

#[derive(Default)]
struct Refreshes {
    done: AtomicUsize,
    broken: AtomicUsize,
    epoch: AtomicU32,
}

impl Refreshes {
    fn counts(&self) -> (usize, usize) {
        (self.done.load(Ordering::Relaxed), self.broken.load(Ordering::Relaxed))
    }
}

/// What one of the coordinators began and did not end goes first for a while.
async fn refresh_at_the_end(quorum: &Quorum) -> Refreshed {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let last = quorum.refresh().await.expect("refreshes at the end");
        if !is_turned_away(&last) || Instant::now() > until {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_readers_notice_nothing_of_refreshes_and_killed_holders() {
    for (n, t, seconds) in [(3_u8, 2_u8, 20), (5, 3, 25)] {
        eight_readers(n, t, Duration::from_secs(seconds)).await;
    }
}

async fn eight_readers(n: u8, t: u8, time: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start_of(folder.path(), n, t).await;
    let (reads, stop) = (Arc::new(Reads::default()), Arc::new(AtomicBool::new(false)));
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..8 {
        let at = place(&format!("/reader/{reader}"));
        let at = volvelle_fragments::Place { version: 0, ..at };
        let first = quorum.seal(&at, format!("{reader}/0").as_bytes()).await.expect("seals");
        // Each is a gateway of its own.
        let own = Quorum::new(&setup.quorum).expect("a gateway");
        let (reads, stop) = (Arc::clone(&reads), Arc::clone(&stop));
        readers.spawn(async move { (reader, read(own, reader, first, reads, stop).await) });
    }
    // Two coordinators, of which each may be in the other's way.
    let refreshes = Arc::new(Refreshes::default());
    let coordinators = [quorum.clone(), Quorum::new(&setup.quorum).expect("a gateway")]
        .map(|coordinator| tokio::spawn(refresh_on(coordinator, Arc::clone(&stop), Arc::clone(&refreshes))));
    let (begun, mut kills) = (Instant::now(), 0_usize);
    let mut random = 0x9e37_79b9_u32 | u32::from(n);
    // A slow machine needs longer until there was something of everything.
    let few = || matches!(refreshes.counts(), (0, _) | (_, 0));
    while begun.elapsed() < time || (few() && begun.elapsed() < 5 * time) {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        tokio::time::sleep(Duration::from_millis(u64::from(random % (u32::from(n) * 350)))).await;
        let holder = usize::try_from(random >> 8).expect("small") % usize::from(n);
        // SIGKILL, in the middle of whatever it does.
        processes[holder] = None;
        kills += 1;
        tokio::time::sleep(Duration::from_millis(u64::from(random % 200))).await;
        processes[holder] = Some(Process::start(&setup.holder_configs[holder]));
        // At most n-t are away at a time; here one.
        until_listening(&setup, holder).await;
    }
    stop.store(true, Ordering::Relaxed);
    for coordinator in coordinators {
        coordinator.await.expect("no panic");
    }
    let ((done, broken), epoch) = (refreshes.counts(), refreshes.epoch.load(Ordering::Relaxed));
    let sealed: BTreeMap<u32, Vec<(u32, Vec<u8>)>> = readers.join_all().await.into_iter().collect();
    until_up(&quorum).await;
    let last = refresh_at_the_end(&quorum).await;
    assert!(last.failed.is_empty(), "{last:?}");
    let (mut records, mut lost) = (0, 0);
    // Every record, with each holder away in turn, so that every quorum that is left must do.
    for (away, config) in setup.holder_configs.iter().enumerate() {
        processes[away] = None;
        for (reader, versions) in &sealed {
            for (version, record) in versions {
                let at = volvelle_fragments::Place { version: *version, ..place(&format!("/reader/{reader}")) };
                records += 1;
                let opened = quorum.open(&at, record).await;
                let right = opened.is_ok_and(|value| value.as_slice() == format!("{reader}/{version}").as_bytes());
                lost += usize::from(!right);
            }
        }
        processes[away] = Some(Process::start(config));
        until_up(&quorum).await;
    }
    let (read, failed) = (reads.done.load(Ordering::Relaxed), reads.failed.load(Ordering::Relaxed));
    let slowest = reads.slowest_us.load(Ordering::Relaxed) / 1000;
    report(&format!(
        "{t} of {n}: {read} reads by 8 gateways, {failed} failed, slowest {slowest} ms; {done} refreshes, {broken} broken \
         off, epoch {}, {kills} holders killed; {records} openings of sealed records at the end, {lost} lost",
        last.epoch
    ));
    assert_eq!((failed, lost), (0, 0));
    assert!(done >= 1 && kills > 5 && broken > 0 && last.epoch >= epoch, "the test has teeth");
    for holder in 0..usize::from(n) {
        assert_eq!(file_keys(&state_of(&setup, holder)).len(), 1, "everything older is erased");
    }
}

async fn until_listening(setup: &volvelle_holder::local::LocalSetup, holder: usize) {
    let roster = volvelle_holder::Roster::load(&setup.quorum.roster).expect("a roster");
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(&roster.holders[holder].address).is_err() {
        assert!(Instant::now() < until, "it listens again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
