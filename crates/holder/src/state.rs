//! What a holder keeps on disk: one file per key, its fragment sealed under the holder's own key file.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use volvelle_fragments::PrfShare;
use zeroize::Zeroizing;

use crate::roster::{check_private, read_private, write_durably};
use crate::wire::KeyInfo;

/// The folder of a holder.
pub(crate) struct Folder {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u8,
    epoch: u32,
    info: KeyInfo,
    nonce: String,
    sealed_share: String,
}

/// A key as a holder uses it.
pub(crate) struct Key {
    pub(crate) share: PrfShare,
    pub(crate) info: KeyInfo,
}

impl Folder {
    /// Opens the folder, making it and its key file at the first start.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let files = fs::read_dir(&path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
            .with_context(|| format!("cannot read the folder {}", path.display()))?;
        files.iter().try_for_each(|file| check_private(file))?;
        let key = path.join("seal.key");
        if !key.exists() {
            let fragments = files.iter().any(|file| file.extension().is_some_and(|extension| extension == "json"));
            ensure!(!fragments, "{} is missing and the fragments beside it need it: put it back", key.display());
            let mut bytes = Zeroizing::new([0_u8; 32]);
            getrandom::fill(&mut *bytes).map_err(|_| anyhow!("the system gives no randomness"))?;
            write_durably(&key, &*bytes, true)?;
        }
        Ok(Self { path })
    }

    fn file(&self, realm: &[u8; 16], key_id: u32) -> PathBuf {
        self.path.join(format!("{}-{key_id}.json", hex::encode(realm)))
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        let key = read_private(&self.path.join("seal.key"))?;
        let unbound = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| anyhow!("seal.key must be 32 bytes long"))?;
        Ok(LessSafeKey::new(unbound))
    }

    fn aad(realm: &[u8; 16], key_id: u32) -> Vec<u8> {
        [b"FDK-share-v1", realm.as_slice(), &key_id.to_be_bytes()].concat()
    }

    /// Stores a key durably.
    pub(crate) fn store(&self, realm: &[u8; 16], key_id: u32, key: &Key) -> Result<()> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|_| anyhow!("the system gives no randomness"))?;
        let mut sealed = key.share.expose_bytes().to_vec();
        let aad = Aad::from(Self::aad(realm, key_id));
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| anyhow!("the fragment cannot be sealed"))?;
        let file = File {
            version: 1,
            epoch: 0,
            info: key.info.clone(),
            nonce: hex::encode(nonce),
            sealed_share: hex::encode(&sealed),
        };
        write_durably(&self.file(realm, key_id), &serde_json::to_vec_pretty(&file)?, true)
    }

    /// Reads a key, if there is one.
    pub(crate) fn load(&self, realm: &[u8; 16], key_id: u32) -> Result<Option<Key>> {
        let path = self.file(realm, key_id);
        if !path.exists() {
            return Ok(None);
        }
        let wrong = || format!("{} cannot be read", path.display());
        let file: File = serde_json::from_slice(&read_private(&path)?).with_context(wrong)?;
        let nonce: [u8; 12] = hex::decode(&file.nonce)?.try_into().map_err(|_| anyhow!(wrong()))?;
        let mut sealed = Zeroizing::new(hex::decode(&file.sealed_share)?);
        let aad = Aad::from(Self::aad(realm, key_id));
        let opened = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| anyhow!(wrong()))?;
        Ok(Some(Key { share: PrfShare::from_bytes(opened)?, info: file.info }))
    }
}
