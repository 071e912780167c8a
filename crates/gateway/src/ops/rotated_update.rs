//! Changing rotated secrets.
//!
//! Clients such as Terraform send back the value they read last. If a rotation has happened since, that value is an old one: a
//! value equal to any stored version never replaces a newer one.

use serde_json::{Value, json};
use volvelle_domain::Credential;
use volvelle_domain::connector::{ActingAs, TargetParams};
use volvelle_domain::item::{Item, Rotator};
use volvelle_domain::rotation::Stage;
use volvelle_domain::schedule;
use volvelle_rotation::{Resolved, Seat};
use volvelle_store::{StoreError, items, rotations, targets, versions};

use super::{Answer, keys, locks, parents, rotated, settings};
use crate::ctx::{Ctx, ITEMS};
use crate::error::ApiError;
use crate::params::{Params, bad};

/// Changes a rotated secret.
///
/// # Errors
/// The caller may not, there is no such secret, a parameter is wrong, or the value given does not open the account.
pub async fn update(ctx: &Ctx<'_>, kind: Option<&str>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let before = ctx.item(&name, "update").await?;
    locks::check(ctx, &before, "update")?;
    let rotator = before.rotator.clone().ok_or_else(|| bad("name", "it is no rotated secret"))?;
    let own = ctx.app.registry.get(&rotator.kind).map_or("", |connector| connector.declaration().secret_kind);
    if kind.is_some_and(|kind| kind != own) {
        return Err(bad("name", format!("it is a rotated secret of kind {own}")));
    }
    let mut item = before.clone();
    item.protection = keys::chosen(ctx, params, &["key"], before.protection.as_ref()).await?;
    settings::common(&mut item, params, ctx.parameter_names())?;
    let wanted = changed_rotator(ctx, &item, &rotator, params)?;
    if asks_for_test(&rotator, &wanted) && wanted.acting == ActingAs::Target {
        let mut tx = ctx.app.store.read().await?;
        let target = targets::load(&mut tx, ctx.id(), wanted.target).await?;
        drop(tx);
        parents::require_acting(ctx, &target).await?;
    }
    if let Some(to) = params.opt_path("new-name")? {
        ctx.require(ITEMS, to.as_str(), "create")?;
        item.name = to;
    }
    let told = told(ctx, &before, params).await?;
    if asks_for_test(&rotator, &wanted) {
        let seat = checked(ctx, &before, &wanted).await?;
        if !params.is("skip-dry-run") {
            ctx.app.engine.dry_run(&seat).await?;
        }
    }
    item.rotator = Some(wanted);
    item.modified_at = ctx.now;
    for (host, credential) in told.unwrap_or_default() {
        let entry = ctx.entry(name.as_str(), "ok", "value given");
        ctx.app.engine.take_over(ctx.account(), &before, &host, &credential, entry).await?;
    }
    save(ctx, &before, item).await
}

fn changed_rotator(ctx: &Ctx<'_>, item: &Item, before: &Rotator, params: &Params) -> Result<Rotator, ApiError> {
    let account = &ctx.account().settings;
    let mut after = before.clone();
    if params.text("rotator-type").is_some_and(|given| given != before.rotator_type) {
        return Err(bad("rotator-type", format!("cannot be changed; it is {}", before.rotator_type)));
    }
    if let Some((acting, spelling)) = rotated::acting(params)? {
        (after.acting, after.acting_spelling) = (acting, spelling);
    }
    if let Some(connector) = ctx.app.registry.get(&before.kind) {
        let kept = TargetParams { plain: before.params.clone(), ..TargetParams::default() };
        let declaration = connector.declaration();
        let changed = settings::changed(&kept, &declaration.secret, params);
        let user = |plain: &serde_json::Map<String, Value>| plain.get("rotated-username").cloned();
        if user(&changed.plain).is_some_and(|now| user(&kept.plain).is_some_and(|was| was != now)) {
            return Err(bad("rotated-username", "cannot be changed; make another secret for another account"));
        }
        // What the target holds too is one value for all its hosts.
        if declaration.rotator_type(&before.rotator_type).is_none_or(|own| own.feeds.is_empty()) {
            after.same_password = params.flag("same-password").unwrap_or(after.same_password);
        }
        after.params = changed.plain;
        if let Some(user) = user(&kept.plain) {
            after.params.insert("rotated-username".to_owned(), user);
        }
    }
    after.policy = settings::policy(before.policy.as_ref(), params, account)?;
    after.schedule = settings::schedule(&before.schedule, params, account)?;
    if after.schedule != before.schedule {
        let from = before.last_rotation_at.unwrap_or(ctx.now).max(ctx.now);
        let seed = u64::from(item.uid.0[0]) << 8 | u64::from(item.uid.0[1]);
        after.next_rotation_at = schedule::next_due(&after.schedule, from, seed).unwrap_or(None);
    }
    Ok(after)
}

fn asks_for_test(before: &Rotator, after: &Rotator) -> bool {
    before.acting != after.acting || before.params != after.params
}

/// The account as it would be rotated from now on, if its kind accepts that.
async fn checked(ctx: &Ctx<'_>, item: &Item, wanted: &Rotator) -> Result<Seat, ApiError> {
    let mut item = item.clone();
    item.rotator = Some(wanted.clone());
    let (parts, account) = (ctx.app.engine.parts(), ctx.account());
    let resolved = Resolved::load(parts, account, wanted.target).await?;
    let host = resolved.hosts().into_iter().next().unwrap_or_default();
    let mut tx = ctx.app.store.read().await?;
    let current = versions::current_of(&mut tx, ctx.id(), item.id).await?.into_iter().find(|v| v.host == host);
    drop(tx);
    let seat = Seat::new(parts, account, &item, &host, resolved)?;
    let credential = match &current {
        Some(version) => ctx.app.vault.open_version(account, &item, version).await?,
        None => seat.nameless()?,
    };
    let seat = seat.with_current(credential);
    seat.connector.check_secret(&seat.call(0, std::time::Duration::from_secs(30)), &seat.current)?;
    Ok(seat)
}

/// The values that were told and that no stored version has, by host; `None` if there is none.
///
/// # Errors
/// The value cannot be read, or stored ones cannot be opened.
pub async fn told(ctx: &Ctx<'_>, item: &Item, params: &Params) -> Result<Option<Vec<(String, Credential)>>, ApiError> {
    let rotator = item.rotator.as_ref().ok_or_else(|| bad("name", "it is no rotated secret"))?;
    let Some(connector) = ctx.app.registry.get(&rotator.kind) else { return Ok(None) };
    let mut given = settings::given_secret(connector.declaration(), params);
    if given.secret.is_empty() || rotator.rotator_type == "target" {
        return Ok(None);
    }
    given.plain = rotator.params.clone();
    let resolved = Resolved::load(ctx.app.engine.parts(), ctx.account(), rotator.target).await?;
    let mut tx = ctx.app.store.read().await?;
    let kept = versions::list_item(&mut tx, ctx.id(), item.id).await?;
    drop(tx);
    let mut out = Vec::new();
    for host in resolved.hosts() {
        let fresh = connector.initial_credential(&rotator.rotator_type, &resolved.params(&host), &given)?;
        let mut known = false;
        for version in kept.iter().filter(|version| version.host == host) {
            let stored = ctx.app.vault.open_version(ctx.account(), item, version).await?;
            known |= fresh.names().all(|name| match (fresh.field(name), stored.field(name)) {
                (Some(fresh), Some(stored)) => fresh.ct_eq(stored),
                (Some(_), None) => false,
                (None, _) => true,
            });
        }
        if !known {
            out.push((host, fresh));
        }
    }
    Ok((!out.is_empty()).then_some(out))
}

/// Writes a changed secret; under its new name or key every version is wrapped or sealed anew.
pub async fn save(ctx: &Ctx<'_>, before: &Item, mut item: Item) -> Answer {
    let mut tx = ctx.app.store.read().await?;
    let kept = versions::list_item(&mut tx, ctx.id(), item.id).await?;
    drop(tx);
    if item.protection != before.protection {
        ctx.app.vault.require(item.protection.as_ref())?;
    }
    let mut moved = Vec::new();
    let moves = item.name != before.name || item.protection != before.protection;
    if moves {
        for version in &kept {
            let sealed = ctx.app.vault.move_version(ctx.account(), (before, &item), version).await?;
            moved.push((version, sealed));
        }
    }
    let mut tx = ctx.app.store.begin().await?;
    let now = items::lock(&mut tx, ctx.id(), item.id).await?;
    if now.name != before.name || now.protection != before.protection {
        return Err(ApiError::Conflict("it was changed by somebody else at the same time; try again".to_owned()));
    }
    carry_over(&mut item, now, before);
    if moves {
        let open = rotations::open_of(&mut tx, ctx.id(), item.id).await?;
        let newest = versions::list_item(&mut tx, ctx.id(), item.id).await?;
        let busy = open.iter().any(|rotation| rotation.state.stage != Stage::Done);
        if busy || newest.len() != kept.len() || newest.iter().zip(&kept).any(|(a, b)| a.version != b.version) {
            let what = "it cannot get another name or key while it is being rotated; try again";
            return Err(ApiError::Conflict(what.to_owned()));
        }
        for (version, sealed) in &moved {
            let slot = versions::Slot { account: ctx.id().clone(), item: item.id, host: version.host.clone() };
            versions::replace_sealed(&mut tx, &slot, version.version, sealed).await?;
        }
    }
    items::update(&mut tx, &item).await.map_err(|error| match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("item {}", item.name)),
        other => other.into(),
    })?;
    ctx.commit(tx, before.name.as_str(), if item.protection == before.protection { "" } else { "another key" }).await?;
    Ok(json!({ "name": item.name.as_str() }))
}

/// What a rotation may have written meanwhile wins over what was read before.
fn carry_over(item: &mut Item, now: Item, before: &Item) {
    item.current_version = now.current_version;
    item.last_version = now.last_version;
    item.locking.held = now.locking.held;
    let was = before.rotator.as_ref().and_then(|rotator| rotator.next_rotation_at);
    if let (Some(wanted), Some(stored)) = (item.rotator.as_mut(), now.rotator) {
        wanted.last_rotation_at = stored.last_rotation_at;
        wanted.last_verified_at = stored.last_verified_at;
        wanted.status = stored.status;
        wanted.last_error = stored.last_error;
        wanted.failures = stored.failures;
        if wanted.next_rotation_at == was {
            wanted.next_rotation_at = stored.next_rotation_at;
        }
    }
}
