//! Keys that seal what lies on the disk: the holder's own, and one for each fragment.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::roster::{read_private, write_durably};

const NONCE: usize = 12;

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
    /// The holder's own key from its file, made at the first start.
    pub(super) fn open(folder: &Path, has_fragments: bool) -> Result<Self> {
        let file = folder.join("seal.key");
        if !file.exists() {
            let missing = file.display();
            ensure!(!has_fragments, "{missing} is missing and the fragments beside it need it: put it back");
            write_durably(&file, &*fresh()?, true)?;
        }
        Self::of(&read_private(&file)?)
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
