//! The queue of rotations, its leases and the circuit breakers.

use crate::*;

#[tokio::test]
async fn a_slot_is_in_the_queue_once() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        let first = enqueue(&store, &slot, 1).await;
        assert_eq!(enqueue(&store, &slot, 1).await, first);
        let mut tx = store.read().await.expect("reads");
        assert_eq!(rotations::history(&mut tx, &slot.account, slot.item, 9).await.expect("asks").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn many_callers_at_once_put_a_slot_into_the_queue_once() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, slot) = (store.clone(), slot.clone());
            callers.spawn(async move { enqueue(&store, &slot, 1).await });
        }
        let mut ids = Vec::new();
        while let Some(id) = callers.join_next().await {
            ids.push(id.expect("no panic"));
        }
        assert!(ids.windows(2).all(|w| w[0] == w[1]), "{ids:?}");
    })
    .await;
}

#[tokio::test]
async fn a_lost_lease_changes_nothing() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        enqueue(&store, &slot, 1).await;
        let late = claim(&store, 20, (10, 1)).await.remove(0);
        assert!(claim(&store, 40, (10, 1)).await.is_empty(), "the lease lives");
        let newer = claim(&store, 51, (10, 1)).await.remove(0);
        assert_eq!(newer.fence, late.fence + 1);
        let failed = step(&late.state, &Event::Preflight(Err(FailureClass::Auth)), ActingAs::User, Limits::default());
        let mut tx = store.begin().await.expect("begins");
        let saved = rotations::save(&mut tx, &late, &failed, "late", Micros(60), Lease::Keep).await;
        assert!(matches!(saved, Err(StoreError::LostLease)));
        assert!(matches!(rotations::renew(&mut tx, &late, Micros(90)).await, Err(StoreError::LostLease)));
        assert!(matches!(rotations::release(&mut tx, &late, Micros(90)).await, Err(StoreError::LostLease)));
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        rotations::save(&mut tx, &newer, &failed, "refused", Micros(60), Lease::Keep).await.expect("saves");
        tx.commit().await.expect("commits");
        let mut tx = store.read().await.expect("reads");
        let ended = rotations::load(&mut tx, &slot.account, newer.id).await.expect("loads");
        assert_eq!(
            (ended.state.stage, ended.ended_at, ended.message.as_str()),
            (Stage::Failed, Some(Micros(60)), "refused")
        );
        drop(tx);
        assert_ne!(enqueue(&store, &slot, 1).await, newer.id, "an ended rotation makes room for the next");
    })
    .await;
}

#[tokio::test]
async fn a_released_rotation_waits_and_keeps_its_state() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        enqueue(&store, &slot, 1).await;
        let held = claim(&store, 20, (10, 1)).await.remove(0);
        let mut state = held.state.clone();
        for event in
            [Event::Preflight(Ok(())), Event::Staged(2), Event::Applied(Applied::NotReached(FailureClass::Timeout))]
        {
            state = step(&state, &event, ActingAs::Target, Limits::default());
        }
        let mut tx = store.begin().await.expect("begins");
        rotations::save(&mut tx, &held, &state, "not reached", Micros(21), Lease::Keep).await.expect("saves");
        rotations::release(&mut tx, &held, Micros(500)).await.expect("releases");
        tx.commit().await.expect("commits");
        assert!(claim(&store, 499, (10, 1)).await.is_empty());
        assert_eq!(claim(&store, 500, (10, 1)).await.remove(0).state, state);
    })
    .await;
}

#[tokio::test]
async fn a_target_is_not_overrun() {
    both(|store| async move {
        let account = with_account(&store, "one", 1).await;
        for item in 1..=6 {
            enqueue(&store, &slot(&account, item), item % 2).await;
        }
        assert_eq!(claim(&store, 20, (10, 2)).await.len(), 4, "two of each target");
        assert!(claim(&store, 20, (10, 2)).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn many_workers_never_hold_the_same_rotation() {
    both(|store| async move {
        let account = with_account(&store, "one", 1).await;
        for item in 1..=60 {
            enqueue(&store, &slot(&account, item), item).await;
        }
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let store = store.clone();
            workers.spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..30 {
                    mine.extend(claim(&store, 20, (3, 1)).await.into_iter().map(|r| r.id.0));
                }
                mine
            });
        }
        let mut all = Vec::new();
        while let Some(mine) = workers.join_next().await {
            all.extend(mine.expect("no panic"));
        }
        all.sort_unstable();
        assert_eq!(all, (1..=60).collect::<Vec<i64>>());
    })
    .await;
}
