//! Targets: where and with which privileged credential to connect.

use serde_json::{Map, Value};

use crate::connector::PeerIdentity;
use crate::ids::{AccountId, Micros, TargetId, Uid, Version};
use crate::item::{Locking, Protection};
use crate::path::ItemPath;

/// A target as stored.
#[derive(Clone, Debug)]
pub struct Target {
    /// The tenant.
    pub account: AccountId,
    /// Number within the account.
    pub id: TargetId,
    /// Binds the sealed records to the target.
    pub uid: Uid,
    /// Where it is, in the targets' own name space.
    pub name: ItemPath,
    /// Kind of connector, or `linked`.
    pub kind: String,
    /// The wire's `comment`.
    pub description: String,
    /// Plain parameters of the newest version, by wire name.
    pub params: Map<String, Value>,
    /// Newest version.
    pub last_version: Version,
    /// Versions kept; `None` = the account's.
    pub max_versions: Option<u32>,
    /// Refuses deletion while set.
    pub delete_protection: bool,
    /// Check-out behaviour and the present lock.
    pub locking: Locking,
    /// What its versions are sealed with; `None` = the account's own key.
    pub protection: Option<Protection>,
    /// Pinned identities, one per address.
    pub pinned: Vec<PeerIdentity>,
    /// Why everything for this target stands still (a changed host key); empty if nothing does.
    pub halted: String,
    /// The target that it is reached through: whose settings and credential the hosts of a linked one share, or the directory of a
    /// host's domain. It has no parent itself.
    pub parent: Option<TargetId>,
    /// Set on linked targets only.
    pub linked: Option<Linked>,
    /// When it was made.
    pub created_at: Micros,
    /// When it changed.
    pub modified_at: Micros,
}

/// The hosts of a linked target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// Kind of the hosts when there is no parent.
    pub hosts_kind: String,
    /// `host` or `host:port` as given, and its description, in the order given.
    pub hosts: Vec<(String, String)>,
}

/// One version of a target's secret parameters.
#[derive(Clone, Debug)]
pub struct TargetVersion {
    /// Counted from 1.
    pub version: Version,
    /// The plain parameters then.
    pub params: Map<String, Value>,
    /// The sealed secret parameters.
    pub sealed: Vec<u8>,
    /// When it was written.
    pub created_at: Micros,
    /// Access id of who caused it.
    pub created_by: String,
}
