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
        let linked = Some(Linked { hosts_kind: String::new(), hosts });
        let mut linked = Target { kind: "linked".into(), parent: Some(plain.id), linked, ..target(&one, "/l") };
        linked.id = targets::add(&mut tx, &linked, &parameters(1)).await.expect("adds");
        let mut child = Target { parent: Some(plain.id), ..target(&one, "/c") };
        child.id = targets::add(&mut tx, &child, &parameters(1)).await.expect("adds");
        for wanted in [&plain, &linked, &child] {
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
        let linked = Target { parent: Some(parent), linked: Some(Linked::default()), ..target(&one, "/l") };
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

#[tokio::test]
async fn a_parent_has_no_parent_itself_whatever_is_tried() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let (parent, other) = (with_target(&mut tx, &one, "/p").await, with_target(&mut tx, &one, "/o").await);
        let foreign = with_target(&mut tx, &two, "/f").await;
        let mut ids = Vec::new();
        for name in ["/b", "/a"] {
            let child = Target { parent: Some(parent), ..target(&one, name) };
            ids.push(targets::add(&mut tx, &child, &parameters(1)).await.expect("adds"));
        }
        let children = targets::children(&mut tx, &one, parent, 9).await.expect("lists");
        assert_eq!(children.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["/a", "/b"]);
        assert_eq!(targets::children(&mut tx, &one, parent, 1).await.expect("lists").len(), 1);
        assert!(targets::children(&mut tx, &two, parent, 9).await.expect("lists").is_empty());
        let linked = Target { linked: Some(Linked::default()), ..target(&one, "/l") };
        let linked = targets::add(&mut tx, &linked, &parameters(1)).await.expect("adds");
        for above in [ids[0], linked] {
            let chained = Target { parent: Some(above), ..target(&one, "/x") };
            let refused = targets::add(&mut tx, &chained, &parameters(1)).await;
            assert!(matches!(refused, Err(StoreError::Forbidden(_))), "{refused:?}");
        }
        let load = async |tx: &mut Tx, id| targets::load(tx, &one, id).await.expect("loads");
        // The parent below another one, a ring of two, and a ring of one.
        for (id, above) in [(parent, other), (parent, ids[0]), (other, other)] {
            let changed = Target { parent: Some(above), ..load(&mut tx, id).await };
            assert!(matches!(targets::update(&mut tx, &changed).await, Err(StoreError::Forbidden(_))));
        }
        let nowhere = Target { parent: Some(TargetId(foreign.0 + 90)), ..load(&mut tx, other).await };
        assert!(matches!(targets::update(&mut tx, &nowhere).await, Err(StoreError::NotFound(_))));
        // The link is to the target and not to its name, and a child may change its parent or lose it.
        let moved = Target { name: path("/moved"), ..load(&mut tx, parent).await };
        targets::update(&mut tx, &moved).await.expect("moves");
        assert_eq!(load(&mut tx, ids[0]).await.parent, Some(parent));
        for above in [Some(other), None] {
            let changed = Target { parent: above, ..load(&mut tx, ids[0]).await };
            targets::update(&mut tx, &changed).await.expect("changes");
            assert_eq!(load(&mut tx, ids[0]).await.parent, above);
        }
        assert!(matches!(targets::remove(&mut tx, &one, parent).await, Err(StoreError::Forbidden(_))));
        targets::remove(&mut tx, &one, ids[1]).await.expect("removes");
        targets::remove(&mut tx, &one, parent).await.expect("removes");
    })
    .await;
}
