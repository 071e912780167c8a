//! The parameters of one call, read by their wire names. They are wiped when the call is over.

use bytes::Bytes;
use serde_json::{Map, Value};
use volvelle_api::{Operation, quirks};
use volvelle_domain::{ItemPath, Secret};
use zeroize::Zeroize as _;

use crate::error::ApiError;

/// Normalised parameters of one call.
pub struct Params(Map<String, Value>);

impl Params {
    /// The parameters of a body as they came; nothing at all means none.
    ///
    /// # Errors
    /// The body is no JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Map::new()));
        }
        serde_json::from_slice(body).map(Self).map_err(|_| ApiError::BadBody)
    }

    /// The parameters in an object of the program's own.
    #[must_use]
    pub const fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// The same with this token.
    #[must_use]
    pub fn with_token(mut self, token: &Secret) -> Self {
        let text = token.expose_str().unwrap_or_default();
        if let Some(Value::String(mut old)) = self.0.insert("token".to_owned(), Value::from(text)) {
            old.zeroize();
        }
        self
    }

    /// A body that holds them.
    #[must_use]
    pub fn to_body(&self) -> Bytes {
        serde_json::to_vec(&self.0).unwrap_or_default().into()
    }

    /// Brought to the types of an operation's parameters.
    ///
    /// # Errors
    /// One is missing or of the wrong type.
    pub fn normalised(&self, operation: &Operation) -> Result<Self, ApiError> {
        quirks::normalise(&self.0, &operation.params).map(Self).map_err(|error| bad(&error.param, error.message))
    }

    /// The text, if it was given and is not empty.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The text, unless it is absent or one of the words that mean "leave it as it is".
    #[must_use]
    pub fn changed_text(&self, name: &str) -> Option<&str> {
        const KEEP: [&str; 2] = ["default_metadata", "default_comment"];
        self.0.get(name).and_then(Value::as_str).filter(|text| !KEEP.contains(text))
    }

    /// The text as a secret.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::from)
    }

    /// The boolean, if it was given.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    /// Whether the boolean was given and is true.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.flag(name) == Some(true)
    }

    /// The number, if it was given.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    /// The number, which must fit `T`.
    ///
    /// # Errors
    /// It does not.
    pub fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let fit = |n: i64| T::try_from(n).map_err(|_| bad(name, format!("{n} is out of range")));
        self.int(name).map(fit).transpose()
    }

    /// The texts of a list, empty ones left out.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.0.get(name).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect()
    }

    /// Whether the parameter was given at all.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The object.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.0.get(name).and_then(Value::as_object)
    }

    /// The raw value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The path, which must be there.
    ///
    /// # Errors
    /// It is missing or no path.
    pub fn path(&self, name: &str) -> Result<ItemPath, ApiError> {
        let text = self.text(name).ok_or_else(|| bad(name, "is required"))?;
        ItemPath::parse(text).map_err(|error| bad(name, error.to_string()))
    }

    /// The path, if it was given.
    ///
    /// # Errors
    /// It is no path.
    pub fn opt_path(&self, name: &str) -> Result<Option<ItemPath>, ApiError> {
        self.text(name).map(|_| self.path(name)).transpose()
    }
}

impl Drop for Params {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A wrong parameter.
pub fn bad(param: &str, message: impl Into<String>) -> ApiError {
    ApiError::BadParameter { param: param.to_owned(), message: message.into() }
}
