//! Protection keys: made, chosen for items and targets, and the customer's fragments that they are made with.
//!
//! No answer holds a fragment's value, and no operation gives it out: it is in the customer's file and nowhere else, so that an
//! access key, however privileged, does not take it away over the network.

use serde_json::{Value, json};
use volvelle_domain::ids::ItemId;
use volvelle_domain::item::{CustomerKey, Item, ItemKind, Protection};
use volvelle_holder::Presence;
use volvelle_store::keys::CustomerUse;
use volvelle_store::{StoreError, Tx, items, keys};

use super::{Answer, settings};
use crate::ctx::{Ctx, ITEMS};
use crate::error::ApiError;
use crate::params::{Params, bad};

/// The one algorithm, by its wire name; also the `item_type` of a key.
pub const ALGORITHM: &str = "AES256GCM";
/// The name of the account's own key in parameters.
const DEFAULT: &str = "Default";

/// Makes a protection key.
///
/// # Errors
/// The caller may not, the name is taken, the algorithm is another one, or the fragment is not here.
pub async fn create(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    ctx.require(ITEMS, name.as_str(), "create")?;
    match params.text("alg").unwrap_or_default() {
        ALGORITHM => {}
        other if other.starts_with("AES") => {
            return Err(bad("alg", format!("values are sealed with {ALGORITHM} only; ask for that")));
        }
        _ => {
            return Err(bad(
                "alg",
                format!("must be {ALGORITHM}: keys seal values here, and do not sign or encrypt anything else"),
            ));
        }
    }
    if params.is("auto-rotate") {
        return Err(bad("auto-rotate", "must be left out: every write has a key of its own already"));
    }
    let mut item = settings::new_item(ctx, name, ItemKind::ProtectionKey);
    (item.current_version, item.last_version) = (1, 1);
    settings::common(&mut item, params, ctx.parameter_names())?;
    item.tags.extend(params.list("tag"));
    let mut tx = ctx.app.store.begin().await?;
    let customer = match params.text("customer-frg-id") {
        Some(id) => Some(fragment(ctx, &mut tx, id).await?),
        None => None,
    };
    let detail = customer.as_ref().map(|customer| format!("customer fragment {}", customer.fragment));
    item.protection = Some(Protection { key: ItemId(0), customer });
    items::add(&mut tx, &item).await.map_err(|error| match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("item {}", item.name)),
        other => other.into(),
    })?;
    ctx.commit(tx, item.name.as_str(), &detail.unwrap_or_default()).await?;
    let status = ctx.app.vault.quorum().status().await;
    let results: Vec<u16> = status.iter().map(|holder| if holder.state == "up" { 200 } else { 503 }).collect();
    Ok(json!({ "fragment_results": results }))
}

/// The customer's fragment of that id; it must be the one that other keys of this name were made with.
async fn fragment(ctx: &Ctx<'_>, tx: &mut Tx, id: &str) -> Result<CustomerKey, ApiError> {
    let held = ctx.app.vault.quorum().customer().iter().find(|held| held.id == id).ok_or_else(|| {
        let hint = "gateway-list-customer-fragments lists those it has";
        bad("customer-frg-id", format!("this gateway has no such customer fragment; {hint}"))
    })?;
    let customer = CustomerKey { fragment: held.id.clone(), check: held.check.clone() };
    let known = keys::with_customer(tx).await?;
    if known.iter().any(|key| key.customer.fragment == id && key.customer != customer) {
        return Err(ApiError::Conflict(format!(
            "the customer fragment {id} of this gateway is not the one that an older key was made with"
        )));
    }
    Ok(customer)
}

/// The key that one of these parameters chooses; `before` if none does.
///
/// # Errors
/// There is no such key, it is no key, or the caller may not use it.
pub async fn chosen(
    ctx: &Ctx<'_>,
    params: &Params,
    names: &[&str],
    before: Option<&Protection>,
) -> Result<Option<Protection>, ApiError> {
    let Some((name, given)) = names.iter().find_map(|name| Some((*name, params.text(name)?))) else {
        return Ok(before.cloned());
    };
    if given == DEFAULT {
        return Ok(None);
    }
    let path = params.path(name)?;
    let mut tx = ctx.app.store.read().await?;
    let found = items::find(&mut tx, ctx.id(), &path).await?;
    drop(tx);
    let same = |item: &Item| before.is_some_and(|before| before.key == item.id);
    if !found.as_ref().is_some_and(same) {
        ctx.require(ITEMS, path.as_str(), "read")?;
    }
    let item = found.ok_or_else(|| ctx.not_found(&format!("item {path}")))?;
    if item.kind != ItemKind::ProtectionKey {
        return Err(bad(name, format!("{path} is no protection key; make one with create-dfc-key")));
    }
    Ok(Some(Protection { key: item.id, customer: Protection::customer(item.protection.as_ref()).cloned() }))
}

/// Refuses the deletion of a key that something is sealed with.
///
/// # Errors
/// Something is.
pub async fn check_unused(ctx: &Ctx<'_>, tx: &mut Tx, item: &Item) -> Result<(), ApiError> {
    if item.kind != ItemKind::ProtectionKey {
        return Ok(());
    }
    match keys::sealed_with(tx, ctx.id(), item.id).await? {
        (0, 0) => Ok(()),
        (items, targets) => Err(ApiError::Conflict(format!(
            "{items} items and {targets} targets are sealed with {}; give them another key first",
            item.name
        ))),
    }
}

/// The name of the key that something is sealed with; `None` for the account's own.
///
/// # Errors
/// The store failed.
pub async fn name_of(ctx: &Ctx<'_>, tx: &mut Tx, protection: Option<&Protection>) -> Result<Option<String>, ApiError> {
    match protection.filter(|protection| protection.key.0 != 0) {
        Some(protection) => Ok(Some(items::load(tx, ctx.id(), protection.key).await?.name.to_string())),
        None => Ok(None),
    }
}

/// Lists the customer's fragments that this gateway has or should have, without their values.
///
/// # Errors
/// The caller is no administrator, or the store failed.
pub async fn list_fragments(ctx: &Ctx<'_>) -> Answer {
    ctx.require_admin()?;
    let mut tx = ctx.app.store.read().await?;
    let mut used = keys::with_customer(&mut tx).await?;
    drop(tx);
    used.retain(|key| key.account == *ctx.id());
    let held = ctx.app.vault.quorum().customer();
    let keys_of = |check: &str| -> Vec<&str> {
        used.iter().filter(|key| key.customer.check == check).map(|key| key.key.as_str()).collect()
    };
    let mut out: Vec<Value> = held
        .iter()
        .map(|one| {
            json!({"id": one.id, "name": one.name, "description": one.description, "state": "present",
                "kept_in": one.kept_in(), "protection_keys": keys_of(&one.check)})
        })
        .collect();
    out.extend(absent(ctx, &used));
    Ok(json!({ "customer_fragments": out }))
}

/// The fragments that keys of the account need and that this gateway has not got, by keys the caller may know of.
pub(super) fn absent(ctx: &Ctx<'_>, used: &[CustomerUse]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let known = |key: &&CustomerUse| key.account == *ctx.id() && ctx.may(ITEMS, key.key.as_str(), "list");
    for key in used.iter().filter(known) {
        let protection = Protection { key: ItemId(0), customer: Some(key.customer.clone()) };
        let presence = ctx.app.vault.presence(Some(&protection)).filter(|presence| *presence != Presence::Present);
        let Some(presence) = presence else { continue };
        let name = Value::from(key.key.as_str());
        let known = out.iter_mut().find(|one| one["id"] == key.customer.fragment.as_str());
        match known.and_then(|one| one["protection_keys"].as_array_mut()) {
            Some(names) => names.push(name),
            None => {
                out.push(json!({"id": key.customer.fragment, "state": presence.as_str(), "protection_keys": [name]}))
            }
        }
    }
    out
}
