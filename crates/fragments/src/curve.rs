//! What the rest of this crate asks of a group, and the two groups that give it.
//!
//! Everything is written once over [`Curve`]; the public types hold an [`Of`], which says of which suite they are, and are taken
//! apart where a call begins. Things of two suites in one call are an error there. What must stay true: encodings are canonical,
//! and the identity has none that is read; only functions whose name ends in `public` take a time that depends on scalars.

mod nist;
mod ristretto;

use std::fmt;
use std::ops::{Add, Deref, Mul, Neg, Sub};

use sha2::Digest;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

pub(crate) use self::nist::Nist;
pub(crate) use self::ristretto::Ristretto;
use crate::{Error, Suite};

/// Something of one suite or of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of<R, P> {
    Ristretto255(R),
    P256(P),
}

/// A point of either group.
pub(crate) type Point = Of<<Ristretto as Curve>::Point, <Nist as Curve>::Point>;
/// A scalar of either group.
pub(crate) type Scalar = Of<<Ristretto as Curve>::Scalar, <Nist as Curve>::Scalar>;

impl<R, P> Of<R, P> {
    pub(crate) const fn suite(&self) -> Suite {
        match self {
            Self::Ristretto255(_) => Suite::Ristretto255,
            Self::P256(_) => Suite::P256,
        }
    }
}

impl<R: Zeroize, P: Zeroize> Zeroize for Of<R, P> {
    fn zeroize(&mut self) {
        match self {
            Self::Ristretto255(inner) => inner.zeroize(),
            Self::P256(inner) => inner.zeroize(),
        }
    }
}

/// A prime-order group with what RFC 9497 and the key generation need of it.
pub(crate) trait Curve: 'static {
    type Point: Copy
        + PartialEq
        + Add<Output = Self::Point>
        + Neg<Output = Self::Point>
        + for<'a> Mul<&'a Self::Scalar, Output = Self::Point>;
    type Scalar: Copy
        + PartialEq
        + ConstantTimeEq
        + Zeroize
        + From<u64>
        + Add<Output = Self::Scalar>
        + Sub<Output = Self::Scalar>
        + Mul<Output = Self::Scalar>;
    /// Hashes the weights of a proof.
    type Hash: Digest;
    /// The same group in the key generation.
    type Frost: frost_core::Ciphersuite;

    const SUITE: Suite;
    /// RFC 9497 context of the verifiable mode.
    const CONTEXT: &'static [u8];
    /// What [`Self::encode_multiples`] encodes is so many times each point.
    const MULTIPLE: i64;

    fn identity() -> Self::Point;
    fn wrap_point(point: Self::Point) -> Point;
    fn wrap_scalar(scalar: Self::Scalar) -> Scalar;
    fn point(point: &Point) -> Result<Self::Point, Error>;
    fn scalar(scalar: &Scalar) -> Result<&Self::Scalar, Error>;

    /// `HashToGroup` of RFC 9497.
    fn hash_to_group(x: &[u8]) -> Result<Self::Point, Error>;
    /// `HashToScalar` of RFC 9497.
    fn hash_to_scalar(transcript: &[u8]) -> Result<Self::Scalar, Error>;
    fn random_scalar() -> Self::Scalar;
    /// The inverse of a scalar that is not zero.
    fn inverse(scalar: &Self::Scalar) -> Self::Scalar;
    /// Divided by [`Self::MULTIPLE`].
    fn part(scalar: &Self::Scalar) -> Self::Scalar;
    fn base_times(scalar: &Self::Scalar) -> Self::Point;
    fn double(point: Self::Point) -> Self::Point;
    /// The sum of products of public scalars and points.
    fn sum_public(scalars: &[Self::Scalar], points: impl Iterator<Item = Self::Point>) -> Self::Point;
    /// `c·point + s·G` of public scalars.
    fn double_base_public(c: &Self::Scalar, point: &Self::Point, s: &Self::Scalar) -> Self::Point;

    fn encode(point: &Self::Point) -> Encoded;
    /// Encodes [`Self::MULTIPLE`] times each point; together they cost less than one by one.
    fn encode_multiples(points: &[Self::Point]) -> Vec<Encoded>;
    /// Reads the canonical encoding of a point that is not the identity.
    fn decode(bytes: &[u8]) -> Option<Self::Point>;
    fn encode_scalar(scalar: &Self::Scalar) -> [u8; 32];
    /// Reads the canonical encoding of a scalar.
    fn decode_scalar(bytes: &[u8; 32]) -> Option<Self::Scalar>;
}

/// A point's canonical encoding: 32 bytes of suite 1, 33 bytes of suite 2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Encoded(pub(crate) Of<[u8; 32], [u8; 33]>);

impl Encoded {
    /// Bytes of the right length, whatever point they are, or none.
    ///
    /// # Errors
    /// They have another length.
    pub fn of(bytes: &[u8]) -> Result<Self, Error> {
        let short = <[u8; 32]>::try_from(bytes).map(Of::Ristretto255);
        let either = short.or_else(|_| <[u8; 33]>::try_from(bytes).map(Of::P256));
        either.map(Self).map_err(|_| Error::Encoding("the point"))
    }

    /// The suite of the point, which the length tells.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.0.suite()
    }
}

impl Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Of::Ristretto255(bytes) => bytes,
            Of::P256(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Zeroize for Encoded {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoded(..)")
    }
}

/// Reads a point of whichever suite its length tells.
pub(crate) fn decode(bytes: &[u8], what: &'static str) -> Result<Point, Error> {
    let point = match bytes.len() {
        32 => Ristretto::decode(bytes).map(Of::Ristretto255),
        33 => Nist::decode(bytes).map(Of::P256),
        _ => None,
    };
    point.ok_or(Error::Encoding(what))
}

pub(crate) fn encode(point: &Point) -> Encoded {
    match point {
        Of::Ristretto255(point) => Ristretto::encode(point),
        Of::P256(point) => Nist::encode(point),
    }
}

/// Reads a canonical scalar of a suite.
pub(crate) fn decode_scalar(suite: Suite, bytes: &[u8; 32]) -> Option<Scalar> {
    match suite {
        Suite::Ristretto255 => Ristretto::decode_scalar(bytes).map(Of::Ristretto255),
        Suite::P256 => Nist::decode_scalar(bytes).map(Of::P256),
    }
}

pub(crate) fn encode_scalar(scalar: &Scalar) -> [u8; 32] {
    match scalar {
        Of::Ristretto255(scalar) => Ristretto::encode_scalar(scalar),
        Of::P256(scalar) => Nist::encode_scalar(scalar),
    }
}
