//! The audit log: one hash chain per account. Each hash covers the one before, so nothing can be changed, left out or
//! moved without every later hash showing it.
//!
//! Entries written together lie in one row, one line of JSON each: a crowd of readers costs the database one row.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use volvelle_domain::ids::{AccountId, Micros};

use crate::db::{Row, values};
use crate::{StoreError, Tx};

/// Most entries of one row.
const BLOCK: usize = 256;

/// Bytes of most lines.
const LINE: usize = 320;

/// Rows read by one statement.
const PAGE: u32 = 100;

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
    /// How its evaluations are named in the holders' logs; empty if there were none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
}

/// The same in somebody else's memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Said<'a> {
    /// When.
    pub at: Micros,
    /// Who.
    pub actor: &'a str,
    /// What.
    pub action: &'a str,
    /// On what.
    pub object: &'a str,
    /// How it ended.
    pub outcome: &'a str,
    /// From where.
    pub remote: &'a str,
    /// More, in words.
    pub detail: &'a str,
    /// How its evaluations are named in the holders' logs; empty if there were none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request: &'a str,
}

/// An entry as it is stored and hashed: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(String);

impl Said<'_> {
    /// The line to be stored.
    ///
    /// # Panics
    /// Never: texts and a number always make JSON.
    #[must_use]
    pub fn line(&self) -> Line {
        let mut line = Vec::with_capacity(LINE);
        serde_json::to_writer(&mut line, self).expect("texts and a number make JSON");
        Line(String::from_utf8(line).expect("JSON is UTF-8"))
    }
}

impl Entry {
    /// The line to be stored.
    #[must_use]
    pub fn line(&self) -> Line {
        let Self { at, actor, action, object, outcome, remote, detail, request } = self;
        Said { at: *at, actor, action, object, outcome, remote, detail, request }.line()
    }
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
    let lines: Vec<Line> = entries.iter().map(Entry::line).collect();
    append_lines(tx, account, &lines).await.map(|_| ())
}

/// Where a chain ends. Whoever remembers it can append without asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the last entry.
    seq: i64,
    hash: [u8; 32],
}

/// Appends entries that are lines already, and tells where the chain ends then.
///
/// # Errors
/// The account does not exist.
pub async fn append_lines(tx: &mut Tx, account: &AccountId, lines: &[Line]) -> Result<Head, StoreError> {
    let count = i64::try_from(lines.len()).map_err(|_| StoreError::Forbidden("so many entries"))?;
    // The update locks the head, so that chains grow one transaction after the other.
    let row = tx
        .row(
            "UPDATE audit_heads SET seq = seq + $2 WHERE account = $1 RETURNING seq, hash",
            values![account.0.as_str(), count],
        )
        .await?
        .ok_or(StoreError::NotFound("the account"))?;
    let (blocks, head) = chain(Head { seq: row.int(0)? - count, hash: row.bytes(1, "an audit hash")? }, lines);
    insert(tx, account, blocks).await?;
    tx.execute(
        "UPDATE audit_heads SET hash = $2 WHERE account = $1",
        values![account.0.as_str(), head.hash.as_slice()],
    )
    .await?;
    Ok(head)
}

/// The same by somebody who remembers the chain's end and the account's stamp, in as few statements as can be. `None`, and nothing
/// is written, if one of them is not so any more.
///
/// # Errors
/// The database is not available.
pub async fn append_behind(
    tx: &mut Tx,
    account: &AccountId,
    (end, stamp): (Head, (i64, i64)),
    lines: &[Line],
) -> Result<Option<Head>, StoreError> {
    let (blocks, head) = chain(end, lines);
    let moved = tx
        .execute(
            "UPDATE audit_heads SET seq = $2, hash = $3 WHERE account = $1 AND seq = $4 AND hash = $5 AND EXISTS \
             (SELECT 1 FROM accounts WHERE id = $1 AND generation = $6 AND content = $7)",
            values![account.0.as_str(), head.seq, head.hash.as_slice(), end.seq, end.hash.as_slice(), stamp.0, stamp.1],
        )
        .await?;
    if moved == 0 {
        return Ok(None);
    }
    insert(tx, account, blocks).await?;
    Ok(Some(head))
}

/// The rows that lengthen a chain, and its new end.
fn chain(end: Head, lines: &[Line]) -> (Vec<Link>, Head) {
    let Head { mut seq, mut hash } = end;
    let mut links = Vec::with_capacity(lines.len().div_ceil(BLOCK));
    for block in lines.chunks(BLOCK) {
        let before = hash;
        let mut entries = String::with_capacity(block.iter().map(|line| line.0.len() + 1).sum());
        for Line(line) in block {
            seq += 1;
            hash = link(&hash, seq, line);
            if !entries.is_empty() {
                entries.push('\n');
            }
            entries.push_str(line);
        }
        links.push(Link { entries, before, end: Head { seq, hash } });
    }
    (links, Head { seq, hash })
}

/// A row to be written.
struct Link {
    entries: String,
    before: [u8; 32],
    end: Head,
}

async fn insert(tx: &mut Tx, account: &AccountId, links: Vec<Link>) -> Result<(), StoreError> {
    for Link { entries, before, end } in links {
        tx.execute(
            "INSERT INTO audit (account, seq, entries, hash_before, hash) VALUES ($1, $2, $3, $4, $5)",
            values![account.0.as_str(), end.seq, entries, before.as_slice(), end.hash.as_slice()],
        )
        .await?;
    }
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
    let newest = filter.order == Order::NewestFirst;
    let sql = if newest {
        "SELECT seq, entries, hash_before FROM audit WHERE account = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3"
    } else {
        "SELECT seq, entries, hash_before FROM audit WHERE account = $1 AND seq > $2 ORDER BY seq LIMIT $3"
    };
    let mut after = if newest && filter.after == 0 { i64::MAX } else { filter.after };
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let rows_wanted = filter.limit.clamp(1, PAGE);
    let mut entries = Vec::new();
    let mut seen = 0;
    while seen < SCAN && entries.len() < wanted {
        // A row is known by its last entry: the one that holds the entry before `after` may reach beyond it.
        let from = if newest { after.saturating_add(BLOCK as i64 - 1) } else { after };
        let rows = tx.rows(sql, values![account.0.as_str(), from, rows_wanted]).await?;
        let mut moved = false;
        for row in &rows {
            let mut block = Block::read(row)?.unfold()?;
            if newest {
                block.reverse();
            }
            for chained in block {
                let passed = if newest { chained.seq >= after } else { chained.seq <= after };
                if passed || seen == SCAN || entries.len() == wanted {
                    continue;
                }
                (after, moved) = (chained.seq, true);
                seen += 1;
                if filter.admits(&chained.entry) {
                    entries.push(chained);
                }
            }
        }
        if !moved {
            return Ok(Page { entries, next: None });
        }
    }
    Ok(Page { entries, next: Some(after) })
}

/// One row of the log.
struct Block {
    /// Of its last entry.
    seq: i64,
    text: String,
    before: [u8; 32],
}

impl Block {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self { seq: row.int(0)?, text: row.text(1)?, before: row.bytes(2, "an audit hash")? })
    }

    fn lines(&self) -> impl Iterator<Item = (i64, &str)> {
        let count = i64::try_from(self.text.split('\n').count()).unwrap_or(i64::MAX);
        (self.seq.saturating_sub(count) + 1..).zip(self.text.split('\n'))
    }

    fn unfold(&self) -> Result<Vec<Chained>, StoreError> {
        let mut hash = self.before;
        let mut chained = Vec::new();
        for (seq, line) in self.lines() {
            hash = link(&hash, seq, line);
            let entry = serde_json::from_str(line).map_err(|_| StoreError::Corrupt("an audit entry"))?;
            chained.push(Chained { seq, entry, hash });
        }
        Ok(chained)
    }
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
                "SELECT seq, entries, hash_before, hash FROM audit WHERE account = $1 AND seq > $2 ORDER BY seq LIMIT $3",
                values![account.0.as_str(), seq, PAGE],
            )
            .await?;
        for row in &rows {
            let block = Block::read(row)?;
            let starts_here = block.before == hash && block.lines().next().is_some_and(|(first, _)| first == seq + 1);
            if !starts_here {
                return Ok(Verdict::BrokenAt(seq + 1));
            }
            for (next, line) in block.lines() {
                (seq, hash) = (next, link(&hash, next, line));
            }
            if row.blob(3)? != hash {
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
