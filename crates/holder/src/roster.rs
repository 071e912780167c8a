//! Who takes part: holders with index, address and pin, gateways with a pin, and the threshold. Every party has the same roster.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The parties of one installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Counted up with every change of a roster that is signed; 0 for one that is not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub serial: u64,
    /// Holders needed for an answer, at least 2.
    pub threshold: u8,
    /// Other thresholds that keys may have which were made under an earlier roster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_thresholds: Vec<u8>,
    /// The holders, by index.
    pub holders: Vec<Member>,
    /// SHA-256 of the certificates of the gateways, in hexadecimal.
    pub gateways: Vec<String>,
    /// Holders that were replaced or dropped: what they signed still holds, nothing else of them does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
    /// What gateways may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
    /// What administrators signed: everything above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

/// An administrator's signature of a roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// His Ed25519 key, in hexadecimal.
    pub by: String,
    /// The signature, in hexadecimal.
    pub signature: String,
}

/// As serde wants it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a gateway may ask holders for. One without a policy may ask for everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The gateway's pin.
    pub gateway: String,
    /// Paths at and under which it may ask.
    pub prefixes: Vec<String>,
    /// Of `seal`, `open`, `rewrap` and `bury`, those it may do.
    pub operations: Vec<String>,
    /// Different items in a minute, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Different items in an hour, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u32>,
    /// Different items in a day, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
    /// Different versions that it may bury in a day, at most; 10,000 if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buried_per_day: Option<u32>,
}

impl Policy {
    pub(crate) fn allows(&self, operation: &str, path: &str) -> bool {
        let under = |prefix: &String| {
            path.strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
        };
        self.operations.iter().any(|allowed| allowed == operation) && self.prefixes.iter().any(under)
    }
}

/// A holder that is no member any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Its index, which another one may have now.
    pub index: u8,
    /// Its Ed25519 key, in hexadecimal.
    pub signing_key: String,
}

/// One holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// From 1 to 9.
    pub index: u8,
    /// `host:port`.
    pub address: String,
    /// SHA-256 of its certificate, in hexadecimal.
    pub pin: String,
    /// Its Ed25519 key, which signs transcripts, in hexadecimal.
    pub signing_key: String,
    /// The Ed25519 key of its administrator, which signs rosters, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator: Option<String>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A party's certificate and private key on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityFiles {
    /// DER certificate.
    pub certificate: PathBuf,
    /// PKCS#8 Ed25519 key; nobody but its owner may read it.
    pub key: PathBuf,
}

impl Roster {
    /// Reads and checks a roster.
    ///
    /// # Errors
    /// The file cannot be read, or makes no sense.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the roster {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no roster", path.display()))
    }

    /// Reads and checks a roster.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn parse(text: &str) -> Result<Self> {
        let roster: Self = toml::from_str(text)?;
        roster.check()?;
        Ok(roster)
    }

    /// Whether it makes sense.
    pub(crate) fn check(&self) -> Result<()> {
        let n = u8::try_from(self.holders.len()).unwrap_or(u8::MAX);
        ensure!(n <= 9, "the roster has {n} holders; at most 9 are possible");
        ensure!((2..=n).contains(&self.threshold), "threshold must be between 2 and the number of holders, {n}");
        let former = self.former_thresholds.iter().all(|t| (2..=n).contains(t));
        ensure!(
            former,
            "there are keys with a threshold above the number of holders, {n}: rekey and retire them first"
        );
        let in_order = self.holders.windows(2).all(|pair| pair[0].index < pair[1].index);
        let in_range = self.holders.iter().all(|holder| (1..=9).contains(&holder.index));
        ensure!(in_order && in_range, "the holders of the roster must have different indices from 1 to 9, in order");
        self.check_administrators()?;
        for policy in &self.policies {
            let gateway = &policy.gateway;
            ensure!(
                self.gateways.contains(gateway),
                "a policy is for gateway {gateway}, which the roster does not have"
            );
            let known =
                policy.operations.iter().all(|word| ["seal", "open", "rewrap", "bury"].contains(&word.as_str()));
            ensure!(known, "operations of a policy must be of seal, open, rewrap and bury");
        }
        let gateways: HashSet<&String> = self.policies.iter().map(|policy| &policy.gateway).collect();
        ensure!(gateways.len() == self.policies.len(), "a gateway can have one policy only");
        let pins: HashSet<&String> = self.holders.iter().map(|holder| &holder.pin).chain(&self.gateways).collect();
        ensure!(pins.len() == self.holders.len() + self.gateways.len(), "every party must have a pin of its own");
        let addresses: HashSet<&String> = self.holders.iter().map(|holder| &holder.address).collect();
        ensure!(addresses.len() == self.holders.len(), "every holder must have an address of its own");
        Ok(())
    }

    /// Bytes that stand for the roster in a key generation: everything but the signatures.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(&Self { signatures: Vec::new(), ..self.clone() }).unwrap_or_default()
    }

    /// What administrators sign.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        [b"FDK-roster-v1".as_slice(), &self.canonical()].concat()
    }

    /// By which people compare it.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(digest(&SHA256, &self.signed_bytes()).as_ref())
    }

    /// Whether it has administrators, and so needs their signatures.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.serial > 0 || self.holders.iter().any(|holder| holder.administrator.is_some())
    }

    /// The keys of the administrators of its holders.
    #[must_use]
    pub fn administrators(&self) -> std::collections::BTreeSet<String> {
        self.holders.iter().filter_map(|holder| holder.administrator.clone()).collect()
    }

    fn check_administrators(&self) -> Result<()> {
        if !self.is_signed() {
            return Ok(());
        }
        ensure!(self.serial > 0, "a roster with administrators has a serial number");
        let all = self.holders.iter().all(|holder| holder.administrator.is_some());
        ensure!(all, "every holder of a signed roster needs an administrator");
        let different = self.administrators().len();
        ensure!(
            different >= usize::from(self.threshold),
            "the holders have {different} different administrators; {} must be able to sign",
            self.threshold
        );
        Ok(())
    }

    /// Whether a key may have this threshold.
    pub(crate) fn knows_threshold(&self, threshold: u8) -> bool {
        self.threshold == threshold || self.former_thresholds.contains(&threshold)
    }

    /// The least threshold that a key may have.
    pub(crate) fn least_threshold(&self) -> u8 {
        self.former_thresholds.iter().copied().fold(self.threshold, u8::min)
    }

    /// The keys that may have signed for an index: that of its holder, and those of former ones.
    pub(crate) fn signers(&self, index: u8) -> impl Iterator<Item = &str> {
        let now = self.holders.iter().filter(move |holder| holder.index == index).map(|h| h.signing_key.as_str());
        now.chain(self.former.iter().filter(move |former| former.index == index).map(|f| f.signing_key.as_str()))
    }

    pub(crate) fn holder_of(&self, pin: &str) -> Option<u8> {
        self.holders.iter().find(|holder| holder.pin == pin).map(|holder| holder.index)
    }
}

/// SHA-256 in hexadecimal, as pins are written.
#[must_use]
pub fn pin(certificate: &[u8]) -> String {
    hex::encode(digest(&SHA256, certificate).as_ref())
}

/// Reads a file that nobody but its owner may read.
///
/// # Errors
/// The file cannot be read, or others may read it.
pub fn read_private(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    check_private(path)?;
    Ok(zeroize::Zeroizing::new(fs::read(path)?))
}

/// Refuses a file that others may read. Files that systemd hands over as credentials are guarded by their folder, and their
/// group bits show the service's own access.
pub(crate) fn check_private(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.starts_with(folder));
    let others = if is_credential { 0o007 } else { 0o077 };
    let path = path.display();
    ensure!(metadata.permissions().mode() & others == 0, "{path} may be read by others: run `chmod 600 {path}`");
    Ok(())
}

/// Reads a secret file that its owner's group may read too, as mounted secrets are, and refuses one that everybody can read.
///
/// # Errors
/// It cannot be read, or everybody can.
pub fn read_guarded(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let shown = path.display();
    ensure!(metadata.permissions().mode() & 0o007 == 0, "everybody can read {shown}: run `chmod o-rwx {shown}`");
    let read = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    Ok(zeroize::Zeroizing::new(read))
}

/// Writes a file durably, under its name or not at all; with `private` nobody else may read it.
///
/// # Errors
/// The disk refuses.
pub fn write_durably(path: &Path, bytes: &[u8], private: bool) -> Result<()> {
    let folder = path.parent().context("a file needs a folder")?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let temporary = path.with_extension("new");
    let mode = if private { 0o600 } else { 0o644 };
    fs::remove_file(&temporary).ok();
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}
