//! The only crate that knows SQL. One text per statement, for SQLite and for PostgreSQL.
//!
//! What must stay true: values arrive here sealed; a change and its audit entry share a transaction; nobody calls a target
//! inside one. Each family of tables is a file of functions that take a [`Tx`].
//!
//! Rows are locked in one order, so that writers wait for each other and never block each other for good: the account
//! (every function that raises a number of it begins with that), items and targets, versions, rotations, the audit
//! head. A transaction that saves a rotation and changes anything else does the rotation last, then the audit entry.

pub mod accounts;
pub mod audit;
pub mod auth_methods;
pub mod breakers;
mod counters;
mod db;
pub mod fleet;
pub mod items;
pub mod keys;
#[cfg(test)]
mod plans;
pub mod rekeys;
pub mod roles;
pub mod rotations;
mod schema;
pub mod sessions;
pub mod slots;
pub mod targets;
pub mod tokens;
pub mod tombstones;
pub mod versions;

pub use db::{Store, Tx};

/// What the caller can do about it, not what the database said.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is there already, or was changed meanwhile.
    #[error("{0} already exists")]
    Conflict(&'static str),
    /// It is not there.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// Another worker holds the rotation; this one must stop.
    #[error("the lease of this rotation was lost")]
    LostLease,
    /// What is stored makes no sense.
    #[error("the store holds {0} that cannot be read")]
    Corrupt(&'static str),
    /// A rule of the store forbids it; a mistake of the program.
    #[error("the store refuses {0}")]
    Forbidden(&'static str),
    /// The address of the database is not understood.
    #[error("the store's address must start with sqlite:// or postgres://")]
    Address,
    /// A newer program has changed the tables.
    #[error("the database belongs to a newer version of Volvelle; upgrade this program")]
    Newer,
    /// The database cannot be reached or does not work.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Conflict("it"),
            sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
                Self::NotFound("what it belongs to")
            }
            _ => Self::Unavailable(error),
        }
    }
}
