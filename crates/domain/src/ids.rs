//! Identifiers, each a type of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A tenant: `acc-` and twelve lower-case letters or digits. It leads every primary key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub String);

/// An identity's public name: `p-` and twelve lower-case letters or digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccessId(pub String);

/// Sixteen random bytes that bind sealed records to an object for its whole life, renames included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub [u8; 16]);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// An item within its account (the wire's `item_id`).
    ItemId
);
number_id!(
    /// A target within its account (the wire's `target_id`).
    TargetId
);
number_id!(
    /// A role within its account.
    RoleId
);
number_id!(
    /// An auth method within its account.
    AuthMethodId
);
number_id!(
    /// One rotation of one slot.
    RotationId
);

/// A version number of an item or a target, counted from 1.
pub type Version = u32;

/// An instant in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Micros(pub i64);

impl Micros {
    /// The instant `seconds` later (earlier if negative).
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// The instant `millis` milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000)))
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AccessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The clock port: the only way anything learns what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Micros;
}

/// The randomness port: the only way anything draws random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes` with output of a cryptographically secure generator.
    fn fill(&self, bytes: &mut [u8]);
}
