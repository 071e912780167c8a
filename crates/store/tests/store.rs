//! One suite, run on both engines: every case takes an empty store, and is called once with each.

use std::future::Future;

use volvelle_domain::account::{Account, AccountSettings};
use volvelle_domain::connector::{ActingAs, FailureClass, PeerIdentity};
use volvelle_domain::identity::{AuthLimits, AuthMethod, Role, RoleAssoc, RoleRule, SubClaims, Token};
use volvelle_domain::ids::{AccessId, AccountId, AuthMethodId, ItemId, Micros, RoleId, RotationId, TargetId, Uid};
use volvelle_domain::item::{
    Item, ItemKind, ItemVersion, Lock, Locking, Rotator, RotatorStatus, Schedule, VersionState,
};
use volvelle_domain::path::ItemPath;
use volvelle_domain::rotation::{Answer, Applied, Effect, Event, Limits, Stage, State, next, step};
use volvelle_domain::target::{Linked, Target, TargetVersion};
use volvelle_store::audit::{Entry, Filter, Order, Verdict};
use volvelle_store::items::RotatorCounts;
use volvelle_store::rotations::Lease;
use volvelle_store::slots::SlotFacts;
use volvelle_store::versions::Slot;
use volvelle_store::{
    Store, StoreError, Tx, accounts, audit, auth_methods, breakers, items, roles, rotations, slots, targets, tokens,
    tombstones, versions,
};
use volvelle_testkit::postgres::Postgres;

#[path = "store/audit.rs"]
mod audit_cases;
#[path = "store/fleet.rs"]
mod fleet_cases;
#[path = "store/identities.rs"]
mod identities;
#[path = "store/items.rs"]
mod item_cases;
#[path = "store/keys.rs"]
mod key_cases;
#[path = "store/queue.rs"]
mod queue;
#[path = "store/rekeys.rs"]
mod rekey_cases;
#[path = "store/targets.rs"]
mod target_cases;
#[path = "store/tenants.rs"]
mod tenants;
#[path = "store/tombstones.rs"]
mod tombstone_cases;
#[path = "store/versions.rs"]
mod version_cases;

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
        operator: false,
        generation: 0,
        content: 0,
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

async fn enqueue(store: &Store, slot: &Slot, target: i64) -> RotationId {
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
    let claimed = rotations::claim(&mut tx, "w", Micros(now), Micros(now + 30), limits, &[]).await.expect("claims");
    tx.commit().await.expect("commits");
    claimed
}

fn path(name: &str) -> ItemPath {
    ItemPath::parse(name).expect("a path")
}

/// The same for the same name, and another for every other one.
fn uid(account: &AccountId, name: &str) -> Uid {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (account, name).hash(&mut hasher);
    let half = hasher.finish().to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half);
    Uid(bytes)
}

fn parameters(version: u32) -> TargetVersion {
    let mut params = serde_json::Map::default();
    params.insert("host".into(), format!("h{version}").into());
    TargetVersion {
        version,
        params,
        sealed: vec![9, u8::try_from(version).expect("small")],
        created_at: Micros(i64::from(version)),
        created_by: "p-admin".into(),
    }
}

fn target(account: &AccountId, name: &str) -> Target {
    Target {
        account: account.clone(),
        id: TargetId(0),
        uid: uid(account, name),
        name: ItemPath::parse(name).expect("a path"),
        kind: "ssh".into(),
        description: "d".into(),
        params: parameters(1).params,
        last_version: 1,
        max_versions: Some(4),
        delete_protection: true,
        locking: Locking::default(),
        protection: None,
        pinned: vec![PeerIdentity {
            address: "h:22".into(),
            algorithm: "ssh-ed25519".into(),
            public_key: "ssh-ed25519 AAAA".into(),
            fingerprint: "SHA256:x".into(),
        }],
        halted: "the host key changed".into(),
        parent: None,
        linked: None,
        created_at: Micros(1),
        modified_at: Micros(1),
    }
}

async fn with_target(tx: &mut Tx, account: &AccountId, name: &str) -> TargetId {
    targets::add(tx, &target(account, name), &parameters(1)).await.expect("adds a target")
}

fn rotator(target: TargetId) -> Rotator {
    Rotator {
        target,
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
    }
}

fn item(account: &AccountId, name: &str, rotator: Option<Rotator>) -> Item {
    Item {
        account: account.clone(),
        id: ItemId(0),
        uid: uid(account, name),
        name: path(name),
        kind: if rotator.is_some() { ItemKind::RotatedSecret } else { ItemKind::StaticSecret },
        description: "d".into(),
        tags: vec!["t".into()],
        enabled: true,
        delete_protection: false,
        current_version: 1,
        last_version: 2,
        extras: serde_json::Map::default(),
        max_versions: Some(3),
        locking: Locking {
            held: Some(Lock { by: "p".into(), actions: vec!["read".into()], at: Micros(1), until: Micros(2) }),
            ..Locking::default()
        },
        protection: None,
        created_at: Micros(1),
        modified_at: Micros(1),
        rotator,
    }
}

async fn stamp(store: &Store, account: &AccountId) -> (i64, i64) {
    let mut tx = store.read().await.expect("reads");
    accounts::stamp(&mut tx, account).await.expect("stamps")
}
