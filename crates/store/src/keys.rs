//! Protection keys: what is sealed with which of them, and what a gateway without a customer's fragment leaves alone.
//!
//! A key is an item of kind `key`. What must stay true: it is not removed while anything is sealed with it. Whoever adds, changes
//! or removes has the account's row, so that neither can happen behind the other's back.

use volvelle_domain::ids::{AccountId, ItemId};
use volvelle_domain::item::{CustomerKey, Protection};
use volvelle_domain::path::ItemPath;

use crate::db::{Value, values};
use crate::{StoreError, Tx, items};

/// A protection key with a customer's fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerUse {
    /// The tenant.
    pub account: AccountId,
    /// The key's number.
    pub id: ItemId,
    /// Its name.
    pub key: ItemPath,
    /// Its fragment.
    pub customer: CustomerKey,
}

/// How many items and targets are sealed with a key.
///
/// # Errors
/// The database is not available.
pub async fn sealed_with(tx: &mut Tx, account: &AccountId, key: ItemId) -> Result<(i64, i64), StoreError> {
    let sql = "SELECT (SELECT COUNT(*) FROM items WHERE account = $1 AND protection_key = $2),
                      (SELECT COUNT(*) FROM targets WHERE account = $1 AND protection_key = $2)";
    let row = tx.row(sql, values![account.0.as_str(), key.0]).await?.ok_or(StoreError::Corrupt("a number of items"))?;
    Ok((row.int(0)?, row.int(1)?))
}

/// The protection keys of every account that were made with a customer's fragment.
///
/// # Errors
/// The database is not available.
pub async fn with_customer(tx: &mut Tx) -> Result<Vec<CustomerUse>, StoreError> {
    let keys = items::customer_keys(tx).await?.into_iter();
    let uses = keys.filter_map(|key| {
        let customer = Protection::customer(key.protection.as_ref()).cloned()?;
        Some(CustomerUse { account: key.account, id: key.id, key: key.name, customer })
    });
    Ok(uses.collect())
}

/// Refuses what is to be sealed with a key that is not there.
pub(crate) async fn require(
    tx: &mut Tx,
    account: &AccountId,
    protection: Option<&Protection>,
) -> Result<(), StoreError> {
    let Some(key) = columns(protection).0 else { return Ok(()) };
    let sql = "SELECT id FROM items WHERE account = $1 AND id = $2 AND kind = 'key'";
    match tx.row(sql, values![account.0.as_str(), key]).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::NotFound("the protection key")),
    }
}

/// Refuses the removal of a key that something is sealed with.
pub(crate) async fn require_unused(tx: &mut Tx, account: &AccountId, key: ItemId) -> Result<(), StoreError> {
    for user in [
        "SELECT id FROM items WHERE account = $1 AND protection_key = $2 LIMIT 1",
        "SELECT id FROM targets WHERE account = $1 AND protection_key = $2 LIMIT 1",
    ] {
        if tx.row(user, values![account.0.as_str(), key.0]).await?.is_some() {
            return Err(StoreError::Forbidden("removing a key that something is sealed with"));
        }
    }
    Ok(())
}

/// What the columns `protection_key` and `customer_check` hold.
pub(crate) fn columns(protection: Option<&Protection>) -> (Option<i64>, Option<&str>) {
    let key = protection.map(|protection| protection.key.0).filter(|key| *key != 0);
    (key, Protection::customer(protection).map(|customer| customer.check.as_str()))
}

/// The check values of the fragments that are there, as a list in SQL whose numbers begin at `first`, and its arguments.
fn listed(checks: &[String], first: usize) -> (String, Vec<Value>) {
    if checks.is_empty() {
        return ("('')".to_owned(), Vec::new());
    }
    let places: Vec<String> = (first..first + checks.len()).map(|n| format!("${n}")).collect();
    (format!("({})", places.join(", ")), checks.iter().map(|check| Value::from(check.as_str())).collect())
}

/// A condition on rows of `table`, whose item is in the column `item` and whose target is `target`: neither they nor the target's parent are
/// sealed with another fragment than these.
pub(crate) fn openable(
    table: &str,
    (item, target): (&str, &str),
    checks: &[String],
    first: usize,
) -> (String, Vec<Value>) {
    let (list, arguments) = listed(checks, first);
    let condition = format!(
        "NOT EXISTS (SELECT 1 FROM items i WHERE i.account = {table}.account AND i.id = {table}.{item}
             AND i.customer_check NOT IN {list})
         AND NOT EXISTS (SELECT 1 FROM targets t LEFT JOIN targets p ON p.account = t.account AND p.id = t.parent
             WHERE t.account = {table}.account AND t.id = {target}
             AND (t.customer_check NOT IN {list} OR p.customer_check NOT IN {list}))"
    );
    (condition, arguments)
}
