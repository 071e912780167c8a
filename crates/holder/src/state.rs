//! What a holder keeps on disk: one file per key with its fragments by epoch, each sealed under a file key of its own.
//!
//! A file key lies in a file beside, sealed under the holder's key (`seal.key`, or `seal.sealed` when that is sealed itself). What must stay true: erasing a fragment destroys
//! its file key, after which no copy of the state file opens it; a state file is written after the file keys it names and before
//! those it no longer names are destroyed, so a crash anywhere leaves it readable.

mod retire;
mod sealing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use volvelle_fragments::PrfShare;
use volvelle_fragments::epoch::{Epochs, Held};
use zeroize::Zeroizing;

use self::sealing::SealKey;
pub use self::sealing::Unlock;
use crate::roster::{check_private, read_private, write_durably};
use crate::wire::KeyInfo;

/// A key's realm and id.
pub(crate) type KeyName = ([u8; 16], u32);

/// Touched by whoever makes a backup.
const BACKUP: &str = "backup.made";

/// The folder of a holder.
pub(crate) struct Folder {
    path: PathBuf,
    key: SealKey,
    retired: Mutex<retire::Marks>,
}

/// The file of a key.
#[derive(Serialize, Deserialize)]
struct File {
    version: u8,
    /// When the newest certificate was stored, in seconds since 1970.
    since: u64,
    epochs: Vec<Sealed>,
}

/// A fragment in its file.
#[derive(Clone, Serialize, Deserialize)]
struct Sealed {
    info: KeyInfo,
    /// The name of its file key.
    key_file: String,
    sealed_share: String,
}

/// The file of a key as it was before there were epochs: the fragment lies under the holder's key itself.
#[derive(Deserialize)]
struct FirstFile {
    info: KeyInfo,
    nonce: String,
    sealed_share: String,
}

/// A fragment as the holder uses it.
pub(crate) struct Slot {
    pub(crate) share: PrfShare,
    pub(crate) info: KeyInfo,
    key_file: String,
    sealed_share: String,
}

/// A key as a holder uses it.
#[derive(Default)]
pub(crate) struct Key {
    pub(crate) slots: BTreeMap<u32, Slot>,
    pub(crate) since: u64,
}

impl Key {
    /// The newest fragment that all holders are known to have.
    pub(crate) fn newest(&self) -> Option<&Slot> {
        self.slots.values().rev().find(|slot| slot.info.active)
    }

    /// What the rules of epochs are asked about.
    pub(crate) fn epochs(&self) -> Result<Epochs> {
        let held = self.slots.iter().map(|(number, slot)| {
            Ok((*number, Held { transcript: slot.info.transcript()?, certified: slot.info.active }))
        });
        Ok(Epochs::of(held.collect::<Result<Vec<_>>>()?))
    }
}

impl Folder {
    /// Opens the folder, making it and its key file at the first start, and brings to an end what a crash interrupted.
    pub(crate) fn open(path: PathBuf, unlock: Option<&Unlock>) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let files = list(&path)?;
        files.iter().try_for_each(|file| check_private(file))?;
        let has_fragments = files.iter().any(|file| file.extension().is_some_and(|extension| extension == "json"));
        let key = SealKey::open(&path, has_fragments, unlock)?;
        let folder = Self { path, key, retired: Mutex::new(retire::marks(&files, now())) };
        folder.finish_all_destroying(&files)?;
        folder.finish_erasing(&list(&folder.path)?)?;
        Ok(folder)
    }

    fn file(&self, (realm, key_id): &KeyName) -> PathBuf {
        self.path.join(format!("{}-{key_id}.json", hex::encode(realm)))
    }

    /// When its administrator last said that he made a backup: the time of a file that he touches.
    pub(crate) fn backed_up(&self) -> Option<u64> {
        let made = fs::metadata(self.path.join(BACKUP)).ok()?.modified().ok()?;
        made.duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs())
    }

    /// The names of all keys, in order.
    pub(crate) fn keys(&self) -> Result<Vec<KeyName>> {
        let mut names: Vec<KeyName> = list(&self.path)?.iter().filter_map(|file| name_of(file)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Takes a fragment in beside the others of its key, durably. One with the same epoch is replaced.
    pub(crate) fn add(&self, name: &KeyName, key: &mut Key, share: PrfShare, info: KeyInfo) -> Result<()> {
        let epoch = info.epoch;
        let mut tag = [0; 8];
        getrandom::fill(&mut tag).map_err(|_| anyhow!("the system gives no randomness"))?;
        let key_file = format!("{}-{}-{epoch}-{}.key", hex::encode(name.0), name.1, hex::encode(tag));
        let file_key = sealing::fresh()?;
        let sealed = self.key.seal(file_key_aad(&key_file).as_bytes(), &*file_key)?;
        write_durably(&self.path.join(&key_file), &sealed, true)?;
        let sealed_share = hex::encode(file_key.seal(&share_aad(name, epoch), &*share.expose_bytes())?);
        let replaced = key.slots.insert(epoch, Slot { share, info, key_file, sealed_share });
        self.save(name, key)?;
        replaced.map_or(Ok(()), |old| self.destroy(&old.key_file))
    }

    /// Stores what has become of a key.
    pub(crate) fn save(&self, name: &KeyName, key: &Key) -> Result<()> {
        let sealed = |slot: &Slot| Sealed {
            info: slot.info.clone(),
            key_file: slot.key_file.clone(),
            sealed_share: slot.sealed_share.clone(),
        };
        let file = File { version: 2, since: key.since, epochs: key.slots.values().map(sealed).collect() };
        write_durably(&self.file(name), &serde_json::to_vec_pretty(&file)?, true)
    }

    /// Erases every fragment that a certificate has made superfluous.
    pub(crate) fn erase_superseded(&self, name: &KeyName, key: &mut Key) -> Result<()> {
        let mut epochs = key.epochs()?;
        for number in epochs.superseded() {
            epochs.erase(number)?;
            let Some(old) = key.slots.remove(&number) else { continue };
            self.save(name, key)?;
            self.destroy(&old.key_file)?;
        }
        Ok(())
    }

    /// Overwrites and removes a file key.
    fn destroy(&self, key_file: &str) -> Result<()> {
        destroy(&self.path.join(key_file))
    }

    /// Reads a key, if there is one.
    pub(crate) fn load(&self, name: &KeyName) -> Result<Option<Key>> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(None);
        }
        let text = read_private(&path)?;
        self.parse(name, &text).with_context(|| format!("{} cannot be read", path.display())).map(Some)
    }

    fn parse(&self, name: &KeyName, text: &[u8]) -> Result<Key> {
        let value: serde_json::Value = serde_json::from_slice(text)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(1) => return self.take_over(name, serde_json::from_value(value)?),
            Some(2) => {}
            _ => bail!("it was written by a newer holder"),
        }
        let file: File = serde_json::from_value(value)?;
        let mut key = Key { since: file.since, ..Key::default() };
        for sealed in file.epochs {
            let file_key = read_private(&self.path.join(&sealed.key_file))?;
            let file_key = SealKey::of(&self.key.open_sealed(file_key_aad(&sealed.key_file).as_bytes(), &file_key)?)?;
            let epoch = sealed.info.epoch;
            let share = file_key.open_sealed(&share_aad(name, epoch), &hex::decode(&sealed.sealed_share)?)?;
            let Sealed { info, key_file, sealed_share } = sealed;
            let share = PrfShare::from_bytes(info.suite()?, &share)?;
            key.slots.insert(epoch, Slot { share, info, key_file, sealed_share });
        }
        Ok(key)
    }

    /// Puts a fragment from before there were epochs under a file key, and overwrites what it lay in.
    fn take_over(&self, name: &KeyName, file: FirstFile) -> Result<Key> {
        let sealed = [hex::decode(&file.nonce)?, hex::decode(&file.sealed_share)?].concat();
        let aad = [b"FDK-share-v1", name.0.as_slice(), &name.1.to_be_bytes()].concat();
        let share = PrfShare::from_bytes(file.info.suite()?, &self.key.open_sealed(&aad, &sealed)?)?;
        let mut old = fs::OpenOptions::new().write(true).open(self.file(name))?;
        let mut key = Key { since: now(), ..Key::default() };
        self.add(name, &mut key, share, file.info)?;
        overwrite(&mut old)?;
        Ok(key)
    }

    /// Destroys file keys that no state file names, and fragments that were to be erased when a crash came.
    fn finish_erasing(&self, files: &[PathBuf]) -> Result<()> {
        let mut by_key: HashMap<String, Vec<String>> = HashMap::new();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "key")) {
            let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
            let parts: Vec<&str> = name.split('-').collect();
            if let [realm, key_id, _, _] = parts.as_slice() {
                by_key.entry(format!("{realm}-{key_id}.json")).or_default().push(name.to_owned());
            }
        }
        for (state, keys) in by_key {
            let Some(name) = name_of(&self.path.join(&state)) else { continue };
            // The usual state: one fragment, one file key.
            if keys.len() == 1 && self.path.join(&state).exists() {
                continue;
            }
            let mut key = self.load(&name)?.unwrap_or_default();
            let named: HashSet<&String> = key.slots.values().map(|slot| &slot.key_file).collect();
            for orphan in keys.iter().filter(|file| !named.contains(file)) {
                self.destroy(orphan)?;
            }
            self.erase_superseded(&name, &mut key)?;
        }
        Ok(())
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn list(path: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("cannot read the folder {}", path.display()))
}

/// The key whose state file this is.
fn name_of(file: &Path) -> Option<KeyName> {
    split_name(file, ".json")
}

/// The key that a file with this ending is about.
fn split_name(file: &Path, ending: &str) -> Option<KeyName> {
    let (realm, key_id) = file.file_name()?.to_str()?.strip_suffix(ending)?.split_once('-')?;
    Some((hex::decode(realm).ok()?.try_into().ok()?, key_id.parse().ok()?))
}

fn file_key_aad(key_file: &str) -> String {
    format!("FDK-file-key-v1:{key_file}")
}

fn share_aad((realm, key_id): &KeyName, epoch: u32) -> Zeroizing<Vec<u8>> {
    let key_id = key_id.to_be_bytes();
    Zeroizing::new([b"FDK-share-v2", realm.as_slice(), key_id.as_slice(), epoch.to_be_bytes().as_slice()].concat())
}

/// Overwrites and removes a file, durably.
fn destroy(path: &Path) -> Result<()> {
    overwrite(&mut fs::OpenOptions::new().write(true).open(path)?)?;
    fs::remove_file(path)?;
    fs::File::open(path.parent().context("a file has a folder")?)?.sync_all()?;
    Ok(())
}

/// Writes zeros over a whole file, durably.
fn overwrite(file: &mut fs::File) -> Result<()> {
    use std::io::Write as _;
    let length = usize::try_from(file.metadata()?.len())?;
    file.write_all(&vec![0; length])?;
    file.sync_all()?;
    Ok(())
}
