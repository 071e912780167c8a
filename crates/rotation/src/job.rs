//! The work of one rotation against the real world: the vault, the connector and the books.

use std::collections::BTreeMap;

use async_trait::async_trait;
use volvelle_domain::connector::{
    ActingAs, ApplyOutcome, Failure, FailureClass, PasswordPolicy, ProbeOutcome, ProbeReport,
};
use volvelle_domain::ids::{Micros, Version};
use volvelle_domain::item::{ItemVersion, VersionState};
use volvelle_domain::rotation::{Stage, State};
use volvelle_domain::target::TargetVersion;
use volvelle_domain::{Credential, Secret};
use volvelle_store::rotations::Rotation;
use volvelle_store::slots::SlotFacts;
use volvelle_store::versions::Slot;
use volvelle_store::{StoreError, Tx, accounts, breakers, items, slots, targets, versions};

use crate::engine::Bells;
use crate::seat::{Resolved, Seat};
use crate::worker::{Job, Jobs, Timing};
use crate::{EngineError, Parts, books, issue};

/// Host name of the slot that holds the password shared by all hosts of a batch. Its versions are nobody's value.
pub const SHARED: &str = "*";

/// Makes jobs out of the engine's parts.
pub(crate) struct SlotJobs {
    pub(crate) parts: Parts,
    pub(crate) bells: Bells,
}

#[async_trait]
impl Jobs for SlotJobs {
    async fn job(&self, rotation: &Rotation) -> Result<Box<dyn Job>, Failure> {
        let seat = load(&self.parts, &rotation.slot).await.map_err(failed)?;
        let policy = seat.policy();
        let (parts, bells) = (self.parts.clone(), self.bells.clone());
        let scheduled = rotation.cause == "schedule";
        Ok(Box::new(SlotJob {
            scheduled,
            parts,
            bells,
            seat,
            policy,
            opened: BTreeMap::new(),
            intended: None,
            target_version: None,
            stranger: None,
        }))
    }

    fn fragments(&self) -> Vec<String> {
        self.parts.vault.quorum().customer().checks()
    }
}

/// A failure of the engine as one that a rotation can show.
pub(crate) fn failed(error: EngineError) -> Failure {
    match error {
        EngineError::Failed(failure) => failure,
        other => Failure::new(FailureClass::Unreachable, other.to_string(), ""),
    }
}

/// Loads a stored slot with its current credential.
pub(crate) async fn load(parts: &Parts, slot: &Slot) -> Result<Seat, EngineError> {
    let mut tx = parts.store.read().await?;
    let account = accounts::find(&mut tx, &slot.account).await?.ok_or(StoreError::NotFound("the account"))?;
    let item = items::load(&mut tx, &slot.account, slot.item).await?;
    let facts = slots::find(&mut tx, slot).await?;
    let kept = versions::list(&mut tx, slot).await?;
    drop(tx);
    let target = item.rotator.as_ref().ok_or(EngineError::NotRotated)?.target;
    let resolved = Resolved::load(parts, &account, target).await?;
    let mut seat = Seat::new(parts, &account, &item, &slot.host, resolved)?;
    seat.facts = facts;
    seat.current = match kept.iter().find(|version| version.state == VersionState::Current) {
        Some(current) => parts.vault.open_version(&account, &item, current).await?,
        None => seat.nameless()?,
    };
    Ok(seat)
}

pub(crate) struct SlotJob {
    pub(crate) parts: Parts,
    bells: Bells,
    pub(crate) seat: Seat,
    policy: PasswordPolicy,
    /// Whether nobody but the calendar asked for it.
    scheduled: bool,
    pub(crate) opened: BTreeMap<Version, Credential>,
    /// The version whose intent this job wrote and has not acted on yet.
    pub(crate) intended: Option<Version>,
    /// What the target's own record becomes with the settle.
    target_version: Option<TargetVersion>,
    /// Why the peer is not the pinned one.
    stranger: Option<String>,
}

impl SlotJob {
    pub(crate) async fn open(&mut self, version: &ItemVersion) -> Result<Credential, Failure> {
        if let Some(known) = self.opened.get(&version.version) {
            return Ok(known.clone());
        }
        let vault = &self.parts.vault;
        let opened = vault.open_version(&self.seat.account, &self.seat.item, version).await;
        let credential = opened.map_err(|error| failed(error.into()))?;
        self.opened.insert(version.version, credential.clone());
        Ok(credential)
    }

    async fn generate(&mut self) -> Result<Credential, Failure> {
        let call = self.seat.call(0, self.parts.settings.timing.call);
        let fresh = self.seat.connector.generate(&call, &self.policy, self.parts.entropy.as_ref())?;
        if !self.seat.rotator.same_password || self.seat.host.is_empty() {
            return Ok(fresh);
        }
        let slot = Slot { host: SHARED.to_owned(), ..self.slot() };
        let mut tx = self.parts.store.read().await.map_err(|error| failed(error.into()))?;
        let shared = versions::list(&mut tx, &slot).await.map_err(|error| failed(error.into()))?;
        drop(tx);
        let Some(newest) = shared.first() else { return Ok(fresh) };
        let vault = &self.parts.vault;
        let opened = vault.open_version(&self.seat.account, &self.seat.item, newest).await;
        let password = opened.map_err(|error| failed(error.into()))?.field("password").cloned();
        Ok(password.map_or(fresh.clone(), |password| fresh.with("password", password)))
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot { account: self.seat.account.id.clone(), item: self.seat.item.id, host: self.seat.host.clone() }
    }

    /// Writes down how many failed logins were caused; a login that succeeded clears the account's own count.
    async fn spent(&mut self, failed_logins: u32, opened: bool) {
        let before = self.seat.facts.failed_logins.len();
        if opened {
            self.seat.facts.failed_logins.clear();
        }
        let now = self.parts.clock.now();
        self.seat.facts.failed_logins.extend((0..failed_logins.min(16)).map(|_| now));
        if before != self.seat.facts.failed_logins.len() {
            self.save_facts().await;
        }
    }

    /// Before the books are closed, so that after a crash it is done again.
    async fn hand_on(&mut self, winner: &ItemVersion) -> Result<(), Failure> {
        let credential = self.open(winner).await?;
        if self.seat.current.ct_eq(&credential) {
            return Ok(());
        }
        let call = self.seat.call(0, self.connector_time());
        self.seat.dependents = self.seat.connector.hand_on(&call, &credential).await;
        Ok(())
    }

    async fn save_facts(&self) {
        let saved = async {
            let mut tx = self.parts.store.begin().await?;
            slots::save(&mut tx, &self.slot(), &self.seat.facts).await?;
            tx.commit().await
        };
        if let Err(error) = saved.await {
            tracing::warn!(%error, "what was learnt about a host could not be written down");
        }
    }

    /// Asks, counting one failed login in advance where asking may cost some: a crash must not make them free.
    async fn ask(&mut self, credentials: &[&Credential]) -> ProbeReport {
        let budget = self.seat.budget(&self.parts, self.parts.clock.now());
        let reads = self.seat.facts.memory.get(books::READS).is_some_and(|reads| reads == "yes");
        if !reads && budget > 0 {
            self.spent(1, false).await;
            let report = self.call_probe(budget, credentials).await;
            self.seat.facts.failed_logins.pop();
            let opened = report.outcomes.iter().any(|outcome| matches!(outcome, ProbeOutcome::Opens(_)));
            self.spent(report.failed_logins, opened).await;
            self.save_facts().await;
            return report;
        }
        let report = self.call_probe(budget, credentials).await;
        let opened = report.outcomes.iter().any(|outcome| matches!(outcome, ProbeOutcome::Opens(_)));
        self.spent(report.failed_logins, opened).await;
        report
    }

    /// Refuses to ask a target that has refused its own credential too often: asking again could lock it for everybody. Scheduled
    /// rotations wait for any open breaker; they were put into the queue together, before the first of them failed.
    async fn may_ask(&self, now: Micros) -> Result<(), Failure> {
        if self.seat.acting() == ActingAs::User && !self.scheduled {
            return Ok(());
        }
        let mut tx = self.parts.store.read().await.map_err(|error| failed(error.into()))?;
        let account = &self.seat.account.id;
        let (record, acting) = (&self.seat.resolved.record, self.seat.resolved.acting());
        let open = breakers::list(&mut tx, now).await.map_err(|error| failed(error.into()))?;
        let own = |b: &&breakers::Breaker| b.account == *account && [record.id, acting.id].contains(&b.target);
        let refused = |b: &breakers::Breaker| b.class == FailureClass::Auth.as_str();
        let stops = |b: &&breakers::Breaker| refused(b) || (self.scheduled && b.target == record.id);
        match open.iter().filter(own).find(stops) {
            Some(breaker) => Err(Failure::new(
                FailureClass::LoginBudget,
                format!(
                    "rotations on target {} wait after failures of class {}",
                    if breaker.target == record.id { &record.name } else { &acting.name },
                    breaker.class
                ),
                "correct the target (target update), which ends the wait; otherwise it is tried again later",
            )),
            None => Ok(()),
        }
    }

    async fn call_probe(&self, budget: u32, credentials: &[&Credential]) -> ProbeReport {
        let call = self.seat.call(budget, self.connector_time());
        self.seat.connector.probe(&call, credentials).await
    }

    /// The connector gives up a little before the worker does, because its answer is the better one.
    pub(crate) fn connector_time(&self) -> std::time::Duration {
        self.parts.settings.timing.call * 4 / 5
    }

    /// Time for a change: as long as the secret's parameters say, but the lease must outlast it and the quiet time.
    pub(crate) fn change_time(&self) -> std::time::Duration {
        let timing = &self.parts.settings.timing;
        let most = timing.lease.saturating_sub(timing.quiet * 2);
        let said = self.seat.connector.patience(&self.seat.rotator.params);
        said.map_or_else(|| self.connector_time(), |said| said.min(most))
    }
}

#[async_trait]
impl Job for SlotJob {
    fn acting(&self) -> ActingAs {
        self.seat.acting()
    }

    fn object(&self) -> String {
        let (name, host) = (&self.seat.item.name, &self.seat.host);
        if host.is_empty() { name.to_string() } else { format!("{name} {host}") }
    }

    async fn preflight(&mut self) -> Result<(), Failure> {
        self.seat.may_call()?;
        let now = self.parts.clock.now();
        self.may_ask(now).await?;
        let budget = self.seat.budget(&self.parts, now);
        if budget == 0 {
            return Err(Failure::new(
                FailureClass::LoginBudget,
                "too many logins on this account failed of late; asking again could lock it",
                "wait, or let a privileged credential of the target act (use-target-creds)",
            ));
        }
        let call = self.seat.call(budget, self.connector_time());
        let checked = self.seat.connector.preflight(&call, &self.policy).await;
        match checked {
            Ok(preflight) => {
                let facts = books::remembered(&self.seat.facts, &preflight);
                if let Some(policy) = preflight.policy {
                    self.policy = policy;
                }
                let changed = facts.memory != self.seat.facts.memory || !self.seat.facts.failed_logins.is_empty();
                // Only a login of the account itself clears the host's count of its failures.
                let own = self.seat.acting() == ActingAs::User;
                self.seat.facts = if own { SlotFacts { failed_logins: Vec::new(), ..facts } } else { facts };
                if changed {
                    self.save_facts().await;
                }
                Ok(())
            }
            Err(failure) => {
                // One host of many with another key is refused by its own pin; the others go on.
                if failure.class == FailureClass::PeerIdentity && self.seat.host.is_empty() {
                    self.stranger = Some(failure.message.clone());
                }
                if failure.class == FailureClass::Auth && self.seat.acting() == ActingAs::User {
                    self.spent(1, false).await;
                }
                Err(failure)
            }
        }
    }

    async fn candidate(&mut self, version: Version) -> Result<Vec<u8>, Failure> {
        let credential = if self.issues() { self.intent(version).await? } else { self.generate().await? };
        let (account, item) = (&self.seat.account, &self.seat.item);
        let sealed = self.parts.vault.seal_version(account, item, (&self.seat.host, version), &credential).await;
        let sealed = sealed.map_err(|error| failed(error.into()))?;
        self.opened.insert(version, credential);
        Ok(sealed)
    }

    async fn apply(&mut self, version: &ItemVersion) -> (ApplyOutcome, Option<Vec<u8>>) {
        let candidate = match self.open(version).await {
            Ok(candidate) => candidate,
            Err(failure) => return (ApplyOutcome::NotReached(failure), None),
        };
        if self.issues() {
            return self.issue(version, &candidate).await;
        }
        let budget = self.seat.budget(&self.parts, self.parts.clock.now());
        let call = self.seat.call(budget, self.connector_time());
        (self.seat.connector.apply(&call, &candidate).await, None)
    }

    async fn revoke(&mut self, versions: &[ItemVersion]) -> Result<(), Failure> {
        self.take_off(versions).await
    }

    async fn probe(&mut self, asked: &[ItemVersion]) -> Vec<ProbeOutcome> {
        let mut credentials = Vec::with_capacity(asked.len());
        for version in asked {
            match self.open(version).await {
                Ok(credential) => credentials.push(credential),
                Err(failure) => return asked.iter().map(|_| ProbeOutcome::Unknown(failure.clone())).collect(),
            }
        }
        let real: Vec<&Credential> = credentials.iter().filter(|credential| !credential.is_intent()).collect();
        let outcomes = if real.is_empty() { Vec::new() } else { self.ask(&real).await.outcomes };
        issue::with_intents(&credentials, outcomes)
    }

    async fn prepare(&mut self, winner: &ItemVersion) -> Result<(), Failure> {
        self.hand_on(winner).await?;
        let source = self.seat.resolved.source.clone().filter(|_| self.seat.feeding().is_some());
        let Some(source) = source else { return Ok(()) };
        let credential = self.open(winner).await?;
        self.target_version =
            books::target_version(&self.parts, &self.seat, &source, &credential).await.map_err(failed)?;
        Ok(())
    }

    async fn write(&mut self, tx: &mut Tx, rotation: &Rotation, state: &State, now: Micros) -> Result<(), StoreError> {
        let account = &self.seat.account.id;
        if let (Some(version), Some(source)) = (&self.target_version, &self.seat.resolved.source) {
            let now = targets::load(tx, account, source.id).await?;
            if now.name != source.name || now.protection != source.protection {
                return Err(StoreError::Conflict("the target under another name or key"));
            }
            targets::add_version(tx, account, source.id, version).await?;
        }
        if !state.stage.is_final() {
            return accounts::bump_content(tx, account).await;
        }
        let target = self.seat.resolved.record.id;
        if state.stage == Stage::Done {
            breakers::succeeded(tx, account, target).await?;
            if self.seat.acting() == ActingAs::Target {
                breakers::succeeded(tx, account, self.seat.resolved.acting().id).await?;
            }
        } else if let Some(class) = state.class.filter(|class| books::breaks(*class, self.seat.acting())) {
            let settings = &self.parts.settings;
            let few = if class == FailureClass::Auth { settings.login_tries } else { u32::MAX };
            let after = settings.breaker_after.min(few);
            let target = if class == FailureClass::Auth { self.seat.resolved.acting().id } else { target };
            breakers::failed(tx, (account, target), class.as_str(), now, after).await?;
        }
        if let Some(stranger) = &self.stranger {
            books::halt(tx, account, target, stranger).await?;
        }
        books::close(tx, &self.seat, rotation, state, now).await
    }

    fn limit(&self, timing: &Timing) -> std::time::Duration {
        timing.call.max(self.change_time() + timing.quiet / 2)
    }

    fn written(&mut self, rotation: &Rotation, state: &State) {
        self.target_version = None;
        if state.stage.is_final() {
            self.bells.ended(rotation);
            metrics::counter!("volvelle_rotations_total", "outcome" => state.stage.as_str(),
                "class" => state.class.map_or("", FailureClass::as_str))
            .increment(1);
        }
    }
}

/// A password for all hosts of a batch, sealed in the slot for shared values; readers never see it there.
pub(crate) async fn share_password(
    parts: &Parts,
    seat: &Seat,
    now: Micros,
    by: &str,
) -> Result<ItemVersion, EngineError> {
    let call = seat.call(0, parts.settings.timing.call);
    let fresh = seat.connector.generate(&call, &seat.policy(), parts.entropy.as_ref())?;
    let password = fresh.field("password").cloned().unwrap_or_else(|| Secret::from(""));
    let slot = Slot { account: seat.account.id.clone(), item: seat.item.id, host: SHARED.to_owned() };
    let mut tx = parts.store.read().await?;
    let version = versions::newest(&mut tx, &slot).await? + 1;
    drop(tx);
    let value = Credential::default().with("password", password);
    let sealed = parts.vault.seal_version(&seat.account, &seat.item, (SHARED, version), &value).await?;
    Ok(ItemVersion {
        version,
        host: SHARED.to_owned(),
        state: VersionState::Retired,
        sealed,
        created_at: now,
        created_by: by.to_owned(),
        reason: "shared".to_owned(),
        verified_at: None,
    })
}
