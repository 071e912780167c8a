//! Parameters from flags; secret ones also from a prompt, a file or standard input.

use std::io::{IsTerminal, Read};

use clap::ArgMatches;
use serde_json::{Map, Value};
use volvelle_api::Operation;

use crate::{Failed, tree::HIDDEN};

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
            many if property["type"] == "array" => Value::from(many.to_vec()),
            many => Value::from(many[many.len() - 1].clone()),
        };
        out.insert(name.clone(), value);
    }
    volvelle_api::quirks::normalise(&out, &op.params).map_err(|e| Failed {
        code: 2,
        message: e.to_string(),
        hint: "--help lists the parameters".to_owned(),
    })
}

/// Reads a secret: `-` is standard input, `@FILE` a file, `?` a prompt, all else the value itself.
pub fn read(name: &str, given: &str) -> Result<String, Failed> {
    let trimmed = |text: String| text.strip_suffix('\n').map(str::to_owned).unwrap_or(text);
    let failed = |e: &dyn std::fmt::Display| Failed::new(format!("cannot read {name}: {e}"), "");
    match given {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| failed(&e))?;
            Ok(trimmed(text))
        }
        "?" if !std::io::stdin().is_terminal() => Err(Failed {
            code: 2,
            message: format!("{name} is required"),
            hint: format!("--{name} - reads standard input"),
        }),
        "?" => inquire::Password::new(name).without_confirmation().prompt().map_err(|e| failed(&e)),
        file if file.starts_with('@') => std::fs::read_to_string(&file[1..]).map(trimmed).map_err(|e| failed(&e)),
        value => {
            eprintln!("warning: --{name} on the command line is visible to other users; use -, @FILE or ?");
            Ok(value.to_owned())
        }
    }
}
