//! One holder's fragment and what it answers.

use std::fmt;
use std::sync::LazyLock;

use curve25519_dalek::constants::RISTRETTO_BASEPOINT_TABLE;
use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity as _;
use sha2::Sha512;
use voprf::{Group as _, Ristretto255};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Error;

/// RFC 9497 context of the verifiable mode with ristretto255-SHA512.
pub(crate) const CONTEXT: &[u8] = b"OPRFV1-\x01-ristretto255-SHA512";

/// A fragment of a group key. It never leaves its holder.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrfShare(Scalar);

/// `s_i·G`, by which a holder's answers are checked. Kept in the roster, not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicShare(pub(crate) RistrettoPoint);

/// A holder's answer for one input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Partial(pub(crate) RistrettoPoint);

/// `hash_to_ristretto255(x)` of RFC 9497.
pub(crate) fn hash(x: &[u8]) -> Result<RistrettoPoint, Error> {
    Ristretto255::hash_to_curve::<Sha512>(&[x], &[b"HashToGroup-", CONTEXT]).map_err(|_| Error::Encoding("the input"))
}

impl PrfShare {
    /// Reads a canonical scalar that is not zero.
    ///
    /// # Errors
    /// It is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        const WRONG: Error = Error::Encoding("the fragment");
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes).map_err(|_| WRONG)?);
        let scalar = Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes)).ok_or(WRONG)?;
        if scalar == Scalar::ZERO { Err(WRONG) } else { Ok(Self(scalar)) }
    }

    /// The bytes to keep, sealed, in the holder's state.
    #[must_use]
    pub fn expose_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// `s_i·G`.
    #[must_use]
    pub fn public(&self) -> PublicShare {
        PublicShare(&self.0 * RISTRETTO_BASEPOINT_TABLE)
    }

    /// `s_i·H(x)`, in constant time.
    ///
    /// # Errors
    /// The input cannot be hashed.
    pub fn evaluate(&self, x: &[u8]) -> Result<Partial, Error> {
        Ok(Partial(hash(x)? * self.0))
    }

    /// The encoded evaluations of many inputs; encoding them together costs less than one by one.
    ///
    /// # Errors
    /// An input cannot be hashed.
    pub fn answer(&self, inputs: &[&[u8]]) -> Result<Vec<[u8; 32]>, Error> {
        if let [only] = inputs {
            return Ok(vec![self.evaluate(only)?.to_bytes()]);
        }
        let half = Zeroizing::new(self.0 * half());
        let points = inputs.iter().map(|x| Ok(hash(x)? * *half)).collect::<Result<Vec<_>, Error>>()?;
        Ok(RistrettoPoint::double_and_compress_batch(&points).iter().map(CompressedRistretto::to_bytes).collect())
    }

    pub(crate) const fn scalar(&self) -> &Scalar {
        &self.0
    }
}

impl fmt::Debug for PrfShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrfShare(..)")
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Partial(..)")
    }
}

/// The inverse of two modulo the group's order.
fn half() -> Scalar {
    static HALF: LazyLock<Scalar> = LazyLock::new(|| Scalar::from(2_u8).invert());
    *HALF
}

fn point(bytes: &[u8], what: &'static str) -> Result<RistrettoPoint, Error> {
    let point = CompressedRistretto::from_slice(bytes)
        .ok()
        .and_then(|compressed| compressed.decompress())
        .ok_or(Error::Encoding(what))?;
    if point.is_identity() { Err(Error::Encoding(what)) } else { Ok(point) }
}

impl PublicShare {
    /// Reads a canonical point that is not the identity.
    ///
    /// # Errors
    /// It is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        point(bytes, "the public share").map(Self)
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.compress().to_bytes()
    }
}

impl Partial {
    /// Reads a canonical point that is not the identity.
    ///
    /// # Errors
    /// It is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        point(bytes, "the holder's answer").map(Self)
    }

    /// The canonical encoding, for the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.compress().to_bytes()
    }
}
