//! Coordinating a key generation. The coordinator sees public packages only.

use std::collections::{BTreeMap, HashSet};

use volvelle_fragments::Suite;
use volvelle_fragments::record::fresh_salt;

use super::{PATIENCE, Quorum, QuorumError};
use crate::wire::{KeyInfo, Request, Response};

impl Quorum {
    /// Makes the key of a realm in the suite of new accounts, as [`Self::create_key_of`].
    ///
    /// # Errors
    /// As there.
    pub async fn create_key(&self, realm: [u8; 16], key_id: u32) -> Result<(), QuorumError> {
        self.create_key_of(self.0.suite, realm, key_id).await
    }

    /// That every holder makes keys of this suite. Every holder must be up.
    ///
    /// # Errors
    /// [`QuorumError::Holders`] names one that does not, or cannot be reached.
    pub async fn require_suite(&self, suite: Suite) -> Result<(), QuorumError> {
        let everybody: Vec<u8> = self.0.peers.iter().map(|peer| peer.index).collect();
        let answers = self.ask_these(&everybody, |_| Request::Health {}).await.map_err(QuorumError::KeyGeneration)?;
        let lacks =
            |answer: &Response| !matches!(answer, Response::Health { suites, .. } if suites.contains(&suite.byte()));
        let lacking: Vec<String> =
            answers.iter().filter(|(_, answer)| lacks(answer)).map(|(index, _)| index.to_string()).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        Err(QuorumError::Holders(format!(
            "no key of suite {suite} is made by these holders: {}; upgrade them, or allow it with `suites` in their holder.toml",
            lacking.join(", ")
        )))
    }

    /// Makes the key of a realm, or finds that it is there. Every holder must be up. A generation that broke off is begun anew.
    ///
    /// # Errors
    /// [`QuorumError::KeyGeneration`] says which holder is the reason.
    pub async fn create_key_of(&self, suite: Suite, realm: [u8; 16], key_id: u32) -> Result<(), QuorumError> {
        let known = self.ask_all(|_| Request::KeyInfo { realm: hex::encode(realm), key_id }).await?;
        let infos: Vec<KeyInfo> =
            known.into_values().filter_map(|r| if let Response::Key(info) = r { info } else { None }).collect();
        if let Some(active) = infos.iter().find(|info| info.active) {
            let signatures = active.signatures.clone();
            return self.activate(realm, key_id, &active.transcript, signatures).await;
        }
        self.require_suite(suite).await?;
        let session = hex::encode(fresh_salt()?);
        let start = |_| Request::Round1 { realm: hex::encode(realm), key_id, session: session.clone(), suite };
        let (transcripts, signatures) = self.rounds(&session, start).await?;
        let mut transcripts = transcripts.into_iter();
        match (transcripts.next(), transcripts.next()) {
            (Some(transcript), None) => self.activate(realm, key_id, &transcript, signatures).await,
            _ => Err(QuorumError::KeyGeneration("the holders do not agree on what was generated".into())),
        }
    }

    /// The three rounds of a generation or a refresh: the transcripts that were signed, and the signatures.
    pub(super) async fn rounds(
        &self,
        session: &str,
        start: impl Fn(u8) -> Request,
    ) -> Result<(HashSet<String>, BTreeMap<u8, String>), QuorumError> {
        // The first holder decides between two coordinators, so it is asked before the others.
        let everybody: Vec<u8> = self.0.peers.iter().map(|peer| peer.index).collect();
        let (first, others) = everybody.split_at(1);
        let mut begun = self.ask_these(first, &start).await.map_err(QuorumError::KeyGeneration)?;
        begun.extend(self.ask_these(others, &start).await.map_err(QuorumError::KeyGeneration)?);
        let packages: BTreeMap<u8, String> = begun
            .into_iter()
            .filter_map(|(index, r)| if let Response::Package(p) = r { Some((index, p)) } else { None })
            .collect();
        self.ask_all(|_| Request::Round2 { session: session.to_owned(), packages: packages.clone() }).await?;
        Ok(signed(self.ask_all(|_| Request::Round3 { session: session.to_owned() }).await?))
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

    /// Asks every holder the same; all must answer.
    pub(super) async fn ask_all(&self, request: impl Fn(u8) -> Request) -> Result<BTreeMap<u8, Response>, QuorumError> {
        let everybody: Vec<u8> = self.0.peers.iter().map(|peer| peer.index).collect();
        self.ask_these(&everybody, request).await.map_err(QuorumError::KeyGeneration)
    }

    /// Asks some holders the same; all of them must answer. The error names the first that did not.
    pub(super) async fn ask_these(
        &self,
        indices: &[u8],
        request: impl Fn(u8) -> Request,
    ) -> Result<BTreeMap<u8, Response>, String> {
        let asked = self.0.peers.iter().filter(|peer| indices.contains(&peer.index)).map(|peer| {
            let request = request(peer.index);
            async move { (peer.index, peer.link.ask(&request, PATIENCE * 5).await) }
        });
        let mut answers = BTreeMap::new();
        for (index, answer) in futures_util::future::join_all(asked).await {
            answers.insert(index, answer.map_err(|why| format!("holder {index}: {why}"))?);
        }
        Ok(answers)
    }
}

/// What was signed, and by whom.
pub(super) fn signed(answers: BTreeMap<u8, Response>) -> (HashSet<String>, BTreeMap<u8, String>) {
    let (mut transcripts, mut signatures) = (HashSet::new(), BTreeMap::new());
    for (index, response) in answers {
        let Response::Signed { transcript, signature } = response else { continue };
        signatures.insert(index, signature);
        transcripts.insert(transcript);
    }
    (transcripts, signatures)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use volvelle_fragments::place::PROBE;
    use volvelle_fragments::{Input, Place};

    use super::*;
    use crate::daemon::{self, HolderConfig};
    use crate::eval::{EvalAnswers, EvalRequest, Operation, Proving};
    use crate::local::prepare;
    use crate::wire::Kind;

    /// The gateway itself asks no such thing, so a holder is asked past it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_evaluates_no_input_of_another_suite_than_its_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let setup = prepare(folder.path(), 2, 2).expect("prepares");
        for config in &setup.holder_configs {
            let config = HolderConfig::load(config).expect("a configuration");
            tokio::spawn(daemon::run(config, std::future::pending()));
        }
        let quorum = Quorum::new(&setup.quorum).expect("a quorum");
        let until = Instant::now() + PATIENCE * 20;
        for (key_id, suite) in [(1, Suite::Ristretto255), (2, Suite::P256)] {
            while let Err(error) = quorum.create_key_of(suite, [7; 16], key_id).await {
                assert!(Instant::now() < until, "{error}");
                tokio::time::sleep(PATIENCE / 60).await;
            }
            for asked in Suite::ALL {
                let path = String::new();
                let place = Place { realm: [7; 16], key_id, purpose: PROBE, item: [0; 16], version: 0, path };
                let x = Input { suite: asked, place, salt: [1; 32] }.encode().expect("short");
                let request = EvalRequest {
                    operation: Operation::Probe,
                    proving: Proving::Optimistic,
                    realm: [7; 16],
                    key_id,
                    epoch: 0,
                    request_id: [0; 16],
                    principal: "",
                    authorization: &[],
                    inputs: vec![&x],
                };
                let body = Arc::new(request.encode().expect("short"));
                let answer = quorum.0.peers[0].link.call(Kind::Eval, body, PATIENCE).await;
                if asked == suite {
                    let frame = answer.unwrap_or_else(|why| panic!("{why}"));
                    assert!(EvalAnswers::decode(&frame.body).is_ok());
                } else {
                    let Err(refused) = answer else { panic!("it answers an input of {asked} with a key of {suite}") };
                    assert!(refused.to_string().contains("none of the inputs belongs to this key"), "{refused}");
                }
            }
        }
    }
}
