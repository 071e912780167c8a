//! Deleted versions: no holder opens them again, whoever has a backup and a gateway's identity.

use std::fs;
use std::time::{Duration, Instant};

use volvelle_fragments::{Place, Sealed};
use volvelle_holder::quorum::Grave;
use volvelle_holder::{Quorum, QuorumError, Refusal};

use crate::{Process, place, start, state_of, until_up};

fn grave(place: &Place, record: &[u8]) -> Grave {
    let bound = Sealed::parse(record).expect("a record").bind(place).expect("its place");
    Grave { x: bound.x().to_vec(), holders: 0 }
}

fn is_deleted(error: &QuorumError) -> bool {
    matches!(error, QuorumError::Refused { why: Refusal::Deleted, .. })
}

async fn counts(quorum: &Quorum) -> Vec<Option<u64>> {
    quorum.status().await.iter().map(|status| status.tombstones).collect()
}

async fn until_counts(quorum: &Quorum, wanted: &[Option<u64>]) {
    let until = Instant::now() + Duration::from_secs(30);
    while counts(quorum).await != wanted {
        assert!(Instant::now() < until, "{:?} becomes {wanted:?}", counts(quorum).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_version_is_refused_for_ever_and_no_other_one_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut setup, mut processes, _) = start(folder.path()).await;
    setup.quorum.kek_cache_seconds = 60;
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    let (old, new) = (place("/a"), Place { version: 2, ..place("/a") });
    let record = quorum.seal(&old, b"deleted").await.expect("seals");
    let same_name = quorum.seal(&old, b"a later item of the same name and version").await.expect("seals");
    let next = quorum.seal(&new, b"next").await.expect("seals");
    assert_eq!(quorum.open(&old, &record).await.expect("opens, and its key is kept").as_slice(), b"deleted");
    let mut graves = [grave(&old, &record)];
    assert_eq!(quorum.bury(&mut graves, quorum.all_holders()).await, []);
    assert_eq!(graves[0].holders, quorum.all_holders());
    assert!(is_deleted(&quorum.open(&old, &record).await.expect_err("the key was forgotten")));
    let moved = quorum.rewrap(&old, &place("/elsewhere"), &record).await.expect_err("moving is opening");
    assert!(is_deleted(&moved), "{moved}");
    assert!(moved.to_string().contains("holder 1: this version was deleted"), "{moved}");
    for (place, record) in [(&old, &same_name), (&new, &next)] {
        quorum.open(place, record).await.expect("opens");
    }
    // Told once more nothing changes, and a restart forgets nothing.
    graves[0].holders = 0;
    assert_eq!(quorum.bury(&mut graves, quorum.all_holders()).await, []);
    processes.clear();
    let _processes: Vec<Process> = setup.holder_configs.iter().map(|config| Process::start(config)).collect();
    let quorum = Quorum::new(&setup.quorum).expect("a quorum");
    until_up(&quorum).await;
    assert!(is_deleted(&quorum.open(&old, &record).await.expect_err("still")));
    assert_eq!(counts(&quorum).await, [Some(1); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_away_is_told_later_and_one_that_lost_everything_asks_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, mut processes, quorum) = start(folder.path()).await;
    let record = quorum.seal(&place("/a"), b"v").await.expect("seals");
    processes[2] = None;
    let mut graves = [grave(&place("/a"), &record)];
    let complaints = quorum.bury(&mut graves, quorum.all_holders()).await;
    assert_eq!(complaints.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3]);
    assert!(graves[0].is_at(1) && graves[0].is_at(2) && !graves[0].is_at(3));
    // It comes back and learns it from the two others; the gateway would tell it as well.
    processes[2] = Some(Process::start(&setup.holder_configs[2]));
    until_counts(&quorum, &[Some(1); 3]).await;
    assert_eq!(quorum.bury(&mut graves, quorum.all_holders()).await, []);
    assert_eq!(graves[0].holders, quorum.all_holders());
    // One holder whose administrator is bought cannot delete for the others: two must tell the same.
    processes[1] = None;
    let forged: Vec<u8> = [[7_u8; 32], [8; 32]].concat();
    let tail = state_of(&setup, 1).join("tombstones.newest");
    let kept = fs::read(&tail).expect("there");
    fs::write(&tail, [kept, forged].concat()).expect("writes");
    processes[1] = Some(Process::start(&setup.holder_configs[1]));
    processes[0] = None;
    for file in ["tombstones.newest", "tombstones.sorted"] {
        fs::remove_file(state_of(&setup, 0).join(file)).expect("there");
    }
    processes[0] = Some(Process::start(&setup.holder_configs[0]));
    until_counts(&quorum, &[Some(1), Some(3), Some(1)]).await;
    assert!(is_deleted(&quorum.open(&place("/a"), &record).await.expect_err("still")));
}
