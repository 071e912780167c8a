//! Tokens, of which only hashes are stored.

use volvelle_domain::identity::Token;
use volvelle_domain::ids::{AccountId, AuthMethodId, Micros};

use crate::db::{Row, values};
use crate::{StoreError, Tx, accounts};

/// Tokens that one [`purge_expired`] removes at most.
pub const PURGED: u64 = 1000;

/// Stores a token.
///
/// # Errors
/// The database is not available, or the auth method does not exist.
pub async fn add(tx: &mut Tx, token: &Token) -> Result<(), StoreError> {
    let claims = serde_json::to_string(&token.sub_claims).map_err(|_| StoreError::Corrupt("claims"))?;
    tx.execute(
        "INSERT INTO tokens (hash, account, auth_method, sub_claims, issued_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        values![
            token.hash.as_slice(),
            token.account.0.as_str(),
            token.auth_method.0,
            claims,
            token.issued_at.0,
            token.expires_at.0
        ],
    )
    .await?;
    Ok(())
}

/// The token with that hash, expired or not, in whichever account it is.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
    let sql = "SELECT hash, account, auth_method, sub_claims, issued_at, expires_at FROM tokens WHERE hash = $1";
    tx.row(sql, values![hash.as_slice()]).await?.map(|row| read(&row)).transpose()
}

/// Keeps with a token what shows the holders that its owner may ask.
///
/// # Errors
/// The token does not exist.
pub async fn attach_statement(tx: &mut Tx, hash: &[u8; 32], statement: &[u8]) -> Result<(), StoreError> {
    let sql = "UPDATE tokens SET statement = $2 WHERE hash = $1";
    let changed = tx.execute(sql, values![hash.as_slice(), statement]).await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the token")) }
}

/// What is kept with a token for the holders; empty if nothing is.
///
/// # Errors
/// The database is not available.
pub async fn statement(tx: &mut Tx, hash: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
    let sql = "SELECT statement FROM tokens WHERE hash = $1 AND statement IS NOT NULL";
    tx.row(sql, values![hash.as_slice()]).await?.map_or_else(|| Ok(Vec::new()), |row| row.blob(0))
}

/// Ends a token before its time.
///
/// # Errors
/// It does not exist.
pub async fn revoke(tx: &mut Tx, hash: &[u8; 32]) -> Result<(), StoreError> {
    let token = find(tx, hash).await?.ok_or(StoreError::NotFound("the token"))?;
    accounts::bump_generation(tx, &token.account).await?;
    let changed = tx.execute("DELETE FROM tokens WHERE hash = $1", values![hash.as_slice()]).await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the token")) }
}

/// Ends every token of an auth method and tells how many there were.
///
/// # Errors
/// The account does not exist.
pub async fn revoke_all(tx: &mut Tx, account: &AccountId, method: AuthMethodId) -> Result<u64, StoreError> {
    accounts::bump_generation(tx, account).await?;
    let sql = "DELETE FROM tokens WHERE account = $1 AND auth_method = $2";
    tx.execute(sql, values![account.0.as_str(), method.0]).await
}

/// Removes tokens that ended at `now` or before, at most [`PURGED`], and tells how many.
///
/// # Errors
/// The database is not available.
pub async fn purge_expired(tx: &mut Tx, now: Micros) -> Result<u64, StoreError> {
    let skip = if tx.locks_rows() { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "DELETE FROM tokens WHERE hash IN
         (SELECT hash FROM tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT {PURGED} {skip})"
    );
    tx.execute(&sql, values![now.0]).await
}

fn read(row: &Row) -> Result<Token, StoreError> {
    Ok(Token {
        hash: row.bytes(0, "a token hash")?,
        account: AccountId(row.text(1)?),
        auth_method: AuthMethodId(row.int(2)?),
        sub_claims: serde_json::from_str(&row.text(3)?).map_err(|_| StoreError::Corrupt("claims"))?,
        issued_at: Micros(row.int(4)?),
        expires_at: Micros(row.int(5)?),
    })
}
