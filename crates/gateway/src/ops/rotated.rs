//! Rotated secrets: made, rotated, verified, repaired.

use std::time::Duration;

use serde_json::{Map, Value, json};
use volvelle_domain::connector::{ActingAs, Connector, ProbeOutcome};
use volvelle_domain::item::{Item, ItemKind, ItemVersion, Rotator, RotatorStatus, Schedule, SlotMemory, VersionState};
use volvelle_domain::rotation::Stage;
use volvelle_domain::schedule;
use volvelle_domain::{Credential, ItemPath};
use volvelle_rotation::{MANAGED, Outcome, Resolved, Seat, evidence_word, makes_its_own};
use volvelle_store::slots::SlotFacts;
use volvelle_store::versions::Slot;
use volvelle_store::{StoreError, items, rotations, slots, versions};

use super::{Answer, keys, locks, parents, settings};
use crate::ctx::{Ctx, ITEMS, TARGETS};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// How long a manual rotation is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Hosts tested at a time when a secret is made.
const AT_ONCE: usize = 8;

/// A slot of a secret that is being made.
struct Draft {
    host: String,
    initial: Credential,
    memory: SlotMemory,
}

/// Makes a rotated secret. The connection is tested unless `skip-dry-run`.
///
/// # Errors
/// The caller may not, the name is taken, a parameter is wrong, or the target would not let it rotate.
pub async fn create(ctx: &Ctx<'_>, kind: Option<&str>, params: &Params) -> Answer {
    let name = params.path("name")?;
    ctx.require(ITEMS, name.as_str(), "create")?;
    let target = ctx.target(&params.path("target-name")?, "list").await?;
    let resolved = Resolved::load(ctx.app.engine.parts(), ctx.account(), target.id).await?;
    let connector = ctx.app.registry.get(&resolved.kind);
    let fits = |c: &std::sync::Arc<dyn Connector>| kind.is_none_or(|kind| kind == c.declaration().secret_kind);
    let Some(connector) = connector.filter(fits) else {
        return Err(bad("target-name", format!("it is a target of kind {}", resolved.kind)));
    };
    let only = match connector.declaration().rotator_types {
        [only] => Some(only.name),
        _ => None,
    };
    let rotator_type = params.text("rotator-type").or(only).ok_or_else(|| bad("rotator-type", "is required"))?;
    let own = connector.declaration().rotator_type(rotator_type);
    let feeds = own.is_some_and(|own| own.feeds_into(&resolved.params("")));
    if feeds {
        ctx.require(TARGETS, target.name.as_str(), "read")?;
        ctx.require(TARGETS, target.name.as_str(), "update")?;
    }
    if acting(params)?.is_some_and(|(acting, _)| acting == ActingAs::Target) {
        parents::require_acting(ctx, &target).await?;
    }
    let given = settings::given_secret(connector.declaration(), params);
    let mut item = settings::new_item(ctx, name, ItemKind::RotatedSecret);
    item.protection = keys::chosen(ctx, params, &["key"], None).await?;
    ctx.app.vault.require(item.protection.as_ref())?;
    settings::common(&mut item, params, ctx.parameter_names())?;
    let mut rotator = rotator(ctx, &resolved, rotator_type, given.plain.clone(), params)?;
    // The target holds one value for all its hosts.
    rotator.same_password |= feeds;
    item.rotator = Some(rotator);
    let mut drafts = Vec::new();
    for host in resolved.hosts() {
        let initial = connector.initial_credential(rotator_type, &resolved.params(&host), &given)?;
        drafts.push(Draft { host, initial, memory: SlotMemory::new() });
    }
    if drafts.is_empty() {
        return Err(bad("target-name", "the linked target has no hosts"));
    }
    let ours = item.rotator.as_ref().is_some_and(|rotator| makes_its_own(connector.as_ref(), rotator));
    if ours && drafts.iter().all(|draft| !settings::has_value(&draft.initial)) {
        item.extras.insert(MANAGED.to_owned(), Value::Bool(true));
    }
    let notes = tested(ctx, &item, &mut drafts, params).await?;
    if params.is("test-only") {
        return Ok(json!({"name": item.name.as_str(), "tested": true, "notes": notes}));
    }
    let drafted = stored(ctx, item, &drafts).await?;
    let mut answer = json!({ "name": drafted.as_str() });
    if !notes.is_empty() {
        answer["notes"] = Value::from(notes);
    }
    Ok(answer)
}

fn rotator(
    ctx: &Ctx<'_>,
    resolved: &Resolved,
    rotator_type: &str,
    given: Map<String, Value>,
    params: &Params,
) -> Result<Rotator, ApiError> {
    let account = &ctx.account().settings;
    let connector = ctx.app.registry.get(&resolved.kind);
    let in_minutes = connector.is_some_and(|connector| connector.declaration().capabilities.minutes);
    let schedule = settings::schedule(&Schedule { in_minutes, ..Schedule::default() }, params, account)?;
    let (acting, acting_spelling) = acting(params)?.unwrap_or((ActingAs::User, "use-user-creds".to_owned()));
    let next = schedule::next_due(&schedule, ctx.now, ctx.now.0.unsigned_abs()).unwrap_or(None);
    Ok(Rotator {
        target: resolved.record.id,
        kind: resolved.kind.clone(),
        rotator_type: rotator_type.to_owned(),
        acting,
        acting_spelling,
        params: given,
        same_password: params.is("same-password"),
        policy: settings::policy(None, params, account)?,
        schedule,
        next_rotation_at: next,
        last_rotation_at: None,
        last_verified_at: None,
        status: RotatorStatus::NotRotated,
        last_error: String::new(),
        failures: 0,
    })
}

/// Who acts, if it was said, and the spelling to echo.
pub fn acting(params: &Params) -> Result<Option<(ActingAs, String)>, ApiError> {
    let said = ["authentication-credentials", "rotator-creds-type"].iter().find_map(|name| params.text(name));
    match said {
        None => Ok(None),
        Some(word @ ("use-user-creds" | "use-self-creds")) => Ok(Some((ActingAs::User, word.to_owned()))),
        Some(word @ "use-target-creds") => Ok(Some((ActingAs::Target, word.to_owned()))),
        Some(_) => Err(bad("authentication-credentials", "must be use-user-creds or use-target-creds")),
    }
}

/// Checks every slot's parameters and, unless told not to, tests the connection. A host of a linked target that fails is told
/// of; all of them failing is an error.
async fn tested(ctx: &Ctx<'_>, item: &Item, drafts: &mut [Draft], params: &Params) -> Result<Vec<String>, ApiError> {
    let parts = ctx.app.engine.parts();
    let target = item.rotator.as_ref().map(|rotator| rotator.target).ok_or(ApiError::Internal)?;
    let mut seats = Vec::with_capacity(drafts.len());
    for draft in drafts.iter() {
        let resolved = Resolved::load(parts, ctx.account(), target).await?;
        let seat = Seat::new(parts, ctx.account(), item, &draft.host, resolved)?.with_current(draft.initial.clone());
        let call = seat.call(0, PATIENCE);
        seat.connector.check_secret(&call, &draft.initial)?;
        seats.push(seat);
    }
    if params.is("skip-dry-run") && !params.is("test-only") {
        return Ok(Vec::new());
    }
    let mut notes = Vec::new();
    let (mut failures, mut last) = (0, None);
    for (seats, drafts) in seats.chunks(AT_ONCE).zip(drafts.chunks_mut(AT_ONCE)) {
        let runs = seats.iter().map(|seat| ctx.app.engine.dry_run(seat));
        for (draft, outcome) in drafts.iter_mut().zip(futures_util::future::join_all(runs).await) {
            let host = if draft.host.is_empty() { String::new() } else { format!("{}: ", draft.host) };
            match outcome {
                Ok(preflight) => {
                    notes.extend(preflight.notes.iter().map(|note| format!("{host}{note}")));
                    draft.memory = preflight.memory;
                }
                Err(error) => {
                    failures += 1;
                    notes.push(format!("{host}{error}"));
                    last = Some(error);
                }
            }
        }
    }
    match last {
        Some(error) if failures == seats.len() => Err(error.into()),
        _ => Ok(notes),
    }
}

/// Writes the secret with the values that are known.
async fn stored(ctx: &Ctx<'_>, mut item: Item, drafts: &[Draft]) -> Result<ItemPath, ApiError> {
    let mut sealed = Vec::new();
    for draft in drafts {
        if settings::has_value(&draft.initial) {
            let vault = &ctx.app.vault;
            sealed.push(Some(vault.seal_version(ctx.account(), &item, (&draft.host, 1), &draft.initial).await?));
            (item.current_version, item.last_version) = (1, 1);
        } else {
            sealed.push(None);
        }
    }
    let mut tx = ctx.app.store.begin().await?;
    let id = items::add(&mut tx, &item).await.map_err(|error| match error {
        StoreError::Conflict(_) => ApiError::AlreadyExists(format!("item {}", item.name)),
        other => other.into(),
    })?;
    for (draft, sealed) in drafts.iter().zip(sealed) {
        let slot = Slot { account: ctx.id().clone(), item: id, host: draft.host.clone() };
        if let Some(sealed) = sealed {
            versions::add(&mut tx, &slot, &first_version(ctx, &draft.host, sealed)).await?;
        }
        if !draft.memory.is_empty() {
            slots::save(&mut tx, &slot, &SlotFacts { memory: draft.memory.clone(), failed_logins: Vec::new() }).await?;
        }
    }
    ctx.commit(tx, item.name.as_str(), "").await?;
    Ok(item.name)
}

fn first_version(ctx: &Ctx<'_>, host: &str, sealed: Vec<u8>) -> ItemVersion {
    ItemVersion {
        version: 1,
        host: host.to_owned(),
        state: VersionState::Current,
        sealed,
        created_at: ctx.now,
        created_by: ctx.who().to_owned(),
        reason: "create".to_owned(),
        verified_at: None,
    }
}

/// Rotates now and waits for the outcome.
///
/// # Errors
/// The caller may not, or the rotation did not succeed: the error says how it stands.
pub async fn rotate(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let name = params.path("name")?;
    let item = ctx.item(&name, "update").await?;
    locks::check(ctx, &item, "update")?;
    if !item.enabled {
        return Err(ApiError::Conflict(format!("{name} is disabled; enable it with set-item-state")));
    }
    let entry = ctx.entry(name.as_str(), "ok", "requested");
    let ids = ctx.app.engine.enqueue(ctx.account(), &item, ("manual", ctx.who()), Some(entry)).await?;
    ctx.note();
    let outcomes = ctx.app.engine.wait(ctx.id(), &ids, PATIENCE).await?;
    judged(&name, &outcomes)
}

fn judged(name: &ItemPath, outcomes: &[Outcome]) -> Answer {
    let count = |stage: Stage| outcomes.iter().filter(|outcome| outcome.stage == stage).count();
    let (done, all) = (count(Stage::Done), outcomes.len());
    if done == all {
        let mut answer =
            json!({"name": name.as_str(), "rotation_ids": outcomes.iter().map(|o| o.id.0).collect::<Vec<_>>()});
        if all > 1 || outcomes.iter().any(|o| !o.host.is_empty()) {
            answer["hosts"] = outcomes.iter().map(host_outcome).collect();
        }
        return Ok(answer);
    }
    let told: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.stage != Stage::Done)
        .map(|o| if o.host.is_empty() { o.message.clone() } else { format!("{}: {}", o.host, o.message) })
        .collect();
    let told = told.join("; ");
    let (code, message, hint) = if done > 0 && outcomes.iter().all(|outcome| outcome.stage.is_final()) {
        (
            "rotation_partial",
            format!("{done} of {all} hosts of {name} were rotated; {told}"),
            "hosts that failed keep their value",
        )
    } else if count(Stage::OutOfSync) > 0 {
        (
            "rotation_out_of_sync",
            format!("no stored value opens the account of {name}; {told}"),
            "run `volvelle rotated-secret repair`",
        )
    } else if count(Stage::InDoubt) > 0 {
        (
            "rotation_in_doubt",
            format!("it is not known yet which value {name} has; {told}"),
            "nothing is lost: Volvelle goes on asking the target by itself",
        )
    } else if outcomes.iter().all(|outcome| outcome.stage.is_final()) {
        ("rotation_failed", format!("{name} was not rotated and keeps its value; {told}"), "")
    } else {
        (
            "rotation_pending",
            format!("the rotation of {name} is not over yet; {told}"),
            "it goes on by itself; `volvelle rotated-secret history` shows how far it is",
        )
    };
    Err(ApiError::Rotation { code, message, hint: hint.to_owned() })
}

fn host_outcome(outcome: &Outcome) -> Value {
    json!({"host": outcome.host, "stage": outcome.stage.as_str(), "message": outcome.message})
}

/// Asks the target whether the stored value is valid; changes nothing.
///
/// # Errors
/// The caller may not, or the secret cannot be loaded.
pub async fn verify(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let item = ctx.item(&params.path("name")?, "read").await?;
    let mut hosts = Vec::new();
    for report in ctx.app.engine.verify(ctx.account(), &item).await? {
        let (status, why, hint) = match report.outcome {
            ProbeOutcome::Opens(evidence) => ("valid", evidence_word(evidence).to_owned(), String::new()),
            ProbeOutcome::Refused(evidence) => (
                "invalid",
                format!("the target has another value ({})", evidence_word(evidence)),
                "run `volvelle rotated-secret repair`".to_owned(),
            ),
            ProbeOutcome::Unknown(failure) => ("unknown", failure.message, failure.hint),
        };
        hosts.push(json!({"host": report.host, "version": report.version, "status": status, "why": why, "hint": hint}));
    }
    Ok(json!({"name": item.name.as_str(), "hosts": hosts}))
}

/// Brings store and target together again.
///
/// # Errors
/// The caller may not, or the secret cannot be loaded.
pub async fn repair(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let item = ctx.item(&params.path("name")?, "update").await?;
    let entry = ctx.entry(item.name.as_str(), "ok", "repair");
    let given = super::rotated_update::told(ctx, &item, params).await?;
    let mut hosts = Vec::new();
    if let Some((given, entry)) = given.map(|given| (given, entry.clone())) {
        for (host, credential) in given {
            let version = ctx.app.engine.take_over(ctx.account(), &item, &host, &credential, entry.clone()).await?;
            let action = if version.is_some() { "adopted" } else { "fine" };
            hosts.push(
                json!({"host": host, "action": action, "version": version, "why": "the value given opens the account"}),
            );
        }
    } else {
        for mended in ctx.app.engine.repair(ctx.account(), &item, &entry).await? {
            hosts.push(
                json!({"host": mended.host, "action": mended.action, "version": mended.version, "why": mended.why}),
            );
        }
    }
    Ok(json!({"name": item.name.as_str(), "hosts": hosts}))
}

/// The rotations of a secret, newest first.
///
/// # Errors
/// The caller may not, or there is no such secret.
pub async fn history(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let item = ctx.item(&params.path("name")?, "list").await?;
    let limit = params.number::<u32>("limit")?.unwrap_or(50).clamp(1, 1000);
    let before = params.text("pagination-token").and_then(|token| token.parse().ok()).unwrap_or(i64::MAX);
    let before = volvelle_domain::ids::RotationId(before);
    let mut tx = ctx.app.store.read().await?;
    let page = rotations::history_before(&mut tx, ctx.id(), item.id, before, limit).await?;
    let full = page.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = page.last().filter(|_| full).map(|last| last.id.to_string()).unwrap_or_default();
    if page.iter().any(|rotation| rotation.ended_at.is_none()) {
        // Whoever watches a rotation asks again and again; the rotation leaves entries of its own.
        ctx.note();
    }
    let shown: Vec<Value> = page
        .iter()
        .map(|r| {
            json!({"id": r.id.0, "host": r.slot.host, "stage": r.state.stage.as_str(), "cause": r.cause,
                "requested_by": r.requested_by, "started_at": shape::time(r.started_at),
                "ended_at": r.ended_at.map(shape::time), "message": r.message,
                "class": r.state.class.map(volvelle_domain::connector::FailureClass::as_str),
                "stages": r.stages.iter().map(|(stage, at)| json!({"stage": stage.as_str(), "at": shape::time(*at)})).collect::<Vec<_>>()})
        })
        .collect();
    Ok(json!({"rotations": shown, "next_page": next}))
}

/// Every rotated secret in the shape of the vendor's producers.
///
/// # Errors
/// The store failed.
pub async fn producers(ctx: &Ctx<'_>) -> Answer {
    let (mut shown, mut after) = (Vec::new(), String::new());
    loop {
        let mut tx = ctx.app.store.read().await?;
        let page = items::list(&mut tx, ctx.id(), &after, 1000).await?;
        drop(tx);
        let Some(last) = page.last() else { break };
        after = last.name.to_string();
        for item in page {
            let Some(rotator) = item.rotator.as_ref().filter(|_| ctx.may(ITEMS, item.name.as_str(), "list")) else {
                continue;
            };
            shown.push(json!({"id": item.id.0, "name": item.name.as_str(), "type": rotator.kind, "active": item.enabled,
                "init": item.current_version > 0, "failure_message": rotator.last_error, "status": shape::status(rotator.status)}));
        }
    }
    Ok(json!({"producers": shown, "producers_errors": {}}))
}
