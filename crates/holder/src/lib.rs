//! The fragment holder daemon and the client that asks a quorum of holders.
//!
//! A holder has one fragment per key, answers evaluations for the gateways of its roster, and never sees a value or a key. What
//! must stay true: a fragment leaves its holder in no message; peers are known by pinned certificates only; a key is used only
//! after every holder signed the same transcript of its generation.

pub mod asker;
pub mod authorization;
mod channel;
pub mod customer;
pub mod daemon;
pub mod eval;
mod link;
pub mod local;
pub mod log;
pub mod quorum;
pub mod roster;
pub mod setup;
mod state;
mod tls;
pub mod token;
mod tombstones;
pub mod trust;
mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use customer::{CustomerFragments, Presence, Wanted};
pub use quorum::{HolderStatus, Quorum, QuorumError, Refusal};
pub use roster::Roster;
pub use token::TokenKey;

/// What a mutex here guards is never left half-changed, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
