//! The queue of rotations: its rows, and who works on them (the file of leases).
//!
//! A slot has at most one rotation that has not ended.

mod leases;

use volvelle_domain::ids::{AccountId, ItemId, Micros, RotationId, TargetId};
use volvelle_domain::rotation::{Stage, State};

use crate::db::{Row, values};
use crate::versions::Slot;
use crate::{StoreError, Tx, accounts, counters};

pub use leases::{Lease, claim, next_wake, pull_forward, release, release_dead, renew, save};
#[cfg(test)]
pub(crate) use leases::{claim_sql, wake_sql};

const COLUMNS: &str = "account, id, item, host, target, state, cause, requested_by, fence, lease_until, not_before, \
                       started_at, ended_at, message, stages";

/// A rotation of one slot.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Number within the account.
    pub id: RotationId,
    /// What is rotated.
    pub slot: Slot,
    /// With which target it takes its turn.
    pub target: TargetId,
    /// How far it has come.
    pub state: State,
    /// Why: `schedule`, `manual`, `unlock`, `repair`.
    pub cause: String,
    /// Who asked.
    pub requested_by: String,
    /// The lease's number; raised by every claim.
    pub fence: i64,
    /// When the lease ends; in the past if nobody holds it.
    pub lease_until: Micros,
    /// It is not claimed before.
    pub not_before: Micros,
    /// When it was put into the queue.
    pub started_at: Micros,
    /// When it ended.
    pub ended_at: Option<Micros>,
    /// Why it failed or waits, in words for a person.
    pub message: String,
    /// The stages it has been in, each with the moment it was saved.
    pub stages: Vec<(Stage, Micros)>,
}

/// Puts a rotation into the queue, or finds the one of this slot that has not ended. It takes its turn with `target`.
///
/// # Errors
/// The account does not exist.
pub async fn enqueue(
    tx: &mut Tx,
    slot: &Slot,
    target: TargetId,
    state: &State,
    (cause, by): (&str, &str),
    now: Micros,
) -> Result<RotationId, StoreError> {
    accounts::lock(tx, &slot.account).await?;
    let id = counters::next(tx, &slot.account, "rotation").await?;
    let added = tx
        .execute(
            "INSERT INTO rotations (account, id, item, host, target, state, open, cause, requested_by, fence, lease_owner,
             lease_until, not_before, started_at, ended_at, message)
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, 0, '', 0, $9, $9, NULL, '')
             ON CONFLICT (account, item, host) WHERE open = 1 DO NOTHING",
            values![
                slot.account.0.as_str(),
                id,
                slot.item.0,
                slot.host.as_str(),
                target.0,
                text(state)?,
                cause,
                by,
                now.0
            ],
        )
        .await?;
    if added == 1 {
        return Ok(RotationId(id));
    }
    let open = "SELECT id FROM rotations WHERE account = $1 AND item = $2 AND host = $3 AND open = 1";
    let row = tx.row(open, slot.key()).await?.ok_or(StoreError::Conflict("a rotation of this slot"))?;
    Ok(RotationId(row.int(0)?))
}

/// One rotation.
///
/// # Errors
/// It does not exist.
pub async fn load(tx: &mut Tx, account: &AccountId, id: RotationId) -> Result<Rotation, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rotations WHERE account = $1 AND id = $2");
    let row = tx.row(&sql, values![account.0.as_str(), id.0]).await?.ok_or(StoreError::NotFound("the rotation"))?;
    read(&row)
}

/// The newest rotations of an item, newest first.
///
/// # Errors
/// The database is not available.
pub async fn history(tx: &mut Tx, account: &AccountId, item: ItemId, limit: u32) -> Result<Vec<Rotation>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rotations WHERE account = $1 AND item = $2 ORDER BY id DESC LIMIT $3");
    tx.rows(&sql, values![account.0.as_str(), item.0, limit]).await?.iter().map(read).collect()
}

/// The newest rotations of an item that are older than `before`, newest first.
///
/// # Errors
/// The database is not available.
pub async fn history_before(
    tx: &mut Tx,
    account: &AccountId,
    item: ItemId,
    before: RotationId,
    limit: u32,
) -> Result<Vec<Rotation>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM rotations WHERE account = $1 AND item = $2 AND id < $3 ORDER BY id DESC LIMIT $4"
    );
    tx.rows(&sql, values![account.0.as_str(), item.0, before.0, limit]).await?.iter().map(read).collect()
}

/// The newest rotation of each host of an item, by host.
///
/// # Errors
/// The database is not available.
pub async fn latest_per_host(tx: &mut Tx, account: &AccountId, item: ItemId) -> Result<Vec<Rotation>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM rotations WHERE account = $1 AND id IN
         (SELECT MAX(id) FROM rotations WHERE account = $1 AND item = $2 GROUP BY host) ORDER BY host"
    );
    tx.rows(&sql, values![account.0.as_str(), item.0]).await?.iter().map(read).collect()
}

/// The rotations of an item that have not ended, by host.
///
/// # Errors
/// The database is not available.
pub async fn open_of(tx: &mut Tx, account: &AccountId, item: ItemId) -> Result<Vec<Rotation>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rotations WHERE account = $1 AND item = $2 AND open = 1 ORDER BY host");
    tx.rows(&sql, values![account.0.as_str(), item.0]).await?.iter().map(read).collect()
}

/// How many rotations of all accounts have not ended.
///
/// # Errors
/// The database is not available.
pub async fn open_count(tx: &mut Tx) -> Result<i64, StoreError> {
    let row = tx.row("SELECT COUNT(*) FROM rotations WHERE open = 1", values![]).await?;
    row.ok_or(StoreError::Corrupt("the queue"))?.int(0)
}

/// Removes what is remembered of the oldest rotations of a slot: all that ended but the newest `keep`. The audit log has them.
///
/// # Errors
/// The database is not available.
pub async fn prune(tx: &mut Tx, slot: &Slot, keep: u32) -> Result<u64, StoreError> {
    let sql = "DELETE FROM rotations WHERE account = $1 AND item = $2 AND host = $3 AND ended_at IS NOT NULL
         AND id <= (SELECT id FROM rotations WHERE account = $1 AND item = $2 AND host = $3
             ORDER BY id DESC LIMIT 1 OFFSET $4)";
    tx.execute(sql, values![slot.account.0.as_str(), slot.item.0, slot.host.as_str(), keep]).await
}

fn text(state: &State) -> Result<String, StoreError> {
    serde_json::to_string(state).map_err(|_| StoreError::Corrupt("a rotation state"))
}

fn read(row: &Row) -> Result<Rotation, StoreError> {
    Ok(Rotation {
        slot: Slot { account: AccountId(row.text(0)?), item: ItemId(row.int(2)?), host: row.text(3)? },
        id: RotationId(row.int(1)?),
        target: TargetId(row.int(4)?),
        state: serde_json::from_str(&row.text(5)?).map_err(|_| StoreError::Corrupt("a rotation state"))?,
        cause: row.text(6)?,
        requested_by: row.text(7)?,
        fence: row.int(8)?,
        lease_until: Micros(row.int(9)?),
        not_before: Micros(row.int(10)?),
        started_at: Micros(row.int(11)?),
        ended_at: row.opt_int(12)?.map(Micros),
        message: row.text(13)?,
        stages: read_stages(&row.text(14)?),
    })
}

/// `stage@micros ` again and again; what cannot be read is left out, and a stage saved twice in a row counts once.
fn read_stages(text: &str) -> Vec<(Stage, Micros)> {
    let one = |word: &str| {
        let (stage, at) = word.split_once('@')?;
        let stage = serde_json::from_value(serde_json::Value::from(stage)).ok()?;
        Some((stage, Micros(at.parse().ok()?)))
    };
    let mut stages: Vec<(Stage, Micros)> = text.split(' ').filter_map(one).collect();
    stages.dedup_by_key(|(stage, _)| *stage);
    stages
}
