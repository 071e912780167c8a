//! The database's own marker: another than the one remembered elsewhere means that a backup was restored.

use crate::db::values;
use crate::{StoreError, Tx};

/// The marker, if one was set.
///
/// # Errors
/// The database is not available.
pub async fn find(tx: &mut Tx) -> Result<Option<[u8; 16]>, StoreError> {
    let row = tx.row("SELECT marker FROM incarnation WHERE id = 1", values![]).await?;
    row.map(|row| row.bytes(0, "an incarnation")).transpose()
}

/// Replaces the marker.
///
/// # Errors
/// The database is not available.
pub async fn set(tx: &mut Tx, marker: &[u8; 16]) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO incarnation (id, marker) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET marker = excluded.marker",
        values![marker.as_slice()],
    )
    .await?;
    Ok(())
}
