//! Holders of one machine, for development: makes their identities, roster and configuration files once.
//!
//! Three holders on one host protect a copied database, not a taken-over machine.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

use crate::daemon::HolderConfig;
use crate::quorum::QuorumConfig;
use crate::roster::{IdentityFiles, Member, Roster, pin, write_durably};

/// What a machine of its own holders needs.
#[derive(Clone, Debug)]
pub struct LocalSetup {
    /// One configuration file per holder.
    pub holder_configs: Vec<PathBuf>,
    /// How the gateway reaches them.
    pub quorum: QuorumConfig,
}

/// Prepares `n` holders of which `t` are needed, in `folder`; a second call finds what the first one made.
///
/// # Errors
/// The disk refuses, or what is there makes no sense.
pub fn prepare(folder: &Path, n: u8, t: u8) -> Result<LocalSetup> {
    let roster_file = folder.join("roster.toml");
    let gateway = files(&folder.join("gateway"));
    let configs: Vec<PathBuf> = (1..=n).map(|i| folder.join(format!("holder-{i}")).join("holder.toml")).collect();
    let quorum = QuorumConfig { roster: roster_file.clone(), identity: gateway.clone(), kek_cache_seconds: 30 };
    // The roster is written last: without it nothing was made that anybody used.
    if !roster_file.exists() {
        let (gateway_pin, _) = make_identity(&folder.join("gateway"))?;
        let mut holders = Vec::new();
        for (index, path) in (1..).zip(&configs) {
            let home = path.parent().context("a file has a folder")?;
            let (pin, signing_key) = make_identity(home)?;
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
            let config = HolderConfig {
                index,
                listen: address.clone(),
                roster: roster_file.clone(),
                state: home.join("state"),
                identity: files(home),
            };
            write_durably(path, toml::to_string(&config)?.as_bytes(), true)?;
            holders.push(Member { index, address, pin, signing_key });
        }
        let roster = Roster { threshold: t, holders, gateways: vec![gateway_pin] };
        write_durably(&roster_file, toml::to_string(&roster)?.as_bytes(), true)?;
    }
    Roster::load(&roster_file)?;
    Ok(LocalSetup { holder_configs: configs, quorum })
}

fn files(folder: &Path) -> IdentityFiles {
    IdentityFiles { certificate: folder.join("certificate.der"), key: folder.join("key.der") }
}

/// Makes a key and a certificate signed by itself; gives the certificate's pin and the public key.
fn make_identity(folder: &Path) -> Result<(String, String)> {
    fs::create_dir_all(folder)?;
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let certificate = CertificateParams::new(vec!["holder".to_owned()])?.self_signed(&key)?;
    let files = files(folder);
    write_durably(&files.key, &zeroize::Zeroizing::new(key.serialize_der()), true)?;
    write_durably(&files.certificate, certificate.der(), false)?;
    Ok((pin(certificate.der()), hex::encode(key.public_key_raw())))
}
