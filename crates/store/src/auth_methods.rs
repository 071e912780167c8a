//! Auth methods: who can ask for tokens. Every change raises the account's generation.

use volvelle_domain::identity::AuthMethod;
use volvelle_domain::ids::{AccessId, AccountId, AuthMethodId, Micros};
use volvelle_domain::path::ItemPath;

use crate::db::{Row, values};
use crate::{StoreError, Tx, accounts, counters};

const COLUMNS: &str = "account, id, access_id, name, kind, description, key_hash, key_changed_at, limits, \
                       delete_protection, created_at, modified_at";

/// Stores a new auth method under a number never used before; its `id` is ignored.
///
/// # Errors
/// The name or the access id is taken, or the account does not exist.
pub async fn add(tx: &mut Tx, method: &AuthMethod) -> Result<AuthMethodId, StoreError> {
    accounts::bump_generation(tx, &method.account).await?;
    let id = counters::next(tx, &method.account, "auth_method").await?;
    let limits = serde_json::to_string(&method.limits).map_err(|_| StoreError::Corrupt("limits"))?;
    tx.execute(
        "INSERT INTO auth_methods (account, id, access_id, name, kind, description, key_hash, key_changed_at, limits,
         delete_protection, created_at, modified_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        values![
            method.account.0.as_str(),
            id,
            method.access_id.0.as_str(),
            method.name.as_str(),
            method.kind.as_str(),
            method.description.as_str(),
            method.key_hash.as_slice(),
            method.key_changed_at.0,
            limits,
            i64::from(method.delete_protection),
            method.created_at.0,
            method.modified_at.0
        ],
    )
    .await?;
    Ok(AuthMethodId(id))
}

/// The auth method of that name, if there is one.
///
/// # Errors
/// The database is not available.
pub async fn find_by_name(tx: &mut Tx, account: &AccountId, name: &ItemPath) -> Result<Option<AuthMethod>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM auth_methods WHERE account = $1 AND name = $2");
    tx.row(&sql, values![account.0.as_str(), name.as_str()]).await?.map(|row| read(&row)).transpose()
}

/// The auth method with that access id, in whichever account it is.
///
/// # Errors
/// The database is not available.
pub async fn find_by_access_id(tx: &mut Tx, access_id: &AccessId) -> Result<Option<AuthMethod>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM auth_methods WHERE access_id = $1");
    tx.row(&sql, values![access_id.0.as_str()]).await?.map(|row| read(&row)).transpose()
}

/// The auth method with that number.
///
/// # Errors
/// It does not exist.
pub async fn load(tx: &mut Tx, account: &AccountId, id: AuthMethodId) -> Result<AuthMethod, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM auth_methods WHERE account = $1 AND id = $2");
    let row = tx.row(&sql, values![account.0.as_str(), id.0]).await?.ok_or(StoreError::NotFound("the auth method"))?;
    read(&row)
}

/// Auth methods by name, those after `after`, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, account: &AccountId, after: &str, limit: u32) -> Result<Vec<AuthMethod>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM auth_methods WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3");
    tx.rows(&sql, values![account.0.as_str(), after, limit]).await?.iter().map(read).collect()
}

/// Replaces name, description, limits and protection of the method with this id.
///
/// # Errors
/// It does not exist, or the new name is taken.
pub async fn update(tx: &mut Tx, method: &AuthMethod) -> Result<(), StoreError> {
    accounts::bump_generation(tx, &method.account).await?;
    let limits = serde_json::to_string(&method.limits).map_err(|_| StoreError::Corrupt("limits"))?;
    let changed = tx
        .execute(
            "UPDATE auth_methods SET name = $3, description = $4, limits = $5, delete_protection = $6, modified_at = $7
             WHERE account = $1 AND id = $2",
            values![
                method.account.0.as_str(),
                method.id.0,
                method.name.as_str(),
                method.description.as_str(),
                limits,
                i64::from(method.delete_protection),
                method.modified_at.0
            ],
        )
        .await?;
    found(changed)
}

/// Gives the method a new access key.
///
/// # Errors
/// It does not exist.
pub async fn set_key_hash(
    tx: &mut Tx,
    (account, id): (&AccountId, AuthMethodId),
    hash: &[u8; 32],
    at: Micros,
) -> Result<(), StoreError> {
    accounts::bump_generation(tx, account).await?;
    let changed = tx
        .execute(
            "UPDATE auth_methods SET key_hash = $3, key_changed_at = $4, modified_at = $4 WHERE account = $1 AND id = $2",
            values![account.0.as_str(), id.0, hash.as_slice(), at.0],
        )
        .await?;
    found(changed)
}

/// Removes the method, every token it was given and its associations with roles.
///
/// # Errors
/// It does not exist.
pub async fn remove(tx: &mut Tx, account: &AccountId, id: AuthMethodId) -> Result<(), StoreError> {
    let key = || values![account.0.as_str(), id.0];
    accounts::bump_generation(tx, account).await?;
    tx.execute("DELETE FROM tokens WHERE account = $1 AND auth_method = $2", key()).await?;
    tx.execute("DELETE FROM role_assocs WHERE account = $1 AND auth_method = $2", key()).await?;
    found(tx.execute("DELETE FROM auth_methods WHERE account = $1 AND id = $2", key()).await?)
}

const fn found(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the auth method")) }
}

fn read(row: &Row) -> Result<AuthMethod, StoreError> {
    Ok(AuthMethod {
        account: AccountId(row.text(0)?),
        id: AuthMethodId(row.int(1)?),
        access_id: AccessId(row.text(2)?),
        name: ItemPath::parse(&row.text(3)?).map_err(|_| StoreError::Corrupt("a name"))?,
        kind: row.text(4)?,
        description: row.text(5)?,
        key_hash: row.bytes(6, "a key hash")?,
        key_changed_at: Micros(row.int(7)?),
        limits: serde_json::from_str(&row.text(8)?).map_err(|_| StoreError::Corrupt("limits"))?,
        delete_protection: row.int(9)? != 0,
        created_at: Micros(row.int(10)?),
        modified_at: Micros(row.int(11)?),
    })
}
