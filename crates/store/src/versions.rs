//! Versions of a slot, and the two moves of the protocol that change which of them counts.

use volvelle_domain::ids::{AccountId, ItemId, Micros, Version};
use volvelle_domain::item::{ItemVersion, VersionState};
use volvelle_domain::rotation::{Dropped, Witness};

use crate::db::{Row, values};
use crate::{StoreError, Tx};

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

/// Stores a version.
///
/// # Errors
/// The number is taken, or the slot has a current version and this claims to be one too.
pub async fn add(tx: &mut Tx, slot: &Slot, version: &ItemVersion) -> Result<(), StoreError> {
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
    let row = tx.row(&sql, values![slot.account.0.as_str(), slot.item.0, slot.host.as_str(), version]).await?;
    row.map(|row| read(&row)).transpose()
}

/// All versions kept of a slot, newest first.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, slot: &Slot) -> Result<Vec<ItemVersion>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM item_versions WHERE account = $1 AND item = $2 AND host = $3 ORDER BY version DESC"
    );
    tx.rows(&sql, values![slot.account.0.as_str(), slot.item.0, slot.host.as_str()]).await?.iter().map(read).collect()
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
            values![slot.account.0.as_str(), slot.item.0, slot.host.as_str(), winner.version(), at.0],
        )
        .await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the version")) }
}

async fn set_state(tx: &mut Tx, slot: &Slot, version: Version, state: VersionState) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE item_versions SET state = $5 WHERE account = $1 AND item = $2 AND host = $3 AND version = $4",
        values![slot.account.0.as_str(), slot.item.0, slot.host.as_str(), version, name(state)],
    )
    .await?;
    Ok(())
}

/// Removes the oldest versions beyond `keep`; never one that may open the account.
///
/// # Errors
/// The database is not available.
pub async fn prune(tx: &mut Tx, slot: &Slot, keep: u32) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM item_versions WHERE account = $1 AND item = $2 AND host = $3 AND state IN ('retired', 'rejected')
         AND version NOT IN (SELECT version FROM item_versions
             WHERE account = $1 AND item = $2 AND host = $3 ORDER BY version DESC LIMIT $4)",
        values![slot.account.0.as_str(), slot.item.0, slot.host.as_str(), keep],
    )
    .await
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
