//! One holder's fragment and what it answers.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::curve::{self, Curve, Encoded, Nist, Of, Point, Ristretto, Scalar};
use crate::{Error, Suite};

/// A fragment of a group key. It never leaves its holder.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrfShare(pub(crate) Scalar);

/// `s_i·G`, by which a holder's answers are checked. Kept in the roster, not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicShare(pub(crate) Point);

/// A holder's answer for one input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Partial(pub(crate) Point);

impl PrfShare {
    /// Reads a canonical scalar that is not zero.
    ///
    /// # Errors
    /// It is anything else.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        const WRONG: Error = Error::Encoding("the fragment");
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes).map_err(|_| WRONG)?);
        if bool::from(bytes.ct_eq(&[0; 32])) {
            return Err(WRONG);
        }
        curve::decode_scalar(suite, &bytes).map(Self).ok_or(WRONG)
    }

    /// The bytes to keep, sealed, in the holder's state.
    #[must_use]
    pub fn expose_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(curve::encode_scalar(&self.0))
    }

    /// Which group it is of.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.0.suite()
    }

    /// `s_i·G`.
    #[must_use]
    pub fn public(&self) -> PublicShare {
        PublicShare(match &self.0 {
            Of::Ristretto255(scalar) => Of::Ristretto255(Ristretto::base_times(scalar)),
            Of::P256(scalar) => Of::P256(Nist::base_times(scalar)),
        })
    }

    /// `s_i·H(x)`, in constant time.
    ///
    /// # Errors
    /// The input cannot be hashed.
    pub fn evaluate(&self, x: &[u8]) -> Result<Partial, Error> {
        Ok(Partial(match &self.0 {
            Of::Ristretto255(scalar) => Of::Ristretto255(Ristretto::hash_to_group(x)? * scalar),
            Of::P256(scalar) => Of::P256(Nist::hash_to_group(x)? * scalar),
        }))
    }

    /// The encoded evaluations of many inputs; encoding them together costs less than one by one.
    ///
    /// # Errors
    /// An input cannot be hashed.
    pub fn answer(&self, inputs: &[&[u8]]) -> Result<Vec<Encoded>, Error> {
        if let [only] = inputs {
            return Ok(vec![self.evaluate(only)?.to_bytes()]);
        }
        match &self.0 {
            Of::Ristretto255(scalar) => answer::<Ristretto>(scalar, inputs),
            Of::P256(scalar) => answer::<Nist>(scalar, inputs),
        }
    }
}

fn answer<C: Curve>(scalar: &C::Scalar, inputs: &[&[u8]]) -> Result<Vec<Encoded>, Error> {
    let part = Zeroizing::new(C::part(scalar));
    let points = inputs.iter().map(|x| Ok(C::hash_to_group(x)? * &*part)).collect::<Result<Vec<_>, Error>>()?;
    Ok(C::encode_multiples(&points))
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

impl PublicShare {
    /// Reads a canonical point that is not the identity. Its length tells its suite.
    ///
    /// # Errors
    /// It is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        curve::decode(bytes, "the public share").map(Self)
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Encoded {
        curve::encode(&self.0)
    }

    /// Which group it is of.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.0.suite()
    }
}

impl Partial {
    /// Reads a canonical point that is not the identity. Its length tells its suite.
    ///
    /// # Errors
    /// It is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        curve::decode(bytes, "the holder's answer").map(Self)
    }

    /// The canonical encoding, for the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Encoded {
        curve::encode(&self.0)
    }

    /// Which group it is of.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.0.suite()
    }
}
