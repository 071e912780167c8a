//! Versions of a slot, and the two moves of the protocol that change which of them counts. Every change raises the
//! account's content number.

use volvelle_domain::ids::{AccountId, ItemId, Micros, Version};
use volvelle_domain::item::{ItemVersion, VersionState};
use volvelle_domain::rotation::{Dropped, Witness};

use crate::db::{Row, Value, values};
use crate::{StoreError, Tx, accounts};

const COLUMNS: &str = "version, host, state, sealed, created_at, created_by, reason, verified_at";

/// A slot: one account that a secret keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The tenant.
    pub account: AccountId,
    /// The secret.
    pub item: ItemId,
    /// Empty, or a host of a linked target.
    pub host: String,
}

impl Slot {
    /// The beginning of every key that belongs to the slot.
    pub(crate) fn key(&self) -> Vec<Value> {
        values![self.account.0.as_str(), self.item.0, self.host.as_str()]
    }
}

/// Stores a version.
///
/// # Errors
/// The number is taken, or the slot has a current version and this claims to be one too.
pub async fn add(tx: &mut Tx, slot: &Slot, version: &ItemVersion) -> Result<(), StoreError> {
    accounts::bump_content(tx, &slot.account).await?;
    tx.execute(
        "INSERT INTO item_versions
         (account, item, version, host, state, sealed, created_at, created_by, reason, verified_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        values![
            slot.account.0.as_str(),
            slot.item.0,
            version.version,
            slot.host.as_str(),
            name(version.state),
            version.sealed.as_slice(),
            version.created_at.0,
            version.created_by.as_str(),
            version.reason.as_str(),
            version.verified_at.map(|at| at.0)
        ],
    )
    .await?;
    Ok(())
}

/// One version, if it is kept.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, slot: &Slot, version: Version) -> Result<Option<ItemVersion>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM item_versions WHERE account = $1 AND item = $2 AND host = $3 AND version = $4");
    tx.row(&sql, numbered(slot, version)).await?.map(|row| read(&row)).transpose()
}

/// All versions kept of a slot, newest first.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, slot: &Slot) -> Result<Vec<ItemVersion>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM item_versions WHERE account = $1 AND item = $2 AND host = $3 ORDER BY version DESC"
    );
    tx.rows(&sql, slot.key()).await?.iter().map(read).collect()
}

/// All versions kept of an item, of every host, newest first.
///
/// # Errors
/// The database is not available.
pub async fn list_item(tx: &mut Tx, account: &AccountId, item: ItemId) -> Result<Vec<ItemVersion>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM item_versions WHERE account = $1 AND item = $2 ORDER BY version DESC, host");
    tx.rows(&sql, values![account.0.as_str(), item.0]).await?.iter().map(read).collect()
}

/// The current version of every host of an item, by host.
///
/// # Errors
/// The database is not available.
pub async fn current_of(tx: &mut Tx, account: &AccountId, item: ItemId) -> Result<Vec<ItemVersion>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM item_versions WHERE account = $1 AND item = $2 AND state = 'current' ORDER BY host"
    );
    tx.rows(&sql, values![account.0.as_str(), item.0]).await?.iter().map(read).collect()
}

/// The highest number kept of a slot; 0 if there is none.
///
/// # Errors
/// The database is not available.
pub async fn newest(tx: &mut Tx, slot: &Slot) -> Result<Version, StoreError> {
    let sql = "SELECT COALESCE(MAX(version), 0) FROM item_versions WHERE account = $1 AND item = $2 AND host = $3";
    let row = tx.row(sql, slot.key()).await?;
    row.ok_or(StoreError::Corrupt("a version number"))?.number(0, "a version number")
}

/// The versions one of which opens the account: candidates, current and grace, newest first.
///
/// # Errors
/// The database is not available.
pub async fn open_set(tx: &mut Tx, slot: &Slot) -> Result<Vec<ItemVersion>, StoreError> {
    let all = list(tx, slot).await?;
    Ok(all.into_iter().filter(|v| !matches!(v.state, VersionState::Retired | VersionState::Rejected)).collect())
}

/// Closes the books after a witness: the winner becomes current, the former current is retired, and each dropped
/// version is retired if it ever was current and rejected otherwise.
///
/// # Errors
/// [`StoreError::NotFound`] if the winner is not kept; [`StoreError::Forbidden`] if something would be dropped on account of
/// another version than the winner.
pub async fn settle(
    tx: &mut Tx,
    slot: &Slot,
    winner: Witness,
    dropped: &[Dropped],
    at: Micros,
) -> Result<(), StoreError> {
    accounts::bump_content(tx, &slot.account).await?;
    for drop in dropped {
        if drop.witness() != winner || drop.version() == winner.version() {
            return Err(StoreError::Forbidden("dropping a version without a witness of the winner"));
        }
        let former = find(tx, slot, drop.version()).await?.ok_or(StoreError::NotFound("the version"))?;
        let state = if former.state == VersionState::Current { VersionState::Retired } else { VersionState::Rejected };
        set_state(tx, slot, drop.version(), state).await?;
    }
    let changed = tx
        .execute(
            "UPDATE item_versions SET state = 'current', verified_at = $5
             WHERE account = $1 AND item = $2 AND host = $3 AND version = $4",
            [numbered(slot, winner.version()), values![at.0]].concat(),
        )
        .await?;
    found(changed)
}

/// Versions that were just superseded, and that may still open the account on their target, wait there for their end.
///
/// # Errors
/// One of them is not kept, or has not been superseded.
pub async fn begin_grace(tx: &mut Tx, slot: &Slot, superseded: &[Dropped]) -> Result<(), StoreError> {
    for dropped in superseded {
        let sql =
            "UPDATE item_versions SET state = 'grace' WHERE account = $1 AND item = $2 AND host = $3 AND version = $4
                   AND state IN ('retired', 'rejected')";
        found(tx.execute(sql, numbered(slot, dropped.version())).await?)?;
    }
    Ok(())
}

/// A superseded version is off its target.
///
/// # Errors
/// The database is not available.
pub async fn end_grace(tx: &mut Tx, slot: &Slot, version: Version) -> Result<(), StoreError> {
    accounts::bump_content(tx, &slot.account).await?;
    tx.execute(
        "UPDATE item_versions SET state = CASE WHEN verified_at IS NULL THEN 'rejected' ELSE 'retired' END
         WHERE account = $1 AND item = $2 AND host = $3 AND version = $4 AND state = 'grace'",
        numbered(slot, version),
    )
    .await?;
    Ok(())
}

/// Writes down that a version was witnessed to open the account.
///
/// # Errors
/// It is not kept.
pub async fn mark_verified(tx: &mut Tx, slot: &Slot, version: Version, at: Micros) -> Result<(), StoreError> {
    accounts::bump_content(tx, &slot.account).await?;
    let sql = "UPDATE item_versions SET verified_at = $5
               WHERE account = $1 AND item = $2 AND host = $3 AND version = $4";
    found(tx.execute(sql, [numbered(slot, version), values![at.0]].concat()).await?)
}

/// Replaces the sealed record by another of the same credential.
///
/// # Errors
/// It is not kept.
pub async fn replace_sealed(tx: &mut Tx, slot: &Slot, version: Version, sealed: &[u8]) -> Result<(), StoreError> {
    accounts::bump_content(tx, &slot.account).await?;
    let sql = "UPDATE item_versions SET sealed = $5 WHERE account = $1 AND item = $2 AND host = $3 AND version = $4";
    found(tx.execute(sql, [numbered(slot, version), values![sealed]].concat()).await?)
}

/// Removes a version kept for history.
///
/// # Errors
/// It is not kept; [`StoreError::Forbidden`] unless it is retired or rejected.
pub async fn remove_version(tx: &mut Tx, slot: &Slot, version: Version) -> Result<(), StoreError> {
    accounts::bump_content(tx, &slot.account).await?;
    let sql = "DELETE FROM item_versions WHERE account = $1 AND item = $2 AND host = $3 AND version = $4
               AND state IN ('retired', 'rejected')";
    if tx.execute(sql, numbered(slot, version)).await? == 1 {
        return Ok(());
    }
    match find(tx, slot, version).await? {
        Some(_) => Err(StoreError::Forbidden("removing a version that may open the account")),
        None => Err(StoreError::NotFound("the version")),
    }
}

/// Makes a new version of a static secret the current one; the former one is retired.
///
/// # Errors
/// [`StoreError::Forbidden`] for anything that rotates: there only a witness makes a version current.
pub async fn supersede(tx: &mut Tx, slot: &Slot, version: &ItemVersion) -> Result<(), StoreError> {
    let account = slot.account.0.as_str();
    let kind = "SELECT id FROM items WHERE account = $1 AND id = $2 AND kind = 'static'";
    if tx.row(kind, values![account, slot.item.0]).await?.is_none() {
        return Err(StoreError::Forbidden("a current version without a witness"));
    }
    tx.execute(
        "UPDATE item_versions SET state = 'retired' WHERE account = $1 AND item = $2 AND host = $3 AND state = 'current'",
        values![account, slot.item.0, slot.host.as_str()],
    )
    .await?;
    add(tx, slot, version).await
}

async fn set_state(tx: &mut Tx, slot: &Slot, version: Version, state: VersionState) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE item_versions SET state = $5 WHERE account = $1 AND item = $2 AND host = $3 AND version = $4",
        [numbered(slot, version), values![name(state)]].concat(),
    )
    .await?;
    Ok(())
}

/// Removes the oldest versions beyond `keep`; never one that may open the account.
///
/// # Errors
/// The database is not available.
pub async fn prune(tx: &mut Tx, slot: &Slot, keep: u32) -> Result<u64, StoreError> {
    accounts::bump_content(tx, &slot.account).await?;
    tx.execute(
        "DELETE FROM item_versions WHERE account = $1 AND item = $2 AND host = $3 AND state IN ('retired', 'rejected')
         AND version NOT IN (SELECT version FROM item_versions
             WHERE account = $1 AND item = $2 AND host = $3 ORDER BY version DESC LIMIT $4)",
        [slot.key(), values![keep]].concat(),
    )
    .await
}

fn numbered(slot: &Slot, version: Version) -> Vec<Value> {
    [slot.key(), values![version]].concat()
}

const fn found(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the version")) }
}

const fn name(state: VersionState) -> &'static str {
    match state {
        VersionState::Candidate => "candidate",
        VersionState::Current => "current",
        VersionState::Grace => "grace",
        VersionState::Retired => "retired",
        VersionState::Rejected => "rejected",
    }
}

fn read(row: &Row) -> Result<ItemVersion, StoreError> {
    let state = match row.text(2)?.as_str() {
        "candidate" => VersionState::Candidate,
        "current" => VersionState::Current,
        "grace" => VersionState::Grace,
        "retired" => VersionState::Retired,
        "rejected" => VersionState::Rejected,
        _ => return Err(StoreError::Corrupt("a version state")),
    };
    Ok(ItemVersion {
        version: row.number(0, "a version number")?,
        host: row.text(1)?,
        state,
        sealed: row.blob(3)?,
        created_at: Micros(row.int(4)?),
        created_by: row.text(5)?,
        reason: row.text(6)?,
        verified_at: row.opt_int(7)?.map(Micros),
    })
}
