//! Any t answers combine to the same point, by integer Lagrange coefficients.
//!
//! The plain coefficients are fractions; times `Δ = 9!` they are integers for every set of indices in 1..=9, small enough that
//! a combination costs a few dozen doublings. `Y = Δ·k·H(x)` is part of the stored format.

use zeroize::Zeroizing;

use crate::curve::{Curve, Encoded, Nist, Of, Ristretto};
use crate::{Error, MOST_HOLDERS, Partial, Suite};

/// `9!`.
const DELTA: i128 = 362_880;

/// `Y`, encoded. It is a secret: the record's key follows from it.
pub struct Combined(pub(crate) Zeroizing<Encoded>);

impl Combined {
    /// The suite of the answers it came of.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.0.suite()
    }
}

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
    /// There are more or fewer answers than indices, or they are of different suites.
    pub fn combine(&self, answers: &[Partial]) -> Result<Combined, Error> {
        match answers {
            [Partial(Of::P256(_)), ..] => self.combine_one::<Nist>(answers),
            _ => self.combine_one::<Ristretto>(answers),
        }
    }

    /// Combines many at once: one inner list per input, each as for [`Self::combine`]. Encoding them together costs less.
    ///
    /// # Errors
    /// As [`Self::combine`].
    pub fn combine_all(&self, answers: &[Vec<Partial>]) -> Result<Vec<Combined>, Error> {
        match answers.first().map(Vec::as_slice) {
            Some([Partial(Of::P256(_)), ..]) => self.combine_many::<Nist>(answers),
            _ => self.combine_many::<Ristretto>(answers),
        }
    }

    fn combine_one<C: Curve>(&self, answers: &[Partial]) -> Result<Combined, Error> {
        Ok(Combined(Zeroizing::new(C::encode(&self.sum::<C>(answers, 1)?))))
    }

    fn combine_many<C: Curve>(&self, answers: &[Vec<Partial>]) -> Result<Vec<Combined>, Error> {
        if C::MULTIPLE == 2 && !self.even {
            return answers.iter().map(|answers| self.combine_one::<C>(answers)).collect();
        }
        let parts = answers.iter().map(|answers| self.sum::<C>(answers, C::MULTIPLE)).collect::<Result<Vec<_>, _>>()?;
        Ok(C::encode_multiples(&parts).into_iter().map(|encoded| Combined(Zeroizing::new(encoded))).collect())
    }

    /// The weighted sum, divided by `divisor`. The weights are public, so the time may depend on them.
    fn sum<C: Curve>(&self, answers: &[Partial], divisor: i64) -> Result<C::Point, Error> {
        if answers.len() != self.weights.len() {
            return Err(Error::Quorum);
        }
        let mut terms: Vec<(u64, C::Point)> = Vec::with_capacity(answers.len());
        for (weight, answer) in self.weights.iter().map(|weight| weight / divisor).zip(answers) {
            let point = C::point(&answer.0)?;
            terms.push((weight.unsigned_abs(), if weight < 0 { -point } else { point }));
        }
        let highest = terms.iter().map(|(weight, _)| 64 - weight.leading_zeros()).max().unwrap_or(0);
        let mut sum = C::identity();
        for bit in (0..highest).rev() {
            sum = C::double(sum);
            for (weight, point) in &terms {
                if weight >> bit & 1 == 1 {
                    sum = sum + *point;
                }
            }
        }
        Ok(sum)
    }
}

/// Combines the answers of a quorum. The caller gives exactly t of them.
///
/// # Errors
/// The indices are no quorum, or the answers are of different suites.
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
