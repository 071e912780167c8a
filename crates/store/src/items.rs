//! Items: what they are called and how they behave. Every change raises the account's generation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use volvelle_domain::connector::{ActingAs, PasswordPolicy};
use volvelle_domain::ids::{AccountId, ItemId, Micros, TargetId, Uid};
use volvelle_domain::item::{Item, ItemKind, Rotator, RotatorStatus, Schedule};
use volvelle_domain::path::ItemPath;

use crate::db::{Row, values};
use crate::{StoreError, Tx, accounts, counters};

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
/// The name is taken, or the account does not exist.
pub async fn add(tx: &mut Tx, item: &Item) -> Result<ItemId, StoreError> {
    let id = counters::next(tx, &item.account, "item").await?;
    tx.execute(
        "INSERT INTO items (account, id, name, enabled, delete_protection, current_version, last_version, settings,
         rotator, next_rotation_at, modified_at, uid, kind, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        [changeable(item, id)?, values![item.uid.0.as_slice(), kind_name(item.kind), item.created_at.0]].concat(),
    )
    .await?;
    accounts::bump_generation(tx, &item.account).await?;
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

/// Items by name, those after `after`, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, account: &AccountId, after: &str, limit: u32) -> Result<Vec<Item>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM items WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3");
    tx.rows(&sql, values![account.0.as_str(), after, limit]).await?.iter().map(read).collect()
}

/// Replaces everything but number, uid, kind and creation time of the item with this number.
///
/// # Errors
/// It does not exist, or the new name is taken.
pub async fn update(tx: &mut Tx, item: &Item) -> Result<(), StoreError> {
    let changed = tx
        .execute(
            "UPDATE items SET name = $3, enabled = $4, delete_protection = $5, current_version = $6, last_version = $7,
             settings = $8, rotator = $9, next_rotation_at = $10, modified_at = $11 WHERE account = $1 AND id = $2",
            changeable(item, item.id.0)?,
        )
        .await?;
    touched(tx, &item.account, changed).await
}

/// Removes the item and its versions; the history of its rotations stays.
///
/// # Errors
/// It does not exist; [`StoreError::Forbidden`] while a rotation of it has not ended.
pub async fn remove(tx: &mut Tx, account: &AccountId, id: ItemId) -> Result<(), StoreError> {
    let key = || values![account.0.as_str(), id.0];
    let open = "SELECT id FROM rotations WHERE account = $1 AND item = $2 AND open = 1 LIMIT 1";
    if tx.row(open, key()).await?.is_some() {
        return Err(StoreError::Forbidden("removing an item that is being rotated"));
    }
    tx.execute("DELETE FROM item_versions WHERE account = $1 AND item = $2", key()).await?;
    let changed = tx.execute("DELETE FROM items WHERE account = $1 AND id = $2", key()).await?;
    touched(tx, account, changed).await
}

async fn touched(tx: &mut Tx, account: &AccountId, changed: u64) -> Result<(), StoreError> {
    if changed != 1 {
        return Err(StoreError::NotFound("the item"));
    }
    accounts::bump_generation(tx, account).await
}

fn changeable(item: &Item, id: i64) -> Result<Vec<crate::db::Value>, StoreError> {
    let settings = Settings {
        description: item.description.clone(),
        tags: item.tags.clone(),
        extras: item.extras.clone(),
        max_versions: item.max_versions,
        locking: item.locking.clone(),
    };
    let settings = serde_json::to_string(&settings).map_err(|_| StoreError::Corrupt("an item"))?;
    let rotator = item.rotator.clone().map(Kept);
    let due = rotator.as_ref().and_then(|kept| kept.0.next_rotation_at).map(|at| at.0);
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
        rotator,
        due,
        item.modified_at.0
    ])
}

const fn kind_name(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::StaticSecret => "static",
        ItemKind::RotatedSecret => "rotated",
    }
}

fn read(row: &Row) -> Result<Item, StoreError> {
    let kind = match row.text(4)?.as_str() {
        "static" => ItemKind::StaticSecret,
        "rotated" => ItemKind::RotatedSecret,
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
        created_at: Micros(row.int(11)?),
        modified_at: Micros(row.int(12)?),
        rotator: rotator.map(|kept| kept.0),
    })
}
