//! What people ask for outside the schedule: is the stored value valid, does a new secret work, bring store and target together.

use std::time::Duration;

use volvelle_domain::Credential;
use volvelle_domain::account::Account;
use volvelle_domain::connector::{ActingAs, Evidence, Failure, FailureClass, Preflight, ProbeOutcome};
use volvelle_domain::ids::{Micros, Version};
use volvelle_domain::item::{Item, ItemVersion, RotatorStatus, VersionState};
use volvelle_domain::rotation::{Answer, Manner, Stage, adopt};
use volvelle_holder::asker;
use volvelle_store::versions::Slot;
use volvelle_store::{StoreError, audit, items, rotations, slots, targets, versions};

use crate::engine::Engine;
use crate::job::{self, SHARED};
use crate::seat::{Resolved, Seat};
use crate::worker::worded;
use crate::{EngineError, books, issue};

/// Versions compared with the target by a repair, newest first.
const COMPARED: usize = 16;
/// How long a repair waits for a rotation it started.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was found out about one slot.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// Empty, or the host of a linked target.
    pub host: String,
    /// The version asked about.
    pub version: Option<Version>,
    /// What the target says.
    pub outcome: ProbeOutcome,
}

/// What a repair did with one slot, and why.
#[derive(Clone, Debug)]
pub struct Mended {
    /// Empty, or the host of a linked target.
    pub host: String,
    /// `fine`, `adopted`, `reapplied` or `out_of_sync`.
    pub action: &'static str,
    /// The version that opens the account now, if one does.
    pub version: Option<Version>,
    /// In words for a person.
    pub why: String,
}

impl Engine {
    /// Asks whether each slot's current value opens its account. Changes nothing.
    ///
    /// # Errors
    /// The secret cannot be loaded.
    pub async fn verify(&self, account: &Account, item: &Item) -> Result<Vec<HostReport>, EngineError> {
        let mut reports = Vec::new();
        for host in self.hosts(account, item).await? {
            let slot = Slot { account: account.id.clone(), item: item.id, host: host.clone() };
            let seat = job::load(self.parts(), &slot).await?;
            let mut tx = self.parts().store.read().await?;
            let current =
                versions::open_set(&mut tx, &slot).await?.into_iter().find(|v| v.state == VersionState::Current);
            drop(tx);
            let outcome = match &current {
                None => ProbeOutcome::Unknown(Failure::new(
                    FailureClass::Config,
                    "no value is stored yet",
                    "rotate the secret once",
                )),
                Some(_) => self.ask(&seat, &[&seat.current]).await?.remove(0),
            };
            reports.push(HostReport { host, version: current.map(|v| v.version), outcome });
        }
        Ok(reports)
    }

    /// Proves that a secret that is not stored yet would work: the preflight, and, where the value is given, that it opens.
    ///
    /// # Errors
    /// The first thing that would make a rotation fail.
    pub async fn dry_run(&self, seat: &Seat) -> Result<Preflight, EngineError> {
        seat.may_call()?;
        let call = seat.call(self.parts().settings.login_tries, self.parts().settings.timing.call * 4 / 5);
        let preflight = seat.connector.preflight(&call, &seat.policy()).await?;
        let value_known = seat.current.names().any(|name| name != "username");
        if value_known && seat.acting() == ActingAs::Target {
            let mut asked = Seat::new(self.parts(), &seat.account, &seat.item, &seat.host, self.again(seat).await?)?;
            asked.facts = books::remembered(&seat.facts, &preflight);
            asked.current = seat.current.clone();
            if let ProbeOutcome::Refused(_) = self.ask(&asked, &[&seat.current]).await?.remove(0) {
                let message = "the password given does not open the account";
                let hint = "leave it out: the first rotation sets a new one";
                return Err(Failure::new(FailureClass::Config, message, hint).into());
            }
        }
        Ok(preflight)
    }

    async fn again(&self, seat: &Seat) -> Result<Resolved, EngineError> {
        Resolved::load(self.parts(), &seat.account, seat.resolved.record.id).await
    }

    /// Makes `given` the current value of a slot if the target says that it opens the account; `None` if it is current already.
    ///
    /// # Errors
    /// The target refuses it or does not answer, or a rotation is under way: nothing was changed.
    pub async fn take_over(
        &self,
        account: &Account,
        item: &Item,
        host: &str,
        given: &Credential,
        entry: audit::Entry,
    ) -> Result<Option<Version>, EngineError> {
        let slot = Slot { account: account.id.clone(), item: item.id, host: host.to_owned() };
        let seat = job::load(self.parts(), &slot).await?;
        seat.may_call()?;
        if same_value(&seat.current, given) {
            return Ok(None);
        }
        match self.ask(&seat, &[given]).await?.remove(0) {
            ProbeOutcome::Opens(_) => {}
            ProbeOutcome::Refused(_) => {
                let message = "the value given does not open the account";
                return Err(Failure::new(FailureClass::Config, message, "give the value that opens it now").into());
            }
            // A person's word, where there is nobody else to ask.
            ProbeOutcome::Unknown(_) if issue::manner(self.parts(), &seat.rotator) == Manner::Told => {}
            ProbeOutcome::Unknown(failure) => return Err(failure.into()),
        }
        let mut tx = self.parts().store.read().await?;
        let number = versions::newest(&mut tx, &slot).await? + 1;
        drop(tx);
        let sealed = self.parts().vault.seal_version(account, item, (host, number), given).await?;
        let version = ItemVersion {
            version: number,
            host: host.to_owned(),
            state: VersionState::Candidate,
            sealed,
            created_at: self.now(),
            created_by: entry.actor.clone(),
            reason: "update".to_owned(),
            verified_at: None,
        };
        self.settle(&seat, &slot, (Some(version), &[(number, Answer::Opens)]), entry).await?;
        Ok(Some(number))
    }

    /// Brings store and target together again: adopts the stored version that opens the account, or lets the privileged
    /// credential set one. Never drops a value that might be needed.
    ///
    /// # Errors
    /// The secret cannot be loaded, or the store failed.
    pub async fn repair(
        &self,
        account: &Account,
        item: &Item,
        entry: &audit::Entry,
    ) -> Result<Vec<Mended>, EngineError> {
        // Before anything is waited for.
        self.parts().vault.require(item.protection.as_ref())?;
        let mut mended = Vec::new();
        for host in self.hosts(account, item).await? {
            let slot = Slot { account: account.id.clone(), item: item.id, host };
            self.finish_open(account, item, &slot).await?;
            mended.push(self.repair_slot(account, item, &slot, entry).await?);
        }
        Ok(mended)
    }

    /// A rotation that waits is brought to its end first: resolving doubts is its own work.
    async fn finish_open(&self, account: &Account, item: &Item, slot: &Slot) -> Result<(), EngineError> {
        let mut tx = self.parts().store.begin().await?;
        let open = rotations::open_of(&mut tx, &account.id, item.id).await?;
        let ids: Vec<_> = open.iter().filter(|r| r.slot.host == slot.host).map(|r| r.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        rotations::pull_forward(&mut tx, &account.id, item.id, self.now()).await?;
        tx.commit().await?;
        self.bells().work();
        let outcomes = self.wait(&account.id, &ids, PATIENCE).await?;
        if outcomes.iter().all(|outcome| outcome.stage.is_final()) { Ok(()) } else { Err(EngineError::Busy) }
    }

    async fn repair_slot(
        &self,
        account: &Account,
        item: &Item,
        slot: &Slot,
        entry: &audit::Entry,
    ) -> Result<Mended, EngineError> {
        let seat = job::load(self.parts(), slot).await?;
        seat.may_call()?;
        let mut tx = self.parts().store.read().await?;
        let kept: Vec<ItemVersion> = versions::list(&mut tx, slot).await?.into_iter().take(COMPARED).collect();
        drop(tx);
        let (kept, credentials) = self.open_all(&seat, kept).await?;
        let asked: Vec<&Credential> = credentials.iter().collect();
        let outcomes = if asked.is_empty() { Vec::new() } else { self.ask(&seat, &asked).await? };
        let answers: Vec<(Version, Answer)> = kept.iter().zip(&outcomes).map(|(v, o)| (v.version, answer(o))).collect();
        let winner = kept.iter().zip(&answers).find(|(_, (_, answer))| *answer == Answer::Opens).map(|(v, _)| v);
        if let Some(winner) = winner {
            let (version, was_current) = (winner.version, winner.state == VersionState::Current);
            self.settle(&seat, slot, (None, &answers), entry.clone()).await?;
            let (action, why) = if was_current {
                ("fine", format!("version {version} is current and opens the account"))
            } else {
                ("adopted", format!("version {version} opens the account and is current now"))
            };
            return Ok(Mended { host: slot.host.clone(), action, version: Some(version), why });
        }
        let all_refused = answers.iter().all(|(_, answer)| *answer == Answer::Refused);
        let nobody_to_ask = issue::manner(self.parts(), &seat.rotator) == Manner::Told;
        if (all_refused || nobody_to_ask) && seat.acting() == ActingAs::Target {
            return self.reapply(account, item, slot, entry).await;
        }
        let unknown = outcomes.iter().find_map(|outcome| match outcome {
            ProbeOutcome::Unknown(failure) => Some(worded(failure)),
            _ => None,
        });
        let why = unknown.unwrap_or_else(|| {
            "every stored version is refused; give the present password with --rotated-password, or let a privileged \
             credential of the target act (authentication-credentials use-target-creds)"
                .to_owned()
        });
        Ok(Mended { host: slot.host.clone(), action: "out_of_sync", version: None, why })
    }

    async fn reapply(
        &self,
        account: &Account,
        item: &Item,
        slot: &Slot,
        entry: &audit::Entry,
    ) -> Result<Mended, EngineError> {
        let ids = self.enqueue(account, item, ("repair", &entry.actor), Some(entry.clone())).await?;
        let outcomes = self.wait(&account.id, &ids, PATIENCE).await?;
        let own = outcomes.iter().find(|outcome| outcome.host == slot.host);
        let mut tx = self.parts().store.read().await?;
        let current = versions::open_set(&mut tx, slot).await?.into_iter().find(|v| v.state == VersionState::Current);
        let done = own.is_some_and(|outcome| outcome.stage == Stage::Done);
        let (action, why) = match own {
            Some(_) if done => (
                "reapplied",
                "no stored version was seen to open the account; the target's privileged credential set a new one"
                    .to_owned(),
            ),
            Some(outcome) => ("out_of_sync", outcome.message.clone()),
            None => ("out_of_sync", "the rotation was not found".to_owned()),
        };
        Ok(Mended { host: slot.host.clone(), action, version: current.filter(|_| done).map(|v| v.version), why })
    }

    /// Opens versions; one that cannot be opened is no reason to give up on the others.
    async fn open_all(
        &self,
        seat: &Seat,
        kept: Vec<ItemVersion>,
    ) -> Result<(Vec<ItemVersion>, Vec<Credential>), EngineError> {
        let (mut readable, mut credentials) = (Vec::new(), Vec::new());
        for version in kept {
            match self.parts().vault.open_version(&seat.account, &seat.item, &version).await {
                // What was on the target before something was asked for opens nothing.
                Ok(credential) if credential.is_intent() => {}
                Ok(credential) => {
                    readable.push(version);
                    credentials.push(credential);
                }
                Err(volvelle_holder::QuorumError::Record(error)) => {
                    tracing::warn!(%error, item = %seat.item.name, version = version.version, "a version cannot be opened");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((readable, credentials))
    }

    /// Writes what was witnessed, unless a rotation began meanwhile.
    async fn settle(
        &self,
        seat: &Seat,
        slot: &Slot,
        (fresh, answers): (Option<ItemVersion>, &[(Version, Answer)]),
        entry: audit::Entry,
    ) -> Result<(), EngineError> {
        let now = self.now();
        let number = answers.iter().find(|(_, answer)| *answer == Answer::Opens).map_or(0, |(number, _)| *number);
        let target = match &seat.resolved.source {
            Some(source) if seat.feeding().is_some() => {
                let mut tx = self.parts().store.read().await?;
                let stored = versions::find(&mut tx, slot, number).await?;
                drop(tx);
                let version = fresh.as_ref().or(stored.as_ref()).ok_or(StoreError::NotFound("the version"))?;
                let credential = self.parts().vault.open_version(&seat.account, &seat.item, version).await?;
                books::target_version(self.parts(), seat, source, &credential).await?.map(|v| (source.id, v))
            }
            _ => None,
        };
        let mut tx = self.parts().store.begin().await?;
        let mut item = items::lock(&mut tx, &slot.account, slot.item).await?;
        if item.name != seat.item.name || item.protection != seat.item.protection {
            return Err(EngineError::Busy);
        }
        if rotations::open_of(&mut tx, &slot.account, slot.item).await?.iter().any(|r| r.slot.host == slot.host) {
            return Err(EngineError::Busy);
        }
        if let Some(fresh) = &fresh {
            versions::add(&mut tx, slot, fresh).await?;
        }
        // A version in its grace opens the account beside the winner: it stays where it is.
        let open = versions::open_set(&mut tx, slot).await?;
        let open: Vec<Version> = open.iter().filter(|v| v.state != VersionState::Grace).map(|v| v.version).collect();
        let (winner, dropped) = adopt(&open, answers).ok_or(StoreError::Forbidden("a change without a witness"))?;
        versions::settle(&mut tx, slot, winner, &dropped, now).await?;
        if matches!(issue::manner(self.parts(), &seat.rotator), Manner::Issued | Manner::Graceful) {
            versions::begin_grace(&mut tx, slot, &dropped).await?;
        }
        if let Some((id, version)) = &target {
            targets::add_version(&mut tx, &slot.account, *id, version).await?;
        }
        self.note_success(&mut tx, &mut item, now).await?;
        let request = asker::evaluated().unwrap_or_default();
        audit::append(&mut tx, &slot.account, &[audit::Entry { request, ..entry }]).await?;
        tx.commit().await?;
        asker::note();
        Ok(())
    }

    async fn note_success(&self, tx: &mut volvelle_store::Tx, item: &mut Item, now: Micros) -> Result<(), StoreError> {
        books::refresh_versions(tx, item).await?;
        let seed = books::seed(&item.uid.0);
        if let Some(rotator) = item.rotator.as_mut() {
            let seen = !matches!(issue::manner(self.parts(), rotator), Manner::Told | Manner::Blind);
            rotator.last_verified_at = seen.then_some(now);
            if rotator.status != RotatorStatus::NotRotated {
                rotator.status = RotatorStatus::RotationSucceeded;
                books::plan_next(rotator, seed, rotator.last_rotation_at.unwrap_or(now).max(now));
            }
        }
        item.modified_at = now;
        items::update(tx, item).await
    }

    /// Asks the target, spending and counting the login budget.
    async fn ask(&self, seat: &Seat, credentials: &[&Credential]) -> Result<Vec<ProbeOutcome>, EngineError> {
        seat.may_call()?;
        let now = self.now();
        let call = seat.call(seat.budget(self.parts(), now), self.parts().settings.timing.call * 4 / 5);
        let report = seat.connector.probe(&call, credentials).await;
        let opened = report.outcomes.iter().any(|outcome| matches!(outcome, ProbeOutcome::Opens(_)));
        if seat.item.id.0 > 0 && (report.failed_logins > 0 || (opened && !seat.facts.failed_logins.is_empty())) {
            let mut facts = seat.facts.clone();
            if opened {
                facts.failed_logins.clear();
            }
            facts.failed_logins.extend((0..report.failed_logins.min(16)).map(|_| now));
            let slot = Slot { account: seat.account.id.clone(), item: seat.item.id, host: seat.host.clone() };
            let mut tx = self.parts().store.begin().await?;
            slots::save(&mut tx, &slot, &facts).await?;
            tx.commit().await?;
        }
        let missing = credentials.len().saturating_sub(report.outcomes.len());
        let silent = || Failure::new(FailureClass::Protocol, "the target was not asked", "");
        Ok(report.outcomes.into_iter().chain((0..missing).map(|_| ProbeOutcome::Unknown(silent()))).collect())
    }

    /// The hosts of a secret's slots: those of its target, and those it keeps values of.
    async fn hosts(&self, account: &Account, item: &Item) -> Result<Vec<String>, EngineError> {
        let rotator = item.rotator.as_ref().ok_or(EngineError::NotRotated)?;
        let mut tx = self.parts().store.read().await?;
        let target = targets::load(&mut tx, &account.id, rotator.target).await?;
        let kept = versions::list_item(&mut tx, &account.id, item.id).await?;
        drop(tx);
        let mut hosts: Vec<String> = match &target.linked {
            None => vec![String::new()],
            Some(linked) => linked.hosts.iter().map(|(host, _)| host.clone()).collect(),
        };
        for version in kept {
            if version.host != SHARED && !hosts.contains(&version.host) {
                hosts.push(version.host);
            }
        }
        Ok(hosts)
    }
}

/// The witness, in words.
#[must_use]
pub const fn evidence_word(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::WitnessRead => "read from the target",
        Evidence::Login => "by logging in",
        Evidence::Told => "as was told; there is nobody to ask",
    }
}

const fn answer(outcome: &ProbeOutcome) -> Answer {
    match outcome {
        ProbeOutcome::Opens(_) => Answer::Opens,
        ProbeOutcome::Refused(_) => Answer::Refused,
        ProbeOutcome::Unknown(_) => Answer::Unknown,
    }
}

/// Whether the secret fields given are those of `known`; fields that were not given do not count.
fn same_value(known: &Credential, given: &Credential) -> bool {
    given.names().all(|name| match (known.field(name), given.field(name)) {
        (Some(known), Some(given)) => known.ct_eq(given),
        (None, Some(_)) => false,
        (_, None) => true,
    })
}
