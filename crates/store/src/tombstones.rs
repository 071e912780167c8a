//! Deleted versions that not every holder has buried yet: what a transaction that deletes leaves for later.
//!
//! What must stay true: a row is written in the transaction of the deletion and goes only when every holder has the version buried.

use volvelle_domain::ids::{AccountId, Micros};

use crate::db::{Row, values};
use crate::{StoreError, Tx, counters};

/// A deleted version on its way to the holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The tenant.
    pub account: AccountId,
    /// Its number there.
    pub id: i64,
    /// What its record was evaluated for.
    pub input: Vec<u8>,
    /// Indices of the holders that have it, as bits.
    pub holders: u16,
}

/// How many are on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// All of them.
    pub count: i64,
    /// When the oldest was deleted.
    pub oldest: Option<Micros>,
}

/// Leaves deleted versions for the holders.
///
/// # Errors
/// The account does not exist.
pub async fn add(tx: &mut Tx, account: &AccountId, inputs: &[Vec<u8>], now: Micros) -> Result<(), StoreError> {
    for input in inputs {
        let id = counters::next(tx, account, "tombstone").await?;
        tx.execute(
            "INSERT INTO tombstones (account, id, input, holders, deleted_at) VALUES ($1, $2, $3, 0, $4)",
            values![account.0.as_str(), id, input.as_slice(), now.0],
        )
        .await?;
    }
    Ok(())
}

/// Those of any account that were deleted at `until` or before, after the one given in the order of accounts and numbers.
///
/// # Errors
/// The database is not available.
pub async fn waiting(
    tx: &mut Tx,
    until: Micros,
    (account, id): (&str, i64),
    limit: u32,
) -> Result<Vec<Tombstone>, StoreError> {
    let sql = "SELECT account, id, input, holders FROM tombstones
               WHERE (account > $1 OR (account = $1 AND id > $2)) AND deleted_at <= $3 ORDER BY account, id LIMIT $4";
    tx.rows(sql, values![account, id, until.0, limit]).await?.iter().map(read).collect()
}

/// Notes who has it; it goes when these are `all`.
///
/// # Errors
/// The database is not available.
pub async fn note(tx: &mut Tx, tombstone: &Tombstone, all: u16) -> Result<(), StoreError> {
    let key = values![tombstone.account.0.as_str(), tombstone.id];
    if tombstone.holders & all == all {
        tx.execute("DELETE FROM tombstones WHERE account = $1 AND id = $2", key).await?;
    } else {
        let sql = "UPDATE tombstones SET holders = $3 WHERE account = $1 AND id = $2";
        tx.execute(sql, [key, values![u32::from(tombstone.holders)]].concat()).await?;
    }
    Ok(())
}

/// How many are on their way, of all accounts.
///
/// # Errors
/// The database is not available.
pub async fn count(tx: &mut Tx) -> Result<Waiting, StoreError> {
    let row = tx.row("SELECT COUNT(*), MIN(deleted_at) FROM tombstones", values![]).await?;
    let row = row.ok_or(StoreError::Corrupt("the tombstones"))?;
    Ok(Waiting { count: row.int(0)?, oldest: row.opt_int(1)?.map(Micros) })
}

/// How many of them a holder still lacks, of all accounts.
///
/// # Errors
/// The database is not available.
pub async fn lacking(tx: &mut Tx, index: u8) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM tombstones WHERE (holders / $1) % 2 = 0";
    let row = tx.row(sql, values![1_i64 << (index & 15)]).await?;
    row.ok_or(StoreError::Corrupt("the tombstones"))?.int(0)
}

fn read(row: &Row) -> Result<Tombstone, StoreError> {
    Ok(Tombstone {
        account: AccountId(row.text(0)?),
        id: row.int(1)?,
        input: row.blob(2)?,
        holders: row.number(3, "a tombstone")?,
    })
}
