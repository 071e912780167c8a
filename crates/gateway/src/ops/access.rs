//! Who may do what, and why: the rules' own answer, taken apart.
//!
//! What must stay true: it names no role and no identity that the caller may not know of, and says so when it left some out.

use serde_json::{Value, json};
use volvelle_domain::ItemPath;
use volvelle_domain::identity::{AuthMethod, SubClaims};
use volvelle_domain::rules::{self, Asker, RULE_TYPES};
use volvelle_store::auth_methods;

use super::Answer;
use crate::ctx::{Ctx, ITEMS, METHODS, ROLES};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// Identities read at a time.
const CHUNK: u32 = 1000;
/// Identities of one answer.
const MOST: usize = 5000;

/// Says who may do what on a path.
///
/// # Errors
/// The caller may not list what is at the path, or a parameter is wrong.
pub async fn explain(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let path = params.text("path").ok_or_else(|| bad("path", "is required"))?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let rule_type = params.text("type").unwrap_or(ITEMS);
    let Some(rule_type) = RULE_TYPES.iter().find(|known| **known == rule_type) else {
        return Err(bad("type", "is no kind of rule"));
    };
    ctx.require(rule_type, &path, "list")?;
    let (mut identities, mut complete) = (Vec::new(), true);
    for method in methods(ctx, params.opt_path("am-name")?.as_ref()).await? {
        if !ctx.may(METHODS, method.name.as_str(), "list") {
            complete = false;
            continue;
        }
        let (told, whole) = one(ctx, &method, rule_type, &path);
        complete &= whole;
        if let Some(told) = told {
            identities.push(told);
        }
    }
    Ok(json!({"path": path, "type": rule_type, "identities": identities, "complete": complete}))
}

async fn methods(ctx: &Ctx<'_>, only: Option<&ItemPath>) -> Result<Vec<AuthMethod>, ApiError> {
    let mut tx = ctx.app.store.read().await?;
    if let Some(name) = only {
        let method = auth_methods::find_by_name(&mut tx, ctx.id(), name).await?;
        let known = method.filter(|method| ctx.may(METHODS, method.name.as_str(), "list"));
        return Ok(vec![known.ok_or_else(|| ctx.unauthorized())?]);
    }
    let (mut all, mut after) = (Vec::new(), String::new());
    while all.len() < MOST {
        let page = auth_methods::list(&mut tx, ctx.id(), &after, CHUNK).await?;
        let Some(last) = page.last() else { break };
        after = last.name.to_string();
        all.extend(page);
    }
    Ok(all)
}

/// What one identity may, with the rules behind it; nothing if no rule speaks of the path. Claims are those of an API key: none.
fn one(ctx: &Ctx<'_>, method: &AuthMethod, rule_type: &str, path: &str) -> (Option<Value>, bool) {
    let claims = SubClaims::new();
    let force_sub_claims = method.limits.force_sub_claims;
    let asker = Asker { auth_method: method.id, claims: &claims, force_sub_claims, now: ctx.now };
    let speaking = rules::speaking(&ctx.view.roles, &asker, rule_type, path);
    if speaking.is_empty() {
        return (None, true);
    }
    let known = |name: &ItemPath| ctx.may(ROLES, name.as_str(), "list");
    let complete = speaking.iter().all(|(role, _, _)| known(&role.name));
    let reasons: Vec<Value> = speaking
        .iter()
        .filter(|(role, _, _)| known(&role.name))
        .map(|(role, _, rule)| {
            json!({"role_name": role.name.as_str(), "rule_path": rule.path, "capabilities": rule.capabilities,
                "denies": rules::denies(rule), "ends_at": rules::ends_at(rule).map(shape::time)})
        })
        .collect();
    let may = rules::capabilities(&ctx.view.roles, &asker, rule_type, path);
    let expires = method.limits.access_expires;
    let told = json!({"auth_method_name": method.name.as_str(), "access_id": method.access_id.0, "capabilities": may,
        "reasons": reasons, "bound_ips": method.limits.bound_ips,
        "expired": expires > 0 && expires <= ctx.now.0 / 1_000_000});
    (Some(told), complete)
}
