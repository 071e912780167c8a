//! What opens an account: named secret fields such as `username`, `password`, `private_key`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use zeroize::Zeroize;

use crate::Secret;

/// The fields of one credential, by wire name. It is what a version's sealed record holds.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    fields: BTreeMap<String, Secret>,
}

impl Credential {
    /// A credential of a user name and a password, the commonest kind.
    #[must_use]
    pub fn user_password(username: &str, password: Secret) -> Self {
        Self::default().with("username", username.into()).with("password", password)
    }

    /// The same credential with `field` set.
    #[must_use]
    pub fn with(mut self, field: &str, value: Secret) -> Self {
        self.fields.insert(field.to_owned(), value);
        self
    }

    /// The field, if it is set and not empty.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Secret> {
        self.fields.get(name).filter(|value| !value.is_empty())
    }

    /// The field as text, if it is set, not empty and UTF-8.
    #[must_use]
    pub fn expose_text(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(Secret::expose_str)
    }

    /// Names of the fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// Whether no field is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether it is no value yet but what was on the target before one was asked for (see [`crate::connector::INTENT`]).
    #[must_use]
    pub fn is_intent(&self) -> bool {
        self.fields.contains_key(crate::connector::INTENT)
    }

    /// Whether both hold the same fields with the same values, compared in constant time per field.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.fields.len() == other.fields.len()
            && self.fields.iter().all(|(name, value)| other.fields.get(name).is_some_and(|o| o.ct_eq(value)))
    }

    /// The JSON object a caller with the right to read is answered with.
    #[must_use]
    pub fn expose_json(&self) -> Map<String, Value> {
        self.fields
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(String::from_utf8_lossy(value.expose()).into_owned())))
            .collect()
    }

    /// The bytes to seal.
    #[must_use]
    pub fn to_plaintext(&self) -> Secret {
        Secret::new(serde_json::to_vec(&self.expose_json()).unwrap_or_default())
    }

    /// Reads what [`Self::to_plaintext`] wrote; `None` if it is anything else.
    #[must_use]
    pub fn from_plaintext(plaintext: &Secret) -> Option<Self> {
        let map: Map<String, Value> = serde_json::from_slice(plaintext.expose()).ok()?;
        let mut fields = BTreeMap::new();
        for (name, value) in map {
            let Value::String(mut text) = value else {
                return None;
            };
            fields.insert(name, Secret::from(text.as_str()));
            text.zeroize();
        }
        Some(Self { fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_round_trips() {
        let before = Credential::user_password("root", "p\"ä\u{1}".into());
        let after = Credential::from_plaintext(&before.to_plaintext()).expect("own output is readable");
        assert!(before.ct_eq(&after));
        assert_eq!(after.expose_text("username"), Some("root"));
    }
}
