//! What is written when a rotation ends: the secret's status, its next date, its target's own record.

use serde_json::Value;
use volvelle_domain::Credential;
use volvelle_domain::account::Account;
use volvelle_domain::connector::{ActingAs, FailureClass, Preflight};
use volvelle_domain::grace::{self, Grace};
use volvelle_domain::ids::{AccountId, Micros, TargetId};
use volvelle_domain::item::{Item, Rotator, RotatorStatus, VersionState};
use volvelle_domain::rotation::{Manner, Stage, State};
use volvelle_domain::target::{Target, TargetVersion};
use volvelle_store::rotations::Rotation;
use volvelle_store::slots::SlotFacts;
use volvelle_store::{StoreError, Tx, audit, items, rotations, targets, versions};

use crate::job::SHARED;
use crate::seat::Seat;
use crate::worker::worded;
use crate::{EngineError, Parts, issue};

/// Rotations of one slot that are remembered.
const HISTORY: u32 = 100;

/// Fact of a slot: whether the verifier can be read, so that asking costs no login.
pub(crate) const READS: &str = "reads";

/// Shortest and longest back-off of a secret whose rotations fail, in seconds.
const BACK_OFF: (i64, i64) = (60, 6 * 3600);

/// Seconds after which the end of a grace is tried again when it could not be brought about.
const AGAIN: i64 = 3600;

/// What is known of a slot after a preflight.
pub(crate) fn remembered(facts: &SlotFacts, preflight: &Preflight) -> SlotFacts {
    let mut memory = preflight.memory.clone();
    memory.insert(READS.to_owned(), if preflight.witness_read { "yes" } else { "no" }.to_owned());
    SlotFacts { memory, failed_logins: facts.failed_logins.clone() }
}

/// Whether a failure of this class says something about the target and not about one secret on it.
pub(crate) fn breaks(class: FailureClass, acting: ActingAs) -> bool {
    match class {
        FailureClass::Auth | FailureClass::Privilege => acting == ActingAs::Target,
        FailureClass::PeerIdentity | FailureClass::Unreachable | FailureClass::Timeout => true,
        FailureClass::Config | FailureClass::Policy | FailureClass::LoginBudget | FailureClass::Protocol => false,
    }
}

/// Stops everything for a target whose peer is not the pinned one.
pub(crate) async fn halt(tx: &mut Tx, account: &AccountId, id: TargetId, why: &str) -> Result<(), StoreError> {
    let mut target = targets::lock(tx, account, id).await?;
    if target.halted.is_empty() {
        why.clone_into(&mut target.halted);
        targets::update(tx, &target).await?;
    }
    Ok(())
}

/// The next version of a target that holds what has become `credential`; `None` if it holds that already.
pub(crate) async fn target_version(
    parts: &Parts,
    seat: &Seat,
    source: &Target,
    credential: &Credential,
) -> Result<Option<TargetVersion>, EngineError> {
    let fed = seat.feeding().and_then(|own| own.feed(&seat.resolved.params(""), credential));
    let Some(secret) = fed else { return Ok(None) };
    let version = source.last_version + 1;
    let sealed = parts.vault.seal_target(&seat.account, source, version, &secret).await?;
    Ok(Some(TargetVersion {
        version,
        params: source.params.clone(),
        sealed,
        created_at: parts.clock.now(),
        created_by: "volvelle".to_owned(),
    }))
}

/// Writes how the rotation of one slot ended into its secret, over all slots of the secret.
pub(crate) async fn close(
    tx: &mut Tx,
    seat: &Seat,
    rotation: &Rotation,
    state: &State,
    now: Micros,
) -> Result<(), StoreError> {
    let account = &seat.account.id;
    let mut item = items::lock(tx, account, seat.item.id).await?;
    prune(tx, &seat.account, &item, rotation).await?;
    let mut stages = vec![state.stage];
    for other in rotations::latest_per_host(tx, account, item.id).await? {
        if other.id != rotation.id && other.started_at == rotation.started_at {
            stages.push(other.state.stage);
        }
    }
    refresh_versions(tx, &mut item).await?;
    let graces = versions::list_item(tx, account, item.id).await?.iter().any(|v| v.state == VersionState::Grace);
    let uid = item.uid.0;
    if let Some(rotator) = item.rotator.as_mut() {
        rotator.status = fold(&stages);
        if state.stage != Stage::Done {
            rotator.last_error.clone_from(&rotation.message);
        } else if rotation.cause != issue::GRACE {
            rotator.last_rotation_at = Some(now);
            // Where nobody can be asked, nothing was verified.
            let seen = !matches!(state.manner, Manner::Told | Manner::Blind);
            rotator.last_verified_at = seen.then_some(now);
        }
        if stages.iter().all(|stage| stage.is_final()) {
            let last = rotator.last_rotation_at.filter(|_| rotation.cause == issue::GRACE).unwrap_or(now);
            plan_next(rotator, seed(&uid), last);
            if graces {
                let end = end_of_grace(rotator, last).max(now.plus_seconds(AGAIN));
                rotator.next_rotation_at = Some(rotator.next_rotation_at.map_or(end, |due| due.min(end)));
            }
        }
    }
    if stages.iter().all(|stage| stage.is_final()) {
        if state.stage == Stage::Done && item.locking.held_at(now).is_none() {
            item.locking.held = None;
        }
        item.plan_lock_end();
    }
    tell_dependents(&mut item, seat);
    item.modified_at = now;
    items::update(tx, &item).await
}

/// Extra of an item: what logs on with its account, and how handing the last credential on ended.
pub const DEPENDENTS: &str = "dependents";

/// A dependent without the new credential makes the rotation a partial success: the account has it, the service does not.
fn tell_dependents(item: &mut Item, seat: &Seat) {
    if seat.dependents.is_empty() {
        return;
    }
    let told = seat.dependents.iter().map(|dependent| {
        let mut shown = dependent.shown.clone();
        let error = dependent.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
        shown.insert("status".to_owned(), if error.is_empty() { "updated" } else { "failed" }.into());
        shown.insert("error".to_owned(), error.into());
        Value::Object(shown)
    });
    let told: Vec<Value> = told.collect();
    // Each host of a linked target has its own; a secret of one host keeps nothing of a former list.
    let same = |a: &Value, b: &Value| ["kind", "name", "host"].iter().all(|field| a[field] == b[field]);
    let before = item.extras.get(DEPENDENTS).and_then(Value::as_array).cloned().unwrap_or_default();
    let others = before.into_iter().filter(|old| !seat.host.is_empty() && !told.iter().any(|new| same(old, new)));
    let all: Value = others.chain(told.iter().cloned()).collect();
    item.extras.insert(DEPENDENTS.to_owned(), all);
    let first = seat.dependents.iter().find_map(|dependent| dependent.failure.as_ref());
    if let (Some(failure), Some(rotator)) = (first, item.rotator.as_mut())
        && rotator.status == RotatorStatus::RotationSucceeded
    {
        rotator.status = RotatorStatus::RotationPartialSucceeded;
        rotator.last_error = worded(failure);
    }
}

async fn prune(tx: &mut Tx, account: &Account, item: &Item, rotation: &Rotation) -> Result<(), StoreError> {
    let keep = item.max_versions.unwrap_or(account.settings.max_versions).max(1);
    versions::prune(tx, &rotation.slot, keep).await?;
    let shared = versions::Slot { host: SHARED.to_owned(), ..rotation.slot.clone() };
    versions::prune(tx, &shared, 1).await?;
    rotations::prune(tx, &rotation.slot, HISTORY).await?;
    Ok(())
}

/// The entry of a rotation that was planned, and for which something had to be opened or sealed.
pub(crate) fn planned(item: &Item, cause: &str, now: Micros) -> audit::Entry {
    audit::Entry {
        at: now,
        actor: "volvelle".to_owned(),
        action: "plan_rotation".to_owned(),
        object: item.name.to_string(),
        outcome: "ok".to_owned(),
        remote: String::new(),
        detail: cause.to_owned(),
        request: String::new(),
    }
}

/// Brings the item's version numbers in step with its slots.
pub(crate) async fn refresh_versions(tx: &mut Tx, item: &mut Item) -> Result<(), StoreError> {
    let kept = versions::list_item(tx, &item.account, item.id).await?;
    let own = || kept.iter().filter(|version| version.host != SHARED);
    item.current_version =
        own().filter(|v| v.state == VersionState::Current).map(|v| v.version).max().unwrap_or(item.current_version);
    item.last_version = own().map(|v| v.version).max().unwrap_or(0).max(item.last_version);
    Ok(())
}

/// The status of a secret from the stages of its slots.
pub(crate) fn fold(stages: &[Stage]) -> RotatorStatus {
    let any = |wanted: Stage| stages.contains(&wanted);
    if any(Stage::OutOfSync) {
        RotatorStatus::OutOfSync
    } else if any(Stage::InDoubt) {
        RotatorStatus::RotationInDoubt
    } else if stages.iter().any(|stage| !stage.is_final()) {
        RotatorStatus::RotationInProgress
    } else if !any(Stage::Failed) {
        RotatorStatus::RotationSucceeded
    } else if any(Stage::Done) {
        RotatorStatus::RotationPartialSucceeded
    } else {
        RotatorStatus::RotationFailed
    }
}

/// When a secret last rotated at `last` gets its next credential.
pub(crate) fn next_issue(rotator: &Rotator, seed: u64, last: Micros) -> Option<Micros> {
    grace::next_issue(&rotator.schedule, Grace::of(&rotator.params).unwrap_or(None), last, seed)
}

/// When what was superseded at `last` goes.
pub(crate) fn end_of_grace(rotator: &Rotator, last: Micros) -> Micros {
    Grace::of(&rotator.params).unwrap_or(None).map_or(last, |grace| grace.ends(last))
}

/// The next date: by the schedule after a success, by a growing back-off after a failure, none while a person is needed.
pub(crate) fn plan_next(rotator: &mut Rotator, seed: u64, now: Micros) {
    match rotator.status {
        RotatorStatus::RotationSucceeded => {
            rotator.failures = 0;
            rotator.last_error.clear();
            rotator.next_rotation_at = next_issue(rotator, seed, now);
        }
        RotatorStatus::OutOfSync => rotator.next_rotation_at = None,
        RotatorStatus::RotationFailed | RotatorStatus::RotationPartialSucceeded => {
            rotator.failures = rotator.failures.saturating_add(1);
            // Without a schedule there may still be the end of a lock, which made it due.
            let wanted = rotator.schedule.auto_rotate || rotator.next_rotation_at.is_some();
            if wanted && rotator.next_rotation_at.is_none_or(|due| due <= now) {
                let pause = BACK_OFF.0.saturating_mul(1 << rotator.failures.min(10)).min(BACK_OFF.1);
                let jitter = i64::try_from(seed % 30).unwrap_or(0);
                rotator.next_rotation_at = Some(now.plus_seconds(pause + jitter));
            }
        }
        RotatorStatus::NotRotated | RotatorStatus::RotationInProgress | RotatorStatus::RotationInDoubt => {}
    }
}

/// Spreads equal due times, always in the same way for the same secret.
pub(crate) fn seed(uid: &[u8; 16]) -> u64 {
    u64::from_be_bytes([uid[0], uid[1], uid[2], uid[3], uid[4], uid[5], uid[6], uid[7]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_many_hosts_is_the_worst_that_needs_somebody() {
        assert_eq!(fold(&[Stage::Done, Stage::Done]), RotatorStatus::RotationSucceeded);
        assert_eq!(fold(&[Stage::Done, Stage::Failed]), RotatorStatus::RotationPartialSucceeded);
        assert_eq!(fold(&[Stage::Failed]), RotatorStatus::RotationFailed);
        assert_eq!(fold(&[Stage::Done, Stage::Staged]), RotatorStatus::RotationInProgress);
        assert_eq!(fold(&[Stage::Done, Stage::InDoubt]), RotatorStatus::RotationInDoubt);
        assert_eq!(fold(&[Stage::Done, Stage::OutOfSync, Stage::InDoubt]), RotatorStatus::OutOfSync);
    }
}
