//! Repair: t holders restore the fragment of another one, which learns it and nobody else does.
//!
//! What must stay true: parts go from holder to holder directly; a helper gives only to a holder of its roster, over a connection
//! to that holder's pin; the restored fragment is kept only if it fits the public share that every holder signed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use volvelle_fragments::publics;
use volvelle_fragments::repair::{self, Part};

use super::{Holder, certificate, named};
use crate::lock;
use crate::state::{KeyName, now};
use crate::wire::{KeyInfo, RepairPlan, Response};

/// Repairs under way at once, at most.
const REPAIRS: usize = 64;

/// A repair under way. It lives in memory only: after a crash another one is begun.
pub(super) struct Repair {
    name: KeyName,
    epoch: u32,
    helpers: Vec<u8>,
    lost: u8,
    received: BTreeMap<u8, Part>,
}

impl Repair {
    pub(super) fn receive(&mut self, from: u8, part: Part) -> Result<Response> {
        ensure!(self.helpers.contains(&from), "holder {from} is no helper of this repair");
        self.received.insert(from, part);
        Ok(Response::Done)
    }

    /// Everything the helpers sent.
    fn parts(&self) -> Result<Vec<Part>> {
        let part = |helper: &u8| {
            self.received.get(helper).cloned().with_context(|| format!("helper {helper} sent nothing yet"))
        };
        self.helpers.iter().map(part).collect()
    }
}

impl Holder {
    pub(super) fn repair_begin(&self, session: String, plan: &RepairPlan) -> Result<Response> {
        let name = named(&plan.realm, plan.key_id)?;
        let known = |index: &u8| self.roster.holders.iter().any(|holder| holder.index == *index);
        let mut distinct = plan.helpers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let enough =
            distinct.len() == plan.helpers.len() && distinct.len() >= usize::from(self.roster.least_threshold());
        ensure!(enough && distinct.iter().all(known), "a repair needs {} helpers", self.roster.threshold);
        ensure!(known(&plan.lost) && !distinct.contains(&plan.lost), "the holder in need must be another one");
        let mine = self.config.index == plan.lost || distinct.contains(&self.config.index);
        ensure!(mine, "this holder has no part in that repair");
        let mut repairs = lock(&self.repairs);
        repairs.retain(|_, other| (other.name, other.lost) != (name, plan.lost));
        ensure!(repairs.len() < REPAIRS, "too many repairs are under way");
        let repair = Repair {
            name,
            epoch: plan.epoch,
            helpers: plan.helpers.clone(),
            lost: plan.lost,
            received: BTreeMap::new(),
        };
        repairs.insert(session, repair);
        Ok(Response::Done)
    }

    pub(super) async fn repair_split(&self, session: &str) -> Result<Response> {
        let own = self.config.index;
        let parts = {
            let mut repairs = lock(&self.repairs);
            let state = repairs.get_mut(session).context("this repair is not known here")?;
            let key = self.key(&state.name)?.context("this key is not known here")?;
            let slot = key.slots.get(&state.epoch).filter(|slot| slot.info.active);
            let slot = slot.with_context(|| format!("epoch {} is not in use here", state.epoch))?;
            let threshold = slot.info.threshold()?;
            ensure!(state.helpers.len() == usize::from(threshold), "a repair of this key needs {threshold} helpers");
            let group = publics::group(&slot.info.shares()?, threshold)?;
            let mut parts = repair::split((&slot.share, own), &state.helpers, state.lost, &group)?;
            if let Some(part) = parts.remove(&own) {
                state.received.insert(own, part);
            }
            parts
        };
        for (to, part) in parts {
            self.deliver(session, to, &part).await?;
        }
        Ok(Response::Done)
    }

    pub(super) async fn repair_sum(&self, session: &str) -> Result<Response> {
        let state = lock(&self.repairs).remove(session).context("this repair is not known here")?;
        let key = self.key(&state.name)?.context("this key is not known here")?;
        let slot = key.slots.get(&state.epoch).with_context(|| format!("epoch {} is not held here", state.epoch))?;
        let sum = repair::sum(slot.share.suite(), &state.parts()?)?;
        self.deliver(session, state.lost, &sum).await?;
        Ok(Response::Done)
    }

    pub(super) fn repair_finish(&self, session: &str, mut info: KeyInfo) -> Result<Response> {
        let state = lock(&self.repairs).remove(session).context("this repair is not known here")?;
        ensure!(state.lost == self.config.index, "this holder is not the one in need");
        ensure!(info.epoch == state.epoch, "the certificate is that of another epoch");
        certificate(&self.roster, &state.name, &info, &info.signatures)?;
        let threshold = info.threshold()?;
        ensure!(
            self.roster.knows_threshold(threshold),
            "the roster allows no key of which {threshold} holders are needed"
        );
        publics::group(&info.shares()?, threshold)?;
        let publics = info.shares_for(&self.roster)?;
        let expected = publics.get(&self.config.index).context("the key has no share of this holder")?;
        let share = repair::restore(&state.parts()?, expected)?;
        info.active = true;
        self.change(&state.name, |key| {
            let newest = key.newest().map_or(0, |slot| slot.info.epoch);
            ensure!(newest <= info.epoch, "a newer epoch is held here already");
            key.since = now();
            self.folder.add(&state.name, key, share, info)?;
            self.folder.erase_superseded(&state.name, key)?;
            tracing::info!(epoch = state.epoch, "a fragment is repaired");
            Ok(Response::Done)
        })
    }
}
