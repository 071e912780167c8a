//! Keys that seal what lies on the disk: the holder's own, and one for each fragment.
//!
//! The holder's own lies beside the fragments (`seal.key`), or there sealed under a passphrase, a key that comes from elsewhere,
//! such as a credential of systemd, or a key in a PKCS#11 token (`seal.sealed`). What must stay true: it is never on the disk unsealed once it was sealed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::roster::{read_private, write_durably};
use crate::token::TokenKey;

const NONCE: usize = 12;

/// Memory of the passphrase's derivation when nobody says, and the least, in MiB.
const MEMORY_MIB: (u32, u32) = (256, 19);
const PASSES: u32 = 3;
/// Shortest passphrase.
const SHORTEST: usize = 12;
const OWN_KEY: &[u8] = b"FDK-own-key-v1";
/// What a token's key is asked about, before a salt.
const TOKEN_KEY: &[u8] = b"FDK-holder-seal-v1";

/// What opens the key that seals the fragments: one of a file with 32 bytes, a file with a passphrase, and a key in a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Unlock {
    /// A file of 32 random bytes, kept elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// A file with a passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// A key in a PKCS#11 token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pkcs11: Option<TokenKey>,
    /// Memory that deriving a key from the passphrase takes, in MiB; used when the key is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
}

/// The holder's own key, sealed.
#[derive(Serialize, Deserialize)]
struct SealedKey {
    version: u8,
    /// Of Argon2id, if a passphrase opens it.
    argon2id: Option<Derivation>,
    /// The salt that the token's key was asked about, if a token opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pkcs11: Option<String>,
    sealed: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct Derivation {
    memory_kib: u32,
    passes: u32,
    salt: String,
}

impl Derivation {
    fn fresh(memory_mib: Option<u32>) -> Result<Self> {
        let memory_mib = memory_mib.unwrap_or(MEMORY_MIB.0);
        ensure!(memory_mib >= MEMORY_MIB.1, "memory-mib must be at least {}", MEMORY_MIB.1);
        let salt = fresh_salt()?;
        let memory_kib = memory_mib.checked_mul(1024).context("memory-mib is too large")?;
        Ok(Self { memory_kib, passes: PASSES, salt })
    }

    fn key(&self, passphrase: &[u8]) -> Result<SealKey> {
        let wrong = |error: argon2::Error| anyhow!("the passphrase's derivation fails: {error}");
        let parameters = argon2::Params::new(self.memory_kib, self.passes, 1, Some(32)).map_err(wrong)?;
        let function = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
        let mut key = Zeroizing::new([0; 32]);
        function.hash_password_into(passphrase, &hex::decode(&self.salt)?, &mut *key).map_err(wrong)?;
        Ok(SealKey(key))
    }
}

fn fresh_salt() -> Result<String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| anyhow!("the system gives no randomness"))?;
    Ok(hex::encode(salt))
}

/// How the key that seals the holder's own is made, beside what is secret.
#[derive(Clone, Copy)]
enum Made<'a> {
    FromFile,
    FromPassphrase(&'a Derivation),
    /// By a token, with this salt.
    ByToken(&'a str),
}

impl Made<'_> {
    const fn word(self) -> &'static str {
        match self {
            Self::FromFile => "key file",
            Self::FromPassphrase(_) => "passphrase",
            Self::ByToken(_) => "token",
        }
    }
}

impl SealedKey {
    fn made(&self) -> Made<'_> {
        match (&self.argon2id, &self.pkcs11) {
            (Some(derivation), _) => Made::FromPassphrase(derivation),
            (None, Some(salt)) => Made::ByToken(salt),
            (None, None) => Made::FromFile,
        }
    }
}

impl Unlock {
    /// Relative paths begin at this folder.
    pub(crate) fn beside(mut self, folder: &Path) -> Self {
        for file in [&mut self.key_file, &mut self.passphrase_file].into_iter().flatten() {
            *file = folder.join(&*file);
        }
        if let Some(token) = &mut self.pkcs11 {
            token.beside(folder);
        }
        self
    }

    /// What the configuration names.
    fn named(&self) -> Result<&'static str> {
        match (&self.key_file, &self.passphrase_file, &self.pkcs11) {
            (Some(_), None, None) => Ok("key file"),
            (None, Some(_), None) => Ok("passphrase"),
            (None, None, Some(_)) => Ok("token"),
            _ => bail!("unlock must name a key-file, a passphrase-file or a key in pkcs11, and one of them only"),
        }
    }

    /// The key that seals the holder's own.
    fn key(&self, made: Made<'_>) -> Result<SealKey> {
        let (named, word) = (self.named()?, made.word());
        match (made, &self.key_file, &self.passphrase_file, &self.pkcs11) {
            (Made::FromFile, Some(file), ..) => SealKey::of(&read_private(file)?),
            (Made::FromPassphrase(derivation), _, Some(file), _) => derivation.key(&passphrase(file)?),
            (Made::ByToken(salt), .., Some(token)) => {
                let asked = [TOKEN_KEY, &hex::decode(salt)?].concat();
                Ok(SealKey(token.mac(&asked).context("the token that seals the fragments cannot be used")?))
            }
            _ => bail!("seal.sealed is opened by a {word}, and unlock names a {named}"),
        }
    }

    fn seal(&self, own: &SealKey) -> Result<SealedKey> {
        let mut sealed = SealedKey { version: 1, argon2id: None, pkcs11: None, sealed: String::new() };
        match self.named()? {
            "passphrase" => sealed.argon2id = Some(Derivation::fresh(self.memory_mib)?),
            "token" => sealed.pkcs11 = Some(fresh_salt()?),
            _ => {}
        }
        sealed.sealed = hex::encode(self.key(sealed.made())?.seal(OWN_KEY, &**own)?);
        Ok(sealed)
    }

    fn open(&self, file: &Path) -> Result<SealKey> {
        let sealed: SealedKey = serde_json::from_slice(&read_private(file)?)?;
        ensure!(sealed.version == 1, "{} was written by a newer holder", file.display());
        let word = sealed.made().word();
        let key = self.key(sealed.made())?;
        let opened = key.open_sealed(OWN_KEY, &hex::decode(&sealed.sealed)?);
        SealKey::of(&opened.map_err(|_| anyhow!("the {word} does not open {}", file.display()))?)
    }
}

/// A passphrase from its file, without the line feed at its end.
fn passphrase(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut text = read_private(file)?;
    while text.last().is_some_and(|byte| [b'\n', b'\r'].contains(byte)) {
        text.pop();
    }
    ensure!(text.len() >= SHORTEST, "the passphrase in {} has fewer than {SHORTEST} bytes", file.display());
    Ok(text)
}

/// A key of AES-256-GCM. Each seals few messages, under random nonces.
pub(super) struct SealKey(Zeroizing<[u8; 32]>);

impl std::ops::Deref for SealKey {
    type Target = [u8; 32];

    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A new key.
pub(super) fn fresh() -> Result<SealKey> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| anyhow!("the system gives no randomness"))?;
    Ok(SealKey(bytes))
}

impl SealKey {
    /// The holder's own key, made at the first start. One that lies there unsealed is sealed if something is to unlock it.
    pub(super) fn open(folder: &Path, has_fragments: bool, unlock: Option<&Unlock>) -> Result<Self> {
        let (plain, sealed) = (folder.join("seal.key"), folder.join("seal.sealed"));
        let Some(unlock) = unlock else {
            let needed = sealed.display();
            ensure!(!sealed.exists(), "{needed} is there, and the configuration does not say what unlocks it");
            return Self::open_plain(&plain, has_fragments);
        };
        let own = if sealed.exists() {
            unlock.open(&sealed)?
        } else {
            let own = if plain.exists() {
                Self::of(&read_private(&plain)?)?
            } else {
                let missing = sealed.display();
                ensure!(!has_fragments, "{missing} is missing and the fragments beside it need it: put it back");
                fresh()?
            };
            write_durably(&sealed, &serde_json::to_vec_pretty(&unlock.seal(&own)?)?, true)?;
            own
        };
        if plain.exists() {
            super::destroy(&plain)?;
        }
        Ok(own)
    }

    fn open_plain(file: &Path, has_fragments: bool) -> Result<Self> {
        if !file.exists() {
            let missing = file.display();
            ensure!(!has_fragments, "{missing} is missing and the fragments beside it need it: put it back");
            write_durably(file, &*fresh()?, true)?;
        }
        Self::of(&read_private(file)?)
    }

    pub(super) fn of(bytes: &[u8]) -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        ensure!(bytes.len() == key.len(), "a key that seals must be 32 bytes long");
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        let unbound = UnboundKey::new(&AES_256_GCM, &*self.0).map_err(|_| anyhow!("the cipher refuses its key"))?;
        Ok(LessSafeKey::new(unbound))
    }

    /// Nonce, ciphertext and tag.
    pub(super) fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| anyhow!("the system gives no randomness"))?;
        let mut sealed = Zeroizing::new(plain.to_vec());
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut *sealed)
            .map_err(|_| anyhow!("the fragment cannot be sealed"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// What was sealed.
    pub(super) fn open_sealed(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let wrong = || anyhow!("it was sealed under another key, or changed");
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or_else(wrong)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let length = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut buffer)
            .map_err(|_| wrong())?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}
