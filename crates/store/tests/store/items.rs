//! Items: what is found by name, by target and by due time.

use crate::*;

#[tokio::test]
async fn items_round_trip_with_their_rotator_and_stay_in_their_account() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let target = with_target(&mut tx, &one, "/t").await;
        let mut item = item(&one, "/a", Some(rotator(target)));
        item.id = items::add(&mut tx, &item).await.expect("adds");
        let found = items::find(&mut tx, &one, &item.name).await.expect("finds").expect("is there");
        assert_eq!(format!("{found:?}"), format!("{item:?}"));
        let locked = items::lock(&mut tx, &one, item.id).await.expect("locks");
        assert_eq!(format!("{locked:?}"), format!("{item:?}"));
        assert!(matches!(items::lock(&mut tx, &two, item.id).await, Err(StoreError::NotFound("the item"))));
        assert!(items::find(&mut tx, &two, &item.name).await.expect("finds").is_none());
        assert_eq!(items::of_target(&mut tx, &one, target, 9).await.expect("lists").len(), 1);
        item.name = path("/b");
        item.rotator = None;
        items::update(&mut tx, &item).await.expect("updates");
        assert!(items::of_target(&mut tx, &one, target, 9).await.expect("lists").is_empty(), "it left the target");
        let page = items::list(&mut tx, &one, "/a", 10).await.expect("lists");
        assert_eq!(format!("{page:?}"), format!("{:?}", [item.clone()]));
        let its_slot = slot(&one, item.id.0);
        versions::add(&mut tx, &its_slot, &version(1, VersionState::Current)).await.expect("adds");
        let facts = SlotFacts { failed_logins: vec![Micros(1)], ..SlotFacts::default() };
        slots::save(&mut tx, &its_slot, &facts).await.expect("saves");
        assert!(matches!(items::remove(&mut tx, &two, item.id).await, Err(StoreError::NotFound(_))));
        items::remove(&mut tx, &one, item.id).await.expect("removes");
        assert!(matches!(items::load(&mut tx, &one, item.id).await, Err(StoreError::NotFound(_))));
        assert!(versions::list(&mut tx, &its_slot).await.expect("lists").is_empty());
        assert_eq!(slots::find(&mut tx, &its_slot).await.expect("finds"), SlotFacts::default());
    })
    .await;
}

#[tokio::test]
async fn an_item_of_a_target_that_does_not_exist_is_refused() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let added = items::add(&mut tx, &item(&one, "/a", Some(rotator(TargetId(4))))).await;
        assert!(matches!(added, Err(StoreError::NotFound(_))));
    })
    .await;
}

async fn under(tx: &mut Tx, account: &AccountId, prefix: &str, after: &str, limit: u32) -> Vec<String> {
    let found = items::list_under(tx, account, prefix, after, limit).await.expect("lists");
    found.into_iter().map(|item| item.name.as_str().to_owned()).collect()
}

#[tokio::test]
async fn a_prefix_finds_what_begins_with_it_byte_by_byte_and_nothing_else() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let names = [
            "/P/x",
            "/p",
            "/p%/x",
            "/p-q",
            "/p/a",
            "/p/a b",
            "/p/a/b",
            "/p/b",
            "/p/\u{d7ff}",
            "/p/\u{10ffff}x",
            "/p0",
            "/p_/x",
            "/q",
        ];
        for name in names {
            items::add(&mut tx, &item(&one, name, None)).await.expect("adds");
        }
        items::add(&mut tx, &item(&two, "/p/other", None)).await.expect("adds");
        let all = under(&mut tx, &one, "/p/", "", 99).await;
        assert_eq!(all, ["/p/a", "/p/a b", "/p/a/b", "/p/b", "/p/\u{d7ff}", "/p/\u{10ffff}x"]);
        assert_eq!(
            under(&mut tx, &one, "/p/\u{d7ff}", "", 99).await,
            ["/p/\u{d7ff}"],
            "the next letter is no neighbour"
        );
        assert_eq!(under(&mut tx, &one, "/p/\u{10ffff}", "", 99).await, ["/p/\u{10ffff}x"], "nor is there one");
        assert_eq!(under(&mut tx, &one, "/p/", "/p/a", 2).await, ["/p/a b", "/p/a/b"], "the page after one");
        assert_eq!(under(&mut tx, &one, "/p/", "/a", 1).await, ["/p/a"], "a page that begins before the prefix");
        assert!(under(&mut tx, &one, "/p/", "/q", 9).await.is_empty());
        assert_eq!(under(&mut tx, &one, "/p%", "", 9).await, ["/p%/x"], "no letter is a wildcard");
        assert_eq!(under(&mut tx, &one, "/p", "/p/\u{10ffff}x", 9).await, ["/p0", "/p_/x"]);
        assert_eq!(under(&mut tx, &one, "", "", 99).await, names, "bytes give the order on both engines");
    })
    .await;
}

/// Items due at 10, 20, … with these numbers.
async fn due(tx: &mut Tx, now: i64, limit: u32) -> Vec<i64> {
    items::due(tx, Micros(now), limit, &[]).await.expect("asks").iter().map(|item| item.id.0).collect()
}

#[tokio::test]
async fn due_is_what_is_late_enabled_and_not_in_the_queue() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let target = with_target(&mut tx, &one, "/t").await;
        for n in 1..=6 {
            let rotator = Rotator { next_rotation_at: (n != 6).then_some(Micros(70 - n * 10)), ..rotator(target) };
            let mut item = item(&one, &format!("/{n}"), Some(rotator));
            item.enabled = n != 5;
            items::add(&mut tx, &item).await.expect("adds");
        }
        items::add(&mut tx, &item(&one, "/static", None)).await.expect("adds");
        let foreign = with_target(&mut tx, &two, "/t").await;
        let late = Rotator { next_rotation_at: Some(Micros(55)), ..rotator(foreign) };
        items::add(&mut tx, &item(&two, "/late", Some(late))).await.expect("adds");
        assert_eq!(due(&mut tx, 29, 9).await, [0_i64; 0]);
        assert_eq!(due(&mut tx, 50, 9).await, [4, 3, 2], "longest due first, of what is due");
        assert_eq!(due(&mut tx, 99, 9).await, [4, 3, 2, 1, 1], "of all accounts");
        assert_eq!(due(&mut tx, 99, 2).await, [4, 3]);
        let host = Slot { host: "h:22".into(), ..slot(&one, 4) };
        let state = State::new(Some(1), vec![]);
        rotations::enqueue(&mut tx, &host, target, &state, ("schedule", ""), Micros(60)).await.expect("enqueues");
        assert_eq!(due(&mut tx, 99, 2).await, [3, 2], "one host in the queue is enough");
    })
    .await;
}

#[tokio::test]
async fn rotators_are_counted_by_how_they_are_doing() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        assert_eq!(items::counts(&mut tx, Micros(0)).await.expect("counts"), RotatorCounts::default());
        let target = with_target(&mut tx, &one, "/t").await;
        let all = [
            RotatorStatus::NotRotated,
            RotatorStatus::RotationInProgress,
            RotatorStatus::RotationSucceeded,
            RotatorStatus::RotationPartialSucceeded,
            RotatorStatus::RotationFailed,
            RotatorStatus::RotationInDoubt,
            RotatorStatus::OutOfSync,
        ];
        for (n, status) in all.into_iter().enumerate() {
            let mut item = item(&one, &format!("/{n}"), Some(Rotator { status, ..rotator(target) }));
            item.enabled = n > 0;
            item.id = items::add(&mut tx, &item).await.expect("adds");
            let found = items::load(&mut tx, &one, item.id).await.expect("loads");
            assert_eq!(found.rotator.expect("it rotates").status, status);
        }
        items::add(&mut tx, &item(&one, "/static", None)).await.expect("adds");
        let counts = items::counts(&mut tx, Micros(77)).await.expect("counts");
        assert_eq!(counts, RotatorCounts { secrets: 7, overdue: 0, out_of_sync: 1, in_doubt: 1, failed: 2 });
        let mut healed = items::load(&mut tx, &one, ItemId(7)).await.expect("loads");
        healed.rotator.as_mut().expect("it rotates").status = RotatorStatus::RotationSucceeded;
        items::update(&mut tx, &healed).await.expect("updates");
        let counts = items::counts(&mut tx, Micros(78)).await.expect("counts");
        assert_eq!(counts, RotatorCounts { secrets: 7, overdue: 6, out_of_sync: 0, in_doubt: 1, failed: 2 });
    })
    .await;
}

#[tokio::test]
async fn an_item_that_is_being_rotated_stays() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let target = with_target(&mut tx, &one, "/t").await;
        let id = items::add(&mut tx, &item(&one, "/a", Some(rotator(target)))).await.expect("adds");
        tx.commit().await.expect("commits");
        enqueue(&store, &slot(&one, id.0), target.0).await;
        let mut tx = store.begin().await.expect("begins");
        assert!(matches!(items::remove(&mut tx, &one, id).await, Err(StoreError::Forbidden(_))));
    })
    .await;
}

#[tokio::test]
async fn every_change_of_content_is_told_apart_from_a_change_of_rules() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut before = stamp(&store, &one).await;
        for change in 0..12 {
            let mut tx = store.begin().await.expect("begins");
            let its_slot = slot(&one, 1);
            match change {
                0 => drop(with_target(&mut tx, &one, "/t").await),
                1 => drop(items::add(&mut tx, &item(&one, "/a", None)).await.expect("adds")),
                2 => {
                    let renamed = Item { id: ItemId(1), ..item(&one, "/b", None) };
                    items::update(&mut tx, &renamed).await.expect("renames");
                }
                3 => versions::add(&mut tx, &its_slot, &version(1, VersionState::Retired)).await.expect("adds"),
                4 => versions::mark_verified(&mut tx, &its_slot, 1, Micros(3)).await.expect("marks"),
                5 => versions::replace_sealed(&mut tx, &its_slot, 1, &[1]).await.expect("replaces"),
                6 => versions::remove_version(&mut tx, &its_slot, 1).await.expect("removes"),
                7 => items::remove(&mut tx, &one, ItemId(1)).await.expect("removes"),
                8 => {
                    let renamed = Target { id: TargetId(1), ..target(&one, "/u") };
                    targets::update(&mut tx, &renamed).await.expect("renames");
                }
                9 => targets::add_version(&mut tx, &one, TargetId(1), &parameters(2)).await.expect("adds"),
                10 => targets::replace_sealed(&mut tx, &one, TargetId(1), 2, &[1]).await.expect("replaces"),
                _ => targets::remove(&mut tx, &one, TargetId(1)).await.expect("removes"),
            }
            tx.commit().await.expect("commits");
            let after = stamp(&store, &one).await;
            assert_eq!((after.0, after.1 > before.1), (before.0, true), "change {change}");
            before = after;
        }
        let mut tx = store.begin().await.expect("begins");
        slots::save(&mut tx, &slot(&one, 1), &SlotFacts::default()).await.expect("saves");
        tx.commit().await.expect("commits");
        assert_eq!(stamp(&store, &one).await, before, "no reader sees the facts of a slot");
    })
    .await;
}

#[tokio::test]
async fn a_locked_item_is_changed_by_one_writer_at_a_time() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let target = with_target(&mut tx, &one, "/t").await;
        let id = items::add(&mut tx, &item(&one, "/a", Some(rotator(target)))).await.expect("adds");
        tx.commit().await.expect("commits");
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, one) = (store.clone(), one.clone());
            writers.spawn(async move {
                for _ in 0..10 {
                    let mut tx = store.begin().await.expect("begins");
                    let mut item = items::lock(&mut tx, &one, id).await.expect("locks");
                    item.rotator.as_mut().expect("it rotates").failures += 1;
                    items::update(&mut tx, &item).await.expect("updates");
                    let mut target = targets::lock(&mut tx, &one, target).await.expect("locks");
                    target.halted.push('x');
                    targets::update(&mut tx, &target).await.expect("updates");
                    tx.commit().await.expect("commits");
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.expect("no panic");
        }
        let mut tx = store.read().await.expect("reads");
        let failures = items::load(&mut tx, &one, id).await.expect("loads").rotator.expect("it rotates").failures;
        let before = super::target(&one, "/t").halted.len();
        let marks = targets::load(&mut tx, &one, target).await.expect("loads").halted.len() - before;
        assert_eq!((failures, marks), (82, 80));
    })
    .await;
}
