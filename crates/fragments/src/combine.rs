//! Any t answers combine to the same point, by integer Lagrange coefficients.
//!
//! The plain coefficients are fractions; times `Δ = 9!` they are integers for every set of indices in 1..=9, small enough that
//! a combination costs a few dozen doublings. `Y = Δ·k·H(x)` is part of the stored format.

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::traits::Identity as _;
use zeroize::Zeroizing;

use crate::{Error, MOST_HOLDERS, Partial};

/// `9!`.
const DELTA: i128 = 362_880;

/// `Y`, encoded. It is a secret: the record's key follows from it.
pub struct Combined(pub(crate) Zeroizing<[u8; 32]>);

/// `Δ·λ_i` for each index of a quorum, in the order given. Cache it per quorum.
///
/// # Errors
/// An index out of 1..=9 or twice the same, or none.
pub fn coefficients(indices: &[u8]) -> Result<Vec<i64>, Error> {
    let distinct = indices.iter().enumerate().all(|(n, i)| (1..=MOST_HOLDERS).contains(i) && !indices[..n].contains(i));
    if indices.is_empty() || !distinct {
        return Err(Error::Quorum);
    }
    indices
        .iter()
        .map(|i| {
            let others = || indices.iter().filter(|j| *j != i).map(|j| i128::from(*j));
            let numerator = DELTA * others().product::<i128>();
            let denominator: i128 = others().map(|j| j - i128::from(*i)).product();
            i64::try_from(numerator / denominator).map_err(|_| Error::Quorum)
        })
        .collect()
}

/// Combines the answers of a quorum. The caller gives exactly t of them.
///
/// # Errors
/// The indices are no quorum.
pub fn combine(answers: &[(u8, Partial)]) -> Result<Combined, Error> {
    let indices: Vec<u8> = answers.iter().map(|(index, _)| *index).collect();
    let weights = coefficients(&indices)?;
    let terms: Vec<(u64, RistrettoPoint)> = weights
        .iter()
        .zip(answers)
        .map(|(weight, (_, Partial(point)))| (weight.unsigned_abs(), if *weight < 0 { -point } else { *point }))
        .collect();
    let highest = terms.iter().map(|(weight, _)| 64 - weight.leading_zeros()).max().unwrap_or(0);
    // The weights are public, so the time may depend on them.
    let mut sum = RistrettoPoint::identity();
    for bit in (0..highest).rev() {
        sum += sum;
        for (weight, point) in &terms {
            if weight >> bit & 1 == 1 {
                sum += point;
            }
        }
    }
    Ok(Combined(Zeroizing::new(sum.compress().to_bytes())))
}

impl std::fmt::Debug for Combined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Combined(..)")
    }
}
