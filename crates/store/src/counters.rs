//! Numbers within an account, never given out twice, not even after a removal.

use volvelle_domain::ids::AccountId;

use crate::db::values;
use crate::{StoreError, Tx};

/// The next number of `family`. Its row stays locked until the transaction ends.
pub(crate) async fn next(tx: &mut Tx, account: &AccountId, family: &str) -> Result<i64, StoreError> {
    let sql = "INSERT INTO counters (account, family, last) VALUES ($1, $2, 1)
               ON CONFLICT (account, family) DO UPDATE SET last = counters.last + 1 RETURNING last";
    let row = tx.row(sql, values![account.0.as_str(), family]).await?;
    row.ok_or(StoreError::Corrupt("a counter"))?.int(0)
}
