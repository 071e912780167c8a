//! Holders of one machine, for development: makes their identities, roster and configuration files once.
//!
//! Three holders on one host protect a copied database, not a taken-over machine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::daemon::HolderConfig;
use crate::quorum::{QuorumConfig, usual_refresh};
use crate::roster::{IdentityFiles, Member, Roster, write_durably};
use crate::setup::{CONFIG, files, identity};

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
    let configs: Vec<PathBuf> = (1..=n).map(|i| folder.join(format!("holder-{i}")).join(CONFIG)).collect();
    let quorum = QuorumConfig {
        roster: roster_file.clone(),
        identity: gateway.clone(),
        kek_cache_seconds: 30,
        refresh_hours: usual_refresh(),
    };
    // The roster is written last: without it nothing was made that anybody used.
    if !roster_file.exists() {
        let (gateway_pin, _) = identity(&folder.join("gateway"))?;
        let mut holders = Vec::new();
        // All ports are taken before any is given back, so that no two holders get the same one.
        let ports = configs.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        for ((index, path), port) in (1..).zip(&configs).zip(&ports) {
            let home = path.parent().context("a file has a folder")?;
            let (pin, signing_key) = identity(home)?;
            let address = port.local_addr()?.to_string();
            let config = HolderConfig {
                index,
                listen: address.clone(),
                roster: "../roster.toml".into(),
                state: "state".into(),
                log: None,
                identity: IdentityFiles { certificate: "certificate.der".into(), key: "key.der".into() },
                unlock: None,
                authorization: None,
            };
            write_durably(path, toml::to_string(&config)?.as_bytes(), true)?;
            holders.push(Member { index, address, pin, signing_key });
        }
        let roster = Roster { threshold: t, holders, gateways: vec![gateway_pin], former: vec![], policies: vec![] };
        roster.check()?;
        write_durably(&roster_file, toml::to_string(&roster)?.as_bytes(), true)?;
    }
    Roster::load(&roster_file)?;
    Ok(LocalSetup { holder_configs: configs, quorum })
}
