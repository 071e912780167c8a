//! Changing the key of an account: the holders make a new one, new records get it, and every older record is wrapped under it in
//! the background, at a bounded rate, while everything else goes on.
//!
//! What must stay true: the payload of a record is never opened here; both keys are readable until the holders destroy the old
//! one; whatever dies when, the work goes on where its last transaction left it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use volvelle_domain::account::Account;
use volvelle_domain::ids::AccountId;
use volvelle_fragments::Suite;
use volvelle_fragments::record::KEY_ID_AT;
use volvelle_holder::QuorumError;
use volvelle_store::rekeys::{self, Found, KeyMark, Place, Rekey, Stage};
use volvelle_store::{StoreError, accounts, audit};

use crate::vault::{place_of_item, place_of_target};
use crate::worker::later;
use crate::{EngineError, Parts, work};

/// How its work is named.
const WORK: &str = "rekey";
/// Records wrapped anew in a second, at most, when nobody says.
pub const USUAL_RATE: u32 = 200;
/// Records of one step: two messages to each holder, one transaction.
const STEP: u32 = 64;
/// How long a step may take before another gateway goes on.
const LEASE: Duration = Duration::from_secs(20);
/// How often it is looked for work that another gateway put there.
const LOOK: Duration = Duration::from_secs(5);
/// Pauses after holders were away, and after a pass that left records behind.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How often it is looked whether something still has a key that is retired.
const WATCH: Duration = Duration::from_secs(600);
/// Somebody who wrote with an older key at this moment is done by then.
const SETTLE: Duration = Duration::from_secs(2);

/// Works on changes of keys. Cheap to clone.
#[derive(Clone)]
pub struct Rekeyer {
    parts: Parts,
    bell: Arc<Notify>,
}

/// What one step came to.
enum Step {
    Goes(Rekey),
    Waits(Duration, String),
    Done,
}

/// The mark of records that are not under this key.
#[must_use]
pub const fn mark(key_id: u32) -> KeyMark {
    KeyMark { at: KEY_ID_AT + 1, wanted: key_id.to_be_bytes() }
}

/// Whether holders do not answer, so that it is to be tried again later; whatever else it is belongs to the record.
const fn is_away(error: &QuorumError) -> bool {
    use QuorumError as E;
    matches!(error, E::TooFewHolders { .. } | E::KeyGeneration(_) | E::Holders(_) | E::Config(_))
}

impl Rekeyer {
    /// Over the parts of an engine; nothing runs before [`Self::run`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts, bell: Arc::default() }
    }

    /// Begins a change of every account's key, to one of this suite, or of the one it has. Every holder must be up and make keys of
    /// that suite. Those under way go on.
    ///
    /// # Errors
    /// A holder cannot be reached, or makes no such keys; then nothing is begun. Or the store failed.
    pub async fn begin(&self, rate: u32, suite: Option<Suite>) -> Result<usize, EngineError> {
        if let Some(suite) = suite {
            self.parts.vault.quorum().require_suite(suite).await?;
        }
        let mut tx = self.parts.store.read().await?;
        let accounts = accounts::list(&mut tx).await?;
        drop(tx);
        let mut begun = 0;
        for account in accounts {
            let fresh = self.parts.vault.quorum().fresh_key_id(account.realm.0, account.key_id).await?;
            let suite = match suite {
                Some(suite) => suite,
                None => self.parts.vault.quorum().suite_of((account.realm.0, account.key_id)).await?,
            };
            let mut tx = self.parts.store.begin().await?;
            let keys = (account.key_id, fresh, suite.byte());
            match rekeys::begin(&mut tx, &account.id, keys, rate, self.parts.clock.now()).await {
                Ok(()) => begun += 1,
                Err(StoreError::Conflict(_)) => continue,
                Err(error) => return Err(error.into()),
            }
            tx.commit().await?;
        }
        self.bell.notify_one();
        Ok(begun)
    }

    /// Works until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut watched: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            let pause = match self.turn(&shutdown).await {
                Ok(true) => continue,
                Ok(false) => LOOK,
                Err(EngineError::Store(StoreError::LostLease)) => continue,
                Err(error) => {
                    tracing::warn!(%error, "records cannot be wrapped under another key now");
                    LOOK
                }
            };
            if watched.is_none_or(|since| since.elapsed() > WATCH) {
                watched = Some(Instant::now());
                if let Err(error) = self.watch().await {
                    tracing::warn!(%error, "it cannot be seen whether a retired key is needed");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes one change and drives it until it ends, waits, or `shutdown`; whether there was one.
    async fn turn(&self, shutdown: &CancellationToken) -> Result<bool, EngineError> {
        let now = self.parts.clock.now();
        let mut tx = self.parts.store.begin().await?;
        let claimed = rekeys::claim(&mut tx, &self.parts.name, now, later(now, LEASE)).await?;
        tx.commit().await?;
        let Some(mut rekey) = claimed else { return Ok(false) };
        loop {
            let begun = Instant::now();
            let step = match rekey.stage {
                Stage::Generate => self.generate(&rekey).await?,
                Stage::Wrap => self.wrap(&rekey).await?,
                Stage::Wrapped | Stage::Retired => Step::Done,
            };
            match step {
                Step::Done => return Ok(true),
                Step::Goes(next) => rekey = next,
                Step::Waits(pause, message) => {
                    self.release(&rekey, pause, &message).await?;
                    return Ok(true);
                }
            }
            let least = Duration::from_secs_f64(f64::from(STEP.min(rekey.rate)) / f64::from(rekey.rate.max(1)));
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.release(&rekey, Duration::ZERO, "").await?;
                    return Ok(true);
                }
                () = tokio::time::sleep_until(begun + least) => {}
            }
        }
    }

    async fn release(&self, rekey: &Rekey, pause: Duration, message: &str) -> Result<(), EngineError> {
        if !message.is_empty() {
            tracing::warn!(account = rekey.account.0, why = message, "a change of keys waits");
        }
        let mut tx = self.parts.store.begin().await?;
        rekeys::release(&mut tx, rekey, later(self.parts.clock.now(), pause), message).await?;
        Ok(tx.commit().await?)
    }

    async fn account(&self, id: &AccountId) -> Result<Account, EngineError> {
        let mut tx = self.parts.store.read().await?;
        Ok(accounts::find(&mut tx, id).await?.ok_or(StoreError::NotFound("the account"))?)
    }

    /// The holders make the key, unless they have it already, and new records get it.
    async fn generate(&self, rekey: &Rekey) -> Result<Step, EngineError> {
        let account = self.account(&rekey.account).await?;
        let Some(suite) = Suite::of_byte(rekey.suite) else {
            return Ok(Step::Waits(PAUSES.1, format!("suite {} is not known here: upgrade this gateway", rekey.suite)));
        };
        if let Err(error) = self.parts.vault.quorum().create_key_of(suite, account.realm.0, rekey.new_key).await {
            return Ok(Step::Waits(PAUSES.0, error.to_string()));
        }
        let now = self.parts.clock.now();
        let mut tx = self.parts.store.begin().await?;
        let total = rekeys::left(&mut tx, &rekey.account, mark(rekey.new_key)).await?;
        rekeys::switch(&mut tx, rekey, total, now).await?;
        let detail =
            format!("new records get key {} of suite {suite} in place of key {}", rekey.new_key, rekey.old_key);
        audit::append(&mut tx, &rekey.account, &[self.entry(rekey, &detail)]).await?;
        tx.commit().await?;
        Ok(Step::Goes(Rekey { stage: Stage::Wrap, total, ..rekey.clone() }))
    }

    /// One step of the walk.
    async fn wrap(&self, rekey: &Rekey) -> Result<Step, EngineError> {
        let mark = mark(rekey.new_key);
        let mut tx = self.parts.store.read().await?;
        let limit = STEP.min(rekey.rate.max(1));
        let found = rekeys::after(&mut tx, &rekey.account, mark, &rekey.place, limit).await?;
        drop(tx);
        let Some(last) = found.last() else { return self.end_of_pass(rekey).await };
        let account = Account { key_id: rekey.new_key, ..self.account(&rekey.account).await? };
        let outcomes = work::of(WORK, &account.id, rekey.new_key.into()).scope(self.rewrapped(&account, &found)).await;
        let (mut wrapped, mut skipped, mut unreachable) = (Vec::new(), rekey.skipped, None);
        for (found, outcome) in found.iter().zip(outcomes) {
            match outcome {
                Ok(sealed) => wrapped.push((found, sealed)),
                Err(error) if is_away(&error) => unreachable = Some(error.to_string()),
                Err(error @ (QuorumError::CustomerFragment { .. } | QuorumError::CustomerToken { .. })) => {
                    // There may be many, and another gateway may have the fragment.
                    tracing::debug!(account = account.id.0, object = %found.name, %error, "a record is left to other gateways");
                    skipped += 1;
                }
                Err(error) => {
                    tracing::error!(account = account.id.0, object = %found.name, %error, "a record cannot be wrapped anew");
                    skipped += 1;
                }
            }
        }
        let place = if unreachable.is_some() { &rekey.place } else { &last.place };
        let mut tx = self.parts.store.begin().await?;
        let replaced = rekeys::replace_all(&mut tx, &rekey.account, &wrapped).await?;
        let until = later(self.parts.clock.now(), LEASE);
        rekeys::advance(&mut tx, rekey, (place, replaced, skipped), until).await?;
        // It explains what the holders were asked meanwhile.
        audit::append(
            &mut tx,
            &rekey.account,
            &[self.entry(rekey, &format!("{replaced} records have key {} now", rekey.new_key))],
        )
        .await?;
        tx.commit().await?;
        Ok(match unreachable {
            Some(why) => Step::Waits(PAUSES.0, why),
            None => Step::Goes(Rekey { place: place.clone(), skipped, ..rekey.clone() }),
        })
    }

    /// All together; if that fails, one by one, since holders that refuse one refuse its whole message.
    async fn rewrapped(&self, account: &Account, found: &[Found]) -> Vec<Result<Vec<u8>, QuorumError>> {
        let together = self.ask(account, found).await;
        let fails = |outcome: &Result<_, QuorumError>| matches!(outcome, Err(error) if !matches!(error, QuorumError::Record(_)));
        if found.len() < 2 || !together.iter().any(fails) {
            return together;
        }
        let mut alone = Vec::with_capacity(found.len());
        for (at, before) in together.into_iter().enumerate() {
            // Nobody is there for the first one: nobody will be there for the others.
            let hopeless = matches!(alone.first(), Some(Err(error)) if is_away(error));
            if hopeless || !fails(&before) {
                alone.push(before);
                continue;
            }
            alone.push(self.ask(account, &found[at..=at]).await.pop().unwrap_or(before));
        }
        alone
    }

    async fn ask(&self, account: &Account, found: &[Found]) -> Vec<Result<Vec<u8>, QuorumError>> {
        let placed = found.iter().map(|found| {
            let place = match &found.place {
                Place::Item(_, version, host) => place_of_item(account, found.uid, &found.name, host, *version),
                Place::Target(_, version) => place_of_target(account, found.uid, &found.name, *version),
            };
            (place, found.sealed.clone())
        });
        self.parts.vault.quorum().rekey_many(&placed.collect::<Vec<_>>()).await
    }

    /// Nothing is left, or somebody wrote behind the walk, or some records cannot be wrapped.
    async fn end_of_pass(&self, rekey: &Rekey) -> Result<Step, EngineError> {
        let now = self.parts.clock.now();
        let mut tx = self.parts.store.begin().await?;
        let left = rekeys::left(&mut tx, &rekey.account, mark(rekey.new_key)).await?;
        if left == 0 {
            rekeys::finish(&mut tx, rekey, now).await?;
            let detail = format!("every record has key {} now", rekey.new_key);
            audit::append(&mut tx, &rekey.account, &[self.entry(rekey, &detail)]).await?;
            tx.commit().await?;
            tracing::info!(account = rekey.account.0, key_id = rekey.new_key, "every record is under the new key");
            return Ok(Step::Done);
        }
        let start = Place::start();
        rekeys::advance(&mut tx, rekey, (&start, 0, 0), later(now, LEASE)).await?;
        tx.commit().await?;
        if rekey.skipped > 0 {
            let message = format!(
                "{left} records cannot be wrapped anew: the gateway's log names them, unless they need a customer's fragment \
                 that it does not have"
            );
            return Ok(Step::Waits(PAUSES.1, message));
        }
        Ok(Step::Goes(Rekey { place: start, skipped: 0, ..rekey.clone() }))
    }

    /// Tells the holders to destroy every older key of the accounts whose records are all under the newest one. Gives how many
    /// accounts that are, and why the others are not.
    ///
    /// # Errors
    /// A holder cannot be reached, or the store failed. It may be repeated.
    pub async fn retire(&self) -> Result<(usize, Vec<(AccountId, String)>), EngineError> {
        let mut tx = self.parts.store.read().await?;
        let all = rekeys::list(&mut tx).await?;
        drop(tx);
        let keys = self.parts.vault.quorum().keys().await?;
        let (mut marked, mut refused) = (Vec::new(), Vec::new());
        for rekey in all {
            let account = self.account(&rekey.account).await?;
            let over = matches!(rekey.stage, Stage::Wrapped | Stage::Retired) && rekey.new_key == account.key_id;
            if !over || self.left(&rekey).await? > 0 {
                refused.push((account.id, "records are still under an older key".to_owned()));
                continue;
            }
            for key in keys.iter().filter(|key| key.0 == account.realm.0 && key.1 < rekey.new_key) {
                self.parts.vault.quorum().retire_key(*key).await?;
            }
            marked.push((account, rekey));
        }
        // Nothing new is sealed under them from now on; what was sealed a moment ago is stored by then.
        tokio::time::sleep(SETTLE).await;
        let mut retired = 0;
        for (account, rekey) in marked {
            if self.left(&rekey).await? > 0 {
                self.keep(&account, &rekey).await?;
                refused.push((account.id, "a record was written under an older key meanwhile".to_owned()));
                continue;
            }
            let mut tx = self.parts.store.begin().await?;
            rekeys::set_stage(&mut tx, &rekey, Stage::Retired).await?;
            let detail = format!("the holders are to destroy every key before key {}", rekey.new_key);
            audit::append(&mut tx, &rekey.account, &[self.entry(&rekey, &detail)]).await?;
            tx.commit().await?;
            retired += 1;
        }
        Ok((retired, refused))
    }

    async fn left(&self, rekey: &Rekey) -> Result<i64, EngineError> {
        let mut tx = self.parts.store.read().await?;
        Ok(rekeys::left(&mut tx, &rekey.account, mark(rekey.new_key)).await?)
    }

    /// Whatever has an older key although it is retired: the key stays, and the record is wrapped anew.
    async fn watch(&self) -> Result<(), EngineError> {
        let mut tx = self.parts.store.read().await?;
        let all = rekeys::list(&mut tx).await?;
        drop(tx);
        for rekey in all.iter().filter(|rekey| rekey.stage == Stage::Retired) {
            if self.left(rekey).await? > 0 {
                tracing::error!(account = rekey.account.0, "a record has a key that is retired; it is wrapped anew");
                self.keep(&self.account(&rekey.account).await?, rekey).await?;
            }
        }
        Ok(())
    }

    async fn keep(&self, account: &Account, rekey: &Rekey) -> Result<(), EngineError> {
        for key_id in 1..rekey.new_key {
            // One that is destroyed already is gone; the others are what counts.
            if let Err(error) = self.parts.vault.quorum().keep_key((account.realm.0, key_id)).await {
                tracing::warn!(key_id, %error, "not every holder keeps a key that is retired");
            }
        }
        self.back_to_wrapping(rekey).await
    }

    async fn back_to_wrapping(&self, rekey: &Rekey) -> Result<(), EngineError> {
        let mut tx = self.parts.store.begin().await?;
        rekeys::set_stage(&mut tx, rekey, Stage::Wrap).await?;
        tx.commit().await?;
        self.bell.notify_one();
        Ok(())
    }

    fn entry(&self, rekey: &Rekey, detail: &str) -> audit::Entry {
        audit::Entry {
            at: self.parts.clock.now(),
            actor: "volvelle".to_owned(),
            action: "fragments_rekey".to_owned(),
            object: "fragments".to_owned(),
            outcome: "ok".to_owned(),
            remote: String::new(),
            detail: detail.to_owned(),
            request: work::name(WORK, &rekey.account, rekey.new_key.into()),
        }
    }
}
