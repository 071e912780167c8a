//! Targets: where and with which privileged credential to connect.

use std::time::Duration;

use serde_json::{Map, Value, json};
use volvelle_domain::connector::{Declaration, PeerIdentity, TargetParams};
use volvelle_domain::ids::{TargetId, Uid};
use volvelle_domain::target::{Target, TargetVersion};
use volvelle_domain::{Credential, ItemPath};
use volvelle_rotation::Resolved;
use volvelle_store::{StoreError, Tx, breakers, targets};

use super::{Answer, keys, parents, settings};
use crate::burial;
use crate::ctx::{Ctx, TARGETS};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape::{self, Sealing};

/// Time to learn one host key.
const LEARN: Duration = Duration::from_secs(10);
/// Host keys asked for at a time.
const AT_ONCE: usize = 16;
/// Parameters that choose the protection key.
const KEY: &[&str] = &["key", "protection_key"];
/// Targets of one page.
const PAGE: u32 = 1000;

/// Makes a target; its host keys are learned, recorded and shown.
///
/// # Errors
/// The caller may not, the name is taken, or a parameter is wrong.
pub async fn create(ctx: &Ctx<'_>, kind: &str, params: &Params) -> Answer {
    let name = params.path("name")?;
    ctx.require(TARGETS, name.as_str(), "create")?;
    let mut target = empty(ctx, name, kind);
    common(&mut target, params)?;
    target.protection = keys::chosen(ctx, params, KEY, None).await?;
    let mut secret = Credential::default();
    if kind == "linked" {
        let (linked, parent) = parents::linked(ctx, None, params).await?;
        (target.linked, target.parent) = (Some(linked), parent);
    } else {
        let connector = ctx.app.registry.get(kind).ok_or_else(|| ApiError::UnknownCommand(kind.to_owned()))?;
        let mut given = settings::declared(&connector.declaration().target, params);
        target.parent = parents::through(ctx, &connector.declaration().target, (None, &mut given), params).await?;
        connector.check_target(&given)?;
        let given = connector.completed(given, ctx.app.engine.parts().entropy.as_ref());
        target.params = given.plain;
        secret = given.secret;
    }
    let (pinned, warnings) = learn(ctx, &target, &secret).await?;
    target.pinned = pinned;
    confirmed(&target.pinned, &params.list("fingerprint"))?;
    if params.is("test-only") {
        return Ok(json!({"tested": true, "host_keys": target.pinned.iter().map(shape::pin).collect::<Vec<_>>(),
            "warnings": warnings}));
    }
    let sealed = ctx.app.vault.seal_target(ctx.account(), &target, 1, &secret).await?;
    let version = new_version(ctx, &target, 1, sealed);
    let mut tx = ctx.app.store.begin().await?;
    let id = targets::add(&mut tx, &target, &version).await.map_err(|error| taken(error, &target.name))?;
    ctx.commit(tx, target.name.as_str(), &fingerprints(&target.pinned)).await?;
    let mut answer = json!({"target_id": id.0, "host_keys": target.pinned.iter().map(shape::pin).collect::<Vec<_>>()});
    if !warnings.is_empty() {
        answer["warnings"] = Value::from(warnings);
    }
    Ok(answer)
}

/// Whether every key shown is one that was compared before, if any was.
fn confirmed(shown: &[PeerIdentity], compared: &[String]) -> Result<(), ApiError> {
    if compared.is_empty() {
        return Ok(());
    }
    match shown.iter().find(|pin| !compared.contains(&pin.fingerprint)) {
        Some(other) => Err(ApiError::Conflict(format!(
            "{} shows another fingerprint than the one given: {}; nothing was made",
            other.address, other.fingerprint
        ))),
        None => Ok(()),
    }
}

fn empty(ctx: &Ctx<'_>, name: ItemPath, kind: &str) -> Target {
    let mut uid = [0; 16];
    ctx.app.engine.parts().entropy.fill(&mut uid);
    Target {
        account: ctx.id().clone(),
        id: TargetId(0),
        uid: Uid(uid),
        name,
        kind: kind.to_owned(),
        description: String::new(),
        params: Map::new(),
        last_version: 1,
        max_versions: None,
        delete_protection: false,
        locking: volvelle_domain::item::Locking::default(),
        protection: None,
        pinned: Vec::new(),
        halted: String::new(),
        parent: None,
        linked: None,
        created_at: ctx.now,
        modified_at: ctx.now,
    }
}

fn new_version(ctx: &Ctx<'_>, target: &Target, version: u32, sealed: Vec<u8>) -> TargetVersion {
    let (params, created_by) = (target.params.clone(), ctx.who().to_owned());
    TargetVersion { version, params, sealed, created_at: ctx.now, created_by }
}

fn taken(error: StoreError, name: &ItemPath) -> ApiError {
    match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("target {name}")),
        other => other.into(),
    }
}

fn fingerprints(pins: &[PeerIdentity]) -> String {
    pins.iter().map(|pin| format!("{} {}", pin.address, pin.fingerprint)).collect::<Vec<_>>().join(", ")
}

fn common(target: &mut Target, params: &Params) -> Result<(), ApiError> {
    for name in ["comment", "description", "new-comment"] {
        if let Some(text) = params.changed_text(name) {
            text.clone_into(&mut target.description);
        }
    }
    target.delete_protection = params.flag("delete_protection").unwrap_or(target.delete_protection);
    target.max_versions = settings::max_versions(target.max_versions, params)?;
    target.locking = settings::locking(&target.locking, params)?;
    Ok(())
}

/// Learns the identities of the target's addresses that are not pinned yet; what cannot be reached becomes a warning.
async fn learn(
    ctx: &Ctx<'_>,
    target: &Target,
    secret: &Credential,
) -> Result<(Vec<PeerIdentity>, Vec<String>), ApiError> {
    let (kind, all) = addresses(ctx, target, secret).await?;
    let Some(connector) = ctx.app.registry.get(&kind) else { return Ok((Vec::new(), Vec::new())) };
    if !connector.declaration().capabilities.pinned_identity {
        return Ok((Vec::new(), Vec::new()));
    }
    let (mut pins, mut warnings) = (Vec::new(), Vec::new());
    for chunk in all.chunks(AT_ONCE) {
        let asked = chunk.iter().map(|(_, params)| connector.learn_identity(params, LEARN));
        for ((host, _), learned) in chunk.iter().zip(futures_util::future::join_all(asked).await) {
            match learned {
                Ok(Some(pin)) => pins.push(pin),
                Ok(None) => {}
                Err(failure) if failure.class == volvelle_domain::connector::FailureClass::Config => {
                    return Err(failure.into());
                }
                Err(failure) => {
                    let host = if host.is_empty() { String::new() } else { format!("{host}: ") };
                    warnings.push(format!(
                        "{host}{}; no host key is pinned, so nothing will be done there until \
                         `target trust-host-key` has been run",
                        failure.message
                    ));
                }
            }
        }
    }
    Ok((pins, warnings))
}

/// The kind and the parameters of every address of a target.
async fn addresses(
    ctx: &Ctx<'_>,
    target: &Target,
    secret: &Credential,
) -> Result<(String, Vec<(String, TargetParams)>), ApiError> {
    let (record, kind, secret) = (target.clone(), target.kind.clone(), secret.clone());
    let mut resolved = Resolved { record, source: None, kind, secret, through: None };
    let parent = match target.parent {
        Some(parent) => Some(targets::load(&mut ctx.app.store.read().await?, ctx.id(), parent).await?),
        None => None,
    };
    match &target.linked {
        None => {
            resolved.source = Some(target.clone());
            // Nobody logs in: its credential is not needed.
            resolved.through = parent.map(|parent| Box::new((parent, Credential::default())));
        }
        Some(linked) => {
            resolved.kind.clone_from(&linked.hosts_kind);
            resolved.source = parent;
        }
    }
    let all = resolved.hosts().into_iter().map(|host| (host.clone(), resolved.params(&host))).collect();
    Ok((resolved.kind, all))
}

/// Changes a target.
///
/// # Errors
/// The caller may not, there is no such target, or a parameter is wrong.
pub async fn update(ctx: &Ctx<'_>, kind: &str, params: &Params) -> Answer {
    let name = params.path("name")?;
    let before = ctx.target(&name, "update").await?;
    if before.kind != kind {
        return Err(bad("name", format!("it is a target of kind {}", before.kind)));
    }
    let mut target = before.clone();
    common(&mut target, params)?;
    target.protection = keys::chosen(ctx, params, KEY, before.protection.as_ref()).await?;
    if let Some(to) = params.opt_path("new-name")? {
        ctx.require(TARGETS, to.as_str(), "create")?;
        target.name = to;
    }
    let kept = opened(ctx, &before).await?;
    let mut wanted = kept.clone();
    if before.linked.is_some() {
        let (linked, parent) = parents::linked(ctx, Some(&before), params).await?;
        (target.linked, target.parent) = (Some(linked), parent);
    } else if let Some(connector) = ctx.app.registry.get(kind) {
        let schema = &connector.declaration().target;
        wanted = settings::changed(&kept, schema, params);
        target.parent = parents::through(ctx, schema, (Some(&before), &mut wanted), params).await?;
        connector.check_target(&wanted)?;
        wanted = connector.completed(wanted, ctx.app.engine.parts().entropy.as_ref());
        target.params.clone_from(&wanted.plain);
        if target.params != before.params {
            // Its secret will be shown to another address: who may not read it cannot choose where it is sent.
            ctx.require(TARGETS, name.as_str(), "read")?;
            parents::still_fits(ctx, &target).await?;
        }
    }
    let mut warnings = Vec::new();
    let elsewhere = target.linked != before.linked || target.parent != before.parent;
    if target.params != before.params || elsewhere {
        let (learned, told) = learn(ctx, &target, &wanted.secret).await?;
        // An address that is pinned stays pinned: a changed key is accepted by `trust-host-key` only.
        let new = learned.into_iter().filter(|pin| !before.pinned.iter().any(|old| old.address == pin.address));
        target.pinned.extend(new.collect::<Vec<_>>());
        warnings = told;
    }
    target.modified_at = ctx.now;
    save(ctx, &before, &target, (&kept, &wanted)).await?;
    let mut answer = json!({ "target_id": target.id.0 });
    if !warnings.is_empty() {
        answer["warnings"] = Value::from(warnings);
    }
    Ok(answer)
}

/// Writes a changed target: under its new name or key every version is wrapped or sealed anew, and changed parameters are a new version.
async fn save(
    ctx: &Ctx<'_>,
    before: &Target,
    target: &Target,
    (kept, wanted): (&TargetParams, &TargetParams),
) -> Result<(), ApiError> {
    let mut moved = Vec::new();
    if target.name != before.name || target.protection != before.protection {
        let mut tx = ctx.app.store.read().await?;
        let versions = targets::list_versions(&mut tx, ctx.id(), before.id).await?;
        drop(tx);
        for version in versions {
            let sealed = ctx.app.vault.move_target(ctx.account(), (before, target), &version).await?;
            moved.push((version.version, sealed));
        }
    }
    let fresh = if settings::same(kept, wanted) {
        None
    } else {
        let version = before.last_version + 1;
        let sealed = ctx.app.vault.seal_target(ctx.account(), target, version, &wanted.secret).await?;
        Some(new_version(ctx, target, version, sealed))
    };
    let mut tx = ctx.app.store.begin().await?;
    let now = targets::lock(&mut tx, ctx.id(), before.id).await?;
    if now.modified_at != before.modified_at || now.last_version != before.last_version {
        return Err(ApiError::Conflict(
            "the target was changed by somebody else at the same time; try again".to_owned(),
        ));
    }
    targets::update(&mut tx, target).await.map_err(|error| taken(error, &target.name))?;
    for (version, sealed) in &moved {
        targets::replace_sealed(&mut tx, ctx.id(), target.id, *version, sealed).await?;
    }
    if let Some(version) = &fresh {
        targets::add_version(&mut tx, ctx.id(), target.id, version).await?;
        let keep = target.max_versions.unwrap_or(ctx.account().settings.max_versions);
        targets::prune_versions(&mut tx, ctx.id(), target.id, keep).await?;
        breakers::succeeded(&mut tx, ctx.id(), target.id).await?;
    }
    ctx.commit(tx, target.name.as_str(), "").await
}

/// The parameters of a target's newest version, secrets opened.
async fn opened(ctx: &Ctx<'_>, target: &Target) -> Result<TargetParams, ApiError> {
    let secret = version_params(ctx, target, target.last_version).await?.secret;
    Ok(TargetParams { plain: target.params.clone(), secret, parent: None })
}

async fn version_params(ctx: &Ctx<'_>, target: &Target, number: u32) -> Result<TargetParams, ApiError> {
    let mut tx = ctx.app.store.read().await?;
    let version = targets::find_version(&mut tx, ctx.id(), target.id, number).await?;
    drop(tx);
    let missing = || ctx.not_found(&format!("target {} version {number}", target.name));
    let version = version.ok_or_else(missing)?;
    let secret = ctx.app.vault.open_target(ctx.account(), target, &version).await?;
    Ok(TargetParams { plain: version.params, secret, parent: None })
}

/// Shows a target without its secrets.
///
/// # Errors
/// The caller may not, or there is no such target.
pub async fn get(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let target = ctx.target(&params.path("name")?, "list").await?;
    shown(ctx, &target, params.is("show-versions")).await
}

async fn shown(ctx: &Ctx<'_>, target: &Target, with_versions: bool) -> Answer {
    let mut tx = ctx.app.store.read().await?;
    let parent = match target.parent {
        Some(parent) => Some(targets::load(&mut tx, ctx.id(), parent).await?),
        None => None,
    };
    let versions = if with_versions { Some(targets::list_versions(&mut tx, ctx.id(), target.id).await?) } else { None };
    let sealing = sealing(ctx, &mut tx, target).await?;
    let permissions = ctx.capabilities(TARGETS, target.name.as_str());
    Ok(shape::target(target, parent.as_ref(), permissions, versions.as_deref(), &sealing))
}

/// What a target is sealed with, as it is shown.
async fn sealing(ctx: &Ctx<'_>, tx: &mut Tx, target: &Target) -> Result<Sealing, ApiError> {
    let key = keys::name_of(ctx, tx, target.protection.as_ref()).await?;
    Ok(Sealing { key, presence: ctx.app.vault.presence(target.protection.as_ref()) })
}

/// Shows a target with its secrets.
///
/// # Errors
/// The caller may not, there is no such target or version, or it cannot be opened.
pub async fn details(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let target = ctx.target(&params.path("name")?, "read").await?;
    let version = params.number("target-version")?.filter(|n| *n > 0).unwrap_or(target.last_version);
    let shown = shown(ctx, &target, params.is("show-versions")).await?;
    let value = match (&target.linked, ctx.app.registry.get(&target.kind)) {
        (Some(linked), _) => {
            let hosts: Map<String, Value> =
                linked.hosts.iter().map(|(h, d)| (h.clone(), Value::from(d.as_str()))).collect();
            json!({"linked_target_details": {"hosts": hosts}})
        }
        (None, Some(connector)) => {
            let kept = version_params(ctx, &target, version).await?;
            let declaration = connector.declaration();
            json!({ declaration.details_key: block(declaration, &kept) })
        }
        (None, None) => json!({}),
    };
    Ok(json!({"target": shown, "value": value}))
}

/// The block of `target-get-details`: what was not set is not there.
fn block(declaration: &Declaration, kept: &TargetParams) -> Map<String, Value> {
    let mut out = Map::new();
    let properties = declaration.target.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let shown =
            property.get("x-details").and_then(Value::as_str).map_or_else(|| name.replace('-', "_"), str::to_owned);
        let value = match kept.secret.expose_text(name) {
            Some(text) => Some(Value::from(text)),
            None => kept
                .plain
                .get(name)
                .or_else(|| property.get("default").filter(|d| d.as_str().is_some_and(|d| !d.is_empty())))
                .cloned(),
        };
        if let Some(value) = value {
            out.insert(shown, value);
        }
    }
    out
}

/// Lists targets the caller may know of.
///
/// # Errors
/// The store failed.
pub async fn list(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let (filter, kinds) = (params.text("filter").unwrap_or_default(), params.list("type"));
    let mut tx = ctx.app.store.read().await?;
    let page = targets::list(&mut tx, ctx.id(), params.text("pagination-token").unwrap_or_default(), PAGE).await?;
    let full = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
    let next = page.last().filter(|_| full).map(|last| last.name.to_string()).unwrap_or_default();
    let mut shown = Vec::new();
    for target in &page {
        let permissions = ctx.capabilities(TARGETS, target.name.as_str());
        let wanted = target.name.as_str().contains(filter) && (kinds.is_empty() || kinds.contains(&target.kind));
        if permissions.is_empty() || !wanted {
            continue;
        }
        let parent = match target.parent {
            Some(parent) => Some(targets::load(&mut tx, ctx.id(), parent).await?),
            None => None,
        };
        let sealing = sealing(ctx, &mut tx, target).await?;
        shown.push(shape::target(target, parent.as_ref(), permissions, None, &sealing));
    }
    Ok(json!({"targets": shown, "next_page": next}))
}

/// Deletes a target that nothing uses.
///
/// # Errors
/// The caller may not, it is protected, or a secret uses it or another target has it as its parent.
pub async fn delete(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let target = ctx.target(&name, "delete").await?;
    if target.delete_protection {
        return Err(ApiError::Conflict(format!(
            "target {name} is protected from deletion; switch delete_protection off first"
        )));
    }
    let mut tx = ctx.app.store.begin().await?;
    let target = targets::lock(&mut tx, ctx.id(), target.id).await?;
    let children = targets::children(&mut tx, ctx.id(), target.id, parents::MOST_CHILDREN).await?;
    if !children.is_empty() {
        return Err(ApiError::Conflict(format!(
            "target {name} is the parent of {}; delete them first, or give them another parent",
            parents::named(ctx, &children)
        )));
    }
    burial::of_target(ctx, &mut tx, &target).await?;
    targets::remove(&mut tx, ctx.id(), target.id).await.map_err(|error| match error {
        StoreError::Forbidden(_) => {
            ApiError::Conflict(format!("target {name} is used by a rotated secret; delete that first"))
        }
        other => other.into(),
    })?;
    ctx.commit(tx, name.as_str(), "").await?;
    ctx.app.burials.notify_one();
    Ok(json!({}))
}

/// Shows the host keys that a target has now, and pins the one whose fingerprint is given.
///
/// # Errors
/// The caller may not, the host does not answer, or it shows another fingerprint than the one given.
pub async fn trust(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let before = ctx.target(&name, "update").await?;
    let secret = if before.linked.is_some() { Credential::default() } else { opened(ctx, &before).await?.secret };
    let (kind, mut all) = addresses(ctx, &before, &secret).await?;
    if let Some(host) = params.text("host") {
        all.retain(|(known, _)| known == host || known.split(':').next() == Some(host) || known.is_empty());
    }
    let connector = ctx.app.registry.get(&kind).ok_or_else(|| bad("name", "its kind has no host keys"))?;
    let mut shown = Vec::new();
    for (_, mut address) in all {
        // A key given by hand is what is being replaced here.
        address.plain.remove("host-key");
        shown.extend(connector.learn_identity(&address, LEARN).await?);
    }
    let pins: Vec<Value> = shown.iter().map(shape::pin).collect();
    let Some(fingerprint) = params.text("fingerprint") else {
        return Ok(json!({"pins": pins, "accepted": false,
            "hint": "compare the fingerprint on the host itself, then run this again with --fingerprint"}));
    };
    let accepted: Vec<PeerIdentity> = shown.into_iter().filter(|pin| pin.fingerprint == fingerprint).collect();
    if accepted.is_empty() {
        return Err(ApiError::Conflict(
            "the host shows another fingerprint than the one given; nothing was changed".to_owned(),
        ));
    }
    let by_hand = without_given_key(ctx, &before, &secret).await?;
    let mut tx = ctx.app.store.begin().await?;
    let mut target = targets::lock(&mut tx, ctx.id(), before.id).await?;
    if by_hand.is_some() && (target.name != before.name || target.protection != before.protection) {
        return Err(ApiError::Conflict("the target was changed by somebody else; try again".to_owned()));
    }
    target.pinned.retain(|old| !accepted.iter().any(|new| new.address == old.address));
    target.pinned.extend(accepted.iter().cloned());
    target.halted.clear();
    target.modified_at = ctx.now;
    targets::update(&mut tx, &target).await?;
    if let Some(version) = &by_hand {
        targets::add_version(&mut tx, ctx.id(), target.id, version).await?;
    }
    breakers::succeeded(&mut tx, ctx.id(), target.id).await?;
    ctx.commit(tx, name.as_str(), &fingerprints(&accepted)).await?;
    Ok(json!({"pins": accepted.iter().map(shape::pin).collect::<Vec<_>>(), "accepted": true}))
}

/// The next version of a target whose host key was given by hand: the accepted one takes its place.
async fn without_given_key(
    ctx: &Ctx<'_>,
    before: &Target,
    secret: &Credential,
) -> Result<Option<TargetVersion>, ApiError> {
    if !before.params.contains_key("host-key") {
        return Ok(None);
    }
    let mut target = before.clone();
    target.params.remove("host-key");
    let number = before.last_version + 1;
    let sealed = ctx.app.vault.seal_target(ctx.account(), before, number, secret).await?;
    Ok(Some(new_version(ctx, &target, number, sealed)))
}
