//! The sealed record: a random data key encrypts the payload, a fragment-derived key encrypts the data key, and a commitment tells
//! at once whether the derived key is the right one.
//!
//! ```text
//! "FDK1" suite flags realm[16] key_id item[16] version salt[32] | commit[32] | nonce[12] data_key[48] | nonce[12] payload tag
//! ```
//! The payload is bound to everything but path, key, suite and flags, so that a rename, a new key or a customer's fragment
//! rewrites the outer part and no payload. Header and input carry the suite of the key; where the suite stands in what the payload is
//! bound to, there is the number of the payload's cipher, which is 1 (AES-256-GCM) for both suites: a record goes from suite to
//! suite with its payload as it is.

use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::place;
use crate::{Combined, Error, Input, Place, Suite};

const MAGIC: &[u8; 4] = b"FDK1";
const HEADER: usize = 4 + 1 + 1 + 16 + 4 + 16 + 4 + 32;
/// The payload's cipher, AES-256-GCM, where its binding has the suite. It was the suite when there was only one.
const PAYLOAD_CIPHER: u8 = 1;
/// What of the header the payload is bound to, and the purpose.
const BOUND_HEADER: usize = 5 + 16 + (HEADER - 26) + 1;
const NONCE: usize = 12;
const TAG: usize = 16;
const WRAPPED: usize = NONCE + 32 + TAG;
/// Bytes a record is longer than its payload.
pub const OVERHEAD: usize = HEADER + 32 + WRAPPED + NONCE + TAG;
/// The first byte of the key's id in a record, which has four bytes; counted from 0.
pub const KEY_ID_AT: u32 = 4 + 1 + 1 + 16;
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

static SALT: LazyLock<Salt> = LazyLock::new(|| Salt::new(HKDF_SHA256, b"FDK-kek-v1"));

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
        let mut material = Zeroizing::new(Vec::with_capacity(69));
        let length = u16::try_from(holders.0.len()).map_err(|_| Error::Library)?;
        material.extend_from_slice(&length.to_be_bytes());
        material.extend_from_slice(&holders.0);
        match customer {
            Some(leg) => {
                material.extend_from_slice(&[0, 32]);
                material.extend_from_slice(leg);
            }
            None => material.extend_from_slice(&[0, 0]),
        }
        let mut out = Zeroizing::new([0_u8; 64]);
        SALT.extract(&material)
            .expand(&[b"kek|commit", x], Sixty4)
            .and_then(|okm| okm.fill(&mut *out))
            .map_err(|_| Error::Library)?;
        let (mut key, mut commit) = (Zeroizing::new([0; 32]), [0; 32]);
        key.copy_from_slice(&out[..32]);
        commit.copy_from_slice(&out[32..]);
        Ok(Self { key, commit })
    }
}

/// A sealed record as it lies in somebody's buffer, for reading without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    bytes: &'a [u8],
    suite: Suite,
}

/// A record's input at one place, encoded once: what the holders evaluate, what a cache looks up, and what opens the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The input, then the record's flags.
    bytes: Vec<u8>,
    purpose: u8,
}

impl Bound {
    /// The input `x`.
    #[must_use]
    pub fn x(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - 1]
    }

    /// The tenant.
    #[must_use]
    pub fn realm(&self) -> [u8; 16] {
        place::realm(&self.bytes)
    }

    /// What the record's key is known by: the input, and whose legs take part.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'a> Sealed<'a> {
    /// Reads a record's outline; what is inside shows on opening.
    ///
    /// # Errors
    /// The bytes are no record of this format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let known = bytes.len() >= OVERHEAD && bytes.starts_with(MAGIC) && bytes[5] <= WITH_CUSTOMER;
        match Suite::of_byte(bytes.get(4).copied().unwrap_or(0)) {
            Some(suite) if known => Ok(Self { bytes, suite }),
            _ => Err(Error::Encoding("the record")),
        }
    }

    /// The suite of that key.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
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

    fn salt(&self) -> &'a [u8] {
        &self.bytes[46..HEADER]
    }

    fn check(&self, place: &Place) -> Result<(), Error> {
        let here = self.bytes[6..22] == place.realm
            && self.bytes[26..42] == place.item
            && self.bytes[42..46] == place.version.to_be_bytes();
        if here { Ok(()) } else { Err(Error::Place) }
    }

    /// Binds the record to `place`, whose `key_id` is not looked at: the record knows its own.
    ///
    /// # Errors
    /// The record belongs to another realm, item or version, or the path is too long.
    pub fn bind(&self, place: &Place) -> Result<Bound, Error> {
        self.check(place)?;
        let mut bytes = place::encode(place, (self.suite, self.key_id()), self.salt())?;
        bytes.push(self.bytes[5]);
        Ok(Bound { bytes, purpose: place.purpose })
    }

    /// Opens the record.
    ///
    /// # Errors
    /// [`Error::Commitment`] if `kek` is not the record's key; [`Error::Tampered`] if the ciphertext was changed.
    pub fn open(&self, bound: &Bound, kek: &Kek) -> Result<Zeroizing<Vec<u8>>, Error> {
        let data_key = self.data_key(&bound.bytes, kek)?;
        let aad = payload_aad(&self.bytes[..HEADER], bound.purpose);
        let sealed = &self.bytes[HEADER + 32 + WRAPPED..];
        let mut buffer = Zeroizing::new(sealed[NONCE..].to_vec());
        decrypt(&data_key, &aad, &sealed[..NONCE], &mut buffer)?;
        buffer.truncate(sealed.len() - NONCE - TAG);
        Ok(buffer)
    }

    fn data_key(&self, aad: &[u8], kek: &Kek) -> Result<Zeroizing<[u8; 32]>, Error> {
        let (commit, rest) = self.bytes[HEADER..].split_at(32);
        if !bool::from(commit.ct_eq(&kek.commit)) {
            return Err(Error::Commitment);
        }
        let mut buffer = Zeroizing::new([0; 32 + TAG]);
        buffer.copy_from_slice(&rest[NONCE..WRAPPED]);
        decrypt(&kek.key, aad, &rest[..NONCE], &mut *buffer)?;
        let mut data_key = Zeroizing::new([0; 32]);
        data_key.copy_from_slice(&buffer[..32]);
        Ok(data_key)
    }
}

/// A sealed record, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    suite: Suite,
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
        bytes.extend_from_slice(&[input.suite.byte(), if customer { WITH_CUSTOMER } else { 0 }]);
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
        Ok(Self { bytes, suite: input.suite })
    }

    /// Reads a record's outline; what is inside shows on opening.
    ///
    /// # Errors
    /// The bytes are no record of this format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Sealed::parse(bytes).map(|sealed| Self { bytes: sealed.bytes.to_vec(), suite: sealed.suite })
    }

    fn sealed(&self) -> Sealed<'_> {
        Sealed { bytes: &self.bytes, suite: self.suite }
    }

    /// The bytes to store.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key the record was sealed under.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        self.sealed().key_id()
    }

    /// The suite of that key.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether the customer's fragment takes part.
    #[must_use]
    pub fn with_customer(&self) -> bool {
        self.sealed().with_customer()
    }

    /// The input of this record at `place`, whose `key_id` is not looked at: the record knows its own.
    ///
    /// # Errors
    /// The record belongs to another realm, item or version.
    pub fn input(&self, place: &Place) -> Result<Input, Error> {
        self.sealed().check(place)?;
        let mut salt = [0; 32];
        salt.copy_from_slice(self.sealed().salt());
        Ok(Input { suite: self.suite, place: Place { key_id: self.key_id(), ..place.clone() }, salt })
    }

    /// Opens the record.
    ///
    /// # Errors
    /// [`Error::Commitment`] if `kek` is not the record's key; [`Error::Tampered`] if the ciphertext was changed.
    pub fn open(&self, input: &Input, kek: &Kek) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bound = Bound { bytes: key_aad(input, self.bytes[5])?, purpose: input.place.purpose };
        self.sealed().open(&bound, kek)
    }

    /// The same payload at another path or under another key, of whichever suite, with or without the customer's leg; the salt, item and
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
        let data_key = self.sealed().data_key(&key_aad(from, self.bytes[5])?, kek)?;
        let mut bytes = Vec::with_capacity(self.bytes.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(to.suite.byte());
        bytes.push(if customer { WITH_CUSTOMER } else { 0 });
        bytes.extend_from_slice(&self.bytes[6..22]);
        bytes.extend_from_slice(&to.place.key_id.to_be_bytes());
        bytes.extend_from_slice(&self.bytes[26..HEADER]);
        bytes.extend_from_slice(&new.commit);
        let flags = bytes[5];
        encrypt(&new.key, &key_aad(to, flags)?, &*data_key, &mut bytes)?;
        bytes.extend_from_slice(&self.bytes[HEADER + 32 + WRAPPED..]);
        Ok(Self { bytes, suite: to.suite })
    }
}

/// The input and the flags.
fn key_aad(input: &Input, flags: u8) -> Result<Vec<u8>, Error> {
    let mut aad = input.encode()?;
    aad.push(flags);
    Ok(aad)
}

/// Everything of the header but suite, flags and key id, and the purpose. Neither path, key nor legs of the key are bound here, so that
/// a change of any of them leaves the payload as it is; they are bound by the input and the commitment.
fn payload_aad(header: &[u8], purpose: u8) -> [u8; BOUND_HEADER] {
    let mut aad = [0; BOUND_HEADER];
    aad[..4].copy_from_slice(&header[..4]);
    aad[4] = PAYLOAD_CIPHER;
    aad[5..21].copy_from_slice(&header[6..22]);
    aad[21..BOUND_HEADER - 1].copy_from_slice(&header[26..HEADER]);
    aad[BOUND_HEADER - 1] = purpose;
    aad
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

/// Decrypts in place; the tag's bytes stay at the end.
fn decrypt(key: &[u8; 32], aad: &[u8], nonce: &[u8], buffer: &mut [u8]) -> Result<(), Error> {
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Tampered)?;
    cipher(key)?.open_in_place(nonce, Aad::from(aad), buffer).map(|_| ()).map_err(|_| Error::Tampered)
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
