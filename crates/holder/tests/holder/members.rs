//! Holders that come, go and are replaced: the key and every record stay, and what a former holder kept is worth nothing.

use std::fs;
use std::path::Path;

use volvelle_fragments::{Kek, Place, Record, Suite, combine};
use volvelle_holder::local::LocalSetup;
use volvelle_holder::roster::Member;
use volvelle_holder::setup::{HolderPlan, RosterChange, changed_roster, init_holder};
use volvelle_holder::{Quorum, Roster};

use crate::attack::steal;
use crate::{Process, REALM, place, replace_files, start, state_of, until_up};

/// A holder in a folder of its own, which starts with the roster of all.
fn new_holder(root: &Path, folder: &str, index: u8) -> (Member, std::path::PathBuf) {
    let port = volvelle_testkit::port::free().expect("a port");
    let dir = root.join(folder);
    let plan =
        HolderPlan { dir: dir.clone(), index, listen: port, address: None, state: None, key_at: None, unlock: None };
    let member = init_holder(&plan).expect("makes a holder");
    (member, dir.join("holder.toml"))
}

/// Gives every party the changed roster and starts all of them anew.
fn change(setup: &LocalSetup, configs: &[std::path::PathBuf], change: RosterChange) -> (Vec<Process>, Quorum) {
    let roster = Roster::load(&setup.quorum.roster).expect("a roster");
    let text = changed_roster(roster, change).expect("changes");
    fs::write(&setup.quorum.roster, &text).expect("writes");
    for config in configs {
        // Holders of the first set-up read the common file.
        let own = config.parent().expect("a folder").join("roster.toml");
        if fs::read_to_string(config).expect("reads").contains("\"roster.toml\"") {
            fs::write(own, &text).expect("writes");
        }
    }
    let processes = configs.iter().map(|config| Process::start(config)).collect();
    (processes, Quorum::new(&setup.quorum).expect("a quorum"))
}

async fn until_reachable(quorum: &Quorum) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while quorum.status().await.iter().any(|holder| holder.round_trip.is_none()) {
        assert!(std::time::Instant::now() < until, "the holders come up");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_added_one_replaced_and_one_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, processes, quorum) = start(folder.path()).await;
    // A key of each suite.
    quorum.create_key_of(Suite::P256, REALM, 2).await.expect("makes a key");
    let other = Place { key_id: 2, ..place("/b") };
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    let second_record = quorum.seal(&other, b"w").await.expect("seals");
    drop((processes, quorum));
    let kept = folder.path().join("kept");
    replace_files(&kept, &state_of(&setup, 1));

    // A fourth one.
    let (member, fourth) = new_holder(folder.path(), "fourth", 4);
    let mut configs = setup.holder_configs.clone();
    configs.push(fourth);
    let (processes, quorum) =
        change(&setup, &configs, RosterChange { members: vec![member], ..RosterChange::default() });
    until_reachable(&quorum).await;
    assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens meanwhile").as_slice(), b"v");
    assert_eq!(quorum.open(&other, &second_record).await.expect("opens meanwhile").as_slice(), b"w");
    assert_eq!(quorum.status().await[3].state, "lost");
    let refused = quorum.refresh().await.expect("tells").failed;
    assert!(refused[0].1.contains("holder 4"), "{refused:?}");
    assert_eq!(quorum.repair(4).await.expect("enrols").restored, 2);
    until_up(&quorum).await;
    assert_eq!(quorum.refresh().await.expect("refreshes").epoch, 1);
    drop(processes);

    // The second one's machine burns down; another one takes its place, and the first is not needed any more.
    let (member, second) = new_holder(folder.path(), "second", 2);
    configs[1] = second;
    let (processes, quorum) =
        change(&setup, &configs, RosterChange { members: vec![member], ..RosterChange::default() });
    until_reachable(&quorum).await;
    assert_eq!(quorum.repair(2).await.expect("replaces").restored, 2);
    until_up(&quorum).await;
    assert_eq!(quorum.refresh().await.expect("refreshes").epoch, 2);
    drop(processes);
    configs.remove(0);
    let (mut processes, quorum) = change(&setup, &configs, RosterChange { drop: vec![1], ..RosterChange::default() });
    until_up(&quorum).await;
    assert_eq!(quorum.refresh().await.expect("refreshes").epoch, 3);
    assert_eq!(quorum.status().await.iter().map(|holder| holder.index).collect::<Vec<_>>(), [2, 3, 4]);
    // Each pair of the three that are left; none of them but the third was there at the beginning.
    for (away, config) in configs.iter().enumerate() {
        let gone = processes.remove(away);
        drop(gone);
        assert_eq!(quorum.open(&place("/a"), &record).await.expect("opens").as_slice(), b"v");
        assert_eq!(quorum.open(&other, &second_record).await.expect("opens").as_slice(), b"w");
        processes.insert(away, Process::start(config));
        until_up(&quorum).await;
    }
    former_fragments_are_worth_nothing(&setup, &kept, &record);
}

/// The first holder kept its last fragment, somebody has the second one's first, and they put them together.
fn former_fragments_are_worth_nothing(setup: &LocalSetup, kept: &Path, record: &[u8]) {
    let record = Record::parse(record).expect("a record");
    let input = record.input(&place("/a")).expect("belongs there");
    let x = input.encode().expect("short");
    let opens = |one: &Path, epoch: u32, two: &Path| {
        let answers = [(1, steal_of(one, epoch)), (2, steal(two))];
        let answers = answers.map(|(index, share)| (index, share.evaluate(&x).expect("evaluates")));
        let kek = Kek::derive(&x, &combine(&answers).expect("a quorum"), None).expect("derives");
        record.open(&input, &kek).is_ok()
    };
    assert!(!opens(&state_of(setup, 0), 2, kept), "fragments of different epochs do not fit");
}

fn steal_of(state: &Path, epoch: u32) -> volvelle_fragments::PrfShare {
    crate::attack::steal_epoch(state, epoch)
}

#[test]
fn a_change_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = volvelle_holder::local::prepare(folder.path(), 3, 2).expect("prepares");
    let roster = || Roster::load(&setup.quorum.roster).expect("a roster");
    let drop = |indices: &[u8]| changed_roster(roster(), RosterChange { drop: indices.to_vec(), ..Default::default() });
    assert!(drop(&[3]).expect("two are left").contains("[[former]]"));
    assert!(drop(&[4]).expect_err("not there").to_string().contains("no holder 4"));
    assert!(drop(&[2, 3]).expect_err("too few").to_string().contains("threshold"));
    let none = RosterChange { drop_gateways: roster().gateways, ..Default::default() };
    assert!(changed_roster(roster(), none).expect_err("no gateway").to_string().contains("gateway"));
}
