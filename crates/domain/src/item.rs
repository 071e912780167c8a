//! Items, their slots and their versions.
//!
//! A rotated secret has one *slot* per account it keeps: one with the empty host, or one per host of a
//! linked target. Versions and rotations belong to a slot, so that each host's password is kept by the same
//! protocol as any other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connector::{ActingAs, PasswordPolicy};
use crate::ids::{AccountId, ItemId, Micros, TargetId, Uid, Version};
use crate::path::ItemPath;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ItemKind {
    /// A value people set.
    StaticSecret,
    /// A value that Volvelle replaces on a target.
    RotatedSecret,
    /// A key that others are sealed with; it has no value of its own.
    ProtectionKey,
}

/// What values are sealed with beside the account's own key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The protection key; 0 in the key itself.
    pub key: ItemId,
    /// Set if the key was made with a customer's fragment.
    pub customer: Option<CustomerKey>,
}

/// Which of the customer's fragments takes part. It never changes in the life of a protection key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerKey {
    /// `cf-…`.
    pub fragment: String,
    /// The fragment's check value in hexadecimal, by which a wrong one of the same id is known.
    pub check: String,
}

/// An item as stored.
#[derive(Clone, Debug)]
pub struct Item {
    /// The tenant.
    pub account: AccountId,
    /// Number within the account.
    pub id: ItemId,
    /// Binds the sealed records to the item.
    pub uid: Uid,
    /// Where it is.
    pub name: ItemPath,
    /// What it is.
    pub kind: ItemKind,
    /// The wire's `item_metadata`.
    pub description: String,
    /// Labels, in the order given.
    pub tags: Vec<String>,
    /// `set-item-state` can disable it: then it is neither read nor rotated.
    pub enabled: bool,
    /// Refuses deletion while set.
    pub delete_protection: bool,
    /// Version readers get; 0 while there is none.
    pub current_version: Version,
    /// Newest version number ever given out.
    pub last_version: Version,
    /// Things stored and echoed: custom fields, secure-access fields and the like.
    pub extras: Map<String, Value>,
    /// Versions kept; `None` = the account's.
    pub max_versions: Option<u32>,
    /// Check-out behaviour and the present lock.
    pub locking: Locking,
    /// What its versions are sealed with; in a protection key, what it seals with. `None` = the account's own key.
    pub protection: Option<Protection>,
    /// When it was made.
    pub created_at: Micros,
    /// When its settings or value changed.
    pub modified_at: Micros,
    /// Set on rotated secrets only.
    pub rotator: Option<Rotator>,
}

/// The rotating half of a rotated secret.
#[derive(Clone, Debug)]
pub struct Rotator {
    /// The one target it belongs to.
    pub target: TargetId,
    /// Kind of connector: `ssh`.
    pub kind: String,
    /// The request's spelling of the rotator type.
    pub rotator_type: String,
    /// Who logs in to make the change.
    pub acting: ActingAs,
    /// The spelling the client used (`use-self-creds` or `use-user-creds`), echoed verbatim.
    pub acting_spelling: String,
    /// The connector's own plain parameters, by wire name.
    pub params: Map<String, Value>,
    /// One password for all hosts of a linked target.
    pub same_password: bool,
    /// Policy of generated passwords; `None` = the account's.
    pub policy: Option<PasswordPolicy>,
    /// When it rotates by itself.
    pub schedule: Schedule,
    /// When it is due next; `None` when it does not rotate by itself.
    pub next_rotation_at: Option<Micros>,
    /// When a rotation last succeeded.
    pub last_rotation_at: Option<Micros>,
    /// When the current value was last witnessed to open the account.
    pub last_verified_at: Option<Micros>,
    /// How the last rotation ended, over all slots.
    pub status: RotatorStatus,
    /// Why the last rotation failed; empty if it did not.
    pub last_error: String,
    /// Failures in a row, for the back-off.
    pub failures: u32,
}

/// When a secret rotates by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Schedule {
    /// `auto-rotate`.
    pub auto_rotate: bool,
    /// `rotation-interval` in days, 1 to 365, or in minutes; 0 = not set.
    pub interval_days: u32,
    /// Whether the interval counts minutes, as for kind `custom`; then there is no hour.
    pub in_minutes: bool,
    /// `rotation-hour`, UTC.
    pub hour: u32,
    /// `rotation-cron`, five fields; replaces interval and hour when set.
    pub cron: String,
    /// IANA time zone of the cron expression; empty = UTC.
    pub time_zone: String,
    /// `rotation-event-in`: days before a rotation to notify.
    pub event_in_days: Vec<u32>,
}

/// How the last rotation of a secret ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RotatorStatus {
    /// Never rotated.
    NotRotated,
    /// A rotation is under way.
    RotationInProgress,
    /// Every slot was changed and verified.
    RotationSucceeded,
    /// Some hosts of a linked target were changed, others not.
    RotationPartialSucceeded,
    /// Nothing was changed.
    RotationFailed,
    /// It is not known yet which stored value opens the account.
    RotationInDoubt,
    /// No stored value opens the account: a person is needed.
    OutOfSync,
}

impl Protection {
    /// The customer's part in what is sealed with `protection`.
    #[must_use]
    pub fn customer(protection: Option<&Self>) -> Option<&CustomerKey> {
        protection.and_then(|protection| protection.customer.as_ref())
    }
}

impl Item {
    /// A secret that is to be rotated on unlocking is due no later than its lock ends, whether anybody unlocks it or not.
    pub fn plan_lock_end(&mut self) {
        let Some(lock) = self.locking.held.as_ref().filter(|_| self.locking.rotate_on_unlock) else { return };
        if let Some(rotator) = self.rotator.as_mut() {
            rotator.next_rotation_at = Some(rotator.next_rotation_at.map_or(lock.until, |due| due.min(lock.until)));
        }
    }
}

/// `lock-on-read` and its relatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Locking {
    /// Reading checks the item out.
    pub on_read: bool,
    /// Minutes a lock lives; 0 = 60.
    pub ttl_minutes: u32,
    /// Unlocking rotates.
    pub rotate_on_unlock: bool,
    /// The present lock.
    pub held: Option<Lock>,
}

impl Locking {
    /// The lock, unless its time is over.
    #[must_use]
    pub fn held_at(&self, now: Micros) -> Option<&Lock> {
        self.held.as_ref().filter(|lock| lock.until > now)
    }
}

/// A held lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Access id of the holder.
    pub by: String,
    /// What others must not do: `read`, `update`.
    pub actions: Vec<String>,
    /// Since when.
    pub at: Micros,
    /// Until when.
    pub until: Micros,
}

/// State of one version of one slot. See `docs/concepts/rotation.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Written before the target hears of it; may or may not be on the target.
    Candidate,
    /// What readers get; it was witnessed to open the account.
    Current,
    /// Superseded, still opens the account.
    Grace,
    /// Superseded; kept for history.
    Retired,
    /// Definitively witnessed not to be on the target.
    Rejected,
}

/// One version of one slot.
#[derive(Clone, Debug)]
pub struct ItemVersion {
    /// Number within the item; hosts of a linked target share numbers of one batch.
    pub version: Version,
    /// The slot: empty, or `host:port` of a linked target.
    pub host: String,
    /// Its place in the protocol.
    pub state: VersionState,
    /// The sealed credential.
    pub sealed: Vec<u8>,
    /// When it was written.
    pub created_at: Micros,
    /// Access id of who caused it.
    pub created_by: String,
    /// Why it exists: `create`, `schedule`, `manual`, `update`, `repair`, `rollback`.
    pub reason: String,
    /// When it was last witnessed to open the account.
    pub verified_at: Option<Micros>,
}

/// Facts a preflight recorded for a slot (see [`crate::connector::Preflight::memory`]).
pub type SlotMemory = BTreeMap<String, String>;
