//! The sealed record: a random data key encrypts the payload, a fragment-derived key encrypts the data key, and a commitment tells
//! at once whether the derived key is the right one.
//!
//! ```text
//! "FDK1" suite flags realm[16] key_id item[16] version salt[32] | commit[32] | nonce[12] data_key[48] | nonce[12] payload tag
//! ```
//! The payload is bound to everything but path, key and flags, so that a rename, a new key or a customer's fragment rewrites the
//! outer part and no payload.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::place::SUITE;
use crate::{Combined, Error, Input, Place};

const MAGIC: &[u8; 4] = b"FDK1";
const HEADER: usize = 4 + 1 + 1 + 16 + 4 + 16 + 4 + 32;
const NONCE: usize = 12;
const TAG: usize = 16;
const WRAPPED: usize = NONCE + 32 + TAG;
/// Bytes a record is longer than its payload.
pub const OVERHEAD: usize = HEADER + 32 + WRAPPED + NONCE + TAG;
/// Flag: the customer's own fragment takes part in the key.
pub const WITH_CUSTOMER: u8 = 1;

/// The derived key of one record and its commitment; what a cache may keep for a short time.
#[derive(Clone)]
pub struct Kek {
    key: Zeroizing<[u8; 32]>,
    commit: [u8; 32],
}

impl std::fmt::Debug for Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kek(..)")
    }
}

struct Sixty4;

impl KeyType for Sixty4 {
    fn len(&self) -> usize {
        64
    }
}

impl Kek {
    /// Derives the key for the input `x` from the holders' leg and, if there is one, the customer's.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn derive(x: &[u8], holders: &Combined, customer: Option<&[u8; 32]>) -> Result<Self, Error> {
        let mut material = Zeroizing::new(Vec::with_capacity(68));
        material.extend_from_slice(&[0, 32]);
        material.extend_from_slice(&*holders.0);
        match customer {
            Some(leg) => {
                material.extend_from_slice(&[0, 32]);
                material.extend_from_slice(leg);
            }
            None => material.extend_from_slice(&[0, 0]),
        }
        let mut out = Zeroizing::new([0_u8; 64]);
        Salt::new(HKDF_SHA256, b"FDK-kek-v1")
            .extract(&material)
            .expand(&[b"kek|commit", x], Sixty4)
            .and_then(|okm| okm.fill(&mut *out))
            .map_err(|_| Error::Library)?;
        let (mut key, mut commit) = (Zeroizing::new([0; 32]), [0; 32]);
        key.copy_from_slice(&out[..32]);
        commit.copy_from_slice(&out[32..]);
        Ok(Self { key, commit })
    }
}

/// A sealed record, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
}

impl Record {
    /// Seals `payload` for `input` under `kek`. The data key is fresh.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn seal(input: &Input, kek: &Kek, customer: bool, payload: &[u8]) -> Result<Self, Error> {
        let mut data_key = Zeroizing::new([0_u8; 32]);
        random(&mut *data_key)?;
        let mut bytes = Vec::with_capacity(OVERHEAD + payload.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[SUITE, if customer { WITH_CUSTOMER } else { 0 }]);
        bytes.extend_from_slice(&input.place.realm);
        bytes.extend_from_slice(&input.place.key_id.to_be_bytes());
        bytes.extend_from_slice(&input.place.item);
        bytes.extend_from_slice(&input.place.version.to_be_bytes());
        bytes.extend_from_slice(&input.salt);
        let bound = payload_aad(&bytes, input.place.purpose);
        bytes.extend_from_slice(&kek.commit);
        let flags = bytes[5];
        encrypt(&kek.key, &key_aad(input, flags)?, &*data_key, &mut bytes)?;
        encrypt(&data_key, &bound, payload, &mut bytes)?;
        Ok(Self { bytes })
    }

    /// Reads a record's outline; what is inside shows on opening.
    ///
    /// # Errors
    /// The bytes are no record of this format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let known =
            bytes.len() >= OVERHEAD && bytes.starts_with(MAGIC) && bytes[4] == SUITE && bytes[5] <= WITH_CUSTOMER;
        if known { Ok(Self { bytes: bytes.to_vec() }) } else { Err(Error::Encoding("the record")) }
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key the record was sealed under.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        u32::from_be_bytes([self.bytes[22], self.bytes[23], self.bytes[24], self.bytes[25]])
    }

    /// Whether the customer's fragment takes part.
    #[must_use]
    pub fn with_customer(&self) -> bool {
        self.bytes[5] & WITH_CUSTOMER != 0
    }

    /// The input of this record at `place`, whose `key_id` is not looked at: the record knows its own.
    ///
    /// # Errors
    /// The record belongs to another realm, item or version.
    pub fn input(&self, place: &Place) -> Result<Input, Error> {
        let here = self.bytes[6..22] == place.realm
            && self.bytes[26..42] == place.item
            && self.bytes[42..46] == place.version.to_be_bytes();
        if !here {
            return Err(Error::Place);
        }
        let mut salt = [0; 32];
        salt.copy_from_slice(&self.bytes[46..HEADER]);
        Ok(Input { place: Place { key_id: self.key_id(), ..place.clone() }, salt })
    }

    /// Opens the record.
    ///
    /// # Errors
    /// [`Error::Commitment`] if `kek` is not the record's key; [`Error::Tampered`] if the ciphertext was changed.
    pub fn open(&self, input: &Input, kek: &Kek) -> Result<Zeroizing<Vec<u8>>, Error> {
        let data_key = self.data_key(input, kek)?;
        decrypt(
            &data_key,
            &payload_aad(&self.bytes[..HEADER], input.place.purpose),
            &self.bytes[HEADER + 32 + WRAPPED..],
        )
    }

    /// The same payload at another path or under another key, with or without the customer's leg; the salt, item and
    /// version stay.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::Place`] if more than path or key differ.
    pub fn rewrap(
        &self,
        (from, kek): (&Input, &Kek),
        (to, new): (&Input, &Kek),
        customer: bool,
    ) -> Result<Self, Error> {
        let same = from.salt == to.salt
            && from.place.realm == to.place.realm
            && from.place.item == to.place.item
            && from.place.version == to.place.version
            && from.place.purpose == to.place.purpose;
        if !same {
            return Err(Error::Place);
        }
        let data_key = self.data_key(from, kek)?;
        let mut bytes = Vec::with_capacity(self.bytes.len());
        bytes.extend_from_slice(&self.bytes[..5]);
        bytes.push(if customer { WITH_CUSTOMER } else { 0 });
        bytes.extend_from_slice(&self.bytes[6..22]);
        bytes.extend_from_slice(&to.place.key_id.to_be_bytes());
        bytes.extend_from_slice(&self.bytes[26..HEADER]);
        bytes.extend_from_slice(&new.commit);
        let flags = bytes[5];
        encrypt(&new.key, &key_aad(to, flags)?, &*data_key, &mut bytes)?;
        bytes.extend_from_slice(&self.bytes[HEADER + 32 + WRAPPED..]);
        Ok(Self { bytes })
    }

    fn data_key(&self, input: &Input, kek: &Kek) -> Result<Zeroizing<[u8; 32]>, Error> {
        let (commit, rest) = self.bytes[HEADER..].split_at(32);
        if !bool::from(commit.ct_eq(&kek.commit)) {
            return Err(Error::Commitment);
        }
        let opened = decrypt(&kek.key, &key_aad(input, self.bytes[5])?, &rest[..WRAPPED])?;
        let mut data_key = Zeroizing::new([0; 32]);
        data_key.copy_from_slice(&opened);
        Ok(data_key)
    }
}

/// The input and the flags.
fn key_aad(input: &Input, flags: u8) -> Result<Vec<u8>, Error> {
    let mut aad = input.encode()?;
    aad.push(flags);
    Ok(aad)
}

/// Everything of the header but flags and key id, and the purpose. Neither path, key nor legs of the key are bound here, so that
/// a change of any of them leaves the payload as it is; they are bound by the input and the commitment.
fn payload_aad(header: &[u8], purpose: u8) -> Vec<u8> {
    [&header[..5], &header[6..22], &header[26..HEADER], &[purpose]].concat()
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| Error::Library)
}

/// Appends nonce, ciphertext and tag. Each key encrypts one message, so a random nonce cannot repeat.
fn encrypt(key: &[u8; 32], aad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let mut nonce = [0; NONCE];
    random(&mut nonce)?;
    out.extend_from_slice(&nonce);
    let mut buffer = Zeroizing::new(plain.to_vec());
    let tag = cipher(key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer)
        .map_err(|_| Error::Library)?;
    out.extend_from_slice(&buffer);
    out.extend_from_slice(tag.as_ref());
    Ok(())
}

fn decrypt(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, body) = sealed.split_at_checked(NONCE).ok_or(Error::Tampered)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Tampered)?;
    let mut buffer = Zeroizing::new(body.to_vec());
    let length = cipher(key)?.open_in_place(nonce, Aad::from(aad), &mut buffer).map_err(|_| Error::Tampered)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

/// Fills `bytes` from the operating system's generator.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|_| Error::Library)
}

/// A fresh salt for a write.
///
/// # Errors
/// The operating system gave no randomness.
pub fn fresh_salt() -> Result<[u8; 32], Error> {
    let mut salt = [0; 32];
    random(&mut salt)?;
    Ok(salt)
}
