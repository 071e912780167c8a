//! Keys of Kerberos and what is done with them: made of a password, sealing, opening, vouching (RFC 3961, RFC 3962).

use aws_lc_rs::{constant_time, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::cts::{self, Key};
use super::der;

/// Rounds of key stretching that a KDC may ask for. Every domain asks for the usual 4,096; somebody on the way who asks for fewer wants
/// to guess the password.
const ROUNDS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;
/// AES with 256 and 128 bits, SHA-1 truncated to 96 (RFC 3962).
pub(super) const ETYPES: [u32; 2] = [18, 17];
/// Bytes of an integrity code.
pub(super) const MAC: usize = 12;
/// Bytes of randomness in front of what is sealed.
pub(super) const CONFOUNDER: usize = 16;

/// How a password becomes a key: `ETYPE-INFO2`.
pub(super) struct Stretch {
    pub(super) etype: u32,
    salt: Vec<u8>,
    rounds: u32,
}

impl Stretch {
    /// The first offer that is AES, in the data of error 25.
    pub(super) fn offered(data: &[u8]) -> Option<Self> {
        let hints = der::elements(der::content(data, 0x30)?)
            .filter(|(_, hint)| der::field(hint, 1).and_then(der::number) == Some(19))
            .find_map(|(_, hint)| der::content(der::field(hint, 2)?, 0x04))?;
        let offers = der::content(hints, 0x30)?;
        ETYPES.iter().find_map(|etype| {
            let (_, offer) =
                der::elements(offers).find(|(_, o)| der::field(o, 0).and_then(der::number) == Some(*etype))?;
            let salt = der::field(offer, 1).and_then(|salt| der::content(salt, 0x1b)).unwrap_or_default();
            let rounds = match der::field(offer, 2).and_then(|params| der::content(params, 0x04)) {
                None => 4096,
                Some(bytes) => u32::from_be_bytes(bytes.try_into().ok()?),
            };
            ROUNDS.contains(&rounds).then(|| Self { etype: *etype, salt: salt.to_vec(), rounds })
        })
    }

    pub(super) fn key(&self, password: &str) -> Key {
        stretch(self.etype, password, &self.salt, self.rounds)
    }
}

fn stretch(etype: u32, password: &str, salt: &[u8], rounds: u32) -> Key {
    let mut bytes = Zeroizing::new(vec![0_u8; if etype == 18 { 32 } else { 16 }]);
    let rounds = std::num::NonZeroU32::new(rounds).unwrap_or(std::num::NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, rounds, salt, password.as_bytes(), &mut bytes);
    Key::new(&bytes).derived(b"kerberos")
}

impl Key {
    /// An `EncryptionKey`, if it is one of the kinds that are used here.
    pub(super) fn read(encoded: &[u8]) -> Option<Self> {
        let fields = der::content(encoded, 0x30)?;
        let (etype, bytes) = (der::number(der::field(fields, 0)?)?, der::content(der::field(fields, 1)?, 0x04)?);
        matches!((etype, bytes.len()), (18, 32) | (17, 16)).then(|| Self::new(bytes))
    }

    /// The key as an `EncryptionKey`.
    pub(super) fn written(&self) -> Vec<u8> {
        der::sequence(&[der::explicit(0, &der::integer(self.etype())), der::explicit(1, &der::octets(self.bytes()))])
    }

    /// A new key of the same kind.
    pub(super) fn another(&self) -> Self {
        let mut bytes = Zeroizing::new(self.bytes().to_vec());
        getrandom::fill(&mut bytes).expect("the system gives randomness");
        Self::new(&bytes)
    }

    fn etype(&self) -> u32 {
        if self.bytes().len() == 32 { 18 } else { 17 }
    }

    /// `EncryptedData` made of `plain`.
    pub(super) fn sealed(&self, usage: u32, plain: &[u8]) -> Vec<u8> {
        let text = der::octets(&self.seal(usage, plain));
        der::sequence(&[der::explicit(0, &der::integer(self.etype())), der::explicit(2, &text)])
    }

    /// `Checksum` over `text`.
    pub(super) fn vouched(&self, usage: u32, text: &[u8]) -> Vec<u8> {
        let kind = if self.etype() == 18 { 16 } else { 15 };
        let sum = mac(&self.derived(&[&usage.to_be_bytes()[..], &[0x99]].concat()), text);
        der::sequence(&[der::explicit(0, &der::integer(kind)), der::explicit(1, &der::octets(&sum))])
    }

    /// `E(Ke, confounder | plain) | HMAC(Ki, confounder | plain)`.
    pub(super) fn seal(&self, usage: u32, plain: &[u8]) -> Vec<u8> {
        let (ke, ki) = self.pair(usage);
        let mut text = Zeroizing::new(vec![0_u8; CONFOUNDER + plain.len()]);
        getrandom::fill(&mut text[..CONFOUNDER]).expect("the system gives randomness");
        text[CONFOUNDER..].copy_from_slice(plain);
        let tag = mac(&ki, &text);
        let mut out = cts::encrypt(&ke, &text);
        out.extend_from_slice(&tag);
        out
    }

    /// What was sealed with this key, if it was.
    pub(super) fn open(&self, usage: u32, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (ke, ki) = self.pair(usage);
        let (text, tag) = sealed.split_at_checked(sealed.len().checked_sub(MAC)?)?;
        let plain = Zeroizing::new(cts::decrypt(&ke, text)?);
        let same = constant_time::verify_slices_are_equal(&mac(&ki, &plain), tag).is_ok();
        if same { plain.get(CONFOUNDER..).map(|plain| Zeroizing::new(plain.to_vec())) } else { None }
    }

    fn pair(&self, usage: u32) -> (Key, Key) {
        let derive = |last: u8| self.derived(&[&usage.to_be_bytes()[..], &[last]].concat());
        (derive(0xaa), derive(0x55))
    }
}

fn mac(key: &Key, text: &[u8]) -> [u8; MAC] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.bytes());
    let mut out = [0; MAC];
    out.copy_from_slice(&hmac::sign(&key, text).as_ref()[..MAC]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_rfc_3962() {
        let salt = b"ATHENA.MIT.EDUraeburn";
        let hex = |key: Key| key.bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(stretch(17, "password", salt, 1200)), "4c01cd46d632d01e6dbe230a01ed642a");
        let long = "55a6ac740ad17b4846941051e1e8b0a7548d93b0ab30a8bc3ff16280382b8c2a";
        assert_eq!(hex(stretch(18, "password", salt, 1200)), long);
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_usage_only() {
        let key = stretch(18, "one", b"salt", 2);
        for length in [1, 15, 16, 17, 31, 32, 33, 100] {
            let plain = vec![9_u8; length];
            let sealed = key.seal(3, &plain);
            assert_eq!(key.open(3, &sealed).as_deref(), Some(&plain), "{length}");
            assert_eq!(key.open(1, &sealed), None);
            assert_eq!(stretch(18, "two", b"salt", 2).open(3, &sealed), None);
        }
        assert_eq!(key.open(3, &[0; 5]), None);
    }

    #[test]
    fn a_key_is_read_back_as_it_was_written_and_other_kinds_are_none() {
        for etype in ETYPES {
            let key = stretch(etype, "one", b"salt", 2);
            assert_eq!(Key::read(&key.written()).map(|key| key.bytes().to_vec()), Some(key.bytes().to_vec()));
        }
        let rc4 = [der::explicit(0, &der::integer(23)), der::explicit(1, &der::octets(&[7; 16]))];
        assert!(Key::read(&der::sequence(&rc4)).is_none());
    }
}
