//! Keys of suite 2 at real holders: they do everything that keys of suite 1 do, records go from one to the other and back, and a
//! holder makes no key of a suite that its administrator does not allow.

use std::fs;

use volvelle_fragments::{Error, Place, Suite};
use volvelle_holder::local::prepare;
use volvelle_holder::{Quorum, QuorumError};

use crate::{Process, REALM, place, replace_fragment, start_in, state_of, until_up};

fn under(key_id: u32, n: u32) -> Place {
    Place { key_id, version: n, ..place(&format!("/prod/{n}")) }
}

async fn sealed(quorum: &Quorum, count: u32) -> Vec<(Place, Vec<u8>)> {
    let mut records = Vec::new();
    for n in 0..count {
        records.push((under(1, n), quorum.seal(&under(1, n), format!("v{n}").as_bytes()).await.expect("seals")));
    }
    records
}

async fn opens(quorum: &Quorum, records: &[(Place, Vec<u8>)]) {
    for (n, value) in quorum.open_many(records).await.into_iter().enumerate() {
        assert_eq!(value.expect("opens").as_slice(), format!("v{n}").as_bytes());
    }
}

async fn moved(quorum: &Quorum, records: &[(Place, Vec<u8>)], key_id: u32) -> Vec<(Place, Vec<u8>)> {
    let places: Vec<_> =
        records.iter().map(|(place, record)| (Place { key_id, ..place.clone() }, record.clone())).collect();
    let outcomes = quorum.rekey_many(&places).await;
    places.into_iter().zip(outcomes).map(|((place, _), record)| (place, record.expect("goes over"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_nists_curve_does_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start_in(Suite::P256, folder.path(), 3, 2).await;
    assert_eq!(quorum.suite_of((REALM, 1)).await.expect("known"), Suite::P256);
    assert!(quorum.status().await.iter().all(|holder| holder.suites == [1, 2]), "each speaks both");
    let records = sealed(&quorum, 70).await;
    opens(&quorum, &records).await;
    let renamed = quorum.rewrap(&under(1, 0), &place("/new"), &records[0].1).await;
    assert!(matches!(renamed, Err(QuorumError::Record(Error::Place))), "of another version");
    let there = Place { path: "/new".into(), ..under(1, 0) };
    let renamed = quorum.rewrap(&under(1, 0), &there, &records[0].1).await.expect("renames");
    assert_eq!(quorum.open(&there, &renamed).await.expect("opens").as_slice(), b"v0");

    assert_eq!(quorum.refresh().await.expect("refreshes").failed, vec![]);
    processes[1] = None;
    opens(&quorum, &records).await;
    processes[1] = Some(Process::start(&setup.holder_configs[1]));
    until_up(&quorum).await;

    // A fragment of another generation is put under a holder: it is named, and the value comes all the same.
    let other = tempfile::tempdir().expect("a folder");
    let (other_setup, _others, other_quorum) = start_in(Suite::P256, other.path(), 3, 2).await;
    assert_eq!(other_quorum.refresh().await.expect("refreshes").epoch, 1);
    processes[0] = None;
    replace_fragment(&setup, &other_setup, 0);
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    for _ in 0..200 {
        if quorum.status().await[0].state == "quarantined" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let states: Vec<_> = quorum.status().await.iter().map(|holder| holder.state).collect();
    assert_eq!(states, ["quarantined", "up", "up"]);
    opens(&quorum, &records).await;

    // What it has is worth nothing: its state is emptied, and the others restore its fragment.
    processes[0] = None;
    fs::remove_dir_all(state_of(&setup, 0)).expect("empties");
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    let mut repaired = Err(QuorumError::Holders("not tried".to_owned()));
    for _ in 0..200 {
        repaired = quorum.repair(1).await;
        if repaired.as_ref().is_ok_and(|done| done.restored == 1) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(repaired.is_ok_and(|done| done.restored == 1 && done.failed.is_empty()));
    until_up(&quorum).await;
    processes[2] = None;
    opens(&quorum, &records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_to_the_other_suite_and_back_with_their_payloads_untouched() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start_in(Suite::Ristretto255, folder.path(), 3, 2).await;
    let first = sealed(&quorum, 70).await;
    quorum.create_key_of(Suite::P256, REALM, 2).await.expect("makes a key");
    quorum.create_key_of(Suite::P256, REALM, 2).await.expect("is there already");
    quorum.create_key_of(Suite::Ristretto255, REALM, 3).await.expect("makes a key");
    let second = moved(&quorum, &first, 2).await;
    let third = moved(&quorum, &second, 3).await;
    for ((before, between), after) in first.iter().zip(&second).zip(&third) {
        assert_eq!((before.1[4], between.1[4], after.1[4]), (1, 2, 1), "the header says the suite of the key");
        assert!(before.1.len() == between.1.len() && before.1.len() == after.1.len());
        let payload = before.1.len() - (12 + 16 + 2);
        assert!(before.1[payload..] == between.1[payload..] && before.1[payload..] == after.1[payload..]);
    }
    assert_eq!(quorum.refresh().await.expect("refreshes all").keys, 3);
    for records in [&first, &second, &third] {
        opens(&quorum, records).await;
    }
    processes[0] = None;
    for records in [&first, &second, &third] {
        opens(&quorum, records).await;
    }
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    until_up(&quorum).await;

    // Whoever changes the suite in a record spoils that record, and no other one of its message.
    let mut spoiled = second;
    spoiled[7].1[4] = 1;
    let tampered = |n: usize, outcome: &Result<_, QuorumError>| match outcome {
        Ok(_) => n != 7,
        Err(error) => n == 7 && matches!(error, QuorumError::Record(Error::Tampered)),
    };
    let opened = quorum.open_many(&spoiled).await;
    assert!(opened.iter().enumerate().all(|(n, outcome)| tampered(n, &outcome.as_ref().map(|_| ()).map_err(copy))));
    let places: Vec<_> = spoiled.iter().map(|(place, r)| (Place { key_id: 3, ..place.clone() }, r.clone())).collect();
    let outcomes = quorum.rekey_many(&places).await;
    assert!(outcomes.iter().enumerate().all(|(n, outcome)| tampered(n, &outcome.as_ref().map(|_| ()).map_err(copy))));
    assert!(quorum.status().await.iter().all(|holder| holder.state == "up"), "nobody is blamed for it");
}

/// The part of an error that is looked at.
fn copy(error: &QuorumError) -> QuorumError {
    match error {
        QuorumError::Record(error) => QuorumError::Record(*error),
        other => QuorumError::Holders(other.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_makes_keys_only_of_the_suites_its_administrator_allows() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut setup = prepare(folder.path(), 3, 2).expect("prepares");
    let text = fs::read_to_string(&setup.holder_configs[1]).expect("reads");
    fs::write(&setup.holder_configs[1], format!("suites = [\"ristretto255\"]\n{text}")).expect("writes");
    let _processes: Vec<Process> = setup.holder_configs.iter().map(|config| Process::start(config)).collect();
    setup.quorum.suite = Suite::P256;
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    let refused = quorum.create_key(REALM, 1).await.expect_err("holder 2 makes none").to_string();
    assert!(refused.contains("suite p256") && refused.contains("holders: 2;"), "{refused}");
    for n in 0..3 {
        let made = fs::read_dir(state_of(&setup, n)).expect("lists").flatten();
        assert!(
            made.map(|file| file.file_name()).all(|name| !name.to_string_lossy().starts_with("07")),
            "nothing is made"
        );
    }
    let found = quorum.examine_all().await;
    let finding = found.iter().find(|finding| finding.code == "suite").expect("it is found");
    assert!(finding.message.contains("holder 2") && finding.message.contains("p256"), "{finding:?}");
    assert!(quorum.require_suite(Suite::Ristretto255).await.is_ok());
    quorum.create_key_of(Suite::Ristretto255, REALM, 1).await.expect("makes one of the other suite");
}
