//! Identities and what they may do: auth methods, tokens, roles and their rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AccessId, AccountId, AuthMethodId, Micros, RoleId};
use crate::path::ItemPath;

/// Claims of a caller beyond its access id: `{"groups": ["admins"]}`.
pub type SubClaims = BTreeMap<String, Vec<String>>;

/// An identity that can ask for tokens.
#[derive(Clone, Debug)]
pub struct AuthMethod {
    /// The tenant.
    pub account: AccountId,
    /// Number within the account.
    pub id: AuthMethodId,
    /// `p-…`.
    pub access_id: AccessId,
    /// Where it is, in the auth methods' own name space.
    pub name: ItemPath,
    /// `api_key`; other kinds come with their own issue.
    pub kind: String,
    /// Free text.
    pub description: String,
    /// SHA-256 of the access key.
    pub key_hash: [u8; 32],
    /// When the key was made.
    pub key_changed_at: Micros,
    /// Limits on its use.
    pub limits: AuthLimits,
    /// Refuses deletion while set.
    pub delete_protection: bool,
    /// When it was made.
    pub created_at: Micros,
    /// When it changed.
    pub modified_at: Micros,
}

/// Limits on the use of an auth method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthLimits {
    /// Unix seconds after which it is refused; 0 = never.
    pub access_expires: i64,
    /// Networks it may come from (CIDR); empty = any.
    pub bound_ips: Vec<String>,
    /// Gateways (CIDR) whose `X-Forwarded-For` is believed.
    pub gw_bound_ips: Vec<String>,
    /// Associations without sub-claims do not count.
    pub force_sub_claims: bool,
    /// Minutes its tokens live; 0 = the account's default.
    pub jwt_ttl: i64,
    /// Claims copied into audit entries.
    pub audit_logs_claims: Vec<String>,
    /// Kinds of client it may be used from; empty = any.
    pub allowed_client_type: Vec<String>,
    /// Products it may be used for; stored and echoed.
    pub product_type: Vec<String>,
    /// Days before expiry to notify; stored and echoed.
    pub expiration_event_in: Vec<String>,
}

/// A token as stored: only its hash.
#[derive(Clone, Debug)]
pub struct Token {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The tenant.
    pub account: AccountId,
    /// Who it was given to.
    pub auth_method: AuthMethodId,
    /// Its claims.
    pub sub_claims: SubClaims,
    /// When it was given.
    pub issued_at: Micros,
    /// When it ends.
    pub expires_at: Micros,
}

/// A named set of rules.
#[derive(Clone, Debug)]
pub struct Role {
    /// The tenant.
    pub account: AccountId,
    /// Number within the account.
    pub id: RoleId,
    /// Where it is, in the roles' own name space.
    pub name: ItemPath,
    /// The wire's `comment`.
    pub description: String,
    /// Refuses deletion while set.
    pub delete_protection: bool,
    /// What it grants and denies, in the order set.
    pub rules: Vec<RoleRule>,
    /// Whom it is given to, in the order made.
    pub assocs: Vec<RoleAssoc>,
    /// When it was made.
    pub created_at: Micros,
    /// When it changed.
    pub modified_at: Micros,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRule {
    /// With a leading slash; `*` at the end, `+` within a segment, `{{claim}}` templates.
    pub path: String,
    /// `item-rule`, `target-rule`, `role-rule`, `auth-method-rule`, `search-rule`, …
    pub rule_type: String,
    /// `read`, `create`, `update`, `delete`, `list`, `deny`.
    pub capabilities: Vec<String>,
    /// Minutes it lives; 0 = for ever.
    pub ttl_minutes: i64,
    /// When it was set; its life counts from here.
    pub set_at: Micros,
}

/// One association of a role with an auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleAssoc {
    /// `ass-…`.
    pub id: String,
    /// The identity.
    pub auth_method: AuthMethodId,
    /// Its name.
    pub auth_method_name: ItemPath,
    /// Its access id.
    pub access_id: AccessId,
    /// Claims the caller must have; as the wire has them, values split at commas.
    pub sub_claims: SubClaims,
    /// Whether claims are compared with case.
    pub case_sensitive: bool,
}
