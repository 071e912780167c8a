//! Auth methods: the identities that can sign in. A key is shown once, and only its hash is stored.

use std::net::IpAddr;

use serde_json::{Value, json};
use volvelle_domain::ItemPath;
use volvelle_domain::identity::{AuthLimits, AuthMethod};
use volvelle_domain::ids::AuthMethodId;
use volvelle_store::{StoreError, auth_methods, tokens};

use super::grants::Change;
use super::{Answer, auth};
use crate::credentials;
use crate::ctx::{Ctx, METHODS};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// Auth methods of one page.
const PAGE: u32 = 1000;
/// Most entries of a list among the parameters.
const MOST: usize = 100;

/// Makes an API key.
///
/// # Errors
/// The caller may not, the name is taken, or a parameter is wrong.
pub async fn create(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let mut change = Change::begin(ctx, METHODS, &name, "create").await?;
    let entropy = ctx.app.engine.parts().entropy.as_ref();
    let key = credentials::access_key(entropy);
    let method = AuthMethod {
        account: ctx.id().clone(),
        id: AuthMethodId(0),
        access_id: credentials::access_id(entropy),
        name,
        kind: "api_key".to_owned(),
        description: params.changed_text("description").unwrap_or_default().to_owned(),
        key_hash: credentials::hash(key.expose()),
        key_changed_at: ctx.now,
        limits: limits(ctx, &AuthLimits::default(), params)?,
        delete_protection: params.is("delete_protection"),
        created_at: ctx.now,
        modified_at: ctx.now,
    };
    auth_methods::add(&mut change.tx, &method).await.map_err(|error| taken(error, &method.name))?;
    change.commit(&method.name, &method.access_id.0).await?;
    let key = key.expose_str().unwrap_or_default();
    Ok(json!({"name": method.name.as_str(), "access_id": method.access_id.0, "access_key": key}))
}

fn taken(error: StoreError, name: &ItemPath) -> ApiError {
    match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("auth method {name}")),
        other => other.into(),
    }
}

/// The limits after the parameters were applied to them.
fn limits(ctx: &Ctx<'_>, before: &AuthLimits, params: &Params) -> Result<AuthLimits, ApiError> {
    let mut after = before.clone();
    match params.int("access-expires") {
        Some(at @ 0..) => after.access_expires = at,
        Some(_) => return Err(bad("access-expires", "is a time in unix seconds, or 0 for never")),
        None => {}
    }
    let settings = &ctx.account().settings;
    match params.int("jwt-ttl") {
        Some(minutes) if minutes == 0 || (settings.jwt_ttl_min..=settings.jwt_ttl_max).contains(&minutes) => {
            after.jwt_ttl = minutes;
        }
        Some(_) => {
            let (least, most) = (settings.jwt_ttl_min, settings.jwt_ttl_max);
            return Err(bad(
                "jwt-ttl",
                format!("must be between {least} and {most} minutes, or 0 for the account's default"),
            ));
        }
        None => {}
    }
    after.force_sub_claims = params.flag("force-sub-claims").unwrap_or(after.force_sub_claims);
    for (name, kept) in [
        ("bound-ips", &mut after.bound_ips),
        ("gw-bound-ips", &mut after.gw_bound_ips),
        ("audit-logs-claims", &mut after.audit_logs_claims),
        ("allowed-client-type", &mut after.allowed_client_type),
        ("product-type", &mut after.product_type),
        ("expiration-event-in", &mut after.expiration_event_in),
    ] {
        if params.has(name) {
            *kept = words(params, name)?;
        }
    }
    networks("bound-ips", &after.bound_ips)?;
    networks("gw-bound-ips", &after.gw_bound_ips)?;
    Ok(after)
}

/// A list whose entries may again be lists, separated by commas.
fn words(params: &Params, name: &str) -> Result<Vec<String>, ApiError> {
    let given = params.list(name);
    let words = given.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_owned).collect();
    if words.len() > MOST { Err(bad(name, format!("at most {MOST} entries"))) } else { Ok(words) }
}

fn networks(param: &str, networks: &[String]) -> Result<(), ApiError> {
    match networks.iter().find(|network| !is_network(network)) {
        Some(wrong) => Err(bad(param, format!("'{wrong}' is no network; write it like 10.1.0.0/16"))),
        None => Ok(()),
    }
}

fn is_network(text: &str) -> bool {
    let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
    let Ok(base) = base.parse::<IpAddr>() else { return false };
    let width = if base.is_ipv4() { 32_u8 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= width))
}

/// Changes the settings of an API key.
///
/// # Errors
/// The caller may not or has less than the identity, there is no such auth method, or a parameter is wrong.
pub async fn update(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let mut change = Change::begin(ctx, METHODS, &name, "update").await?;
    let before = change.method(&name).await?;
    let mut method = before.clone();
    method.limits = limits(ctx, &before.limits, params)?;
    if let Some(text) = params.changed_text("description") {
        text.clone_into(&mut method.description);
    }
    method.delete_protection = params.flag("delete_protection").unwrap_or(method.delete_protection);
    if let Some(to) = params.opt_path("new-name")? {
        change.require(METHODS, &to, "create")?;
        method.name = to;
    }
    if method.limits != before.limits {
        change.may_impersonate(method.id)?;
    }
    if method.id == ctx.caller.method.id {
        still_admitted(ctx, &method.limits)?;
    }
    method.modified_at = ctx.now;
    auth_methods::update(&mut change.tx, &method).await.map_err(|error| taken(error, &method.name))?;
    let detail = if method.name == name { String::new() } else { format!("renamed to {}", method.name) };
    change.commit(&name, &detail).await?;
    Ok(json!({ "name": method.name.as_str() }))
}

/// Nobody locks himself out by a slip.
fn still_admitted(ctx: &Ctx<'_>, limits: &AuthLimits) -> Result<(), ApiError> {
    let here = ctx.remote.parse::<IpAddr>().ok();
    let inside = |here: IpAddr| limits.bound_ips.iter().any(|network| auth::within(network, here));
    if limits.bound_ips.is_empty() || here.is_none_or(inside) {
        return Ok(());
    }
    Err(bad("bound-ips", format!("would shut out {}, from where you call; add it", ctx.remote)))
}

/// Shows an auth method.
///
/// # Errors
/// The caller may not, or there is no such auth method.
pub async fn get(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    ctx.require(METHODS, name.as_str(), "list")?;
    let mut tx = ctx.app.store.read().await?;
    let method = auth_methods::find_by_name(&mut tx, ctx.id(), &name).await?;
    let method = method.ok_or_else(|| ctx.not_found(&format!("auth method {name}")))?;
    Ok(shown(ctx, &method))
}

fn shown(ctx: &Ctx<'_>, method: &AuthMethod) -> Value {
    let permissions = ctx.capabilities(METHODS, method.name.as_str());
    shape::identity::auth_method(method, ctx.account(), &ctx.view.roles, permissions)
}

/// Lists auth methods the caller may know of, by name.
///
/// # Errors
/// The store failed.
pub async fn list(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let filter = params.text("filter").unwrap_or_default();
    let kinds: Vec<String> = params.list("type").iter().map(|kind| kind.replace('-', "_").to_lowercase()).collect();
    let mut tx = ctx.app.store.read().await?;
    let after = params.text("pagination-token").unwrap_or_default();
    let page = auth_methods::list(&mut tx, ctx.id(), after, PAGE).await?;
    let full = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
    let next = page.last().filter(|_| full).map(|last| last.name.to_string()).unwrap_or_default();
    let wanted = |method: &&AuthMethod| {
        method.name.as_str().contains(filter)
            && (kinds.is_empty() || kinds.contains(&method.kind))
            && ctx.may(METHODS, method.name.as_str(), "list")
    };
    let methods: Vec<Value> = page.iter().filter(wanted).map(|method| shown(ctx, method)).collect();
    Ok(json!({"auth_methods": methods, "next_page": next}))
}

/// Deletes an auth method with its tokens and associations.
///
/// # Errors
/// The caller may not or is it himself, there is no such auth method, it is protected, or it is the last administrator.
pub async fn delete(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let mut change = Change::begin(ctx, METHODS, &name, "delete").await?;
    let method = change.method(&name).await?;
    if method.delete_protection {
        let text = format!("auth method {name} is protected from deletion; switch delete_protection off first");
        return Err(ApiError::Conflict(text));
    }
    if method.id == ctx.caller.method.id {
        let text = format!("auth method {name} is your own; delete it with another one");
        return Err(ApiError::Conflict(text));
    }
    auth_methods::remove(&mut change.tx, ctx.id(), method.id).await?;
    change.commit(&name, &method.access_id.0).await?;
    Ok(json!({ "name": name.as_str() }))
}

/// Replaces the access key; the old one and all tokens end at once.
///
/// # Errors
/// The caller may not or has less than the identity, or there is no such auth method.
pub async fn reset(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let mut change = Change::begin(ctx, METHODS, &name, "update").await?;
    let method = change.method(&name).await?;
    // Whoever gets the key can do what the identity can.
    if method.id != ctx.caller.method.id {
        change.may_impersonate(method.id)?;
    }
    let key = credentials::access_key(ctx.app.engine.parts().entropy.as_ref());
    let hash = credentials::hash(key.expose());
    auth_methods::set_key_hash(&mut change.tx, (ctx.id(), method.id), &hash, ctx.now).await?;
    tokens::revoke_all(&mut change.tx, ctx.id(), method.id).await?;
    change.commit(&name, &method.access_id.0).await?;
    Ok(json!({ "access_key": key.expose_str().unwrap_or_default() }))
}

#[cfg(test)]
mod tests {
    use super::is_network;

    #[test]
    fn networks_are_told_from_nonsense() {
        for right in ["10.1.2.3", "10.1.0.0/16", "0.0.0.0/0", "::1", "fd00::/8", "1.1.1.0/32"] {
            assert!(is_network(right), "{right}");
        }
        for wrong in ["", "10.1", "10.1.0.0/33", "10.1.0.0/", "10.1.0.0/-1", "fd00::/129", "host", "10.0.0.0/8/8"] {
            assert!(!is_network(wrong), "{wrong}");
        }
    }
}
