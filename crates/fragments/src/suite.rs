//! The cryptographic suites: which group a key is of, and so its fragments, answers, proofs and records.
//!
//! Both derive keys by HKDF-SHA256 and encrypt by AES-256-GCM; only the group, and what it is hashed to with, differ. The byte
//! of a suite is part of the stored format.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Suite 1: ristretto255 and SHA-512. The fast one.
    #[default]
    Ristretto255 = 1,
    /// Suite 2: NIST P-256 and SHA-256, for those who must use NIST's curves.
    P256 = 2,
}

impl Suite {
    /// Every suite there is.
    pub const ALL: [Self; 2] = [Self::Ristretto255, Self::P256];

    /// The byte by which records and inputs name it.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The suite of this byte.
    #[must_use]
    pub fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.byte() == byte)
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ristretto255 => "ristretto255",
            Self::P256 => "p256",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that is no suite's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the suites are ristretto255 and p256")]
pub struct UnknownSuite;

impl FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(word: &str) -> Result<Self, UnknownSuite> {
        Self::ALL.into_iter().find(|suite| suite.name() == word).ok_or(UnknownSuite)
    }
}
