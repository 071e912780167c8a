//! Who works on which rotation: leases and fences.
//!
//! A worker's writes carry its fence, which every claim raises. Whoever lost the lease changes nothing; that needs no lock. The
//! bound on rotations per host does: claims follow one after the other.

use volvelle_domain::ids::{AccountId, ItemId, Micros};
use volvelle_domain::rotation::State;

use super::{COLUMNS, Rotation, read, text};
use crate::db::{Value, values};
use crate::{StoreError, Tx, keys};

/// PostgreSQL's advisory lock that claims take; any number that nothing else takes.
const CLAIMS: i64 = 0x766f_6c76_656c_6c65;

/// Waiting rows that one statement looks at, for each rotation wanted.
const WINDOW: u32 = 4;

/// What becomes of the lease when a state is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It stays as it is.
    Keep,
    /// It is prolonged.
    Until(Micros),
    /// It ends now; the rotation is claimed again after `not_before`.
    Release {
        /// The earliest moment of the next claim.
        not_before: Micros,
    },
}

/// Takes leases of at most `limit` rotations that wait, oldest first; on each host of a target at most `per_target` are under way
/// at a time. What needs a customer's fragment other than the ones with these check values is left to other gateways.
///
/// # Errors
/// The database is not available.
pub async fn claim(
    tx: &mut Tx,
    owner: &str,
    now: Micros,
    until: Micros,
    (limit, per_target): (u32, u32),
    checks: &[String],
) -> Result<Vec<Rotation>, StoreError> {
    if tx.locks_rows() {
        tx.execute("SELECT pg_advisory_xact_lock($1)", values![CLAIMS]).await?;
    }
    let (sql, fragments) = claim_sql(tx.locks_rows(), checks);
    let mut claimed: Vec<Rotation> = Vec::new();
    // A statement misses a host only if others fill its window, and then it takes one at least.
    for _ in 0..limit {
        let wanted = limit.saturating_sub(u32::try_from(claimed.len()).unwrap_or(u32::MAX));
        if wanted == 0 {
            break;
        }
        let window = wanted.saturating_mul(WINDOW);
        let arguments = values![now.0, per_target, wanted, window, owner, until.0];
        let rows = tx.rows(&sql, [arguments, fragments.clone()].concat()).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            claimed.push(read(row)?);
        }
    }
    claimed.sort_by(|a, b| (a.not_before, &a.slot.account, a.id).cmp(&(b.not_before, &b.slot.account, b.id)));
    Ok(claimed)
}

/// The item's own target; the rotation's is only the one with which it takes its turn.
const TARGET: &str = "(SELECT o.target FROM items o WHERE o.account = rotations.account AND o.id = rotations.item)";

/// `$1` now, `$2` per host, `$3` how many, `$4` window, `$5` owner, `$6` until, then check values. The plus signs keep the planner from walking the
/// queue by lease instead of by age.
pub(crate) fn claim_sql(locks_rows: bool, checks: &[String]) -> (String, Vec<Value>) {
    let (openable, fragments) = keys::openable("rotations", ("item", TARGET), checks, 7);
    let skip = if locks_rows { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "WITH busy AS (
             SELECT account, target, host, COUNT(*) AS n FROM rotations WHERE open = 1 AND lease_until > $1
             GROUP BY account, target, host),
         front AS (
             SELECT account, id, target, host, not_before FROM rotations
             WHERE open = 1 AND not_before <= $1 AND +lease_until <= $1
             AND (account, target, host) NOT IN (SELECT account, target, host FROM busy WHERE n >= $2)
             AND {openable}
             ORDER BY not_before, account, id LIMIT $4 {skip}),
         ranked AS (
             SELECT account, id, not_before, COALESCE((SELECT n FROM busy b
                 WHERE b.account = f.account AND b.target = f.target AND b.host = f.host), 0)
                 + ROW_NUMBER() OVER (PARTITION BY account, target, host ORDER BY not_before, id) AS place
             FROM front f),
         picked AS (
             SELECT account, id FROM ranked WHERE place <= $2 ORDER BY not_before, account, id LIMIT $3)
         UPDATE rotations SET fence = fence + 1, lease_owner = $5, lease_until = $6
         WHERE (account, id) IN (SELECT account, id FROM picked) AND open = 1 AND +lease_until <= $1
         RETURNING {COLUMNS}"
    );
    (sql, fragments)
}

/// Prolongs a lease.
///
/// # Errors
/// [`StoreError::LostLease`] if another worker has it.
pub async fn renew(tx: &mut Tx, rotation: &Rotation, until: Micros) -> Result<(), StoreError> {
    let sql = "UPDATE rotations SET lease_until = $4 WHERE account = $1 AND id = $2 AND fence = $3 AND open = 1";
    fenced(tx.execute(sql, [key(rotation), values![until.0]].concat()).await?)
}

/// Saves a state, in the same transaction as whatever belongs to it. A rotation that has ended holds no lease.
///
/// # Errors
/// [`StoreError::LostLease`] if another worker has it.
pub async fn save(
    tx: &mut Tx,
    rotation: &Rotation,
    state: &State,
    message: &str,
    now: Micros,
    lease: Lease,
) -> Result<(), StoreError> {
    let over = state.stage.is_final();
    let (owner, until, not_before) = match lease {
        _ if over => (Some(""), Some(0), None),
        Lease::Keep => (None, None, None),
        Lease::Until(until) => (None, Some(until.0), None),
        Lease::Release { not_before } => (Some(""), Some(0), Some(not_before.0)),
    };
    let stage = format!("{}@{} ", state.stage.as_str(), now.0);
    let arguments = values![
        text(state)?,
        message,
        (!over).then_some(1_i64),
        over.then_some(now.0),
        owner,
        until,
        not_before,
        stage
    ];
    let sql = "UPDATE rotations SET state = $4, message = $5, open = $6, ended_at = $7,
               lease_owner = COALESCE($8, lease_owner), lease_until = COALESCE($9, lease_until),
               not_before = COALESCE($10, not_before),
               stages = CASE WHEN LENGTH(stages) < 2000 THEN stages || $11 ELSE stages END
               WHERE account = $1 AND id = $2 AND fence = $3 AND open = 1";
    fenced(tx.execute(sql, [key(rotation), arguments].concat()).await?)
}

/// Gives the lease back; the rotation is claimed again after `not_before`.
///
/// # Errors
/// [`StoreError::LostLease`] if another worker has it.
pub async fn release(tx: &mut Tx, rotation: &Rotation, not_before: Micros) -> Result<(), StoreError> {
    let sql = "UPDATE rotations SET lease_until = 0, lease_owner = '', not_before = $4
               WHERE account = $1 AND id = $2 AND fence = $3 AND open = 1";
    fenced(tx.execute(sql, [key(rotation), values![not_before.0]].concat()).await?)
}

/// Takes the leases of a worker known to be dead away from it, and tells how many. They last until `not_before`, so that nobody, not
/// even [`pull_forward`], touches a target on which its last words may still be under way; should it live after all, its writes
/// are refused.
///
/// # Errors
/// The database is not available.
pub async fn release_dead(tx: &mut Tx, owner: &str, now: Micros, not_before: Micros) -> Result<u64, StoreError> {
    tx.execute(
        "UPDATE rotations SET lease_owner = '', lease_until = $3, fence = fence + 1,
         not_before = CASE WHEN not_before > $3 THEN not_before ELSE $3 END
         WHERE open = 1 AND lease_owner = $1 AND lease_until > $2",
        values![owner, now.0, not_before.0],
    )
    .await
}

/// The earliest moment after `now` at which a rotation that could not be claimed at `now` perhaps can: its time comes, or a lease
/// ends. Ask after a [`claim`] at the same `now` that gave less than its limit; else there is more to claim already.
///
/// # Errors
/// The database is not available.
pub async fn next_wake(tx: &mut Tx, now: Micros) -> Result<Option<Micros>, StoreError> {
    let row = tx.row(wake_sql(), values![now.0]).await?;
    Ok(row.ok_or(StoreError::Corrupt("the queue"))?.opt_int(0)?.map(Micros))
}

pub(crate) const fn wake_sql() -> &'static str {
    "SELECT MIN(at) FROM (
         SELECT MIN(not_before) AS at FROM rotations WHERE open = 1 AND not_before > $1 AND +lease_until <= $1
         UNION ALL
         SELECT MIN(lease_until) FROM rotations WHERE open = 1 AND lease_until > $1) AS moments"
}

/// Lets the waiting rotations of an item be claimed at once, and tells how many. Those that a worker holds stay as they are.
///
/// # Errors
/// The database is not available.
pub async fn pull_forward(tx: &mut Tx, account: &AccountId, item: ItemId, now: Micros) -> Result<u64, StoreError> {
    let sql = "UPDATE rotations SET not_before = $3
               WHERE account = $1 AND item = $2 AND open = 1 AND +lease_until <= $3 AND not_before > $3";
    tx.execute(sql, values![account.0.as_str(), item.0, now.0]).await
}

fn key(rotation: &Rotation) -> Vec<Value> {
    values![rotation.slot.account.0.as_str(), rotation.id.0, rotation.fence]
}

const fn fenced(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::LostLease) }
}
