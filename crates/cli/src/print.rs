//! Answers for people and for programs. What must stay true: data goes to standard output, everything else to standard
//! error, and colours are used on a terminal only.

use std::io::{IsTerminal, Write};

use clap::ArgMatches;
use serde_json::{Map, Value};

use crate::failure::Failed;
use crate::{prose, table, views};

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Something failed.
    Red,
    /// Something wants attention.
    Yellow,
    /// All is well.
    Green,
}

/// Whether a stream shows colours.
pub fn colours(stream: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    stream.is_terminal() && !unwanted && std::env::var("TERM").map_or(true, |term| term != "dumb")
}

/// Prints a line of data. A reader that has gone away ends the program quietly, as it does with other tools.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a line for the person.
pub fn note(text: &str) {
    // Nobody is left to be told.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn labelled(label: &str, code: &str, text: &str) {
    if colours(&std::io::stderr()) {
        note(&format!("\x1b[{code}m{label}:\x1b[0m {text}"));
    } else {
        note(&format!("{label}: {text}"));
    }
}

/// Prints `warning:`.
pub fn warning(text: &str) {
    labelled("warning", "33", text);
}

/// Prints `hint:`.
pub fn hint(text: &str) {
    labelled("hint", "36", text);
}

/// Prints `error:` and `hint:`.
pub fn error(failed: &Failed) {
    labelled("error", "1;31", &failed.message);
    if !failed.hint.is_empty() {
        hint(&failed.hint);
    }
}

/// Whether the flags ask for the answer itself and not for prose.
pub fn is_raw(leaf: &ArgMatches) -> bool {
    leaf.get_flag("g:json") || leaf.contains_id("g:jsonpath")
}

/// Prints an answer as the flags ask.
pub fn answer(operation: &str, params: &Map<String, Value>, value: &Value, leaf: &ArgMatches) -> Result<(), Failed> {
    if is_raw(leaf) {
        return raw(value, leaf);
    }
    if let Some(text) = prose::value(operation, params, value) {
        line(&text);
    } else if let Some(text) = prose::sentence(operation, params, value) {
        line(&text);
        if let Some(rows) = table::of(operation, value) {
            line(&rows.text());
        }
    } else if let Some(rows) = table::of(operation, value) {
        if rows.is_empty() {
            note(rows.nothing);
        } else {
            line(&rows.text());
        }
    } else if let Some(text) = views::of(operation, value) {
        line(&text);
    } else if value.as_array().is_some_and(Vec::is_empty) {
        note("there are none");
    } else {
        line(&plain(value));
    }
    asides(operation, value);
    Ok(())
}

/// Prints JSON, or what the JSONPath selects.
pub fn raw(value: &Value, leaf: &ArgMatches) -> Result<(), Failed> {
    let Some(path) = leaf.get_one::<String>("g:jsonpath") else {
        line(&format!("{value:#}"));
        return Ok(());
    };
    let path = serde_json_path::JsonPath::parse(path)
        .map_err(|e| Failed::usage(format!("the JSONPath cannot be read: {e}"), "an example: '$.value.password'"))?;
    let found = path.query(value).all();
    if found.is_empty() {
        return Err(Failed::with(
            crate::failure::NOT_FOUND,
            "the JSONPath selects nothing of the answer",
            "--json shows it",
        ));
    }
    found.into_iter().for_each(|found| line(&text(found)));
    Ok(())
}

/// What an answer tells beside its data.
fn asides(operation: &str, value: &Value) {
    let texts = |name: &str| value[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    texts("warnings").for_each(|text| warning(&text));
    texts("notes").for_each(|text| note(&format!("note: {text}")));
    let hints = value["hosts"].as_array().into_iter().flatten().filter_map(|host| host["hint"].as_str());
    let mut told = Vec::new();
    for text in hints.chain(value["hint"].as_str()).filter(|text| !text.is_empty()) {
        if !told.contains(&text) {
            hint(text);
            told.push(text);
        }
    }
    if let Some(text) = prose::advice(operation, value) {
        hint(&text);
    }
    if let Some(next) = value["next_page"].as_str().filter(|next| !next.is_empty()) {
        note(&format!("there is more: --pagination-token {next}"));
    }
}

/// Whatever nothing else is known about.
fn plain(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "done".to_owned(),
        Value::Array(rows) => rows.iter().map(text).collect::<Vec<_>>().join("\n"),
        other => text(other),
    }
}

/// A value without quotation marks.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        Value::Object(_) | Value::Array(_) => format!("{value:#}"),
        other => other.to_string(),
    }
}
