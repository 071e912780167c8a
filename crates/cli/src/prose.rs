//! The sentence an operation is answered with, in the vendor's words where they are known, and what an answer means for the
//! exit code.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::failure::{ERROR, Failed, ROTATION, UNREACHABLE};
use crate::{print, table, when};

/// What value getters print: pretty JSON, or the bare value of one static secret.
pub fn value(operation: &str, params: &Map<String, Value>, value: &Value) -> Option<String> {
    match operation {
        "get-secret-value" if params["names"].as_array().is_some_and(|names| names.len() == 1) => {
            let map = value.as_object()?;
            map.values().next().filter(|_| map.len() == 1).map(print::text)
        }
        "describe-permissions" => {
            let may = value["client_permissions"].as_array().into_iter().flatten().map(print::text);
            Some(may.collect::<Vec<_>>().join("\n"))
        }
        "rotated-secret-get-value" | "get-rotated-secret-value" | "target-get-details" | "get-secret-value" => {
            Some(format!("{value:#}"))
        }
        _ => None,
    }
}

/// The sentence.
pub fn sentence(operation: &str, params: &Map<String, Value>, answer: &Value) -> Option<String> {
    let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
    target(operation, name, answer)
        .or_else(|| secret(operation, name, params, answer))
        .or_else(|| access(operation, name, params, answer))
}

fn target(operation: &str, name: &str, answer: &Value) -> Option<String> {
    let pins = |word: &str, field: &str| {
        let pins = answer[field].as_array().into_iter().flatten();
        let line = |pin: &Value| {
            let part = |name: &str| pin[name].as_str().unwrap_or_default().to_owned();
            format!("\n{word} host key of {}: {} {}", part("address"), part("algorithm"), part("fingerprint"))
        };
        pins.map(line).collect::<String>()
    };
    Some(match operation {
        op if op.starts_with("target-create-") => {
            format!("A new target named {name} was successfully created{}", pins("learned", "host_keys"))
        }
        op if op.starts_with("target-update-") => format!("Target {name} was successfully updated"),
        "target-delete" => format!("Target {name} was successfully deleted"),
        "target-trust-host-key" if answer["accepted"] == true => {
            format!("Target {name} trusts what was shown{}", pins("accepted", "pins"))
        }
        "target-trust-host-key" => format!("Target {name} shows now{}", pins("not accepted yet:", "pins")),
        _ => return None,
    })
}

fn secret(operation: &str, name: &str, params: &Map<String, Value>, answer: &Value) -> Option<String> {
    Some(match operation {
        "create-rotated-secret" => format!("A new rotated secret named {name} was successfully created"),
        op if op.starts_with("rotated-secret-create-") => {
            format!("A new rotated secret named {name} was successfully created")
        }
        "update-rotated-secret" | "gateway-update-item" => format!("Rotated secret {name} was successfully updated"),
        op if op.starts_with("rotated-secret-update-") => format!("Rotated secret {name} was successfully updated"),
        "gateway-rotate-secret" => format!("Rotated secret {name} was successfully rotated"),
        "rotated-secret-delete" | "delete-item" => match answer["version_deleted"].as_i64() {
            Some(version) if version >= 0 => format!("Version {version} of item {name} was successfully deleted"),
            _ => format!("Item {name} was successfully deleted"),
        },
        "delete-items" => {
            let gone = answer["deleted_items"].as_array().map_or(0, Vec::len);
            let failed = answer["failed_deleted_items"].as_object().map_or(0, Map::len);
            format!("{gone} items were deleted, {failed} were not")
        }
        "update-item" => format!("Item {name} was successfully updated"),
        "set-item-state" => {
            let state = params.get("desired-state").map(print::text).unwrap_or_default().to_lowercase();
            format!("Item {name} is {state} now")
        }
        "lock-item" => format!("Item {name} was successfully locked"),
        "unlock-item" => format!("Item {name} was successfully unlocked"),
        "create-secret" => format!("A new secret named {name} was successfully created"),
        "update-secret-val" => format!("Secret {name} was successfully updated"),
        "rollback-secret" => format!("Secret {name} was rolled back; its current version is {}", answer["version"]),
        _ => return None,
    })
}

fn access(operation: &str, name: &str, params: &Map<String, Value>, answer: &Value) -> Option<String> {
    let param = |name: &str| params.get(name).map(print::text).unwrap_or_default();
    let field = |name: &str| answer[name].as_str().unwrap_or_default();
    Some(match operation {
        "auth" => format!("Authentication succeeded.\nToken: {}", field("token")),
        "validate-token" => {
            format!("The token is valid until {}", when::shown(field("expiration"), Timestamp::now()))
        }
        "revoke-token" => "The token was revoked".to_owned(),
        "auth-method-create-api-key" => format!(
            "A new auth method named {name} was successfully created\n- Access ID: {}\n- Access Key: {}",
            field("access_id"),
            field("access_key")
        ),
        "auth-method-update-api-key" => format!("Auth method {name} was successfully updated"),
        "auth-method-delete" => format!("Auth method {name} was successfully deleted"),
        "reset-access-key" => {
            format!("The access key of {name} was replaced\n- Access Key: {}", field("access_key"))
        }
        "create-role" => format!("A new role named {name} was successfully created"),
        "update-role" => format!("Role {name} was successfully updated"),
        "delete-role" => format!("Role {name} was successfully deleted"),
        "set-role-rule" => format!("The requested rule was successfully set to the role {}", param("role-name")),
        "delete-role-rule" => {
            format!("The requested rule was successfully deleted from the role {}", param("role-name"))
        }
        "assoc-role-am" => format!(
            "The role {} was successfully associated with the auth method {}\n- Association ID: {}",
            param("role-name"),
            param("am-name"),
            field("assoc_id")
        ),
        "update-assoc" => format!("The association {} was successfully updated", param("assoc-id")),
        "delete-assoc" => format!("The association {} was successfully deleted", param("assoc-id")),
        "account-create" => format!(
            "A new account named {name} was successfully created\n- Account ID: {}\n- Access ID: {}\n- Access Key: {}",
            field("account_id"),
            field("access_id"),
            field("access_key")
        ),
        "update-account-settings" => "The account's settings were successfully updated".to_owned(),
        "fragments-refresh" => {
            format!("The fragments of {} keys were refreshed; the newest epoch is {}", answer["keys"], answer["epoch"])
        }
        "fragments-add-holder" => format!(
            "Holder {} has its fragments of {} keys, and all were refreshed; the newest epoch is {}",
            answer["holder"], answer["restored"], answer["epoch"]
        ),
        "fragments-drop-holder" => format!(
            "The fragments of {} keys were refreshed; what holder {} kept is worth nothing",
            answer["keys"], answer["holder"]
        ),
        "fragments-status" => return keys_and_changes(answer),
        "fragments-rekey" if params.contains_key("status") || table::failures(&answer["failed"]).is_some() => {
            return None;
        }
        "fragments-rekey" if params.contains_key("retire") => {
            "The old keys are retired: each holder destroys them after its grace unless something is opened with them"
                .to_owned()
        }
        "fragments-rekey" => format!(
            "{} accounts get another key, and new records have it; the others are wrapped under it in the background",
            answer["begun"]
        ),
        "fragments-repair" => format!(
            "Holder {} was repaired: {} fragments restored, {} were sound",
            answer["holder"], answer["restored"], answer["sound"]
        ),
        "audit-reconcile" => {
            let list = |field: &str| answer[field].as_array().map_or(0, Vec::len);
            let mut text = format!(
                "{} evaluations since {}: {} explained, {} unexplained; {} burials, {} unexplained; {} reads, {} without an evaluation",
                answer["evaluations"],
                field("since"),
                answer["explained"],
                list("unexplained"),
                answer["burials"],
                list("unexplained_burials"),
                answer["reads"],
                list("reads_without_evaluation"),
            );
            for log in answer["logs"].as_array().into_iter().flatten().filter(|log| log["valid"] == false) {
                text.push_str(&format!("\nThe log {} cannot be trusted: {}", log["log"], log["error"]));
            }
            if answer["audit_valid"] == false {
                text.push_str(&format!("\nThe audit trail is broken at entry {}", answer["audit_broken_at"]));
            }
            text
        }
        "audit-verify" if answer["valid"] == true => {
            format!("The audit trail is whole: {} entries, each chained to the one before", answer["entries"])
        }
        "audit-verify" => "The audit trail was tampered with".to_owned(),
        _ => return None,
    })
}

/// Which keys accounts have, and how far changes of them are, if there are any.
fn keys_and_changes(answer: &Value) -> Option<String> {
    let mut counts: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for key in answer["keys"].as_array().into_iter().flatten() {
        if let (Some(suite), Some(threshold)) = (key["suite"].as_str(), key["threshold"].as_u64()) {
            *counts.entry((suite, threshold)).or_default() += 1;
        }
    }
    let keys = counts.iter().map(|((suite, threshold), count)| {
        let accounts =
            if *count == 1 { "1 account has a key".to_owned() } else { format!("{count} accounts have keys") };
        format!("{accounts} of suite {suite} of which {threshold} holders are needed")
    });
    let lines: Vec<String> = keys.chain(changing(answer)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// How far changes of keys are, if there are any.
fn changing(answer: &Value) -> Option<String> {
    let under_way = |rekey: &&Value| matches!(rekey["stage"].as_str(), Some("generate" | "wrap"));
    let rekeys: Vec<&Value> = answer["rekeys"].as_array().into_iter().flatten().filter(under_way).collect();
    let sum = |field: &str| rekeys.iter().filter_map(|rekey| rekey[field].as_i64()).sum::<i64>();
    let (done, left) = (sum("done"), sum("left"));
    (!rekeys.is_empty())
        .then(|| format!("{} accounts get another key: {done} records are done and {left} are left", rekeys.len()))
}

/// What the person should do next.
pub fn advice(operation: &str, answer: &Value) -> Option<String> {
    let learned = answer["host_keys"].as_array().is_some_and(|keys| !keys.is_empty());
    match operation {
        op if op.starts_with("target-create-") && learned => Some(
            "the host key was taken on trust; compare its fingerprint on the host itself: \
             ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
                .to_owned(),
        ),
        "fragments-rekey"
            if answer["rekeys"].as_array().into_iter().flatten().any(|rekey| rekey["stage"] == "wrapped") =>
        {
            Some("back the database up, then run `volvelle fragments rekey --retire`".to_owned())
        }
        "auth-method-create-api-key" | "reset-access-key" | "account-create" => {
            Some("keep the access key now: it is shown this once".to_owned())
        }
        _ => None,
    }
}

/// What an answer means for the exit code.
pub fn verdict(operation: &str, answer: &Value) -> Result<(), Failed> {
    let hosts = || answer["hosts"].as_array().into_iter().flatten();
    let name = answer["name"].as_str().unwrap_or_default();
    match operation {
        "rotated-secret-verify" if hosts().any(|h| h["status"] == "invalid") => {
            Err(Failed::with(ROTATION, format!("the stored value of {name} does not open the account"), ""))
        }
        "rotated-secret-verify" if hosts().any(|h| h["status"] == "unknown") => Err(Failed::with(
            UNREACHABLE,
            format!("it could not be found out whether the value of {name} is valid"),
            "",
        )),
        "rotated-secret-repair" if hosts().any(|h| h["action"] == "out_of_sync") => {
            Err(Failed::with(ROTATION, format!("{name} is still out of sync"), ""))
        }
        "audit-verify" if answer["valid"] == false => {
            let hint = "entries from there on cannot be trusted; compare with copies kept elsewhere";
            Err(Failed::with(ERROR, format!("the chain is broken at entry {}", answer["broken_at"]), hint))
        }
        op if op.starts_with("fragments-") && answer["failed"].as_object().is_some_and(|f| !f.is_empty()) => {
            Err(Failed::with(UNREACHABLE, "not every key was done", "run `volvelle fragments status`"))
        }
        "fragments-doctor" if answer["findings"].as_array().into_iter().flatten().any(|f| f["severity"] == "error") => {
            Err(Failed::with(UNREACHABLE, "a holder needs help", ""))
        }
        "delete-items" if answer["failed_deleted_items"].as_object().is_some_and(|failed| !failed.is_empty()) => {
            Err(Failed::with(ERROR, "not everything was deleted", ""))
        }
        _ => Ok(()),
    }
}
