//! One worker: claims rotations and drives each until it ends or has to wait.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use volvelle_domain::connector::{ActingAs, ApplyOutcome, Failure, FailureClass, ProbeOutcome};
use volvelle_domain::ids::{Clock, Micros, Version};
use volvelle_domain::item::{ItemVersion, VersionState};
use volvelle_domain::rotation::{Answer, Applied, Effect, Event, Limits, State, next, step};
use volvelle_store::rotations::Rotation;
use volvelle_store::{Store, StoreError, audit, rotations, versions};

use crate::crash;

/// What a worker needs done outside the store: sealing, opening and the connector's calls for one slot.
#[async_trait]
pub trait Hands: Send + Sync + 'static {
    /// Whose credential logs in.
    fn acting(&self, rotation: &Rotation) -> ActingAs;
    /// Proves that the change can be made.
    async fn preflight(&self, rotation: &Rotation) -> Result<(), Failure>;
    /// Generates a credential and seals it as this version.
    async fn candidate(&self, rotation: &Rotation, version: Version) -> Result<Vec<u8>, Failure>;
    /// Makes the version the account's credential.
    async fn apply(&self, rotation: &Rotation, version: &ItemVersion) -> ApplyOutcome;
    /// Which versions open the account: one answer each, in order.
    async fn probe(&self, rotation: &Rotation, versions: &[ItemVersion]) -> Vec<ProbeOutcome>;
}

/// Times a worker keeps. The lease must outlast `call` and `quiet` together: then a lease that ended means that nothing sent
/// under it can still arrive.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long one call of the target may take.
    pub call: Duration,
    /// After this an unanswered change cannot arrive any more; also the shortest back-off.
    pub quiet: Duration,
}

/// Claims and drives rotations.
pub struct Worker {
    store: Store,
    hands: Arc<dyn Hands>,
    clock: Arc<dyn Clock>,
    name: String,
    timing: Timing,
    limits: Limits,
}

impl Worker {
    /// A worker with its name in leases.
    #[must_use]
    pub fn new(store: Store, hands: Arc<dyn Hands>, clock: Arc<dyn Clock>, name: String, timing: Timing) -> Self {
        Self { store, hands, clock, name, timing, limits: Limits::default() }
    }

    /// Claims at most one rotation and drives it; whether there was one.
    ///
    /// # Errors
    /// The store failed, or the lease was lost: nothing further was changed.
    pub async fn turn(&self) -> Result<bool, StoreError> {
        let mut tx = self.store.begin().await?;
        let now = self.clock.now();
        let claimed = rotations::claim(&mut tx, &self.name, now, later(now, self.timing.lease), (1, 1)).await?;
        tx.commit().await?;
        let Some(mut rotation) = claimed.into_iter().next() else { return Ok(false) };
        self.save(&mut rotation, &Event::Claimed, None, "").await?;
        let mut quiet = true;
        while self.act(&mut rotation, &mut quiet).await? {}
        Ok(true)
    }

    /// Does the next effect; whether there is more to do.
    async fn act(&self, rotation: &mut Rotation, quiet: &mut bool) -> Result<bool, StoreError> {
        if rotation.state.stage.is_final() {
            return Ok(false);
        }
        self.renew(rotation).await?;
        let effect = next(&rotation.state);
        let (event, message) = match &effect {
            Effect::Preflight => match self.limited(self.hands.preflight(rotation)).await {
                Ok(Ok(())) => (Event::Preflight(Ok(())), String::new()),
                Ok(Err(failure)) | Err(failure) => (Event::Preflight(Err(failure.class)), failure.message),
            },
            Effect::Stage => return self.stage(rotation).await,
            Effect::Apply(version) => {
                let version = self.load(rotation, *version).await?;
                let outcome = self.limited(self.hands.apply(rotation, &version)).await;
                let (applied, message) = heard(outcome.unwrap_or_else(ApplyOutcome::Ambiguous));
                *quiet &= !matches!(applied, Applied::Ambiguous(_));
                (Event::Applied(applied), message)
            }
            Effect::Probe(numbers) => (self.probe(rotation, numbers, *quiet).await?, String::new()),
            Effect::Settle { .. } => (Event::Settled, rotation.message.clone()),
            Effect::Wait => return self.wait(rotation).await,
            Effect::End => return Ok(false),
        };
        self.save(rotation, &event, Some(&effect), &message).await?;
        Ok(true)
    }

    async fn probe(&self, rotation: &Rotation, numbers: &[Version], quiet: bool) -> Result<Event, StoreError> {
        let mut asked = Vec::with_capacity(numbers.len());
        for number in numbers {
            asked.push(self.load(rotation, *number).await?);
        }
        let outcomes = self.limited(self.hands.probe(rotation, &asked)).await.unwrap_or_default();
        let answer = |n: usize| match outcomes.get(n) {
            Some(ProbeOutcome::Opens(_)) => Answer::Opens,
            Some(ProbeOutcome::Refused(_)) => Answer::Refused,
            Some(ProbeOutcome::Unknown(_)) | None => Answer::Unknown,
        };
        let answers = numbers.iter().enumerate().map(|(n, number)| (*number, answer(n))).collect();
        Ok(Event::Probed { answers, quiet })
    }

    /// Stores a candidate in the transaction that says so.
    async fn stage(&self, rotation: &mut Rotation) -> Result<bool, StoreError> {
        let mut reader = self.store.read().await?;
        let newest = versions::list(&mut reader, &rotation.slot).await?.first().map_or(0, |v| v.version);
        drop(reader);
        let number = newest + 1;
        let sealed = match self.limited(self.hands.candidate(rotation, number)).await {
            Ok(Ok(sealed)) => sealed,
            Ok(Err(_)) | Err(_) => return self.wait(rotation).await,
        };
        let version = ItemVersion {
            version: number,
            host: rotation.slot.host.clone(),
            state: VersionState::Candidate,
            sealed,
            created_at: self.clock.now(),
            created_by: rotation.requested_by.clone(),
            reason: rotation.cause.clone(),
            verified_at: None,
        };
        let mut tx = self.store.begin().await?;
        versions::add(&mut tx, &rotation.slot, &version).await?;
        let state = self.after(rotation, &Event::Staged(number));
        self.close(tx, rotation, state, "").await?;
        Ok(true)
    }

    async fn save(
        &self,
        rotation: &mut Rotation,
        event: &Event,
        effect: Option<&Effect>,
        message: &str,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        if let Some(Effect::Settle { winner, dropped }) = effect {
            versions::settle(&mut tx, &rotation.slot, *winner, dropped, self.clock.now()).await?;
        }
        let state = self.after(rotation, event);
        self.close(tx, rotation, state, message).await
    }

    async fn close(
        &self,
        mut tx: volvelle_store::Tx,
        rotation: &mut Rotation,
        state: State,
        message: &str,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        rotations::save(&mut tx, rotation, &state, message, now, rotations::Lease::Keep).await?;
        let entry = audit::Entry {
            at: now,
            actor: "volvelle".to_owned(),
            action: "rotate_item".to_owned(),
            object: format!("item {} {}", rotation.slot.item, rotation.slot.host),
            outcome: if state.class.is_some() { "failed" } else { "ok" }.to_owned(),
            remote: String::new(),
            detail: state.stage.as_str().to_owned(),
        };
        audit::append(&mut tx, &rotation.slot.account, &[entry]).await?;
        crash::point("before save");
        tx.commit().await?;
        crash::point("after save");
        rotation.state = state;
        message.clone_into(&mut rotation.message);
        Ok(())
    }

    fn after(&self, rotation: &Rotation, event: &Event) -> State {
        step(&rotation.state, event, self.hands.acting(rotation), self.limits)
    }

    async fn load(&self, rotation: &Rotation, number: Version) -> Result<ItemVersion, StoreError> {
        let mut reader = self.store.read().await?;
        versions::find(&mut reader, &rotation.slot, number).await?.ok_or(StoreError::NotFound("the version"))
    }

    async fn renew(&self, rotation: &mut Rotation) -> Result<(), StoreError> {
        let until = later(self.clock.now(), self.timing.lease);
        let mut tx = self.store.begin().await?;
        rotations::renew(&mut tx, rotation, until).await?;
        tx.commit().await?;
        rotation.lease_until = until;
        Ok(())
    }

    async fn wait(&self, rotation: &Rotation) -> Result<bool, StoreError> {
        let mut tx = self.store.begin().await?;
        rotations::release(&mut tx, rotation, later(self.clock.now(), self.timing.quiet)).await?;
        tx.commit().await?;
        Ok(false)
    }

    async fn limited<T>(&self, call: impl Future<Output = T>) -> Result<T, Failure> {
        let late = || Failure::new(FailureClass::Timeout, "the target did not answer in time", "");
        tokio::time::timeout(self.timing.call, call).await.map_err(|_| late())
    }
}

fn heard(outcome: ApplyOutcome) -> (Applied, String) {
    match outcome {
        ApplyOutcome::Applied => (Applied::Confirmed, String::new()),
        ApplyOutcome::Rejected(f) => (Applied::Rejected(f.class), f.message),
        ApplyOutcome::NotReached(f) => (Applied::NotReached(f.class), f.message),
        ApplyOutcome::Ambiguous(f) => (Applied::Ambiguous(f.class), f.message),
    }
}

fn later(now: Micros, by: Duration) -> Micros {
    now.plus_millis(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}
