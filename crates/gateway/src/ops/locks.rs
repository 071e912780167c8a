//! Checking items out and in.

use serde_json::json;
use volvelle_domain::item::{Item, Lock};
use volvelle_store::{accounts, audit, items};

use super::Answer;
use crate::ctx::{Ctx, ITEMS};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// Minutes a lock lives when nobody says.
const DEFAULT_MINUTES: u32 = 60;

/// Refuses what somebody else's lock forbids.
///
/// # Errors
/// The item is checked out by somebody else for this action.
pub fn check(ctx: &Ctx<'_>, item: &Item, action: &str) -> Result<(), ApiError> {
    match item.locking.held_at(ctx.now) {
        Some(lock) if lock.by != ctx.who() && lock.actions.iter().any(|a| a == action) => {
            Err(ApiError::Locked { by: lock.by.clone(), until: shape::time(lock.until) })
        }
        _ => Ok(()),
    }
}

/// Checks an item out on reading if it says so; whether that was done, so that everything must be looked at again.
///
/// # Errors
/// Somebody else has it.
pub async fn on_read(ctx: &Ctx<'_>, item: &Item) -> Result<bool, ApiError> {
    check(ctx, item, "read")?;
    if !item.locking.on_read || item.locking.held_at(ctx.now).is_some_and(|lock| lock.by == ctx.who()) {
        return Ok(false);
    }
    take(ctx, item, &["read".to_owned(), "update".to_owned()], None).await?;
    Ok(true)
}

async fn take(ctx: &Ctx<'_>, item: &Item, actions: &[String], minutes: Option<u32>) -> Result<(), ApiError> {
    let mut tx = ctx.app.store.begin().await?;
    let mut item = items::lock(&mut tx, ctx.id(), item.id).await?;
    actions.iter().try_for_each(|action| check(ctx, &item, action))?;
    let minutes = minutes.filter(|m| *m > 0).unwrap_or(item.locking.ttl_minutes);
    let minutes = if minutes == 0 { DEFAULT_MINUTES } else { minutes };
    let until = ctx.now.plus_seconds(i64::from(minutes) * 60);
    item.locking.held = Some(Lock { by: ctx.who().to_owned(), actions: actions.to_vec(), at: ctx.now, until });
    item.plan_lock_end();
    items::update(&mut tx, &item).await?;
    let entry = audit::Entry { action: "lock_item".to_owned(), ..ctx.entry(item.name.as_str(), "ok", "") };
    audit::append(&mut tx, ctx.id(), &[entry]).await?;
    Ok(tx.commit().await?)
}

/// Checks an item out.
///
/// # Errors
/// The caller may not, or somebody else has it.
pub async fn lock(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let item = ctx.item(&params.path("name")?, "update").await?;
    if !ctx.account().settings.item_locking_enabled {
        return Err(ApiError::Conflict("locking is off; turn it on with item-locking-enabled".to_owned()));
    }
    let mut actions: Vec<String> =
        params.text("actions").unwrap_or("read,update").split(',').map(|a| a.trim().to_owned()).collect();
    actions.retain(|action| !action.is_empty());
    if actions.is_empty() || actions.iter().any(|action| action != "read" && action != "update") {
        return Err(bad("actions", "is a list of read and update"));
    }
    take(ctx, &item, &actions, params.number("lock-ttl")?).await?;
    ctx.note();
    Ok(json!({}))
}

/// Checks an item in, and rotates it if it says so.
///
/// # Errors
/// The caller may not.
pub async fn unlock(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let item = ctx.item(&name, "read").await?;
    let own = item.locking.held.as_ref().is_some_and(|lock| lock.by == ctx.who());
    if !own {
        ctx.require(ITEMS, name.as_str(), "update")?;
    }
    let mut tx = ctx.app.store.begin().await?;
    let mut item = items::lock(&mut tx, ctx.id(), item.id).await?;
    let was_held = item.locking.held.take().is_some();
    items::update(&mut tx, &item).await?;
    ctx.commit(tx, name.as_str(), "").await?;
    if was_held && item.locking.rotate_on_unlock && item.rotator.is_some() {
        let mut tx = ctx.app.store.read().await?;
        let account = accounts::find(&mut tx, ctx.id()).await?.ok_or(ApiError::Unauthenticated)?;
        drop(tx);
        ctx.app.engine.enqueue(&account, &item, ("unlock", ctx.who()), None).await?;
    }
    Ok(json!({}))
}
