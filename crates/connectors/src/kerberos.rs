//! Asks a domain's KDC whether a password is the account's present one: the first exchange of Kerberos 5 (RFC 4120), nothing more.
//!
//! A domain lets the previous password in for an hour over NTLM and simple bind; Kerberos does not. The ticket asked for is the one
//! for changing passwords, which an expired password opens too. A positive answer is believed only if it was made with the
//! account's key, so that nobody on the way can invent one.

mod cts;
pub(crate) mod der;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hmac, pbkdf2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};

use cts::Key;

/// Longest answer that is read.
const LONGEST: usize = 64 * 1024;
/// Most rounds of key stretching that a KDC may ask for.
const MOST_ROUNDS: u32 = 1_000_000;
/// How long the KDC may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// AES with 256 and 128 bits, SHA-1 truncated to 96 (RFC 3962).
const ETYPES: [u32; 2] = [18, 17];

/// What the KDC says.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is the account's password.
    Opens,
    /// It is not.
    Refused,
    /// It does not say.
    Unknown(Failure),
}

/// Whom to ask about whom.
pub(crate) struct Question<'a> {
    /// Name or address of the domain controller.
    pub(crate) host: &'a str,
    /// The realm, in capitals.
    pub(crate) realm: &'a str,
    /// The account's logon name.
    pub(crate) user: &'a str,
}

fn unknown(said: impl Into<String>, hint: &str) -> Verdict {
    Verdict::Unknown(Failure::new(FailureClass::Protocol, said, hint))
}

/// A KDC's answer.
enum Answer {
    /// `KRB-ERROR`.
    Error { code: u32, server_time: String, data: Vec<u8> },
    /// The encrypted part of an `AS-REP`.
    Reply(Vec<u8>),
}

impl Question<'_> {
    /// Asks. Costs at most one failed login on the account, and that only for [`Verdict::Refused`].
    pub(crate) async fn ask(&self, password: &Secret) -> Verdict {
        let Some(text) = password.expose_str() else { return unknown("the password is no text", "") };
        let nonce = nonce();
        let first = match self.exchange(&self.request(nonce, None)).await {
            Ok(answer) => answer,
            Err(failure) => return Verdict::Unknown(failure),
        };
        let (data, mut clock) = match first {
            Answer::Error { code: 25, data, .. } => (data, now()),
            Answer::Error { code, .. } => return self.told(code),
            Answer::Reply(_) => {
                return unknown(
                    format!("the domain asks {} for no proof before it answers (DONT_REQUIRE_PREAUTH)", self.user),
                    "require Kerberos pre-authentication of the account",
                );
            }
        };
        let Some(stretch) = Stretch::offered(&data) else {
            return unknown(
                format!("the domain offers no AES encryption for {}", self.user),
                "change the password once in the domain, which gives the account AES keys",
            );
        };
        let key = stretch.key(text);
        // A second time only with the KDC's own clock.
        for _ in 0..2 {
            let proof = proof(&key, &clock, stretch.etype);
            match self.exchange(&self.request(nonce, Some(&proof))).await {
                Ok(Answer::Reply(sealed)) => {
                    let opened = key.open(3, &sealed);
                    return match opened.as_deref().and_then(nonce_of) {
                        Some(found) if found == nonce => Verdict::Opens,
                        _ => unknown(
                            "the KDC's answer is not made with the account's key",
                            "check that it is the real one",
                        ),
                    };
                }
                Ok(Answer::Error { code: 37, server_time, .. }) => clock = server_time,
                Ok(Answer::Error { code: 24, .. }) => return Verdict::Refused,
                Ok(Answer::Error { code, .. }) => return self.told(code),
                Err(failure) => return Verdict::Unknown(failure),
            }
        }
        unknown("the KDC's clock cannot be followed", "set the clocks right")
    }

    /// Whether the KDC is there and knows the account; costs nothing.
    pub(crate) async fn greet(&self) -> Result<(), Failure> {
        let answer = self.exchange(&self.request(nonce(), None)).await?;
        match answer {
            Answer::Error { code: code @ (6 | 18 | 68), .. } => match self.told(code) {
                Verdict::Unknown(failure) => Err(failure),
                Verdict::Opens | Verdict::Refused => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn told(&self, code: u32) -> Verdict {
        let user = self.user;
        match code {
            6 => unknown(format!("the domain does not know {user} (Kerberos error 6)"), "check the user's name"),
            18 => unknown(
                format!("{user} is disabled, expired or locked in the domain (Kerberos error 18)"),
                "enable or unlock the account, then rotate again",
            ),
            68 => {
                unknown(format!("{} is not the realm of the KDC (Kerberos error 68)", self.realm), "check the domain")
            }
            code => unknown(format!("the KDC answers with error {code}"), ""),
        }
    }

    /// An `AS-REQ` for `kadmin/changepw`.
    fn request(&self, nonce: u32, proof: Option<&[u8]>) -> Vec<u8> {
        let name = |kind: u32, parts: &[&str]| {
            let strings: Vec<Vec<u8>> = parts.iter().map(|part| der::general_string(part)).collect();
            der::sequence(&[der::explicit(0, &der::integer(kind)), der::explicit(1, &der::sequence(&strings))])
        };
        let etypes: Vec<Vec<u8>> = ETYPES.iter().map(|etype| der::integer(*etype)).collect();
        let body = der::sequence(&[
            der::explicit(0, &der::element(0x03, &[0, 0, 0, 0, 0])),
            der::explicit(1, &name(1, &[self.user])),
            der::explicit(2, &der::general_string(self.realm)),
            der::explicit(3, &name(2, &["kadmin", "changepw"])),
            der::explicit(5, &der::time("20370913024805Z")),
            der::explicit(7, &der::integer(nonce)),
            der::explicit(8, &der::sequence(&etypes)),
        ]);
        let mut parts = vec![der::explicit(1, &der::integer(5)), der::explicit(2, &der::integer(10))];
        if let Some(proof) = proof {
            let data = der::sequence(&[der::explicit(1, &der::integer(2)), der::explicit(2, &der::octets(proof))]);
            parts.push(der::explicit(3, &der::sequence(&[data])));
        }
        parts.push(der::explicit(4, &body));
        der::element(0x6a, &der::sequence(&parts))
    }

    async fn exchange(&self, request: &[u8]) -> Result<Answer, Failure> {
        let away = |error: std::io::Error| {
            Failure::new(
                FailureClass::Unreachable,
                format!("the domain's Kerberos service (port 88 of {}) does not answer: {}", self.host, error.kind()),
                "open port 88, which alone tells a domain's present password from its previous one",
            )
        };
        let connect = tokio::time::timeout(CONNECT, TcpStream::connect((self.host, 88))).await;
        let mut stream = connect.map_err(|_| away(std::io::ErrorKind::TimedOut.into()))?.map_err(away)?;
        let length = u32::try_from(request.len()).unwrap_or(0).to_be_bytes();
        stream.write_all(&[&length, request].concat()).await.map_err(away)?;
        let mut length = [0_u8; 4];
        stream.read_exact(&mut length).await.map_err(away)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(Failure::new(FailureClass::Protocol, "the KDC's answer is too long", ""));
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await.map_err(away)?;
        parse(&answer).ok_or_else(|| Failure::new(FailureClass::Protocol, "the KDC's answer cannot be read", ""))
    }
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let (tag, content, _) = der::read(answer)?;
    let fields = der::content(content, 0x30)?;
    match tag {
        0x6b => {
            let part = der::content(der::field(fields, 6)?, 0x30)?;
            Some(Answer::Reply(der::content(der::field(part, 2)?, 0x04)?.to_vec()))
        }
        0x7e => {
            let code = der::number(der::field(fields, 6)?)?;
            let time = der::content(der::field(fields, 4)?, 0x18)?;
            let data = der::field(fields, 12).and_then(|data| der::content(data, 0x04)).unwrap_or_default();
            Some(Answer::Error { code, server_time: String::from_utf8_lossy(time).into_owned(), data: data.to_vec() })
        }
        _ => None,
    }
}

/// How a password becomes a key: `ETYPE-INFO2`.
struct Stretch {
    etype: u32,
    salt: Vec<u8>,
    rounds: u32,
}

impl Stretch {
    /// The first offer that is AES, in the data of error 25.
    fn offered(data: &[u8]) -> Option<Self> {
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
            (1..=MOST_ROUNDS).contains(&rounds).then(|| Self { etype: *etype, salt: salt.to_vec(), rounds })
        })
    }

    fn key(&self, password: &str) -> Key {
        stretch(self.etype, password, &self.salt, self.rounds)
    }
}

fn stretch(etype: u32, password: &str, salt: &[u8], rounds: u32) -> Key {
    let mut bytes = zeroize::Zeroizing::new(vec![0_u8; if etype == 18 { 32 } else { 16 }]);
    let rounds = std::num::NonZeroU32::new(rounds).unwrap_or(std::num::NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, rounds, salt, password.as_bytes(), &mut bytes);
    Key::new(&bytes).derived(b"kerberos")
}

impl Key {
    /// `E(Ke, confounder | plain) | HMAC(Ki, confounder | plain)`.
    fn seal(&self, usage: u32, plain: &[u8]) -> Vec<u8> {
        let (ke, ki) = self.pair(usage);
        let mut text = vec![0_u8; 16];
        getrandom::fill(&mut text).expect("the system gives randomness");
        text.extend_from_slice(plain);
        let tag = mac(&ki, &text);
        let mut out = cts::encrypt(&ke, &text);
        out.extend_from_slice(&tag);
        out
    }

    /// What was sealed with this key, if it was.
    fn open(&self, usage: u32, sealed: &[u8]) -> Option<Vec<u8>> {
        let (ke, ki) = self.pair(usage);
        let (text, tag) = sealed.split_at_checked(sealed.len().checked_sub(12)?)?;
        let plain = cts::decrypt(&ke, text)?;
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(&mac(&ki, &plain), tag).is_ok();
        if same { plain.get(16..).map(<[u8]>::to_vec) } else { None }
    }

    fn pair(&self, usage: u32) -> (Key, Key) {
        let derive = |last: u8| self.derived(&[&usage.to_be_bytes()[..], &[last]].concat());
        (derive(0xaa), derive(0x55))
    }
}

fn mac(key: &Key, text: &[u8]) -> [u8; 12] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.bytes());
    let mut out = [0; 12];
    out.copy_from_slice(&hmac::sign(&key, text).as_ref()[..12]);
    out
}

/// `PA-ENC-TIMESTAMP`.
fn proof(key: &Key, clock: &str, etype: u32) -> Vec<u8> {
    let plain = der::sequence(&[der::explicit(0, &der::time(clock)), der::explicit(1, &der::integer(1))]);
    der::sequence(&[der::explicit(0, &der::integer(etype)), der::explicit(2, &der::octets(&key.seal(1, &plain)))])
}

/// The nonce in an `EncASRepPart`; some KDCs tag it as the part of a `TGS-REP`.
fn nonce_of(plain: &[u8]) -> Option<u32> {
    let inner = der::content(plain, 0x79).or_else(|| der::content(plain, 0x7a))?;
    der::field(der::content(inner, 0x30)?, 2).and_then(der::number)
}

fn nonce() -> u32 {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    // Some KDCs read it as a signed number.
    u32::from_be_bytes(bytes) >> 1
}

fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    written(seconds)
}

/// Seconds since 1970 as `YYYYMMDDHHMMSSZ`.
fn written(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{date:02}{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_protocol_has_them() {
        assert_eq!(written(0), "19700101000000Z");
        assert_eq!(written(951_782_399), "20000228235959Z");
        assert_eq!(written(951_868_800), "20000301000000Z");
        assert_eq!(written(1_795_651_199), "20261125235959Z");
    }

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
            assert_eq!(key.open(3, &sealed), Some(plain), "{length}");
            assert_eq!(key.open(1, &sealed), None);
            assert_eq!(stretch(18, "two", b"salt", 2).open(3, &sealed), None);
        }
        assert_eq!(key.open(3, &[0; 5]), None);
    }
}
