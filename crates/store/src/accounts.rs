//! Accounts: the tenants, and the two numbers that tell caches what is stale.

use volvelle_domain::account::{Account, AccountSettings};
use volvelle_domain::ids::{AccountId, Micros, Uid};

use crate::db::{Row, values};
use crate::{StoreError, Tx};

const COLUMNS: &str = "id, name, realm, key_id, operator, generation, content, created_at, settings";

/// Adds an account and begins its audit chain.
///
/// # Errors
/// It exists.
pub async fn add(tx: &mut Tx, account: &Account) -> Result<(), StoreError> {
    let settings = serde_json::to_string(&account.settings).map_err(|_| StoreError::Corrupt("settings"))?;
    tx.execute(
        "INSERT INTO accounts (id, name, realm, key_id, operator, generation, content, created_at, settings)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        values![
            account.id.0.as_str(),
            account.name.as_str(),
            account.realm.0.as_slice(),
            account.key_id,
            i64::from(account.operator),
            account.generation,
            account.content,
            account.created_at.0,
            settings
        ],
    )
    .await?;
    tx.execute(
        "INSERT INTO audit_heads (account, seq, hash) VALUES ($1, 0, $2)",
        values![account.id.0.as_str(), [0_u8; 32].as_slice()],
    )
    .await?;
    Ok(())
}

/// The account, if it exists.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, id: &AccountId) -> Result<Option<Account>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE id = $1");
    tx.row(&sql, values![id.0.as_str()]).await?.map(|row| read(&row)).transpose()
}

/// Every account, by id.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx) -> Result<Vec<Account>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM accounts ORDER BY id");
    tx.rows(&sql, values![]).await?.iter().map(read).collect()
}

/// Replaces the settings.
///
/// # Errors
/// The account does not exist.
pub async fn update_settings(tx: &mut Tx, id: &AccountId, settings: &AccountSettings) -> Result<(), StoreError> {
    let text = serde_json::to_string(settings).map_err(|_| StoreError::Corrupt("settings"))?;
    let changed = tx
        .execute(
            "UPDATE accounts SET settings = $2, generation = generation + 1 WHERE id = $1",
            values![id.0.as_str(), text],
        )
        .await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the account")) }
}

/// Tells everybody who cached a decision of this account that it may be stale.
///
/// # Errors
/// The account does not exist.
pub async fn bump_generation(tx: &mut Tx, id: &AccountId) -> Result<(), StoreError> {
    bump(tx, id, "UPDATE accounts SET generation = generation + 1 WHERE id = $1").await
}

/// Tells everybody who cached an item, a value or a target of this account that it may be stale.
///
/// # Errors
/// The account does not exist.
pub async fn bump_content(tx: &mut Tx, id: &AccountId) -> Result<(), StoreError> {
    bump(tx, id, "UPDATE accounts SET content = content + 1 WHERE id = $1").await
}

async fn bump(tx: &mut Tx, id: &AccountId, sql: &str) -> Result<(), StoreError> {
    let changed = tx.execute(sql, values![id.0.as_str()]).await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the account")) }
}

/// Generation and content: what was cached under other numbers may be stale.
///
/// # Errors
/// The account does not exist.
pub async fn stamp(tx: &mut Tx, id: &AccountId) -> Result<(i64, i64), StoreError> {
    let row = tx.row("SELECT generation, content FROM accounts WHERE id = $1", values![id.0.as_str()]).await?;
    let row = row.ok_or(StoreError::NotFound("the account"))?;
    Ok((row.int(0)?, row.int(1)?))
}

/// Takes the account's row, which every writer of the account takes before any other row.
pub(crate) async fn lock(tx: &mut Tx, id: &AccountId) -> Result<(), StoreError> {
    let wait = if tx.locks_rows() { "FOR NO KEY UPDATE" } else { "" };
    let row = tx.row(&format!("SELECT id FROM accounts WHERE id = $1 {wait}"), values![id.0.as_str()]).await?;
    row.map(|_| ()).ok_or(StoreError::NotFound("the account"))
}

fn read(row: &Row) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId(row.text(0)?),
        name: row.text(1)?,
        realm: Uid(row.bytes(2, "a realm")?),
        key_id: row.number(3, "a key id")?,
        operator: row.int(4)? != 0,
        generation: row.int(5)?,
        content: row.int(6)?,
        created_at: Micros(row.int(7)?),
        settings: serde_json::from_str(&row.text(8)?).map_err(|_| StoreError::Corrupt("settings"))?,
    })
}
