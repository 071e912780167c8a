//! Coordinating a key generation, and learning a key's public shares.
//!
//! The coordinator sees public packages only. What must stay true: public shares are believed only with the signature of every
//! holder.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use volvelle_fragments::record::fresh_salt;
use volvelle_fragments::{Error, PublicShare};

use super::{KeyName, PATIENCE, Publics, Quorum, QuorumError};
use crate::daemon::check_signatures;
use crate::lock;
use crate::wire::{KeyInfo, Request, Response};

/// Keys whose public shares are remembered, at most.
const REMEMBERED: usize = 100_000;

impl Quorum {
    /// Makes the key of a realm, or finds that it is there. Every holder must be up. A generation that broke off is begun anew.
    ///
    /// # Errors
    /// [`QuorumError::KeyGeneration`] says which holder is the reason.
    pub async fn create_key(&self, realm: [u8; 16], key_id: u32) -> Result<(), QuorumError> {
        let known = self.ask_all(|_| Request::KeyInfo { realm: hex::encode(realm), key_id }).await?;
        let infos: Vec<KeyInfo> =
            known.into_values().filter_map(|r| if let Response::Key(info) = r { info } else { None }).collect();
        if let Some(active) = infos.iter().find(|info| info.active) {
            let signatures = active.signatures.clone();
            return self.activate(realm, key_id, &active.transcript, signatures).await;
        }
        let session = hex::encode(fresh_salt()?);
        let start = |_| Request::Round1 { realm: hex::encode(realm), key_id, session: session.clone() };
        let packages: BTreeMap<u8, String> = self
            .ask_all(start)
            .await?
            .into_iter()
            .filter_map(|(index, r)| if let Response::Package(p) = r { Some((index, p)) } else { None })
            .collect();
        self.ask_all(|_| Request::Round2 { session: session.clone(), packages: packages.clone() }).await?;
        let signed = self.ask_all(|_| Request::Round3 { session: session.clone() }).await?;
        let mut signatures = BTreeMap::new();
        let mut transcripts = HashSet::new();
        for (index, response) in signed {
            let Response::Signed { transcript, signature } = response else { continue };
            signatures.insert(index, signature);
            transcripts.insert(transcript);
        }
        let mut transcripts = transcripts.into_iter();
        match (transcripts.next(), transcripts.next()) {
            (Some(transcript), None) => self.activate(realm, key_id, &transcript, signatures).await,
            _ => Err(QuorumError::KeyGeneration("the holders do not agree on what was generated".into())),
        }
    }

    async fn activate(
        &self,
        realm: [u8; 16],
        key_id: u32,
        transcript: &str,
        signatures: BTreeMap<u8, String>,
    ) -> Result<(), QuorumError> {
        let request = |_| Request::Activate {
            realm: hex::encode(realm),
            key_id,
            transcript: transcript.to_owned(),
            signatures: signatures.clone(),
        };
        self.ask_all(request).await.map(|_| ())
    }

    async fn ask_all(&self, request: impl Fn(u8) -> Request) -> Result<BTreeMap<u8, Response>, QuorumError> {
        let asked = self.0.peers.iter().map(|peer| {
            let request = request(peer.index);
            async move { (peer.index, peer.link.ask(&request, PATIENCE * 5).await) }
        });
        let mut answers = BTreeMap::new();
        for (index, answer) in futures_util::future::join_all(asked).await {
            let answer = answer.map_err(|why| QuorumError::KeyGeneration(format!("holder {index}: {why}")))?;
            answers.insert(index, answer);
        }
        Ok(answers)
    }

    /// The public shares of a key, from whichever holder tells them first.
    pub(super) async fn publics(&self, (realm, key_id): KeyName) -> Result<Arc<Publics>, QuorumError> {
        if let Some(publics) = lock(&self.0.publics).get(&(realm, key_id)) {
            return Ok(Arc::clone(publics));
        }
        let request = &Request::KeyInfo { realm: hex::encode(realm), key_id };
        let mut asked: FuturesUnordered<_> = self
            .0
            .peers
            .iter()
            .map(|peer| async move { (peer.index, peer.link.ask(request, PATIENCE).await) })
            .collect();
        let mut complaints = Vec::new();
        while let Some((index, answer)) = asked.next().await {
            let why = match answer {
                Ok(Response::Key(Some(info))) => match check_signatures(&self.0.roster, &info, &info.signatures) {
                    Ok(()) => return self.remember((realm, key_id), &info),
                    Err(why) => why.to_string(),
                },
                Ok(_) => "it has no such key".to_owned(),
                Err(why) => why.to_string(),
            };
            complaints.push(format!("holder {index}: {why}"));
        }
        let needed = self.0.roster.threshold;
        Err(QuorumError::TooFewHolders { needed, reachable: 0, detail: complaints.join("; ") })
    }

    fn remember(&self, key: KeyName, info: &KeyInfo) -> Result<Arc<Publics>, QuorumError> {
        let mut publics = BTreeMap::new();
        for (index, text) in &info.publics {
            let bytes = hex::decode(text).map_err(|_| Error::Encoding("a public share"))?;
            publics.insert(*index, PublicShare::from_bytes(&bytes)?);
        }
        let publics = Arc::new(publics);
        let mut remembered = lock(&self.0.publics);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, Arc::clone(&publics));
        Ok(publics)
    }
}
