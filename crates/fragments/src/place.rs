//! Where a record belongs, and the input of the pseudo-random function made of it.
//!
//! The encoding is canonical: fixed order, fixed widths, big-endian, one length prefix. It is part of the stored format.

use crate::{Error, Suite};

/// The purpose of inputs by which holders are probed; no record has it.
pub const PROBE: u8 = 0;
const MAGIC: &[u8; 5] = b"FDKx1";
/// Bytes of an input before its path.
const FIXED: usize = 5 + 1 + 16 + 4 + 1 + 16 + 4 + 32 + 2;
/// Longest input in bytes.
pub const LONGEST_INPUT: usize = 1024;
/// Longest path in bytes.
pub const LONGEST_PATH: usize = LONGEST_INPUT - FIXED;

/// Where a record belongs. Everything of it is bound into the record's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The tenant.
    pub realm: [u8; 16],
    /// The key of the tenant.
    pub key_id: u32,
    /// What kind of record it is: 1 = item version, 2 = target version; 0 = none, a probe.
    pub purpose: u8,
    /// The object.
    pub item: [u8; 16],
    /// The object's version.
    pub version: u32,
    /// The object's path, so that holders can judge by it.
    pub path: String,
}

/// A parsed input, as a holder sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// The suite of the key.
    pub suite: Suite,
    /// Where the record belongs.
    pub place: Place,
    /// Fresh for each write.
    pub salt: [u8; 32],
}

impl Input {
    /// The canonical bytes.
    ///
    /// # Errors
    /// The path is too long.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        encode(&self.place, (self.suite, self.place.key_id), &self.salt)
    }

    /// Reads canonical bytes and refuses everything else.
    ///
    /// # Errors
    /// The bytes are not what [`Self::encode`] writes.
    pub fn parse(x: &[u8]) -> Result<Self, Error> {
        const WRONG: Error = Error::Encoding("the input");
        let mut rest = x;
        let mut take = |n: usize| -> Result<&[u8], Error> {
            let (head, tail) = rest.split_at_checked(n).ok_or(WRONG)?;
            rest = tail;
            Ok(head)
        };
        if take(5)? != MAGIC {
            return Err(WRONG);
        }
        let suite = Suite::of_byte(u8::from_be_bytes(array(take(1)?)?)).ok_or(WRONG)?;
        let realm = array(take(16)?)?;
        let key_id = u32::from_be_bytes(array(take(4)?)?);
        let purpose = u8::from_be_bytes(array(take(1)?)?);
        let item = array(take(16)?)?;
        let version = u32::from_be_bytes(array(take(4)?)?);
        let salt = array(take(32)?)?;
        let length = usize::from(u16::from_be_bytes(array(take(2)?)?));
        let path = std::str::from_utf8(take(length)?).map_err(|_| WRONG)?.to_owned();
        if !rest.is_empty() || x.len() > LONGEST_INPUT {
            return Err(WRONG);
        }
        Ok(Self { suite, place: Place { realm, key_id, purpose, item, version, path }, salt })
    }
}

/// The canonical bytes, with one byte to spare. The key's id may differ from the place's.
pub(crate) fn encode(place: &Place, (suite, key_id): (Suite, u32), salt: &[u8]) -> Result<Vec<u8>, Error> {
    let path = place.path.as_bytes();
    if path.len() > LONGEST_PATH {
        return Err(Error::PathTooLong);
    }
    let length = u16::try_from(path.len()).map_err(|_| Error::PathTooLong)?;
    let mut x = Vec::with_capacity(FIXED + path.len() + 1);
    x.extend_from_slice(MAGIC);
    x.push(suite.byte());
    x.extend_from_slice(&place.realm);
    x.extend_from_slice(&key_id.to_be_bytes());
    x.push(place.purpose);
    x.extend_from_slice(&place.item);
    x.extend_from_slice(&place.version.to_be_bytes());
    x.extend_from_slice(salt);
    x.extend_from_slice(&length.to_be_bytes());
    x.extend_from_slice(path);
    Ok(x)
}

/// The suite that an input names, read without the rest of it.
#[must_use]
pub fn suite(x: &[u8]) -> Option<Suite> {
    x.get(MAGIC.len()).copied().and_then(Suite::of_byte)
}

/// The tenant in the bytes that [`encode`] wrote.
pub(crate) fn realm(x: &[u8]) -> [u8; 16] {
    let mut realm = [0; 16];
    realm.copy_from_slice(&x[6..22]);
    realm
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| Error::Encoding("the input"))
}
