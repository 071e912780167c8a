//! The end of a key: it is marked, waits, and is destroyed unless somebody needed it meanwhile.
//!
//! What must stay true: the mark is durable before it is confirmed; a key that was destroyed stays known by name, so that nobody
//! makes another one under its id; a crash in the middle of destroying is finished at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Folder, KeyName, destroy, list, overwrite, split_name};
use crate::lock;
use crate::roster::write_durably;

/// The ending of a mark's file, which has the time in it.
const RETIRED: &str = ".retired";
/// The ending of what is left of a key that was destroyed.
const DESTROYED: &str = ".destroyed";

/// Keys on their way out, and since when, in seconds since 1970.
pub(super) type Marks = BTreeMap<KeyName, u64>;

/// The marks that lie in a folder. One that cannot be read begins anew.
pub(super) fn marks(files: &[PathBuf], now: u64) -> Marks {
    let since = |file: &Path| fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(now);
    files.iter().filter_map(|file| Some((split_name(file, RETIRED)?, since(file)))).collect()
}

impl Folder {
    fn beside(&self, (realm, key_id): &KeyName, ending: &str) -> PathBuf {
        self.path.join(format!("{}-{key_id}{ending}", hex::encode(realm)))
    }

    /// Since when a key is retired, if it is.
    pub(crate) fn retired(&self, name: &KeyName) -> Option<u64> {
        lock(&self.retired).get(name).copied()
    }

    /// Every key that is retired, and since when.
    pub(crate) fn all_retired(&self) -> Marks {
        lock(&self.retired).clone()
    }

    /// Marks a key, durably. A second time changes nothing.
    pub(crate) fn retire(&self, name: &KeyName, now: u64) -> Result<()> {
        let mut retired = lock(&self.retired);
        if !retired.contains_key(name) {
            write_durably(&self.beside(name, RETIRED), now.to_string().as_bytes(), true)?;
            retired.insert(*name, now);
        }
        Ok(())
    }

    /// Takes the mark away, durably; whether there was one.
    pub(crate) fn keep(&self, name: &KeyName) -> Result<bool> {
        let mut retired = lock(&self.retired);
        let marked = retired.contains_key(name);
        if marked {
            remove(&self.beside(name, RETIRED))?;
            retired.remove(name);
        }
        Ok(marked)
    }

    /// Whether there was a key of this name that was destroyed.
    pub(crate) fn was_destroyed(&self, name: &KeyName) -> bool {
        self.beside(name, DESTROYED).exists()
    }

    /// Destroys every fragment of a key that is retired.
    pub(crate) fn destroy_retired(&self, name: &KeyName) -> Result<()> {
        let mut retired = lock(&self.retired);
        write_durably(&self.beside(name, DESTROYED), b"", true)?;
        self.finish_destroying(name)?;
        retired.remove(name);
        Ok(())
    }

    /// The state file first, so that nothing names a file key that is gone.
    fn finish_destroying(&self, name: &KeyName) -> Result<()> {
        let state = self.file(name);
        if state.exists() {
            overwrite(&mut fs::OpenOptions::new().write(true).open(&state)?)?;
            remove(&state)?;
        }
        let beginning = format!("{}-{}-", hex::encode(name.0), name.1);
        for file in list(&self.path)? {
            let text = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if text.starts_with(&beginning) && text.ends_with(".key") {
                destroy(&file)?;
            }
        }
        let mark = self.beside(name, RETIRED);
        if mark.exists() { remove(&mark) } else { Ok(()) }
    }

    /// Finishes what a crash interrupted. Before anything is read: a state file may have been overwritten.
    pub(super) fn finish_all_destroying(&self, files: &[PathBuf]) -> Result<()> {
        let destroyed = files.iter().filter_map(|file| split_name(file, DESTROYED));
        for name in destroyed {
            if self.file(&name).exists() || self.beside(&name, RETIRED).exists() {
                self.finish_destroying(&name)?;
                lock(&self.retired).remove(&name);
            }
        }
        Ok(())
    }

    /// The highest id that a key of this realm has or ever had here; 0 if there was none.
    pub(crate) fn highest(&self, realm: &[u8; 16]) -> Result<u32> {
        let files = list(&self.path)?;
        let names = files.iter().filter_map(|file| split_name(file, ".json").or_else(|| split_name(file, DESTROYED)));
        Ok(names.filter(|(of, _)| of == realm).map(|(_, key_id)| key_id).max().unwrap_or(0))
    }
}

/// Removes a file, durably.
fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path)?;
    fs::File::open(path.parent().context("a file has a folder")?)?.sync_all()?;
    Ok(())
}
