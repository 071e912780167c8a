//! Parameters that several families share: schedules, policies, locking, tags, things that are stored and echoed.

use serde_json::{Map, Value};
use volvelle_domain::account::AccountSettings;
use volvelle_domain::connector::{Declaration, PasswordPolicy, TargetParams};
use volvelle_domain::ids::{ItemId, Uid};
use volvelle_domain::item::{Item, ItemKind, Locking, Schedule};
use volvelle_domain::password::{LONGEST, SHORTEST};
use volvelle_domain::schedule::{self, ScheduleError};
use volvelle_domain::{Credential, ItemPath};

use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::params::{Params, bad};

/// Parameters that are stored and echoed, beside those that begin with `secure-access-`.
const ECHOED: &[&str] = &[
    "item-custom-fields",
    "host-provider",
    "target",
    "rotate-after-disconnect",
    "lock-during-sra-session",
    "ara-enabled",
    "enable-agentic-runtime-authority",
    "enable-ai-quorum",
    "input-rule",
    "output-rule",
];

/// Most tags of an item.
const MOST_TAGS: usize = 100;

/// The declared parameters that were given, plain and secret ones apart.
#[must_use]
pub fn declared(schema: &schemars::Schema, params: &Params) -> TargetParams {
    let mut out = TargetParams::default();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let secret = property.get("x-secret").and_then(Value::as_bool) == Some(true);
        if says_none(property, params, name) {
            continue;
        }
        if secret {
            if let Some(value) = params.secret(name) {
                out.secret = out.secret.with(name, value);
            }
        } else if let Some(value) = params.value(name).filter(|value| !is_empty(value)) {
            out.plain.insert(name.clone(), value.clone());
        }
    }
    out
}

/// Whether a parameter was given as the word that stands for nothing said: clients send it by themselves.
fn says_none(property: &Value, params: &Params, name: &str) -> bool {
    let word = property.get("x-none").and_then(Value::as_str);
    word.is_some() && params.value(name).and_then(Value::as_str) == word
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

/// `kept` changed by what was given: an empty plain parameter is taken away, an empty secret one leaves what is there.
#[must_use]
pub fn changed(kept: &TargetParams, schema: &schemars::Schema, params: &Params) -> TargetParams {
    let given = declared(schema, params);
    let mut out = kept.clone();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        match given.plain.get(name) {
            Some(value) => {
                out.plain.insert(name.clone(), value.clone());
            }
            None if params.has(name) && !says_none(property, params, name) => {
                out.plain.remove(name);
            }
            None => {}
        }
        if let Some(value) = given.secret.field(name) {
            out.secret = out.secret.with(name, value.clone());
        }
    }
    out
}

/// Whether two sets of parameters say the same.
#[must_use]
pub fn same(a: &TargetParams, b: &TargetParams) -> bool {
    a.plain == b.plain && a.secret.ct_eq(&b.secret)
}

const MINUTES_A_DAY: u32 = 24 * 60;

/// The schedule after the parameters were applied to it.
///
/// # Errors
/// Names the parameter that is wrong.
pub fn schedule(before: &Schedule, params: &Params, account: &AccountSettings) -> Result<Schedule, ApiError> {
    let mut after = before.clone();
    if let Some(on) = params.flag("auto-rotate") {
        after.auto_rotate = on;
    }
    if let Some(days) = params.number("rotation-interval")? {
        after.interval_days = days;
    }
    if let Some(hour) = params.number("rotation-hour")? {
        after.hour = hour;
    }
    if let Some(cron) = params.value("rotation-cron").and_then(Value::as_str) {
        cron.clone_into(&mut after.cron);
    }
    if let Some(zone) = params.value("rotation-time-zone").and_then(Value::as_str) {
        zone.clone_into(&mut after.time_zone);
    }
    if params.has("rotation-event-in") {
        let days = params.list("rotation-event-in").iter().map(|text| text.trim().parse()).collect::<Result<_, _>>();
        after.event_in_days = days.map_err(|_| bad("rotation-event-in", "is a list of days"))?;
    }
    if after.auto_rotate && after.interval_days == 0 && after.cron.is_empty() {
        let days = account.max_rotation_interval.unwrap_or(30).min(30);
        after.interval_days = if after.in_minutes { days * MINUTES_A_DAY } else { days };
    }
    schedule::check(&after).map_err(|error| {
        let param = match &error {
            ScheduleError::Interval(_) | ScheduleError::Minutes(_) => "rotation-interval",
            ScheduleError::Hour(_) => "rotation-hour",
            ScheduleError::Cron(_) => "rotation-cron",
            ScheduleError::TimeZone(_) => "rotation-time-zone",
            ScheduleError::Nothing => "auto-rotate",
        };
        bad(param, error.to_string())
    })?;
    let days = if after.in_minutes { after.interval_days.div_ceil(MINUTES_A_DAY) } else { after.interval_days };
    match account.max_rotation_interval {
        Some(most) if after.auto_rotate && after.cron.is_empty() && days > most => {
            Err(bad("rotation-interval", format!("the account allows at most {most} days")))
        }
        _ => Ok(after),
    }
}

/// The password policy after the parameters were applied; `None` while nobody has said anything.
///
/// # Errors
/// The length is out of range, or no class of characters is left.
pub fn policy(
    before: Option<&PasswordPolicy>,
    params: &Params,
    account: &AccountSettings,
) -> Result<Option<PasswordPolicy>, ApiError> {
    let length: Option<u16> = params.number("password-length")?.filter(|length| *length != 0);
    let classes = ["use-lower-letters", "use-capital-letters", "use-numbers", "use-special-characters"];
    let given = classes.map(|name| params.flag(name));
    if length.is_none() && given.iter().all(Option::is_none) {
        return Ok(before.cloned());
    }
    let base = before.unwrap_or(&account.password_policy);
    let policy = PasswordPolicy {
        length: length.unwrap_or(base.length),
        lower: given[0].unwrap_or(base.lower),
        upper: given[1].unwrap_or(base.upper),
        digits: given[2].unwrap_or(base.digits),
        special: given[3].unwrap_or(base.special),
    };
    if !(SHORTEST..=LONGEST).contains(&policy.length) {
        return Err(bad("password-length", format!("must be between {SHORTEST} and {LONGEST}")));
    }
    if !(policy.lower || policy.upper || policy.digits || policy.special) {
        return Err(bad("use-lower-letters", "at least one class of characters must be allowed"));
    }
    Ok(Some(policy))
}

/// The check-out behaviour after the parameters were applied.
///
/// # Errors
/// A number is out of range.
pub fn locking(before: &Locking, params: &Params) -> Result<Locking, ApiError> {
    let mut after = before.clone();
    after.on_read = params.flag("lock-on-read").unwrap_or(after.on_read);
    after.ttl_minutes = params.number("lock-ttl")?.unwrap_or(after.ttl_minutes);
    after.rotate_on_unlock = params.flag("rotate-on-unlock").unwrap_or(after.rotate_on_unlock);
    Ok(after)
}

/// Versions to keep.
///
/// # Errors
/// The number is out of range.
pub fn max_versions(before: Option<u32>, params: &Params) -> Result<Option<u32>, ApiError> {
    match params.int("max-versions") {
        None | Some(0) => Ok(before),
        Some(n @ 1..=300) => Ok(u32::try_from(n).ok()),
        Some(_) => Err(bad("max-versions", "must be between 1 and 300")),
    }
}

/// Stores what is only echoed.
pub fn echoed(extras: &mut Map<String, Value>, params: &Params, names: impl Iterator<Item = String>) {
    for name in names.filter(|name| name.starts_with("secure-access-") || ECHOED.contains(&name.as_str())) {
        match params.value(&name) {
            Some(value) if is_empty(value) => {
                extras.remove(&name);
            }
            Some(value) => {
                extras.insert(name, value.clone());
            }
            None => {}
        }
    }
}

/// An item that is not stored yet, with a fresh uid and nothing set.
#[must_use]
pub fn new_item(ctx: &Ctx<'_>, name: ItemPath, kind: ItemKind) -> Item {
    let mut uid = [0; 16];
    ctx.app.engine.parts().entropy.fill(&mut uid);
    Item {
        account: ctx.id().clone(),
        id: ItemId(0),
        uid: Uid(uid),
        name,
        kind,
        description: String::new(),
        tags: Vec::new(),
        enabled: true,
        delete_protection: false,
        current_version: 0,
        last_version: 0,
        extras: Map::new(),
        max_versions: None,
        locking: Locking::default(),
        protection: None,
        created_at: ctx.now,
        modified_at: ctx.now,
        rotator: None,
    }
}

/// Applies what items of every kind have in common: description, tags, protection, versions, locking, echoed fields.
///
/// # Errors
/// Names the parameter that is wrong.
pub fn common(item: &mut Item, params: &Params, names: impl Iterator<Item = String>) -> Result<(), ApiError> {
    for name in ["metadata", "description", "new-metadata"] {
        if let Some(text) = params.changed_text(name) {
            text.clone_into(&mut item.description);
        }
    }
    let removed = params.list("rm-tag");
    item.tags.retain(|tag| !removed.contains(tag));
    for tag in params.list("tags").into_iter().chain(params.list("add-tag")) {
        if !item.tags.contains(&tag) {
            item.tags.push(tag);
        }
    }
    if item.tags.len() > MOST_TAGS {
        return Err(bad("tags", format!("an item has at most {MOST_TAGS} tags")));
    }
    item.delete_protection = params.flag("delete_protection").unwrap_or(item.delete_protection);
    item.max_versions = max_versions(item.max_versions, params)?;
    item.locking = locking(&item.locking, params)?;
    echoed(&mut item.extras, params, names);
    Ok(())
}

/// The kind's declaration of its secret's parameters, merged with the spellings of the generic endpoints.
#[must_use]
pub fn given_secret(declaration: &Declaration, params: &Params) -> TargetParams {
    let mut given = declared(&declaration.secret, params);
    let has = |name: &str| declaration.secret.get("properties").and_then(|p| p.get(name)).is_some();
    if let Some(user) = params.text("ssh-username").filter(|_| has("rotated-username")) {
        given.plain.entry("rotated-username").or_insert_with(|| Value::from(user));
    }
    if let Some(password) = params.secret("ssh-password").filter(|_| has("rotated-password"))
        && given.secret.field("rotated-password").is_none()
    {
        given.secret = given.secret.with("rotated-password", password);
    }
    given
}

/// Whether a credential holds more than the account's name.
#[must_use]
pub fn has_value(credential: &Credential) -> bool {
    credential.names().any(|name| name != "username" && credential.field(name).is_some())
}
