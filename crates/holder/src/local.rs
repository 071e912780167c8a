//! Holders of one machine, for development: makes their identities, roster and configuration files once.
//!
//! Three holders on one host protect a copied database, not a taken-over machine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use volvelle_fragments::Suite;

use crate::daemon::HolderConfig;
use crate::quorum::{QuorumConfig, usual_refresh};
use crate::roster::{IdentityFiles, Member, Roster, write_durably};
use crate::setup::administrator::{KEY, init_administrator};
use crate::setup::{CONFIG, RosterChange, changed_roster, files, identity};
use crate::trust::{ROSTER, Trust, accept, sign};

/// Where holders listen that were told no port.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const PORT_ATTEMPTS: usize = 200;

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
    let roster_file = folder.join(ROSTER);
    let gateway = files(&folder.join("gateway"));
    let configs: Vec<PathBuf> = (1..=n).map(|i| folder.join(format!("holder-{i}")).join(CONFIG)).collect();
    let quorum = QuorumConfig {
        roster: roster_file.clone(),
        identity: gateway.clone(),
        kek_cache_seconds: 30,
        refresh_hours: usual_refresh(),
        suite: Suite::default(),
    };
    // The roster is written last: without it nothing was made that anybody used.
    if !roster_file.exists() {
        let (gateway_pin, _) = identity(&folder.join("gateway"))?;
        let mut holders = Vec::new();
        // All ports are taken before any is given back, so that no two holders get the same one.
        let ports = configs.iter().map(|_| free_port()).collect::<Result<Vec<_>>>()?;
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
                retire_after_seconds: None,
                suites: None,
                authorization: None,
            };
            write_durably(path, toml::to_string(&config)?.as_bytes(), true)?;
            holders.push(Member { index, address, pin, signing_key, administrator: None, name: None });
        }
        let roster = Roster {
            serial: 0,
            threshold: t,
            former_thresholds: vec![],
            holders,
            gateways: vec![gateway_pin],
            former: vec![],
            policies: vec![],
            signatures: vec![],
        };
        roster.check()?;
        write_durably(&roster_file, toml::to_string(&roster)?.as_bytes(), true)?;
    }
    Roster::load(&roster_file)?;
    Ok(LocalSetup { holder_configs: configs, quorum })
}

/// A port that is free now and that the kernel gives to no outgoing connection (those begin at 32768 on Linux), so that it is free
/// whenever its holder starts again.
fn free_port() -> Result<TcpListener> {
    let found = (0..PORT_ATTEMPTS).find_map(|_| {
        let mut random = [0; 2];
        getrandom::fill(&mut random).ok()?;
        TcpListener::bind(("127.0.0.1", PORTS.start + u16::from_be_bytes(random) % (PORTS.end - PORTS.start))).ok()
    });
    found.context("no free port was found for a holder")
}

/// As [`prepare`], and the roster is signed by an administrator for each holder, whose keys lie on this machine too. A roster that
/// is there and has no administrators gets them. Whatever changes the roster of such a folder goes through [`change_signed`].
///
/// # Errors
/// As [`prepare`].
pub fn prepare_signed(folder: &Path, n: u8, t: u8) -> Result<LocalSetup> {
    let setup = prepare(folder, n, t)?;
    if !Roster::load(&setup.quorum.roster)?.is_signed() {
        let holders = Roster::load(&setup.quorum.roster)?.holders;
        let key = |member: &Member| Ok((member.index, init_administrator(&administrator(folder, member.index))?));
        let administrators = holders.iter().map(key).collect::<Result<_>>()?;
        let change = RosterChange { administrators, ..RosterChange::default() };
        let text = changed_roster(Roster::load(&setup.quorum.roster)?, change)?;
        write_durably(&setup.quorum.roster, signed(folder, &text)?.as_bytes(), true)?;
    }
    // The holders share one roster, so that one acceptance is that of all.
    let text = std::fs::read_to_string(&setup.quorum.roster)?;
    accept(folder, &text, Trust::First)?;
    Ok(setup)
}

/// Puts a changed roster into a folder of [`prepare_signed`], signed by every administrator whose key is there.
///
/// # Errors
/// The change makes no sense, or too few keys are there.
pub fn change_signed(folder: &Path, change: RosterChange) -> Result<Roster> {
    let text = changed_roster(Roster::load(&folder.join(ROSTER))?, change)?;
    accept(folder, &signed(folder, &text)?, Trust::Successor)
}

fn administrator(folder: &Path, index: u8) -> PathBuf {
    folder.join(format!("administrator-{index}"))
}

fn signed(folder: &Path, text: &str) -> Result<String> {
    let mut roster = Roster::parse(text)?;
    for index in 1..=9 {
        let dir = administrator(folder, index);
        if dir.join(KEY).exists() {
            roster = Roster::parse(&sign(roster, &dir)?)?;
        }
    }
    Ok(toml::to_string(&roster)?)
}
