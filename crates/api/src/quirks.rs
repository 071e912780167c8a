//! Bodies as clients really send them, brought to the types of the schema.

use serde_json::{Map, Value};

/// A parameter which cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameter {param}: {message}")]
pub struct ParamError {
    /// Wire name of the parameter.
    pub param: String,
    /// What is wrong with it, without its value.
    pub message: String,
}

/// Brings `body` to the types of `schema`: booleans and numbers may be strings and the other way round, a
/// list may be one string; null counts as absent and unknown keys are dropped. Defaults are not filled in.
///
/// # Errors
/// The first parameter that is missing or of no readable type.
pub fn normalise(body: &Map<String, Value>, schema: &schemars::Schema) -> Result<Map<String, Value>, ParamError> {
    let mut out = Map::new();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(out) };
    for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        let Some(property) = properties.get(name) else { continue };
        let kind = property.get("type").and_then(Value::as_str).unwrap_or("string");
        if let Some(value) =
            convert(kind, value).map_err(|message| ParamError { param: name.clone(), message: message.to_owned() })?
        {
            out.insert(name.clone(), value);
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        let empty = match out.get(name) {
            None => true,
            Some(Value::String(s)) => s.is_empty(),
            Some(Value::Array(a)) => a.is_empty(),
            Some(_) => false,
        };
        if empty {
            return Err(ParamError { param: name.to_owned(), message: "is required".to_owned() });
        }
    }
    Ok(out)
}

fn convert(kind: &str, value: &Value) -> Result<Option<Value>, &'static str> {
    match kind {
        "boolean" => boolean(value),
        "integer" => integer(value),
        "array" => list(value),
        "object" => match value {
            Value::Object(_) => Ok(Some(value.clone())),
            Value::String(s) if s.is_empty() => Ok(None),
            Value::String(s) => match serde_json::from_str::<Value>(s) {
                Ok(parsed @ Value::Object(_)) => Ok(Some(parsed)),
                _ => Err("must be an object"),
            },
            _ => Err("must be an object"),
        },
        _ => string(value).map(Some),
    }
}

fn boolean(value: &Value) -> Result<Option<Value>, &'static str> {
    match value {
        Value::Bool(_) => Ok(Some(value.clone())),
        Value::Number(n) => Ok(Some(Value::Bool(n.as_f64() != Some(0.0)))),
        Value::String(s) => match s.trim().to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "true" | "1" | "yes" | "on" => Ok(Some(Value::Bool(true))),
            "false" | "0" | "no" | "off" => Ok(Some(Value::Bool(false))),
            _ => Err("must be true or false"),
        },
        _ => Err("must be true or false"),
    }
}

fn integer(value: &Value) -> Result<Option<Value>, &'static str> {
    match value {
        Value::Number(n) if n.is_i64() || n.is_u64() => Ok(Some(value.clone())),
        Value::Bool(b) => Ok(Some(Value::from(i64::from(*b)))),
        Value::String(s) if s.trim().is_empty() => Ok(None),
        Value::String(s) => s.trim().parse::<i64>().map(|n| Some(Value::from(n))).map_err(|_| "must be a whole number"),
        _ => Err("must be a whole number"),
    }
}

fn string(value: &Value) -> Result<Value, &'static str> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Bool(b) => Ok(Value::String(b.to_string())),
        Value::Number(n) => Ok(Value::String(n.to_string())),
        Value::Array(a) if a.len() == 1 => string(&a[0]),
        _ => Err("must be a string"),
    }
}

fn list(value: &Value) -> Result<Option<Value>, &'static str> {
    match value {
        Value::Array(a) => Ok(Some(Value::Array(a.iter().map(string).collect::<Result<_, _>>()?))),
        Value::String(s) if s.is_empty() => Ok(Some(Value::Array(Vec::new()))),
        other => Ok(Some(Value::Array(vec![string(other)?]))),
    }
}
