//! Coordinating a refresh: all fragments of a key are replaced, while reads go on.
//!
//! The coordinator only relays and can at worst delay: what may be erased when is decided by each holder, and what is to be done
//! next follows from what the holders tell. So any gateway may do it, several at once, and one that was interrupted begins by
//! finishing what it finds.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use volvelle_fragments::epoch::{Epochs, Held, Plan, plan};
use volvelle_fragments::record::fresh_salt;

use super::generate::signed;
use super::{Quorum, QuorumError};
use crate::state::{KeyName, now};
use crate::wire::{Request, Response};

/// Steps of one key's refresh, at most.
const STEPS: usize = 4;
/// Attempts of these: each that breaks off leaves something at holders until another one succeeds.
const ATTEMPTS: usize = 2;
/// Before what broke off is begun anew.
const PAUSE: Duration = Duration::from_millis(800);
/// Gateways begin at different times within so many seconds, so that one of them usually does it all.
const SPREAD: u64 = 6 * 3600;

/// What a refresh did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Keys whose fragments are new.
    pub keys: usize,
    /// The highest epoch there is now.
    pub epoch: u32,
    /// Keys that could not be refreshed, and why.
    pub failed: Vec<(KeyName, String)>,
}

impl Quorum {
    /// Replaces the fragments of every key. Every holder must be up.
    ///
    /// # Errors
    /// A holder cannot be reached. What fails for one key only is in the answer.
    pub async fn refresh(&self) -> Result<Refreshed, QuorumError> {
        self.refresh_older_than(0).await
    }

    /// Replaces the fragments of every key whose fragments are as old as that, in seconds.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub async fn refresh_older_than(&self, seconds: u64) -> Result<Refreshed, QuorumError> {
        let everybody: Vec<u8> = self.0.peers.iter().map(|peer| peer.index).collect();
        let mut done = Refreshed::default();
        for key in self.keys_of(&everybody).await? {
            match self.refresh_key(key, seconds).await {
                Ok(Some(epoch)) => {
                    done.keys += 1;
                    done.epoch = done.epoch.max(epoch);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(realm = hex::encode(key.0), key_id = key.1, %error, "a key is not refreshed");
                    done.failed.push((key, error.to_string()));
                }
            }
        }
        Ok(done)
    }

    /// What the background work does: refreshes what is older than configured.
    /// Whether nothing broke off, so that it may be tried again soon.
    pub(super) async fn refresh_in_time(&self) -> bool {
        if self.0.refresh_hours == 0 {
            return true;
        }
        let due = self.0.refresh_hours * 3600 + self.0.requests.0 % SPREAD;
        match self.refresh_older_than(due).await {
            Ok(done) if done == Refreshed::default() => true,
            Ok(done) => {
                tracing::info!(keys = done.keys, failed = done.failed.len(), "fragments are refreshed");
                done.failed.is_empty()
            }
            Err(error) => {
                tracing::warn!(%error, "fragments are due to be refreshed and cannot be");
                true
            }
        }
    }

    /// The new epoch; `None` if the key is younger than that, or was never used.
    async fn refresh_key(&self, key: KeyName, older_than: u64) -> Result<Option<u32>, QuorumError> {
        let (mut broken, mut attempts) = (None, 0);
        for _ in 0..STEPS {
            if attempts == ATTEMPTS {
                break;
            }
            if broken.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            let (known, since) = self.known(key).await?;
            let (epoch, (transcripts, signatures)) = match plan(&known) {
                None => return Ok(None),
                Some(Plan::Repair(lacking)) => {
                    let names: Vec<String> = lacking.iter().map(u8::to_string).collect();
                    let names = names.join(", ");
                    return Err(QuorumError::Holders(format!("repair first, for these lack the key: holder {names}")));
                }
                Some(Plan::Finish(epoch)) => {
                    let request = |_| Request::Confirm { realm: hex::encode(key.0), key_id: key.1, epoch };
                    (epoch, signed(self.ask_for_refresh(request).await?))
                }
                Some(Plan::Begin { .. }) if now().saturating_sub(since) < older_than => return Ok(None),
                Some(Plan::Begin { base, number }) => {
                    let session = hex::encode(fresh_salt()?);
                    let (realm, key_id) = (hex::encode(key.0), key.1);
                    let start = |_| Request::Refresh1 {
                        realm: realm.clone(),
                        key_id,
                        session: session.clone(),
                        base,
                        epoch: number,
                    };
                    match self.rounds(&session, start).await {
                        Ok(signed) => (number, signed),
                        // Another coordinator was first, or a holder was away for a moment: what is to be done now is asked anew.
                        Err(error) => {
                            broken = Some(as_refresh(error));
                            attempts += 1;
                            continue;
                        }
                    }
                }
            };
            self.certify(key, epoch, (&transcripts, &signatures)).await?;
            // What was finished may have been the activation of a new key only.
            if epoch > 0 {
                return Ok(Some(epoch));
            }
        }
        Err(broken.unwrap_or_else(|| QuorumError::Holders("other refreshes of this key are under way".to_owned())))
    }

    /// What every holder has of a key, and when its newest certificate came.
    async fn known(&self, key: KeyName) -> Result<(BTreeMap<u8, Epochs>, u64), QuorumError> {
        let request = |_| Request::Epochs { realm: hex::encode(key.0), key_id: key.1 };
        let (mut known, mut newest) = (BTreeMap::new(), 0);
        for (index, answer) in self.ask_for_refresh(request).await? {
            let Response::Epochs { held, since, .. } = answer else { continue };
            let mut epochs = Vec::with_capacity(held.len());
            for held in held {
                let transcript = hex::decode(&held.transcript).ok().and_then(|bytes| bytes.try_into().ok());
                let transcript =
                    transcript.ok_or_else(|| QuorumError::Holders(format!("holder {index} tells no transcript")))?;
                epochs.push((held.epoch, Held { transcript, certified: held.certified }));
            }
            known.insert(index, Epochs::of(epochs));
            newest = newest.max(since);
        }
        Ok((known, newest))
    }

    async fn certify(
        &self,
        key: KeyName,
        epoch: u32,
        (transcripts, signatures): (&HashSet<String>, &BTreeMap<u8, String>),
    ) -> Result<(), QuorumError> {
        if transcripts.len() != 1 {
            return Err(QuorumError::Holders("the holders do not agree on what was made".to_owned()));
        }
        let request =
            |_| Request::Certify { realm: hex::encode(key.0), key_id: key.1, epoch, signatures: signatures.clone() };
        self.ask_for_refresh(request).await.map(|_| ())
    }

    async fn ask_for_refresh(&self, request: impl Fn(u8) -> Request) -> Result<BTreeMap<u8, Response>, QuorumError> {
        self.ask_all(request).await.map_err(as_refresh)
    }
}

fn as_refresh(error: QuorumError) -> QuorumError {
    match error {
        QuorumError::KeyGeneration(why) => QuorumError::Holders(format!(
            "the refresh did not come to an end ({why}); nothing is lost, refresh again when every holder is up"
        )),
        other => other,
    }
}
