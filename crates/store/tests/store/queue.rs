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
async fn old_rotations_of_a_slot_go_and_the_open_one_stays() {
    both(|store| async move {
        let account = with_account(&store, "one", 1).await;
        let (slot, other) = (slot(&account, 1), slot(&account, 2));
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(enqueue(&store, &slot, 1).await);
            enqueue(&store, &other, 2).await;
            for held in claim(&store, 20 + n * 100, (10, 10)).await {
                let state =
                    step(&held.state, &Event::Preflight(Err(FailureClass::Auth)), ActingAs::User, Limits::default());
                let mut tx = store.begin().await.expect("begins");
                rotations::save(&mut tx, &held, &state, "refused", Micros(60), Lease::Keep).await.expect("saves");
                tx.commit().await.expect("commits");
            }
        }
        ids.push(enqueue(&store, &slot, 1).await);
        let mut tx = store.begin().await.expect("begins");
        assert_eq!(rotations::prune(&mut tx, &slot, 9).await.expect("prunes"), 0);
        assert_eq!(rotations::prune(&mut tx, &slot, 3).await.expect("prunes"), 3);
        let kept = rotations::history(&mut tx, &account, slot.item, 9).await.expect("asks");
        assert_eq!(kept.iter().map(|r| r.id).collect::<Vec<_>>(), [ids[5], ids[4], ids[3]]);
        assert_eq!(rotations::prune(&mut tx, &slot, 0).await.expect("prunes"), 2, "what is open stays");
        assert_eq!(rotations::history(&mut tx, &account, other.item, 9).await.expect("asks").len(), 5);
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

fn on_host(account: &AccountId, item: i64, host: &str) -> Slot {
    Slot { host: host.into(), ..slot(account, item) }
}

#[tokio::test]
async fn hosts_of_a_linked_target_do_not_wait_for_each_other() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        for item in 1..=3 {
            for host in ["a", "b"] {
                enqueue(&store, &on_host(&one, item, host), 7).await;
            }
        }
        enqueue(&store, &on_host(&two, 1, "a"), 7).await;
        let first = claim(&store, 20, (10, 1)).await;
        let mut held: Vec<_> = first.iter().map(|r| (r.slot.account.0.as_str(), r.slot.host.as_str())).collect();
        held.sort_unstable();
        assert_eq!(held, [("acc-one", "a"), ("acc-one", "b"), ("acc-two", "a")]);
        assert!(claim(&store, 21, (10, 1)).await.is_empty());
        assert_eq!(claim(&store, 22, (10, 2)).await.len(), 2, "a second one on each host of the first account");
    })
    .await;
}

#[tokio::test]
async fn a_crowd_on_one_host_hides_nobody() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        for crowd in 0..3 {
            for item in 1..=30 {
                enqueue(&store, &slot(&one, crowd * 100 + item), crowd).await;
            }
        }
        enqueue(&store, &slot(&one, 999), 9).await;
        let held = claim(&store, 20, (5, 1)).await;
        assert_eq!(held.iter().map(|r| r.target.0).collect::<Vec<_>>(), [0, 1, 2, 9], "each target once, oldest first");
        assert!(held.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(held.iter().all(|r| r.fence == 1 && r.lease_until == Micros(50)));
        assert!(claim(&store, 20, (0, 1)).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn many_workers_never_overrun_a_host() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        for item in 1..=40 {
            enqueue(&store, &slot(&one, item), item % 2).await;
        }
        for round in 0..5 {
            let mut workers = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let store = store.clone();
                workers.spawn(async move { claim(&store, 100 * (round + 1), (4, 2)).await.len() });
            }
            let mut held = 0;
            while let Some(mine) = workers.join_next().await {
                held += mine.expect("no panic");
            }
            assert_eq!(held, 4, "two on each of two targets");
        }
    })
    .await;
}

#[tokio::test]
async fn a_save_can_prolong_the_lease_or_give_it_back() {
    both(|store| async move {
        let slot = slot(&with_account(&store, "one", 1).await, 1);
        enqueue(&store, &slot, 1).await;
        let held = claim(&store, 20, (1, 1)).await.remove(0);
        let state = step(&held.state, &Event::Claimed, ActingAs::Target, Limits::default());
        let mut tx = store.begin().await.expect("begins");
        rotations::save(&mut tx, &held, &state, "", Micros(21), Lease::Keep).await.expect("saves");
        let kept = rotations::load(&mut tx, &slot.account, held.id).await.expect("loads");
        assert_eq!((kept.lease_until, kept.not_before), (Micros(50), Micros(10)));
        rotations::save(&mut tx, &held, &state, "", Micros(21), Lease::Until(Micros(99))).await.expect("saves");
        tx.commit().await.expect("commits");
        assert!(claim(&store, 98, (1, 1)).await.is_empty());
        let mut tx = store.begin().await.expect("begins");
        let release = Lease::Release { not_before: Micros(200) };
        rotations::save(&mut tx, &held, &state, "waits", Micros(98), release).await.expect("saves");
        tx.commit().await.expect("commits");
        assert!(claim(&store, 199, (1, 1)).await.is_empty());
        let next = claim(&store, 200, (1, 1)).await.remove(0);
        assert_eq!((next.fence, next.message.as_str()), (2, "waits"));
        let failed = step(&next.state, &Event::Preflight(Err(FailureClass::Auth)), ActingAs::User, Limits::default());
        let mut tx = store.begin().await.expect("begins");
        let until = Lease::Until(Micros(900));
        rotations::save(&mut tx, &next, &failed, "", Micros(201), until).await.expect("saves");
        let ended = rotations::load(&mut tx, &slot.account, next.id).await.expect("loads");
        assert_eq!(ended.lease_until, Micros(0), "what has ended holds no lease");
        assert_eq!(rotations::open_count(&mut tx).await.expect("counts"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_dead_workers_leases_end_and_its_late_writes_are_refused() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        for item in 1..=3 {
            enqueue(&store, &slot(&one, item), item).await;
        }
        let dead = claim(&store, 20, (2, 1)).await;
        let mut tx = store.begin().await.expect("begins");
        let alive = rotations::claim(&mut tx, "other", Micros(20), Micros(50), (9, 1), &[]).await.expect("claims");
        assert_eq!(alive.len(), 1);
        assert_eq!(rotations::release_dead(&mut tx, "w", Micros(21), Micros(30)).await.expect("releases"), 2);
        assert_eq!(rotations::release_dead(&mut tx, "w", Micros(21), Micros(30)).await.expect("releases"), 0);
        let late = rotations::renew(&mut tx, &dead[0], Micros(90)).await;
        assert!(matches!(late, Err(StoreError::LostLease)));
        rotations::renew(&mut tx, &alive[0], Micros(90)).await.expect("the other's lease is its own");
        tx.commit().await.expect("commits");
        assert!(claim(&store, 29, (9, 1)).await.is_empty());
        assert_eq!(claim(&store, 30, (9, 1)).await.len(), 2);
    })
    .await;
}

async fn wake(store: &Store, now: i64) -> Option<i64> {
    let mut tx = store.read().await.expect("reads");
    rotations::next_wake(&mut tx, Micros(now)).await.expect("asks").map(|at| at.0)
}

#[tokio::test]
async fn the_next_moment_is_when_a_time_comes_or_a_lease_ends() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        assert_eq!(wake(&store, 0).await, None);
        for item in 1..=2 {
            enqueue(&store, &slot(&one, item), 1).await;
        }
        assert_eq!(wake(&store, 5).await, Some(10), "when they come due");
        let held = claim(&store, 20, (9, 1)).await.remove(0);
        assert_eq!(wake(&store, 20).await, Some(50), "when the lease ends that keeps the other back");
        let mut tx = store.begin().await.expect("begins");
        rotations::release(&mut tx, &held, Micros(70)).await.expect("releases");
        tx.commit().await.expect("commits");
        assert_eq!(claim(&store, 21, (9, 1)).await.len(), 1);
        assert_eq!(wake(&store, 21).await, Some(51));
        assert_eq!(wake(&store, 60).await, Some(70));
        let mut tx = store.begin().await.expect("begins");
        let pulled = rotations::pull_forward(&mut tx, &one, held.slot.item, Micros(22)).await.expect("pulls");
        assert_eq!(pulled, 1);
        let other = rotations::pull_forward(&mut tx, &one, ItemId(2), Micros(22)).await.expect("pulls");
        assert_eq!(other, 0, "a worker holds it");
        assert_eq!(rotations::load(&mut tx, &one, held.id).await.expect("loads").not_before, Micros(22));
    })
    .await;
}

#[tokio::test]
async fn the_history_is_read_in_pages_and_per_host() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut ids: Vec<RotationId> = Vec::new();
        for round in 0..3 {
            for host in ["a", "b"] {
                ids.push(enqueue(&store, &on_host(&one, 1, host), 1).await);
            }
            enqueue(&store, &slot(&one, 2 + round), 1).await;
            if round == 2 {
                break;
            }
            for held in claim(&store, 100 * (round + 1), (9, 9)).await {
                let failure = Event::Preflight(Err(FailureClass::Auth));
                let failed = step(&held.state, &failure, ActingAs::User, Limits::default());
                let mut tx = store.begin().await.expect("begins");
                rotations::save(&mut tx, &held, &failed, "", Micros(21), Lease::Keep).await.expect("saves");
                tx.commit().await.expect("commits");
            }
        }
        let mut tx = store.read().await.expect("reads");
        let page = rotations::history(&mut tx, &one, ItemId(1), 4).await.expect("lists");
        assert_eq!(page.iter().map(|r| r.id).collect::<Vec<_>>(), [ids[5], ids[4], ids[3], ids[2]]);
        let rest = rotations::history_before(&mut tx, &one, ItemId(1), ids[2], 4).await.expect("lists");
        assert_eq!(rest.iter().map(|r| r.id).collect::<Vec<_>>(), [ids[1], ids[0]]);
        let latest = rotations::latest_per_host(&mut tx, &one, ItemId(1)).await.expect("lists");
        assert_eq!(
            latest.iter().map(|r| (r.slot.host.as_str(), r.id)).collect::<Vec<_>>(),
            [("a", ids[4]), ("b", ids[5])]
        );
        let open = rotations::open_of(&mut tx, &one, ItemId(1)).await.expect("lists");
        assert_eq!(open.iter().map(|r| r.id).collect::<Vec<_>>(), [ids[4], ids[5]]);
        assert_eq!(rotations::open_count(&mut tx).await.expect("counts"), 3);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_of_an_account_that_does_not_exist_is_refused() {
    both(|store| async move {
        let mut tx = store.begin().await.expect("begins");
        let slot = slot(&AccountId("acc-none".into()), 1);
        let state = State::new(None, vec![]);
        let put = rotations::enqueue(&mut tx, &slot, TargetId(1), &state, ("manual", "p"), Micros(1)).await;
        assert!(matches!(put, Err(StoreError::NotFound("the account"))));
    })
    .await;
}

const SECOND: i64 = 1_000_000;

#[tokio::test]
async fn a_breaker_opens_after_failures_in_a_row_and_longer_every_time() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let target = TargetId(1);
        let mut tx = store.begin().await.expect("begins");
        let mut now = Micros(0);
        for _ in 0..2 {
            assert_eq!(breakers::failed(&mut tx, (&one, target), "auth", now, 3).await.expect("counts"), None);
        }
        assert_eq!(breakers::failed(&mut tx, (&one, target), "timeout", now, 3).await.expect("counts"), None);
        for seconds in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let until = now.plus_seconds(seconds);
            for _ in 0..3 {
                let open = breakers::failed(&mut tx, (&one, target), "auth", now, 3).await.expect("counts");
                assert_eq!(open, Some(until), "what fails while it is open does not count");
            }
            let asked = breakers::open_until(&mut tx, &one, target, Micros(until.0 - 1)).await.expect("asks");
            assert_eq!(asked, Some(until));
            assert_eq!(breakers::open_until(&mut tx, &one, target, until).await.expect("asks"), None);
            now = until;
        }
        assert_eq!(breakers::open_until(&mut tx, &one, TargetId(2), Micros(0)).await.expect("asks"), None);
        let open = breakers::list(&mut tx, Micros(now.0 - SECOND)).await.expect("lists");
        assert_eq!((open.len(), open[0].class.as_str(), open[0].failures), (1, "auth", 10));
        breakers::succeeded(&mut tx, &one, target).await.expect("clears");
        assert!(breakers::list(&mut tx, Micros(0)).await.expect("lists").is_empty());
        assert_eq!(breakers::failed(&mut tx, (&one, target), "auth", now, 3).await.expect("counts"), None);
        assert!(breakers::failed(&mut tx, (&one, target), "policy", now, 1).await.expect("counts").is_some());
    })
    .await;
}

#[tokio::test]
async fn a_target_waits_while_the_account_of_its_parent_is_refused() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let parent = with_target(&mut tx, &one, "/p").await;
        let child = Target { parent: Some(parent), ..target(&one, "/c") };
        let child = targets::add(&mut tx, &child, &parameters(1)).await.expect("adds");
        let linked = Target { kind: "linked".into(), linked: Some(Linked::default()), ..target(&one, "/l") };
        let linked = Target { parent: Some(parent), ..linked };
        let linked = targets::add(&mut tx, &linked, &parameters(1)).await.expect("adds");
        breakers::failed(&mut tx, (&one, parent), "unreachable", Micros(0), 1).await.expect("counts");
        assert_eq!(breakers::open_until(&mut tx, &one, child, Micros(1)).await.expect("asks"), None);
        let until = breakers::failed(&mut tx, (&one, parent), "auth", Micros(0), 1).await.expect("counts");
        assert!(until.is_some());
        assert_eq!(breakers::open_until(&mut tx, &one, child, Micros(1)).await.expect("asks"), until);
        assert_eq!(breakers::open_until(&mut tx, &one, linked, Micros(1)).await.expect("asks"), None);
    })
    .await;
}

/// One of the ways an account is written to.
async fn write(store: &Store, slot: &Slot, way: u32) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let (account, state) = (&slot.account, State::new(Some(1), vec![]));
    match way % 4 {
        0 => {
            let item = items::lock(&mut tx, account, slot.item).await?;
            rotations::enqueue(&mut tx, slot, TargetId(1), &state, ("manual", "p"), Micros(1)).await?;
            rotations::pull_forward(&mut tx, account, slot.item, Micros(2)).await?;
            items::update(&mut tx, &item).await?;
        }
        1 => drop(rotations::claim(&mut tx, "w", Micros(20), Micros(20), (9, 9), &[]).await?),
        2 => {
            versions::newest(&mut tx, slot).await?;
            items::add(&mut tx, &item(account, &format!("/new/{way}"), None)).await?;
            slots::save(&mut tx, slot, &SlotFacts::default()).await?;
            let open = rotations::open_of(&mut tx, account, slot.item).await?;
            if let Some(rotation) = open.first() {
                let saved = rotations::save(&mut tx, rotation, &state, "", Micros(3), Lease::Keep).await;
                assert!(matches!(saved, Ok(()) | Err(StoreError::LostLease)));
            }
        }
        _ => {
            let item = items::load(&mut tx, account, slot.item).await?;
            items::update(&mut tx, &item).await?;
            breakers::failed(&mut tx, (account, TargetId(1)), "auth", Micros(1), 9).await?;
        }
    }
    audit::append(&mut tx, account, &[]).await?;
    tx.commit().await
}

#[tokio::test]
async fn writers_of_one_account_never_block_each_other_for_good() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let id = items::add(&mut tx, &item(&one, "/a", None)).await.expect("adds");
        tx.commit().await.expect("commits");
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8_u32 {
            let (store, slot) = (store.clone(), slot(&one, id.0));
            writers.spawn(async move {
                for n in 0..20 {
                    write(&store, &slot, writer + n * 9).await.expect("writes");
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.expect("no panic");
        }
    })
    .await;
}
