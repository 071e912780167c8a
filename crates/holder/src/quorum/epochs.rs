//! What the gateway knows of a key: its epoch and the public shares of that epoch.
//!
//! What must stay true: public shares are believed only with the signature of every holder, and a newer epoch only if its shares
//! lie on a polynomial of the threshold's degree through the same public key.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::ensure;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use volvelle_fragments::{PublicShare, Suite, publics};

use super::{PATIENCE, Publics, Quorum, QuorumError};
use crate::daemon::certificate;
use crate::lock;
use crate::state::KeyName;
use crate::wire::{KeyInfo, KeyRef, Request, Response, Stale};

/// Keys whose public shares are remembered, at most.
const REMEMBERED: usize = 100_000;
/// Answers in which a holder may list its keys, at most.
const PAGES: usize = 2_000;

/// A key in the epoch it is used in.
pub(super) struct View {
    pub(super) epoch: u32,
    pub(super) publics: Publics,
    /// Holders needed for an answer.
    pub(super) threshold: u8,
    group: PublicShare,
}

impl View {
    /// The suite of the key, which no epoch changes.
    pub(super) const fn suite(&self) -> Suite {
        self.group.suite()
    }
}

impl Quorum {
    /// The key as it is known, or as whichever holder tells it first.
    pub(super) async fn view(&self, key: KeyName) -> Result<Arc<View>, QuorumError> {
        if let Some(view) = lock(&self.0.views).get(&key) {
            return Ok(Arc::clone(view));
        }
        let request = &Request::KeyInfo { realm: hex::encode(key.0), key_id: key.1 };
        let mut asked: FuturesUnordered<_> = self
            .0
            .peers
            .iter()
            .map(|peer| async move { (peer.index, peer.link.ask(request, PATIENCE).await) })
            .collect();
        let mut complaints = Vec::new();
        while let Some((index, answer)) = asked.next().await {
            let why = match answer {
                Ok(Response::Key(Some(info))) => match self.check(&key, &info) {
                    Ok(view) => return Ok(self.advance(key, view)),
                    Err(why) => format!("{why:#}"),
                },
                Ok(_) => "it has no such key".to_owned(),
                Err(why) => why.to_string(),
            };
            complaints.push(format!("holder {index}: {why}"));
        }
        let needed = self.0.roster.threshold;
        Err(QuorumError::TooFewHolders { needed, reachable: 0, detail: complaints.join("; ") })
    }

    /// A key as a holder tells it, if every holder signed it.
    fn check(&self, key: &KeyName, info: &KeyInfo) -> anyhow::Result<View> {
        certificate(&self.0.roster, key, info, &info.signatures)?;
        let threshold = info.threshold()?;
        ensure!(
            self.0.roster.knows_threshold(threshold),
            "the roster allows no key of which {threshold} holders are needed"
        );
        let group = publics::group(&info.shares()?, threshold)?;
        Ok(View { epoch: info.epoch, publics: info.shares_for(&self.0.roster)?, threshold, group })
    }

    /// The key as a holder's refusal shows it to be by now; `None` if that is nothing newer, or not believed.
    pub(super) fn newer(&self, key: KeyName, than: &View, refusal: &[u8]) -> Option<Arc<View>> {
        let stale: Stale = serde_json::from_slice(refusal).ok()?;
        let info = stale.newest.filter(|info| info.epoch > than.epoch)?;
        let view = self.check(&key, &info).ok().filter(|view| view.group == than.group)?;
        Some(self.advance(key, view))
    }

    /// Remembers the newest of what is known and what was learned.
    fn advance(&self, key: KeyName, view: View) -> Arc<View> {
        let mut views = lock(&self.0.views);
        if let Some(known) = views.get(&key).filter(|known| known.epoch >= view.epoch) {
            return Arc::clone(known);
        }
        if views.len() >= REMEMBERED {
            views.clear();
        }
        let view = Arc::new(view);
        views.insert(key, Arc::clone(&view));
        view
    }

    /// Every key that any of these holders has.
    pub(super) async fn keys_of(&self, indices: &[u8]) -> Result<BTreeSet<KeyName>, QuorumError> {
        let mut keys = BTreeSet::new();
        for peer in self.0.peers.iter().filter(|peer| indices.contains(&peer.index)) {
            let mut after: Option<KeyRef> = None;
            for _ in 0..PAGES {
                let request = Request::Keys { after: after.take() };
                let answer = peer.link.ask(&request, PATIENCE).await;
                let answer = answer.map_err(|why| QuorumError::Holders(format!("holder {}: {why}", peer.index)))?;
                let Response::Keys(page) = answer else { break };
                keys.extend(page.iter().filter_map(named));
                match page.into_iter().next_back() {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        Ok(keys)
    }

    /// Any key at all, from whichever holder answers.
    pub(super) async fn first_key(&self) -> Option<KeyName> {
        let ask = |peer: &Arc<super::Peer>| {
            let peer = Arc::clone(peer);
            async move { peer.link.ask(&Request::Keys { after: None }, PATIENCE).await }
        };
        let answers = futures_util::future::join_all(self.0.peers.iter().map(ask)).await;
        answers.into_iter().flatten().find_map(|answer| match answer {
            Response::Keys(page) => page.first().and_then(named),
            _ => None,
        })
    }
}

fn named(key: &KeyRef) -> Option<KeyName> {
    Some((hex::decode(&key.realm).ok()?.try_into().ok()?, key.key_id))
}
