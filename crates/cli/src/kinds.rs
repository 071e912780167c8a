//! The kinds the command line knows without asking a gateway.

use volvelle_api::{Declaration, ssh};

/// Every kind.
pub fn all() -> Vec<Declaration> {
    vec![ssh()]
}
