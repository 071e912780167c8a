//! Another key for a realm, with another threshold: records go over, the old key is retired, kept when it is used, and destroyed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use volvelle_fragments::Place;
use volvelle_holder::Quorum;
use volvelle_holder::Roster;
use volvelle_holder::local::LocalSetup;
use volvelle_holder::quorum::Fate;
use volvelle_holder::setup::{RosterChange, changed_roster};

use crate::{Process, REALM, place, start, state_of, until_up};

/// Gives every party another threshold and this grace, and starts all of them anew.
async fn restart_with(setup: &LocalSetup, change: RosterChange, grace: u64) -> (Vec<Process>, Quorum) {
    let roster = Roster::load(&setup.quorum.roster).expect("a roster");
    fs::write(&setup.quorum.roster, changed_roster(roster, change).expect("changes")).expect("writes");
    for config in &setup.holder_configs {
        let text = fs::read_to_string(config).expect("reads");
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("retire_after")).collect();
        fs::write(config, format!("retire_after_seconds = {grace}\n{}\n", kept.join("\n"))).expect("writes");
    }
    let processes = setup.holder_configs.iter().map(|config| Process::start(config)).collect();
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    (processes, quorum)
}

fn to(threshold: u8) -> RosterChange {
    RosterChange { threshold: Some(threshold), ..RosterChange::default() }
}

fn under(key_id: u32, n: u32) -> Place {
    Place { key_id, version: n, ..place(&format!("/prod/{n}")) }
}

async fn opens(quorum: &Quorum, records: &[(Place, Vec<u8>)]) -> bool {
    let opened = quorum.open_many(records).await;
    (0..).zip(opened).all(|(n, value)| value.is_ok_and(|value| value.as_slice() == format!("v{n}").as_bytes()))
}

/// The same records under another key.
async fn moved(quorum: &Quorum, records: &[(Place, Vec<u8>)], key_id: u32) -> Vec<(Place, Vec<u8>)> {
    let places = records.iter().map(|(place, record)| (Place { key_id, ..place.clone() }, record.clone()));
    let places: Vec<_> = places.collect();
    let outcomes = quorum.rekey_many(&places).await;
    places.into_iter().zip(outcomes).map(|((place, _), record)| (place, record.expect("goes over"))).collect()
}

fn files_of(state: &Path, key_id: u32) -> Vec<String> {
    let beginning = format!("{}-{key_id}", hex::encode(REALM));
    let names =
        fs::read_dir(state).expect("lists").flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(&beginning)).collect();
    names.sort_unstable();
    names
}

async fn until_gone(quorum: &Quorum, key: ([u8; 16], u32)) {
    let until = Instant::now() + Duration::from_secs(20);
    while quorum.fates(key).await.values().any(|fate| *fate != Fate::Gone) {
        assert!(Instant::now() < until, "the key is destroyed: {:?}", quorum.fates(key).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_threshold_goes_up_and_down_and_the_old_keys_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, processes, quorum) = start(folder.path()).await;
    let mut first = Vec::new();
    for n in 0..70 {
        first.push((under(1, n), quorum.seal(&under(1, n), format!("v{n}").as_bytes()).await.expect("seals")));
    }
    drop((processes, quorum));

    // Three of three are needed for keys that are made from now on.
    let (mut processes, quorum) = restart_with(&setup, to(3), 3600).await;
    assert!(opens(&quorum, &first).await, "with another roster the old key opens as before");
    assert_eq!(quorum.refresh().await.expect("refreshes").failed, vec![]);
    let second = quorum.fresh_key_id(REALM, 1).await.expect("an id");
    assert_eq!(second, 2);
    quorum.create_key(REALM, second).await.expect("makes a key");
    let of = |key_id| quorum.threshold_of((REALM, key_id));
    assert_eq!((of(1).await.expect("known"), of(2).await.expect("known")), (2, 3));
    let over = moved(&quorum, &first, second).await;
    assert!(opens(&quorum, &over).await && opens(&quorum, &first).await, "both keys are readable");
    for ((_, before), (_, after)) in first.iter().zip(&over) {
        assert_eq!(before[before.len() - 18..], after[after.len() - 18..], "the payload is not touched");
        assert_eq!(before.len(), after.len());
    }
    assert_eq!(quorum.refresh().await.expect("refreshes both").keys, 2);
    assert_eq!(quorum.repair(2).await.err().map(|e| e.to_string()), None);
    drop(processes.remove(2));
    assert!(opens(&quorum, &first).await, "two of three suffice for the old key");
    assert!(!opens(&quorum, &over).await, "and not for the new one");
    processes.push(Process::start(&setup.holder_configs[2]));
    until_up(&quorum).await;

    // The old key is retired: nothing new is sealed under it; who opens something keeps it.
    quorum.retire_key((REALM, 1)).await.expect("retires");
    assert!(quorum.fates((REALM, 1)).await.values().all(|fate| matches!(fate, Fate::Ends(_))));
    assert!(quorum.seal(&under(1, 99), b"new").await.expect_err("refused").to_string().contains("retired"));
    assert_eq!(quorum.refresh().await.expect("refreshes").keys, 1, "a retired key is not refreshed");
    assert!(opens(&quorum, &first[..1]).await);
    assert!(quorum.fates((REALM, 1)).await.values().filter(|fate| **fate == Fate::InUse).count() >= 2);
    quorum.keep_key((REALM, 1)).await.expect("keeps");
    assert!(quorum.fates((REALM, 1)).await.values().all(|fate| *fate == Fate::InUse));
    assert!(quorum.retire_key((REALM, 2)).await.expect_err("it is the newest").to_string().contains("no newer key"));
    quorum.retire_key((REALM, 1)).await.expect("retires");
    drop((processes, quorum));

    // A mark outlives a restart, and the grace is the holder's own.
    let kept = folder.path().join("stolen");
    fs::create_dir(&kept).expect("makes a folder");
    for file in files_of(&state_of(&setup, 0), 1) {
        fs::copy(state_of(&setup, 0).join(&file), kept.join(&file)).expect("copies");
    }
    let (processes, quorum) = restart_with(&setup, to(2), 0).await;
    until_gone(&quorum, (REALM, 1)).await;
    assert_eq!(files_of(&state_of(&setup, 0), 1), [format!("{}-1.destroyed", hex::encode(REALM))]);
    assert!(!opens(&quorum, &first[..1]).await, "nobody opens what the old key sealed");
    assert!(opens(&quorum, &over).await);
    assert!(quorum.status().await.iter().all(|holder| holder.state == "up"));
    assert!(quorum.create_key(REALM, 1).await.expect_err("refused").to_string().contains("destroyed"));

    // And back: two of three.
    let third = quorum.fresh_key_id(REALM, 2).await.expect("an id");
    quorum.create_key(REALM, third).await.expect("makes a key");
    let back = moved(&quorum, &over, third).await;
    quorum.retire_key((REALM, 2)).await.expect("retires");
    until_gone(&quorum, (REALM, 2)).await;
    assert!(opens(&quorum, &back).await);
    assert_eq!(quorum.threshold_of((REALM, third)).await.expect("known"), 2);
    drop((processes, quorum));
    crash_in_the_middle(&setup, &kept).await;
    let forget = RosterChange { forget_thresholds: vec![3], ..RosterChange::default() };
    let (mut processes, quorum) = restart_with(&setup, forget, 3600).await;
    drop(processes.remove(0));
    assert!(opens(&quorum, &back).await, "one holder may be away again");
    assert_eq!(quorum.fresh_key_id(REALM, 0).await.err().map(|e| e.to_string().contains("holder 1")), Some(true));
}

/// The tombstone is there and everything else of the key too: the start finishes it.
async fn crash_in_the_middle(setup: &LocalSetup, kept: &Path) {
    for file in fs::read_dir(kept).expect("lists").flatten() {
        let to = state_of(setup, 0).join(file.file_name());
        fs::copy(file.path(), &to).expect("copies");
    }
    assert!(files_of(&state_of(setup, 0), 1).len() > 3);
    let (processes, _quorum) = restart_with(setup, RosterChange::default(), 3600).await;
    assert_eq!(files_of(&state_of(setup, 0), 1), [format!("{}-1.destroyed", hex::encode(REALM))]);
    drop(processes);
}

#[test]
fn a_roster_remembers_the_thresholds_that_keys_may_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = volvelle_holder::local::prepare(folder.path(), 4, 2).expect("prepares");
    let mut roster = Roster::load(&setup.quorum.roster).expect("a roster");
    for (threshold, former) in [(4, vec![2]), (3, vec![2, 4]), (2, vec![4, 3])] {
        let text = changed_roster(roster, to(threshold)).expect("changes");
        fs::write(&setup.quorum.roster, text).expect("writes");
        roster = Roster::load(&setup.quorum.roster).expect("a roster");
        assert_eq!((roster.threshold, &roster.former_thresholds), (threshold, &former));
    }
    let drop = RosterChange { drop: vec![4], ..RosterChange::default() };
    let refused = changed_roster(roster.clone(), drop).expect_err("a key of four holders may be there").to_string();
    assert!(refused.contains("rekey"), "{refused}");
    let forget = RosterChange { forget_thresholds: vec![4], drop: vec![4], ..RosterChange::default() };
    assert!(changed_roster(roster.clone(), forget).is_ok());
    assert!(changed_roster(roster.clone(), to(5)).is_err() && changed_roster(roster, to(1)).is_err());
}
