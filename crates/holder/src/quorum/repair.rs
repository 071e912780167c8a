//! Coordinating the repair of a holder: t others restore its fragment of every key. The coordinator sees nothing secret.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use volvelle_fragments::record::fresh_salt;

use super::{PATIENCE, Peer, Quorum, QuorumError};
use crate::daemon::certificate;
use crate::lock;
use crate::state::KeyName;
use crate::wire::{KeyInfo, RepairPlan, Request, Response};

/// Sets of helpers that are tried, at most: one that sends something wrong spoils a repair and cannot be named.
const ATTEMPTS: usize = 10;

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Keys whose fragment was restored.
    pub restored: usize,
    /// Keys whose fragment was there and answered rightly.
    pub sound: usize,
    /// Keys whose fragment could not be restored, and why.
    pub failed: Vec<(KeyName, String)>,
}

impl Quorum {
    /// Restores the fragments of a holder that lost them or has old or wrong ones. It and at least t others must be up; the holder
    /// must have its identity.
    ///
    /// # Errors
    /// There is no such holder, or too few others answer. What fails for one key only is in the answer.
    pub async fn repair(&self, lost: u8) -> Result<Repaired, QuorumError> {
        let peer = self.0.peers.iter().find(|peer| peer.index == lost);
        let peer = peer.ok_or_else(|| QuorumError::Holders(format!("the roster has no holder {lost}")))?;
        let mut others = Vec::new();
        for other in self.0.peers.iter().filter(|other| other.index != lost && !other.is_quarantined()) {
            if other.link.ask(&Request::Health {}, PATIENCE).await.is_ok() {
                others.push(other.index);
            }
        }
        let needed = self.0.roster.least_threshold();
        if others.len() < usize::from(needed) {
            let detail = format!("a repair needs {needed} helpers besides holder {lost}");
            return Err(QuorumError::TooFewHolders { needed, reachable: others.len(), detail });
        }
        let mut done = Repaired::default();
        for key in self.keys_of(&others).await? {
            match self.repair_key(key, peer, &others).await {
                Ok(true) => done.restored += 1,
                Ok(false) => done.sound += 1,
                Err(error) => {
                    tracing::warn!(realm = hex::encode(key.0), key_id = key.1, %error, "a fragment is not repaired");
                    done.failed.push((key, error.to_string()));
                }
            }
        }
        if done.failed.is_empty() {
            *lock(&peer.quarantined) = None;
            peer.stale.store(false, Ordering::Relaxed);
        }
        Ok(done)
    }

    /// Whether anything was to be restored.
    async fn repair_key(&self, key: KeyName, lost: &Arc<Peer>, others: &[u8]) -> Result<bool, QuorumError> {
        // A key that was never activated is nothing to repair.
        let Some(info) = self.newest(key, others).await? else { return Ok(false) };
        // The view must not be older than what the helpers hold.
        let threshold = self.view(key).await?.threshold;
        if self.probe(lost, key).await.is_ok() {
            return Ok(false);
        }
        let mut helpers = Vec::new();
        for index in others {
            if self.holds(key, *index, &info).await {
                helpers.push(*index);
            }
        }
        let mut why = "too few holders have the newest fragment".to_owned();
        for chosen in choices(&helpers, usize::from(threshold)).into_iter().take(ATTEMPTS) {
            match self.attempt(key, (lost.index, &chosen), &info).await {
                Ok(()) => {
                    let probed = self.probe(lost, key).await;
                    return probed.map(|()| true).map_err(QuorumError::Holders);
                }
                Err(failed) => why = failed,
            }
        }
        Err(QuorumError::Holders(format!("the fragment was not restored: {why}")))
    }

    /// The newest certificate that any of these holders has.
    async fn newest(&self, key: KeyName, indices: &[u8]) -> Result<Option<KeyInfo>, QuorumError> {
        let request = |_| Request::KeyInfo { realm: hex::encode(key.0), key_id: key.1 };
        let answers = self.ask_these(indices, request).await.map_err(QuorumError::Holders)?;
        let infos = answers.into_values().filter_map(|answer| match answer {
            Response::Key(Some(info)) if info.active => Some(info),
            _ => None,
        });
        let signed = |info: &KeyInfo| certificate(&self.0.roster, &key, info, &info.signatures).is_ok();
        Ok(infos.filter(signed).max_by_key(|info| info.epoch))
    }

    /// Whether a holder knows this very epoch to be in use.
    async fn holds(&self, key: KeyName, index: u8, info: &KeyInfo) -> bool {
        let request = |_| Request::Epochs { realm: hex::encode(key.0), key_id: key.1 };
        let Ok(mut answers) = self.ask_these(&[index], request).await else { return false };
        let Some(Response::Epochs { held, .. }) = answers.remove(&index) else { return false };
        held.iter().any(|held| held.epoch == info.epoch && held.certified && held.transcript == info.transcript)
    }

    async fn attempt(&self, key: KeyName, (lost, helpers): (u8, &[u8]), info: &KeyInfo) -> Result<(), String> {
        let session = hex::encode(fresh_salt().map_err(|error| error.to_string())?);
        let plan =
            RepairPlan { realm: hex::encode(key.0), key_id: key.1, epoch: info.epoch, helpers: helpers.to_vec(), lost };
        let everybody = [helpers, &[lost]].concat();
        let begin = |_| Request::RepairBegin { session: session.clone(), plan: plan.clone() };
        self.ask_these(&everybody, begin).await?;
        self.ask_these(helpers, |_| Request::RepairSplit { session: session.clone() }).await?;
        self.ask_these(helpers, |_| Request::RepairSum { session: session.clone() }).await?;
        let finish = |_| Request::RepairFinish { session: session.clone(), info: info.clone() };
        self.ask_these(&[lost], finish).await.map(|_| ())
    }
}

/// Every way to choose `t` of the helpers, in order.
fn choices(helpers: &[u8], t: usize) -> Vec<Vec<u8>> {
    let sets = (0_u32..1 << helpers.len()).filter(|set| set.count_ones() as usize == t);
    sets.map(|set| {
        let chosen = helpers.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
        chosen.map(|(_, helper)| *helper).collect()
    })
    .collect()
}
