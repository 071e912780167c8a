//! Reading the value of a rotated secret: the one operation that must be quick.
//!
//! What is remembered is used without asking the database; the transaction that writes the audit entry compares its stamp, and
//! if anything has changed since, the read is done again from the database. So an answer is never older than its audit entry.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use foldhash::quality::RandomState;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use volvelle_domain::item::{Item, ItemKind, ItemVersion, RotatorStatus, VersionState};
use volvelle_domain::{ItemPath, Secret};
use volvelle_fragments::Bound;
use volvelle_holder::asker;
use volvelle_rotation::SHARED;
use volvelle_store::{items, rotations, versions};

use crate::app::{App, Caller, Fresh, read, write};
use crate::credentials;
use crate::ctx::{Ctx, ITEMS, unwritten};
use crate::error::ApiError;
use crate::ops::{auth, locks};
use crate::params::{Params, bad};
use crate::server::{Answer, Origin};
use crate::shape;
use crate::trail::{Basis, Noted, Written};

/// How long a read waits for a rotation that is between staged and done.
const PATIENCE: Duration = Duration::from_secs(2);
/// Times a read is begun again because something changed.
const TRIES: usize = 8;
/// Most items remembered per account.
const SHELF_SIZE: usize = 100_000;

/// Most callers remembered per item.
const MOST_READERS: usize = 64;

/// What a read asks for.
pub struct Wanted<'a> {
    token: [u8; 32],
    /// Written as an [`ItemPath`] is.
    name: &'a str,
    /// 0 = the current one.
    version: u32,
    host: Option<&'a str>,
}

/// The bodies that nearly every client sends. Whatever is not written so takes the long way, which knows every spelling.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    token: &'a str,
    name: &'a str,
    host: Option<&'a str>,
    version: Option<u32>,
    #[serde(rename = "json")]
    _json: Option<bool>,
}

impl<'a> Wanted<'a> {
    /// Reads a body of the commonest form, if it is one.
    #[must_use]
    pub fn plain(body: &'a [u8]) -> Option<Self> {
        let Plain { token, name, host, version, .. } = serde_json::from_slice(body).ok()?;
        let understood = !token.is_empty() && ItemPath::is_plain(name);
        let host = host.filter(|host| !host.is_empty());
        let token = credentials::hash(token.as_bytes());
        understood.then_some(Self { token, name, version: version.unwrap_or(0), host })
    }
}

/// The same from parameters of any spelling.
///
/// # Errors
/// One of them is wrong.
pub async fn value_of(app: &App, token: &Secret, params: &Params, from: &Origin) -> Result<Answer, ApiError> {
    let name = params.path(if params.has("names") { "names" } else { "name" })?;
    let wanted = Wanted {
        token: credentials::hash(token.expose()),
        name: name.as_str(),
        version: params.number("version")?.unwrap_or(0),
        host: params.text("host"),
    };
    value(app, &wanted, from).await
}

/// An item with its current versions, ready to be opened.
pub struct Ready {
    item: Item,
    current: Arc<[Kept]>,
    /// Whether a rotation is between staged and done.
    under_way: bool,
    /// What stands behind the value in the answer.
    state: String,
    /// Callers who were found to be allowed to read it, if that holds as long as the roles are the same.
    readers: RwLock<Vec<u64>>,
}

/// A version, and its record bound to its place unless that cannot be.
struct Kept {
    version: ItemVersion,
    bound: Option<Bound>,
}

impl Kept {
    fn of(ctx: &Ctx<'_>, item: &Item, versions: Vec<ItemVersion>) -> Arc<[Self]> {
        let bind = |version: &ItemVersion| ctx.app.vault.bind_version(ctx.account(), item, version).ok();
        versions.into_iter().map(|version| Self { bound: bind(&version), version }).collect()
    }
}

/// Items of one account at one stamp.
#[derive(Default)]
pub struct Shelf(RwLock<HashMap<String, Arc<Ready>, RandomState>>);

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
pub async fn value(app: &App, wanted: &Wanted<'_>, from: &Origin) -> Result<Answer, ApiError> {
    let mut waited = false;
    for attempt in 0..TRIES {
        let fresh = if attempt == 0 { Fresh::Remembered } else { Fresh::Checked };
        let (view, caller) = app.enter(wanted.token, fresh).await?;
        let remote = auth::admit(&caller.method, from, app.now())?;
        asker::identify(&caller.identity);
        let ctx = Ctx::new(app, view, caller, remote, "rotated-secret-get-value");
        let source = if attempt == 0 { Source::Shelf } else { Source::Database };
        let outcome = answer(&ctx, source, wanted, &mut waited).await;
        if let Ok(None) = outcome {
            ctx.note();
            continue;
        }
        let word = match &outcome {
            Ok(_) => "ok",
            Err(ApiError::Unauthorized { .. }) => "denied",
            Err(_) => "failed",
        };
        let line = ctx.line(wanted.name, word, wanted.host.unwrap_or_default());
        let basis = match source {
            Source::Shelf => Basis::All(ctx.view.stamp),
            Source::Database => Basis::Rules(ctx.view.stamp.0),
        };
        let noted = Noted { account: ctx.id().clone(), line, basis };
        let written = app.trail.commit(noted).await.map_err(unwritten)?;
        if written == Written::Durable {
            asker::note();
        }
        ctx.note();
        if written == Written::Durable {
            return outcome.map(|body| Answer { status: StatusCode::OK, body: body.unwrap_or_default() });
        }
    }
    Err(ApiError::Conflict("it is being changed all the time; try again".to_owned()))
}

/// The answer; `None` means that a rotation was waited for and everything must be looked at again.
async fn answer(
    ctx: &Ctx<'_>,
    source: Source,
    wanted: &Wanted<'_>,
    waited: &mut bool,
) -> Result<Option<Bytes>, ApiError> {
    let shelved = if source == Source::Shelf { read(&ctx.view.shelf.0).get(wanted.name).cloned() } else { None };
    let known = shelved.as_ref().is_some_and(|ready| ready.is_known_to(&ctx.caller));
    if !known {
        ctx.require(ITEMS, wanted.name, "read")?;
    }
    let ready = match shelved {
        Some(ready) => ready,
        None => Box::pin(load(ctx, wanted.name)).await?,
    };
    if !known && ctx.view.timeless {
        ready.note_reader(&ctx.caller);
    }
    let item = &ready.item;
    if item.kind != ItemKind::RotatedSecret {
        return Err(bad("name", "it is no rotated secret; read it with get-secret-value"));
    }
    if !item.enabled {
        return Err(ApiError::Conflict(format!("{} is disabled; enable it with set-item-state", wanted.name)));
    }
    if ready.under_way && !*waited && wanted.version == 0 {
        Box::pin(ctx.app.engine.settled(ctx.id(), item.id, PATIENCE)).await?;
        *waited = true;
        return Ok(None);
    }
    if item.locking.on_read || item.locking.held.is_some() {
        // What cannot be read here is not checked out either.
        ctx.app.vault.require(item.protection.as_ref())?;
        if Box::pin(locks::on_read(ctx, item)).await? {
            return Ok(None);
        }
    }
    if wanted.version == 0 {
        return body(ctx, &ready, &ready.current, wanted).await.map(Some);
    }
    let kept = Box::pin(older(ctx, item, wanted.version)).await?;
    body(ctx, &ready, &kept, wanted).await.map(Some)
}

impl Ready {
    fn is_known_to(&self, caller: &Caller) -> bool {
        read(&self.readers).contains(&caller.serial)
    }

    fn note_reader(&self, caller: &Caller) {
        let mut readers = write(&self.readers);
        if readers.len() >= MOST_READERS {
            readers.clear();
        }
        readers.push(caller.serial);
    }
}

/// The text of the answer. What was sealed is a JSON object already.
async fn body(ctx: &Ctx<'_>, ready: &Ready, kept: &[Kept], wanted: &Wanted<'_>) -> Result<Bytes, ApiError> {
    let asked = |host: &str| wanted.host.is_none_or(|h| host == h || host.split(':').next() == Some(h));
    let mut text = Vec::new();
    let mut hosts = 0;
    for kept in kept.iter().filter(|kept| asked(&kept.version.host)) {
        let (vault, version) = (&ctx.app.vault, &kept.version);
        let bound = match &kept.bound {
            Some(bound) => Cow::Borrowed(bound),
            None => Cow::Owned(vault.bind_version(ctx.account(), &ready.item, version)?),
        };
        let plain = match vault.open_cached(&bound, &version.sealed)? {
            Some(plain) => plain,
            None => Box::pin(vault.open_bound(&bound, &version.sealed)).await?,
        };
        if wanted.host.is_some() || version.host.is_empty() {
            return Ok([b"{\"value\":".as_slice(), &plain, ready.state.as_bytes()].concat().into());
        }
        text.extend_from_slice(if hosts == 0 { b"{\"value\":{\"linked_hosts\":{" } else { b"," });
        text.extend_from_slice(Value::from(version.host.as_str()).to_string().as_bytes());
        text.push(b':');
        text.extend_from_slice(&plain);
        hosts += 1;
    }
    if hosts == 0 {
        return Err(missing(ctx, wanted));
    }
    text.extend_from_slice(b"}}");
    text.extend_from_slice(ready.state.as_bytes());
    Ok(text.into())
}

fn missing(ctx: &Ctx<'_>, wanted: &Wanted<'_>) -> ApiError {
    let name = wanted.name;
    match (wanted.version, wanted.host) {
        (0, None) => ApiError::Conflict(format!("{name} has no value yet; rotate it once with gateway-rotate-secret")),
        (0, Some(host)) => ctx.not_found(&format!("item {name} for host {host}")),
        (version, _) => ctx.not_found(&format!("item {name} version {version}")),
    }
}

/// How far the value can be trusted, as it stands behind the value in the answer.
fn state(item: &Item) -> String {
    let mut map = Map::new();
    if let Some(rotator) = &item.rotator {
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
    let text = Value::Object(map).to_string();
    text.strip_prefix('{').filter(|rest| *rest != "}").map_or_else(|| "}".to_owned(), |rest| format!(",{rest}"))
}

async fn load(ctx: &Ctx<'_>, name: &str) -> Result<Arc<Ready>, ApiError> {
    let path = ItemPath::parse(name).map_err(|error| bad("name", error.to_string()))?;
    let mut tx = ctx.app.store.read().await?;
    let item = items::find(&mut tx, ctx.id(), &path).await?.ok_or_else(|| ctx.not_found(&format!("item {path}")))?;
    let mut current = versions::current_of(&mut tx, ctx.id(), item.id).await?;
    current.retain(|version| version.host != SHARED);
    current.sort_by(|a, b| a.host.cmp(&b.host));
    let open = rotations::open_of(&mut tx, ctx.id(), item.id).await?;
    let under_way = open.iter().any(|rotation| {
        use volvelle_domain::rotation::Stage as S;
        matches!(rotation.state.stage, S::Staged | S::Applied | S::Verified | S::InDoubt)
    });
    let current = Kept::of(ctx, &item, current);
    let ready = Arc::new(Ready { state: state(&item), item, current, under_way, readers: RwLock::default() });
    let mut shelf = write(&ctx.view.shelf.0);
    if shelf.len() >= SHELF_SIZE {
        shelf.clear();
    }
    shelf.insert(name.to_owned(), Arc::clone(&ready));
    Ok(ready)
}

async fn older(ctx: &Ctx<'_>, item: &Item, version: u32) -> Result<Arc<[Kept]>, ApiError> {
    let mut tx = ctx.app.store.read().await?;
    let mut kept = versions::list_item(&mut tx, ctx.id(), item.id).await?;
    kept.retain(|v| v.version == version && v.host != SHARED && v.state != VersionState::Rejected);
    drop(tx);
    let mut values = Vec::with_capacity(kept.len());
    for version in kept {
        // What was on the target before something was asked for is no value.
        let candidate = version.state == VersionState::Candidate;
        if !candidate || !ctx.app.vault.open_version(ctx.account(), item, &version).await?.is_intent() {
            values.push(version);
        }
    }
    Ok(Kept::of(ctx, item, values))
}
