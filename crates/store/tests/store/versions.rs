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
