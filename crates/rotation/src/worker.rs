//! One worker: claims rotations and drives each until it ends or has to wait.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use volvelle_domain::connector::{ActingAs, ApplyOutcome, Failure, FailureClass, ProbeOutcome};
use volvelle_domain::ids::{AccountId, Clock, Micros, RotationId, Version};
use volvelle_domain::item::{ItemVersion, VersionState};
use volvelle_domain::rotation::{Answer, Applied, Effect, Event, Limits, Manner, Stage, State, next, step};
use volvelle_holder::asker;
use volvelle_store::rotations::{Lease, Rotation};
use volvelle_store::{Store, StoreError, Tx, audit, rotations, versions};

use crate::{crash, work};

/// The kind of work this is.
const WORK: &str = "rotation";

/// Makes a worker's jobs.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// Loads what a claimed rotation needs.
    async fn job(&self, rotation: &Rotation) -> Result<Box<dyn Job>, Failure>;
    /// Check values of the customer's fragments that are here; what needs others is left to other gateways.
    fn fragments(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a worker needs done outside the store for one rotation: sealing, opening, the connector's calls, and the books.
#[async_trait]
pub trait Job: Send + Sync {
    /// Whose credential logs in.
    fn acting(&self) -> ActingAs;
    /// The secret's path, for the audit log.
    fn object(&self) -> String;
    /// Proves that the change can be made.
    async fn preflight(&mut self) -> Result<(), Failure>;
    /// Generates a credential and seals it as this version.
    async fn candidate(&mut self, version: Version) -> Result<Vec<u8>, Failure>;
    /// Makes the version the account's credential; a target that issues answers with the new content of the version's record.
    async fn apply(&mut self, version: &ItemVersion) -> (ApplyOutcome, Option<Vec<u8>>);
    /// Takes versions off the target that are not current any more.
    async fn revoke(&mut self, versions: &[ItemVersion]) -> Result<(), Failure>;
    /// Which versions open the account: one answer each, in order.
    async fn probe(&mut self, versions: &[ItemVersion]) -> Vec<ProbeOutcome>;
    /// Gets ready what is written together with the winner.
    async fn prepare(&mut self, winner: &ItemVersion) -> Result<(), Failure>;
    /// Writes what belongs to a save, in its transaction.
    async fn write(&mut self, tx: &mut Tx, rotation: &Rotation, state: &State, now: Micros) -> Result<(), StoreError>;
    /// How long one call of the target may take.
    fn limit(&self, timing: &Timing) -> Duration {
        timing.call
    }
    /// What was written is durable.
    fn written(&mut self, rotation: &Rotation, state: &State);
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

/// Longest back-off of a rotation that waits.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Claims and drives rotations.
pub struct Worker {
    store: Store,
    jobs: Arc<dyn Jobs>,
    clock: Arc<dyn Clock>,
    name: String,
    timing: Timing,
    limits: Limits,
}

/// One rotation while it is driven.
struct Drive {
    rotation: Rotation,
    job: Box<dyn Job>,
    /// Whether no application of ours can still be under way.
    quiet: bool,
    /// Stages passed since the last save.
    passed: Vec<Stage>,
}

/// What is saved together with an event.
#[derive(Default)]
struct With<'a> {
    version: Option<ItemVersion>,
    /// What the target issued as this version, sealed.
    issued: Option<(Version, Vec<u8>)>,
    settle: Option<&'a Effect>,
    message: String,
}

impl With<'_> {
    fn message(text: impl Into<String>) -> Self {
        With { message: text.into(), ..With::default() }
    }
}

impl Worker {
    /// A worker with its name in leases.
    #[must_use]
    pub fn new(store: Store, jobs: Arc<dyn Jobs>, clock: Arc<dyn Clock>, name: String, timing: Timing) -> Self {
        Self { store, jobs, clock, name, timing, limits: Limits::default() }
    }

    /// Takes leases of at most `limit` rotations, at most `per_target` on one host.
    ///
    /// # Errors
    /// The store failed.
    pub async fn claim(&self, limit: u32, per_target: u32) -> Result<Vec<Rotation>, StoreError> {
        let mut tx = self.store.begin().await?;
        let now = self.clock.now();
        let until = later(now, self.timing.lease);
        let claimed =
            rotations::claim(&mut tx, &self.name, now, until, (limit, per_target), &self.jobs.fragments()).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Drives a claimed rotation until it ends or has to wait.
    ///
    /// # Errors
    /// The store failed, or the lease was lost: nothing further was changed.
    pub async fn drive(&self, rotation: Rotation) -> Result<(), StoreError> {
        let (account, id) = (rotation.slot.account.clone(), rotation.id);
        let drive = async {
            let outcome = self.go_on(rotation).await;
            if asker::is_unnoted() {
                self.note(&account, id).await?;
            }
            outcome
        };
        work::of(WORK, &account, id.0).scope(drive).await
    }

    /// Leaves an entry of what was evaluated and came to nothing.
    async fn note(&self, account: &AccountId, id: RotationId) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        let entry = audit::Entry {
            at: self.clock.now(),
            actor: "volvelle".to_owned(),
            action: "rotate_item".to_owned(),
            object: String::new(),
            outcome: "failed".to_owned(),
            remote: String::new(),
            detail: format!("rotation {id} waits"),
            request: work::name(WORK, account, id.0),
        };
        audit::append(&mut tx, account, &[entry]).await?;
        tx.commit().await
    }

    async fn go_on(&self, rotation: Rotation) -> Result<(), StoreError> {
        let job = match self.jobs.job(&rotation).await {
            Ok(job) => job,
            Err(failure) => return self.put_off(&rotation, &failure.message).await,
        };
        let mut drive = Drive { rotation, job, quiet: true, passed: Vec::new() };
        self.save(&mut drive, &Event::Claimed, With::default()).await?;
        loop {
            match self.act(&mut drive).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Somebody else wrote the same record first: looking again settles it.
                Err(StoreError::Conflict(_)) => {
                    let message = drive.rotation.message.clone();
                    return self.put_off(&drive.rotation, &message).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Claims at most one rotation and drives it; whether there was one.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub async fn turn(&self) -> Result<bool, StoreError> {
        let Some(rotation) = self.claim(1, 1).await?.into_iter().next() else { return Ok(false) };
        self.drive(rotation).await?;
        Ok(true)
    }

    /// Does the next effect; whether there is more to do.
    async fn act(&self, drive: &mut Drive) -> Result<bool, StoreError> {
        let effect = next(&drive.rotation.state);
        let (event, with) = match &effect {
            Effect::Preflight => match self.limited(self.timing.call, drive.job.preflight()).await {
                Ok(Ok(())) => (Event::Preflight(Ok(())), With::default()),
                Ok(Err(failure)) | Err(failure) => {
                    (Event::Preflight(Err(failure.class)), With::message(worded(&failure)))
                }
            },
            Effect::Stage => return self.stage(drive).await,
            Effect::Apply(version) => {
                let version = self.load(&drive.rotation, *version).await?;
                let outcome = self.limited(drive.job.limit(&self.timing), drive.job.apply(&version)).await;
                let (outcome, sealed) = outcome.unwrap_or_else(|late| (ApplyOutcome::Ambiguous(late), None));
                let (applied, message) = heard(outcome);
                drive.quiet &= !matches!(applied, Applied::Ambiguous(_));
                let issued = sealed.map(|sealed| (version.version, sealed));
                (Event::Applied(applied), With { issued, message, ..With::default() })
            }
            Effect::Probe(numbers) => {
                let (event, message) = self.probe(drive, numbers).await?;
                (event, With::message(message))
            }
            Effect::Settle { winner, .. } => {
                let winner = self.load(&drive.rotation, winner.version()).await?;
                if let Err(failure) = drive.job.prepare(&winner).await {
                    return self.wait(drive, &failure.message).await;
                }
                let message = drive.rotation.message.clone();
                (Event::Settled, With { settle: Some(&effect), message, ..With::default() })
            }
            Effect::Revoke(numbers) => {
                let (outcome, message) = self.revoke(drive, numbers).await?;
                (Event::Revoked(outcome), With::message(message))
            }
            Effect::Wait => {
                let message = drive.rotation.message.clone();
                return self.wait(drive, &message).await;
            }
            Effect::End => return Ok(false),
        };
        self.save(drive, &event, with).await?;
        Ok(true)
    }

    async fn probe(&self, drive: &mut Drive, numbers: &[Version]) -> Result<(Event, String), StoreError> {
        let mut asked = Vec::with_capacity(numbers.len());
        for number in numbers {
            asked.push(self.load(&drive.rotation, *number).await?);
        }
        let outcomes = self.limited(self.timing.call, drive.job.probe(&asked)).await.unwrap_or_default();
        let answers = numbers.iter().enumerate().map(|(n, number)| (*number, answer(outcomes.get(n)))).collect();
        let unknown = outcomes.iter().find_map(|outcome| match outcome {
            ProbeOutcome::Unknown(failure) => Some(worded(failure)),
            _ => None,
        });
        let message = unknown.unwrap_or_else(|| drive.rotation.message.clone());
        Ok((Event::Probed { answers, quiet: drive.quiet }, message))
    }

    async fn revoke(
        &self,
        drive: &mut Drive,
        numbers: &[Version],
    ) -> Result<(Result<(), FailureClass>, String), StoreError> {
        let mut superseded = Vec::with_capacity(numbers.len());
        for number in numbers {
            superseded.push(self.load(&drive.rotation, *number).await?);
        }
        // A revocation whose answer was lost is simply made again: what is gone stays gone.
        Ok(match self.limited(self.timing.call, drive.job.revoke(&superseded)).await {
            Ok(Ok(())) => (Ok(()), drive.rotation.message.clone()),
            Ok(Err(failure)) | Err(failure) => (Err(failure.class), worded(&failure)),
        })
    }

    /// Stores a candidate in the transaction that says so.
    async fn stage(&self, drive: &mut Drive) -> Result<bool, StoreError> {
        let mut reader = self.store.read().await?;
        let number = versions::newest(&mut reader, &drive.rotation.slot).await? + 1;
        drop(reader);
        let sealed = match self.limited(self.timing.call, drive.job.candidate(number)).await {
            Ok(Ok(sealed)) => sealed,
            Ok(Err(failure)) | Err(failure) => return self.wait(drive, &worded(&failure)).await,
        };
        let version = ItemVersion {
            version: number,
            host: drive.rotation.slot.host.clone(),
            state: VersionState::Candidate,
            sealed,
            created_at: self.clock.now(),
            created_by: drive.rotation.requested_by.clone(),
            reason: drive.rotation.cause.clone(),
            verified_at: None,
        };
        self.save(drive, &Event::Staged(number), With { version: Some(version), ..With::default() }).await?;
        Ok(true)
    }

    /// Moves on. Stages that tell nothing new after a crash are saved together with the next one: a claim of a row left in
    /// `claimed` makes the preflight again, and one left in `applied` asks again.
    async fn save(&self, drive: &mut Drive, event: &Event, with: With<'_>) -> Result<(), StoreError> {
        let state = step(&drive.rotation.state, event, drive.job.acting(), self.limits);
        drive.passed.push(state.stage);
        drive.rotation.message.clone_from(&with.message);
        let light = matches!(state.stage, Stage::Claimed | Stage::Preflighted | Stage::Verified);
        if light && with.version.is_none() && with.settle.is_none() && !matches!(event, Event::Revoked(_)) {
            drive.rotation.state = state;
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let (now, slot) = (self.clock.now(), &drive.rotation.slot);
        if let Some(version) = &with.version {
            versions::add(&mut tx, slot, version).await?;
        }
        if let Some((version, sealed)) = &with.issued {
            versions::replace_sealed(&mut tx, slot, *version, sealed).await?;
        }
        if let Some(Effect::Settle { winner, dropped }) = with.settle {
            versions::settle(&mut tx, slot, *winner, dropped, now).await?;
            if matches!(state.manner, Manner::Issued | Manner::Graceful) {
                versions::begin_grace(&mut tx, slot, dropped).await?;
            }
        }
        if *event == Event::Revoked(Ok(())) {
            for version in &drive.rotation.state.superseded {
                versions::end_grace(&mut tx, slot, *version).await?;
            }
        }
        let lease = Lease::Until(later(now, self.timing.lease));
        drive.job.write(&mut tx, &drive.rotation, &state, now).await?;
        // After items and versions, before the audit log: everybody locks in this order.
        rotations::save(&mut tx, &drive.rotation, &state, &with.message, now, lease).await?;
        let object = drive.job.object();
        let entries: Vec<_> = drive.passed.iter().map(|stage| entry(&drive.rotation, &object, *stage, now)).collect();
        audit::append(&mut tx, &drive.rotation.slot.account, &entries).await?;
        crash::point("before save");
        tx.commit().await?;
        asker::note();
        crash::point("after save");
        drive.passed.clear();
        drive.job.written(&drive.rotation, &state);
        drive.rotation.state = state;
        Ok(())
    }

    async fn load(&self, rotation: &Rotation, number: Version) -> Result<ItemVersion, StoreError> {
        let mut reader = self.store.read().await?;
        versions::find(&mut reader, &rotation.slot, number).await?.ok_or(StoreError::NotFound("the version"))
    }

    /// Pauses. While an application of ours may still be under way, the lease is kept: nobody else touches the slot, and nobody can
    /// shorten the pause.
    async fn wait(&self, drive: &Drive, message: &str) -> Result<bool, StoreError> {
        if drive.quiet {
            self.put_off(&drive.rotation, message).await?;
            return Ok(false);
        }
        let now = self.clock.now();
        let lease = Lease::Until(later(now, self.timing.quiet));
        let mut tx = self.store.begin().await?;
        rotations::save(&mut tx, &drive.rotation, &drive.rotation.state, message, now, lease).await?;
        tx.commit().await?;
        Ok(false)
    }

    /// Gives the lease back. The pause grows with the age of the rotation.
    async fn put_off(&self, rotation: &Rotation, message: &str) -> Result<(), StoreError> {
        let now = self.clock.now();
        let age = Duration::from_micros(u64::try_from(now.0 - rotation.started_at.0).unwrap_or(0));
        let pause = (age / 4).clamp(self.timing.quiet, LONGEST_WAIT);
        // Up to a quarter more, so that those who failed together do not all come back together.
        let scatter = rotation.id.0.unsigned_abs().wrapping_mul(0x9e37_79b9).wrapping_add(now.0.unsigned_abs()) % 256;
        let pause = pause + pause / 4 * u32::try_from(scatter).unwrap_or(0) / 256;
        let lease = Lease::Release { not_before: later(now, pause) };
        let mut tx = self.store.begin().await?;
        rotations::save(&mut tx, rotation, &rotation.state, message, now, lease).await?;
        tx.commit().await
    }

    async fn limited<T>(&self, limit: Duration, call: impl Future<Output = T>) -> Result<T, Failure> {
        let late = || Failure::new(FailureClass::Timeout, "the target did not answer in time", "");
        tokio::time::timeout(limit, call).await.map_err(|_| late())
    }
}

const fn answer(outcome: Option<&ProbeOutcome>) -> Answer {
    match outcome {
        Some(ProbeOutcome::Opens(_)) => Answer::Opens,
        Some(ProbeOutcome::Refused(_)) => Answer::Refused,
        Some(ProbeOutcome::Unknown(_)) | None => Answer::Unknown,
    }
}

fn entry(rotation: &Rotation, object: &str, stage: Stage, now: Micros) -> audit::Entry {
    audit::Entry {
        at: now,
        actor: rotation.requested_by.clone(),
        action: "rotate_item".to_owned(),
        object: object.to_owned(),
        outcome: if matches!(stage, Stage::Failed | Stage::InDoubt | Stage::OutOfSync) { "failed" } else { "ok" }
            .to_owned(),
        remote: String::new(),
        detail: format!("rotation {} ({}) {}", rotation.id, rotation.cause, stage.as_str()),
        request: asker::evaluated().unwrap_or_default(),
    }
}

/// A failure as one text: what happened, and what to do about it.
pub(crate) fn worded(failure: &Failure) -> String {
    if failure.hint.is_empty() { failure.message.clone() } else { format!("{}; {}", failure.message, failure.hint) }
}

fn heard(outcome: ApplyOutcome) -> (Applied, String) {
    match outcome {
        ApplyOutcome::Applied => (Applied::Confirmed, String::new()),
        ApplyOutcome::Rejected(f) => (Applied::Rejected(f.class), worded(&f)),
        ApplyOutcome::NotReached(f) => (Applied::NotReached(f.class), worded(&f)),
        ApplyOutcome::Ambiguous(f) => (Applied::Ambiguous(f.class), worded(&f)),
    }
}

pub(crate) fn later(now: Micros, by: Duration) -> Micros {
    now.plus_millis(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}
