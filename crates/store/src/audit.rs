//! The audit log: one hash chain per account. Each hash covers the one before, so nothing can be changed, left out or
//! moved without every later hash showing it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use volvelle_domain::ids::{AccountId, Micros};

use crate::db::{Value, values};
use crate::{StoreError, Tx};

/// Entries written by one statement.
const BATCH: usize = 500;

/// What happened. Never a value, key or token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Micros,
    /// Who: an access id, or `volvelle` for what it does by itself.
    pub actor: String,
    /// What: `get_rotated_secret_value`, `rotate_item`, …
    pub action: String,
    /// On what: a path.
    pub object: String,
    /// `ok`, `denied` or `failed`.
    pub outcome: String,
    /// From where: an address; empty for what Volvelle does by itself.
    pub remote: String,
    /// More, in words; may be empty.
    pub detail: String,
}

/// An entry with its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chained {
    /// Counted from 1.
    pub seq: i64,
    /// What happened.
    pub entry: Entry,
    /// SHA-256 of the hash before and the entry as stored.
    pub hash: [u8; 32],
}

/// How far a chain holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of so many entries are as they were written.
    Whole(i64),
    /// This entry or one before it was changed, left out or moved.
    BrokenAt(i64),
}

/// Appends entries to an account's chain, in order.
///
/// # Errors
/// The account does not exist.
pub async fn append(tx: &mut Tx, account: &AccountId, entries: &[Entry]) -> Result<(), StoreError> {
    for batch in entries.chunks(BATCH) {
        append_batch(tx, account, batch).await?;
    }
    Ok(())
}

async fn append_batch(tx: &mut Tx, account: &AccountId, entries: &[Entry]) -> Result<(), StoreError> {
    let count = i64::try_from(entries.len()).map_err(|_| StoreError::Forbidden("so many entries"))?;
    // The update locks the head, so that chains grow one transaction after the other.
    let head = tx
        .row(
            "UPDATE audit_heads SET seq = seq + $2 WHERE account = $1 RETURNING seq, hash",
            values![account.0.as_str(), count],
        )
        .await?
        .ok_or(StoreError::NotFound("the account"))?;
    let (mut seq, mut hash) = (head.int(0)? - count, head.bytes(1, "an audit hash")?);
    let mut sql = String::from("INSERT INTO audit (account, seq, at, entry, hash) VALUES ");
    let mut arguments: Vec<Value> = Vec::with_capacity(entries.len() * 5);
    for (n, entry) in entries.iter().enumerate() {
        seq += 1;
        let text = serde_json::to_string(entry).map_err(|_| StoreError::Corrupt("an audit entry"))?;
        hash = link(&hash, seq, &text);
        let first = n * 5 + 1;
        let comma = if n == 0 { "" } else { ", " };
        sql.push_str(&format!("{comma}(${first}, ${}, ${}, ${}, ${})", first + 1, first + 2, first + 3, first + 4));
        arguments.extend(values![account.0.as_str(), seq, entry.at.0, text, hash.as_slice()]);
    }
    if !entries.is_empty() {
        tx.execute(&sql, arguments).await?;
    }
    tx.execute("UPDATE audit_heads SET hash = $2 WHERE account = $1", values![account.0.as_str(), hash.as_slice()])
        .await?;
    Ok(())
}

fn link(before: &[u8; 32], seq: i64, text: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(seq.to_be_bytes());
    hasher.update(text.as_bytes());
    hasher.finalize().into()
}

/// Entries after `after`, at most `limit`, oldest first.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, account: &AccountId, after: i64, limit: u32) -> Result<Vec<Chained>, StoreError> {
    let rows = tx
        .rows(
            "SELECT seq, entry, hash FROM audit WHERE account = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            values![account.0.as_str(), after, limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let entry = serde_json::from_str(&row.text(1)?).map_err(|_| StoreError::Corrupt("an audit entry"))?;
            Ok(Chained { seq: row.int(0)?, entry, hash: row.bytes(2, "an audit hash")? })
        })
        .collect()
}

/// Computes the whole chain again and compares it with what is stored.
///
/// # Errors
/// The database is not available.
pub async fn verify(tx: &mut Tx, account: &AccountId) -> Result<Verdict, StoreError> {
    let (mut seq, mut hash) = (0_i64, [0_u8; 32]);
    loop {
        let rows = tx
            .rows(
                "SELECT seq, entry, hash FROM audit WHERE account = $1 AND seq > $2 ORDER BY seq LIMIT 1000",
                values![account.0.as_str(), seq],
            )
            .await?;
        for row in &rows {
            seq += 1;
            hash = link(&hash, seq, &row.text(1)?);
            if row.int(0)? != seq || row.blob(2)? != hash {
                return Ok(Verdict::BrokenAt(seq));
            }
        }
        if rows.is_empty() {
            break;
        }
    }
    let head = tx
        .row("SELECT seq, hash FROM audit_heads WHERE account = $1", values![account.0.as_str()])
        .await?
        .ok_or(StoreError::NotFound("the account"))?;
    let whole = head.int(0)? == seq && head.blob(1)? == hash;
    Ok(if whole { Verdict::Whole(seq) } else { Verdict::BrokenAt(seq + 1) })
}
