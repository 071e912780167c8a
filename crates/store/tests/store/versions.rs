//! Versions of slots and the facts kept beside them.

use crate::*;

#[tokio::test]
async fn a_slot_never_has_two_current_versions() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        let mut tx = store.begin().await.expect("begins");
        versions::add(&mut tx, &slot, &version(1, VersionState::Current)).await.expect("adds");
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        let second = versions::add(&mut tx, &slot, &version(2, VersionState::Current)).await;
        assert!(matches!(second, Err(StoreError::Conflict(_))));
    })
    .await;
}

fn settling(candidates: &[u32], winner: u32) -> Effect {
    let mut state = State::new(Some(1), candidates.to_vec());
    state.stage = Stage::InDoubt;
    let answers = state.open_set().map(|v| (v, if v == winner { Answer::Opens } else { Answer::Refused })).collect();
    state.applies = 9;
    next(&step(&state, &Event::Probed { answers, quiet: true }, ActingAs::Target, Limits::default()))
}

#[tokio::test]
async fn settling_moves_the_winner_up_and_keeps_the_former_value() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        let mut tx = store.begin().await.expect("begins");
        versions::add(&mut tx, &slot, &version(1, VersionState::Current)).await.expect("adds");
        versions::add(&mut tx, &slot, &version(2, VersionState::Candidate)).await.expect("adds");
        let Effect::Settle { winner, dropped } = settling(&[2], 2) else { panic!("settles") };
        versions::settle(&mut tx, &slot, winner, &dropped, Micros(77)).await.expect("settles");
        let all = versions::list(&mut tx, &slot).await.expect("lists");
        let states: Vec<_> = all.iter().map(|v| (v.version, v.state, v.verified_at)).collect();
        let expected = [(2, VersionState::Current, Some(Micros(77))), (1, VersionState::Retired, None)];
        assert_eq!(states, expected);
        assert_eq!(versions::open_set(&mut tx, &slot).await.expect("asks").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_candidate_is_rejected_only_by_the_witness_of_another() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        let mut tx = store.begin().await.expect("begins");
        versions::add(&mut tx, &slot, &version(1, VersionState::Current)).await.expect("adds");
        versions::add(&mut tx, &slot, &version(2, VersionState::Candidate)).await.expect("adds");
        let Effect::Settle { winner, dropped } = settling(&[2], 1) else { panic!("settles") };
        let Effect::Settle { dropped: foreign, .. } = settling(&[2], 2) else { panic!("settles") };
        let wrong = versions::settle(&mut tx, &slot, winner, &foreign, Micros(7)).await;
        assert!(matches!(wrong, Err(StoreError::Forbidden(_))));
        versions::settle(&mut tx, &slot, winner, &dropped, Micros(7)).await.expect("settles");
        let state = versions::find(&mut tx, &slot, 2).await.expect("asks").expect("is kept").state;
        assert_eq!(state, VersionState::Rejected);
    })
    .await;
}

#[tokio::test]
async fn pruning_never_takes_what_may_open_the_account() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        let mut tx = store.begin().await.expect("begins");
        versions::add(&mut tx, &slot, &version(1, VersionState::Current)).await.expect("adds");
        versions::add(&mut tx, &slot, &version(2, VersionState::Candidate)).await.expect("adds");
        for old in 3..8 {
            versions::add(&mut tx, &slot, &version(old, VersionState::Retired)).await.expect("adds");
        }
        assert_eq!(versions::prune(&mut tx, &slot, 2).await.expect("prunes"), 3);
        let kept: Vec<u32> = versions::list(&mut tx, &slot).await.expect("lists").iter().map(|v| v.version).collect();
        assert_eq!(kept, [7, 6, 2, 1]);
    })
    .await;
}

#[tokio::test]
async fn versions_of_every_host_are_found_together_and_apart() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let hosts: Vec<Slot> = ["a", "b"].iter().map(|host| Slot { host: (*host).into(), ..slot(&one, 1) }).collect();
        let mut tx = store.begin().await.expect("begins");
        for (slot, newest) in hosts.iter().zip([2, 3]) {
            versions::add(&mut tx, slot, &version(1, VersionState::Retired)).await.expect("adds");
            versions::add(&mut tx, slot, &version(newest, VersionState::Current)).await.expect("adds");
        }
        versions::add(&mut tx, &slot(&one, 2), &version(9, VersionState::Current)).await.expect("adds");
        let all = versions::list_item(&mut tx, &one, ItemId(1)).await.expect("lists");
        let all: Vec<_> = all.iter().map(|v| (v.version, v.host.as_str())).collect();
        assert_eq!(all, [(3, "b"), (2, "a"), (1, "a"), (1, "b")]);
        let current = versions::current_of(&mut tx, &one, ItemId(1)).await.expect("lists");
        assert_eq!(current.iter().map(|v| (v.version, v.host.as_str())).collect::<Vec<_>>(), [(2, "a"), (3, "b")]);
        assert_eq!(versions::newest(&mut tx, &hosts[0]).await.expect("asks"), 2);
        assert_eq!(versions::newest(&mut tx, &slot(&one, 1)).await.expect("asks"), 0, "a slot without versions");
    })
    .await;
}

#[tokio::test]
async fn one_version_is_rewrapped_witnessed_and_removed_without_the_others() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        let mut tx = store.begin().await.expect("begins");
        let states = [VersionState::Retired, VersionState::Rejected, VersionState::Current, VersionState::Candidate];
        for (number, state) in (1..).zip(states.into_iter().chain([VersionState::Grace])) {
            versions::add(&mut tx, &slot, &version(number, state)).await.expect("adds");
        }
        versions::replace_sealed(&mut tx, &slot, 3, &[8, 8]).await.expect("replaces");
        versions::mark_verified(&mut tx, &slot, 3, Micros(50)).await.expect("marks");
        let all = versions::list(&mut tx, &slot).await.expect("lists");
        let changed: Vec<_> = all.iter().filter(|v| v.sealed == [8, 8] && v.verified_at == Some(Micros(50))).collect();
        assert_eq!((changed.len(), changed[0].version, changed[0].state), (1, 3, VersionState::Current));
        assert!(matches!(versions::replace_sealed(&mut tx, &slot, 9, &[8]).await, Err(StoreError::NotFound(_))));
        assert!(matches!(versions::mark_verified(&mut tx, &slot, 9, Micros(5)).await, Err(StoreError::NotFound(_))));
        for needed in [3, 4, 5] {
            let removed = versions::remove_version(&mut tx, &slot, needed).await;
            assert!(matches!(removed, Err(StoreError::Forbidden(_))), "version {needed} may open the account");
        }
        for history in [1, 2] {
            versions::remove_version(&mut tx, &slot, history).await.expect("removes");
        }
        assert!(matches!(versions::remove_version(&mut tx, &slot, 1).await, Err(StoreError::NotFound(_))));
        assert_eq!(versions::list(&mut tx, &slot).await.expect("lists").len(), 3);
    })
    .await;
}

#[tokio::test]
async fn facts_of_a_slot_are_kept_per_host() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let host = Slot { host: "h:22".into(), ..slot(&one, 1) };
        let mut tx = store.begin().await.expect("begins");
        let facts = SlotFacts {
            memory: [("way".to_owned(), "chpasswd".to_owned())].into(),
            failed_logins: vec![Micros(3), Micros(9)],
        };
        slots::save(&mut tx, &host, &SlotFacts::default()).await.expect("saves");
        slots::save(&mut tx, &host, &facts).await.expect("saves again");
        assert_eq!(slots::find(&mut tx, &host).await.expect("finds"), facts);
        assert_eq!(slots::find(&mut tx, &slot(&one, 1)).await.expect("finds"), SlotFacts::default());
    })
    .await;
}
