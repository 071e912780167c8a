//! Nouns and rules of Volvelle: accounts, items, versions, targets, policies, schedules, roles, the
//! rotation state machine and the ports. Nothing here does I/O, reads a clock or draws randomness.

pub mod account;
pub mod connector;
pub mod credential;
pub mod grace;
pub mod identity;
pub mod ids;
pub mod item;
pub mod password;
pub mod path;
pub mod rotation;
pub mod rules;
pub mod schedule;
pub mod secret;
pub mod target;

pub use credential::Credential;
pub use path::ItemPath;
pub use secret::Secret;
