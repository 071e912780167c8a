//! The audit entries of reads, written to the store by group commit.
//!
//! A read was decided on what was known at some stamp of the account. Its entry is written only if nothing has changed since:
//! so an answer from memory is as good as one from the database.

use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::ids::AccountId;
use volvelle_store::audit::{self, Line};
use volvelle_store::{Store, StoreError, accounts};

use crate::committer::{Committer, Sink};

/// Generation and content of an account.
pub type Stamp = (i64, i64);

/// What a decision was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// On nothing that can change.
    Nothing,
    /// On rules and identities in memory, and on values read from the database after the call began.
    Rules(i64),
    /// On rules, identities and values in memory.
    All(Stamp),
}

impl Basis {
    const fn holds(self, now: Stamp) -> bool {
        match self {
            Self::Nothing => true,
            Self::Rules(generation) => generation == now.0,
            Self::All(stamp) => stamp.0 == now.0 && stamp.1 == now.1,
        }
    }
}

/// One entry on its way.
pub struct Noted {
    /// Whose chain.
    pub account: AccountId,
    /// What happened.
    pub line: Line,
    /// What the decision was made on.
    pub basis: Basis,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable.
    Durable,
    /// It was not written: the account has changed since the decision. Decide again.
    Stale,
}

/// Hands over the entries of reads: the answer leaves once `commit` has returned.
pub type Trail = Committer<Noted, Written, Arc<StoreError>>;

/// Starts the writing task for `store`.
#[must_use]
pub fn start(store: Store) -> Trail {
    Committer::start(Arc::new(AuditSink(store)))
}

struct AuditSink(Store);

#[async_trait]
impl Sink<Noted> for AuditSink {
    type Answer = Written;
    type Error = Arc<StoreError>;

    async fn write(&self, batch: Vec<Noted>) -> Result<Vec<Written>, Arc<StoreError>> {
        let mut answers = vec![Written::Durable; batch.len()];
        let mut batch: Vec<(usize, Noted)> = batch.into_iter().enumerate().collect();
        // Always in the order of the accounts, so that two gateways never wait for each other's chains.
        if batch.windows(2).any(|two| two[0].1.account != two[1].1.account) {
            batch.sort_by(|a, b| a.1.account.cmp(&b.1.account).then(a.0.cmp(&b.0)));
        }
        let mut tx = self.0.begin().await?;
        for chunk in batch.chunk_by_mut(|a, b| a.1.account == b.1.account) {
            let account = chunk[0].1.account.clone();
            let now = accounts::stamp(&mut tx, &account).await?;
            let mut lines = Vec::with_capacity(chunk.len());
            for (place, noted) in chunk {
                if noted.basis.holds(now) {
                    lines.push(noted.line.clone());
                } else {
                    answers[*place] = Written::Stale;
                }
            }
            if !lines.is_empty() {
                audit::append_lines(&mut tx, &account, &lines).await?;
            }
        }
        tx.commit().await?;
        Ok(answers)
    }
}
