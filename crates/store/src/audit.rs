//! The audit log: one hash chain per account. Each hash covers the one before, so nothing can be changed, left out or
//! moved without every later hash showing it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use volvelle_domain::ids::{AccountId, Micros};

use crate::db::{Row, Value, values};
use crate::{StoreError, Tx};

/// Entries written by one statement.
const BATCH: usize = 500;

/// Entries read by one statement.
const PAGE: u32 = 1000;

/// Entries one question looks at, at most.
const SCAN: usize = 50_000;

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

/// Which end of the chain comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they were written.
    #[default]
    OldestFirst,
    /// The last one first.
    NewestFirst,
}

/// Which entries are wanted. An empty text wants any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The whole actor.
    pub actor: String,
    /// The whole action.
    pub action: String,
    /// What the object begins with.
    pub object: String,
    /// The last entry seen, in the order asked for; 0 = begin with the first.
    pub after: i64,
    /// Which comes first.
    pub order: Order,
    /// How many, at most.
    pub limit: u32,
}

impl Filter {
    fn admits(&self, entry: &Entry) -> bool {
        (self.actor.is_empty() || self.actor == entry.actor)
            && (self.action.is_empty() || self.action == entry.action)
            && entry.object.starts_with(&self.object)
    }
}

/// Some of the entries wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order asked for.
    pub entries: Vec<Chained>,
    /// Where to go on ([`Filter::after`]); `None` when there is nothing more. A page may be empty and yet not the last: one
    /// question looks at a bounded number of entries.
    pub next: Option<i64>,
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

/// The entries a filter admits. They are read from the chained text, so that nothing outside the hashes can hide one.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, account: &AccountId, filter: &Filter) -> Result<Page, StoreError> {
    let sql = match filter.order {
        Order::OldestFirst => {
            "SELECT seq, entry, hash FROM audit WHERE account = $1 AND seq > $2 ORDER BY seq LIMIT $3"
        }
        Order::NewestFirst => {
            "SELECT seq, entry, hash FROM audit WHERE account = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3"
        }
    };
    let mut after = if filter.order == Order::NewestFirst && filter.after == 0 { i64::MAX } else { filter.after };
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let everything = filter.actor.is_empty() && filter.action.is_empty() && filter.object.is_empty();
    let size = if everything { PAGE.min(filter.limit) } else { PAGE };
    let mut entries = Vec::new();
    let mut seen = 0;
    while seen < SCAN && entries.len() < wanted {
        let rows = tx.rows(sql, values![account.0.as_str(), after, size]).await?;
        if rows.is_empty() {
            return Ok(Page { entries, next: None });
        }
        for row in &rows {
            let chained = read(row)?;
            after = chained.seq;
            if filter.admits(&chained.entry) {
                entries.push(chained);
            }
            if entries.len() == wanted {
                break;
            }
        }
        seen += rows.len();
    }
    Ok(Page { entries, next: Some(after) })
}

fn read(row: &Row) -> Result<Chained, StoreError> {
    let entry = serde_json::from_str(&row.text(1)?).map_err(|_| StoreError::Corrupt("an audit entry"))?;
    Ok(Chained { seq: row.int(0)?, entry, hash: row.bytes(2, "an audit hash")? })
}

/// Entries ever written, over all accounts: it only grows. What is remembered elsewhere and lies ahead of it means that an older
/// backup was restored.
///
/// # Errors
/// The database is not available.
pub async fn height(tx: &mut Tx) -> Result<i64, StoreError> {
    let row = tx.row("SELECT CAST(COALESCE(SUM(seq), 0) AS BIGINT) FROM audit_heads", values![]).await?;
    row.ok_or(StoreError::Corrupt("the audit log"))?.int(0)
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
