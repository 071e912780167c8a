//! The audit entries of reads, written to the store by group commit.
//!
//! A read was decided on what was known at some stamp of the account. Its entry is written only if nothing has changed since:
//! so an answer from memory is as good as one from the database.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use volvelle_domain::ids::AccountId;
use volvelle_store::audit::{self, Head, Line};
use volvelle_store::{Store, StoreError, Tx, accounts};

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
    Committer::start(Arc::new(AuditSink { store, ends: Mutex::default() }))
}

struct AuditSink {
    store: Store,
    /// Where the chains ended when this process wrote last. The database compares before it believes it.
    ends: Mutex<HashMap<AccountId, Head>>,
}

/// The entries of one account.
#[derive(Default)]
struct Part {
    /// Which of the batch they are, and what each decision was made on.
    asked: Vec<(usize, Basis)>,
    lines: Vec<Line>,
}

impl Part {
    /// What all decisions were made on, if it is the same.
    fn stamp(&self) -> Option<Stamp> {
        let (_, first) = self.asked.first()?;
        let Basis::All(stamp) = *first else { return None };
        self.asked.iter().all(|(_, basis)| basis == first).then_some(stamp)
    }
}

impl AuditSink {
    /// Appends what still holds, notes what does not, and tells where the chain ends.
    async fn append(
        &self,
        tx: &mut Tx,
        account: &AccountId,
        part: Part,
        answers: &mut [Written],
    ) -> Result<Option<Head>, StoreError> {
        let end = lock(&self.ends).get(account).copied();
        if let (Some(end), Some(stamp)) = (end, part.stamp())
            && let Some(head) = audit::append_behind(tx, account, (end, stamp), &part.lines).await?
        {
            return Ok(Some(head));
        }
        let now = accounts::stamp(tx, account).await?;
        let mut lines = Vec::with_capacity(part.lines.len());
        for ((place, basis), line) in part.asked.into_iter().zip(part.lines) {
            if basis.holds(now) {
                lines.push(line);
            } else {
                answers[place] = Written::Stale;
            }
        }
        if lines.is_empty() { Ok(None) } else { audit::append_lines(tx, account, &lines).await.map(Some) }
    }
}

#[async_trait]
impl Sink<Noted> for AuditSink {
    type Answer = Written;
    type Error = Arc<StoreError>;

    async fn write(&self, batch: Vec<Noted>) -> Result<Vec<Written>, Arc<StoreError>> {
        let mut answers = vec![Written::Durable; batch.len()];
        // Always in the order of the accounts, so that two gateways never wait for each other's chains.
        let mut parts: BTreeMap<AccountId, Part> = BTreeMap::new();
        for (place, Noted { account, line, basis }) in batch.into_iter().enumerate() {
            let part = parts.entry(account).or_default();
            part.asked.push((place, basis));
            part.lines.push(line);
        }
        let mut tx = self.store.begin().await?;
        let mut ends = Vec::with_capacity(parts.len());
        for (account, part) in parts {
            let end = self.append(&mut tx, &account, part, &mut answers).await?;
            ends.extend(end.map(|end| (account, end)));
        }
        tx.commit().await?;
        lock(&self.ends).extend(ends);
        Ok(answers)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
