//! Lists as tables: which columns an operation has, and how they are laid out. A column without content is left out.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::print::{self, Colour};
use crate::when;

/// How a column gets its text from a row.
enum From {
    /// What the pointer names.
    Text(&'static str),
    /// An instant.
    Time(&'static str),
    /// A word whose meaning has a colour.
    Status(&'static str),
    /// Anything else.
    With(fn(&Value) -> String),
}

type Columns = &'static [(&'static str, From)];

/// Rows of one kind.
pub struct Rows {
    columns: Columns,
    rows: Vec<Value>,
    /// What is said when there are none.
    pub nothing: &'static str,
}

impl Rows {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table.
    pub fn text(&self) -> String {
        let now = Timestamp::now();
        let out = std::io::stdout();
        let width = if out.is_terminal() { Table::new().width().map(usize::from) } else { None };
        let mut cells = self.cells(now, when::shown);
        if width.is_some_and(|width| self.narrowest(&cells) > width) {
            cells = self.cells(now, when::distance);
        }
        let used: Vec<usize> = self.used(&cells).collect();
        let colours = print::colours(&out);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if colours {
            table.enforce_styling();
        }
        if width.is_some() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        let title = |n: &usize| {
            let cell = Cell::new(self.columns[*n].0);
            if colours { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(used.iter().map(title).collect::<Vec<_>>());
        for row in &cells {
            table.add_row(used.iter().map(|n| {
                let (title, from) = &self.columns[*n];
                let status = colours && (*title == "STATUS" || matches!(from, From::Status(_)));
                let cell = Cell::new(&row[*n]);
                if status { painted(cell, colour(&row[*n])) } else { cell }
            }));
        }
        for (column, n) in table.column_iter_mut().zip(&used) {
            column.set_padding((0, 2));
            if !is_text(self.columns[*n].0) {
                column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
            }
        }
        table.trim_fmt()
    }

    fn cells(&self, now: Timestamp, time: fn(&str, Timestamp) -> String) -> Vec<Vec<String>> {
        let line = |row: &Value| self.columns.iter().map(|(_, from)| content(from, row, now, time)).collect();
        self.rows.iter().map(line).collect()
    }

    /// Columns with content.
    fn used<'a>(&self, cells: &'a [Vec<String>]) -> impl Iterator<Item = usize> + 'a {
        (0..self.columns.len()).filter(|n| cells.iter().any(|row| !row[*n].is_empty()))
    }

    /// Characters a line needs when only running text is broken.
    fn narrowest(&self, cells: &[Vec<String>]) -> usize {
        let longest = |n: usize| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
        let width = |n: usize| {
            let title = self.columns[n].0;
            2 + if is_text(title) { 12 } else { longest(n).max(title.len()) }
        };
        self.used(cells).map(width).sum()
    }
}

/// Whether a column holds running text, which may be broken into lines.
fn is_text(title: &str) -> bool {
    matches!(
        title,
        "DESCRIPTION" | "MESSAGE" | "WHY" | "REASON" | "DETAIL" | "CAPABILITIES" | "HOST KEYS OF" | "HALTED"
    )
}

fn painted(cell: Cell, colour: Option<Colour>) -> Cell {
    match colour {
        Some(Colour::Red) => cell.fg(Color::Red),
        Some(Colour::Yellow) => cell.fg(Color::Yellow),
        Some(Colour::Green) => cell.fg(Color::Green),
        None => cell,
    }
}

/// The colour of a status, a stage, an outcome or a verdict.
pub fn colour(word: &str) -> Option<Colour> {
    Some(match word {
        "rotated" | "settled" | "done" | "valid" | "fine" | "adopted" | "reapplied" | "ok" | "up" => Colour::Green,
        "failed" | "overdue" | "out of sync" | "invalid" | "halted" | "denied" | "error" | "down" | "lost"
        | "stale" | "quarantined" => Colour::Red,
        "partly rotated" | "in doubt" | "unknown" | "disabled" | "rotating" | "warning" => Colour::Yellow,
        _ => return None,
    })
}

/// A wire's word for a status in plain words.
pub fn status_word(word: &str) -> &str {
    match word {
        "NotRotated" => "not rotated yet",
        "RotationInProgress" => "rotating",
        "RotationSucceeded" => "rotated",
        "RotationPartialSucceeded" => "partly rotated",
        "RotationFailed" => "failed",
        "RotationInDoubt" | "in_doubt" => "in doubt",
        "OutOfSync" | "out_of_sync" => "out of sync",
        other => other,
    }
}

fn at<'a>(row: &'a Value, pointer: &str) -> Option<&'a Value> {
    row.pointer(pointer)
}

fn content(from: &From, row: &Value, now: Timestamp, time: fn(&str, Timestamp) -> String) -> String {
    let text = |pointer: &str| at(row, pointer).map(print::text).unwrap_or_default();
    match from {
        From::Text(pointer) => text(pointer),
        From::Time(pointer) => time(&text(pointer), now),
        From::Status(pointer) => status_word(&text(pointer)).to_owned(),
        From::With(make) => make(row),
    }
}

/// A kind as a person writes it.
pub fn kind(row: &Value) -> String {
    row["item_type"].as_str().unwrap_or_default().to_lowercase().replace('_', " ")
}

/// How an item stands.
pub fn item_status(row: &Value) -> String {
    if row["is_enabled"] == false {
        return "disabled".to_owned();
    }
    at(row, "/item_general_info/rotated_secret_details/rotator_status")
        .and_then(Value::as_str)
        .map(|word| status_word(word).to_owned())
        .unwrap_or_default()
}

fn joined(row: &Value, list: &str, field: &str) -> String {
    let rows = at(row, list).and_then(Value::as_array).into_iter().flatten();
    rows.filter_map(|entry| entry[field].as_str()).collect::<Vec<_>>().join(", ")
}

const ITEMS: Columns = &[
    ("NAME", From::Text("/item_name")),
    ("KIND", From::With(kind)),
    ("STATUS", From::With(item_status)),
    ("VERSION", From::Text("/last_version")),
    ("TARGET", From::With(|row| joined(row, "/item_targets_assoc", "target_name"))),
    ("LAST ROTATION", From::Time("/last_rotation_date")),
    ("NEXT ROTATION", From::Time("/next_rotation_date")),
    ("DESCRIPTION", From::Text("/item_metadata")),
];

const FOUND: Columns = &[
    ("STATE", From::Status("/state")),
    ("NAME", From::Text("/item_name")),
    ("TARGET", From::Text("/target_name")),
    ("LAST ROTATION", From::Time("/last_rotation_date")),
    ("NEXT ROTATION", From::Time("/next_rotation_date")),
    ("WHY", From::Text("/last_rotation_error")),
];

const HOLDERS: Columns = &[
    ("HOLDER", From::Text("/index")),
    ("STATUS", From::Status("/state")),
    ("ANSWERS IN", From::With(|row| row["round_trip_us"].as_i64().map(|us| format!("{us} µs")).unwrap_or_default())),
    ("TOMBSTONES", From::Text("/tombstones")),
    (
        "PENDING",
        From::With(|row| {
            row["tombstones_pending"].as_i64().filter(|n| *n > 0).map(|n| n.to_string()).unwrap_or_default()
        }),
    ),
    ("PROGRAM", From::Text("/software")),
    ("WHY", From::Text("/detail")),
];

const READERS: Columns = &[
    ("AUTH METHOD", From::Text("/auth_method_name")),
    ("ACCESS ID", From::Text("/access_id")),
    ("CAPABILITIES", From::With(|row| words(&row["capabilities"]))),
    ("ROLES", From::With(|row| joined(row, "/reasons", "role_name"))),
];

const TARGETS: Columns = &[
    ("NAME", From::Text("/target_name")),
    ("KIND", From::Text("/target_type")),
    ("HOST KEYS OF", From::With(|row| joined(row, "/host_keys", "address"))),
    ("PARENT", From::Text("/parent_target_name")),
    ("HALTED", From::Text("/halted")),
    ("VERSION", From::Text("/last_version")),
    ("CHANGED", From::Time("/modification_date")),
    ("DESCRIPTION", From::Text("/comment")),
];

const ROLES: Columns = &[
    ("NAME", From::Text("/role_name")),
    ("RULES", From::With(|row| at(row, "/rules/path_rules").and_then(Value::as_array).map_or(0, Vec::len).to_string())),
    ("AUTH METHODS", From::With(|row| joined(row, "/role_auth_methods_assoc", "auth_method_name"))),
    ("CHANGED", From::Time("/modification_date")),
    ("DESCRIPTION", From::Text("/comment")),
];

/// The rules of one role.
const RULES: Columns = &[
    ("PATH", From::Text("/path")),
    ("RULE", From::Text("/type")),
    ("CAPABILITIES", From::With(|row| words(&row["capabilities"]))),
    ("MINUTES", From::With(|row| row["ttl"].as_i64().filter(|n| *n > 0).map(|n| n.to_string()).unwrap_or_default())),
];

/// The auth methods of one role.
const ASSOCS: Columns = &[
    ("AUTH METHOD", From::Text("/auth_method_name")),
    ("ACCESS ID", From::Text("/auth_method_access_id")),
    ("SUB-CLAIMS", From::With(|row| claims(&row["auth_method_sub_claims"]))),
    ("ASSOCIATION", From::Text("/assoc_id")),
];

const AUTH_METHODS: Columns = &[
    ("NAME", From::Text("/auth_method_name")),
    ("KIND", From::Text("/access_info/rules_type")),
    ("ACCESS ID", From::Text("/auth_method_access_id")),
    ("ROLES", From::With(|row| joined(row, "/auth_method_roles_assoc", "role_name"))),
    (
        "ENDS",
        From::With(|row| {
            when::shown_unix(row["access_info"]["access_expires"].as_i64().unwrap_or(0), Timestamp::now())
        }),
    ),
    ("CHANGED", From::Time("/modification_date")),
    ("DESCRIPTION", From::Text("/description")),
];

const ROTATIONS: Columns = &[
    ("ID", From::Text("/id")),
    ("HOST", From::Text("/host")),
    ("STAGE", From::Status("/stage")),
    ("CAUSE", From::Text("/cause")),
    ("BY", From::Text("/requested_by")),
    ("BEGAN", From::Time("/started_at")),
    (
        "TOOK",
        From::With(|row| {
            when::between(row["started_at"].as_str().unwrap_or(""), row["ended_at"].as_str().unwrap_or(""))
        }),
    ),
    ("MESSAGE", From::Text("/message")),
];

const ENTRIES: Columns = &[
    ("SEQ", From::Text("/seq")),
    ("AT", From::Time("/at")),
    ("ACTOR", From::Text("/actor")),
    ("ACTION", From::Text("/action")),
    ("OBJECT", From::Text("/object")),
    ("OUTCOME", From::Status("/outcome")),
    ("FROM", From::Text("/remote")),
    ("DETAIL", From::Text("/detail")),
];

/// One row for each host: verify, repair, and the outcome of a rotation.
const HOSTS: Columns = &[
    ("HOST", From::Text("/host")),
    ("STATUS", From::Status("/status")),
    ("STAGE", From::Status("/stage")),
    ("RESULT", From::Status("/action")),
    ("VERSION", From::Text("/version")),
    ("WHY", From::With(|row| ["why", "message"].iter().filter_map(|f| row[*f].as_str()).collect::<Vec<_>>().join(" "))),
];

const FRAGMENTS: Columns = &[
    ("HOLDER", From::Text("/index")),
    ("STATUS", From::Status("/state")),
    ("EPOCH", From::Text("/epoch")),
    ("REFRESHED", From::Time("/refreshed_at")),
    ("PROGRAM", From::Text("/software")),
    ("WHY", From::Text("/detail")),
];

const REKEYS: Columns = &[
    ("ACCOUNT", From::Text("/account")),
    ("KEY", From::Text("/new_key")),
    ("NEEDED", From::Text("/threshold")),
    ("SUITE", From::Text("/suite")),
    ("STAGE", From::Text("/stage")),
    ("DONE", From::Text("/done")),
    ("LEFT", From::Text("/left")),
    ("PER SECOND", From::Text("/per_second")),
    ("OLD KEY", From::With(|row| old_key(&row["old_key_at_holders"]))),
    ("WHY", From::Text("/message")),
];

/// What has become of the old key: once, if it is the same at every holder.
fn old_key(at: &Value) -> String {
    let mut words: Vec<String> = at.as_object().into_iter().flatten().map(|(_, word)| print::text(word)).collect();
    words.sort_unstable();
    words.dedup();
    words.join("; ")
}

const UNEXPLAINED: Columns = &[
    ("AT", From::Time("/at")),
    ("GATEWAY", From::With(|row| print::text(&row["gateway"]).chars().take(12).collect())),
    ("AS", From::Text("/principal")),
    ("OPERATION", From::With(|row| row["operation"].as_str().unwrap_or("bury").to_owned())),
    ("PATH", From::Text("/path")),
    ("VERSION", From::Text("/version")),
    ("STATUS", From::Text("/status")),
    ("HOLDERS", From::With(|row| row["logs"].as_array().map_or(0, Vec::len).to_string())),
    ("WHY", From::Text("/why")),
];

const FINDINGS: Columns =
    &[("SEVERITY", From::Status("/severity")), ("WHAT", From::Text("/message")), ("WHAT TO DO", From::Text("/hint"))];

const FAILURES: Columns = &[("NAME", From::Text("/name")), ("REASON", From::Text("/error"))];

const VERSIONS: Columns = &[
    ("VERSION", From::Text("/version")),
    ("HOST", From::Text("/host")),
    ("STATE", From::Text("/item_version_state")),
    ("MADE", From::Time("/creation_date")),
    ("BY", From::Text("/access_id")),
    ("REASON", From::Text("/reason")),
    ("VERIFIED", From::Time("/verified_at")),
];

/// Words of a list.
pub fn words(list: &Value) -> String {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn claims(claims: &Value) -> String {
    let all = claims.as_object().into_iter().flatten();
    all.map(|(name, values)| format!("{name}={}", words(values).replace(", ", ","))).collect::<Vec<_>>().join(" ")
}

/// The table an operation's answer is shown as.
pub fn of(operation: &str, answer: &Value) -> Option<Rows> {
    let (field, columns, nothing): (&str, Columns, &'static str) = match operation {
        "list-items" => ("items", ITEMS, "there are no items here"),
        "gateway-list-rotated-secrets" | "rotated-secret-list" => ("items", ITEMS, "there are no rotated secrets"),
        "item-search" => ("items", FOUND, "nothing matches"),
        "holder-list" => ("holders", HOLDERS, "there are no holders"),
        "explain-access" => ("identities", READERS, "no rule speaks about it"),
        "target-list" => ("targets", TARGETS, "there are no targets"),
        "list-roles" => ("roles", ROLES, "there are no roles"),
        "auth-method-list" => ("auth_methods", AUTH_METHODS, "there are no auth methods"),
        "rotation-list" => ("rotations", ROTATIONS, "it was never rotated"),
        "audit-list" => ("entries", ENTRIES, "there are no such entries"),
        "rotated-secret-verify" | "rotated-secret-repair" => ("hosts", HOSTS, "there is nothing to look at"),
        "gateway-rotate-secret" => {
            answer["hosts"].as_array().filter(|hosts| !hosts.is_empty())?;
            ("hosts", HOSTS, "")
        }
        "fragments-status" => ("holders", FRAGMENTS, "there are no holders"),
        "audit-reconcile" => return unexplained(answer),
        "fragments-doctor" => ("findings", FINDINGS, "nothing is wrong with the holders"),
        "fragments-refresh" | "fragments-repair" | "fragments-add-holder" | "fragments-drop-holder" => {
            return failures(&answer["failed"]);
        }
        "fragments-rekey" => match failures(&answer["failed"]) {
            Some(failed) => return Some(failed),
            None => ("rekeys", REKEYS, "no key was ever changed"),
        },
        "delete-items" => return failures(&answer["failed_deleted_items"]),
        "get-tags" => return None,
        _ => return None,
    };
    Some(Rows { columns, rows: answer[field].as_array().cloned().unwrap_or_default(), nothing })
}

/// Evaluations and burials that nothing explains.
fn unexplained(answer: &Value) -> Option<Rows> {
    let lists = ["unexplained", "unexplained_burials"].into_iter();
    let rows: Vec<Value> = lists.flat_map(|list| answer[list].as_array().cloned().unwrap_or_default()).collect();
    if rows.is_empty() { None } else { Some(Rows { columns: UNEXPLAINED, rows, nothing: "" }) }
}

/// Names with the reasons why they failed; nothing when there are none.
pub fn failures(map: &Value) -> Option<Rows> {
    let rows: Vec<Value> =
        map.as_object()?.iter().map(|(name, why)| json!({"name": name, "error": print::text(why)})).collect();
    if rows.is_empty() { None } else { Some(Rows { columns: FAILURES, rows, nothing: "" }) }
}

/// The newest rotation of each host.
pub fn by_host(rotations: &[Value]) -> Rows {
    let mut rows: Vec<Value> = Vec::new();
    for rotation in rotations {
        if !rows.iter().any(|row| row["host"] == rotation["host"]) {
            rows.push(json!({"host": rotation["host"], "stage": rotation["stage"], "message": rotation["message"]}));
        }
    }
    rows.sort_by_key(|row| print::text(&row["host"]));
    Rows { columns: HOSTS, rows, nothing: "" }
}

/// A list inside an object that is described.
pub fn inside(field: &str, list: &Value) -> Option<String> {
    let columns = match field {
        "item_versions" => VERSIONS,
        "path_rules" => RULES,
        "role_auth_methods_assoc" => ASSOCS,
        _ => return None,
    };
    let rows = list.as_array().filter(|rows| !rows.is_empty())?.clone();
    Some(Rows { columns, rows, nothing: "" }.text())
}
