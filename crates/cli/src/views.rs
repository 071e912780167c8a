//! One object, described for a person: labels and values, empty ones left out.

use jiff::Timestamp;
use serde_json::Value;

use crate::{print, table, when};

/// What an operation's answer looks like.
pub fn of(operation: &str, answer: &Value) -> Option<String> {
    let now = Timestamp::now();
    Some(match operation {
        "describe-item" => item(answer, now),
        "target-get" => target(answer, now),
        "get-role" => role(answer, now),
        "auth-method-get" => auth_method(answer, now),
        "get-account-settings" => account(answer),
        _ => return None,
    })
}

/// Lines of a description.
#[derive(Default)]
struct Sheet {
    lines: Vec<(&'static str, String)>,
    tables: Vec<String>,
}

impl Sheet {
    fn add(&mut self, label: &'static str, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.lines.push((label, text));
        }
    }

    fn table(&mut self, title: &str, field: &str, list: &Value) {
        if let Some(text) = table::inside(field, list) {
            self.tables.push(format!("\n{title}:\n{text}"));
        }
    }

    fn text(self) -> String {
        let width = self.lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 1;
        let mut out: Vec<String> =
            self.lines.iter().map(|(label, text)| format!("{:<width$}  {text}", format!("{label}:"))).collect();
        out.extend(self.tables);
        out.join("\n")
    }
}

fn yes(value: &Value) -> &'static str {
    if value == true { "yes" } else { "" }
}

fn text(value: &Value) -> String {
    print::text(value)
}

fn item(answer: &Value, now: Timestamp) -> String {
    let general = &answer["item_general_info"];
    let rotator = &general["rotated_secret_details"];
    let time = |value: &Value| when::shown(&text(value), now);
    let mut sheet = Sheet::default();
    sheet.add("name", text(&answer["item_name"]));
    sheet.add("kind", table::kind(answer));
    sheet.add("status", table::item_status(answer));
    sheet.add("last error", text(&rotator["last_rotation_error"]));
    sheet.add("description", text(&answer["item_metadata"]));
    sheet.add("tags", table::words(&answer["item_tags"]));
    if let Some(target) = answer["item_targets_assoc"].get(0) {
        sheet.add("target", format!("{} ({})", text(&target["target_name"]), text(&target["target_type"])));
    }
    let hosts = answer["linked_details"]["hosts"].as_object().into_iter().flatten();
    sheet.add("hosts", hosts.map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(", "));
    sheet.add("rotates", text(&rotator["rotator_type"]).replace("-rotator", "").replace("user-pass", "password"));
    sheet.add("account", text(&rotator["username"]));
    sheet.add("acts with", text(&rotator["rotator_creds_type"]));
    sheet.add("version", text(&answer["last_version"]));
    sheet.add("schedule", schedule(answer, rotator));
    sheet.add("last rotation", time(&answer["last_rotation_date"]));
    sheet.add("last verified", time(&rotator["last_verified_date"]));
    sheet.add("next rotation", time(&answer["next_rotation_date"]));
    sheet.add("passwords", policy(&general["password_policy"]));
    sheet.add("locking", locking(answer, general, now));
    sheet.add("protected", yes(&answer["delete_protection"]));
    sheet.add("made", time(&answer["creation_date"]));
    sheet.add("changed", time(&answer["modification_date"]));
    sheet.add("you may", table::words(&answer["client_permissions"]));
    sheet.table("versions", "item_versions", &answer["item_versions"]);
    sheet.text()
}

fn schedule(answer: &Value, rotator: &Value) -> String {
    let cron = text(&rotator["rotation_cron"]);
    if answer["auto_rotate"] != true {
        return if rotator.is_object() { "only when asked".to_owned() } else { String::new() };
    }
    if cron.is_empty() {
        return format!("every {} days at {}:00 UTC", answer["rotation_interval"], rotator["rotation_hour"]);
    }
    let zone = text(&rotator["rotation_time_zone"]);
    format!("cron {cron} {}", if zone.is_empty() { "UTC" } else { &zone })
}

fn policy(policy: &Value) -> String {
    if !policy.is_object() {
        return String::new();
    }
    let classes = [
        ("use_lower_letters", "a-z"),
        ("use_capital_letters", "A-Z"),
        ("use_numbers", "0-9"),
        ("use_special_characters", "special"),
    ];
    let used: Vec<&str> = classes.iter().filter(|(field, _)| policy[*field] == true).map(|(_, word)| *word).collect();
    format!("{} characters of {}", policy["password_length"], used.join(", "))
}

fn locking(answer: &Value, general: &Value, now: Timestamp) -> String {
    let mut parts = Vec::new();
    let lock = &answer["locking_info"];
    if lock.is_object() {
        let until = when::shown_unix(lock["expire_at"].as_i64().unwrap_or(0), now);
        parts.push(format!("checked out by {} until {until}", text(&lock["locked_by"])));
    }
    if general["lock_on_read"] == true {
        parts.push("checked out by whoever reads it".to_owned());
    }
    if general["rotate_on_unlock"] == true {
        parts.push("rotated when checked in".to_owned());
    }
    parts.join("; ")
}

fn target(answer: &Value, now: Timestamp) -> String {
    let time = |value: &Value| when::shown(&text(value), now);
    let mut sheet = Sheet::default();
    sheet.add("name", text(&answer["target_name"]));
    sheet.add("kind", text(&answer["target_type"]));
    sheet.add("halted", text(&answer["halted"]));
    sheet.add("parent", text(&answer["parent_target_name"]));
    sheet.add("description", text(&answer["comment"]));
    for pin in answer["host_keys"].as_array().into_iter().flatten() {
        sheet.add(
            "host key",
            format!("{} {} {}", text(&pin["address"]), text(&pin["algorithm"]), text(&pin["fingerprint"])),
        );
    }
    sheet.add("version", text(&answer["last_version"]));
    sheet.add("protected", yes(&answer["delete_protection"]));
    sheet.add("made", time(&answer["creation_date"]));
    sheet.add("changed", time(&answer["modification_date"]));
    sheet.add("you may", table::words(&answer["client_permissions"]));
    sheet.table("versions", "item_versions", &answer["target_versions"]);
    sheet.text()
}

fn role(answer: &Value, now: Timestamp) -> String {
    let mut sheet = Sheet::default();
    sheet.add("name", text(&answer["role_name"]));
    sheet.add("description", text(&answer["comment"]));
    sheet.add("administrator", yes(&answer["rules"]["admin"]));
    sheet.add("protected", yes(&answer["delete_protection"]));
    sheet.add("made", when::shown(&text(&answer["creation_date"]), now));
    sheet.add("changed", when::shown(&text(&answer["modification_date"]), now));
    sheet.add("you may", table::words(&answer["client_permissions"]));
    sheet.table("rules", "path_rules", &answer["rules"]["path_rules"]);
    sheet.table("given to", "role_auth_methods_assoc", &answer["role_auth_methods_assoc"]);
    sheet.text()
}

fn auth_method(answer: &Value, now: Timestamp) -> String {
    let info = &answer["access_info"];
    let ends = when::shown_unix(info["access_expires"].as_i64().unwrap_or(0), now);
    let roles = answer["auth_method_roles_assoc"].as_array().into_iter().flatten();
    let mut sheet = Sheet::default();
    sheet.add("name", text(&answer["auth_method_name"]));
    sheet.add("kind", text(&info["rules_type"]));
    sheet.add("access id", text(&answer["auth_method_access_id"]));
    sheet.add("description", text(&answer["description"]));
    sheet.add("roles", roles.map(|role| text(&role["role_name"])).collect::<Vec<_>>().join(", "));
    sheet.add("tokens live", format!("{} min", info["jwt_ttl"]));
    sheet.add("from", text(&info["cidr_whitelist"]));
    sheet.add("ends", ends);
    sheet.add("protected", yes(&answer["delete_protection"]));
    sheet.add("key set", when::shown(&text(&info["api_key_access_rules"]["modification_date"]), now));
    sheet.add("made", when::shown(&text(&answer["creation_date"]), now));
    sheet.add("changed", when::shown(&text(&answer["modification_date"]), now));
    sheet.add("you may", table::words(&answer["client_permissions"]));
    sheet.text()
}

fn account(answer: &Value) -> String {
    let (general, creds) = (&answer["general_settings"], &answer["system_access_creds_settings"]);
    let limit = &general["rotation_secret_max_interval"];
    let longest = match limit["enable"] == true {
        true => format!("{} days", limit["max_interval_by_days"]),
        false => "no limit".to_owned(),
    };
    let mut sheet = Sheet::default();
    sheet.add("account", text(&answer["account_id"]));
    sheet.add("name", text(&answer["company_name"]));
    sheet.add("versions kept", text(&answer["object_version_settings"]["max_versions"]));
    sheet.add("passwords", policy(&general["password_policy"]));
    sheet.add("rotation at least every", longest);
    sheet.add("check-out", if general["item_locking"]["enable"] == true { "allowed" } else { "switched off" });
    let ttl = |name: &str| text(&creds[name]);
    sheet.add(
        "tokens live",
        format!("{} min ({} to {})", ttl("jwt_ttl_default"), ttl("jwt_ttl_minimum"), ttl("jwt_ttl_maximum")),
    );
    sheet.text()
}
