//! Targets and the versions of their parameters. Every change raises the account's content number.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use volvelle_domain::connector::PeerIdentity;
use volvelle_domain::ids::{AccountId, Micros, TargetId, Uid, Version};
use volvelle_domain::item::{Locking, Protection};
use volvelle_domain::path::ItemPath;
use volvelle_domain::target::{Linked, Target, TargetVersion};

use crate::db::{Row, Value, values};
use crate::{StoreError, Tx, accounts, counters, keys};

const COLUMNS: &str = "account, id, uid, name, kind, params, last_version, delete_protection, settings, parent, \
                       created_at, modified_at";

const VERSION_COLUMNS: &str = "version, params, sealed, created_at, created_by";

/// What is kept as one text because no statement looks into it.
#[derive(Serialize, Deserialize)]
struct Settings {
    description: String,
    max_versions: Option<u32>,
    locking: Locking,
    pinned: Vec<PeerIdentity>,
    halted: String,
    linked: Option<Hosts>,
    #[serde(default)]
    protection: Option<Protection>,
}

#[derive(Serialize, Deserialize)]
struct Hosts {
    kind: String,
    hosts: Vec<(String, String)>,
}

/// Stores a new target under a number never used before, with its first version; its `id`, `params` and `last_version` are
/// ignored, since the version has them.
///
/// # Errors
/// The name is taken, or the account, the parent or the protection key does not exist; [`StoreError::Forbidden`] if the parent has a
/// parent itself.
pub async fn add(tx: &mut Tx, target: &Target, version: &TargetVersion) -> Result<TargetId, StoreError> {
    accounts::bump_content(tx, &target.account).await?;
    keys::require(tx, &target.account, target.protection.as_ref()).await?;
    let id = TargetId(counters::next(tx, &target.account, "target").await?);
    require_parent(tx, target, id).await?;
    tx.execute(
        "INSERT INTO targets (account, id, name, delete_protection, settings, parent, modified_at, protection_key,
         customer_check, uid, kind, params, last_version, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        [
            changeable(target, id)?,
            values![
                target.uid.0.as_slice(),
                target.kind.as_str(),
                text(&version.params)?,
                version.version,
                target.created_at.0
            ],
        ]
        .concat(),
    )
    .await?;
    insert_version(tx, &target.account, id, version).await?;
    Ok(id)
}

/// The target of that name, if there is one.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, account: &AccountId, name: &ItemPath) -> Result<Option<Target>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM targets WHERE account = $1 AND name = $2");
    tx.row(&sql, values![account.0.as_str(), name.as_str()]).await?.map(|row| read(&row)).transpose()
}

/// The target with that number.
///
/// # Errors
/// It does not exist.
pub async fn load(tx: &mut Tx, account: &AccountId, id: TargetId) -> Result<Target, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM targets WHERE account = $1 AND id = $2");
    let row = tx.row(&sql, values![account.0.as_str(), id.0]).await?.ok_or(StoreError::NotFound("the target"))?;
    read(&row)
}

/// The target with that number, kept from other writers until the transaction ends.
///
/// # Errors
/// It does not exist.
pub async fn lock(tx: &mut Tx, account: &AccountId, id: TargetId) -> Result<Target, StoreError> {
    accounts::lock(tx, account).await?;
    let wait = if tx.locks_rows() { "FOR UPDATE" } else { "" };
    let sql = format!("SELECT {COLUMNS} FROM targets WHERE account = $1 AND id = $2 {wait}");
    let row = tx.row(&sql, values![account.0.as_str(), id.0]).await?.ok_or(StoreError::NotFound("the target"))?;
    read(&row)
}

/// Targets by name, those after `after`, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, account: &AccountId, after: &str, limit: u32) -> Result<Vec<Target>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM targets WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3");
    tx.rows(&sql, values![account.0.as_str(), after, limit]).await?.iter().map(read).collect()
}

/// Replaces everything but number, uid, kind, creation time and what [`add_version`] writes.
///
/// # Errors
/// It does not exist, the new name is taken, or the new parent or the protection key does not exist; [`StoreError::Forbidden`] if the
/// parent has a parent itself, or the target is the parent of others.
pub async fn update(tx: &mut Tx, target: &Target) -> Result<(), StoreError> {
    accounts::bump_content(tx, &target.account).await?;
    keys::require(tx, &target.account, target.protection.as_ref()).await?;
    require_parent(tx, target, target.id).await?;
    let sql = "UPDATE targets SET name = $3, delete_protection = $4, settings = $5, parent = $6, modified_at = $7,
               protection_key = $8, customer_check = $9
               WHERE account = $1 AND id = $2";
    found(tx.execute(sql, changeable(target, target.id)?).await?)
}

/// The targets whose parent it is, by name, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn children(tx: &mut Tx, account: &AccountId, id: TargetId, limit: u32) -> Result<Vec<Target>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM targets WHERE account = $1 AND parent = $2 ORDER BY name LIMIT $3");
    tx.rows(&sql, values![account.0.as_str(), id.0, limit]).await?.iter().map(read).collect()
}

/// Removes the target, its versions and its breakers.
///
/// # Errors
/// It does not exist; [`StoreError::Forbidden`] while an item uses it or it is the parent of a target.
pub async fn remove(tx: &mut Tx, account: &AccountId, id: TargetId) -> Result<(), StoreError> {
    accounts::bump_content(tx, account).await?;
    let key = || values![account.0.as_str(), id.0];
    for user in [
        "SELECT id FROM items WHERE account = $1 AND target = $2 LIMIT 1",
        "SELECT id FROM targets WHERE account = $1 AND parent = $2 LIMIT 1",
    ] {
        if tx.row(user, key()).await?.is_some() {
            return Err(StoreError::Forbidden("removing a target that is used"));
        }
    }
    tx.execute("DELETE FROM breakers WHERE account = $1 AND target = $2", key()).await?;
    tx.execute("DELETE FROM target_versions WHERE account = $1 AND target = $2", key()).await?;
    found(tx.execute("DELETE FROM targets WHERE account = $1 AND id = $2", key()).await?)
}

/// Stores a version newer than every other; its number and parameters become the target's.
///
/// # Errors
/// The target does not exist; [`StoreError::Conflict`] if it has had this version or a newer one.
pub async fn add_version(
    tx: &mut Tx,
    account: &AccountId,
    id: TargetId,
    version: &TargetVersion,
) -> Result<(), StoreError> {
    accounts::bump_content(tx, account).await?;
    let changed = tx
        .execute(
            "UPDATE targets SET last_version = $3, params = $4, modified_at = $5
             WHERE account = $1 AND id = $2 AND last_version < $3",
            values![account.0.as_str(), id.0, version.version, text(&version.params)?, version.created_at.0],
        )
        .await?;
    if changed != 1 {
        load(tx, account, id).await?;
        return Err(StoreError::Conflict("a newer version of the target"));
    }
    insert_version(tx, account, id, version).await
}

/// One version, if it is kept.
///
/// # Errors
/// The database is not available.
pub async fn find_version(
    tx: &mut Tx,
    account: &AccountId,
    id: TargetId,
    version: Version,
) -> Result<Option<TargetVersion>, StoreError> {
    let sql =
        format!("SELECT {VERSION_COLUMNS} FROM target_versions WHERE account = $1 AND target = $2 AND version = $3");
    tx.row(&sql, values![account.0.as_str(), id.0, version]).await?.map(|row| read_version(&row)).transpose()
}

/// All versions kept, newest first.
///
/// # Errors
/// The database is not available.
pub async fn list_versions(tx: &mut Tx, account: &AccountId, id: TargetId) -> Result<Vec<TargetVersion>, StoreError> {
    let sql = format!(
        "SELECT {VERSION_COLUMNS} FROM target_versions WHERE account = $1 AND target = $2 ORDER BY version DESC"
    );
    tx.rows(&sql, values![account.0.as_str(), id.0]).await?.iter().map(read_version).collect()
}

/// Removes the oldest versions beyond `keep`, never the newest, and tells how many.
///
/// # Errors
/// The account does not exist.
pub async fn prune_versions(tx: &mut Tx, account: &AccountId, id: TargetId, keep: u32) -> Result<u64, StoreError> {
    accounts::bump_content(tx, account).await?;
    tx.execute(
        "DELETE FROM target_versions WHERE account = $1 AND target = $2 AND version NOT IN
         (SELECT version FROM target_versions WHERE account = $1 AND target = $2 ORDER BY version DESC LIMIT $3)",
        values![account.0.as_str(), id.0, keep.max(1)],
    )
    .await
}

/// Replaces the sealed record of a version by another of the same parameters.
///
/// # Errors
/// It is not kept.
pub async fn replace_sealed(
    tx: &mut Tx,
    account: &AccountId,
    id: TargetId,
    version: Version,
    sealed: &[u8],
) -> Result<(), StoreError> {
    accounts::bump_content(tx, account).await?;
    let sql = "UPDATE target_versions SET sealed = $4 WHERE account = $1 AND target = $2 AND version = $3";
    let changed = tx.execute(sql, values![account.0.as_str(), id.0, version, sealed]).await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the version of the target")) }
}

/// Nobody is child and parent at once, so that there is never a chain of parents, let alone a ring.
async fn require_parent(tx: &mut Tx, target: &Target, id: TargetId) -> Result<(), StoreError> {
    let Some(parent) = target.parent else { return Ok(()) };
    let above = load(tx, &target.account, parent).await?;
    let chained = parent == id || above.parent.is_some() || above.linked.is_some();
    if chained || !children(tx, &target.account, id, 1).await?.is_empty() {
        return Err(StoreError::Forbidden("a parent that has a parent itself"));
    }
    Ok(())
}

async fn insert_version(
    tx: &mut Tx,
    account: &AccountId,
    id: TargetId,
    version: &TargetVersion,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO target_versions (account, target, version, params, sealed, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        values![
            account.0.as_str(),
            id.0,
            version.version,
            text(&version.params)?,
            version.sealed.as_slice(),
            version.created_at.0,
            version.created_by.as_str()
        ],
    )
    .await?;
    Ok(())
}

const fn found(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the target")) }
}

fn text<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt("a target"))
}

fn changeable(target: &Target, id: TargetId) -> Result<Vec<Value>, StoreError> {
    let settings = Settings {
        description: target.description.clone(),
        max_versions: target.max_versions,
        locking: target.locking.clone(),
        pinned: target.pinned.clone(),
        halted: target.halted.clone(),
        linked: target
            .linked
            .as_ref()
            .map(|linked| Hosts { kind: linked.hosts_kind.clone(), hosts: linked.hosts.clone() }),
        protection: target.protection.clone(),
    };
    let (key, check) = keys::columns(target.protection.as_ref());
    Ok(values![
        target.account.0.as_str(),
        id.0,
        target.name.as_str(),
        i64::from(target.delete_protection),
        text(&settings)?,
        target.parent.map(|parent| parent.0),
        target.modified_at.0,
        key,
        check
    ])
}

fn params(text: &str) -> Result<Map<String, Json>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("a target"))
}

fn read(row: &Row) -> Result<Target, StoreError> {
    let settings: Settings = serde_json::from_str(&row.text(8)?).map_err(|_| StoreError::Corrupt("a target"))?;
    Ok(Target {
        account: AccountId(row.text(0)?),
        id: TargetId(row.int(1)?),
        uid: Uid(row.bytes(2, "a uid")?),
        name: ItemPath::parse(&row.text(3)?).map_err(|_| StoreError::Corrupt("a name"))?,
        kind: row.text(4)?,
        description: settings.description,
        params: params(&row.text(5)?)?,
        last_version: row.number(6, "a version number")?,
        max_versions: settings.max_versions,
        delete_protection: row.int(7)? != 0,
        locking: settings.locking,
        protection: settings.protection,
        pinned: settings.pinned,
        halted: settings.halted,
        parent: row.opt_int(9)?.map(TargetId),
        linked: settings.linked.map(|hosts| Linked { hosts_kind: hosts.kind, hosts: hosts.hosts }),
        created_at: Micros(row.int(10)?),
        modified_at: Micros(row.int(11)?),
    })
}

fn read_version(row: &Row) -> Result<TargetVersion, StoreError> {
    Ok(TargetVersion {
        version: row.number(0, "a version number")?,
        params: params(&row.text(1)?)?,
        sealed: row.blob(2)?,
        created_at: Micros(row.int(3)?),
        created_by: row.text(4)?,
    })
}
