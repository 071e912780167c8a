//! Another key for a realm: which id it gets, wrapping records under it, and the end of the old one.
//!
//! What must stay true: a record is wrapped under a key that t holders proved, and its payload is not touched; both keys stay
//! readable until the holders destroy the old one, which they do by their own clock and only if nobody uses it.

use std::collections::{BTreeMap, BTreeSet};

use volvelle_fragments::{Input, Place, Record, Suite};

use super::{BATCH, KeyName, PATIENCE, Quorum, QuorumError};
use crate::eval::Operation;
use crate::wire::{Request, Response};

/// What has become of a key at a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It answers with it.
    InUse,
    /// It is to be destroyed at this moment, in seconds since 1970, unless somebody uses it.
    Ends(u64),
    /// There is none, or no more.
    Gone,
    /// The holder does not say.
    Unknown,
}

/// A record on its way from one key to another.
struct Moving {
    at: usize,
    record: Record,
    from: Input,
    to: Place,
}

impl Quorum {
    /// An id that no key of this realm has or ever had. Every holder must be up.
    ///
    /// # Errors
    /// A holder cannot be reached.
    pub async fn fresh_key_id(&self, realm: [u8; 16], above: u32) -> Result<u32, QuorumError> {
        let answers = self.ask_all(|_| Request::Highest { realm: hex::encode(realm) }).await?;
        let known = answers.into_values().map(|answer| if let Response::Highest(id) = answer { id } else { 0 });
        let highest = known.fold(above, u32::max);
        highest.checked_add(1).ok_or_else(|| QuorumError::KeyGeneration("there are no more key ids".to_owned()))
    }

    /// Every key, without those that are retired or destroyed everywhere.
    ///
    /// # Errors
    /// A holder cannot be reached.
    pub async fn keys(&self) -> Result<BTreeSet<KeyName>, QuorumError> {
        let everybody: Vec<u8> = self.0.peers.iter().map(|peer| peer.index).collect();
        self.keys_of(&everybody).await
    }

    /// Holders needed for an answer with this key.
    ///
    /// # Errors
    /// No holder knows it.
    pub async fn threshold_of(&self, key: KeyName) -> Result<u8, QuorumError> {
        Ok(self.view(key).await?.threshold)
    }

    /// The cryptographic suite of this key.
    ///
    /// # Errors
    /// No holder knows it.
    pub async fn suite_of(&self, key: KeyName) -> Result<Suite, QuorumError> {
        Ok(self.view(key).await?.suite())
    }

    /// The same values under another key of their realm, in few messages; places name the new key, and payloads are not touched.
    /// Each has its own outcome, in the order given. For at most a few hundred records at once.
    pub async fn rekey_many(&self, records: &[(Place, Vec<u8>)]) -> Vec<Result<Vec<u8>, QuorumError>> {
        let mut outcomes: Vec<Option<Result<Vec<u8>, QuorumError>>> = Vec::with_capacity(records.len());
        let mut moving: BTreeMap<(KeyName, u32, Suite), Vec<Moving>> = BTreeMap::new();
        for (at, (place, bytes)) in records.iter().enumerate() {
            let parsed = Record::parse(bytes).and_then(|record| Ok((record.input(place)?, record)));
            outcomes.push(match parsed {
                Err(error) => Some(Err(error.into())),
                // Nobody is asked about what cannot be wrapped here.
                Ok((_, record)) if record.with_customer() && self.has_any_leg().is_err() => {
                    self.has_any_leg().err().map(Err)
                }
                Ok((from, record)) => {
                    // Apart by suite too: one record that claims another one spoils no message but its own.
                    let keys = ((place.realm, place.key_id), record.key_id(), record.suite());
                    moving.entry(keys).or_default().push(Moving { at, record, from, to: place.clone() });
                    None
                }
            });
        }
        for ((new, old, _), moving) in &moving {
            for chunk in moving.chunks(BATCH) {
                let done = self.rekey_chunk((new.0, *old), *new, chunk).await;
                for (moved, outcome) in chunk.iter().zip(done) {
                    outcomes[moved.at] = Some(outcome);
                }
            }
        }
        let lost = || Err(volvelle_fragments::Error::Library.into());
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }

    async fn rekey_chunk(&self, old: KeyName, new: KeyName, chunk: &[Moving]) -> Vec<Result<Vec<u8>, QuorumError>> {
        let all_fail = |error: &QuorumError| chunk.iter().map(|_| Err(error.repeat())).collect();
        let suite = match self.suite_of(new).await {
            Ok(suite) => suite,
            Err(error) => return all_fail(&error),
        };
        let (mut inputs, mut targets) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        for moving in chunk {
            let target = Input { suite, place: moving.to.clone(), salt: moving.from.salt };
            match (moving.from.encode(), target.encode()) {
                (Ok(from), Ok(to)) => {
                    inputs.push((from, to));
                    targets.push(target);
                }
                (Err(error), _) | (_, Err(error)) => return all_fail(&error.into()),
            }
        }
        let from: Vec<&[u8]> = inputs.iter().map(|(from, _)| from.as_slice()).collect();
        let to: Vec<&[u8]> = inputs.iter().map(|(_, to)| to.as_slice()).collect();
        let old = self.derive_proved(Operation::Rewrap, old, &from).await;
        let keks = match old {
            Ok(old) => self.derive_proved(Operation::Rewrap, new, &to).await.map(|new| (old, new)),
            Err(error) => Err(error),
        };
        match keks {
            Err(error) => all_fail(&error),
            Ok((old, new)) => {
                let mut done = Vec::with_capacity(chunk.len());
                for ((moving, target), (old, new)) in chunk.iter().zip(&targets).zip(old.iter().zip(&new)) {
                    done.push(self.rewrap_by(&moving.record, (&moving.from, old), (target, new)).await);
                }
                done
            }
        }
    }

    /// Tells every holder that a newer key took the place of this one: it seals nothing from now on, and is destroyed after the
    /// holder's grace unless something is opened with it.
    ///
    /// # Errors
    /// A holder cannot be reached, or has no newer key of the realm. Those before it know already; it may be repeated.
    pub async fn retire_key(&self, key: KeyName) -> Result<(), QuorumError> {
        let request = |_| Request::Retire { realm: hex::encode(key.0), key_id: key.1 };
        self.tell_all(request).await
    }

    /// Tells every holder that this key is needed after all.
    ///
    /// # Errors
    /// A holder cannot be reached, or has destroyed it.
    pub async fn keep_key(&self, key: KeyName) -> Result<(), QuorumError> {
        let request = |_| Request::Keep { realm: hex::encode(key.0), key_id: key.1 };
        self.tell_all(request).await
    }

    async fn tell_all(&self, request: impl Fn(u8) -> Request) -> Result<(), QuorumError> {
        let everybody: Vec<u8> = self.0.peers.iter().map(|peer| peer.index).collect();
        self.ask_these(&everybody, request).await.map(|_| ()).map_err(QuorumError::Holders)
    }

    /// What has become of a key at each holder, by index.
    pub async fn fates(&self, key: KeyName) -> BTreeMap<u8, Fate> {
        let asked = self.0.peers.iter().map(|peer| async move {
            let request = Request::Epochs { realm: hex::encode(key.0), key_id: key.1 };
            let fate = match peer.link.ask(&request, PATIENCE).await {
                Ok(Response::Epochs { held, .. }) if held.is_empty() => Fate::Gone,
                Ok(Response::Epochs { ends: Some(at), .. }) => Fate::Ends(at),
                Ok(Response::Epochs { .. }) => Fate::InUse,
                _ => Fate::Unknown,
            };
            (peer.index, fate)
        });
        futures_util::future::join_all(asked).await.into_iter().collect()
    }
}
