//! Items of every kind: shown, listed, changed, deleted.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use volvelle_domain::ItemPath;
use volvelle_domain::ids::{ItemId, TargetId, Version};
use volvelle_domain::item::{Item, ItemKind};
use volvelle_domain::target::Target;
use volvelle_rotation::{EngineError, MANAGED, may_open};
use volvelle_store::{StoreError, Tx, items, rotations, targets, versions};

use super::{Answer, keys, locks, rotated_update, settings};
use crate::burial;
use crate::ctx::{Ctx, ITEMS};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape::{self, Around, Sealing};

/// Items read from the store at a time.
const CHUNK: u32 = 1000;
/// Items of one page.
const PAGE: usize = 1000;
/// Items of one answer with `auto-pagination`.
const MOST: usize = 20_000;

/// Shows an item.
///
/// # Errors
/// The caller may not, or there is no such item.
pub async fn describe(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let item = ctx.item(&params.path("name")?, "list").await?;
    let mut tx = ctx.app.store.read().await?;
    let target = match &item.rotator {
        Some(rotator) => Some(targets::load(&mut tx, ctx.id(), rotator.target).await?),
        None => None,
    };
    let kept =
        if params.is("show-versions") { Some(versions::list_item(&mut tx, ctx.id(), item.id).await?) } else { None };
    let rotating = !rotations::open_of(&mut tx, ctx.id(), item.id).await?.is_empty();
    let key = keys::name_of(ctx, &mut tx, item.protection.as_ref()).await?;
    let parent = match target.as_ref().and_then(|target| target.parent) {
        Some(parent) => Some(targets::load(&mut tx, ctx.id(), parent).await?),
        None => None,
    };
    drop(tx);
    let mut answer = shown(ctx, &item, (target.as_ref(), key), kept.as_deref(), rotating);
    if let Some(parent) = parent {
        answer["item_targets_assoc"][0]["parent_target_name"] = Value::from(parent.name.as_str());
    }
    Ok(answer)
}

fn shown(
    ctx: &Ctx<'_>,
    item: &Item,
    (target, key): (Option<&Target>, Option<String>),
    versions: Option<&[volvelle_domain::item::ItemVersion]>,
    rotating: bool,
) -> Value {
    let connector = item.rotator.as_ref().and_then(|rotator| ctx.app.registry.get(&rotator.kind));
    let around = Around {
        account: ctx.account(),
        now: ctx.now,
        target,
        declaration: connector.as_ref().map(|connector| connector.declaration()),
        permissions: ctx.capabilities(ITEMS, item.name.as_str()),
        versions,
        rotating,
        sealing: Sealing { key, presence: ctx.app.vault.presence(item.protection.as_ref()) },
    };
    shape::item(item, &around)
}

/// What a list is to hold.
struct Wanted {
    prefix: String,
    filter: String,
    tag: Option<String>,
    kinds: Vec<String>,
    current_folder: bool,
    minimal: bool,
    modified_after: i64,
}

impl Wanted {
    fn read(name: &str, params: &Params) -> Self {
        let mut prefix = params.text("path").unwrap_or_default().trim_end_matches('*').to_owned();
        if !prefix.is_empty() && !prefix.starts_with('/') {
            prefix.insert(0, '/');
        }
        let kinds = if name == "list-items" { params.list("type") } else { vec!["rotated-secret".to_owned()] };
        Self {
            prefix,
            filter: params.text("filter").unwrap_or_default().to_owned(),
            tag: params.text("tag").map(str::to_owned),
            kinds,
            current_folder: params.is("current-folder"),
            minimal: params.is("minimal-view"),
            modified_after: params.int("modified-after").unwrap_or(0),
        }
    }

    fn admits(&self, item: &Item) -> bool {
        let kind = match item.kind {
            ItemKind::RotatedSecret => "rotated-secret",
            ItemKind::StaticSecret => "static-secret",
            ItemKind::ProtectionKey => "key",
        };
        let is_it = |k: &String| {
            let k = k.replace('_', "-");
            k.eq_ignore_ascii_case(kind) || (kind == "key" && k.eq_ignore_ascii_case(keys::ALGORITHM))
        };
        let kind_wanted = self.kinds.is_empty() || self.kinds.iter().any(is_it);
        let rest = item.name.as_str().strip_prefix(self.prefix.trim_end_matches('/')).unwrap_or_default();
        let inside = self.prefix.is_empty() || self.prefix.ends_with('/') || rest.starts_with('/') || rest.is_empty();
        kind_wanted
            && (inside || !self.current_folder)
            && item.name.as_str().contains(&self.filter)
            && self.tag.as_ref().is_none_or(|tag| item.tags.contains(tag))
            && item.modified_at.0 / 1_000_000 >= self.modified_after
    }

    /// The folder right below the listed one that the item lies in, if it lies deeper.
    fn folder(&self, item: &Item) -> Option<String> {
        let base = self.prefix.trim_end_matches('/');
        let rest = item.name.as_str().strip_prefix(base)?.strip_prefix('/')?;
        let (folder, _) = rest.split_once('/')?;
        Some(format!("{base}/{folder}/"))
    }
}

/// Lists items the caller may know of, by name.
///
/// # Errors
/// The store failed.
pub async fn list(ctx: &Ctx<'_>, name: &str, params: &Params) -> Answer {
    let wanted = Wanted::read(name, params);
    let most = if params.text("auto-pagination").unwrap_or("enabled") == "enabled" { MOST } else { PAGE };
    let mut after = params.text("pagination-token").unwrap_or_default().to_owned();
    let (mut shown_items, mut folders, mut known) = (Vec::new(), BTreeSet::new(), Known::default());
    let mut more = false;
    'pages: loop {
        let mut tx = ctx.app.store.read().await?;
        let page = items::list_under(&mut tx, ctx.id(), &wanted.prefix, &after, CHUNK).await?;
        let last_page = page.len() < usize::try_from(CHUNK).unwrap_or(usize::MAX);
        for item in &page {
            if shown_items.len() >= most {
                more = true;
                break 'pages;
            }
            item.name.as_str().clone_into(&mut after);
            if !wanted.admits(item) || !ctx.may(ITEMS, item.name.as_str(), "list") {
                continue;
            }
            let folder = wanted.folder(item);
            if wanted.current_folder && folder.is_some() {
                folders.extend(folder);
                continue;
            }
            folders.extend(folder);
            shown_items.push(if wanted.minimal {
                minimal(item)
            } else {
                listed(ctx, &mut tx, item, &mut known).await?
            });
        }
        if last_page {
            break;
        }
    }
    let next = if more { after } else { String::new() };
    Ok(json!({"items": shown_items, "folders": folders, "has_next": more, "next_page": next}))
}

fn minimal(item: &Item) -> Value {
    json!({"item_name": item.name.as_str(), "item_id": item.id.0, "item_type": shape::kind(item.kind), "is_enabled": item.enabled,
        "creation_date": shape::time(item.created_at), "modification_date": shape::time(item.modified_at)})
}

/// What items of one list have in common.
#[derive(Default)]
struct Known {
    targets: HashMap<TargetId, Target>,
    keys: HashMap<ItemId, String>,
}

async fn listed(ctx: &Ctx<'_>, tx: &mut Tx, item: &Item, known: &mut Known) -> Result<Value, ApiError> {
    let key = match item.protection.as_ref().and_then(|protection| known.keys.get(&protection.key).cloned()) {
        Some(key) => Some(key),
        None => keys::name_of(ctx, tx, item.protection.as_ref()).await?,
    };
    if let (Some(key), Some(protection)) = (&key, &item.protection) {
        known.keys.insert(protection.key, key.clone());
    }
    let target = match &item.rotator {
        None => None,
        Some(rotator) => Some(match known.targets.entry(rotator.target) {
            Entry::Occupied(there) => &*there.into_mut(),
            Entry::Vacant(place) => &*place.insert(targets::load(tx, ctx.id(), rotator.target).await?),
        }),
    };
    Ok(shown(ctx, item, (target, key), None, false))
}

/// Changes an item of any kind.
///
/// # Errors
/// The caller may not, there is no such item, or a parameter is wrong.
pub async fn update(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let before = ctx.item(&params.path("name")?, "update").await?;
    locks::check(ctx, &before, "update")?;
    let mut item = before.clone();
    settings::common(&mut item, params, ctx.parameter_names())?;
    if item.kind != ItemKind::ProtectionKey {
        let chosen = ["protection_key", "key"];
        item.protection = keys::chosen(ctx, params, &chosen, before.protection.as_ref()).await?;
    }
    if let Some(to) = params.opt_path("new-name")? {
        ctx.require(ITEMS, to.as_str(), "create")?;
        item.name = to;
    }
    item.modified_at = ctx.now;
    rotated_update::save(ctx, &before, item).await?;
    Ok(json!({"updated": true}))
}

/// Lists an item's tags.
///
/// # Errors
/// The caller may not, or there is no such item.
pub async fn tags(ctx: &Ctx<'_>, params: &Params) -> Answer {
    Ok(Value::from(ctx.item(&params.path("name")?, "list").await?.tags))
}

/// Enables or disables an item.
///
/// # Errors
/// The caller may not, there is no such item, or the state is no state.
pub async fn set_state(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let item = ctx.item(&name, "update").await?;
    if item.kind == ItemKind::ProtectionKey {
        return Err(bad("name", "a protection key is not disabled; disable what is sealed with it"));
    }
    let enabled = match params.text("desired-state").unwrap_or_default().to_ascii_lowercase().as_str() {
        "enabled" => true,
        "disabled" => false,
        _ => return Err(bad("desired-state", "must be Enabled or Disabled")),
    };
    let mut tx = ctx.app.store.begin().await?;
    let mut item = items::lock(&mut tx, ctx.id(), item.id).await?;
    item.enabled = enabled;
    item.modified_at = ctx.now;
    items::update(&mut tx, &item).await?;
    ctx.commit(tx, name.as_str(), if enabled { "enabled" } else { "disabled" }).await?;
    Ok(json!({}))
}

/// Deletes an item, or one old version of it.
///
/// # Errors
/// The caller may not, there is no such item or version, it is protected, or it is being rotated.
pub async fn delete(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let item = ctx.item(&name, "delete").await?;
    let version = params.int("version").unwrap_or(-1);
    if version < 0 {
        check_deletable(ctx, &item)?;
        let left = take_leave(ctx, &item, params.is("force-delete")).await?;
        let mut tx = ctx.app.store.begin().await?;
        keys::check_unused(ctx, &mut tx, &item).await?;
        remove(ctx, &mut tx, &item, &left).await?;
        ctx.commit(tx, name.as_str(), left.detail()).await?;
    } else {
        let mut tx = ctx.app.store.begin().await?;
        remove_version(ctx, &mut tx, &item, version).await?;
        ctx.commit(tx, name.as_str(), &format!("version {version}")).await?;
    }
    ctx.app.burials.notify_one();
    Ok(deleted(ctx, item.id, &name, version))
}

fn deleted(ctx: &Ctx<'_>, id: ItemId, name: &ItemPath, version: i64) -> Value {
    json!({"item_id": id.0, "item_name": name.as_str(), "version_deleted": version, "deletion_date": shape::time(ctx.now)})
}

fn busy(error: StoreError, name: &ItemPath) -> ApiError {
    match error {
        StoreError::Forbidden(_) => ApiError::Conflict(format!("{name} is being rotated; try again when that is over")),
        other => other.into(),
    }
}

fn check_deletable(ctx: &Ctx<'_>, item: &Item) -> Result<(), ApiError> {
    locks::check(ctx, item, "update")?;
    if item.delete_protection {
        return Err(ApiError::Conflict(format!(
            "{} is protected from deletion; switch delete_protection off first",
            item.name
        )));
    }
    Ok(())
}

/// What is left on the target of a secret whose credential Volvelle made.
enum Left {
    /// Volvelle made none.
    Others,
    /// These versions may have opened the account and do not any more.
    Nothing(Vec<(String, Version)>),
    /// The target refused, and the caller does not mind.
    Something,
}

impl Left {
    /// For the audit log.
    const fn detail(&self) -> &'static str {
        match self {
            Self::Others => "",
            Self::Nothing(_) => "taken off the target",
            Self::Something => "left on the target",
        }
    }
}

/// Takes what Volvelle made for a secret off its target. It comes before the deletion: what a crash breaks off is asked for again.
async fn take_leave(ctx: &Ctx<'_>, item: &Item, forced: bool) -> Result<Left, ApiError> {
    if !item.extras.contains_key(MANAGED) {
        return Ok(Left::Others);
    }
    match ctx.app.engine.take_leave(ctx.account(), item).await {
        Ok(gone) => Ok(Left::Nothing(gone)),
        Err(EngineError::Failed(_)) if forced => Ok(Left::Something),
        Err(EngineError::Failed(failure)) => Err(ApiError::Rotation {
            code: "rotation_failed",
            message: format!(
                "{} stays, because its credential could not be taken off the target: {failure}",
                item.name
            ),
            hint: "correct that and delete it again, or use force-delete, which leaves the credential there".to_owned(),
        }),
        Err(other) => Err(other.into()),
    }
}

/// Removes an item with all its versions, which the holders are to bury.
async fn remove(ctx: &Ctx<'_>, tx: &mut Tx, item: &Item, left: &Left) -> Result<(), ApiError> {
    // Locked, so that no version comes between.
    let item = items::lock(tx, ctx.id(), item.id).await?;
    let kept = versions::list_item(tx, ctx.id(), item.id).await?;
    if let Left::Nothing(gone) = left
        && kept.iter().any(|v| may_open(v.state) && !gone.iter().any(|(host, n)| *host == v.host && *n == v.version))
    {
        return Err(ApiError::Conflict(format!("{} was rotated meanwhile; try again", item.name)));
    }
    items::remove(tx, ctx.id(), item.id).await.map_err(|error| busy(error, &item.name))?;
    Ok(burial::of_versions(ctx, tx, &item, &kept).await?)
}

async fn remove_version(ctx: &Ctx<'_>, tx: &mut Tx, item: &Item, version: i64) -> Result<(), ApiError> {
    let kept = versions::list_item(tx, ctx.id(), item.id).await?;
    let wanted = if version == 0 { i64::from(item.last_version) } else { version };
    let number = kept.iter().map(|v| v.version).find(|v| i64::from(*v) == wanted);
    let number = number.ok_or_else(|| ctx.not_found(&format!("item {} version {wanted}", item.name)))?;
    let gone: Vec<_> = kept.into_iter().filter(|version| version.version == number).collect();
    for version in &gone {
        let slot = versions::Slot { account: ctx.id().clone(), item: item.id, host: version.host.clone() };
        versions::remove_version(tx, &slot, number).await.map_err(|error| match error {
            StoreError::Forbidden(_) => {
                ApiError::Conflict(format!("version {number} may open the account and cannot be deleted alone"))
            }
            other => other.into(),
        })?;
    }
    Ok(burial::of_versions(ctx, tx, item, &gone).await?)
}

/// Deletes items by name, or everything below a path; those that cannot be deleted are told.
///
/// # Errors
/// Neither items nor a path were given.
pub async fn delete_many(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let (mut names, path) = (params.list("item"), params.text("path").unwrap_or_default().to_owned());
    if !path.is_empty() {
        let prefix =
            format!("{}/", ItemPath::parse(path.trim_end_matches('*')).map_err(|e| bad("path", e.to_string()))?);
        let mut after = String::new();
        loop {
            let mut tx = ctx.app.store.read().await?;
            let page = items::list_under(&mut tx, ctx.id(), &prefix, &after, CHUNK).await?;
            let Some(last) = page.last() else { break };
            after = last.name.to_string();
            // What the caller may not know of is not told of either.
            names.extend(page.iter().map(|i| i.name.to_string()).filter(|name| ctx.may(ITEMS, name, "list")));
            if names.len() >= MOST {
                break;
            }
        }
    } else if names.is_empty() {
        return Err(bad("path", "give a path or items"));
    }
    let (mut gone, mut failed) = (Vec::new(), Map::new());
    for name in names {
        match delete_one(ctx, &name).await {
            Ok(()) => gone.push(name),
            Err(error) => {
                failed.insert(name, error.body("")["error"].clone());
            }
        }
    }
    Ok(json!({"path": path, "deleted_items": gone, "failed_deleted_items": failed}))
}

async fn delete_one(ctx: &Ctx<'_>, name: &str) -> Result<(), ApiError> {
    let path = ItemPath::parse(name).map_err(|error| bad("item", error.to_string()))?;
    let item = ctx.item(&path, "delete").await?;
    check_deletable(ctx, &item)?;
    let left = take_leave(ctx, &item, false).await?;
    let mut tx = ctx.app.store.begin().await?;
    keys::check_unused(ctx, &mut tx, &item).await?;
    remove(ctx, &mut tx, &item, &left).await?;
    ctx.commit(tx, path.as_str(), left.detail()).await?;
    ctx.app.burials.notify_one();
    Ok(())
}
