//! The audit entries of reads, written to the store by group commit.

use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::ids::AccountId;
use volvelle_store::audit::{self, Entry};
use volvelle_store::{Store, StoreError};

use crate::committer::{Committer, Sink};

/// Hands over the entries of reads: the answer leaves once `commit` has returned.
pub type Trail = Committer<(AccountId, Entry), Arc<StoreError>>;

/// Starts the writing task for `store`.
#[must_use]
pub fn start(store: Store) -> Trail {
    Committer::start(Arc::new(AuditSink(store)))
}

struct AuditSink(Store);

#[async_trait]
impl Sink<(AccountId, Entry)> for AuditSink {
    type Error = Arc<StoreError>;

    async fn write(&self, batch: Vec<(AccountId, Entry)>) -> Result<(), Arc<StoreError>> {
        // Always in the order of the accounts, so that two gateways never wait for each other's chains.
        let mut batch = batch;
        batch.sort_by(|a, b| a.0.cmp(&b.0));
        let mut tx = self.0.begin().await?;
        for chunk in batch.chunk_by(|a, b| a.0 == b.0) {
            let entries: Vec<Entry> = chunk.iter().map(|(_, entry)| entry.clone()).collect();
            audit::append(&mut tx, &chunk[0].0, &entries).await?;
        }
        Ok(tx.commit().await?)
    }
}
