//! Wrapping every sealed record of an account under another key: where the work stands, who does it, and what is left.
//!
//! What must stay true: a record is replaced only if it is still, byte for byte, the one that was wrapped anew, so that whoever
//! writes at the same time never loses; progress is saved in the transaction of the records it counts, under a fence, so that a
//! gateway that was killed or overtaken changes nothing more.

use serde::{Deserialize, Serialize};
use volvelle_domain::ids::{AccountId, ItemId, Micros, TargetId, Uid, Version};
use volvelle_domain::path::ItemPath;

use crate::db::{Row, Value, values};
use crate::{StoreError, Tx, accounts};

const COLUMNS: &str = "account, old_key, new_key, stage, place, total, done, skipped, rate, fence, lease_until, \
                       started_at, switched_at, ended_at, message, suite";

/// How far a change of keys has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The holders are to make the new key.
    Generate,
    /// New records get the new key; old ones are wrapped anew.
    Wrap,
    /// No record has an older key.
    Wrapped,
    /// The holders were told to destroy the older keys.
    Retired,
}

impl Stage {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Wrap => "wrap",
            Self::Wrapped => "wrapped",
            Self::Retired => "retired",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Generate, Self::Wrap, Self::Wrapped, Self::Retired].into_iter().find(|stage| stage.as_str() == word)
    }
}

/// A sealed record's place in the tables; the walk goes through items, then targets, each in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// A version of an item.
    Item(ItemId, Version, String),
    /// A version of a target.
    Target(TargetId, Version),
}

impl Place {
    /// Before every record.
    #[must_use]
    pub const fn start() -> Self {
        Self::Item(ItemId(0), 0, String::new())
    }
}

/// A sealed record and what binds it to its place.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it lies.
    pub place: Place,
    /// What the object is called.
    pub name: ItemPath,
    /// What the object is known by for its whole life.
    pub uid: Uid,
    /// The record.
    pub sealed: Vec<u8>,
}

/// How the id of its key is found in a sealed record, which is none of the store's business otherwise.
#[derive(Clone, Copy, Debug)]
pub struct KeyMark {
    /// The first of its bytes, counted from 1.
    pub at: u32,
    /// The bytes of the key that records are to have.
    pub wanted: [u8; 4],
}

/// One account's change of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// The tenant.
    pub account: AccountId,
    /// The key that new records had before.
    pub old_key: u32,
    /// The key that every record is to have.
    pub new_key: u32,
    /// How far it has come.
    pub stage: Stage,
    /// The last record that was looked at in this pass.
    pub place: Place,
    /// Records to be wrapped anew when it began.
    pub total: i64,
    /// Of these, and of those that came since, so many are done.
    pub done: i64,
    /// Records of this pass that could not be wrapped.
    pub skipped: i64,
    /// Records in a second, at most.
    pub rate: u32,
    /// Raised by every claim.
    pub fence: i64,
    /// Until when a gateway has it.
    pub lease_until: Micros,
    /// When it was asked for.
    pub started_at: Micros,
    /// When new records got the new key.
    pub switched_at: Option<Micros>,
    /// When the last record was done.
    pub ended_at: Option<Micros>,
    /// Why it waits.
    pub message: String,
    /// The number of the cryptographic suite of the key that every record is to have.
    pub suite: u8,
}

/// Begins a change of keys, in place of one that has ended, or whose key was never made. Its fence goes on, so that whoever worked
/// on that one changes nothing more.
///
/// # Errors
/// [`StoreError::Conflict`] if records are being wrapped.
pub async fn begin(
    tx: &mut Tx,
    account: &AccountId,
    (old_key, new_key, suite): (u32, u32, u8),
    rate: u32,
    now: Micros,
) -> Result<(), StoreError> {
    accounts::lock(tx, account).await?;
    let begun = tx
        .execute(
            "INSERT INTO rekeys (account, old_key, new_key, stage, place, total, done, skipped, rate, fence, lease_owner,
             lease_until, started_at, message, suite)
             VALUES ($1, $2, $3, 'generate', $4, 0, 0, 0, $5, 0, '', 0, $6, '', $7)
             ON CONFLICT (account) DO UPDATE SET old_key = excluded.old_key, new_key = excluded.new_key,
             stage = 'generate', place = excluded.place, total = 0, done = 0, skipped = 0, rate = excluded.rate,
             fence = rekeys.fence + 1, lease_owner = '', lease_until = 0, started_at = excluded.started_at,
             switched_at = NULL, ended_at = NULL, message = '', suite = excluded.suite WHERE rekeys.stage <> 'wrap'",
            values![account.0.as_str(), old_key, new_key, text(&Place::start())?, rate, now.0, u32::from(suite)],
        )
        .await?;
    if begun == 1 { Ok(()) } else { Err(StoreError::Conflict("a change of this account's key")) }
}

/// Every change of keys that is known, by account.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx) -> Result<Vec<Rekey>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rekeys ORDER BY account");
    tx.rows(&sql, values![]).await?.iter().map(read).collect()
}

/// Another bound for every change of keys that is under way.
///
/// # Errors
/// The database is not available.
pub async fn set_rate(tx: &mut Tx, rate: u32) -> Result<u64, StoreError> {
    tx.execute("UPDATE rekeys SET rate = $1", values![rate]).await
}

/// Takes the lease of one that waits, if there is one.
///
/// # Errors
/// The database is not available.
pub async fn claim(tx: &mut Tx, owner: &str, now: Micros, until: Micros) -> Result<Option<Rekey>, StoreError> {
    let skip = if tx.locks_rows() { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "UPDATE rekeys SET fence = fence + 1, lease_owner = $1, lease_until = $3 WHERE account IN (
             SELECT account FROM rekeys WHERE stage IN ('generate', 'wrap') AND lease_until <= $2
             ORDER BY lease_until, account LIMIT 1 {skip})
         RETURNING {COLUMNS}"
    );
    tx.row(&sql, values![owner, now.0, until.0]).await?.map(|row| read(&row)).transpose()
}

/// Ends the leases of a gateway that is known to be dead.
///
/// # Errors
/// The database is not available.
pub async fn release_dead(tx: &mut Tx, owner: &str) -> Result<u64, StoreError> {
    let sql = "UPDATE rekeys SET lease_until = 0, lease_owner = '', fence = fence + 1 WHERE lease_owner = $1";
    tx.execute(sql, values![owner]).await
}

/// Gives the lease back; it is claimed again after `not_before`.
///
/// # Errors
/// [`StoreError::LostLease`] if another gateway has it.
pub async fn release(tx: &mut Tx, rekey: &Rekey, not_before: Micros, message: &str) -> Result<(), StoreError> {
    let sql = "UPDATE rekeys SET lease_until = $3, lease_owner = '', message = $4 WHERE account = $1 AND fence = $2";
    let changed = tx.execute(sql, [fenced(rekey), values![not_before.0, message]].concat()).await?;
    held(changed)
}

/// The new key is there: from now on new records get it, and the walk begins.
///
/// # Errors
/// [`StoreError::LostLease`] if another gateway has it.
pub async fn switch(tx: &mut Tx, rekey: &Rekey, total: i64, now: Micros) -> Result<(), StoreError> {
    let key = values![rekey.account.0.as_str(), rekey.new_key];
    tx.execute("UPDATE accounts SET key_id = $2, generation = generation + 1 WHERE id = $1", key).await?;
    let sql = "UPDATE rekeys SET stage = 'wrap', total = $3, switched_at = $4, message = ''
               WHERE account = $1 AND fence = $2 AND stage = 'generate'";
    held(tx.execute(sql, [fenced(rekey), values![total, now.0]].concat()).await?)
}

/// Records after a place that have another key than the wanted one, in order, at most `limit`; none if the walk is at its end.
///
/// # Errors
/// The database is not available.
pub async fn after(
    tx: &mut Tx,
    account: &AccountId,
    mark: KeyMark,
    place: &Place,
    limit: u32,
) -> Result<Vec<Found>, StoreError> {
    let other = || values![account.0.as_str(), mark.at, mark.wanted.as_slice()];
    let targets = match place {
        Place::Item(item, version, host) => {
            let sql = "SELECT v.item, v.version, v.host, i.name, i.uid, v.sealed FROM item_versions v
                       JOIN items i ON i.account = v.account AND i.id = v.item
                       WHERE v.account = $1 AND substr(v.sealed, CAST($2 AS INTEGER), 4) <> $3
                       AND (v.item > $4 OR (v.item = $4 AND (v.version > $5 OR (v.version = $5 AND v.host > $6))))
                       ORDER BY v.item, v.version, v.host LIMIT $7";
            let bounds = values![item.0, *version, host.as_str(), limit];
            let found: Vec<Found> =
                tx.rows(sql, [other(), bounds].concat()).await?.iter().map(read_item).collect::<Result<_, _>>()?;
            if !found.is_empty() {
                return Ok(found);
            }
            (0, 0)
        }
        Place::Target(target, version) => (target.0, *version),
    };
    let sql = "SELECT v.target, v.version, t.name, t.uid, v.sealed FROM target_versions v
               JOIN targets t ON t.account = v.account AND t.id = v.target
               WHERE v.account = $1 AND substr(v.sealed, CAST($2 AS INTEGER), 4) <> $3
               AND (v.target > $4 OR (v.target = $4 AND v.version > $5)) ORDER BY v.target, v.version LIMIT $6";
    let bounds = values![targets.0, targets.1, limit];
    tx.rows(sql, [other(), bounds].concat()).await?.iter().map(read_target).collect()
}

/// How many records of an account have another key than the wanted one.
///
/// # Errors
/// The database is not available.
pub async fn left(tx: &mut Tx, account: &AccountId, mark: KeyMark) -> Result<i64, StoreError> {
    let sql = "SELECT (SELECT COUNT(*) FROM item_versions WHERE account = $1 AND substr(sealed, CAST($2 AS INTEGER), 4) <> $3)
               + (SELECT COUNT(*) FROM target_versions WHERE account = $1 AND substr(sealed, CAST($2 AS INTEGER), 4) <> $3)";
    let row = tx.row(sql, values![account.0.as_str(), mark.at, mark.wanted.as_slice()]).await?;
    row.ok_or(StoreError::Corrupt("a count"))?.int(0)
}

/// Puts records in the places of others, where those are still there, and tells how many were. Nobody who remembers another one
/// reads anything else by it, so nothing is told to caches.
///
/// # Errors
/// The account does not exist.
pub async fn replace_all(tx: &mut Tx, account: &AccountId, wrapped: &[(&Found, Vec<u8>)]) -> Result<i64, StoreError> {
    accounts::lock(tx, account).await?;
    let mut replaced = 0;
    for (found, sealed) in wrapped {
        replaced += i64::from(replace(tx, account, found, sealed).await?);
    }
    Ok(replaced)
}

async fn replace(tx: &mut Tx, account: &AccountId, found: &Found, sealed: &[u8]) -> Result<bool, StoreError> {
    let (account, both) = (account.0.as_str(), || values![found.sealed.as_slice(), sealed]);
    let changed = match &found.place {
        Place::Item(item, version, host) => {
            let sql = "UPDATE item_versions SET sealed = $6
                       WHERE account = $1 AND item = $2 AND version = $3 AND host = $4 AND sealed = $5";
            tx.execute(sql, [values![account, item.0, *version, host.as_str()], both()].concat()).await?
        }
        Place::Target(target, version) => {
            let sql = "UPDATE target_versions SET sealed = $5
                       WHERE account = $1 AND target = $2 AND version = $3 AND sealed = $4";
            tx.execute(sql, [values![account, target.0, *version], both()].concat()).await?
        }
    };
    Ok(changed == 1)
}

/// Saves how far the walk has come, in the transaction of the records it counts.
///
/// # Errors
/// [`StoreError::LostLease`] if another gateway has it.
pub async fn advance(
    tx: &mut Tx,
    rekey: &Rekey,
    (place, done, skipped): (&Place, i64, i64),
    until: Micros,
) -> Result<(), StoreError> {
    let sql = "UPDATE rekeys SET place = $3, done = done + $4, skipped = $5, lease_until = $6, message = ''
               WHERE account = $1 AND fence = $2";
    held(tx.execute(sql, [fenced(rekey), values![text(place)?, done, skipped, until.0]].concat()).await?)
}

/// No record has another key any more. Raises the account's content number, so that no older record stays in anybody's memory.
///
/// # Errors
/// [`StoreError::LostLease`] if another gateway has it.
pub async fn finish(tx: &mut Tx, rekey: &Rekey, now: Micros) -> Result<(), StoreError> {
    accounts::bump_content(tx, &rekey.account).await?;
    let sql = "UPDATE rekeys SET stage = 'wrapped', ended_at = $3, lease_until = 0, lease_owner = '', message = ''
               WHERE account = $1 AND fence = $2";
    held(tx.execute(sql, [fenced(rekey), values![now.0]].concat()).await?)
}

/// The holders were told to destroy the older keys, or it turned out that they are needed and the walk begins anew.
///
/// # Errors
/// [`StoreError::NotFound`] if the change is not where it was.
pub async fn set_stage(tx: &mut Tx, rekey: &Rekey, stage: Stage) -> Result<(), StoreError> {
    let sql =
        "UPDATE rekeys SET stage = $3, place = $4, skipped = 0, lease_until = 0 WHERE account = $1 AND new_key = $2";
    let key = values![rekey.account.0.as_str(), rekey.new_key];
    let changed = tx.execute(sql, [key, values![stage.as_str(), text(&Place::start())?]].concat()).await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the change of keys")) }
}

fn fenced(rekey: &Rekey) -> Vec<Value> {
    values![rekey.account.0.as_str(), rekey.fence]
}

const fn held(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::LostLease) }
}

fn text(place: &Place) -> Result<String, StoreError> {
    serde_json::to_string(place).map_err(|_| StoreError::Corrupt("a place"))
}

fn name(row: &Row, column: usize) -> Result<ItemPath, StoreError> {
    ItemPath::parse(&row.text(column)?).map_err(|_| StoreError::Corrupt("a name"))
}

fn read_item(row: &Row) -> Result<Found, StoreError> {
    Ok(Found {
        place: Place::Item(ItemId(row.int(0)?), row.number(1, "a version number")?, row.text(2)?),
        name: name(row, 3)?,
        uid: Uid(row.bytes(4, "a uid")?),
        sealed: row.blob(5)?,
    })
}

fn read_target(row: &Row) -> Result<Found, StoreError> {
    Ok(Found {
        place: Place::Target(TargetId(row.int(0)?), row.number(1, "a version number")?),
        name: name(row, 2)?,
        uid: Uid(row.bytes(3, "a uid")?),
        sealed: row.blob(4)?,
    })
}

fn read(row: &Row) -> Result<Rekey, StoreError> {
    Ok(Rekey {
        account: AccountId(row.text(0)?),
        old_key: row.number(1, "a key id")?,
        new_key: row.number(2, "a key id")?,
        stage: Stage::parse(&row.text(3)?).ok_or(StoreError::Corrupt("a stage"))?,
        place: serde_json::from_str(&row.text(4)?).map_err(|_| StoreError::Corrupt("a place"))?,
        total: row.int(5)?,
        done: row.int(6)?,
        skipped: row.int(7)?,
        rate: row.number(8, "a rate")?,
        fence: row.int(9)?,
        lease_until: Micros(row.int(10)?),
        started_at: Micros(row.int(11)?),
        switched_at: row.opt_int(12)?.map(Micros),
        ended_at: row.opt_int(13)?.map(Micros),
        message: row.text(14)?,
        suite: row.number(15, "a suite")?,
    })
}
