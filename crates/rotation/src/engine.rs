//! The loop that plans, claims and drives, and the calls by which others ask for a rotation and wait for its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volvelle_domain::account::Account;
use volvelle_domain::ids::{AccountId, ItemId, Micros, RotationId, TargetId};
use volvelle_domain::item::{Item, RotatorStatus, VersionState};
use volvelle_domain::rotation::Stage;
use volvelle_holder::asker;
use volvelle_store::rotations::Rotation;
use volvelle_store::versions::Slot;
use volvelle_store::{StoreError, audit, items, rekeys, rotations, targets, versions};

use crate::job::{self, SHARED, SlotJobs};
use crate::seat::{Resolved, Seat};
use crate::worker::{Worker, later};
use crate::{EngineError, Parts, books, issue, planner};

/// Longest time the loop sleeps: what another gateway put into the queue is found by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often somebody who waits looks by himself.
const LOOK: Duration = Duration::from_millis(500);
/// How long the last words of a killed process may be under way. If one comes later, it makes the candidate the account's value,
/// which is kept until then: the rotation goes on with the same candidate.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Nobody waits for a rotation that pauses longer than this.
const LONG_PAUSE_SECONDS: i64 = 8;
/// Outcomes that may wait for a slow listener.
const OUTCOMES: usize = 1024;

/// Tells who waits that something happened.
#[derive(Clone)]
pub(crate) struct Bells {
    work: Arc<Notify>,
    ends: broadcast::Sender<(AccountId, RotationId)>,
}

impl Bells {
    pub(crate) fn ended(&self, rotation: &Rotation) {
        // Nobody listening is fine.
        let _ = self.ends.send((rotation.slot.account.clone(), rotation.id));
    }

    pub(crate) fn work(&self) {
        self.work.notify_one();
    }
}

/// How one rotation stands.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its number.
    pub id: RotationId,
    /// Empty, or the host of a linked target.
    pub host: String,
    /// How far it has come.
    pub stage: Stage,
    /// Why it failed or waits.
    pub message: String,
    /// When it goes on, if it waits.
    pub waits_until: Option<Micros>,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    parts: Parts,
    worker: Arc<Worker>,
    bells: Bells,
}

impl Engine {
    /// An engine over its parts; nothing runs before [`Self::run`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let bells = Bells { work: Arc::default(), ends: broadcast::channel(OUTCOMES).0 };
        let jobs = Arc::new(SlotJobs { parts: parts.clone(), bells: bells.clone() });
        let (store, clock) = (parts.store.clone(), Arc::clone(&parts.clock));
        let worker = Arc::new(Worker::new(store, jobs, clock, parts.name.clone(), parts.settings.timing));
        Self { parts, worker, bells }
    }

    /// What the engine works with.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) const fn bells(&self) -> &Bells {
        &self.bells
    }

    /// Gives back the leases of a process of this name that is known to be dead. Its last words may still be on their way to
    /// a target: nothing is asked before the quiet time is over.
    ///
    /// # Errors
    /// The store failed.
    pub async fn bury_the_dead(&self) -> Result<u64, EngineError> {
        let now = self.parts.clock.now();
        let mut tx = self.parts.store.begin().await?;
        let not_before = later(now, self.parts.settings.timing.quiet.min(LAST_WORDS));
        let freed = rotations::release_dead(&mut tx, &self.parts.name, now, not_before).await?;
        rekeys::release_dead(&mut tx, &self.parts.name).await?;
        tx.commit().await?;
        Ok(freed)
    }

    /// Plans, claims and drives until `shutdown`; then lets running rotations reach their next save.
    pub async fn run(&self, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.parts.settings.at_once));
        let tasks = TaskTracker::new();
        while !shutdown.is_cancelled() {
            if let Err(error) = planner::plan(self).await {
                tracing::warn!(%error, "what is due cannot be planned");
            }
            let sleep = match self.claim(&slots, &tasks).await {
                Ok(sleep) => sleep,
                Err(error) => {
                    tracing::warn!(%error, "rotations cannot be claimed");
                    LONGEST_SLEEP
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.bells.work.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
        tasks.close();
        // What does not end in time is found by its lease when the gateway starts again.
        let _ = tokio::time::timeout(Duration::from_secs(3), tasks.wait()).await;
    }

    /// Claims as many as there is room for; answers how long to sleep.
    async fn claim(&self, slots: &Arc<Semaphore>, tasks: &TaskTracker) -> Result<Duration, StoreError> {
        let free = slots.available_permits();
        if free == 0 {
            return Ok(LONGEST_SLEEP);
        }
        let now = self.parts.clock.now();
        let limit = u32::try_from(free).unwrap_or(u32::MAX);
        let claimed = self.worker.claim(limit, self.parts.settings.per_target).await?;
        let short = claimed.len() < free;
        for rotation in claimed {
            let Ok(slot) = Arc::clone(slots).try_acquire_owned() else { break };
            let (worker, bells) = (Arc::clone(&self.worker), self.bells.clone());
            tasks.spawn(async move {
                let (item, host) = (rotation.slot.item, rotation.slot.host.clone());
                if let Err(error) = worker.drive(rotation).await {
                    tracing::warn!(%error, %item, host, "a rotation was interrupted; its lease brings it back");
                }
                drop(slot);
                bells.work();
            });
        }
        if !short {
            return Ok(Duration::from_millis(50));
        }
        let mut tx = self.parts.store.read().await?;
        let wake = rotations::next_wake(&mut tx, now).await?;
        let until = wake.map_or(i64::MAX, |at| at.0.saturating_sub(self.parts.clock.now().0).max(1_000));
        Ok(LONGEST_SLEEP.min(Duration::from_micros(until.unsigned_abs())))
    }

    /// Puts a rotation of every slot of a secret into the queue; those under way are found. The first numbers are those to wait
    /// for.
    ///
    /// # Errors
    /// The secret does not rotate, is out of sync, or its target cannot be loaded.
    pub async fn enqueue(
        &self,
        account: &Account,
        item: &Item,
        (cause, by): (&str, &str),
        entry: Option<audit::Entry>,
    ) -> Result<Vec<RotationId>, EngineError> {
        let rotator = item.rotator.as_ref().ok_or(EngineError::NotRotated)?;
        if rotator.status == RotatorStatus::OutOfSync && cause != "repair" {
            return Err(EngineError::OutOfSync);
        }
        // Before anything is written down: what cannot be opened here cannot be rotated here.
        self.parts.vault.require(item.protection.as_ref())?;
        let turn = self.require_target(account, rotator.target).await?;
        let (hosts, shared) = self.slots_of(account, item, by).await?;
        let manner = issue::manner(&self.parts, rotator);
        let now = self.parts.clock.now();
        let mut tx = self.parts.store.begin().await?;
        let stored = items::lock(&mut tx, &account.id, item.id).await?;
        if let Some(shared) = shared {
            if stored.name != item.name || stored.protection != item.protection {
                return Err(StoreError::Conflict("the secret under another name or key").into());
            }
            let slot = Slot { account: account.id.clone(), item: item.id, host: SHARED.to_owned() };
            versions::add(&mut tx, &slot, &shared).await?;
        }
        let mut ids = Vec::with_capacity(hosts.len());
        for host in hosts {
            let slot = Slot { account: account.id.clone(), item: item.id, host };
            let state = issue::fresh_state(&versions::open_set(&mut tx, &slot).await?, manner);
            ids.push(rotations::enqueue(&mut tx, &slot, turn, &state, (cause, by), now).await?);
        }
        rotations::pull_forward(&mut tx, &account.id, item.id, now).await?;
        let own = asker::evaluated().map(|_| books::planned(item, cause, now));
        if let Some(mut entry) = entry.or(own) {
            entry.request = asker::evaluated().unwrap_or_default();
            audit::append(&mut tx, &account.id, &[entry]).await?;
        }
        tx.commit().await?;
        asker::note();
        self.bells.work();
        Ok(ids)
    }

    /// Refuses a target, or a target's parent, that is sealed with a customer's fragment which is not here. Gives the one whose turn it
    /// is with: those that act by one parent's account wait for each other and for what renews it, lest all of them try a former password.
    async fn require_target(&self, account: &Account, id: TargetId) -> Result<TargetId, EngineError> {
        let mut tx = self.parts.store.read().await?;
        let target = targets::load(&mut tx, &account.id, id).await?;
        self.parts.vault.require(target.protection.as_ref())?;
        if let Some(parent) = target.parent {
            let parent = targets::load(&mut tx, &account.id, parent).await?;
            self.parts.vault.require(parent.protection.as_ref())?;
        }
        Ok(target.parent.filter(|_| target.linked.is_none()).unwrap_or(id))
    }

    /// Puts the end of every grace of a secret into the queue; whether there was one.
    pub(crate) async fn enqueue_endings(&self, item: &Item) -> Result<bool, EngineError> {
        let rotator = item.rotator.as_ref().ok_or(EngineError::NotRotated)?;
        let now = self.parts.clock.now();
        let mut tx = self.parts.store.begin().await?;
        items::lock(&mut tx, &item.account, item.id).await?;
        let kept = versions::list_item(&mut tx, &item.account, item.id).await?;
        let mut hosts: Vec<String> = kept
            .into_iter()
            .filter(|version| version.state == VersionState::Grace)
            .map(|version| version.host)
            .collect();
        hosts.dedup();
        let mut found = false;
        for host in hosts {
            let slot = Slot { account: item.account.clone(), item: item.id, host };
            if let Some(state) = issue::ending_state(&versions::open_set(&mut tx, &slot).await?) {
                rotations::enqueue(&mut tx, &slot, rotator.target, &state, (issue::GRACE, "volvelle"), now).await?;
                found = true;
            }
        }
        tx.commit().await?;
        self.bells.work();
        Ok(found)
    }

    /// The hosts of a secret's slots, and the password they are to share if they do.
    async fn slots_of(
        &self,
        account: &Account,
        item: &Item,
        by: &str,
    ) -> Result<(Vec<String>, Option<volvelle_domain::item::ItemVersion>), EngineError> {
        let rotator = item.rotator.as_ref().ok_or(EngineError::NotRotated)?;
        let mut tx = self.parts.store.read().await?;
        let target = targets::load(&mut tx, &account.id, rotator.target).await?;
        drop(tx);
        if target.linked.is_none() {
            return Ok((vec![String::new()], None));
        }
        let resolved = Resolved::load(&self.parts, account, rotator.target).await?;
        let hosts = resolved.hosts();
        let Some(first) = hosts.first().filter(|_| rotator.same_password) else { return Ok((hosts, None)) };
        let seat = Seat::new(&self.parts, account, item, first, resolved)?;
        let named = seat.nameless()?;
        let shared = job::share_password(&self.parts, &seat.with_current(named), self.parts.clock.now(), by).await?;
        Ok((hosts, Some(shared)))
    }

    /// Waits until all of these have ended or make a long pause, or until `patience` is over; answers how each stands then.
    ///
    /// # Errors
    /// The store failed.
    pub async fn wait(
        &self,
        account: &AccountId,
        ids: &[RotationId],
        patience: Duration,
    ) -> Result<Vec<Outcome>, EngineError> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut ends = self.bells.ends.subscribe();
        loop {
            let mut tx = self.parts.store.read().await?;
            let mut outcomes = Vec::with_capacity(ids.len());
            for id in ids {
                outcomes.push(outcome(rotations::load(&mut tx, account, *id).await?));
            }
            drop(tx);
            let long = self.parts.clock.now().plus_seconds(LONG_PAUSE_SECONDS);
            let over = |o: &Outcome| o.stage.is_final() || o.waits_until.is_some_and(|until| until > long);
            if outcomes.iter().all(over) || tokio::time::Instant::now() >= deadline {
                return Ok(outcomes);
            }
            let look = tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + LOOK));
            tokio::pin!(look);
            loop {
                tokio::select! {
                    () = &mut look => break,
                    heard = ends.recv() => match heard {
                        Ok((whose, id)) if whose != *account || !ids.contains(&id) => {}
                        _ => break,
                    },
                }
            }
        }
    }

    /// Waits, at most `patience`, while a rotation of the secret is between staged and done.
    ///
    /// # Errors
    /// The store failed.
    pub async fn settled(&self, account: &AccountId, item: ItemId, patience: Duration) -> Result<(), EngineError> {
        let mut tx = self.parts.store.read().await?;
        let open = rotations::open_of(&mut tx, account, item).await?;
        drop(tx);
        let busy: Vec<RotationId> =
            open.iter().filter(|rotation| is_under_way(rotation.state.stage)).map(|rotation| rotation.id).collect();
        if !busy.is_empty() {
            self.wait(account, &busy, patience).await?;
        }
        Ok(())
    }

    /// The time by the engine's clock.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.parts.clock.now()
    }
}

/// Whether the target may have another value than the current one.
const fn is_under_way(stage: Stage) -> bool {
    matches!(stage, Stage::Staged | Stage::Applied | Stage::Verified | Stage::InDoubt)
}

fn outcome(rotation: Rotation) -> Outcome {
    let waits = !rotation.state.stage.is_final() && rotation.lease_until < rotation.not_before;
    Outcome {
        id: rotation.id,
        host: rotation.slot.host,
        stage: rotation.state.stage,
        message: rotation.message,
        waits_until: waits.then_some(rotation.not_before),
    }
}
