//! Signing in and tokens.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use volvelle_domain::Secret;
use volvelle_domain::account::Account;
use volvelle_domain::identity::{AuthMethod, SubClaims, Token};
use volvelle_domain::ids::{AccessId, Micros};
use volvelle_holder::authorization::forwarded;
use volvelle_store::{accounts, audit, auth_methods, tokens};

use crate::app::App;
use crate::credentials;
use crate::ctx::{AUDIT, Ctx, ITEMS, METHODS, ROLES, TARGETS, unwritten};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::server::Origin;
use crate::shape;
use crate::trail::{Basis, Noted};

/// Gives a token for an access id and its key.
///
/// # Errors
/// The key is wrong, the method has expired or may not be used from here, or guessing is being slowed.
pub async fn sign_in(app: &App, from: &Origin, params: &Params) -> Result<Value, ApiError> {
    sign_in_for(app, from, params, Use::Client).await
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A client, which asks for another one when it has ended.
    Client,
    /// A session of a person, of at most so many minutes.
    Session(i64),
}

/// The same for a given use.
///
/// # Errors
/// As [`sign_in`].
pub async fn sign_in_for(app: &App, from: &Origin, params: &Params, purpose: Use) -> Result<Value, ApiError> {
    let kind = params.text("access-type").unwrap_or("access_key");
    if !matches!(kind, "access_key" | "api_key") {
        return Err(bad("access-type", "this gateway knows access_key only"));
    }
    let id = params.text("access-id").ok_or_else(|| bad("access-id", "is required"))?;
    let key = params.secret("access-key").ok_or_else(|| bad("access-key", "is required"))?;
    let now = app.now();
    app.throttle.check(id, from.remote.address, now).map_err(ApiError::SlowDown)?;
    let mut tx = app.store.read().await?;
    let method = auth_methods::find_by_access_id(&mut tx, &AccessId(id.to_owned())).await?;
    drop(tx);
    // An unknown id costs the same comparison as a known one.
    let stored = method.as_ref().map_or([0; 32], |method| method.key_hash);
    let right = credentials::matches(&stored, &key);
    let admitted = method.as_ref().map_or(Err(ApiError::Unauthenticated), |method| admit(method, from, now));
    let (Some(method), true, Ok(remote)) = (method.as_ref(), right, admitted) else {
        app.throttle.failed(id, from.remote.address, now);
        tracing::info!(remote = %from.remote.shown, "a sign-in was refused");
        if let Some(method) = &method {
            let line = entry(method, &from.remote.shown, "denied", now).line();
            let noted = Noted { account: method.account.clone(), line, basis: Basis::Nothing };
            app.trail.commit(noted).await.map_err(unwritten)?;
        }
        return Err(ApiError::Unauthenticated);
    };
    app.throttle.succeeded(id, from.remote.address);
    let own = params.secret("jwt");
    let (token, expires_at) = issue(app, method, (&remote, purpose), own.as_ref(), now).await?;
    let text = token.expose_str().unwrap_or_default();
    let shown = shape::time(expires_at);
    Ok(json!({
        "token": text,
        "expiration": shown,
        "creds": {"access_id": method.access_id.0, "token": text, "expiry": expires_at.0 / 1_000_000,
            "unique_id": "", "sub_claims": {}, "auth_creds": "", "uam_creds": "", "kfm_creds": "", "required_mfa": "",
            "csrf_token": ""},
        "complete_auth_link": "",
    }))
}

async fn issue(
    app: &App,
    method: &AuthMethod,
    (remote, purpose): (&str, Use),
    own: Option<&Secret>,
    now: Micros,
) -> Result<(Secret, Micros), ApiError> {
    let token = credentials::token(app.engine.parts().entropy.as_ref());
    let mut tx = app.store.begin().await?;
    let account = accounts::find(&mut tx, &method.account).await?.ok_or(ApiError::Unauthenticated)?;
    let minutes = match (method.limits.jwt_ttl, purpose) {
        (own @ 1.., _) => own,
        (_, Use::Client) => account.settings.jwt_ttl_default,
        (_, Use::Session(minutes)) => minutes,
    };
    let minutes = minutes.clamp(account.settings.jwt_ttl_min.max(1), account.settings.jwt_ttl_max.max(1));
    let expires_at = now.plus_seconds(minutes * 60);
    let stored = Token {
        hash: credentials::hash(token.expose()),
        account: account.id.clone(),
        auth_method: method.id,
        sub_claims: SubClaims::new(),
        issued_at: now,
        expires_at,
    };
    tokens::add(&mut tx, &stored).await?;
    if let Some(statement) = statement(app, &account, method, own, (now, expires_at))? {
        tokens::attach_statement(&mut tx, &stored.hash, &statement).await?;
    }
    let entry = entry(method, remote, "ok", now);
    audit::append(&mut tx, &account.id, &[entry]).await?;
    tx.commit().await?;
    Ok((token, expires_at))
}

/// What shows the holders that this client may ask: his own token of a provider, or what this gateway signs.
fn statement(
    app: &App,
    account: &Account,
    method: &AuthMethod,
    own: Option<&Secret>,
    (from, until): (Micros, Micros),
) -> Result<Option<Vec<u8>>, ApiError> {
    if let Some(own) = own {
        return forwarded(own.expose()).map(Some).map_err(|error| bad("jwt", error.to_string()));
    }
    let Some(signer) = app.signer.get() else { return Ok(None) };
    let seconds = |at: Micros| u64::try_from(at.0 / 1_000_000).unwrap_or(0);
    signer.sign(account.realm.0, &method.access_id.0, (seconds(from), seconds(until))).map(Some).map_err(|error| {
        tracing::error!(%error, "a client's authorization cannot be signed");
        ApiError::Internal
    })
}

fn entry(method: &AuthMethod, remote: &str, outcome: &str, now: Micros) -> audit::Entry {
    audit::Entry {
        at: now,
        actor: method.access_id.0.clone(),
        action: "authenticate".to_owned(),
        object: method.name.to_string(),
        outcome: outcome.to_owned(),
        remote: remote.to_owned(),
        detail: String::new(),
        request: String::new(),
    }
}

/// The address that counts, if the method may be used from there at this time.
///
/// # Errors
/// It has expired, or may not be used from there.
pub fn admit(method: &AuthMethod, from: &Origin, now: Micros) -> Result<Arc<str>, ApiError> {
    let limits = &method.limits;
    if limits.access_expires > 0 && now.0 / 1_000_000 >= limits.access_expires {
        return Err(ApiError::Unauthenticated);
    }
    let mut address = from.remote.address;
    // Anybody can write this header: it is believed only from the gateways that the method names.
    if !limits.gw_bound_ips.is_empty() && limits.gw_bound_ips.iter().any(|net| within(net, from.remote.address)) {
        let told = from.forwarded_for.as_deref().and_then(|list| list.rsplit(',').next());
        address = told.and_then(|text| text.trim().parse().ok()).unwrap_or(from.remote.address);
    }
    if !limits.bound_ips.is_empty() && !limits.bound_ips.iter().any(|net| within(net, address)) {
        return Err(ApiError::Unauthenticated);
    }
    Ok(if address == from.remote.address { Arc::clone(&from.remote.shown) } else { address.to_string().into() })
}

/// Whether an address lies in a network written as CIDR or as one address. What cannot be read contains nothing.
#[must_use]
pub fn within(network: &str, address: IpAddr) -> bool {
    let (base, bits) = network.trim().split_once('/').map_or((network.trim(), None), |(base, bits)| (base, Some(bits)));
    let Ok(base) = base.parse::<IpAddr>() else { return false };
    let (base, address, width) = match (base, address.to_canonical()) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (u128::from(base.to_bits()), u128::from(address.to_bits()), 32_u32),
        (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    match bits.map_or(Ok(width), str::parse) {
        Ok(0) => true,
        Ok(bits) if bits <= width => (base ^ address) >> (width - bits) == 0,
        _ => false,
    }
}

/// Says that the token is valid, which the caller has just shown.
#[must_use]
pub fn validate(ctx: &Ctx<'_>) -> Value {
    let left = (ctx.caller.expires_at.0 - ctx.now.0) / 1_000_000;
    json!({"is_valid": true, "expiration": shape::time(ctx.caller.expires_at), "ttl": left, "last_rotate": "", "reason": "",
        "may": {"items": ctx.capabilities(ITEMS, "/"), "targets": ctx.capabilities(TARGETS, "/"),
            "roles": ctx.capabilities(ROLES, "/"), "identities": ctx.capabilities(METHODS, "/"),
            "audit": ctx.capabilities(AUDIT, "/")},
        "access_id": ctx.who(), "auth_method_name": ctx.caller.method.name.as_str(), "account_id": ctx.id().0})
}

/// Ends every token of the caller.
///
/// # Errors
/// The store failed.
pub async fn revoke_all(ctx: &Ctx<'_>) -> Result<Value, ApiError> {
    let mut tx = ctx.app.store.begin().await?;
    let revoked = tokens::revoke_all(&mut tx, ctx.id(), ctx.caller.method.id).await?;
    ctx.commit(tx, ctx.caller.method.name.as_str(), &format!("{revoked} tokens")).await?;
    Ok(json!({ "revoked": revoked }))
}

/// Ends the caller's token.
///
/// # Errors
/// The store failed.
pub async fn revoke(ctx: &Ctx<'_>) -> Result<Value, ApiError> {
    let mut tx = ctx.app.store.begin().await?;
    tokens::revoke(&mut tx, &ctx.caller.token_hash).await?;
    ctx.commit(tx, ctx.caller.method.name.as_str(), "").await?;
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn networks_contain_what_they_say() {
        let at = |text: &str| text.parse().expect("an address");
        assert!(within("10.1.0.0/16", at("10.1.2.3")));
        assert!(!within("10.1.0.0/16", at("10.2.2.3")));
        assert!(within("10.1.2.3", at("10.1.2.3")));
        assert!(within("10.1.2.0/24", at("::ffff:10.1.2.3")));
        assert!(within("0.0.0.0/0", at("1.2.3.4")));
        assert!(within("fd00::/8", at("fd12::1")));
        assert!(!within("fd00::/8", at("10.0.0.1")));
        assert!(!within("nonsense", at("10.0.0.1")));
        assert!(!within("10.0.0.0/33", at("10.0.0.0")));
    }
}
