//! Sessions of the console: since when, and when their user last did something. The token they stand on is elsewhere.

use volvelle_domain::ids::{AccountId, Micros};

use crate::db::values;
use crate::{StoreError, Tx};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The tenant.
    pub account: AccountId,
    /// SHA-256 of its token.
    pub hash: [u8; 32],
    /// When it began.
    pub started_at: Micros,
    /// When its user last did something.
    pub seen_at: Micros,
}

/// Stores a session, and forgets those that were last used before `ended`.
///
/// # Errors
/// The database is not available.
pub async fn add(tx: &mut Tx, session: &Session, ended: Micros) -> Result<(), StoreError> {
    tx.execute("DELETE FROM console_sessions WHERE seen_at < $1", values![ended.0]).await?;
    let sql = "INSERT INTO console_sessions (account, hash, started_at, seen_at) VALUES ($1, $2, $3, $4)";
    let values = values![session.account.0.as_str(), session.hash.as_slice(), session.started_at.0, session.seen_at.0];
    tx.execute(sql, values).await.map(|_| ())
}

/// The session on that token, if there is one.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, hash: &[u8; 32]) -> Result<Option<Session>, StoreError> {
    let sql = "SELECT account, hash, started_at, seen_at FROM console_sessions WHERE hash = $1";
    let Some(row) = tx.row(sql, values![hash.as_slice()]).await? else { return Ok(None) };
    Ok(Some(Session {
        account: AccountId(row.text(0)?),
        hash: row.bytes(1, "a session")?,
        started_at: Micros(row.int(2)?),
        seen_at: Micros(row.int(3)?),
    }))
}

/// Notes that the user did something; never sets the clock back.
///
/// # Errors
/// The database is not available.
pub async fn touch(tx: &mut Tx, hash: &[u8; 32], now: Micros) -> Result<(), StoreError> {
    let sql = "UPDATE console_sessions SET seen_at = $2 WHERE hash = $1 AND seen_at < $2";
    tx.execute(sql, values![hash.as_slice(), now.0]).await.map(|_| ())
}

/// Forgets a session.
///
/// # Errors
/// The database is not available.
pub async fn remove(tx: &mut Tx, hash: &[u8; 32]) -> Result<(), StoreError> {
    tx.execute("DELETE FROM console_sessions WHERE hash = $1", values![hash.as_slice()]).await.map(|_| ())
}
