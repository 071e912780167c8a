//! Static secrets: values that people set.

use serde_json::{Map, Value, json};
use volvelle_domain::ids::ItemId;
use volvelle_domain::item::{Item, ItemKind, ItemVersion, VersionState};
use volvelle_domain::{Credential, Secret};
use volvelle_store::versions::Slot;
use volvelle_store::{StoreError, accounts, items, versions};

use super::{Answer, keys, locks, rotated_update, settings};
use crate::ctx::{Ctx, ITEMS};
use crate::error::ApiError;
use crate::params::{Params, bad};

/// Parameters that choose the protection key.
const KEY: &[&str] = &["protection_key", "key"];
/// Field of the sealed credential that holds the value.
const VALUE: &str = "value";
/// Most secrets read by one call.
const MOST: usize = 100;

/// Makes a static secret.
///
/// # Errors
/// The caller may not, the name is taken, or a parameter is wrong.
pub async fn create(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    ctx.require(ITEMS, name.as_str(), "create")?;
    let value = params.secret("value").ok_or_else(|| bad("value", "is required"))?;
    let mut item = settings::new_item(ctx, name, ItemKind::StaticSecret);
    item.protection = keys::chosen(ctx, params, KEY, None).await?;
    (item.current_version, item.last_version) = (1, 1);
    settings::common(&mut item, params, ctx.parameter_names())?;
    if let Some(kind) = params.text("type") {
        item.extras.insert("item_sub_type".to_owned(), Value::from(kind));
    }
    let version = sealed(ctx, &item, 1, value, "create").await?;
    let mut tx = ctx.app.store.begin().await?;
    let id = items::add(&mut tx, &item).await.map_err(|error| match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("item {}", item.name)),
        other => other.into(),
    })?;
    versions::add(&mut tx, &slot(ctx, id), &version).await?;
    ctx.commit(tx, item.name.as_str(), "").await?;
    Ok(json!({ "name": item.name.as_str() }))
}

fn slot(ctx: &Ctx<'_>, item: ItemId) -> Slot {
    Slot { account: ctx.id().clone(), item, host: String::new() }
}

async fn sealed(ctx: &Ctx<'_>, item: &Item, number: u32, value: Secret, why: &str) -> Result<ItemVersion, ApiError> {
    let credential = Credential::default().with(VALUE, value);
    let sealed = ctx.app.vault.seal_version(ctx.account(), item, ("", number), &credential).await?;
    Ok(ItemVersion {
        version: number,
        host: String::new(),
        state: VersionState::Current,
        sealed,
        created_at: ctx.now,
        created_by: ctx.who().to_owned(),
        reason: why.to_owned(),
        verified_at: None,
    })
}

/// Why an item of this kind has no value that people set.
const fn no_static(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::ProtectionKey => "it is a protection key and has no value",
        _ => "it is a rotated secret; its value is changed by rotating, and read with rotated-secret-get-value",
    }
}

async fn static_item(ctx: &Ctx<'_>, params: &Params, capability: &str) -> Result<Item, ApiError> {
    let item = ctx.item(&params.path("name")?, capability).await?;
    if item.kind == ItemKind::StaticSecret {
        return Ok(item);
    }
    Err(bad("name", no_static(item.kind)))
}

/// Reads static secrets: an object of values by name.
///
/// # Errors
/// The caller may not read one of them, or it does not exist.
pub async fn value(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let names = params.list("names");
    if names.len() > MOST {
        return Err(bad("names", format!("at most {MOST} at a time")));
    }
    let wanted: u32 = params.number("version")?.unwrap_or(0);
    let mut out = Map::new();
    for name in names {
        let path = volvelle_domain::ItemPath::parse(&name).map_err(|error| bad("names", error.to_string()))?;
        let item = ctx.item(&path, "read").await?;
        if item.kind != ItemKind::StaticSecret {
            return Err(bad("names", format!("{path}: {}", no_static(item.kind))));
        }
        if !item.enabled {
            return Err(ApiError::Conflict(format!("{path} is disabled; enable it with set-item-state")));
        }
        // What cannot be read here is not checked out either.
        ctx.app.vault.require(item.protection.as_ref())?;
        locks::on_read(ctx, &item).await?;
        let number = if wanted == 0 { item.current_version } else { wanted };
        let mut tx = ctx.app.store.read().await?;
        let version = versions::find(&mut tx, &slot(ctx, item.id), number).await?;
        drop(tx);
        let version = version.ok_or_else(|| ctx.not_found(&format!("item {path} version {number}")))?;
        let credential = ctx.app.vault.open_version(ctx.account(), &item, &version).await?;
        out.insert(name, Value::from(credential.expose_text(VALUE).unwrap_or_default()));
    }
    Ok(Value::Object(out))
}

/// Writes a new value.
///
/// # Errors
/// The caller may not, there is no such secret, or somebody changed it since `last-version`.
pub async fn update(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let item = static_item(ctx, params, "update").await?;
    locks::check(ctx, &item, "update")?;
    let value = params.secret("value").ok_or_else(|| bad("value", "is required"))?;
    if params.int("last-version").is_some_and(|seen| seen > 0 && seen != i64::from(item.last_version)) {
        return Err(ApiError::Conflict(format!("the newest version of {} is {}", item.name, item.last_version)));
    }
    let settings = &ctx.account().settings;
    let keep = settings.force_new_versions || params.flag("keep-prev-version").unwrap_or(settings.default_versioning);
    let item = rekeyed(ctx, item, params).await?;
    replace(ctx, &item, value, ("update", keep)).await?;
    Ok(json!({ "name": item.name.as_str() }))
}

/// Makes the value of an older version the newest one.
///
/// # Errors
/// The caller may not, or there is no such secret or version.
pub async fn rollback(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let item = static_item(ctx, params, "update").await?;
    locks::check(ctx, &item, "update")?;
    let wanted: u32 = params.number("old-version")?.unwrap_or(0);
    let mut tx = ctx.app.store.read().await?;
    let version = versions::find(&mut tx, &slot(ctx, item.id), wanted).await?;
    drop(tx);
    let version = version.ok_or_else(|| ctx.not_found(&format!("item {} version {wanted}", item.name)))?;
    let credential = ctx.app.vault.open_version(ctx.account(), &item, &version).await?;
    let value = credential.field(VALUE).cloned().unwrap_or_else(|| Secret::from(""));
    let number = replace(ctx, &item, value, ("rollback", true)).await?;
    Ok(json!({"name": item.name.as_str(), "version": number}))
}

/// The item sealed with the key that was asked for.
async fn rekeyed(ctx: &Ctx<'_>, item: Item, params: &Params) -> Result<Item, ApiError> {
    let protection = keys::chosen(ctx, params, KEY, item.protection.as_ref()).await?;
    if protection == item.protection {
        return Ok(item);
    }
    let changed = Item { protection, modified_at: ctx.now, ..item.clone() };
    rotated_update::save(ctx, &item, changed).await?;
    ctx.item(&item.name, "update").await
}

async fn replace(ctx: &Ctx<'_>, item: &Item, value: Secret, (why, keep): (&str, bool)) -> Result<u32, ApiError> {
    let number = item.last_version + 1;
    let version = sealed(ctx, item, number, value, why).await?;
    let mut tx = ctx.app.store.begin().await?;
    let before = item;
    let mut item = items::lock(&mut tx, ctx.id(), item.id).await?;
    // A record is bound to name and key.
    let same = item.name == before.name && item.protection == before.protection;
    if item.last_version + 1 != number || !same {
        return Err(ApiError::Conflict(format!(
            "{} was changed by somebody else at the same time; try again",
            before.name
        )));
    }
    let slot = slot(ctx, item.id);
    versions::supersede(&mut tx, &slot, &version).await?;
    let account = accounts::find(&mut tx, ctx.id()).await?.ok_or(ApiError::Unauthenticated)?;
    let kept = if keep { item.max_versions.unwrap_or(account.settings.max_versions).max(1) } else { 1 };
    versions::prune(&mut tx, &slot, kept).await?;
    (item.current_version, item.last_version, item.modified_at) = (number, number, ctx.now);
    items::update(&mut tx, &item).await?;
    ctx.commit(tx, item.name.as_str(), why).await?;
    Ok(number)
}
