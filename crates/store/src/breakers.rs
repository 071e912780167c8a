//! Circuit breakers: a target that fails the same way again and again is left alone for a while.
//!
//! One counter per target and class of failure. While a breaker is open, failures of what was under way already do not
//! count: they say nothing new.

use volvelle_domain::connector::FailureClass;
use volvelle_domain::ids::{AccountId, Micros, TargetId};

use crate::db::{Row, values};
use crate::{StoreError, Tx};

/// How long a breaker stays open the first time.
const SHORTEST_SECONDS: i64 = 60;

/// How long it stays open at most.
const LONGEST_SECONDS: i64 = 3600;

/// Breakers that one [`list`] tells of at most.
const LISTED: u32 = 1000;

/// A breaker that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// The tenant.
    pub account: AccountId,
    /// The target left alone.
    pub target: TargetId,
    /// The class of failure that opened it.
    pub class: String,
    /// Failures in a row.
    pub failures: i64,
    /// Until when.
    pub open_until: Micros,
}

/// Counts a failure. From `threshold` failures in a row on, each opens the breaker: for a minute, then twice as long every
/// time, at most an hour. Tells until when, if this class's breaker is open now.
///
/// # Errors
/// The account does not exist.
pub async fn failed(
    tx: &mut Tx,
    (account, target): (&AccountId, TargetId),
    class: &str,
    now: Micros,
    threshold: u32,
) -> Result<Option<Micros>, StoreError> {
    let key = || values![account.0.as_str(), target.0, class];
    let row = tx
        .row(
            "INSERT INTO breakers (account, target, class, failures, open_until) VALUES ($1, $2, $3, 1, 0)
             ON CONFLICT (account, target, class) DO UPDATE
             SET failures = breakers.failures + CASE WHEN breakers.open_until > $4 THEN 0 ELSE 1 END
             RETURNING failures, open_until",
            [key(), values![now.0]].concat(),
        )
        .await?
        .ok_or(StoreError::Corrupt("a breaker"))?;
    let (failures, open_until) = (row.int(0)?, Micros(row.int(1)?));
    if open_until > now {
        return Ok(Some(open_until));
    }
    let beyond = failures - i64::from(threshold.max(1));
    if beyond < 0 {
        return Ok(None);
    }
    let doublings = u32::try_from(beyond).unwrap_or(u32::MAX).min(16);
    let until = now.plus_seconds((SHORTEST_SECONDS << doublings).min(LONGEST_SECONDS));
    let sql = "UPDATE breakers SET open_until = $4 WHERE account = $1 AND target = $2 AND class = $3";
    tx.execute(sql, [key(), values![until.0]].concat()).await?;
    Ok(Some(until))
}

/// Forgets every failure of a target.
///
/// # Errors
/// The database is not available.
pub async fn succeeded(tx: &mut Tx, account: &AccountId, target: TargetId) -> Result<(), StoreError> {
    let sql = "DELETE FROM breakers WHERE account = $1 AND target = $2";
    tx.execute(sql, values![account.0.as_str(), target.0]).await?;
    Ok(())
}

/// Until when a target is left alone, if it is: after failures of its own, or because the account of its parent was refused.
///
/// # Errors
/// The database is not available.
pub async fn open_until(
    tx: &mut Tx,
    account: &AccountId,
    target: TargetId,
    now: Micros,
) -> Result<Option<Micros>, StoreError> {
    let sql =
        "SELECT MAX(open_until) FROM breakers WHERE account = $1 AND open_until > $3 AND (target = $2 OR (class = $4
               AND target = (SELECT parent FROM targets WHERE account = $1 AND id = $2 AND kind <> 'linked')))";
    let refused = FailureClass::Auth.as_str();
    let row = tx.row(sql, values![account.0.as_str(), target.0, now.0, refused]).await?;
    Ok(row.ok_or(StoreError::Corrupt("a breaker"))?.opt_int(0)?.map(Micros))
}

/// The breakers open now, of all accounts; the one that closes last comes first.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, now: Micros) -> Result<Vec<Breaker>, StoreError> {
    let sql = "SELECT account, target, class, failures, open_until FROM breakers WHERE open_until > $1
               ORDER BY open_until DESC, account, target, class LIMIT $2";
    tx.rows(sql, values![now.0, LISTED]).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Breaker, StoreError> {
    Ok(Breaker {
        account: AccountId(row.text(0)?),
        target: TargetId(row.int(1)?),
        class: row.text(2)?,
        failures: row.int(3)?,
        open_until: Micros(row.int(4)?),
    })
}
