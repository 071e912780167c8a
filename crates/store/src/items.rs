//! Items: what they are called and how they behave. Every change raises the account's content number.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use volvelle_domain::connector::{ActingAs, PasswordPolicy};
use volvelle_domain::ids::{AccountId, ItemId, Micros, TargetId, Uid};
use volvelle_domain::item::{Item, ItemKind, Protection, Rotator, RotatorStatus, Schedule};
use volvelle_domain::path::ItemPath;

use crate::db::{Row, Value, values};
use crate::{StoreError, Tx, accounts, counters, keys};

const COLUMNS: &str = "account, id, uid, name, kind, enabled, delete_protection, current_version, last_version, \
                       settings, rotator, created_at, modified_at";

/// What is kept as one text because no statement looks into it.
#[derive(Serialize, Deserialize)]
struct Settings {
    description: String,
    tags: Vec<String>,
    extras: Map<String, Json>,
    max_versions: Option<u32>,
    locking: volvelle_domain::item::Locking,
    #[serde(default)]
    protection: Option<Protection>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Rotator")]
struct RotatorText {
    target: TargetId,
    kind: String,
    rotator_type: String,
    acting: ActingAs,
    acting_spelling: String,
    params: Map<String, Json>,
    same_password: bool,
    policy: Option<PasswordPolicy>,
    schedule: Schedule,
    next_rotation_at: Option<Micros>,
    last_rotation_at: Option<Micros>,
    last_verified_at: Option<Micros>,
    status: RotatorStatus,
    last_error: String,
    failures: u32,
}

#[derive(Serialize, Deserialize)]
struct Kept(#[serde(with = "RotatorText")] Rotator);

/// Stores a new item under a number never used before; its `id` is ignored.
///
/// # Errors
/// The name is taken, or the account, the rotator's target or the protection key does not exist.
pub async fn add(tx: &mut Tx, item: &Item) -> Result<ItemId, StoreError> {
    accounts::bump_content(tx, &item.account).await?;
    keys::require(tx, &item.account, item.protection.as_ref()).await?;
    let id = counters::next(tx, &item.account, "item").await?;
    tx.execute(
        "INSERT INTO items (account, id, name, enabled, delete_protection, current_version, last_version, settings,
         target, rotator, status, next_rotation_at, modified_at, last_rotation_at, protection_key, customer_check, uid,
         kind, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
        [changeable(item, id)?, values![item.uid.0.as_slice(), kind_name(item.kind), item.created_at.0]].concat(),
    )
    .await?;
    Ok(ItemId(id))
}

/// The item of that name, if there is one.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, account: &AccountId, name: &ItemPath) -> Result<Option<Item>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM items WHERE account = $1 AND name = $2");
    tx.row(&sql, values![account.0.as_str(), name.as_str()]).await?.map(|row| read(&row)).transpose()
}

/// The item with that number.
///
/// # Errors
/// It does not exist.
pub async fn load(tx: &mut Tx, account: &AccountId, id: ItemId) -> Result<Item, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM items WHERE account = $1 AND id = $2");
    let row = tx.row(&sql, values![account.0.as_str(), id.0]).await?.ok_or(StoreError::NotFound("the item"))?;
    read(&row)
}

/// The item with that number, kept from other writers until the transaction ends.
///
/// # Errors
/// It does not exist.
pub async fn lock(tx: &mut Tx, account: &AccountId, id: ItemId) -> Result<Item, StoreError> {
    accounts::lock(tx, account).await?;
    let wait = if tx.locks_rows() { "FOR UPDATE" } else { "" };
    let sql = format!("SELECT {COLUMNS} FROM items WHERE account = $1 AND id = $2 {wait}");
    let row = tx.row(&sql, values![account.0.as_str(), id.0]).await?.ok_or(StoreError::NotFound("the item"))?;
    read(&row)
}

/// Items by name, those after `after`, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, account: &AccountId, after: &str, limit: u32) -> Result<Vec<Item>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM items WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3");
    tx.rows(&sql, values![account.0.as_str(), after, limit]).await?.iter().map(read).collect()
}

/// Items whose names begin with `prefix`, by name, those after `after`, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn list_under(
    tx: &mut Tx,
    account: &AccountId,
    prefix: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<Item>, StoreError> {
    let (sql, mut arguments) = under(account, prefix, after);
    arguments.push(limit.into());
    tx.rows(&sql, arguments).await?.iter().map(read).collect()
}

/// A range of names; its last argument, the limit, is still to come.
pub(crate) fn under(account: &AccountId, prefix: &str, after: &str) -> (String, Vec<Value>) {
    let (from, begin) = if after < prefix { (">=", prefix) } else { (">", after) };
    let select = format!("SELECT {COLUMNS} FROM items WHERE account = $1 AND name {from} $2");
    match beyond(prefix) {
        Some(end) => {
            (format!("{select} AND name < $3 ORDER BY name LIMIT $4"), values![account.0.as_str(), begin, end])
        }
        None => (format!("{select} ORDER BY name LIMIT $3"), values![account.0.as_str(), begin]),
    }
}

/// The least text above everything that begins with `prefix`, if there is one.
fn beyond(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// Items that a target rotates, by number, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn of_target(
    tx: &mut Tx,
    account: &AccountId,
    target: TargetId,
    limit: u32,
) -> Result<Vec<Item>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM items WHERE account = $1 AND target = $2 ORDER BY id LIMIT $3");
    tx.rows(&sql, values![account.0.as_str(), target.0, limit]).await?.iter().map(read).collect()
}

/// Items of every account that are due at `now` and have no rotation that has not ended, longest due first. Those that need a
/// customer's fragment other than the ones with these check values are left out.
///
/// # Errors
/// The database is not available.
pub async fn due(tx: &mut Tx, now: Micros, limit: u32, checks: &[String]) -> Result<Vec<Item>, StoreError> {
    let (sql, fragments) = due_sql(checks);
    tx.rows(&sql, [values![now.0, limit], fragments].concat()).await?.iter().map(read).collect()
}

pub(crate) fn due_sql(checks: &[String]) -> (String, Vec<Value>) {
    let (openable, fragments) = keys::openable("items", ("id", "items.target"), checks, 3);
    let sql = format!(
        "SELECT {COLUMNS} FROM items WHERE enabled = 1 AND next_rotation_at <= $1
         AND NOT EXISTS (SELECT 1 FROM rotations r WHERE r.account = items.account AND r.item = items.id AND r.open = 1)
         AND {openable}
         ORDER BY next_rotation_at, account, id LIMIT $2"
    );
    (sql, fragments)
}

/// Protection keys of every account that were made with a customer's fragment.
pub(crate) async fn customer_keys(tx: &mut Tx) -> Result<Vec<Item>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM items WHERE kind = 'key' AND customer_check IS NOT NULL ORDER BY account, name");
    tx.rows(&sql, values![]).await?.iter().map(read).collect()
}

/// How the rotated secrets of all accounts are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RotatorCounts {
    /// All of them.
    pub secrets: i64,
    /// Enabled, and due before now.
    pub overdue: i64,
    /// No stored value opens the account.
    pub out_of_sync: i64,
    /// It is not known which stored value opens the account.
    pub in_doubt: i64,
    /// The last rotation failed, on all hosts or on some.
    pub failed: i64,
}

pub(crate) const COUNTS: &str =
    "SELECT status, COUNT(*), COUNT(CASE WHEN enabled = 1 AND next_rotation_at < $1 THEN 1 END)
     FROM items WHERE status IS NOT NULL GROUP BY status";

/// Counts the rotated secrets of all accounts.
///
/// # Errors
/// The database is not available.
pub async fn counts(tx: &mut Tx, now: Micros) -> Result<RotatorCounts, StoreError> {
    let mut counts = RotatorCounts::default();
    for row in tx.rows(COUNTS, values![now.0]).await? {
        let (status, secrets, overdue) = (row.text(0)?, row.int(1)?, row.int(2)?);
        counts.secrets += secrets;
        counts.overdue += overdue;
        match status.as_str() {
            "out_of_sync" => counts.out_of_sync += secrets,
            "in_doubt" => counts.in_doubt += secrets,
            "failed" | "partial" => counts.failed += secrets,
            _ => {}
        }
    }
    Ok(counts)
}

/// Replaces everything but number, uid, kind and creation time of the item with this number.
///
/// # Errors
/// It does not exist, the new name is taken, or the rotator's target or the protection key does not exist.
pub async fn update(tx: &mut Tx, item: &Item) -> Result<(), StoreError> {
    accounts::bump_content(tx, &item.account).await?;
    keys::require(tx, &item.account, item.protection.as_ref()).await?;
    let changed = tx
        .execute(
            "UPDATE items SET name = $3, enabled = $4, delete_protection = $5, current_version = $6, last_version = $7,
             settings = $8, target = $9, rotator = $10, status = $11, next_rotation_at = $12, modified_at = $13,
             last_rotation_at = $14, protection_key = $15, customer_check = $16
             WHERE account = $1 AND id = $2",
            changeable(item, item.id.0)?,
        )
        .await?;
    found(changed)
}

/// Removes the item, its versions and what was remembered of its slots; the history of its rotations stays.
///
/// # Errors
/// It does not exist; [`StoreError::Forbidden`] while a rotation of it has not ended, or while anything is sealed with it.
pub async fn remove(tx: &mut Tx, account: &AccountId, id: ItemId) -> Result<(), StoreError> {
    let key = || values![account.0.as_str(), id.0];
    accounts::bump_content(tx, account).await?;
    let open = "SELECT id FROM rotations WHERE account = $1 AND item = $2 AND open = 1 LIMIT 1";
    if tx.row(open, key()).await?.is_some() {
        return Err(StoreError::Forbidden("removing an item that is being rotated"));
    }
    keys::require_unused(tx, account, id).await?;
    tx.execute("DELETE FROM item_versions WHERE account = $1 AND item = $2", key()).await?;
    tx.execute("DELETE FROM slots WHERE account = $1 AND item = $2", key()).await?;
    found(tx.execute("DELETE FROM items WHERE account = $1 AND id = $2", key()).await?)
}

const fn found(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the item")) }
}

fn changeable(item: &Item, id: i64) -> Result<Vec<Value>, StoreError> {
    let settings = Settings {
        description: item.description.clone(),
        tags: item.tags.clone(),
        extras: item.extras.clone(),
        max_versions: item.max_versions,
        locking: item.locking.clone(),
        protection: item.protection.clone(),
    };
    let settings = serde_json::to_string(&settings).map_err(|_| StoreError::Corrupt("an item"))?;
    let target = item.rotator.as_ref().map(|rotator| rotator.target.0);
    let status = item.rotator.as_ref().map(|rotator| status_name(rotator.status));
    let due = item.rotator.as_ref().and_then(|rotator| rotator.next_rotation_at).map(|at| at.0);
    let last = item.rotator.as_ref().and_then(|rotator| rotator.last_rotation_at).map(|at| at.0);
    let (key, check) = keys::columns(item.protection.as_ref());
    let rotator = item.rotator.clone().map(Kept);
    let rotator = serde_json::to_string(&rotator).map_err(|_| StoreError::Corrupt("a rotator"))?;
    Ok(values![
        item.account.0.as_str(),
        id,
        item.name.as_str(),
        i64::from(item.enabled),
        i64::from(item.delete_protection),
        item.current_version,
        item.last_version,
        settings,
        target,
        rotator,
        status,
        due,
        item.modified_at.0,
        last,
        key,
        check
    ])
}

pub(crate) const fn kind_name(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::StaticSecret => "static",
        ItemKind::RotatedSecret => "rotated",
        ItemKind::ProtectionKey => "key",
    }
}

const fn status_name(status: RotatorStatus) -> &'static str {
    match status {
        RotatorStatus::NotRotated => "not_rotated",
        RotatorStatus::RotationInProgress => "in_progress",
        RotatorStatus::RotationSucceeded => "succeeded",
        RotatorStatus::RotationPartialSucceeded => "partial",
        RotatorStatus::RotationFailed => "failed",
        RotatorStatus::RotationInDoubt => "in_doubt",
        RotatorStatus::OutOfSync => "out_of_sync",
    }
}

fn read(row: &Row) -> Result<Item, StoreError> {
    let kind = match row.text(4)?.as_str() {
        "static" => ItemKind::StaticSecret,
        "rotated" => ItemKind::RotatedSecret,
        "key" => ItemKind::ProtectionKey,
        _ => return Err(StoreError::Corrupt("an item kind")),
    };
    let settings: Settings = serde_json::from_str(&row.text(9)?).map_err(|_| StoreError::Corrupt("an item"))?;
    let rotator: Option<Kept> = serde_json::from_str(&row.text(10)?).map_err(|_| StoreError::Corrupt("a rotator"))?;
    Ok(Item {
        account: AccountId(row.text(0)?),
        id: ItemId(row.int(1)?),
        uid: Uid(row.bytes(2, "a uid")?),
        name: ItemPath::parse(&row.text(3)?).map_err(|_| StoreError::Corrupt("a name"))?,
        kind,
        description: settings.description,
        tags: settings.tags,
        enabled: row.int(5)? != 0,
        delete_protection: row.int(6)? != 0,
        current_version: row.number(7, "a version number")?,
        last_version: row.number(8, "a version number")?,
        extras: settings.extras,
        max_versions: settings.max_versions,
        locking: settings.locking,
        protection: settings.protection,
        created_at: Micros(row.int(11)?),
        modified_at: Micros(row.int(12)?),
        rotator: rotator.map(|kept| kept.0),
    })
}
