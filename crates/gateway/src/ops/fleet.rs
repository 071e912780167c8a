//! All secrets at once: the list one searches, and the picture one opens in the morning.
//!
//! What must stay true: nobody is told, or counted, an item he may not know of.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};
use volvelle_domain::ids::{ItemId, Micros, TargetId};
use volvelle_domain::item::{Item, ItemKind};
use volvelle_domain::rules;
use volvelle_store::fleet::{self, Direction, Found, Grain, Hour, STATES, Sort, Wanted};
use volvelle_store::{Tx, items, keys, rotations, targets};

use super::Answer;
use crate::ctx::{AUDIT, Ctx, ITEMS, TARGETS};
use crate::error::ApiError;
use crate::params::{Params, bad};
use crate::shape;

/// Items of one page.
const PAGE: u32 = 500;
/// Items looked at for one page, for callers who may not know of all of them.
const LOOK: u32 = 20_000;
/// Names read at a time by a walk over everything.
const CHUNK: u32 = 5000;
/// Items in trouble that are told.
const MOST_TROUBLE: u32 = 50;
/// Folders of one answer.
const MOST_FOLDERS: usize = 500;
/// States that need a person or a look.
const TROUBLE: &[&str] = &["out_of_sync", "in_doubt", "failed", "overdue"];

/// Finds items.
///
/// # Errors
/// A parameter is wrong, or the store failed.
pub async fn search(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let mut tx = ctx.app.store.read().await?;
    let Some(wanted) = wanted(ctx, &mut tx, params).await? else {
        return Ok(json!({"items": [], "total": 0, "states": {}, "next_page": ""}));
    };
    let limit = params.number::<u32>("limit")?.unwrap_or(100).clamp(1, PAGE);
    let from: u32 = params.text("pagination-token").and_then(|token| token.parse().ok()).unwrap_or(0);
    let page = page(ctx, &mut tx, &wanted, (from, limit)).await?;
    let mut known = HashMap::new();
    let mut shown = Vec::with_capacity(page.found.len());
    for found in &page.found {
        let item = items::load(&mut tx, ctx.id(), found.id).await?;
        shown.push(line(ctx, &mut tx, &item, &found.state, &mut known).await?);
    }
    let mut answer = json!({"items": shown, "next_page": page.next.map(|n| n.to_string()).unwrap_or_default()});
    if from == 0 && sees_all(ctx) {
        let states = fleet::tally(&mut tx, ctx.id(), &wanted, ctx.now).await?;
        answer["total"] = Value::from(states.iter().map(|(_, count)| count).sum::<i64>());
        answer["states"] =
            states.into_iter().map(|(state, count)| (state, Value::from(count))).collect::<Map<_, _>>().into();
    }
    Ok(answer)
}

/// What the parameters ask for; nothing if they name a target that the caller cannot find.
async fn wanted(ctx: &Ctx<'_>, tx: &mut Tx, params: &Params) -> Result<Option<Wanted>, ApiError> {
    let mut wanted = Wanted {
        text: params.text("filter").unwrap_or_default().to_owned(),
        folder: params.text("path").map(folder).unwrap_or_default(),
        states: params.list("state"),
        kinds: params.list("kind"),
        tag: params.text("tag").unwrap_or_default().to_owned(),
        sort: match params.text("sort").unwrap_or("name") {
            "name" => Sort::Name,
            "next" => Sort::Next,
            "last" => Sort::Last,
            "state" => Sort::State,
            "modified" => Sort::Modified,
            _ => return Err(bad("sort", "must be name, next, last, state or modified")),
        },
        direction: if params.is("descending") { Direction::Down } else { Direction::Up },
        ..Wanted::default()
    };
    if let Some(wrong) = wanted.states.iter().find(|state| !STATES.contains(&state.as_str())) {
        return Err(bad("state", format!("'{wrong}' is none of {}", STATES.join(", "))));
    }
    wanted.item = match params.list("type").first().map(|kind| kind.replace('_', "-").to_lowercase()) {
        None => None,
        Some(kind) if kind == "rotated-secret" => Some(ItemKind::RotatedSecret),
        Some(kind) if kind == "static-secret" => Some(ItemKind::StaticSecret),
        Some(kind) if kind == "key" => Some(ItemKind::ProtectionKey),
        Some(_) => return Err(bad("type", "must be rotated-secret, static-secret or key")),
    };
    if let Some(name) = params.opt_path("target-name")? {
        let target = targets::find(tx, ctx.id(), &name).await?;
        match target.filter(|target| ctx.may(TARGETS, target.name.as_str(), "list")) {
            Some(target) => wanted.target = Some(target.id),
            None => return Ok(None),
        }
    }
    Ok(Some(wanted))
}

/// A folder with a slash on both sides; the root is no folder.
fn folder(text: &str) -> String {
    match text.trim_matches('/') {
        "" => String::new(),
        inner => format!("/{inner}/"),
    }
}

/// Whether the caller may know of every item, so that the database may count for him.
fn sees_all(ctx: &Ctx<'_>) -> bool {
    let everything = volvelle_domain::identity::RoleRule {
        path: "/*".to_owned(),
        rule_type: ITEMS.to_owned(),
        capabilities: vec!["list".to_owned()],
        ttl_minutes: 0,
        set_at: ctx.now,
    };
    rules::covers(&ctx.view.roles, &ctx.asker(), &everything)
}

struct Page {
    found: Vec<Found>,
    next: Option<u32>,
}

/// One page of what the caller may know of, and where the next one begins.
async fn page(ctx: &Ctx<'_>, tx: &mut Tx, wanted: &Wanted, (from, limit): (u32, u32)) -> Result<Page, ApiError> {
    let (all, full) = (sees_all(ctx), usize::try_from(limit).unwrap_or(usize::MAX));
    let step = if all { limit + 1 } else { 1000 };
    let (mut at, mut found) = (from, Vec::new());
    while at - from <= LOOK {
        let rows = fleet::find(tx, ctx.id(), wanted, ctx.now, (at, step)).await?;
        let ended = rows.len() < usize::try_from(step).unwrap_or(usize::MAX);
        for row in rows {
            if found.len() == full {
                return Ok(Page { found, next: Some(at) });
            }
            at += 1;
            if all || ctx.may(ITEMS, &row.name, "list") {
                found.push(row);
            }
        }
        if ended {
            return Ok(Page { found, next: None });
        }
    }
    Ok(Page { found, next: Some(at) })
}

/// One line of a list.
async fn line(
    ctx: &Ctx<'_>,
    tx: &mut Tx,
    item: &Item,
    state: &str,
    known: &mut HashMap<TargetId, (String, String)>,
) -> Result<Value, ApiError> {
    let mut out = json!({
        "item_name": item.name.as_str(),
        "item_id": item.id.0,
        "item_type": shape::kind(item.kind),
        "state": state,
        "item_tags": item.tags,
        "creation_date": shape::time(item.created_at),
        "modification_date": shape::time(item.modified_at),
    });
    if let Some(rotator) = &item.rotator {
        let (target, halted) = match known.entry(rotator.target) {
            Entry::Occupied(there) => &*there.into_mut(),
            Entry::Vacant(place) => {
                let target = targets::load(tx, ctx.id(), rotator.target).await?;
                &*place.insert((target.name.to_string(), target.halted))
            }
        };
        out["target_name"] = Value::from(target.as_str());
        out["kind"] = Value::from(rotator.kind.as_str());
        out["rotator_type"] = Value::from(rotator.rotator_type.as_str());
        out["status"] = Value::from(shape::status(rotator.status));
        out["auto_rotate"] = Value::from(rotator.schedule.auto_rotate);
        out["rotation_interval"] = Value::from(rotator.schedule.interval_days);
        out["last_rotation_date"] = time(rotator.last_rotation_at);
        out["last_verified_date"] = time(rotator.last_verified_at);
        out["next_rotation_date"] = time(rotator.next_rotation_at.filter(|_| item.enabled));
        out["last_rotation_error"] = Value::from(rotator.last_error.as_str());
        if !halted.is_empty() {
            out["target_halted"] = Value::from(halted.as_str());
        }
    }
    Ok(out)
}

fn time(at: Option<Micros>) -> Value {
    at.map_or(Value::Null, |at| Value::from(shape::time(at)))
}

/// Shows how all secrets are doing.
///
/// # Errors
/// A parameter is wrong, or the store failed.
pub async fn overview(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let days = params.number::<u32>("days")?.unwrap_or(30);
    if !(1..=90).contains(&days) {
        return Err(bad("days", "must be between 1 and 90"));
    }
    let span = i64::from(days) * 86_400;
    let mut tx = ctx.app.store.read().await?;
    let view = Visible::load(ctx, &mut tx).await?;
    let since = ctx.now.plus_seconds(-span);
    let past = fleet::past(&mut tx, ctx.id(), since, view.grain()).await?;
    let coming = fleet::coming(&mut tx, ctx.id(), (ctx.now, ctx.now.plus_seconds(span)), view.grain()).await?;
    let (mut known, mut trouble) = (HashMap::new(), Vec::new());
    let states = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let in_trouble = Wanted { states: states(TROUBLE), sort: Sort::State, ..Wanted::default() };
    let troubled =
        if view.has(TROUBLE) { page(ctx, &mut tx, &in_trouble, (0, MOST_TROUBLE)).await?.found } else { vec![] };
    for found in troubled {
        let item = items::load(&mut tx, ctx.id(), found.id).await?;
        trouble.push(line(ctx, &mut tx, &item, &found.state, &mut known).await?);
    }
    let rotated = Some(ItemKind::RotatedSecret);
    let enabled = states(&["out_of_sync", "in_doubt", "failed", "overdue", "rotating", "new", "settled"]);
    let by_age = Wanted { item: rotated, states: enabled, sort: Sort::Last, ..Wanted::default() };
    let oldest = match page(ctx, &mut tx, &by_age, (0, 1)).await?.found.pop() {
        None => Value::Null,
        Some(found) => {
            let item = items::load(&mut tx, ctx.id(), found.id).await?;
            line(ctx, &mut tx, &item, &found.state, &mut known).await?
        }
    };
    let running = Wanted { states: states(&["rotating"]), ..Wanted::default() };
    let rotating = if view.has(&["rotating"]) { rotating(ctx, &mut tx, &running).await? } else { Vec::new() };
    let known = |target: &volvelle_domain::target::Target| ctx.may(TARGETS, target.name.as_str(), "list");
    let any_target = targets::list(&mut tx, ctx.id(), "", 1000).await?.iter().any(known);
    let absent = super::keys::absent(ctx, &keys::with_customer(&mut tx).await?);
    Ok(json!({"states": view.states, "oldest": oldest, "trouble": trouble, "rotating": rotating,
        "past": view.sums(&past), "coming": view.sums(&coming), "has_targets": any_target,
        "absent_customer_fragments": absent}))
}

async fn rotating(ctx: &Ctx<'_>, tx: &mut Tx, wanted: &Wanted) -> Result<Vec<Value>, ApiError> {
    let mut out = Vec::new();
    for found in page(ctx, tx, wanted, (0, 20)).await?.found {
        for open in rotations::open_of(tx, ctx.id(), found.id).await? {
            out.push(json!({"item_name": found.name, "host": open.slot.host, "stage": open.state.stage.as_str(),
                "started_at": shape::time(open.started_at)}));
        }
    }
    Ok(out)
}

/// What of the account the caller may count.
struct Visible {
    states: BTreeMap<String, i64>,
    /// The items, unless they are all.
    only: Option<HashSet<ItemId>>,
}

impl Visible {
    async fn load(ctx: &Ctx<'_>, tx: &mut Tx) -> Result<Self, ApiError> {
        if sees_all(ctx) {
            let states = fleet::tally(tx, ctx.id(), &Wanted::default(), ctx.now).await?;
            return Ok(Self { states: states.into_iter().collect(), only: None });
        }
        let (mut states, mut only, mut wanted) = (BTreeMap::new(), HashSet::new(), Wanted::default());
        loop {
            let rows = fleet::find(tx, ctx.id(), &wanted, ctx.now, (0, CHUNK)).await?;
            let Some(last) = rows.last() else { break };
            wanted.after.clone_from(&last.name);
            for row in rows.iter().filter(|row| ctx.may(ITEMS, &row.name, "list")) {
                *states.entry(row.state.clone()).or_insert(0) += 1;
                only.insert(row.id);
            }
        }
        Ok(Self { states, only: Some(only) })
    }

    /// Whether something is in one of these states.
    fn has(&self, states: &[&str]) -> bool {
        states.iter().any(|state| self.states.contains_key(*state))
    }

    const fn grain(&self) -> Grain {
        if self.only.is_some() { Grain::Item } else { Grain::Account }
    }

    /// Hours with their outcomes, over the items that may be counted.
    fn sums(&self, hours: &[Hour]) -> Vec<Value> {
        let mut sums: BTreeMap<(i64, &str), i64> = BTreeMap::new();
        for hour in hours.iter().filter(|hour| self.only.as_ref().is_none_or(|only| only.contains(&hour.item))) {
            *sums.entry((hour.at, &hour.outcome)).or_insert(0) += hour.count;
        }
        sums.into_iter().map(|((at, outcome), count)| json!({"at": at, "outcome": outcome, "count": count})).collect()
    }
}

/// Lists the folders right below a folder in which the caller may know of something.
///
/// # Errors
/// The store failed.
pub async fn folders(ctx: &Ctx<'_>, params: &Params) -> Answer {
    let base = params.text("path").map(folder).filter(|base| !base.is_empty()).unwrap_or_else(|| "/".to_owned());
    let (all, mut looked) = (sees_all(ctx), 0_usize);
    let mut from = params.text("pagination-token").unwrap_or_default().to_owned();
    let (mut found, mut next) = (Vec::new(), String::new());
    let mut tx = ctx.app.store.read().await?;
    loop {
        let step = if all { 1 } else { 1000 };
        let names = fleet::deeper(&mut tx, ctx.id(), &base, &from, step).await?;
        let Some(last) = names.last() else { break };
        looked += names.len();
        let mut jump = None;
        for name in names.iter().filter(|name| all || ctx.may(ITEMS, name, "list")) {
            let Some((inner, _)) = name.strip_prefix(&base).and_then(|rest| rest.split_once('/')) else { continue };
            found.push(format!("{base}{inner}/"));
            // Nothing in the folder sorts behind this letter.
            jump = Some(format!("{base}{inner}/\u{10ffff}"));
            break;
        }
        from = jump.unwrap_or_else(|| format!("{last}\u{1}"));
        if found.len() >= MOST_FOLDERS || looked > LOOK as usize {
            next = from;
            break;
        }
    }
    Ok(json!({"folders": found, "next_page": next}))
}

/// Lists the fragment holders.
///
/// # Errors
/// The caller may read neither the gateways' reports nor the audit log.
pub async fn holders(ctx: &Ctx<'_>) -> Answer {
    if !ctx.may("gw-reports-rule", "/", "read") {
        ctx.require(AUDIT, "/", "read")?;
    }
    let holders: Vec<Value> = ctx
        .app
        .vault
        .quorum()
        .status()
        .await
        .into_iter()
        .map(|holder| {
            let round_trip = holder.round_trip.and_then(|time| u64::try_from(time.as_micros()).ok());
            json!({"index": holder.index, "state": holder.state, "round_trip_us": round_trip,
                "software": holder.software, "detail": holder.detail})
        })
        .collect();
    Ok(json!({ "holders": holders }))
}
