//! Roles: their rules and whom they are given to.

use serde_json::{Value, json};
use volvelle_domain::identity::{Role, RoleAssoc, RoleRule, SubClaims};
use volvelle_domain::ids::RoleId;
use volvelle_domain::rules::{self, RuleError};
use volvelle_domain::{ItemPath, identity::AuthMethod};
use volvelle_store::{StoreError, roles};

use super::Answer;
use super::grants::Change;
use crate::credentials;
use crate::ctx::{AUDIT, Ctx, ITEMS, METHODS, ROLES, TARGETS};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// Roles of one page.
const PAGE: usize = 1000;
/// Most rules of a role.
const MOST_RULES: usize = 1000;
/// Most claims of an association, and most values of a claim.
const MOST_CLAIMS: usize = 100;
/// Parameters that stand for a rule of their own.
const ACCESS: &[(&str, &str)] = &[
    ("audit-access", AUDIT),
    ("analytics-access", "reports-rule"),
    ("gw-analytics-access", "gw-reports-rule"),
    ("sra-reports-access", "sra-reports-rule"),
    ("usage-reports-access", "usage-reports-rule"),
    ("event-center-access", "event-rule"),
    ("event-forwarders-access", "event-forwarder-rule"),
    ("event-forwarder-access", "event-forwarder-rule"),
];

/// Makes a role.
///
/// # Errors
/// The caller may not or has less than it grants, the name is taken, or a parameter is wrong.
pub async fn create(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let mut change = Change::begin(ctx, ROLES, &name, "create").await?;
    let mut role = Role {
        account: ctx.id().clone(),
        id: RoleId(0),
        name,
        description: description(params).unwrap_or_default(),
        delete_protection: params.is("delete_protection"),
        rules: Vec::new(),
        assocs: Vec::new(),
        created_at: ctx.now,
        modified_at: ctx.now,
    };
    role.id = roles::add(&mut change.tx, &role).await.map_err(|error| taken(error, &role.name))?;
    set_access(ctx, &mut change, &role, params).await?;
    change.commit(&role.name, "").await?;
    Ok(json!({}))
}

fn taken(error: StoreError, name: &ItemPath) -> ApiError {
    match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("role {name}")),
        other => other.into(),
    }
}

/// The free text, under whichever of its names it came; an empty one counts only if no other was given.
fn description(params: &Params) -> Option<String> {
    let given = ["description", "comment", "new-comment"].iter().filter_map(|name| params.changed_text(name));
    given.max_by_key(|text| !text.is_empty()).map(str::to_owned)
}

/// Sets and removes the rules that parameters such as `audit-access` stand for.
async fn set_access(ctx: &Ctx<'_>, change: &mut Change<'_>, role: &Role, params: &Params) -> Result<(), ApiError> {
    for (param, rule_type) in ACCESS {
        let (wanted, gone): (Option<&str>, &[&str]) = match params.text(param) {
            None => continue,
            Some("all") => (Some("/*"), &["/self"]),
            Some("own") => (Some("/self"), &["/*"]),
            Some("none") => (None, &["/*", "/self"]),
            Some(_) => return Err(bad(param, "must be all, own or none")),
        };
        let replaced = |rule: &&RoleRule| rule.rule_type == *rule_type && ["/*", "/self"].contains(&rule.path.as_str());
        change.may_lift(role.rules.iter().filter(replaced))?;
        for path in gone {
            roles::delete_rule(&mut change.tx, ctx.id(), role.id, path, rule_type).await?;
        }
        if let Some(path) = wanted {
            let rule = made(ctx, (path, rule_type), vec!["read".to_owned()], 0);
            change.may_grant([&rule])?;
            roles::set_rule(&mut change.tx, ctx.id(), role.id, &rule).await?;
        }
    }
    Ok(())
}

fn made(ctx: &Ctx<'_>, (path, rule_type): (&str, &str), capabilities: Vec<String>, ttl_minutes: i64) -> RoleRule {
    RoleRule { path: path.to_owned(), rule_type: rule_type.to_owned(), capabilities, ttl_minutes, set_at: ctx.now }
}

/// Changes a role's name, text, protection or access rules.
///
/// # Errors
/// The caller may not or has less than it would grant, there is no such role, or a parameter is wrong.
pub async fn update(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let mut change = Change::begin(ctx, ROLES, &name, "update").await?;
    let mut role = change.role(&name)?;
    if let Some(text) = description(params) {
        role.description = text;
    }
    role.delete_protection = params.flag("delete_protection").unwrap_or(role.delete_protection);
    if let Some(to) = params.opt_path("new-name")? {
        change.require(ROLES, &to, "create")?;
        role.name = to;
    }
    role.modified_at = ctx.now;
    roles::update(&mut change.tx, &role).await.map_err(|error| taken(error, &role.name))?;
    set_access(ctx, &mut change, &role, params).await?;
    let detail = if role.name == name { String::new() } else { format!("renamed to {}", role.name) };
    change.commit(&name, &detail).await?;
    Ok(json!({"updated": true}))
}

/// Shows a role.
///
/// # Errors
/// The caller may not, or there is no such role.
pub async fn get(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    ctx.require(ROLES, name.as_str(), "list")?;
    let mut tx = ctx.app.store.read().await?;
    let role = roles::find(&mut tx, ctx.id(), &name).await?;
    let role = role.ok_or_else(|| ctx.not_found(&format!("role {name}")))?;
    Ok(shown(ctx, &role))
}

fn shown(ctx: &Ctx<'_>, role: &Role) -> Value {
    shape::identity::role(role, ctx.capabilities(ROLES, role.name.as_str()))
}

/// Lists roles the caller may know of, by name.
///
/// # Errors
/// The store failed.
pub async fn list(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let filter = params.text("filter").unwrap_or_default();
    let after = params.text("pagination-token").unwrap_or_default();
    let mut tx = ctx.app.store.read().await?;
    let page = roles::list(&mut tx, ctx.id(), after, u32::try_from(PAGE).unwrap_or(u32::MAX)).await?;
    let next = page.last().filter(|_| page.len() >= PAGE).map(|last| last.name.to_string()).unwrap_or_default();
    let wanted = |role: &&Role| role.name.as_str().contains(filter) && ctx.may(ROLES, role.name.as_str(), "list");
    let shown: Vec<Value> = page.iter().filter(wanted).map(|role| shown(ctx, role)).collect();
    Ok(json!({"roles": shown, "next_page": next}))
}

/// Deletes a role with its rules and associations.
///
/// # Errors
/// The caller may not or would lift a denial, there is no such role, it is protected, or it makes the last administrator.
pub async fn delete(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let mut change = Change::begin(ctx, ROLES, &name, "delete").await?;
    let role = change.role(&name)?;
    if role.delete_protection {
        let text = format!("role {name} is protected from deletion; switch delete_protection off first");
        return Err(ApiError::Conflict(text));
    }
    change.may_lift(&role.rules)?;
    roles::remove(&mut change.tx, ctx.id(), role.id).await?;
    change.commit(&name, "").await?;
    Ok(json!({}))
}

/// Sets what a role may do on a path, in the place of the rule that is there.
///
/// # Errors
/// The caller may not or has less than it grants, there is no such role, or a parameter is wrong.
pub async fn set_rule(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("role-name")?;
    let mut change = Change::begin(ctx, ROLES, &name, "update").await?;
    let mut role = change.role(&name)?;
    let (path, rule_type) = place(params)?;
    let ttl = params.int("ttl").unwrap_or(0);
    if ttl < 0 {
        return Err(bad("ttl", "is a number of minutes, or 0 for ever"));
    }
    let rule = made(ctx, (&path, &rule_type), capabilities(params), ttl);
    rules::check(&rule.path, &rule.rule_type, &rule.capabilities).map_err(wrong)?;
    let before = role.rules.iter().find(|old| old.path == rule.path && old.rule_type == rule.rule_type);
    if before.is_none() && role.rules.len() >= MOST_RULES {
        return Err(bad("path", format!("a role has at most {MOST_RULES} rules")));
    }
    change.may_lift(before)?;
    change.may_grant([&rule])?;
    roles::set_rule(&mut change.tx, ctx.id(), role.id, &rule).await?;
    role.modified_at = ctx.now;
    roles::update(&mut change.tx, &role).await?;
    change.commit(&name, &format!("{rule_type} {path} {}", rule.capabilities.join(","))).await?;
    Ok(json!({}))
}

/// The capabilities, given as a list or separated by commas, each once.
fn capabilities(params: &Params) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for word in params.list("capability").iter().flat_map(|text| text.split(',')).map(str::trim) {
        if !word.is_empty() && !out.iter().any(|known| known == word) {
            out.push(word.to_owned());
        }
    }
    out
}

/// The path, with a leading slash, and the type of the rule that is meant.
fn place(params: &Params) -> Result<(String, String), ApiError> {
    let path = params.text("path").ok_or_else(|| bad("path", "is required"))?;
    let rule_type = params.text("rule-type").unwrap_or(ITEMS);
    Ok((rooted(path), rule_type.to_owned()))
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn wrong(error: RuleError) -> ApiError {
    let param = match error {
        RuleError::EmptyPath | RuleError::TooLong | RuleError::InnerStar | RuleError::BadTemplate => "path",
        RuleError::UnknownType => "rule-type",
        RuleError::NoCapability | RuleError::UnknownCapability => "capability",
    };
    bad(param, error.to_string())
}

/// Removes a rule from a role.
///
/// # Errors
/// The caller may not or would lift a denial, there is no such role or rule, or it makes the last administrator.
pub async fn delete_rule(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("role-name")?;
    let mut change = Change::begin(ctx, ROLES, &name, "update").await?;
    let mut role = change.role(&name)?;
    let (path, rule_type) = place(params)?;
    let before = role.rules.iter().find(|old| old.path == path && old.rule_type == rule_type);
    let before = before.ok_or_else(|| ctx.not_found(&format!("rule {path} of type {rule_type} in role {name}")))?;
    change.may_lift([before])?;
    roles::delete_rule(&mut change.tx, ctx.id(), role.id, &path, &rule_type).await?;
    role.modified_at = ctx.now;
    roles::update(&mut change.tx, &role).await?;
    change.commit(&name, &format!("{rule_type} {path}")).await?;
    Ok(json!({"deleted": true, "result": format!("rule {path} was removed from role {name}")}))
}

/// Gives a role to an auth method.
///
/// # Errors
/// The caller may not or has less than the role, one of them does not exist, or it was given already.
pub async fn associate(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let (name, am) = (params.path("role-name")?, params.path("am-name")?);
    ctx.require(METHODS, am.as_str(), "update")?;
    let mut change = Change::begin(ctx, ROLES, &name, "update").await?;
    change.require(METHODS, &am, "update")?;
    let role = change.role(&name)?;
    let AuthMethod { id, name: am, access_id, .. } = change.method(&am).await?;
    change.may_grant(&role.rules)?;
    let assoc = RoleAssoc {
        id: credentials::assoc_id(ctx.app.engine.parts().entropy.as_ref()),
        auth_method: id,
        auth_method_name: am,
        access_id,
        sub_claims: sub_claims(params)?,
        case_sensitive: params.flag("case-sensitive").unwrap_or(true),
    };
    let am = &assoc.auth_method_name;
    roles::add_assoc(&mut change.tx, ctx.id(), role.id, &assoc).await.map_err(|error| match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("the association of role {name} with {am}")),
        other => other.into(),
    })?;
    change.commit(&name, am.as_str()).await?;
    Ok(json!({ "assoc_id": assoc.id }))
}

/// Claims as the wire has them, `{"groups": "admins,developers"}`, with their values split.
fn sub_claims(params: &Params) -> Result<SubClaims, ApiError> {
    const WRONG: &str = "is an object of texts, such as {\"groups\": \"admins,developers\"}";
    let mut out = SubClaims::new();
    for (key, value) in params.object("sub-claims").into_iter().flatten() {
        let texts: Option<Vec<&str>> = match value {
            Value::String(text) => Some(vec![text]),
            Value::Array(values) => values.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let texts = texts.ok_or_else(|| bad("sub-claims", WRONG))?;
        let words = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(str::to_owned).collect();
        if key.is_empty() || words.is_empty() {
            return Err(bad("sub-claims", "every claim needs a name and a value"));
        }
        if out.len() >= MOST_CLAIMS || words.len() > MOST_CLAIMS {
            return Err(bad("sub-claims", format!("at most {MOST_CLAIMS} claims, and as many values of each")));
        }
        out.insert(key.clone(), words);
    }
    Ok(out)
}

/// The association that is meant, and its role, for a caller who may change that.
fn association(ctx: &Ctx<'_>, change: &Change<'_>, params: &Params) -> Result<(Role, RoleAssoc), ApiError> {
    let id = params.text("assoc-id").ok_or_else(|| bad("assoc-id", "is required"))?;
    let pairs = change.roles.iter().flat_map(|role| role.assocs.iter().map(move |assoc| (role, assoc)));
    let Some((role, assoc)) = pairs.into_iter().find(|(_, assoc)| assoc.id == id) else {
        // That there is none is told to those only who may know of all.
        ctx.require_admin()?;
        return Err(ctx.not_found(&format!("association {id}")));
    };
    change.require(ROLES, &role.name, "update")?;
    Ok((role.clone(), assoc.clone()))
}

/// Changes the claims an association asks for.
///
/// # Errors
/// The caller may not or has less than the role, there is no such association, or it makes the last administrator.
pub async fn update_assoc(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let mut change = Change::open(ctx).await?;
    let (role, assoc) = association(ctx, &change, params)?;
    change.require(METHODS, &assoc.auth_method_name, "update")?;
    change.may_grant(&role.rules)?;
    change.may_lift(&role.rules)?;
    let claims = if params.has("sub-claims") { sub_claims(params)? } else { assoc.sub_claims };
    let case_sensitive = params.flag("case-sensitive").unwrap_or(assoc.case_sensitive);
    roles::update_assoc(&mut change.tx, ctx.id(), &assoc.id, &claims, case_sensitive).await?;
    change.commit(&role.name, assoc.auth_method_name.as_str()).await?;
    Ok(json!({}))
}

/// Takes a role from an auth method.
///
/// # Errors
/// The caller may not or would lift a denial, there is no such association, or it makes the last administrator.
pub async fn delete_assoc(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let mut change = Change::open(ctx).await?;
    let (role, assoc) = association(ctx, &change, params)?;
    change.may_lift(&role.rules)?;
    roles::delete_assoc(&mut change.tx, ctx.id(), &assoc.id).await?;
    change.commit(&role.name, assoc.auth_method_name.as_str()).await?;
    Ok(json!({}))
}

/// Says what the caller may do on a path.
///
/// # Errors
/// The type is not known.
pub fn permissions(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let path = rooted(params.text("path").ok_or_else(|| bad("path", "is required"))?);
    let asked = params.text("type").unwrap_or_default().replace('_', "-").to_lowercase();
    let rule_type = match asked.trim_end_matches("-rule") {
        "item" | "items" => ITEMS,
        "target" | "targets" => TARGETS,
        "role" | "roles" => ROLES,
        "auth-method" | "auth-methods" | "am" => METHODS,
        "audit" | "search" => AUDIT,
        "analytics" => "reports-rule",
        other => rules::RULE_TYPES
            .iter()
            .find(|known| known.trim_end_matches("-rule") == other)
            .ok_or_else(|| bad("type", "must be item, target, role, auth-method or another rule type"))?,
    };
    Ok(json!({ "client_permissions": ctx.capabilities(rule_type, &path) }))
}
