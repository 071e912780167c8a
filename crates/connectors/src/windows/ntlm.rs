//! NTLMv2 as a client speaks it (MS-NLMP): three messages, and the keys that seal what follows.
//!
//! What must stay true: only NTLMv2 with extended session security, key exchange and 128 bits is spoken; the messages are bound
//! together by their integrity code, so that nobody on the way can take a promise out of them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md4::Md4;
use md5::{Digest as _, Md5};
use rc4::{Rc4, StreamCipher as _};
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// Unicode, target name, sign, seal, NTLM, always sign, extended security, target information, version, 128, key exchange, 56.
const FLAGS: u32 = 0x1
    | 0x4
    | 0x10
    | 0x20
    | 0x200
    | 0x8000
    | 0x8_0000
    | 0x80_0000
    | 0x200_0000
    | 0x2000_0000
    | 0x4000_0000
    | 0x8000_0000;
/// Of these, what the server must agree to.
const NEEDED: u32 = 0x1 | 0x10 | 0x20 | 0x8_0000 | 0x80_0000 | 0x2000_0000 | 0x4000_0000;

/// Where the integrity code stands in the third message, and where what follows it begins.
const CODE_AT: usize = 72;
const PAYLOAD_AT: usize = 88;

const END: u16 = 0;
const COMPUTER: u16 = 1;
const FLAG: u16 = 6;
const TIME: u16 = 7;
const BINDINGS: u16 = 10;

/// Bytes of a text as Windows writes it.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The key that Windows keeps of a password.
pub(super) fn nt_hash(password: &str) -> Zeroizing<[u8; 16]> {
    let text = Zeroizing::new(utf16(password));
    Zeroizing::new(Md4::digest(text.as_slice()).into())
}

/// HMAC with MD5.
pub(super) fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("any length is a key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The stream cipher under a key of 1 to 256 bytes.
pub(super) fn rc4(key: &[u8], data: &mut [u8]) {
    Rc4::new_from_slice(key).expect("keys here have 16 bytes").apply_keystream(data);
}

fn strange(what: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the host's NTLM challenge cannot be used: {what}"), "")
}

/// The first message.
pub(super) fn negotiate() -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.extend_from_slice(&FLAGS.to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&VERSION);
    out
}

/// Windows 10, revision 15 of the protocol.
const VERSION: [u8; 8] = [10, 0, 0x63, 0x45, 0, 0, 0, 15];

/// The server's message.
pub(super) struct Challenge {
    raw: Vec<u8>,
    flags: u32,
    nonce: [u8; 8],
    about: Vec<(u16, Vec<u8>)>,
}

impl Challenge {
    pub(super) fn parse(raw: &[u8]) -> Result<Self, Failure> {
        let number = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(raw.get(at..at + 4)?.try_into().ok()?)) };
        let short = |at: usize| -> Option<usize> {
            Some(usize::from(u16::from_le_bytes(raw.get(at..at + 2)?.try_into().ok()?)))
        };
        if raw.get(..8) != Some(SIGNATURE) || number(8) != Some(2) {
            return Err(strange("it is none"));
        }
        let read = || -> Option<(u32, [u8; 8], &[u8])> {
            let (length, start) = (short(40)?, usize::try_from(number(44)?).ok()?);
            Some((number(20)?, raw.get(24..32)?.try_into().ok()?, raw.get(start..start.checked_add(length)?)?))
        };
        let (flags, nonce, info) = read().ok_or_else(|| strange("it is too short"))?;
        if flags & NEEDED != NEEDED {
            return Err(strange("the host offers no sealing with 128 bits"));
        }
        let about = pairs(info).ok_or_else(|| strange("its description of the host is broken"))?;
        Ok(Self { raw: raw.to_vec(), flags, nonce, about })
    }

    fn find(&self, kind: u16) -> Option<&[u8]> {
        self.about.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.as_slice())
    }

    fn name(&self, kind: u16) -> String {
        let bytes = self.find(kind).unwrap_or_default();
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    }

    /// The host's own short name: the domain of its local accounts.
    pub(super) fn computer(&self) -> String {
        self.name(COMPUTER)
    }
}

/// The attributes of a host: kind, length, value, until the end mark.
fn pairs(mut input: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut out = Vec::new();
    loop {
        let kind = u16::from_le_bytes(input.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_le_bytes(input.get(2..4)?.try_into().ok()?));
        if kind == END {
            return Some(out);
        }
        out.push((kind, input.get(4..4 + length)?.to_vec()));
        input = input.get(4 + length..)?;
    }
}

/// Who logs in.
pub(super) struct Logon<'a> {
    pub(super) domain: &'a str,
    pub(super) user: &'a str,
    pub(super) password: &'a Secret,
    /// What ties the login to its connection, where the messages travel in TLS.
    pub(super) bindings: Option<[u8; 16]>,
}

impl Logon<'_> {
    /// The third message, and the key of the session.
    pub(super) fn authenticate(
        &self,
        first: &[u8],
        challenge: &Challenge,
    ) -> Result<(Vec<u8>, Zeroizing<[u8; 16]>), Failure> {
        let password = self.password.expose_str().ok_or_else(|| strange("the password is no text"))?;
        let (mut nonce, mut exported) = ([0_u8; 8], Zeroizing::new([0_u8; 16]));
        getrandom::fill(&mut nonce).expect("the system gives randomness");
        getrandom::fill(exported.as_mut_slice()).expect("the system gives randomness");
        let whose = utf16(&format!("{}{}", self.user.to_uppercase(), self.domain));
        let owner = Zeroizing::new(hmac_md5(nt_hash(password).as_slice(), &[&whose]));
        let mut rest = vec![1, 1, 0, 0, 0, 0, 0, 0];
        rest.extend_from_slice(&challenge.find(TIME).and_then(|time| time.try_into().ok()).unwrap_or_else(now));
        rest.extend_from_slice(&nonce);
        rest.extend_from_slice(&[0; 4]);
        rest.extend_from_slice(&self.described(challenge));
        rest.extend_from_slice(&[0; 4]);
        let proof = hmac_md5(owner.as_slice(), &[&challenge.nonce, &rest]);
        let base = Zeroizing::new(hmac_md5(owner.as_slice(), &[&proof]));
        let mut sealed = *exported;
        rc4(base.as_slice(), &mut sealed);
        let answer = [&proof[..], &rest].concat();
        let mut message = self.message(challenge.flags, &answer, &sealed);
        let code = hmac_md5(exported.as_slice(), &[first, &challenge.raw, &message]);
        message[CODE_AT..PAYLOAD_AT].copy_from_slice(&code);
        Ok((message, exported))
    }

    /// The host's description with what the client adds: that there is an integrity code, and the binding to the TLS connection.
    fn described(&self, challenge: &Challenge) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |kind: u16, value: &[u8]| {
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
            out.extend_from_slice(value);
        };
        for (kind, value) in challenge.about.iter().filter(|(kind, _)| ![FLAG, BINDINGS].contains(kind)) {
            put(*kind, value);
        }
        put(FLAG, &2_u32.to_le_bytes());
        if let Some(bindings) = self.bindings {
            put(BINDINGS, &bindings);
        }
        put(END, &[]);
        out
    }

    fn message(&self, flags: u32, answer: &[u8], key: &[u8; 16]) -> Vec<u8> {
        let parts = [&[0_u8; 24][..], answer, &utf16(self.domain), &utf16(self.user), &[], key];
        let mut out = SIGNATURE.to_vec();
        out.extend_from_slice(&3_u32.to_le_bytes());
        let mut at = PAYLOAD_AT;
        for part in parts {
            let length = u16::try_from(part.len()).unwrap_or(0).to_le_bytes();
            out.extend_from_slice(&length);
            out.extend_from_slice(&length);
            out.extend_from_slice(&u32::try_from(at).unwrap_or(0).to_le_bytes());
            at += part.len();
        }
        out.extend_from_slice(&(flags & FLAGS).to_le_bytes());
        out.extend_from_slice(&VERSION);
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&parts.concat());
        out
    }
}

/// Now, in units of 100 ns since 1601.
fn now() -> [u8; 8] {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let units = u64::try_from(since.as_micros()).unwrap_or(0).saturating_mul(10);
    units.saturating_add(116_444_736_000_000_000).to_le_bytes()
}

/// One direction of a sealed conversation.
struct Direction {
    sign: Zeroizing<[u8; 16]>,
    stream: Rc4,
    number: u32,
}

impl Direction {
    fn new(key: &[u8; 16], way: &str) -> Self {
        let made = |what: &str| -> [u8; 16] {
            let text = format!("session key to {way} {what} key magic constant\0");
            Md5::new().chain_update(key).chain_update(text).finalize().into()
        };
        let seal = Zeroizing::new(made("sealing"));
        let stream = Rc4::new_from_slice(seal.as_slice()).expect("16 bytes are a key");
        Self { sign: Zeroizing::new(made("signing")), stream, number: 0 }
    }

    /// The signature of a message; both are taken from one stream, the message first.
    fn signature(&mut self, plain: &[u8]) -> [u8; 16] {
        let number = self.number.to_le_bytes();
        let mut sum = hmac_md5(self.sign.as_slice(), &[&number, plain]);
        self.stream.apply_keystream(&mut sum[..8]);
        self.number = self.number.wrapping_add(1);
        let mut out = [0; 16];
        out[..4].copy_from_slice(&1_u32.to_le_bytes());
        out[4..12].copy_from_slice(&sum[..8]);
        out[12..].copy_from_slice(&number);
        out
    }
}

/// Both directions, as the client has them.
pub(super) struct Sealing {
    sent: Direction,
    received: Direction,
}

impl Sealing {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self { sent: Direction::new(key, "client-to-server"), received: Direction::new(key, "server-to-client") }
    }

    /// Signature and sealed message.
    pub(super) fn seal(&mut self, plain: &[u8]) -> ([u8; 16], Vec<u8>) {
        let mut sealed = plain.to_vec();
        self.sent.stream.apply_keystream(&mut sealed);
        (self.sent.signature(plain), sealed)
    }

    /// The signature alone.
    pub(super) fn vouch(&mut self, plain: &[u8]) -> [u8; 16] {
        self.sent.signature(plain)
    }

    /// The message, if the signature is right.
    pub(super) fn open(&mut self, signature: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = sealed.to_vec();
        self.received.stream.apply_keystream(&mut plain);
        let right = self.received.signature(&plain);
        aws_lc_rs::constant_time::verify_slices_are_equal(&right, signature).ok().map(|()| plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn keys_are_those_of_the_specification() {
        // MS-NLMP 4.2.4: User, Domain, Password.
        assert_eq!(hex(nt_hash("Password").as_slice()), "a4f49c406510bdcab6824ee7c30fd852");
        let owner = hmac_md5(nt_hash("Password").as_slice(), &[&utf16("USERDomain")]);
        assert_eq!(hex(&owner), "0c868a403bfd7a93a3001ef22ef02e3f");
        let key = [0x55; 16];
        let direction = Direction::new(&key, "client-to-server");
        assert_eq!(hex(direction.sign.as_slice()), "4788dc861b4782f35d43fd98fe1a2d39");
    }

    #[test]
    fn sealing_is_that_of_the_specification() {
        let mut sealing = Sealing::new(&[0x55; 16]);
        let (signature, sealed) = sealing.seal(&utf16("Plaintext"));
        assert_eq!(hex(&sealed), "54e50165bf1936dc996020c1811b0f06fb5f");
        assert_eq!(hex(&signature), "010000007fb38ec5c55d497600000000");
    }

    #[test]
    fn a_broken_challenge_is_refused_without_a_panic() {
        let mut good = SIGNATURE.to_vec();
        good.extend_from_slice(&2_u32.to_le_bytes());
        good.extend_from_slice(&[0; 8]);
        good.extend_from_slice(&FLAGS.to_le_bytes());
        good.extend_from_slice(&[7; 16]);
        good.extend_from_slice(&[4, 0, 4, 0, 56, 0, 0, 0]);
        good.extend_from_slice(&[0; 8]);
        good.extend_from_slice(&[0; 4]);
        assert!(Challenge::parse(&good).is_ok());
        for cut in 0..good.len() {
            assert!(Challenge::parse(&good[..cut]).is_err(), "{cut}");
        }
        good[20..24].copy_from_slice(&(FLAGS & !0x20).to_le_bytes());
        assert!(Challenge::parse(&good).is_err(), "no sealing");
    }
}
