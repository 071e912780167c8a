//! An administrator's key, which signs rosters. It is made on his own machine and stays there.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{KeyPair, PKCS_ED25519};

use crate::roster::{read_private, write_durably};

/// The name of the key in its folder.
pub const KEY: &str = "administrator.der";

/// Makes an administrator's key in a folder, or finds it. Gives the public key, in hexadecimal.
///
/// # Errors
/// The disk refuses, or others may read the key that is there.
pub fn init_administrator(dir: &Path) -> Result<String> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let file = dir.join(KEY);
    let pair = if file.exists() {
        KeyPair::try_from(read_private(&file)?.as_slice()).with_context(|| format!("{KEY} is no private key"))?
    } else {
        let pair = KeyPair::generate_for(&PKCS_ED25519)?;
        write_durably(&file, &zeroize::Zeroizing::new(pair.serialize_der()), true)?;
        pair
    };
    Ok(hex::encode(pair.public_key_raw()))
}
