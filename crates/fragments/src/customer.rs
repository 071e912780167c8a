//! The customer's fragment: a key of the customer's own, without which no set of holders derives the key of a record.
//!
//! `Z = HMAC-SHA256(fragment, x)` is the second leg of the record's key. What must stay true: a fragment is 256 random bits and is
//! in no error, log or answer; its check value, which tells fragments apart, is computed over a text that no input is.

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::Error;
use crate::record::random;

/// What the check value is computed over. Inputs begin with `FDKx`.
pub const CHECKED: &[u8] = b"FDK-customer-fragment-check-v1";

/// A customer's fragment in this process's memory.
pub struct CustomerFragment(hmac::Key);

impl fmt::Debug for CustomerFragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerFragment(..)")
    }
}

impl CustomerFragment {
    /// A fragment from its 32 bytes.
    ///
    /// # Errors
    /// It has another length, or its bytes are all the same.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let plausible = bytes.len() == 32 && bytes.iter().any(|byte| *byte != bytes[0]);
        if plausible {
            Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
        } else {
            Err(Error::Encoding("the customer's fragment"))
        }
    }

    /// The customer's leg for the input `x`.
    #[must_use]
    pub fn leg(&self, x: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut leg = Zeroizing::new([0; 32]);
        leg.copy_from_slice(hmac::sign(&self.0, x).as_ref());
        leg
    }

    /// What tells this fragment from others. It says nothing about the fragment and may be stored anywhere.
    #[must_use]
    pub fn check(&self) -> [u8; 32] {
        *self.leg(CHECKED)
    }
}

/// The bytes of a new fragment.
///
/// # Errors
/// The operating system gave no randomness.
pub fn generate() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    random(&mut *bytes)?;
    Ok(bytes)
}
