//! Parameters from flags; secret ones also from a prompt, a file or standard input.

use std::cell::Cell;
use std::io::{IsTerminal, Read};

use clap::ArgMatches;
use serde_json::{Map, Value};
use volvelle_api::Operation;

use crate::failure::Failed;
use crate::flags::{HIDDEN, is_pairs, is_words};
use crate::print;

/// Longest secret read from a file or standard input.
const LONGEST: u64 = 1 << 20;

thread_local! {
    /// Standard input can be read once only.
    static STDIN_READ: Cell<bool> = const { Cell::new(false) };
}

/// The body of `op` from the flags given.
pub fn collect(op: &Operation, leaf: &ArgMatches) -> Result<Map<String, Value>, Failed> {
    let mut out = Map::new();
    let Some(properties) = op.params.get("properties").and_then(Value::as_object) else { return Ok(out) };
    let required = op.params.get("required").and_then(Value::as_array);
    for (name, property) in properties.iter().filter(|(n, _)| !HIDDEN.contains(&n.as_str())) {
        let values: Vec<String> = leaf.get_many::<String>(name).into_iter().flatten().cloned().collect();
        let secret = property.get("x-secret").is_some();
        let wanted = secret && required.is_some_and(|r| r.iter().any(|n| n == name));
        let value = match values.as_slice() {
            [] if wanted => Value::String(read(name, "?")?),
            [] => continue,
            [one] if secret => Value::String(read(name, one)?),
            many if property["type"] == "array" => Value::from(split(name, many)),
            many if is_pairs(property) => pairs(name, many)?,
            many => Value::from(many[many.len() - 1].clone()),
        };
        out.insert(name.clone(), value);
    }
    volvelle_api::quirks::normalise(&out, &op.params).map_err(|e| {
        Failed::usage(format!("--{} {}", e.param.replace('_', "-"), e.message), "--help lists the parameters")
    })
}

/// Lists of plain words may also be given with commas.
fn split(name: &str, values: &[String]) -> Vec<String> {
    if !is_words(name) {
        return values.to_vec();
    }
    let words = values.iter().flat_map(|value| value.split(','));
    words.map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// `NAME=TEXT` as often as wanted, or one JSON object.
fn pairs(name: &str, values: &[String]) -> Result<Value, Failed> {
    if let [one] = values
        && one.trim_start().starts_with('{')
    {
        return Ok(Value::from(one.as_str()));
    }
    let mut out = Map::new();
    for value in values {
        let (key, text) = value
            .split_once('=')
            .ok_or_else(|| Failed::usage(format!("--{name} is NAME=TEXT, or a JSON object"), "it may be repeated"))?;
        out.insert(key.to_owned(), Value::from(text));
    }
    Ok(Value::Object(out))
}

/// Reads a secret: `-` is standard input, `@FILE` a file, `?` a prompt, all else the value itself.
pub fn read(name: &str, given: &str) -> Result<String, Failed> {
    match given {
        "-" => from_stdin(name),
        "?" => prompt(name),
        file if file.starts_with('@') => from_file(name, &file[1..]),
        value => {
            print::warning(&format!(
                "--{name} on the command line is visible to other users of this machine; use - (standard input), @FILE or ? \
                 (prompt)"
            ));
            Ok(value.to_owned())
        }
    }
}

fn from_stdin(name: &str) -> Result<String, Failed> {
    if STDIN_READ.replace(true) {
        return Err(Failed::usage(
            format!("--{name} cannot be read from standard input, which another parameter has read already"),
            "use @FILE for one of them",
        ));
    }
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST).read_to_string(&mut text);
    read.map_err(|_| Failed::new(format!("--{name} cannot be read from standard input: it is no text"), ""))?;
    Ok(trimmed(text))
}

fn from_file(name: &str, file: &str) -> Result<String, Failed> {
    let failed = |e: std::io::Error| {
        Failed::new(
            format!("--{name}: cannot read {file}: {}", crate::locate::plain(&e)),
            "a value that begins with @ itself is given by - or in a file",
        )
    };
    let mut text = String::new();
    std::fs::File::open(file).and_then(|f| f.take(LONGEST).read_to_string(&mut text)).map_err(failed)?;
    Ok(trimmed(text))
}

fn prompt(name: &str) -> Result<String, Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(Failed::usage(
            format!("--{name} is required"),
            format!("--{name} - reads standard input, --{name} @FILE a file"),
        ));
    }
    let question = format!("{name}:");
    let prompt = inquire::Password::new(&question).without_confirmation();
    let answer = prompt.with_display_mode(inquire::PasswordDisplayMode::Hidden).prompt();
    answer.map_err(|_| Failed::new(format!("{name} was not given"), ""))
}

/// Editors and `echo` put a line feed at the end.
fn trimmed(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
