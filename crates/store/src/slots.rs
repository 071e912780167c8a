//! What is remembered of a slot beside its versions: facts a preflight found, and failed logins.

use volvelle_domain::ids::Micros;
use volvelle_domain::item::SlotMemory;

use crate::db::values;
use crate::versions::Slot;
use crate::{StoreError, Tx};

/// Facts of one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotFacts {
    /// What the last preflight recorded.
    pub memory: SlotMemory,
    /// When logins failed on its account, oldest first.
    pub failed_logins: Vec<Micros>,
}

/// The facts of a slot; none if nothing was recorded.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx, slot: &Slot) -> Result<SlotFacts, StoreError> {
    let sql = "SELECT memory, failed_logins FROM slots WHERE account = $1 AND item = $2 AND host = $3";
    let Some(row) = tx.row(sql, slot.key()).await? else { return Ok(SlotFacts::default()) };
    Ok(SlotFacts {
        memory: serde_json::from_str(&row.text(0)?).map_err(|_| StoreError::Corrupt("facts of a slot"))?,
        failed_logins: serde_json::from_str(&row.text(1)?).map_err(|_| StoreError::Corrupt("facts of a slot"))?,
    })
}

/// Replaces the facts of a slot.
///
/// # Errors
/// The account does not exist.
pub async fn save(tx: &mut Tx, slot: &Slot, facts: &SlotFacts) -> Result<(), StoreError> {
    let memory = serde_json::to_string(&facts.memory).map_err(|_| StoreError::Corrupt("facts of a slot"))?;
    let logins = serde_json::to_string(&facts.failed_logins).map_err(|_| StoreError::Corrupt("facts of a slot"))?;
    tx.execute(
        "INSERT INTO slots (account, item, host, memory, failed_logins) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (account, item, host)
         DO UPDATE SET memory = excluded.memory, failed_logins = excluded.failed_logins",
        [slot.key(), values![memory, logins]].concat(),
    )
    .await?;
    Ok(())
}
