//! Targets, their versions, and who uses them.

use crate::*;

#[tokio::test]
async fn targets_round_trip_and_stay_in_their_account() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let mut plain = target(&one, "/t");
        plain.id = targets::add(&mut tx, &plain, &parameters(1)).await.expect("adds");
        let hosts = vec![("b".to_owned(), "second".to_owned()), ("a:2222".to_owned(), String::new())];
        let linked = Linked { parent: Some(plain.id), hosts_kind: String::new(), hosts };
        let mut linked = Target { kind: "linked".into(), linked: Some(linked), ..target(&one, "/l") };
        linked.id = targets::add(&mut tx, &linked, &parameters(1)).await.expect("adds");
        for wanted in [&plain, &linked] {
            let found = targets::find(&mut tx, &one, &wanted.name).await.expect("finds").expect("is there");
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
            let locked = targets::lock(&mut tx, &one, wanted.id).await.expect("locks");
            assert_eq!(format!("{locked:?}"), format!("{wanted:?}"));
        }
        assert!(targets::find(&mut tx, &two, &plain.name).await.expect("finds").is_none());
        assert!(matches!(targets::load(&mut tx, &two, plain.id).await, Err(StoreError::NotFound("the target"))));
        plain.name = path("/z");
        plain.halted = String::new();
        plain.pinned = Vec::new();
        targets::update(&mut tx, &plain).await.expect("updates");
        let page = targets::list(&mut tx, &one, "/l", 9).await.expect("lists");
        assert_eq!(format!("{page:?}"), format!("{:?}", [plain]));
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        let taken = targets::add(&mut tx, &target(&one, "/z"), &parameters(1)).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))));
    })
    .await;
}

#[tokio::test]
async fn a_targets_newest_version_is_what_it_says_and_is_never_pruned() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let id = with_target(&mut tx, &one, "/t").await;
        for number in 2..=4 {
            targets::add_version(&mut tx, &one, id, &parameters(number)).await.expect("adds");
        }
        let newest = targets::load(&mut tx, &one, id).await.expect("loads");
        assert_eq!((newest.last_version, newest.params["host"].as_str()), (4, Some("h4")));
        let stale = targets::add_version(&mut tx, &one, id, &parameters(4)).await;
        assert!(matches!(stale, Err(StoreError::Conflict(_))));
        let nowhere = targets::add_version(&mut tx, &one, TargetId(99), &parameters(9)).await;
        assert!(matches!(nowhere, Err(StoreError::NotFound(_))));
        targets::replace_sealed(&mut tx, &one, id, 3, &[7, 7]).await.expect("replaces");
        assert!(matches!(targets::replace_sealed(&mut tx, &one, id, 9, &[7]).await, Err(StoreError::NotFound(_))));
        let third = targets::find_version(&mut tx, &one, id, 3).await.expect("finds").expect("is kept");
        assert_eq!((third.sealed.as_slice(), third.params["host"].as_str()), ([7, 7].as_slice(), Some("h3")));
        assert_eq!(targets::prune_versions(&mut tx, &one, id, 2).await.expect("prunes"), 2);
        assert_eq!(targets::prune_versions(&mut tx, &one, id, 0).await.expect("prunes"), 1);
        let kept = targets::list_versions(&mut tx, &one, id).await.expect("lists");
        assert_eq!(kept.iter().map(|v| v.version).collect::<Vec<_>>(), [4]);
    })
    .await;
}

#[tokio::test]
async fn a_target_that_is_used_stays() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let parent = with_target(&mut tx, &one, "/t").await;
        let linked = Linked { parent: Some(parent), ..Linked::default() };
        let linked = Target { linked: Some(linked), ..target(&one, "/l") };
        let linked = targets::add(&mut tx, &linked, &parameters(1)).await.expect("adds");
        let user = items::add(&mut tx, &item(&one, "/a", Some(rotator(linked)))).await.expect("adds");
        for used in [parent, linked] {
            assert!(matches!(targets::remove(&mut tx, &one, used).await, Err(StoreError::Forbidden(_))));
        }
        items::remove(&mut tx, &one, user).await.expect("removes");
        breakers::failed(&mut tx, (&one, linked), "auth", Micros(1), 1).await.expect("counts");
        targets::remove(&mut tx, &one, linked).await.expect("removes");
        assert!(breakers::list(&mut tx, Micros(2)).await.expect("lists").is_empty());
        targets::remove(&mut tx, &one, parent).await.expect("removes");
        assert!(matches!(targets::remove(&mut tx, &one, parent).await, Err(StoreError::NotFound(_))));
        assert!(with_target(&mut tx, &one, "/t").await > linked, "numbers are never used again");
    })
    .await;
}
