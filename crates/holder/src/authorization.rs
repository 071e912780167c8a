//! What shows a holder that a client of this gateway asks: a statement that a gateway signs when the client signs in, or the client's own
//! token of an OIDC provider.
//!
//! ```text
//! kind u8 = 2 | JWT
//! kind u8 = 1 | issued u64 | expires u64 | realm[16] | count u8, count × gateway[32] | access id: len u8, text | signature[64]
//! ```
//! Seconds since 1970, big-endian; Ed25519 over a word of its own and everything before the signature. What must stay true: a statement
//! holds for one tenant, for the gateways it names and until its end, and for nothing else; other kinds are refused, not guessed at.

mod token;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

pub(crate) use self::token::Issuer;
pub use self::token::IssuerConfig;
use crate::eval::LONGEST_AUTHORIZATION;
use crate::roster::{pin, read_private, write_durably};

/// A statement that a gateway signed.
const STATEMENT: u8 = 1;
/// A token of a provider.
const TOKEN: u8 = 2;
/// What is signed begins with this, so that no other signature is one of these.
const WORD: &[u8] = b"volvelle-authorization-v1";
/// Gateways of one statement, at most.
const GATEWAYS: usize = 32;

/// What an authorization shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) issued_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) realms: Vec<[u8; 16]>,
    /// None: whichever he asks.
    pub(crate) gateways: Option<Vec<[u8; 32]>>,
    pub(crate) access_id: String,
}

/// Reads an authorization that one of these keys or issuers signed.
///
/// # Errors
/// Says what is wrong with it, for the client.
pub(crate) fn verify(bytes: &[u8], keys: &[[u8; 32]], issuers: &[Issuer]) -> Result<Shown> {
    if let Some((&TOKEN, token)) = bytes.split_first() {
        return token::verify(token, issuers);
    }
    let Statement { issued_at, expires_at, realm, gateways, access_id } = Statement::verify(bytes, keys)?;
    Ok(Shown { issued_at, expires_at, realms: vec![realm], gateways: Some(gateways), access_id })
}

/// A client's own token as it is sent to the holders, which alone verify it.
///
/// # Errors
/// It is too long.
pub fn forwarded(token: &[u8]) -> Result<Vec<u8>> {
    ensure!(token.len() < LONGEST_AUTHORIZATION, "the token is longer than {LONGEST_AUTHORIZATION} bytes");
    Ok([&[TOKEN], token].concat())
}

/// Who may ask which gateways, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// When he signed in.
    pub issued_at: u64,
    /// When it ends.
    pub expires_at: u64,
    /// His tenant.
    pub realm: [u8; 16],
    /// Pins of the gateways he may ask.
    pub gateways: Vec<[u8; 32]>,
    /// Who he is.
    pub access_id: String,
}

impl Statement {
    fn unsigned(&self) -> Result<Vec<u8>> {
        ensure!((1..=GATEWAYS).contains(&self.gateways.len()), "a statement names 1 to {GATEWAYS} gateways");
        let mut out = vec![STATEMENT];
        out.extend_from_slice(&self.issued_at.to_be_bytes());
        out.extend_from_slice(&self.expires_at.to_be_bytes());
        out.extend_from_slice(&self.realm);
        out.push(u8::try_from(self.gateways.len())?);
        out.extend_from_slice(self.gateways.as_flattened());
        out.push(u8::try_from(self.access_id.len()).context("the access id is too long")?);
        out.extend_from_slice(self.access_id.as_bytes());
        Ok(out)
    }

    /// Reads a statement and gives what is signed of it and the signature.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (unsigned, signature) = bytes.split_at_checked(bytes.len().checked_sub(64)?)?;
        let (kind, rest) = unsigned.split_first()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (realm, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first()?;
        let (gateways, rest) = rest.split_at_checked(usize::from(*count) * 32)?;
        let (length, name) = rest.split_first()?;
        let whole = *kind == STATEMENT && name.len() == usize::from(*length);
        let statement = Self {
            issued_at: u64::from_be_bytes(*issued),
            expires_at: u64::from_be_bytes(*expires),
            realm: *realm,
            gateways: gateways.as_chunks().0.to_vec(),
            access_id: std::str::from_utf8(name).ok()?.to_owned(),
        };
        whole.then_some((statement, unsigned, signature))
    }

    /// Reads a statement that one of these keys signed.
    ///
    /// # Errors
    /// Says what is wrong with it, for the client.
    pub fn verify(bytes: &[u8], keys: &[[u8; 32]]) -> Result<Self> {
        let (statement, unsigned, signature) = Self::parse(bytes).context("its form is not known here")?;
        let signed = [WORD, unsigned].concat();
        let by = |key: &[u8; 32]| UnparsedPublicKey::new(&ED25519, key).verify(&signed, signature).is_ok();
        ensure!(keys.iter().any(by), "its signature is of no key that this holder trusts");
        Ok(statement)
    }
}

/// Signs statements for the clients of some gateways.
pub struct Signer {
    key: Ed25519KeyPair,
    gateways: Vec<[u8; 32]>,
}

impl Signer {
    /// Reads the key; its statements hold for the gateway with this certificate, and for those with these pins.
    ///
    /// # Errors
    /// A file cannot be read, or makes no sense.
    pub fn load(key: &Path, certificate: &Path, more: &[String]) -> Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(&read_private(key)?);
        let pair = pair.map_err(|_| anyhow!("{} is no Ed25519 key", key.display()))?;
        let certificate = fs::read(certificate).with_context(|| format!("cannot read {}", certificate.display()))?;
        let mut gateways = Vec::new();
        for text in std::iter::once(&pin(&certificate)).chain(more) {
            let pin = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
            gateways.push(pin.context("a gateway's pin is 64 hexadecimal digits")?);
        }
        Ok(Self { key: pair, gateways })
    }

    /// A statement for a client of a tenant.
    ///
    /// # Errors
    /// The access id is too long, or there are too many gateways.
    pub fn sign(&self, realm: [u8; 16], access_id: &str, (issued_at, expires_at): (u64, u64)) -> Result<Vec<u8>> {
        let (gateways, access_id) = (self.gateways.clone(), access_id.to_owned());
        let mut bytes = Statement { issued_at, expires_at, realm, gateways, access_id }.unsigned()?;
        let signature = self.key.sign(&[WORD, bytes.as_slice()].concat());
        bytes.extend_from_slice(signature.as_ref());
        Ok(bytes)
    }
}

/// Makes a key that signs statements, or finds it; gives its public half in hexadecimal.
///
/// # Errors
/// The disk refuses.
pub fn make_key(file: &Path) -> Result<String> {
    if !file.exists() {
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("the system gives no randomness"))?;
        let bytes = pair.to_pkcs8().map_err(|_| anyhow!("the key cannot be written"))?;
        write_durably(file, bytes.as_ref(), true)?;
    }
    let pair = Ed25519KeyPair::from_pkcs8(&read_private(file)?);
    let pair = pair.map_err(|_| anyhow!("{} is no Ed25519 key", file.display()))?;
    Ok(hex::encode(pair.public_key().as_ref()))
}
