//! Fragment-derived keys: the key of each record is computed by t of n holders together and exists nowhere whole.
//!
//! The group is ristretto255 or NIST P-256 ([`suite`]). The group key `k` is shared by a polynomial of degree t-1 made by a distributed key
//! generation ([`dkg`]); holder `i` has `s_i`. For an input `x` ([`place`]) with point `H = hash(x)` a holder answers
//! `y_i = s_i·H` ([`share`]), with a proof on demand ([`proof`]). Any t answers combine to `Y = Δ·k·H`, `Δ = 9!`
//! ([`combine`]), from which the record's key is derived ([`record`]), with a leg of the customer's own if he wants ([`customer`]). This is the function of Naor, Pinkas and Reingold
//! (EUROCRYPT 1999); proofs are those of RFC 9497, hashing is that of RFC 9380.
//!
//! Fragments are replaced ([`refresh`], by the rules of [`epoch`]) and restored ([`repair`]) without touching a record.
//!
//! Absent: network, disk, policy. No function takes two fragments.

pub mod combine;
mod curve;
pub mod customer;
pub mod dkg;
pub mod epoch;
pub mod place;
pub mod proof;
pub mod publics;
pub mod record;
pub mod refresh;
pub mod repair;
pub mod share;
pub mod suite;

pub use combine::{Combined, Weights, combine};
pub use curve::Encoded;
pub use customer::CustomerFragment;
pub use place::{Input, Place};
pub use proof::Proof;
pub use record::{Bound, Kek, Record, Sealed};
pub use share::{Partial, PrfShare, PublicShare};
pub use suite::Suite;

/// The largest index a holder may have; part of the record format through `Δ = 9!`.
pub const MOST_HOLDERS: u8 = 9;

/// What can go wrong. No variant holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that are no canonical encoding of what they should be.
    #[error("{0} is not a valid encoding")]
    Encoding(&'static str),
    /// Things of two suites, where all must be of one.
    #[error("what was given is of different cryptographic suites")]
    Suite,
    /// A path longer than an input may hold.
    #[error("the path is longer than {max} bytes", max = place::LONGEST_PATH)]
    PathTooLong,
    /// Indices that are no quorum: out of range, or twice the same.
    #[error("the answering holders are no quorum")]
    Quorum,
    /// The record belongs to another realm, item, version or path.
    #[error("the record does not belong here: it was moved, or its place was changed")]
    Place,
    /// The combined answers give another key than the record was sealed under: a holder answered wrongly, or the record was
    /// moved to another path.
    #[error("the derived key is not the key of this record")]
    Commitment,
    /// The ciphertext was changed.
    #[error("the record was tampered with")]
    Tampered,
    /// A proof does not hold.
    #[error("a holder's proof does not hold")]
    Proof,
    /// The key generation was given something that does not belong together; the culprit's index if it is known.
    #[error("the key generation failed{}", .0.map(|i| format!(": holder {i} sent a wrong package")).unwrap_or_default())]
    KeyGeneration(Option<u8>),
    /// What the helpers sent gives another fragment than the lost one.
    #[error("the repaired fragment does not fit its public share: a helper sent a wrong part")]
    Repair,
    /// The operating system gave no randomness, or the cryptographic library refused.
    #[error("the cryptographic library failed")]
    Library,
}
