//! Reading the value of a rotated secret: the one operation that must be quick.
//!
//! What is remembered is used without asking the database; the transaction that writes the audit entry compares its stamp, and
//! if anything has changed since, the read is done again from the database. So an answer is never older than its audit entry.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::{Map, Value, json};
use volvelle_domain::item::{Item, ItemKind, ItemVersion, RotatorStatus, VersionState};
use volvelle_domain::{ItemPath, Secret};
use volvelle_rotation::SHARED;
use volvelle_store::{items, rotations, versions};

use crate::app::{App, Caller, Fresh, View, read, write};
use crate::ctx::{Ctx, ITEMS, unwritten};
use crate::error::ApiError;
use crate::ops::{auth, locks};
use crate::params::{Params, bad};
use crate::shape;
use crate::trail::{Basis, Noted, Written};

/// How long a read waits for a rotation that is between staged and done.
const PATIENCE: Duration = Duration::from_secs(2);
/// Times a read is begun again because something changed.
const TRIES: usize = 8;
/// Most items remembered per account.
const SHELF_SIZE: usize = 100_000;

/// An item with its current versions, ready to be opened.
pub struct Ready {
    item: Item,
    current: Arc<[ItemVersion]>,
    /// Whether a rotation is between staged and done.
    under_way: bool,
}

/// Items of one account at one stamp.
#[derive(Default)]
pub struct Shelf(RwLock<HashMap<String, Arc<Ready>>>);

/// Where a read takes the item from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// From memory, to be compared before the answer leaves.
    Shelf,
    /// From the database, after the call began: as current as anybody may ask for.
    Database,
}

/// Answers `rotated-secret-get-value`.
///
/// # Errors
/// The caller may not read it, there is no such secret or version, or it cannot be opened.
pub async fn value(app: &App, token: &Secret, from: &auth::From, params: &Params) -> Result<Value, ApiError> {
    let name = params.path(if params.has("names") { "names" } else { "name" })?;
    let mut waited = false;
    for attempt in 0..TRIES {
        let fresh = if attempt == 0 { Fresh::Remembered } else { Fresh::Checked };
        let (view, caller) = app.enter(token, fresh).await?;
        let remote = auth::admit(&caller.method, from, app.now())?;
        let ctx = Ctx::new(app, Arc::clone(&view), Arc::clone(&caller), remote, "rotated-secret-get-value");
        let source = if attempt == 0 { Source::Shelf } else { Source::Database };
        let outcome = answer(&ctx, (&view, source), &name, params, &mut waited).await;
        if let Ok(None) = outcome {
            continue;
        }
        let word = match &outcome {
            Ok(_) => "ok",
            Err(ApiError::Unauthorized { .. }) => "denied",
            Err(_) => "failed",
        };
        let entry = ctx.entry(name.as_str(), word, params.text("host").unwrap_or_default());
        let basis = match source {
            Source::Shelf => Basis::All(view.stamp),
            Source::Database => Basis::Rules(view.stamp.0),
        };
        let noted = Noted { account: view.account.id.clone(), entry, basis };
        if app.trail.commit(noted).await.map_err(unwritten)? == Written::Durable {
            return outcome.map(Option::unwrap_or_default);
        }
    }
    Err(ApiError::Conflict("it is being changed all the time; try again".to_owned()))
}

/// The answer; `None` means that a rotation was waited for and everything must be looked at again.
async fn answer(
    ctx: &Ctx<'_>,
    (view, source): (&View, Source),
    name: &ItemPath,
    params: &Params,
    waited: &mut bool,
) -> Result<Option<Value>, ApiError> {
    if !ctx.caller.is_known_reader(name.as_str()) {
        ctx.require(ITEMS, name.as_str(), "read")?;
        if view.timeless {
            ctx.caller.note_reader(name.as_str());
        }
    }
    let ready = match shelved(view, name).filter(|_| source == Source::Shelf) {
        Some(ready) => ready,
        None => Box::pin(load(ctx, view, name)).await?,
    };
    let item = &ready.item;
    if item.kind != ItemKind::RotatedSecret {
        return Err(bad("name", "it is no rotated secret; read it with get-secret-value"));
    }
    if !item.enabled {
        return Err(ApiError::Conflict(format!("{name} is disabled; enable it with set-item-state")));
    }
    let version: u32 = params.number("version")?.unwrap_or(0);
    if ready.under_way && !*waited && version == 0 {
        Box::pin(ctx.app.engine.settled(ctx.id(), item.id, PATIENCE)).await?;
        *waited = true;
        return Ok(None);
    }
    if (item.locking.on_read || item.locking.held.is_some()) && Box::pin(locks::on_read(ctx, item)).await? {
        return Ok(None);
    }
    let host = params.text("host");
    let kept = if version == 0 { Arc::clone(&ready.current) } else { Box::pin(older(ctx, item, version)).await? };
    let asked = |v: &&ItemVersion| host.is_none_or(|h| v.host == h || v.host.split(':').next() == Some(h));
    let chosen: Vec<&ItemVersion> = kept.iter().filter(asked).collect();
    if chosen.is_empty() {
        return Err(missing(ctx, name, version, host));
    }
    let value = opened(ctx, item, &chosen, host.is_some()).await?;
    Ok(Some(with_state(value, item)))
}

fn missing(ctx: &Ctx<'_>, name: &ItemPath, version: u32, host: Option<&str>) -> ApiError {
    match (version, host) {
        (0, None) => ApiError::Conflict(format!("{name} has no value yet; rotate it once with gateway-rotate-secret")),
        (0, Some(host)) => ctx.not_found(&format!("item {name} for host {host}")),
        (version, _) => ctx.not_found(&format!("item {name} version {version}")),
    }
}

async fn opened(ctx: &Ctx<'_>, item: &Item, chosen: &[&ItemVersion], one: bool) -> Result<Value, ApiError> {
    let mut hosts = Map::new();
    for version in chosen {
        let credential = ctx.app.vault.open_version(ctx.account(), item, version).await?;
        let value = Value::Object(credential.expose_json());
        if one || version.host.is_empty() {
            return Ok(json!({ "value": value }));
        }
        hosts.insert(version.host.clone(), value);
    }
    Ok(json!({"value": {"linked_hosts": hosts}}))
}

/// Says how far the value can be trusted.
fn with_state(mut value: Value, item: &Item) -> Value {
    if let (Some(rotator), Some(map)) = (&item.rotator, value.as_object_mut()) {
        map.insert("rotation_status".to_owned(), Value::from(shape::status(rotator.status)));
        if let Some(at) = rotator.last_verified_at {
            map.insert("last_verified_at".to_owned(), Value::from(shape::time(at)));
        }
        if let Some(at) = rotator.next_rotation_at {
            map.insert("next_rotation_at".to_owned(), Value::from(shape::time(at)));
        }
        if matches!(rotator.status, RotatorStatus::OutOfSync | RotatorStatus::RotationInDoubt) {
            let text = "the target may have another value; run rotated-secret verify or repair";
            map.insert("warning".to_owned(), Value::from(text));
        }
    }
    value
}

fn shelved(view: &View, name: &ItemPath) -> Option<Arc<Ready>> {
    read(&view.shelf.0).get(name.as_str()).cloned()
}

async fn load(ctx: &Ctx<'_>, view: &View, name: &ItemPath) -> Result<Arc<Ready>, ApiError> {
    let mut tx = ctx.app.store.read().await?;
    let item = items::find(&mut tx, ctx.id(), name).await?.ok_or_else(|| ctx.not_found(&format!("item {name}")))?;
    let mut current = versions::current_of(&mut tx, ctx.id(), item.id).await?;
    current.retain(|version| version.host != SHARED);
    current.sort_by(|a, b| a.host.cmp(&b.host));
    let open = rotations::open_of(&mut tx, ctx.id(), item.id).await?;
    let under_way = open.iter().any(|rotation| {
        use volvelle_domain::rotation::Stage as S;
        matches!(rotation.state.stage, S::Staged | S::Applied | S::Verified | S::InDoubt)
    });
    let ready = Arc::new(Ready { item, current: current.into(), under_way });
    let mut shelf = write(&view.shelf.0);
    if shelf.len() >= SHELF_SIZE {
        shelf.clear();
    }
    shelf.insert(name.as_str().to_owned(), Arc::clone(&ready));
    Ok(ready)
}

async fn older(ctx: &Ctx<'_>, item: &Item, version: u32) -> Result<Arc<[ItemVersion]>, ApiError> {
    let mut tx = ctx.app.store.read().await?;
    let mut kept = versions::list_item(&mut tx, ctx.id(), item.id).await?;
    kept.retain(|v| v.version == version && v.host != SHARED && v.state != VersionState::Rejected);
    Ok(kept.into())
}

/// Whether `caller` is whom the lock belongs to.
#[must_use]
pub fn holds(item: &Item, caller: &Caller) -> bool {
    item.locking.held.as_ref().is_some_and(|lock| lock.by == caller.method.access_id.0)
}
