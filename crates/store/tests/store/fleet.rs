//! All secrets at once, and sessions of the console.

use volvelle_store::fleet::{self, Direction, Grain, Sort, Wanted};
use volvelle_store::sessions::{self, Session};

use super::*;

const NOW: Micros = Micros(1_000_000_000_000);

async fn filled(store: &Store) -> AccountId {
    let account = with_account(store, "one", 1).await;
    let mut tx = store.begin().await.expect("begins");
    let target = with_target(&mut tx, &account, "/host").await;
    let states = [
        ("/a/settled", RotatorStatus::RotationSucceeded, Some(NOW.plus_seconds(60)), true),
        ("/a/overdue", RotatorStatus::RotationSucceeded, Some(NOW.plus_seconds(-3600)), true),
        ("/a/b/failed", RotatorStatus::RotationFailed, None, true),
        ("/a/b/doubt", RotatorStatus::RotationInDoubt, Some(NOW.plus_seconds(-3600)), true),
        ("/c/lost", RotatorStatus::OutOfSync, None, true),
        ("/c/off", RotatorStatus::OutOfSync, None, false),
        ("/new", RotatorStatus::NotRotated, None, true),
    ];
    for (n, (name, status, next, enabled)) in states.into_iter().enumerate() {
        let mut item = item(&account, name, Some(rotator(target)));
        item.enabled = enabled;
        let rotator = item.rotator.as_mut().expect("rotated");
        rotator.status = status;
        rotator.next_rotation_at = next;
        rotator.last_rotation_at = i64::try_from(n).ok().map(|n| NOW.plus_seconds(-n));
        items::add(&mut tx, &item).await.expect("adds");
    }
    tx.commit().await.expect("commits");
    account
}

async fn found(tx: &mut Tx, account: &AccountId, wanted: &Wanted) -> Vec<String> {
    let found = fleet::find(tx, account, wanted, NOW, (0, 100)).await.expect("finds");
    found.into_iter().map(|one| one.name).collect()
}

#[tokio::test]
async fn a_count_and_a_list_agree_on_every_state() {
    both(|store| async move {
        let account = filled(&store).await;
        let mut tx = store.read().await.expect("reads");
        let tally = fleet::tally(&mut tx, &account, &Wanted::default(), NOW).await.expect("counts");
        assert_eq!(tally.len(), 7, "{tally:?}");
        for (state, count) in tally {
            let wanted = Wanted { states: vec![state.clone()], ..Wanted::default() };
            assert_eq!(
                found(&mut tx, &account, &wanted).await.len(),
                usize::try_from(count).expect("small"),
                "{state}"
            );
        }
        let urgent = Wanted { sort: Sort::State, ..Wanted::default() };
        let names = found(&mut tx, &account, &urgent).await;
        assert_eq!(names[..4], ["/c/lost", "/a/b/doubt", "/a/b/failed", "/a/overdue"]);
        let oldest = Wanted { sort: Sort::Last, ..Wanted::default() };
        assert_eq!(found(&mut tx, &account, &oldest).await[0], "/new");
        let back = Wanted { sort: Sort::Last, direction: Direction::Down, ..Wanted::default() };
        assert_eq!(found(&mut tx, &account, &back).await[0], "/a/settled");
        let inside =
            Wanted { folder: "/a/".into(), text: "FAIL".into(), kinds: vec!["ssh".into()], ..Wanted::default() };
        assert_eq!(found(&mut tx, &account, &inside).await, ["/a/b/failed"]);
        let other = AccountId("acc-other".into());
        assert_eq!(found(&mut tx, &other, &Wanted::default()).await.len(), 0);
        let deeper = fleet::deeper(&mut tx, &account, "/a/", "", 10).await.expect("lists");
        assert_eq!(deeper, ["/a/b/doubt", "/a/b/failed"]);
    })
    .await;
}

#[tokio::test]
async fn the_past_and_the_future_are_counted_by_hours() {
    both(|store| async move {
        let account = filled(&store).await;
        let mut tx = store.begin().await.expect("begins");
        let state = State::new(Some(1), Vec::new());
        let slot = slot(&account, 1);
        let id = rotations::enqueue(&mut tx, &slot, TargetId(1), &state, ("manual", ""), NOW).await.expect("enqueues");
        let rotation = rotations::load(&mut tx, &account, id).await.expect("loads");
        for (n, stage) in [Stage::Preflighted, Stage::Preflighted, Stage::Done].into_iter().enumerate() {
            let state = State { stage, ..state.clone() };
            let at = NOW.plus_seconds(i64::try_from(n).expect("small"));
            rotations::save(&mut tx, &rotation, &state, "", at, Lease::Keep).await.expect("saves");
        }
        tx.commit().await.expect("commits");
        let mut tx = store.read().await.expect("reads");
        let done = rotations::load(&mut tx, &account, id).await.expect("loads");
        let stages = [(Stage::Preflighted, NOW), (Stage::Done, NOW.plus_seconds(2))];
        assert_eq!(done.stages, stages, "a stage saved twice counts once");
        let past = fleet::past(&mut tx, &account, NOW, Grain::Account).await.expect("counts");
        assert_eq!((past.len(), past[0].outcome.as_str(), past[0].count), (1, "done", 1));
        assert_eq!(past[0].at, NOW.0 / 3_600_000_000 * 3600);
        let coming =
            fleet::coming(&mut tx, &account, (NOW, NOW.plus_seconds(3600)), Grain::Item).await.expect("counts");
        assert_eq!((coming.len(), coming[0].item), (1, ItemId(1)));
    })
    .await;
}

#[tokio::test]
async fn a_session_is_remembered_until_long_after_its_user_left() {
    both(|store| async move {
        let account = with_account(&store, "one", 1).await;
        let session =
            |hash: u8, at| Session { account: account.clone(), hash: [hash; 32], started_at: at, seen_at: at };
        let mut tx = store.begin().await.expect("begins");
        sessions::add(&mut tx, &session(1, Micros(10)), Micros(0)).await.expect("adds");
        sessions::touch(&mut tx, &[1; 32], Micros(20)).await.expect("touches");
        sessions::touch(&mut tx, &[1; 32], Micros(15)).await.expect("touches");
        let seen = sessions::find(&mut tx, &[1; 32]).await.expect("finds").expect("is there").seen_at;
        assert_eq!(seen, Micros(20), "a clock that lags does not set it back");
        sessions::add(&mut tx, &session(2, Micros(30)), Micros(25)).await.expect("adds");
        assert!(sessions::find(&mut tx, &[1; 32]).await.expect("finds").is_none(), "too old");
        sessions::remove(&mut tx, &[2; 32]).await.expect("removes");
        assert!(sessions::find(&mut tx, &[2; 32]).await.expect("finds").is_none());
    })
    .await;
}
