//! Drives rotations: takes a lease, does what the state machine asks for, saves what came of it, and only then goes on.
//!
//! What must stay true: the target hears of a version only after it is stored, and every save carries the fence.

pub mod crash;
mod worker;

pub use worker::{Hands, Timing, Worker};
