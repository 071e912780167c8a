//! Changes of keys: the walk over sealed records, who does it, and writers that come between.

use volvelle_store::rekeys::{self, Found, KeyMark, Place, Rekey, Stage};

use crate::*;

/// Records here are a key's id and a number.
fn mark(key_id: u32) -> KeyMark {
    KeyMark { at: 1, wanted: key_id.to_be_bytes() }
}

fn record(key_id: u32, n: u32) -> Vec<u8> {
    [key_id.to_be_bytes(), n.to_be_bytes()].concat()
}

/// An account with so many secrets of two versions each, and one target, all under key 1.
async fn filled(store: &Store, secrets: i64) -> AccountId {
    let account = with_account(store, "one", 1).await;
    let mut tx = store.begin().await.expect("begins");
    for n in 1..=secrets {
        let item = Item { kind: ItemKind::StaticSecret, ..item(&account, &format!("/prod/{n}"), None) };
        let id = items::add(&mut tx, &item).await.expect("adds");
        for (number, state) in [(1, VersionState::Retired), (2, VersionState::Current)] {
            let sealed = record(1, u32::try_from(n).expect("small") * 10 + number);
            let version = ItemVersion { sealed, ..version(number, state) };
            versions::add(&mut tx, &slot(&account, id.0), &version).await.expect("adds");
        }
    }
    let version = TargetVersion { sealed: record(1, 7), ..parameters(1) };
    targets::add(&mut tx, &target(&account, "/t"), &version).await.expect("adds");
    tx.commit().await.expect("commits");
    account
}

async fn begin(store: &Store, account: &AccountId) -> Result<(), StoreError> {
    let mut tx = store.begin().await.expect("begins");
    rekeys::begin(&mut tx, account, (1, 2, 1), 100, Micros(5)).await?;
    tx.commit().await
}

async fn claim(store: &Store, owner: &str, now: i64) -> Option<Rekey> {
    let mut tx = store.begin().await.expect("begins");
    let claimed = rekeys::claim(&mut tx, owner, Micros(now), Micros(now + 100)).await.expect("claims");
    tx.commit().await.expect("commits");
    claimed
}

/// One step of so many records; how many were replaced, and where it ended.
async fn step(store: &Store, rekey: &Rekey, limit: u32) -> Result<(i64, Option<Place>), StoreError> {
    let mut tx = store.read().await?;
    let found = rekeys::after(&mut tx, &rekey.account, mark(2), &rekey.place, limit).await?;
    drop(tx);
    put(store, rekey, &found).await
}

async fn put(store: &Store, rekey: &Rekey, found: &[Found]) -> Result<(i64, Option<Place>), StoreError> {
    let Some(last) = found.last() else { return Ok((0, None)) };
    let wrapped: Vec<_> = found.iter().map(|f| (f, [&2_u32.to_be_bytes()[..], &f.sealed[4..]].concat())).collect();
    let mut tx = store.begin().await?;
    let replaced = rekeys::replace_all(&mut tx, &rekey.account, &wrapped).await?;
    rekeys::advance(&mut tx, rekey, (&last.place, replaced, 0), Micros(500)).await?;
    tx.commit().await?;
    Ok((replaced, Some(last.place.clone())))
}

async fn left(store: &Store, account: &AccountId) -> i64 {
    let mut tx = store.read().await.expect("begins");
    rekeys::left(&mut tx, account, mark(2)).await.expect("counts")
}

async fn only(store: &Store) -> Rekey {
    let mut tx = store.read().await.expect("begins");
    rekeys::list(&mut tx).await.expect("lists").pop().expect("one")
}

async fn switched(store: &Store, account: &AccountId) -> Rekey {
    begin(store, account).await.expect("begins");
    let rekey = claim(store, "a", 10).await.expect("there is one");
    assert_eq!(rekey.stage, Stage::Generate);
    let total = left(store, account).await;
    let mut tx = store.begin().await.expect("begins");
    rekeys::switch(&mut tx, &rekey, total, Micros(11)).await.expect("switches");
    tx.commit().await.expect("commits");
    only(store).await
}

#[tokio::test]
async fn every_record_is_wrapped_once_in_steps_and_then_nothing_is_left() {
    both(|store| async move {
        let account = filled(&store, 5).await;
        let mut rekey = switched(&store, &account).await;
        assert_eq!((rekey.total, rekey.stage, rekey.switched_at), (11, Stage::Wrap, Some(Micros(11))));
        let mut tx = store.read().await.expect("begins");
        let now = accounts::find(&mut tx, &account).await.expect("asks").expect("is there");
        assert_eq!((now.key_id, now.generation), (2, 1), "everybody hears of the new key");
        drop(tx);
        let mut steps = 0;
        while let (_, Some(place)) = step(&store, &rekey, 3).await.expect("steps") {
            rekey.place = place;
            steps += 1;
        }
        let now = only(&store).await;
        assert_eq!(
            (steps, now.done, left(&store, &account).await),
            (5, 11, 0),
            "three, three, three, one, and the target"
        );
        assert_eq!(now.place, Place::Target(TargetId(1), 1));
        let mut tx = store.begin().await.expect("begins");
        let kept = versions::find(&mut tx, &slot(&account, 3), 2).await.expect("asks").expect("is kept");
        assert_eq!(kept.sealed, record(2, 32), "the rest of a record stays");
        rekeys::finish(&mut tx, &now, Micros(99)).await.expect("ends");
        tx.commit().await.expect("commits");
        assert_eq!(only(&store).await.ended_at, Some(Micros(99)));
        assert!(claim(&store, "b", 10_000).await.is_none(), "nothing is left to do");
        let fence = only(&store).await.fence;
        begin(&store, &account).await.expect("another one takes its place");
        let now = only(&store).await;
        assert_eq!((now.stage, now.done, now.switched_at, now.ended_at), (Stage::Generate, 0, None, None));
        assert!(now.fence > fence);
        // Its key cannot be made: another attempt takes its place, and who worked on the first one changes nothing more.
        let stuck = claim(&store, "a", 20_000).await.expect("there is one");
        let mut tx = store.begin().await.expect("begins");
        rekeys::begin(&mut tx, &account, (2, 4, 2), 100, Micros(5)).await.expect("begins anew");
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        let late = rekeys::switch(&mut tx, &stuck, 0, Micros(6)).await;
        assert!(matches!(late, Err(StoreError::LostLease)), "{late:?}");
    })
    .await;
}

#[tokio::test]
async fn who_writes_at_the_same_time_never_loses() {
    both(|store| async move {
        let account = filled(&store, 3).await;
        let rekey = switched(&store, &account).await;
        let mut tx = store.read().await.expect("begins");
        let found = rekeys::after(&mut tx, &account, mark(2), &rekey.place, 10).await.expect("finds");
        drop(tx);
        // After the walk read them: a rotation replaces one record, another is pruned, a third is wrapped by another gateway.
        let mut tx = store.begin().await.expect("begins");
        versions::replace_sealed(&mut tx, &slot(&account, 1), 2, &record(1, 77)).await.expect("replaces");
        versions::remove_version(&mut tx, &slot(&account, 2), 1).await.expect("removes");
        versions::replace_sealed(&mut tx, &slot(&account, 3), 1, &record(2, 31)).await.expect("replaces");
        tx.commit().await.expect("commits");
        assert_eq!(put(&store, &rekey, &found).await.expect("steps").0, 3, "of six");
        let mut tx = store.read().await.expect("begins");
        let kept = versions::find(&mut tx, &slot(&account, 1), 2).await.expect("asks").expect("is kept");
        assert_eq!(kept.sealed, record(1, 77), "what the rotation wrote stays");
        assert!(versions::find(&mut tx, &slot(&account, 2), 1).await.expect("asks").is_none(), "nothing comes back");
        drop(tx);
        // The end of the pass sees that one came behind the walk; the next pass finds it.
        assert_eq!(left(&store, &account).await, 2, "that one, and the target");
        let start = Rekey { place: Place::start(), ..only(&store).await };
        assert_eq!(step(&store, &start, 10).await.expect("steps").0, 1);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_that_holds_the_record_is_waited_for_and_wins() {
    both(|store| async move {
        let account = filled(&store, 1).await;
        let rekey = switched(&store, &account).await;
        let mut tx = store.read().await.expect("begins");
        let found = rekeys::after(&mut tx, &account, mark(2), &rekey.place, 10).await.expect("finds");
        drop(tx);
        let mut writer = store.begin().await.expect("begins");
        versions::replace_sealed(&mut writer, &slot(&account, 1), 2, &record(1, 77)).await.expect("replaces");
        let late = {
            let (store, rekey) = (store.clone(), rekey.clone());
            tokio::spawn(async move { put(&store, &rekey, &found).await })
        };
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(!late.is_finished(), "it waits");
        writer.commit().await.expect("commits");
        assert_eq!(late.await.expect("ends").expect("steps").0, 1, "the retired version only");
        let mut tx = store.read().await.expect("begins");
        let kept = versions::find(&mut tx, &slot(&account, 1), 2).await.expect("asks").expect("is kept");
        assert_eq!(kept.sealed, record(1, 77));
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_was_overtaken_changes_nothing_more() {
    both(|store| async move {
        let account = filled(&store, 2).await;
        let first = switched(&store, &account).await;
        assert!(claim(&store, "b", 50).await.is_none(), "the lease of the first one holds");
        let second = claim(&store, "b", 5_000).await.expect("it ended");
        assert!(second.fence > first.fence);
        let refused = step(&store, &first, 10).await;
        assert!(matches!(refused, Err(StoreError::LostLease)), "{refused:?}");
        assert_eq!(left(&store, &account).await, 5, "nothing of its step is there");
        let mut tx = store.begin().await.expect("begins");
        assert!(matches!(rekeys::finish(&mut tx, &first, Micros(1)).await, Err(StoreError::LostLease)));
        drop(tx);
        assert!(matches!(begin(&store, &account).await, Err(StoreError::Conflict(_))), "one at a time");
        assert_eq!(step(&store, &second, 10).await.expect("steps").0, 4);
        let mut tx = store.begin().await.expect("begins");
        rekeys::set_rate(&mut tx, 7).await.expect("sets");
        rekeys::release_dead(&mut tx, "b").await.expect("releases");
        tx.commit().await.expect("commits");
        let third = claim(&store, "a", 5_001).await.expect("at once");
        assert_eq!((third.rate, third.done), (7, 4));
        assert_eq!(step(&store, &third, 10).await.expect("steps").0, 1, "it goes on where the other one was");
        let mut tx = store.begin().await.expect("begins");
        rekeys::release(&mut tx, &third, Micros(9_000), "a holder is away").await.expect("releases");
        tx.commit().await.expect("commits");
        assert!(claim(&store, "a", 8_000).await.is_none(), "not before");
        assert_eq!(only(&store).await.message, "a holder is away");
    })
    .await;
}
