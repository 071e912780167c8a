//! The queue of rotations: rows, leases and fences.
//!
//! A worker's writes carry its fence. Whoever lost the lease changes nothing.

use volvelle_domain::ids::{AccountId, ItemId, Micros, RotationId, TargetId};
use volvelle_domain::rotation::State;

use crate::db::{Row, values};
use crate::versions::Slot;
use crate::{StoreError, Tx};

const COLUMNS: &str = "account, id, item, host, target, state, cause, requested_by, fence, lease_until, not_before, \
                       started_at, ended_at, message";

/// A rotation of one slot.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Number within the account.
    pub id: RotationId,
    /// What is rotated.
    pub slot: Slot,
    /// On which target.
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
}

/// Puts a rotation into the queue, or finds the one of this slot that has not ended.
///
/// # Errors
/// The database is not available.
pub async fn enqueue(
    tx: &mut Tx,
    slot: &Slot,
    target: TargetId,
    state: &State,
    (cause, by): (&str, &str),
    now: Micros,
) -> Result<RotationId, StoreError> {
    let account = slot.account.0.as_str();
    // The account's row is the lock under which slots are looked at and numbers are given out.
    let locked = tx.execute("UPDATE accounts SET generation = generation WHERE id = $1", values![account]).await?;
    if locked != 1 {
        return Err(StoreError::NotFound("the account"));
    }
    let open = "SELECT id FROM rotations WHERE account = $1 AND item = $2 AND host = $3 AND open = 1";
    if let Some(row) = tx.row(open, values![account, slot.item.0, slot.host.as_str()]).await? {
        return Ok(RotationId(row.int(0)?));
    }
    let row = tx.row("SELECT COALESCE(MAX(id), 0) + 1 FROM rotations WHERE account = $1", values![account]).await?;
    let id = row.ok_or(StoreError::Corrupt("a rotation number"))?.int(0)?;
    tx.execute(
        "INSERT INTO rotations (account, id, item, host, target, state, open, cause, requested_by, fence, lease_owner,
         lease_until, not_before, started_at, ended_at, message)
         VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, 0, '', 0, $9, $9, NULL, '')",
        values![account, id, slot.item.0, slot.host.as_str(), target.0, text(state)?, cause, by, now.0],
    )
    .await?;
    Ok(RotationId(id))
}

/// Takes leases of at most `limit` rotations that wait, oldest first; of each target at most `per_target` are under way at a
/// time.
///
/// # Errors
/// The database is not available.
pub async fn claim(
    tx: &mut Tx,
    owner: &str,
    now: Micros,
    until: Micros,
    (limit, per_target): (u32, u32),
) -> Result<Vec<Rotation>, StoreError> {
    let skip = if tx.locks_rows() { "FOR UPDATE SKIP LOCKED" } else { "" };
    let waiting = format!(
        "SELECT {COLUMNS} FROM rotations r WHERE open = 1 AND not_before <= $1 AND lease_until <= $1
         AND (SELECT COUNT(*) FROM rotations o WHERE o.account = r.account AND o.target = r.target AND o.open = 1
              AND o.lease_until > $1) < $2
         ORDER BY not_before, account, id LIMIT $3 {skip}"
    );
    let mut claimed: Vec<Rotation> = Vec::new();
    for row in tx.rows(&waiting, values![now.0, per_target, limit]).await? {
        let mut rotation = read(&row)?;
        let same = claimed.iter().filter(|r| r.slot.account == rotation.slot.account && r.target == rotation.target);
        if same.count() >= usize::try_from(per_target).unwrap_or(usize::MAX) {
            continue;
        }
        tx.execute(
            "UPDATE rotations SET fence = fence + 1, lease_owner = $3, lease_until = $4 WHERE account = $1 AND id = $2",
            values![rotation.slot.account.0.as_str(), rotation.id.0, owner, until.0],
        )
        .await?;
        rotation.fence += 1;
        rotation.lease_until = until;
        claimed.push(rotation);
    }
    Ok(claimed)
}

/// Prolongs a lease.
///
/// # Errors
/// [`StoreError::LostLease`] if another worker has it.
pub async fn renew(tx: &mut Tx, rotation: &Rotation, until: Micros) -> Result<(), StoreError> {
    let sql = "UPDATE rotations SET lease_until = $4 WHERE account = $1 AND id = $2 AND fence = $3 AND open = 1";
    fenced(tx.execute(sql, values![rotation.slot.account.0.as_str(), rotation.id.0, rotation.fence, until.0]).await?)
}

/// Saves a state, in the same transaction as whatever belongs to it.
///
/// # Errors
/// [`StoreError::LostLease`] if another worker has it.
pub async fn save(
    tx: &mut Tx,
    rotation: &Rotation,
    state: &State,
    message: &str,
    now: Micros,
) -> Result<(), StoreError> {
    let over = state.stage.is_final();
    let changed = tx
        .execute(
            "UPDATE rotations SET state = $4, message = $5, open = $6, ended_at = $7
             WHERE account = $1 AND id = $2 AND fence = $3 AND open = 1",
            values![
                rotation.slot.account.0.as_str(),
                rotation.id.0,
                rotation.fence,
                text(state)?,
                message,
                (!over).then_some(1_i64),
                over.then_some(now.0)
            ],
        )
        .await?;
    fenced(changed)
}

/// Gives the lease back; the rotation is claimed again after `not_before`.
///
/// # Errors
/// [`StoreError::LostLease`] if another worker has it.
pub async fn release(tx: &mut Tx, rotation: &Rotation, not_before: Micros) -> Result<(), StoreError> {
    let sql = "UPDATE rotations SET lease_until = 0, lease_owner = '', not_before = $4
               WHERE account = $1 AND id = $2 AND fence = $3 AND open = 1";
    fenced(
        tx.execute(sql, values![rotation.slot.account.0.as_str(), rotation.id.0, rotation.fence, not_before.0]).await?,
    )
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

const fn fenced(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::LostLease) }
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
    })
}
