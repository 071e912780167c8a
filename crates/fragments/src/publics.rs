//! The public shares of a key as one: whether they lie on a polynomial of degree t-1, and what lies at other places of it.
//!
//! Everything here is public; the time may depend on it.

use std::collections::BTreeMap;

use crate::curve::{Curve, Nist, Ristretto};
use crate::{Error, MOST_HOLDERS, PublicShare, Suite};

/// The Lagrange coefficients of `indices` for the value at `at`.
fn lagrange<C: Curve>(indices: &[u8], at: u8) -> Vec<C::Scalar> {
    let small = |n: u8| C::Scalar::from(u64::from(n));
    let product =
        |factors: &mut dyn Iterator<Item = C::Scalar>| factors.fold(small(1), |product, factor| product * factor);
    indices
        .iter()
        .map(|i| {
            let others = || indices.iter().filter(move |j| *j != i);
            let numerator = product(&mut others().map(|j| small(at) - small(*j)));
            let denominator = product(&mut others().map(|j| small(*i) - small(*j)));
            numerator * C::inverse(&denominator)
        })
        .collect()
}

/// The public value at `index` (0 = the group's own) that follows from the first t shares.
///
/// # Errors
/// There are fewer than t shares, or they are of different suites.
pub fn at(publics: &BTreeMap<u8, PublicShare>, threshold: u8, index: u8) -> Result<PublicShare, Error> {
    match suite(publics)? {
        Suite::Ristretto255 => at_of::<Ristretto>(publics, threshold, index),
        Suite::P256 => at_of::<Nist>(publics, threshold, index),
    }
}

/// The suite of a key with these public shares.
///
/// # Errors
/// There are none, or they are of different suites.
pub fn suite(publics: &BTreeMap<u8, PublicShare>) -> Result<Suite, Error> {
    let suite = publics.values().next().ok_or(Error::Quorum)?.suite();
    if publics.values().all(|public| public.suite() == suite) { Ok(suite) } else { Err(Error::Suite) }
}

fn at_of<C: Curve>(publics: &BTreeMap<u8, PublicShare>, threshold: u8, index: u8) -> Result<PublicShare, Error> {
    let (mut indices, mut points) = (Vec::new(), Vec::new());
    for (index, public) in publics.iter().take(usize::from(threshold)) {
        indices.push(*index);
        points.push(C::point(&public.0)?);
    }
    if indices.len() < usize::from(threshold) || publics.keys().any(|i| !(1..=MOST_HOLDERS).contains(i)) {
        return Err(Error::Quorum);
    }
    let point = C::sum_public(&lagrange::<C>(&indices, index), points.into_iter());
    if point == C::identity() {
        Err(Error::Encoding("the public share"))
    } else {
        Ok(PublicShare(C::wrap_point(point)))
    }
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
