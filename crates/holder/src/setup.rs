//! What an operator makes once: a holder's identity and configuration, a gateway's identity, the roster.
//!
//! What must stay true: private keys stay on the machine they were made on; nothing that is there is ever replaced.

pub mod administrator;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

use crate::daemon::{HolderConfig, Unlock};
use crate::roster::{Former, IdentityFiles, Member, Policy, Roster, pin, read_private, write_durably};

/// The name of a holder's configuration in its folder.
pub const CONFIG: &str = "holder.toml";

/// What a new holder is told about itself.
#[derive(Clone, Debug)]
pub struct HolderPlan {
    /// Its folder.
    pub dir: PathBuf,
    /// Its index in the roster.
    pub index: u8,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How others reach it; as it listens, if nothing is said.
    pub address: Option<String>,
    /// Where it keeps its fragments; `state` in its folder, if nothing is said.
    pub state: Option<PathBuf>,
    /// Where the service will find the private key, if not in its folder.
    pub key_at: Option<PathBuf>,
    /// What opens the key that seals its fragments.
    pub unlock: Option<Unlock>,
}

/// Makes a holder's identity and configuration, or finds them; the roster is put beside them as `roster.toml`. Gives the line for
/// the roster.
///
/// # Errors
/// The plan makes no sense, or the folder has another holder.
pub fn init_holder(plan: &HolderPlan) -> Result<Member> {
    ensure!((1..=9).contains(&plan.index), "index must be from 1 to 9");
    let address = match &plan.address {
        Some(address) => address.clone(),
        None if plan.listen.ip().is_unspecified() => {
            bail!("listen is every address of this machine: say with --address how the others reach it");
        }
        None => plan.listen.to_string(),
    };
    ensure!(!address.contains(',') && address.contains(':'), "address must be HOST:PORT");
    let file = plan.dir.join(CONFIG);
    let (pin, signing_key) = identity(&plan.dir)?;
    let config = HolderConfig {
        index: plan.index,
        listen: plan.listen.to_string(),
        roster: "roster.toml".into(),
        state: plan.state.clone().unwrap_or_else(|| "state".into()),
        log: None,
        identity: IdentityFiles {
            certificate: "certificate.der".into(),
            key: plan.key_at.clone().unwrap_or_else(|| "key.der".into()),
        },
        unlock: plan.unlock.clone(),
        retire_after_seconds: None,
        suites: None,
        authorization: None,
    };
    let text = toml::to_string(&config)?;
    if file.exists() {
        let same = fs::read_to_string(&file)? == text;
        ensure!(same, "{} is there and says something else: nothing was changed", file.display());
    } else {
        write_durably(&file, text.as_bytes(), false)?;
    }
    Ok(Member { index: plan.index, address, pin, signing_key, administrator: None, name: None })
}

/// Makes a gateway's identity in a folder, or finds it. Gives its pin.
///
/// # Errors
/// The disk refuses.
pub fn init_gateway(dir: &Path) -> Result<String> {
    Ok(identity(dir)?.0)
}

/// A member as one word, for the command line.
#[must_use]
pub fn member_line(member: &Member) -> String {
    let mut line = format!("{},{},{},{}", member.index, member.address, member.pin, member.signing_key);
    if member.administrator.is_some() || member.name.is_some() {
        line = format!("{line},{}", member.administrator.as_deref().unwrap_or_default());
    }
    match &member.name {
        Some(name) => format!("{line},{name}"),
        None => line,
    }
}

/// Reads what [`member_line`] writes.
///
/// # Errors
/// It is anything else.
pub fn parse_member(line: &str) -> Result<Member> {
    let parts: Vec<&str> = line.split(',').collect();
    let [index, address, pin, signing_key, more @ ..] = parts.as_slice() else {
        bail!("a member is INDEX,HOST:PORT,PIN,KEY,ADMINISTRATOR,NAME as `volvelle-holder init` printed it");
    };
    ensure!(more.len() <= 2, "a member has at most six parts");
    let optional = |n: usize| more.get(n).filter(|word| !word.is_empty()).map(|word| (*word).to_owned());
    let (administrator, name) = (optional(0), optional(1));
    administrator.as_deref().map_or(Ok(()), check_digest)?;
    name.as_deref().map_or(Ok(()), check_name)?;
    let index = index.parse().context("a member begins with its index")?;
    for word in [pin, signing_key] {
        check_digest(word)?;
    }
    let [address, pin, signing_key] = [address, pin, signing_key].map(|word| (*word).to_owned());
    Ok(Member { index, address, pin, signing_key, administrator, name })
}

/// A holder's name is one word of a line.
///
/// # Errors
/// It is empty, too long, or has characters that could be taken for something else.
pub fn check_name(name: &str) -> Result<()> {
    let plain = name.chars().all(|c| c.is_alphanumeric() || " -_.".contains(c));
    ensure!(plain && (1..=64).contains(&name.len()), "a name has 1 to 64 letters, digits, spaces, dots and dashes");
    Ok(())
}

fn check_digest(word: &str) -> Result<()> {
    ensure!(hex::decode(word).is_ok_and(|bytes| bytes.len() == 32), "a pin or key is 64 hexadecimal digits");
    Ok(())
}

/// The roster as text, checked; members may come in any order.
///
/// # Errors
/// It makes no sense: a threshold out of range, an index missing or twice, a party twice.
pub fn roster_text(threshold: u8, mut members: Vec<Member>, gateways: Vec<String>) -> Result<String> {
    members.sort_by_key(|member| member.index);
    for gateway in &gateways {
        check_digest(gateway)?;
    }
    ensure!(!gateways.is_empty(), "a roster needs at least one --gateway-pin");
    let serial = u64::from(members.iter().any(|member| member.administrator.is_some()));
    let roster = Roster {
        serial,
        threshold,
        former_thresholds: vec![],
        holders: members,
        gateways,
        former: vec![],
        policies: vec![],
        signatures: vec![],
    };
    // Later ones may have gaps, where a holder was dropped.
    let whole = roster.holders.iter().zip(1..).all(|(holder, index)| holder.index == index);
    ensure!(whole, "the holders of a new roster must have the indices 1 to n, in order");
    roster.check()?;
    Ok(toml::to_string(&roster)?)
}

/// How a roster is to change.
#[derive(Clone, Debug, Default)]
pub struct RosterChange {
    /// A new holder, or one that takes the place of another with the same index.
    pub members: Vec<Member>,
    /// Indices of holders to leave out.
    pub drop: Vec<u8>,
    /// Pins of new gateways.
    pub gateways: Vec<String>,
    /// Pins of gateways to leave out.
    pub drop_gateways: Vec<String>,
    /// Holders needed for an answer with keys that are made from now on.
    pub threshold: Option<u8>,
    /// Thresholds that no key has any more.
    pub forget_thresholds: Vec<u8>,
    /// By index, the key of the holder's administrator.
    pub administrators: Vec<(u8, String)>,
    /// What gateways may ask for, in place of what was said before.
    pub policies: Option<Vec<Policy>>,
}

/// A changed roster as text, checked. A key keeps the threshold it was made with; a new one holds for keys made from now on.
///
/// # Errors
/// What is to be left out is not there, or what comes of it makes no sense.
pub fn changed_roster(mut roster: Roster, change: RosterChange) -> Result<String> {
    for member in change.members {
        retire(&mut roster, member.index);
        roster.holders.push(member);
    }
    for index in change.drop {
        ensure!(retire(&mut roster, index), "the roster has no holder {index}");
    }
    roster.holders.sort_by_key(|member| member.index);
    if let Some(threshold) = change.threshold.filter(|t| *t != roster.threshold) {
        let before = std::mem::replace(&mut roster.threshold, threshold);
        roster.former_thresholds.retain(|former| *former != threshold && *former != before);
        roster.former_thresholds.push(before);
    }
    for threshold in &change.forget_thresholds {
        ensure!(roster.former_thresholds.contains(threshold), "the roster has no former threshold {threshold}");
    }
    roster.former_thresholds.retain(|former| !change.forget_thresholds.contains(former));
    for pin in &change.drop_gateways {
        ensure!(roster.gateways.contains(pin), "the roster has no gateway {pin}");
    }
    for (index, key) in change.administrators {
        check_digest(&key)?;
        let member = roster.holders.iter_mut().find(|member| member.index == index);
        member.with_context(|| format!("the roster has no holder {index}"))?.administrator = Some(key);
    }
    if let Some(policies) = change.policies {
        roster.policies = policies;
    }
    roster.signatures.clear();
    if roster.is_signed() {
        roster.serial += 1;
    }
    roster.gateways.retain(|pin| !change.drop_gateways.contains(pin));
    roster.policies.retain(|policy| !change.drop_gateways.contains(&policy.gateway));
    for pin in change.gateways {
        check_digest(&pin)?;
        roster.gateways.push(pin);
    }
    ensure!(!roster.gateways.is_empty(), "a roster needs at least one gateway");
    roster.check()?;
    Ok(toml::to_string(&roster)?)
}

/// Moves a holder to the former ones, if it is there.
fn retire(roster: &mut Roster, index: u8) -> bool {
    let Some(at) = roster.holders.iter().position(|holder| holder.index == index) else { return false };
    let gone = roster.holders.remove(at);
    roster.former.push(Former { index, signing_key: gone.signing_key });
    true
}

pub(crate) fn files(folder: &Path) -> IdentityFiles {
    IdentityFiles { certificate: folder.join("certificate.der"), key: folder.join("key.der") }
}

/// Makes a key and a certificate signed by itself, if they are not there; gives the certificate's pin and the public key.
pub(crate) fn identity(folder: &Path) -> Result<(String, String)> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let files = files(folder);
    // The certificate is written last: a key without one was never used.
    if files.certificate.exists() {
        let key = KeyPair::try_from(read_private(&files.key)?.as_slice()).context("key.der is no private key")?;
        return Ok((pin(&fs::read(&files.certificate)?), hex::encode(key.public_key_raw())));
    }
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let certificate = CertificateParams::new(vec!["holder".to_owned()])?.self_signed(&key)?;
    write_durably(&files.key, &zeroize::Zeroizing::new(key.serialize_der()), true)?;
    write_durably(&files.certificate, certificate.der(), false)?;
    Ok((pin(certificate.der()), hex::encode(key.public_key_raw())))
}
