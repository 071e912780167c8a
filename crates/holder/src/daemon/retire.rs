//! Retiring a key at the holder: the gateway says that a newer key took its place, and the holder waits, in case that is wrong.
//!
//! What must stay true: no gateway can destroy a key at once; with a retired key nothing new is sealed, so that nothing can be
//! lost with it; whoever opens something with it shows that it is needed, and it stays.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::{Holder, realm};
use crate::eval::Operation;
use crate::lock;
use crate::state::{KeyName, now};
use crate::wire::Response;

/// Seconds before a retired key is destroyed, when nobody says: a week.
pub(super) const GRACE: u64 = 7 * 24 * 3600;

impl Holder {
    fn grace(&self) -> u64 {
        self.config.retire_after_seconds.unwrap_or(GRACE)
    }

    /// When a key is to be destroyed, if it is retired.
    pub(super) fn ends(&self, name: &KeyName) -> Option<u64> {
        self.folder.retired(name).map(|since| since.saturating_add(self.grace()))
    }

    pub(super) fn highest(&self, text: &str) -> Result<Response> {
        Ok(Response::Highest(self.folder.highest(&realm(text)?)?))
    }

    pub(super) fn retire(&self, name: &KeyName) -> Result<Response> {
        if self.folder.was_destroyed(name) {
            return Ok(Response::Done);
        }
        self.key(name)?.context("this key is not known here")?;
        let newer = self.folder.keys()?.into_iter().filter(|other| other.0 == name.0 && other.1 > name.1);
        let mut in_use = false;
        for other in newer {
            in_use |= self.folder.retired(&other).is_none() && self.key(&other)?.is_some_and(|k| k.newest().is_some());
        }
        ensure!(in_use, "no newer key of this realm is in use here");
        let _changing = lock(&self.changing);
        self.folder.retire(name, now())?;
        tracing::warn!(
            key_id = name.1,
            seconds = self.grace(),
            "a key is retired; it will be destroyed unless it is used"
        );
        Ok(Response::Done)
    }

    pub(super) fn keep(&self, name: &KeyName) -> Result<Response> {
        ensure!(!self.folder.was_destroyed(name), "this key was destroyed");
        let _changing = lock(&self.changing);
        if self.folder.keep(name)? {
            tracing::warn!(key_id = name.1, "a retired key is needed after all and stays");
        }
        Ok(Response::Done)
    }

    /// Asked before a key evaluates: one that is retired seals nothing, and stays if something is opened with it.
    pub(super) fn used(&self, name: &KeyName, operation: Operation) -> Result<()> {
        if self.folder.retired(name).is_none() || operation == Operation::Probe {
            return Ok(());
        }
        ensure!(operation != Operation::Seal, "this key is retired: nothing new is sealed under it");
        self.keep(name).map(|_| ())
    }

    /// Destroys what has waited long enough.
    pub(super) fn destroy_retired(&self) {
        let waiting: BTreeMap<KeyName, u64> = self.folder.all_retired();
        for (name, since) in waiting {
            if now() < since.saturating_add(self.grace()) {
                continue;
            }
            let _changing = lock(&self.changing);
            // It may have been asked for a moment ago.
            if self.folder.retired(&name) != Some(since) {
                continue;
            }
            lock(&self.keys).remove(&name);
            match self.folder.destroy_retired(&name) {
                Ok(()) => tracing::warn!(realm = hex::encode(name.0), key_id = name.1, "a retired key is destroyed"),
                Err(error) => tracing::error!(%error, key_id = name.1, "a retired key cannot be destroyed"),
            }
        }
    }
}
