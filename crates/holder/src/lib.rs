//! The fragment holder daemon and the client that asks a quorum of holders.
//!
//! A holder has one fragment per key, answers evaluations for the gateways of its roster, and never sees a value or a key. What
//! must stay true: a fragment leaves its holder in no message; peers are known by pinned certificates only; a key is used only
//! after every holder signed the same transcript of its generation.

pub mod daemon;
pub mod local;
pub mod quorum;
pub mod roster;
mod state;
mod tls;
mod wire;

pub use quorum::{Quorum, QuorumError};
pub use roster::Roster;
