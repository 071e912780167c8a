//! Epochs at the holder: what is held, confirming it, and erasing on a certificate.
//!
//! What must stay true: the rules are those of [`volvelle_fragments::epoch`] and nothing here decides anything else; nothing is
//! confirmed that is not on the disk.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, anyhow, ensure};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use volvelle_fragments::epoch::{Certificate, Transcript};

use super::Holder;
use crate::roster::Roster;
use crate::state::{KeyName, now};
use crate::wire::{HeldEpoch, KeyInfo, Response};

impl Holder {
    pub(super) fn epochs(&self, name: &KeyName) -> Result<Response> {
        let key = self.key(name)?;
        let held = key.iter().flat_map(|key| key.slots.values());
        let held = held.map(|slot| HeldEpoch {
            epoch: slot.info.epoch,
            transcript: slot.info.transcript.clone(),
            certified: slot.info.active,
        });
        let since = key.as_ref().map_or(0, |key| key.since);
        Ok(Response::Epochs { held: held.collect(), since, ends: self.ends(name) })
    }

    pub(super) fn confirm(&self, name: &KeyName, epoch: u32) -> Result<Response> {
        let key = self.key(name)?.context("this key is not known here")?;
        let slot = key.slots.get(&epoch).with_context(|| format!("epoch {epoch} is not held here"))?;
        Ok(self.sign(name, &slot.info))
    }

    pub(super) fn certify(&self, name: &KeyName, epoch: u32, signatures: BTreeMap<u8, String>) -> Result<Response> {
        self.change(name, |key| {
            let mut epochs = key.epochs()?;
            if epochs.certified().is_some_and(|newest| newest > epoch) {
                return Ok(Response::Done);
            }
            let slot = key
                .slots
                .get_mut(&epoch)
                .with_context(|| format!("epoch {epoch} is not held here: this holder needs repair"))?;
            epochs.certify(&certificate(&self.roster, name, &slot.info, &signatures)?)?;
            if !slot.info.active {
                slot.info.active = true;
                slot.info.signatures = signatures;
                key.since = now();
                self.folder.save(name, key)?;
            }
            self.folder.erase_superseded(name, key)?;
            tracing::info!(epoch, "a key is refreshed; older fragments are erased");
            Ok(Response::Done)
        })
    }
}

/// That every holder which this key has in this epoch signed it: those of the roster, and former ones.
///
/// # Errors
/// Names the first holder whose signature is missing or does not hold.
pub(crate) fn certificate(
    roster: &Roster,
    name: &KeyName,
    info: &KeyInfo,
    signatures: &BTreeMap<u8, String>,
) -> Result<Certificate> {
    let transcript: Transcript = info.transcript()?;
    let members: BTreeSet<u8> = info.publics.keys().copied().collect();
    ensure!(members.len() >= usize::from(roster.least_threshold()), "the key was made by too few holders");
    let mut confirmed = BTreeMap::new();
    for index in &members {
        let signature = signatures.get(index).with_context(|| format!("holder {index} did not sign"))?;
        let signature = hex::decode(signature)?;
        let signed = roster.signers(*index).any(|key| {
            let public = UnparsedPublicKey::new(&ED25519, hex::decode(key).unwrap_or_default());
            public.verify(&info.signed_bytes(name), &signature).is_ok()
                || info.epoch == 0 && public.verify(&info.first_signed_bytes(), &signature).is_ok()
        });
        ensure!(signed, "the signature of holder {index} does not hold");
        confirmed.insert(*index, transcript);
    }
    Certificate::of(info.epoch, &members, &confirmed).ok_or_else(|| anyhow!("not every holder signed"))
}
