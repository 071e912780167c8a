//! Roles, their rules and whom they are given to. Every change raises the account's generation.

use std::collections::HashMap;

use volvelle_domain::identity::{Role, RoleAssoc, RoleRule, SubClaims};
use volvelle_domain::ids::{AccessId, AccountId, AuthMethodId, Micros, RoleId};
use volvelle_domain::path::ItemPath;

use crate::db::{Row, Value, values};
use crate::{StoreError, Tx, accounts, counters};

const ASSOC_COLUMNS: &str = "a.role, a.id, a.auth_method, m.name, m.access_id, a.sub_claims, a.case_sensitive";
const ASSOC_TABLES: &str = "role_assocs a JOIN auth_methods m ON m.account = a.account AND m.id = a.auth_method";

/// Stores a new role under a number never used before, with its rules and associations; its `id` is ignored.
///
/// # Errors
/// The name is taken, or the account or an auth method does not exist.
pub async fn add(tx: &mut Tx, role: &Role) -> Result<RoleId, StoreError> {
    accounts::bump_generation(tx, &role.account).await?;
    let id = RoleId(counters::next(tx, &role.account, "role").await?);
    tx.execute(
        "INSERT INTO roles (account, id, name, description, delete_protection, created_at, modified_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        values![
            role.account.0.as_str(),
            id.0,
            role.name.as_str(),
            role.description.as_str(),
            i64::from(role.delete_protection),
            role.created_at.0,
            role.modified_at.0
        ],
    )
    .await?;
    for rule in &role.rules {
        set_rule(tx, &role.account, id, rule).await?;
    }
    for assoc in &role.assocs {
        add_assoc(tx, &role.account, id, assoc).await?;
    }
    Ok(id)
}

/// The role of that name, if there is one.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, account: &AccountId, name: &ItemPath) -> Result<Option<Role>, StoreError> {
    let roles = gather(tx, "account = $1 AND name = $2", values![account.0.as_str(), name.as_str()]).await?;
    Ok(roles.into_iter().next())
}

/// Every role of the account, by name.
///
/// # Errors
/// The database is not available.
pub async fn load_all(tx: &mut Tx, account: &AccountId) -> Result<Vec<Role>, StoreError> {
    gather(tx, "account = $1 ORDER BY name", values![account.0.as_str()]).await
}

/// Roles by name, those after `after`, at most `limit`.
///
/// # Errors
/// The database is not available.
pub async fn list(tx: &mut Tx, account: &AccountId, after: &str, limit: u32) -> Result<Vec<Role>, StoreError> {
    let which = "account = $1 AND name > $2 ORDER BY name LIMIT $3";
    gather(tx, which, values![account.0.as_str(), after, limit]).await
}

/// Replaces name, description and protection of the role with this number.
///
/// # Errors
/// It does not exist, or the new name is taken.
pub async fn update(tx: &mut Tx, role: &Role) -> Result<(), StoreError> {
    accounts::bump_generation(tx, &role.account).await?;
    let changed = tx
        .execute(
            "UPDATE roles SET name = $3, description = $4, delete_protection = $5, modified_at = $6
             WHERE account = $1 AND id = $2",
            values![
                role.account.0.as_str(),
                role.id.0,
                role.name.as_str(),
                role.description.as_str(),
                i64::from(role.delete_protection),
                role.modified_at.0
            ],
        )
        .await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the role")) }
}

/// Removes the role, its rules and its associations.
///
/// # Errors
/// It does not exist.
pub async fn remove(tx: &mut Tx, account: &AccountId, id: RoleId) -> Result<(), StoreError> {
    accounts::bump_generation(tx, account).await?;
    let key = || values![account.0.as_str(), id.0];
    tx.execute("DELETE FROM role_rules WHERE account = $1 AND role = $2", key()).await?;
    tx.execute("DELETE FROM role_assocs WHERE account = $1 AND role = $2", key()).await?;
    let changed = tx.execute("DELETE FROM roles WHERE account = $1 AND id = $2", key()).await?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the role")) }
}

/// Sets a rule: in the place of the one with the same path and type, or after all others.
///
/// # Errors
/// The role does not exist.
pub async fn set_rule(tx: &mut Tx, account: &AccountId, role: RoleId, rule: &RoleRule) -> Result<(), StoreError> {
    accounts::bump_generation(tx, account).await?;
    let place = counters::next(tx, account, "role_rule").await?;
    let capabilities = serde_json::to_string(&rule.capabilities).map_err(|_| StoreError::Corrupt("a rule"))?;
    tx.execute(
        "INSERT INTO role_rules (account, role, path, rule_type, place, capabilities, ttl_minutes, set_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (account, role, path, rule_type) DO UPDATE
         SET capabilities = excluded.capabilities, ttl_minutes = excluded.ttl_minutes, set_at = excluded.set_at",
        values![
            account.0.as_str(),
            role.0,
            rule.path.as_str(),
            rule.rule_type.as_str(),
            place,
            capabilities,
            rule.ttl_minutes,
            rule.set_at.0
        ],
    )
    .await?;
    Ok(())
}

/// Removes a rule; whether there was one.
///
/// # Errors
/// The account does not exist.
pub async fn delete_rule(
    tx: &mut Tx,
    account: &AccountId,
    role: RoleId,
    path: &str,
    rule_type: &str,
) -> Result<bool, StoreError> {
    accounts::bump_generation(tx, account).await?;
    let sql = "DELETE FROM role_rules WHERE account = $1 AND role = $2 AND path = $3 AND rule_type = $4";
    Ok(tx.execute(sql, values![account.0.as_str(), role.0, path, rule_type]).await? == 1)
}

/// Gives the role to an auth method.
///
/// # Errors
/// The role or the auth method does not exist; [`StoreError::Conflict`] if it is given already or the id is taken.
pub async fn add_assoc(tx: &mut Tx, account: &AccountId, role: RoleId, assoc: &RoleAssoc) -> Result<(), StoreError> {
    accounts::bump_generation(tx, account).await?;
    let place = counters::next(tx, account, "role_assoc").await?;
    tx.execute(
        "INSERT INTO role_assocs (account, id, place, role, auth_method, sub_claims, case_sensitive)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        values![
            account.0.as_str(),
            assoc.id.as_str(),
            place,
            role.0,
            assoc.auth_method.0,
            claims_text(&assoc.sub_claims)?,
            i64::from(assoc.case_sensitive)
        ],
    )
    .await?;
    Ok(())
}

/// Replaces the claims an association asks for, and whether they are compared with case.
///
/// # Errors
/// It does not exist.
pub async fn update_assoc(
    tx: &mut Tx,
    account: &AccountId,
    id: &str,
    claims: &SubClaims,
    case_sensitive: bool,
) -> Result<(), StoreError> {
    accounts::bump_generation(tx, account).await?;
    let sql = "UPDATE role_assocs SET sub_claims = $3, case_sensitive = $4 WHERE account = $1 AND id = $2";
    let arguments = values![account.0.as_str(), id, claims_text(claims)?, i64::from(case_sensitive)];
    found_assoc(tx.execute(sql, arguments).await?)
}

/// Takes the role away from an auth method.
///
/// # Errors
/// The association does not exist.
pub async fn delete_assoc(tx: &mut Tx, account: &AccountId, id: &str) -> Result<(), StoreError> {
    accounts::bump_generation(tx, account).await?;
    let sql = "DELETE FROM role_assocs WHERE account = $1 AND id = $2";
    found_assoc(tx.execute(sql, values![account.0.as_str(), id]).await?)
}

/// The association with that id and the role it belongs to, if there is one.
///
/// # Errors
/// The database is not available.
pub async fn find_assoc(tx: &mut Tx, account: &AccountId, id: &str) -> Result<Option<(RoleId, RoleAssoc)>, StoreError> {
    let sql = format!("SELECT {ASSOC_COLUMNS} FROM {ASSOC_TABLES} WHERE a.account = $1 AND a.id = $2");
    tx.row(&sql, values![account.0.as_str(), id]).await?.map(|row| read_assoc(&row)).transpose()
}

/// The roles an auth method was given, in the order made.
///
/// # Errors
/// The database is not available.
pub async fn assocs_of(
    tx: &mut Tx,
    account: &AccountId,
    method: AuthMethodId,
) -> Result<Vec<(RoleId, ItemPath, RoleAssoc)>, StoreError> {
    let sql = format!(
        "SELECT {ASSOC_COLUMNS}, r.name FROM {ASSOC_TABLES} JOIN roles r ON r.account = a.account AND r.id = a.role
         WHERE a.account = $1 AND a.auth_method = $2 ORDER BY a.place"
    );
    let rows = tx.rows(&sql, values![account.0.as_str(), method.0]).await?;
    rows.iter()
        .map(|row| {
            let (role, assoc) = read_assoc(row)?;
            Ok((role, path(&row.text(7)?)?, assoc))
        })
        .collect()
}

/// Roles with everything that belongs to them, in three statements however many there are.
async fn gather(tx: &mut Tx, which: &str, arguments: Vec<Value>) -> Result<Vec<Role>, StoreError> {
    let columns = "account, id, name, description, delete_protection, created_at, modified_at";
    let sql = format!("SELECT {columns} FROM roles WHERE {which}");
    let mut roles: Vec<Role> = tx.rows(&sql, arguments.clone()).await?.iter().map(read).collect::<Result<_, _>>()?;
    if roles.is_empty() {
        return Ok(roles);
    }
    let places: HashMap<RoleId, usize> = roles.iter().enumerate().map(|(place, role)| (role.id, place)).collect();
    let these = format!("IN (SELECT id FROM roles WHERE {which})");
    let sql = format!(
        "SELECT role, path, rule_type, capabilities, ttl_minutes, set_at FROM role_rules
         WHERE account = $1 AND role {these} ORDER BY place"
    );
    for row in tx.rows(&sql, arguments.clone()).await? {
        if let Some(place) = places.get(&RoleId(row.int(0)?)) {
            roles[*place].rules.push(read_rule(&row)?);
        }
    }
    let sql =
        format!("SELECT {ASSOC_COLUMNS} FROM {ASSOC_TABLES} WHERE a.account = $1 AND a.role {these} ORDER BY a.place");
    for row in tx.rows(&sql, arguments).await? {
        let (role, assoc) = read_assoc(&row)?;
        if let Some(place) = places.get(&role) {
            roles[*place].assocs.push(assoc);
        }
    }
    Ok(roles)
}

const fn found_assoc(changed: u64) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::NotFound("the association")) }
}

fn claims_text(claims: &SubClaims) -> Result<String, StoreError> {
    serde_json::to_string(claims).map_err(|_| StoreError::Corrupt("claims"))
}

fn path(text: &str) -> Result<ItemPath, StoreError> {
    ItemPath::parse(text).map_err(|_| StoreError::Corrupt("a name"))
}

fn read(row: &Row) -> Result<Role, StoreError> {
    Ok(Role {
        account: AccountId(row.text(0)?),
        id: RoleId(row.int(1)?),
        name: path(&row.text(2)?)?,
        description: row.text(3)?,
        delete_protection: row.int(4)? != 0,
        rules: Vec::new(),
        assocs: Vec::new(),
        created_at: Micros(row.int(5)?),
        modified_at: Micros(row.int(6)?),
    })
}

fn read_rule(row: &Row) -> Result<RoleRule, StoreError> {
    Ok(RoleRule {
        path: row.text(1)?,
        rule_type: row.text(2)?,
        capabilities: serde_json::from_str(&row.text(3)?).map_err(|_| StoreError::Corrupt("a rule"))?,
        ttl_minutes: row.int(4)?,
        set_at: Micros(row.int(5)?),
    })
}

fn read_assoc(row: &Row) -> Result<(RoleId, RoleAssoc), StoreError> {
    let assoc = RoleAssoc {
        id: row.text(1)?,
        auth_method: AuthMethodId(row.int(2)?),
        auth_method_name: path(&row.text(3)?)?,
        access_id: AccessId(row.text(4)?),
        sub_claims: serde_json::from_str(&row.text(5)?).map_err(|_| StoreError::Corrupt("claims"))?,
        case_sensitive: row.int(6)? != 0,
    };
    Ok((RoleId(row.int(0)?), assoc))
}
