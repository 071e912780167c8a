//! Accounts: the tenants every object belongs to.

use serde::{Deserialize, Serialize};

use crate::connector::PasswordPolicy;
use crate::ids::{AccountId, Micros, Uid};

/// A tenant with its own fragment key.
#[derive(Clone, Debug)]
pub struct Account {
    /// `acc-…`.
    pub id: AccountId,
    /// Company or team.
    pub name: String,
    /// The realm of the account's keys at the holders.
    pub realm: Uid,
    /// The key that new records are sealed under.
    pub key_id: u32,
    /// Whether its administrators may make more accounts.
    pub operator: bool,
    /// Raised by every change of rules, identities, settings or tokens; cached decisions carry it.
    pub generation: i64,
    /// Raised by every change of items, values or targets; cached answers carry it.
    pub content: i64,
    /// When it was made.
    pub created_at: Micros,
    /// What its administrators set.
    pub settings: AccountSettings,
}

/// Account-wide settings (`get-account-settings`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountSettings {
    /// Minutes a token lives by default, at least, at most.
    pub jwt_ttl_default: i64,
    /// Shortest life a method may give its tokens, in minutes.
    pub jwt_ttl_min: i64,
    /// Longest life a method may give its tokens, in minutes.
    pub jwt_ttl_max: i64,
    /// Versions kept per item when the item does not say.
    pub max_versions: u32,
    /// Whether an update keeps the former value as a version when the request does not say.
    pub default_versioning: bool,
    /// Whether an update always keeps the former value.
    pub force_new_versions: bool,
    /// Longest rotation interval in days, if there is a limit.
    pub max_rotation_interval: Option<u32>,
    /// Whether items may be locked.
    pub item_locking_enabled: bool,
    /// Policy of generated passwords when the item does not say.
    pub password_policy: PasswordPolicy,
}

impl Default for AccountSettings {
    fn default() -> Self {
        Self {
            jwt_ttl_default: 60,
            jwt_ttl_min: 1,
            jwt_ttl_max: 1440,
            max_versions: 10,
            default_versioning: true,
            force_new_versions: false,
            max_rotation_interval: None,
            item_locking_enabled: true,
            password_policy: PasswordPolicy::default(),
        }
    }
}
