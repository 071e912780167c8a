//! Holders that hang, restart, lie or lost something, under reads that must go on.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use volvelle_fragments::{Error, Place};
use volvelle_holder::{Quorum, QuorumError};

use crate::{Process, place, replace_fragment, start, start_of, until_up};

fn signal(process: &Process, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process.0.id()).expect("small")).expect("not 0"), signal).expect("sends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_holder_does_not_slow_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_setup, processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let reads = async || {
        let mut times = Vec::new();
        for _ in 0..60 {
            let one = Instant::now();
            quorum.open(&place("/a"), &record).await.expect("opens");
            times.push(one.elapsed());
        }
        times.sort_unstable();
        times
    };
    let usual = reads().await;
    for process in &processes {
        let stopped = process.as_ref().expect("runs");
        signal(stopped, Signal::STOP);
        let times = reads().await;
        // Without hedging the first read alone would wait for its patience of three seconds; if it were asked first every time, every
        // second read would wait for the hedge. The machine may be busy, but not for so many reads in a row.
        assert!(times[59] < Duration::from_secs(3), "{times:?}");
        assert!(times[45] < usual[45] * 4 + Duration::from_millis(100), "{times:?} {usual:?}");
        quorum.seal(&place("/b"), b"v").await.expect("seals");
        signal(stopped, Signal::CONT);
        until_up(&quorum).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_every_holder_cost_no_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let roster = volvelle_holder::Roster::load(&setup.quorum.roster).expect("a roster");
    for round in 0..6 {
        let n = round % 3;
        processes[n] = None;
        quorum.open(&place("/a"), &record).await.expect("opens while one is down");
        processes[n] = Some(Process::start(&setup.holder_configs[n]));
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&roster.holders[n].address).is_err() {
            assert!(Instant::now() < until, "it listens again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for _ in 0..5 {
        quorum.open(&place("/a"), &record).await.expect("opens");
    }
    until_up(&quorum).await;
}

/// A reader that finds the connections idle reads from them itself; one that goes away in the middle must leave them to others.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_go_away_in_the_middle_take_nobody_with_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_setup, _processes, quorum) = start(folder.path()).await;
    let place = place("/a");
    let record = quorum.seal(&place, b"v").await.expect("seals");
    let (mut gone, mut opened) = (0_u32, 0_u32);
    for round in 0..400_u64 {
        let impatient = async {
            let patience = Duration::from_micros(round % 40 * 25);
            tokio::time::timeout(patience, quorum.open(&place, &record)).await.is_err()
        };
        let others = (0..round % 3).map(|_| quorum.open(&place, &record));
        let (left, others) = tokio::join!(impatient, futures_util::future::join_all(others));
        gone += u32::from(left);
        for outcome in others {
            assert_eq!(*outcome.expect("opens"), *b"v");
            opened += 1;
        }
    }
    println!("{gone} of 400 readers went away in the middle; all {opened} others read");
    assert!(gone > 10, "{gone} of 400 readers went away");
    assert!(quorum.status().await.iter().all(|holder| holder.state == "up"), "nobody was blamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_open_in_few_messages_each_with_its_own_outcome() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    quorum.create_key([8; 16], 1).await.expect("makes another key");
    let mut records = Vec::new();
    for n in 0..150_u32 {
        let realm = if n % 5 == 0 { [8; 16] } else { crate::REALM };
        let place = Place { realm, version: n, ..place(&format!("/host/{n}")) };
        let record = quorum.seal(&place, format!("value {n}").as_bytes()).await.expect("seals");
        records.push((place, record));
    }
    records[3].0.path = "/moved".into();
    records[4].0.version = 900;
    *records[6].1.last_mut().expect("long") ^= 1;
    records[7].1.truncate(20);
    let check = |opened: Vec<Result<_, QuorumError>>| {
        for (n, outcome) in opened.into_iter().enumerate() {
            match (n, outcome) {
                (3, Err(QuorumError::Record(Error::Commitment)))
                | (4, Err(QuorumError::Record(Error::Place)))
                | (6, Err(QuorumError::Record(Error::Tampered)))
                | (7, Err(QuorumError::Record(Error::Encoding(_)))) => {}
                (n, Ok(plain)) => assert_eq!(zeroize::Zeroizing::new(format!("value {n}").into_bytes()), plain),
                (n, Err(error)) => panic!("record {n}: {error}"),
            }
        }
    };
    check(quorum.open_many(&records).await);
    assert!(quorum.open_many(&[]).await.is_empty());
    // A liar spoils no batch either.
    let other = tempfile::tempdir().expect("a folder");
    let (other_setup, _others, other_quorum) = start(other.path()).await;
    other_quorum.create_key([8; 16], 1).await.expect("makes another key");
    processes[0] = None;
    replace_fragment(&setup, &other_setup, 0);
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    check(quorum.open_many(&records).await);
    check(quorum.open_many(&records).await);
    processes[1] = None;
    processes[2] = None;
    for outcome in quorum.open_many(&records[10..20]).await {
        assert!(matches!(outcome, Err(QuorumError::TooFewHolders { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_share_a_quorum() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_setup, _processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (quorum, record) = (quorum.clone(), record.clone());
        tasks.spawn(async move {
            for _ in 0..10 {
                assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
            }
        });
    }
    assert_eq!(tasks.join_all().await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_key_opens_without_holders_until_it_is_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut setup, processes, sealing) = start(folder.path()).await;
    let record = sealing.seal(&place("/a"), b"v").await.expect("seals");
    setup.quorum.kek_cache_seconds = 30;
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    quorum.open(&place("/a"), &record).await.expect("opens");
    drop(processes);
    quorum.open(&place("/a"), &record).await.expect("opens from the cache");
    let moved = quorum.open(&place("/b"), &record).await.expect_err("another place is not cached");
    assert!(matches!(moved, QuorumError::TooFewHolders { .. }), "{moved}");
    assert!(sealing.open(&place("/a"), &record).await.is_err(), "with 0 seconds nothing is cached");
    quorum.forget();
    assert!(quorum.open(&place("/a"), &record).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_names_a_holder_before_a_read_meets_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    quorum.seal(&place("/a"), b"v").await.expect("seals");
    for holder in quorum.status().await {
        assert!(holder.round_trip.is_some_and(|time| time < Duration::from_secs(3)));
        assert!(holder.software.is_some_and(|software| software.starts_with("volvelle-holder ")));
        assert_eq!(holder.suites, [1, 2]);
    }
    // One lost its fragment, another has a wrong one.
    processes[0] = None;
    processes[1] = None;
    let other = tempfile::tempdir().expect("a folder");
    let (other_setup, _others, _) = start(other.path()).await;
    replace_fragment(&setup, &other_setup, 0);
    let state = setup.holder_configs[1].parent().expect("a folder").join("state");
    std::fs::remove_dir_all(state).expect("removes");
    for n in [0, 1] {
        processes[n] = Some(Process::start(&setup.holder_configs[n]));
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let status = quorum.status().await;
    let states: Vec<_> = status.iter().map(|h| h.state).collect();
    assert_eq!(states, ["quarantined", "lost", "up"]);
    assert!(status[1].detail.as_ref().is_some_and(|why| why.contains("needs repair")), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_of_five_work_with_two_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_setup, mut processes, quorum) = start_of(folder.path(), 5, 3).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    for (one, two) in [(0, 1), (2, 4)] {
        for n in [one, two] {
            signal(processes[n].as_ref().expect("runs"), Signal::STOP);
        }
        assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
        quorum.seal(&place("/b"), b"v").await.expect("seals");
        for n in [one, two] {
            signal(processes[n].as_ref().expect("runs"), Signal::CONT);
        }
    }
    processes.truncate(2);
    let error = quorum.open(&place("/a"), &record).await.expect_err("two are not enough");
    assert!(matches!(error, QuorumError::TooFewHolders { needed: 3, .. }), "{error}");
}
