//! The JSON shapes that official clients parse.

pub mod identity;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use volvelle_domain::account::Account;
use volvelle_domain::connector::{Declaration, PasswordPolicy};
use volvelle_domain::ids::Micros;
use volvelle_domain::item::{Item, ItemKind, ItemVersion, Protection, Rotator, RotatorStatus, VersionState};
use volvelle_domain::target::{Target, TargetVersion};
use volvelle_holder::Presence;

use crate::ops::keys;

/// An instant as RFC 3339.
#[must_use]
pub fn time(at: Micros) -> String {
    Timestamp::from_microsecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// An instant that may be missing: Go's zero time, which every client parses.
fn opt_time(at: Option<Micros>) -> String {
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), time)
}

/// The wire's word for a status.
#[must_use]
pub const fn status(status: RotatorStatus) -> &'static str {
    match status {
        RotatorStatus::NotRotated => "NotRotated",
        RotatorStatus::RotationInProgress => "RotationInProgress",
        RotatorStatus::RotationSucceeded => "RotationSucceeded",
        RotatorStatus::RotationPartialSucceeded => "RotationPartialSucceeded",
        RotatorStatus::RotationFailed => "RotationFailed",
        RotatorStatus::RotationInDoubt => "RotationInDoubt",
        RotatorStatus::OutOfSync => "OutOfSync",
    }
}

/// What belongs to an item but is stored elsewhere.
pub struct Around<'a> {
    /// The tenant.
    pub account: &'a Account,
    /// The time, by which locks end.
    pub now: Micros,
    /// The target of a rotated secret.
    pub target: Option<&'a Target>,
    /// The kind's declaration.
    pub declaration: Option<&'a Declaration>,
    /// What the caller may do.
    pub permissions: Vec<String>,
    /// All versions, if they were asked for.
    pub versions: Option<&'a [ItemVersion]>,
    /// Whether a rotation is in the queue or under way.
    pub rotating: bool,
    /// What it is sealed with.
    pub sealing: Sealing,
}

/// What an item or a target is sealed with beside what it holds itself.
#[derive(Clone, Debug, Default)]
pub struct Sealing {
    /// The name of the protection key; `None` for the account's own.
    pub key: Option<String>,
    /// Whether the customer's fragment is here, if one takes part.
    pub presence: Option<Presence>,
}

impl Sealing {
    /// Adds what the wire shows of it to an item, a target or a version of either.
    fn show(&self, protection: Option<&Protection>, out: &mut Value) {
        let customer = Protection::customer(protection);
        out["with_customer_fragment"] = Value::from(customer.is_some());
        if let Some(key) = &self.key {
            out["protection_key_name"] = Value::from(key.as_str());
            out["protection_key_type"] = Value::from(keys::ALGORITHM);
        }
        if let Some(customer) = customer {
            out["customer_fragment_id"] = Value::from(customer.fragment.as_str());
        }
        if let Some(presence) = self.presence {
            out["customer_fragment_state"] = Value::from(presence.as_str());
        }
    }
}

/// The wire's word for a kind of item.
#[must_use]
pub const fn kind(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::RotatedSecret => "ROTATED_SECRET",
        ItemKind::StaticSecret => "STATIC_SECRET",
        ItemKind::ProtectionKey => keys::ALGORITHM,
    }
}

/// An item as `describe-item` and `list-items` answer it.
#[must_use]
pub fn item(item: &Item, around: &Around<'_>) -> Value {
    let rotated = item.kind == ItemKind::RotatedSecret;
    let mut out = json!({
        "item_name": item.name.as_str(),
        "item_id": item.id.0,
        "display_id": hex::encode(item.uid.0),
        "item_type": kind(item.kind),
        "item_sub_type": item.extras.get("item_sub_type").and_then(Value::as_str).unwrap_or("generic"),
        "item_metadata": item.description,
        "item_tags": item.tags,
        "item_size": 0,
        "item_state": if item.enabled { "Enabled" } else { "Disabled" },
        "is_enabled": item.enabled,
        "item_accessibility": 0,
        "last_version": if rotated { item.current_version } else { item.last_version },
        "creation_date": time(item.created_at),
        "modification_date": time(item.modified_at),
        "access_date": time(item.modified_at),
        "delete_protection": item.delete_protection,
        "client_permissions": around.permissions,
        "item_general_info": general(item, around),
    });
    around.sealing.show(item.protection.as_ref(), &mut out);
    if let Some(fields) = item.extras.get("item-custom-fields") {
        out["item_custom_fields_details"] = fields.clone();
    }
    if let Some(lock) = item.locking.held_at(around.now) {
        out["locking_info"] = json!({"actions": lock.actions, "locked_by": lock.by,
            "locked_at": lock.at.0 / 1_000_000, "expire_at": lock.until.0 / 1_000_000});
    }
    if let Some(rotator) = &item.rotator {
        out["auto_rotate"] = Value::from(rotator.schedule.auto_rotate);
        out["rotation_interval"] = Value::from(rotator.schedule.interval_days);
        out["last_rotation_date"] = Value::from(opt_time(rotator.last_rotation_at));
        out["next_rotation_date"] = Value::from(opt_time(rotator.next_rotation_at));
    }
    if let Some(target) = around.target {
        out["item_targets_assoc"] = json!([{"assoc_id": format!("ita-{}-{}", item.id, target.id),
            "target_id": target.id.0, "target_name": target.name.as_str(), "target_type": target.kind}]);
        if let Some(linked) = &target.linked {
            let hosts: Map<String, Value> =
                linked.hosts.iter().map(|(host, text)| (host.clone(), Value::from(text.as_str()))).collect();
            out["linked_details"] = json!({ "hosts": hosts });
        }
    }
    if let Some(versions) = around.versions {
        let shown = versions.iter().filter(|v| v.host != volvelle_rotation::SHARED).map(|v| {
            let mut shown = version(v);
            around.sealing.show(item.protection.as_ref(), &mut shown);
            shown
        });
        out["item_versions"] = shown.collect();
    }
    out
}

fn version(version: &ItemVersion) -> Value {
    let state = match version.state {
        VersionState::Candidate => "Candidate",
        VersionState::Current => "Enabled",
        VersionState::Grace => "Grace",
        VersionState::Retired => "Retired",
        VersionState::Rejected => "Rejected",
    };
    let mut out = json!({
        "version": version.version,
        "creation_date": time(version.created_at),
        "modification_date": time(version.created_at),
        "access_date": time(version.created_at),
        "item_version_state": state,
        "access_id": version.created_by,
        "reason": version.reason,
    });
    if !version.host.is_empty() {
        out["host"] = Value::from(version.host.as_str());
    }
    if let Some(at) = version.verified_at {
        out["verified_at"] = Value::from(time(at));
    }
    out
}

fn general(item: &Item, around: &Around<'_>) -> Value {
    let mut out = json!({
        "lock_on_read": item.locking.on_read,
        "lock_ttl": item.locking.ttl_minutes,
        "rotate_on_unlock": item.locking.rotate_on_unlock,
        "pending_rotate_on_unlock": item.locking.rotate_on_unlock && item.locking.held.is_some(),
    });
    let sra: Map<String, Value> = item
        .extras
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("secure-access-")?.replace('-', "_"), value.clone())))
        .collect();
    if !sra.is_empty() {
        out["secure_remote_access_details"] = Value::Object(sra);
    }
    if let Some(rotator) = &item.rotator {
        let effective = rotator.policy.as_ref().unwrap_or(&around.account.settings.password_policy);
        out["password_policy"] = policy(effective);
        let events = rotator.schedule.event_in_days.iter().map(|days| json!({"seconds_before": days * 86_400}));
        out["next_rotation_events"] = events.collect();
        out["rotated_secret_details"] = rotator_details(item, rotator, around);
    }
    out
}

/// A password policy as the wire has it.
#[must_use]
pub fn policy(policy: &PasswordPolicy) -> Value {
    json!({"password_length": policy.length, "use_lower_letters": policy.lower, "use_capital_letters": policy.upper,
        "use_numbers": policy.digits, "use_special_characters": policy.special})
}

fn rotator_details(item: &Item, rotator: &Rotator, around: &Around<'_>) -> Value {
    let types = around.declaration.map(|declaration| declaration.rotator_types).unwrap_or_default();
    let wire_name = types.iter().find(|t| t.name == rotator.rotator_type).map_or("user-pass-rotator", |t| t.wire_name);
    let settled = !matches!(rotator.status, RotatorStatus::OutOfSync | RotatorStatus::RotationInDoubt);
    let state = if around.rotating && settled { RotatorStatus::RotationInProgress } else { rotator.status };
    let param = |name: &str| rotator.params.get(name).cloned().unwrap_or_else(|| Value::from(""));
    let mut details = json!({
        "rotator_type": wire_name,
        "rotator_creds_type": rotator.acting_spelling,
        "rotator_status": status(state),
        "last_rotation_error": rotator.last_error,
        "last_verified_date": opt_time(rotator.last_verified_at),
        "username": param("rotated-username"),
        "rotation_hour": rotator.schedule.hour,
        "rotation_interval_min": rotator.schedule.in_minutes,
        "rotation_cron": rotator.schedule.cron,
        "rotation_time_zone": rotator.schedule.time_zone,
        "rotation_statement": param("rotator-custom-cmd"),
        "same_password": rotator.same_password,
        "grace_rotation": false,
        "max_versions": item.max_versions.unwrap_or(around.account.settings.max_versions),
        "number_of_versions_to_save": item.max_versions.unwrap_or(around.account.settings.max_versions),
        "delete_previous_version_in_days": 0,
        "managed_by_akeyless": item.extras.contains_key(volvelle_rotation::MANAGED),
        "enable_custom_password_policy": rotator.policy.is_some(),
        "timeout_seconds": 40,
        "key_algorithm": param("key-algorithm"),
        "public_key_remote_path": param("public-key-remote-path"),
    });
    if let Some(all) = item.extras.get(volvelle_rotation::DEPENDENTS).and_then(Value::as_array) {
        let of = |pool: bool| all.iter().filter(|d| (d["kind"] == "pool") == pool).cloned().collect::<Value>();
        (details["services_details"], details["iis_apps_details"]) = (of(false), of(true));
    }
    details
}

/// A target as `target-get` and `target-list` answer it; no secret in it.
#[must_use]
pub fn target(
    target: &Target,
    parent: Option<&Target>,
    permissions: Vec<String>,
    versions: Option<&[TargetVersion]>,
    sealing: &Sealing,
) -> Value {
    let mut out = json!({
        "target_id": target.id.0,
        "target_name": target.name.as_str(),
        "target_type": target.kind,
        "comment": target.description,
        "last_version": target.last_version,
        "creation_date": time(target.created_at),
        "modification_date": time(target.modified_at),
        "access_date": time(target.modified_at),
        "delete_protection": target.delete_protection,
        "client_permissions": permissions,
    });
    sealing.show(target.protection.as_ref(), &mut out);
    if !target.halted.is_empty() {
        out["halted"] = Value::from(target.halted.as_str());
    }
    if !target.pinned.is_empty() {
        out["host_keys"] = target.pinned.iter().map(pin).collect();
    }
    if let (Some(linked), None) = (&target.linked, parent) {
        out["attributes"] = json!({"parent_target_type": linked.hosts_kind});
    }
    if let Some(parent) = parent {
        out["parent_target_name"] = Value::from(parent.name.as_str());
    }
    if let Some(versions) = versions {
        out["target_versions"] = versions
            .iter()
            .map(|v| {
                let mut shown = json!({"version": v.version, "creation_date": time(v.created_at),
                    "modification_date": time(v.created_at), "access_id": v.created_by});
                sealing.show(target.protection.as_ref(), &mut shown);
                shown
            })
            .collect();
    }
    out
}

/// A pinned identity.
#[must_use]
pub fn pin(pin: &volvelle_domain::connector::PeerIdentity) -> Value {
    json!({"address": pin.address, "algorithm": pin.algorithm, "public_key": pin.public_key, "fingerprint": pin.fingerprint})
}
