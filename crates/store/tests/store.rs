//! One suite, run on both engines: every case takes an empty store, and is called once with each.

use std::future::Future;

use volvelle_domain::account::{Account, AccountSettings};
use volvelle_domain::connector::{ActingAs, FailureClass};
use volvelle_domain::identity::{AuthLimits, AuthMethod, Token};
use volvelle_domain::ids::{AccessId, AuthMethodId};
use volvelle_domain::ids::{AccountId, ItemId, Micros, TargetId, Uid};
use volvelle_domain::item::{ItemVersion, VersionState};
use volvelle_domain::path::ItemPath;
use volvelle_domain::rotation::{Answer, Applied, Effect, Event, Limits, Stage, State, next, step};
use volvelle_store::audit::{Entry, Verdict};
use volvelle_store::versions::Slot;
use volvelle_store::{Store, StoreError, accounts, audit, auth_methods, incarnation, rotations, tokens, versions};
use volvelle_testkit::postgres::Postgres;

/// Runs a case on SQLite and on PostgreSQL.
async fn both<F: Future<Output = ()>>(case: impl Fn(Store) -> F) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    case(Store::open(&url).await.expect("sqlite opens")).await;
    let database = Postgres::start().expect("PostgreSQL starts");
    case(Store::open(database.url()).await.expect("postgres opens")).await;
}

fn account(name: &str, realm: u8) -> Account {
    Account {
        id: AccountId(format!("acc-{name}")),
        name: name.into(),
        realm: Uid([realm; 16]),
        key_id: 1,
        generation: 0,
        created_at: Micros(5),
        settings: AccountSettings::default(),
    }
}

async fn with_account(store: &Store, name: &str, realm: u8) -> AccountId {
    let account = account(name, realm);
    let mut tx = store.begin().await.expect("begins");
    accounts::add(&mut tx, &account).await.expect("adds");
    tx.commit().await.expect("commits");
    account.id
}

fn slot(account: &AccountId, item: i64) -> Slot {
    Slot { account: account.clone(), item: ItemId(item), host: String::new() }
}

fn version(number: u32, state: VersionState) -> ItemVersion {
    ItemVersion {
        version: number,
        host: String::new(),
        state,
        sealed: vec![1, 2, 3],
        created_at: Micros(9),
        created_by: "p-admin".into(),
        reason: "create".into(),
        verified_at: None,
    }
}

fn entry(object: &str) -> Entry {
    Entry {
        at: Micros(1),
        actor: "p-admin".into(),
        action: "get_item".into(),
        object: object.into(),
        outcome: "ok".into(),
        remote: "127.0.0.1".into(),
        detail: String::new(),
    }
}

#[tokio::test]
async fn accounts_are_kept_and_found() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        assert!(matches!(accounts::add(&mut tx, &account("one", 2)).await, Err(StoreError::Conflict(_))));
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        let settings = AccountSettings { max_versions: 3, ..AccountSettings::default() };
        accounts::update_settings(&mut tx, &id, &settings).await.expect("updates");
        tx.commit().await.expect("commits");
        let mut tx = store.read().await.expect("reads");
        let found = accounts::find(&mut tx, &id).await.expect("finds").expect("is there");
        assert_eq!((found.settings.max_versions, found.generation, found.realm), (3, 1, Uid([1; 16])));
        assert_eq!(accounts::list(&mut tx).await.expect("lists").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_committed_is_not_there() {
    both(|store| async move {
        let mut tx = store.begin().await.expect("begins");
        accounts::add(&mut tx, &account("gone", 1)).await.expect("adds");
        drop(tx);
        let mut tx = store.read().await.expect("reads");
        assert!(accounts::find(&mut tx, &AccountId("acc-gone".into())).await.expect("asks").is_none());
    })
    .await;
}

#[tokio::test]
async fn the_chain_tells_what_was_tampered_with() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let other = with_account(&store, "two", 2).await;
        let entries: Vec<Entry> = (0..1203).map(|n| entry(&format!("/item/{n}"))).collect();
        let mut tx = store.begin().await.expect("begins");
        audit::append(&mut tx, &id, &entries).await.expect("appends");
        audit::append(&mut tx, &other, &entries[..1]).await.expect("appends");
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::Whole(1203));
        assert_eq!(audit::verify(&mut tx, &other).await.expect("verifies"), Verdict::Whole(1));
        let page = audit::list(&mut tx, &id, 1200, 10).await.expect("lists");
        assert_eq!(page.iter().map(|c| c.seq).collect::<Vec<_>>(), [1201, 1202, 1203]);
        assert_eq!(page[2].entry.object, "/item/1202");
        tx.danger_execute("UPDATE audit SET entry = REPLACE(entry, '/item/700', '/item/701') WHERE seq = 701")
            .await
            .expect("tampers");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::BrokenAt(701));
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        tx.danger_execute("DELETE FROM audit WHERE seq = 1203").await.expect("tampers");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::BrokenAt(1203));
    })
    .await;
}

#[tokio::test]
async fn chains_grow_under_many_writers() {
    both(|store| async move {
        let id = with_account(&store, "one", 1).await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (store, id) = (store.clone(), id.clone());
            writers.spawn(async move {
                for n in 0..20 {
                    let mut tx = store.begin().await.expect("begins");
                    audit::append(&mut tx, &id, &[entry(&format!("/{writer}/{n}"))]).await.expect("appends");
                    tx.commit().await.expect("commits");
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.expect("no panic");
        }
        let mut tx = store.read().await.expect("reads");
        assert_eq!(audit::verify(&mut tx, &id).await.expect("verifies"), Verdict::Whole(160));
    })
    .await;
}

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

/// A machine that has just witnessed `winner`, out of candidates and current.
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

async fn enqueue(store: &Store, slot: &Slot, target: i64) -> volvelle_domain::ids::RotationId {
    let mut tx = store.begin().await.expect("begins");
    let state = State::new(Some(1), vec![]);
    let id = rotations::enqueue(&mut tx, slot, TargetId(target), &state, ("manual", "p-admin"), Micros(10))
        .await
        .expect("enqueues");
    tx.commit().await.expect("commits");
    id
}

async fn claim(store: &Store, now: i64, limits: (u32, u32)) -> Vec<rotations::Rotation> {
    let mut tx = store.begin().await.expect("begins");
    let claimed = rotations::claim(&mut tx, "w", Micros(now), Micros(now + 30), limits).await.expect("claims");
    tx.commit().await.expect("commits");
    claimed
}

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
        let saved = rotations::save(&mut tx, &late, &failed, "late", Micros(60)).await;
        assert!(matches!(saved, Err(StoreError::LostLease)));
        assert!(matches!(rotations::renew(&mut tx, &late, Micros(90)).await, Err(StoreError::LostLease)));
        assert!(matches!(rotations::release(&mut tx, &late, Micros(90)).await, Err(StoreError::LostLease)));
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        rotations::save(&mut tx, &newer, &failed, "refused", Micros(60)).await.expect("saves");
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
        rotations::save(&mut tx, &held, &state, "not reached", Micros(21)).await.expect("saves");
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

#[tokio::test]
async fn a_restart_finds_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("store.db");
    let url = format!("sqlite://{}", file.display());
    let store = Store::open(&url).await.expect("opens");
    let slot = slot(&with_account(&store, "one", 1).await, 1);
    enqueue(&store, &slot, 1).await;
    drop(store);
    let store = Store::open(&url).await.expect("opens again");
    assert_eq!(claim(&store, 20, (10, 1)).await.len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Store::open("mysql://x").await, Err(StoreError::Address)));
}

fn method(account: &AccountId, name: &str, access_id: &str) -> AuthMethod {
    AuthMethod {
        account: account.clone(),
        id: AuthMethodId(0),
        access_id: AccessId(access_id.into()),
        name: ItemPath::parse(name).expect("a path"),
        kind: "api_key".into(),
        description: String::new(),
        key_hash: [7; 32],
        key_changed_at: Micros(1),
        limits: AuthLimits { jwt_ttl: 5, ..AuthLimits::default() },
        delete_protection: true,
        created_at: Micros(1),
        modified_at: Micros(1),
    }
}

#[tokio::test]
async fn auth_methods_are_kept_apart_and_numbers_are_never_used_again() {
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let mut tx = store.begin().await.expect("begins");
        let first = auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds");
        auth_methods::add(&mut tx, &method(&one, "/b", "p-2")).await.expect("adds");
        auth_methods::add(&mut tx, &method(&two, "/a", "p-3")).await.expect("the other account has its own names");
        tx.commit().await.expect("commits");
        let mut tx = store.begin().await.expect("begins");
        let taken = auth_methods::add(&mut tx, &method(&two, "/c", "p-1")).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))), "access ids are unique over all accounts");
        drop(tx);
        let mut tx = store.begin().await.expect("begins");
        let page = auth_methods::list(&mut tx, &one, "/a", 10).await.expect("lists");
        assert_eq!(page.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["/b"]);
        let last = page[0].id;
        assert!(matches!(auth_methods::remove(&mut tx, &two, last).await, Err(StoreError::NotFound(_))));
        auth_methods::remove(&mut tx, &one, last).await.expect("removes");
        let next = auth_methods::add(&mut tx, &method(&one, "/d", "p-4")).await.expect("adds");
        assert!(next > last, "a removed method's number is not given to another");
        auth_methods::set_key_hash(&mut tx, (&one, first), &[8; 32], Micros(3)).await.expect("sets");
        let found = auth_methods::find_by_access_id(&mut tx, &AccessId("p-1".into())).await.expect("finds");
        let found = found.expect("is there");
        assert_eq!((found.key_hash, found.limits.jwt_ttl, found.delete_protection), ([8; 32], 5, true));
        let generation = accounts::find(&mut tx, &one).await.expect("finds").expect("is there").generation;
        assert_eq!(generation, 5, "each of five changes raised it");
    })
    .await;
}

#[tokio::test]
async fn tokens_end_by_time_by_revocation_and_with_their_method() {
    both(|store| async move {
        let one = with_account(&store, "one", 1).await;
        let mut tx = store.begin().await.expect("begins");
        let id = auth_methods::add(&mut tx, &method(&one, "/a", "p-1")).await.expect("adds");
        for n in 1..=3 {
            let token = Token {
                hash: [n; 32],
                account: one.clone(),
                auth_method: id,
                sub_claims: [("groups".to_owned(), vec!["admins".to_owned()])].into(),
                issued_at: Micros(0),
                expires_at: Micros(i64::from(n) * 10),
            };
            tokens::add(&mut tx, &token).await.expect("adds");
        }
        let found = tokens::find(&mut tx, &[3; 32]).await.expect("finds").expect("is there");
        assert_eq!(found.sub_claims["groups"], ["admins"]);
        assert_eq!(tokens::purge_expired(&mut tx, Micros(10)).await.expect("purges"), 1);
        assert!(tokens::find(&mut tx, &[1; 32]).await.expect("finds").is_none());
        tokens::revoke(&mut tx, &[2; 32]).await.expect("revokes");
        assert!(matches!(tokens::revoke(&mut tx, &[2; 32]).await, Err(StoreError::NotFound(_))));
        auth_methods::remove(&mut tx, &one, id).await.expect("removes");
        assert!(tokens::find(&mut tx, &[3; 32]).await.expect("finds").is_none());
    })
    .await;
}

#[tokio::test]
async fn the_incarnation_is_the_one_set_last() {
    both(|store| async move {
        let mut tx = store.begin().await.expect("begins");
        assert_eq!(incarnation::find(&mut tx).await.expect("finds"), None);
        incarnation::set(&mut tx, &[1; 16]).await.expect("sets");
        incarnation::set(&mut tx, &[2; 16]).await.expect("sets");
        assert_eq!(incarnation::find(&mut tx).await.expect("finds"), Some([2; 16]));
    })
    .await;
}

#[tokio::test]
async fn items_round_trip_with_their_rotator_and_stay_in_their_account() {
    use volvelle_domain::item::{Item, ItemKind, Locking, Rotator, RotatorStatus, Schedule};
    use volvelle_store::items;
    both(|store| async move {
        let (one, two) = (with_account(&store, "one", 1).await, with_account(&store, "two", 2).await);
        let rotator = Rotator {
            target: TargetId(4),
            kind: "ssh".into(),
            rotator_type: "password".into(),
            acting: ActingAs::User,
            acting_spelling: "use-self-creds".into(),
            params: serde_json::Map::default(),
            same_password: false,
            policy: None,
            schedule: Schedule { interval_days: 30, ..Schedule::default() },
            next_rotation_at: Some(Micros(77)),
            last_rotation_at: None,
            last_verified_at: None,
            status: RotatorStatus::RotationInDoubt,
            last_error: String::new(),
            failures: 2,
        };
        let mut item = Item {
            account: one.clone(),
            id: ItemId(0),
            uid: Uid([9; 16]),
            name: ItemPath::parse("/a").expect("a path"),
            kind: ItemKind::RotatedSecret,
            description: "d".into(),
            tags: vec!["t".into()],
            enabled: true,
            delete_protection: false,
            current_version: 1,
            last_version: 2,
            extras: serde_json::Map::default(),
            max_versions: Some(3),
            locking: Locking::default(),
            created_at: Micros(1),
            modified_at: Micros(1),
            rotator: Some(rotator),
        };
        let mut tx = store.begin().await.expect("begins");
        item.id = items::add(&mut tx, &item).await.expect("adds");
        let found = items::find(&mut tx, &one, &item.name).await.expect("finds").expect("is there");
        assert_eq!(format!("{found:?}"), format!("{item:?}"));
        assert!(items::find(&mut tx, &two, &item.name).await.expect("finds").is_none());
        item.name = ItemPath::parse("/b").expect("a path");
        item.rotator = None;
        items::update(&mut tx, &item).await.expect("updates");
        let page = items::list(&mut tx, &one, "/a", 10).await.expect("lists");
        assert_eq!(format!("{page:?}"), format!("{:?}", [item.clone()]));
        versions::add(&mut tx, &slot(&one, item.id.0), &version(1, VersionState::Current)).await.expect("adds");
        assert!(matches!(items::remove(&mut tx, &two, item.id).await, Err(StoreError::NotFound(_))));
        items::remove(&mut tx, &one, item.id).await.expect("removes");
        assert!(matches!(items::load(&mut tx, &one, item.id).await, Err(StoreError::NotFound(_))));
        assert!(versions::list(&mut tx, &slot(&one, item.id.0)).await.expect("lists").is_empty());
    })
    .await;
}
