//! Plain parameters as connectors read them, and the failure that names one.

use serde_json::{Map, Value};
use volvelle_domain::connector::{Failure, FailureClass, TargetParams};

/// A `Config` failure that names its parameter.
pub(crate) fn config(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Config, message, hint)
}

/// A plain parameter of a target as text; empty if it is not set.
pub(crate) fn text<'a>(target: &'a TargetParams, name: &str) -> &'a str {
    word(&target.plain, name)
}

/// A parameter as text; empty if it is not set.
pub(crate) fn word<'a>(params: &'a Map<String, Value>, name: &str) -> &'a str {
    params.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A plain parameter of a target as yes or no.
pub(crate) fn flag(target: &TargetParams, name: &str) -> bool {
    match target.plain.get(name) {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(value)) => value.eq_ignore_ascii_case("true"),
        _ => false,
    }
}
