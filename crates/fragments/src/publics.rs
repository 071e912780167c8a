//! The public shares of a key as one: whether they lie on a polynomial of degree t-1, and what lies at other places of it.
//!
//! Everything here is public; the time may depend on it.

use std::collections::BTreeMap;

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity as _, VartimeMultiscalarMul as _};

use crate::{Error, MOST_HOLDERS, PublicShare};

/// The Lagrange coefficients of `indices` for the value at `at`.
fn lagrange(indices: &[u8], at: u8) -> Vec<Scalar> {
    let at = Scalar::from(at);
    indices
        .iter()
        .map(|i| {
            let i = Scalar::from(*i);
            let others = || indices.iter().map(|j| Scalar::from(*j)).filter(move |j| *j != i);
            let numerator: Scalar = others().map(|j| at - j).product();
            let denominator: Scalar = others().map(|j| i - j).product();
            numerator * denominator.invert()
        })
        .collect()
}

/// The public value at `index` (0 = the group's own) that follows from the first t shares.
///
/// # Errors
/// There are fewer than t shares.
pub fn at(publics: &BTreeMap<u8, PublicShare>, threshold: u8, index: u8) -> Result<PublicShare, Error> {
    let first: Vec<(u8, RistrettoPoint)> =
        publics.iter().take(usize::from(threshold)).map(|(index, public)| (*index, public.0)).collect();
    if first.len() < usize::from(threshold) || publics.keys().any(|i| !(1..=MOST_HOLDERS).contains(i)) {
        return Err(Error::Quorum);
    }
    let indices: Vec<u8> = first.iter().map(|(index, _)| *index).collect();
    let point = RistrettoPoint::vartime_multiscalar_mul(lagrange(&indices, index), first.iter().map(|(_, p)| *p));
    if point.is_identity() { Err(Error::Encoding("the public share")) } else { Ok(PublicShare(point)) }
}

/// Holders needed for an answer, as the shares themselves show it: the least t for which they lie on a polynomial of degree t-1.
/// Whoever signed the shares signed that too.
///
/// # Errors
/// There are fewer than two shares, or they are none.
pub fn threshold(publics: &BTreeMap<u8, PublicShare>) -> Result<u8, Error> {
    let n = u8::try_from(publics.len()).map_err(|_| Error::Quorum)?;
    for t in 2..=n.min(MOST_HOLDERS) {
        match group(publics, t) {
            Ok(_) => return Ok(t),
            Err(Error::KeyGeneration(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Err(Error::Quorum)
}

/// Checks that all shares lie on one polynomial of degree t-1, and gives the group's public key.
///
/// # Errors
/// Names the first share that does not.
pub fn group(publics: &BTreeMap<u8, PublicShare>, threshold: u8) -> Result<PublicShare, Error> {
    for (index, public) in publics.iter().skip(usize::from(threshold)) {
        if at(publics, threshold, *index)? != *public {
            return Err(Error::KeyGeneration(Some(*index)));
        }
    }
    at(publics, threshold, 0)
}
