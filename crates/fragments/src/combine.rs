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

/// The coefficients of one quorum, computed once: they depend on nothing but who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    weights: Vec<i64>,
    /// Whether all of them are even, so that half the sum can be computed and encoded together with others.
    even: bool,
}

impl Weights {
    /// For the holders with these indices.
    ///
    /// # Errors
    /// An index out of 1..=9 or twice the same, or none.
    pub fn of(indices: &[u8]) -> Result<Self, Error> {
        let weights = coefficients(indices)?;
        let even = weights.iter().all(|weight| weight % 2 == 0);
        Ok(Self { weights, even })
    }

    /// Combines one answer of each holder, in the order of the indices. There must be exactly t.
    ///
    /// # Errors
    /// There are more or fewer answers than indices.
    pub fn combine(&self, answers: &[Partial]) -> Result<Combined, Error> {
        Ok(Combined(Zeroizing::new(self.sum(answers, 1)?.compress().to_bytes())))
    }

    /// Combines many at once: one inner list per input, each as for [`Self::combine`]. Encoding them together costs less.
    ///
    /// # Errors
    /// As [`Self::combine`].
    pub fn combine_all(&self, answers: &[Vec<Partial>]) -> Result<Vec<Combined>, Error> {
        if !self.even {
            return answers.iter().map(|answers| self.combine(answers)).collect();
        }
        let halves = answers.iter().map(|answers| self.sum(answers, 2)).collect::<Result<Vec<_>, _>>()?;
        let encoded = RistrettoPoint::double_and_compress_batch(&halves);
        Ok(encoded.into_iter().map(|point| Combined(Zeroizing::new(point.to_bytes()))).collect())
    }

    /// The weighted sum, divided by `divisor`. The weights are public, so the time may depend on them.
    fn sum(&self, answers: &[Partial], divisor: i64) -> Result<RistrettoPoint, Error> {
        if answers.len() != self.weights.len() {
            return Err(Error::Quorum);
        }
        let scaled = self.weights.iter().map(|weight| weight / divisor);
        let terms: Vec<(u64, RistrettoPoint)> = scaled
            .zip(answers)
            .map(|(weight, Partial(point))| (weight.unsigned_abs(), if weight < 0 { -point } else { *point }))
            .collect();
        let highest = terms.iter().map(|(weight, _)| 64 - weight.leading_zeros()).max().unwrap_or(0);
        let mut sum = RistrettoPoint::identity();
        for bit in (0..highest).rev() {
            sum += sum;
            for (weight, point) in &terms {
                if weight >> bit & 1 == 1 {
                    sum += point;
                }
            }
        }
        Ok(sum)
    }
}

/// Combines the answers of a quorum. The caller gives exactly t of them.
///
/// # Errors
/// The indices are no quorum.
pub fn combine(answers: &[(u8, Partial)]) -> Result<Combined, Error> {
    let indices: Vec<u8> = answers.iter().map(|(index, _)| *index).collect();
    let partials: Vec<Partial> = answers.iter().map(|(_, partial)| *partial).collect();
    Weights::of(&indices)?.combine(&partials)
}

impl std::fmt::Debug for Combined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Combined(..)")
    }
}
