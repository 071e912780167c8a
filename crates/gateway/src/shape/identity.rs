//! Roles and auth methods as official clients parse them. No key and no hash of one is in them.

use serde_json::{Value, json};
use volvelle_domain::account::Account;
use volvelle_domain::identity::{AuthMethod, Role, RoleAssoc, RoleRule, SubClaims};
use volvelle_domain::rules;

use super::time;
use crate::ctx::ROLES;

/// A role as `get-role` and `list-roles` answer it.
#[must_use]
pub fn role(role: &Role, permissions: Vec<String>) -> Value {
    let assocs: Vec<Value> = role
        .assocs
        .iter()
        .map(|assoc| {
            json!({
                "assoc_id": assoc.id,
                "auth_method_name": assoc.auth_method_name.as_str(),
                "auth_method_access_id": assoc.access_id.0,
                "auth_method_id": assoc.auth_method.0,
                "auth_method_sub_claims": assoc.sub_claims,
                "sub_claims_case_sensitive": assoc.case_sensitive,
                "is_subclaims_with_operator": with_operator(&assoc.sub_claims),
            })
        })
        .collect();
    json!({
        "role_name": role.name.as_str(),
        "role_id": role.id.0,
        "comment": role.description,
        "delete_protection": role.delete_protection,
        "creation_date": time(role.created_at),
        "modification_date": time(role.modified_at),
        "client_permissions": permissions,
        "rules": rule_set(role),
        "role_auth_methods_assoc": assocs,
    })
}

fn rule_set(role: &Role) -> Value {
    let admin = role.rules.iter().any(|rule| {
        rule.rule_type == ROLES
            && rule.path == "/*"
            && !rules::denies(rule)
            && rule.capabilities.iter().any(|word| word == "update")
    });
    json!({"admin": admin, "path_rules": role.rules.iter().map(rule).collect::<Vec<_>>()})
}

fn rule(rule: &RoleRule) -> Value {
    let start = if rule.ttl_minutes > 0 { rule.set_at.0 / 1_000_000 } else { 0 };
    json!({"path": rule.path, "type": rule.rule_type, "capabilities": rule.capabilities, "ttl": rule.ttl_minutes,
        "start_time": start, "item_id": 0, "assigners": [], "is_limit_access": false, "number_of_allowed_access": 0,
        "number_of_access_used": 0, "cb": 0})
}

fn with_operator(claims: &SubClaims) -> bool {
    claims.values().flatten().any(|value| value.contains("`AND`") || value.contains("`OR`"))
}

/// An auth method as `auth-method-get` and `auth-method-list` answer it, with those of `roles` that it was given.
#[must_use]
pub fn auth_method(method: &AuthMethod, account: &Account, roles: &[Role], permissions: Vec<String>) -> Value {
    let given = roles.iter().flat_map(|role| role.assocs.iter().map(move |assoc| (role, assoc)));
    let assocs: Vec<Value> = given
        .filter(|(_, assoc)| assoc.auth_method == method.id)
        .map(|(role, assoc)| given_role(role, assoc))
        .collect();
    json!({
        "auth_method_name": method.name.as_str(),
        "auth_method_access_id": method.access_id.0,
        "auth_method_id": method.id.0,
        "account_id": method.account.0,
        "description": method.description,
        "delete_protection": method.delete_protection,
        "is_approved": true,
        "creation_date": time(method.created_at),
        "modification_date": time(method.modified_at),
        "client_permissions": permissions,
        "expiration_events": events(method),
        "associated_gw_ids": [],
        "access_info": access_info(method, account),
        "auth_method_roles_assoc": assocs,
    })
}

fn given_role(role: &Role, assoc: &RoleAssoc) -> Value {
    json!({
        "assoc_id": assoc.id,
        "role_name": role.name.as_str(),
        "role_id": role.id.0,
        "allowed_ops": [],
        "auth_method_sub_claims": assoc.sub_claims,
        "is_sub_claims_case_sensitive": assoc.case_sensitive,
        "rules": rule_set(role),
    })
}

fn events(method: &AuthMethod) -> Vec<Value> {
    let days = method.limits.expiration_event_in.iter().filter_map(|text| text.trim().parse::<i64>().ok());
    days.map(|days| json!({"seconds_before": days.saturating_mul(86_400)})).collect()
}

fn access_info(method: &AuthMethod, account: &Account) -> Value {
    let limits = &method.limits;
    let jwt_ttl = if limits.jwt_ttl > 0 { limits.jwt_ttl } else { account.settings.jwt_ttl_default };
    json!({
        "rules_type": method.kind,
        "access_expires": limits.access_expires,
        "jwt_ttl": jwt_ttl,
        "cidr_whitelist": limits.bound_ips.join(","),
        "gw_cidr_whitelist": limits.gw_bound_ips.join(","),
        "force_sub_claims": limits.force_sub_claims,
        "audit_logs_claims": limits.audit_logs_claims,
        "allowed_client_type": limits.allowed_client_type,
        "product_types": limits.product_type,
        "sub_claims_delimiters": [],
        "access_id_alias": "",
        "api_key_access_rules": {"alg": "", "key": "", "modification_date": time(method.key_changed_at)},
    })
}
