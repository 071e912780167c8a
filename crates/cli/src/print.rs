//! Answers for people and for programs.

use std::io::IsTerminal;

use clap::ArgMatches;
use serde_json::Value;

use crate::Failed;

/// Prints `error:` and `hint:`.
pub fn error(message: &str, hint: &str) {
    let (red, off) = if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        ("\x1b[31m", "\x1b[0m")
    } else {
        ("", "")
    };
    eprintln!("{red}error:{off} {message}");
    if !hint.is_empty() {
        eprintln!("hint: {hint}");
    }
}

/// Prints an answer as the flags ask.
pub fn answer(value: &Value, leaf: &ArgMatches) -> Result<(), Failed> {
    if let Some(path) = leaf.get_one::<String>("g:jsonpath") {
        let path = serde_json_path::JsonPath::parse(path).map_err(|e| Failed {
            code: 2,
            message: format!("the JSONPath cannot be read: {e}"),
            hint: String::new(),
        })?;
        for found in path.query(value).all() {
            println!("{}", text(found));
        }
    } else if leaf.get_flag("g:json") {
        println!("{value:#}");
    } else {
        prose(value);
    }
    Ok(())
}

fn prose(value: &Value) {
    match value {
        Value::Object(map) if map.is_empty() => println!("done"),
        Value::Object(map) => {
            for (name, field) in map {
                match field {
                    Value::Array(rows) if rows.iter().any(Value::is_object) => println!("{}", table(rows)),
                    other => println!("{name}: {}", text(other)),
                }
            }
        }
        Value::Array(rows) => rows.iter().for_each(|r| println!("{}", text(r))),
        other => println!("{}", text(other)),
    }
}

fn table(rows: &[Value]) -> comfy_table::Table {
    let mut columns: Vec<&String> = Vec::new();
    for (name, _) in rows.iter().filter_map(Value::as_object).flatten().filter(|(_, v)| !v.is_object() && !v.is_array())
    {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let mut out = comfy_table::Table::new();
    out.set_header(&columns);
    for row in rows {
        out.add_row(columns.iter().map(|c| row.get(c.as_str()).map(text).unwrap_or_default()));
    }
    out
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
