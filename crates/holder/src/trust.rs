//! Signed rosters: which roster a party believes, and how it comes to another one.
//!
//! Each holder has an administrator with a key of his own, kept away from the holder. What must stay true: a party takes a new
//! roster only with the signatures of as many administrators of the roster it has as that roster's threshold says, each counted
//! once, and only with a higher serial number; the first one is believed on the explicit command of whoever has the machine;
//! once a signed one was accepted, no unsigned one is ever read again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::daemon::HolderConfig;
use crate::roster::{Roster, Signature, pin, read_private, write_durably};
use crate::setup::{CONFIG, administrator};

/// The name of a roster in its folder.
pub const ROSTER: &str = "roster.toml";

/// Whether a party that never accepted a signed roster may take one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only the successor of one that was accepted.
    Successor,
    /// This one too, because whoever has the machine says so.
    First,
}

/// Where the copy of the roster that was accepted lies, beside the roster.
fn accepted_file(roster: &Path) -> PathBuf {
    roster.with_extension("accepted")
}

/// The roster that was accepted for this file, if one ever was.
fn accepted(file: &Path) -> Result<Option<Roster>> {
    let copy = accepted_file(file);
    if copy.exists() { Roster::load(&copy).map(Some) } else { Ok(None) }
}

/// Reads a roster, and refuses one that was not accepted here. One without administrators is believed as it lies there, unless a
/// signed one was accepted before.
///
/// # Errors
/// It is not believed, cannot be read, or makes no sense.
pub fn believed(file: &Path) -> Result<Roster> {
    let roster = Roster::load(file)?;
    match accepted(file)? {
        Some(accepted) if accepted.canonical() == roster.canonical() => Ok(roster),
        Some(accepted) => bail!(
            "{} is not the roster that was accepted here, number {}: give the new one to `volvelle-holder accept-roster`",
            file.display(),
            accepted.serial
        ),
        None if roster.is_signed() => bail!(
            "{} was never accepted here: look at it with `volvelle-holder show-roster`, then `volvelle-holder accept-roster --first`",
            file.display()
        ),
        None => {
            tracing::warn!("the roster is not signed: whoever writes it decides who takes part");
            Ok(roster)
        }
    }
}

/// Whose signatures under a roster hold, of these administrators; each once.
#[must_use]
pub fn signers(roster: &Roster, administrators: &BTreeSet<String>) -> BTreeSet<String> {
    let message = roster.signed_bytes();
    let holds = |signature: &&Signature| {
        let (Ok(key), Ok(bytes)) = (hex::decode(&signature.by), hex::decode(&signature.signature)) else {
            return false;
        };
        administrators.contains(&signature.by) && UnparsedPublicKey::new(&ED25519, key).verify(&message, &bytes).is_ok()
    };
    roster.signatures.iter().filter(holds).map(|signature| signature.by.clone()).collect()
}

/// Checks that `next` may follow `now`.
///
/// # Errors
/// Too few administrators of `now` signed it, or it is not newer.
pub fn check_successor(now: &Roster, next: &Roster) -> Result<()> {
    ensure!(
        next.serial > now.serial,
        "roster number {} is not newer than the accepted one, number {}",
        next.serial,
        now.serial
    );
    let (needed, signed) = (usize::from(now.threshold), signers(next, &now.administrators()).len());
    ensure!(
        signed >= needed,
        "{signed} of the administrators of roster number {} signed number {}, and {needed} must",
        now.serial,
        next.serial
    );
    Ok(())
}

/// Takes a roster into the folder of a holder or a gateway, if it may be believed. Running programs read it when they start.
///
/// # Errors
/// It may not be believed; a holder is not in it as it is; the disk refuses.
pub fn accept(dir: &Path, text: &str, trust: Trust) -> Result<Roster> {
    let next = Roster::parse(text)?;
    ensure!(
        next.is_signed(),
        "this roster has no administrators: it needs no acceptance, and no protection comes of it"
    );
    let config = dir.join(CONFIG);
    let file = if config.exists() {
        let config = HolderConfig::load(&config)?;
        check_own_place(&config, &next)?;
        config.roster
    } else {
        dir.join(ROSTER)
    };
    match accepted(&file)? {
        Some(now) if now.canonical() == next.canonical() => {}
        Some(now) => check_successor(&now, &next)?,
        None => {
            let needed = usize::from(next.threshold);
            let signed = signers(&next, &next.administrators()).len();
            ensure!(signed >= needed, "{signed} of its own administrators signed it, and {needed} must");
            ensure!(trust == Trust::First, "none was ever accepted here: if you compared it, say --first");
        }
    }
    // The copy last: without it the next start says what to do.
    write_durably(&file, text.as_bytes(), false)?;
    write_durably(&accepted_file(&file), text.as_bytes(), false)?;
    Ok(next)
}

fn check_own_place(config: &HolderConfig, roster: &Roster) -> Result<()> {
    let certificate = fs::read(&config.identity.certificate)
        .with_context(|| format!("cannot read {}", config.identity.certificate.display()))?;
    let own = pin(&certificate);
    let there = roster.holders.iter().any(|member| member.index == config.index && member.pin == own);
    ensure!(there, "the roster has another holder {} than the one of this folder", config.index);
    Ok(())
}

/// Signs a roster with the key of the administrator whose folder this is, and gives it as text. Whether that counts is for those
/// to say who accept it.
///
/// # Errors
/// There is no key, or the roster has no administrators.
pub fn sign(mut roster: Roster, dir: &Path) -> Result<String> {
    ensure!(roster.is_signed(), "this roster has no administrators: make it from members that name theirs");
    let pair = Ed25519KeyPair::from_pkcs8(&read_private(&dir.join(administrator::KEY))?)
        .map_err(|_| anyhow!("{} has no Ed25519 key", dir.display()))?;
    let by = hex::encode(pair.public_key().as_ref());
    let signature = hex::encode(pair.sign(&roster.signed_bytes()).as_ref());
    roster.signatures.retain(|other| other.by != by);
    roster.signatures.push(Signature { by, signature });
    Ok(toml::to_string(&roster)?)
}

/// What an administrator should look at before he signs: everybody in it, what is different from the one before, who signed, and
/// the number by which it is compared on the telephone.
///
/// # Errors
/// Never; texts are written.
pub fn shown(roster: &Roster, before: Option<&Roster>) -> Result<String> {
    use std::fmt::Write as _;
    let mut out = String::new();
    writeln!(out, "roster number {}, digest {}", roster.serial, roster.digest())?;
    writeln!(out, "{} of {} holders are needed", roster.threshold, roster.holders.len())?;
    for member in &roster.holders {
        let name = member.name.as_deref().unwrap_or("without a name");
        let administrator = member.administrator.as_deref().unwrap_or("nobody");
        writeln!(out, "holder {} ({name}) at {}", member.index, member.address)?;
        writeln!(out, "  certificate {}, administrator {administrator}", member.pin)?;
    }
    for gateway in &roster.gateways {
        writeln!(out, "gateway {gateway}")?;
        match roster.policies.iter().find(|policy| policy.gateway == *gateway) {
            Some(policy) => {
                writeln!(out, "  may {} under {}", policy.operations.join(", "), policy.prefixes.join(", "))?
            }
            None => writeln!(out, "  may ask for everything")?,
        }
    }
    let known = before.unwrap_or(roster);
    for by in signers(roster, &known.administrators()) {
        writeln!(out, "signed by {by}")?;
    }
    if let Some(before) = before {
        let (old, new) = (lines(before)?, lines(roster)?);
        old.iter().filter(|line| !new.contains(line)).try_for_each(|line| writeln!(out, "- {line}"))?;
        new.iter().filter(|line| !old.contains(line)).try_for_each(|line| writeln!(out, "+ {line}"))?;
    }
    Ok(out)
}

/// Each part of a roster as a line, for comparing.
fn lines(roster: &Roster) -> Result<Vec<String>> {
    let mut lines = vec![format!("threshold {}", roster.threshold)];
    for member in &roster.holders {
        lines.push(format!("holder {}", serde_json::to_string(member)?));
    }
    lines.extend(roster.gateways.iter().map(|gateway| format!("gateway {gateway}")));
    for policy in &roster.policies {
        lines.push(format!("policy {}", serde_json::to_string(policy)?));
    }
    lines.extend(roster.former.iter().map(|former| format!("former holder {}", former.index)));
    Ok(lines)
}
