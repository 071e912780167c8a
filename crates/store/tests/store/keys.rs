//! Protection keys: who is sealed with them, and what waits for a gateway with the customer's fragment.

use volvelle_domain::item::{CustomerKey, Protection};
use volvelle_store::keys;

use crate::*;

fn customer(check: &str) -> Option<CustomerKey> {
    Some(CustomerKey { fragment: format!("cf-{check}"), check: check.to_owned() })
}

async fn with_key(tx: &mut Tx, account: &AccountId, name: &str, check: &str) -> Protection {
    let protection = Some(Protection { key: ItemId(0), customer: customer(check) });
    let key = Item { kind: ItemKind::ProtectionKey, protection, ..item(account, name, None) };
    Protection { key: items::add(tx, &key).await.expect("adds"), customer: customer(check) }
}

#[tokio::test]
async fn a_key_is_not_removed_while_anything_is_sealed_with_it() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let key = with_key(&mut tx, &one, "/k", "aa").await;
        let mut sealed = Item { protection: Some(key.clone()), ..item(&one, "/a", None) };
        sealed.id = items::add(&mut tx, &sealed).await.expect("adds");
        let found = items::load(&mut tx, &one, sealed.id).await.expect("loads");
        assert_eq!(found.protection.as_ref(), Some(&key));
        let mut beside = Target { protection: Some(key.clone()), ..target(&one, "/t") };
        beside.id = targets::add(&mut tx, &beside, &parameters(1)).await.expect("adds");
        assert_eq!(targets::load(&mut tx, &one, beside.id).await.expect("loads").protection.as_ref(), Some(&key));
        assert_eq!(keys::sealed_with(&mut tx, &one, key.key).await.expect("counts"), (1, 1));
        assert_eq!(keys::sealed_with(&mut tx, &two, key.key).await.expect("counts"), (0, 0));
        let uses = keys::with_customer(&mut tx).await.expect("lists");
        assert_eq!(uses.len(), 1);
        assert_eq!((uses[0].key.as_str(), uses[0].id), ("/k", key.key));
        assert_eq!(Some(&uses[0].customer), key.customer.as_ref());

        let refused = |result| matches!(result, Err(StoreError::Forbidden(_)));
        assert!(refused(items::remove(&mut tx, &one, key.key).await));
        sealed.protection = None;
        items::update(&mut tx, &sealed).await.expect("updates");
        assert!(refused(items::remove(&mut tx, &one, key.key).await), "the target is sealed with it still");
        beside.protection = None;
        targets::update(&mut tx, &beside).await.expect("updates");
        items::remove(&mut tx, &one, key.key).await.expect("removes");

        sealed.protection = Some(key.clone());
        assert!(matches!(items::update(&mut tx, &sealed).await, Err(StoreError::NotFound("the protection key"))));
        beside.protection = Some(Protection { key: sealed.id, customer: None });
        let no_key = targets::update(&mut tx, &beside).await;
        assert!(matches!(no_key, Err(StoreError::NotFound("the protection key"))), "an item that is no key");
        let stranger = Item { protection: Some(with_key(&mut tx, &one, "/k", "aa").await), ..item(&two, "/a", None) };
        assert!(matches!(items::add(&mut tx, &stranger).await, Err(StoreError::NotFound(_))), "another account's key");
    })
    .await;
}

#[tokio::test]
async fn what_needs_a_fragment_is_neither_planned_nor_claimed_where_it_is_missing() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let (a, b) = (with_key(&mut tx, &one, "/ka", "aa").await, with_key(&mut tx, &one, "/kb", "bb").await);
        let plain = with_target(&mut tx, &one, "/t").await;
        let sealed_with_b = Some(b);
        let sealed = Target { protection: sealed_with_b.clone(), ..target(&one, "/tb") };
        let sealed = targets::add(&mut tx, &sealed, &parameters(1)).await.expect("adds");
        let (kind, hosts) = ("linked".into(), Some(Linked::default()));
        let linked = Target { kind, parent: Some(sealed), linked: hosts, ..target(&one, "/tl") };
        let linked = targets::add(&mut tx, &linked, &parameters(1)).await.expect("adds");
        let child = Target { protection: sealed_with_b, parent: Some(plain), ..target(&one, "/tc") };
        let child = targets::add(&mut tx, &child, &parameters(1)).await.expect("adds");
        let secrets = [
            ("/plain", plain, None),
            ("/of-a", plain, Some(a.clone())),
            ("/on-b", sealed, None),
            ("/under-b", linked, None),
            ("/of-a-on-b", sealed, Some(a)),
            ("/on-child-of-b", child, None),
        ];
        let mut ids = Vec::new();
        for (name, target, protection) in secrets {
            let secret = Item { protection, ..item(&one, name, Some(rotator(target))) };
            ids.push(items::add(&mut tx, &secret).await.expect("adds"));
        }
        let cases: [(&[&str], &[usize]); 5] = [
            (&[], &[0]),
            (&["cc"], &[0]),
            (&["aa"], &[0, 1]),
            (&["bb", "cc"], &[0, 2, 3, 5]),
            (&["aa", "bb"], &[0, 1, 2, 3, 4, 5]),
        ];
        let listed = |checks: &[&str]| checks.iter().map(|check| (*check).to_owned()).collect::<Vec<_>>();
        for (checks, wanted) in cases {
            let due = items::due(&mut tx, Micros(100), 99, &listed(checks)).await.expect("asks");
            let mut due: Vec<_> = due.iter().map(|item| item.id).collect();
            due.sort();
            assert_eq!(due, wanted.iter().map(|n| ids[*n]).collect::<Vec<_>>(), "{checks:?}");
        }
        for (n, id) in ids.iter().enumerate() {
            // A child takes its turn with its parent, and is sealed as it is all the same.
            let target = [plain, plain, sealed, linked, sealed, plain][n];
            let state = State::new(Some(1), vec![]);
            let slot = slot(&one, id.0);
            rotations::enqueue(&mut tx, &slot, target, &state, ("schedule", "v"), Micros(1)).await.expect("adds");
        }
        tx.commit().await.expect("commits");
        for (checks, wanted) in cases {
            let mut tx = store.begin().await.expect("begins");
            let (now, until) = (Micros(100), Micros(200));
            let claimed = rotations::claim(&mut tx, "w", now, until, (99, 99), &listed(checks)).await.expect("claims");
            let mut claimed: Vec<_> = claimed.iter().map(|rotation| rotation.slot.item).collect();
            claimed.sort();
            assert_eq!(claimed, wanted.iter().map(|n| ids[*n]).collect::<Vec<_>>(), "{checks:?}");
        }
    })
    .await;
}
