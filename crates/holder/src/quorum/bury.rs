//! Telling every holder which versions were deleted, so that none evaluates them again.
//!
//! What must stay true: only what its owner has deleted for good is told, since no gateway can take it back; derived keys of it are
//! forgotten at once.

use futures_util::future::join_all;
use volvelle_fragments::Input;

use super::{PATIENCE, Peer, Quorum};
use crate::wire::{Request, Response};

/// Most versions of one message.
pub const LARGEST_BURIAL: usize = 64;

/// A version to be buried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grave {
    /// The input of its record.
    pub x: Vec<u8>,
    /// Indices of the holders that have buried it, as bits.
    pub holders: u16,
}

impl Grave {
    /// Whether a holder has buried it.
    #[must_use]
    pub const fn is_at(&self, index: u8) -> bool {
        self.holders & bit(index) != 0
    }
}

/// The bit of a holder.
const fn bit(index: u8) -> u16 {
    1 << (index & 15)
}

impl Quorum {
    /// The indices of all holders, as bits.
    #[must_use]
    pub fn all_holders(&self) -> u16 {
        self.0.peers.iter().fold(0, |all, peer| all | bit(peer.index))
    }

    /// Forgets derived keys of a version that was deleted. Whoever held its value has it; nobody gets it anew.
    pub fn forget_version(&self, x: &[u8]) {
        for flags in 0..=1 {
            self.0.cache.forget(&[x, &[flags]].concat());
        }
    }

    /// Has every holder of `asked` (as bits) that has not done so yet bury these versions, all of one realm and at most
    /// [`LARGEST_BURIAL`], and notes who did. Gives what each of the others said, by index.
    pub async fn bury(&self, graves: &mut [Grave], asked: u16) -> Vec<(u8, String)> {
        for grave in &*graves {
            self.forget_version(&grave.x);
        }
        let peers: Vec<_> = self.0.peers.iter().filter(|peer| asked & bit(peer.index) != 0).collect();
        let outcomes = join_all(peers.iter().map(|peer| bury_at(peer, graves))).await;
        let mut complaints = Vec::new();
        for (peer, outcome) in peers.into_iter().zip(outcomes) {
            match outcome {
                Ok(buried) => {
                    let wanting = graves.iter_mut().filter(|grave| !grave.is_at(peer.index));
                    let mut refused = None;
                    for (grave, status) in wanting.zip(buried) {
                        match status.as_str() {
                            "buried" => grave.holders |= bit(peer.index),
                            "denied" => refused = Some("its policy forbids it"),
                            "rate" => refused = Some("its budget for deletions is used up for today"),
                            _ => refused = Some("it does not accept the input"),
                        }
                    }
                    complaints.extend(refused.map(|why| (peer.index, why.to_owned())));
                }
                Err(why) => complaints.push((peer.index, why)),
            }
        }
        complaints
    }
}

/// What a holder did with each version that it has not buried yet.
async fn bury_at(peer: &Peer, graves: &[Grave]) -> Result<Vec<String>, String> {
    let wanting: Vec<&Grave> = graves.iter().filter(|grave| !grave.is_at(peer.index)).collect();
    let Some(first) = wanting.first() else { return Ok(Vec::new()) };
    let realm = Input::parse(&first.x).map_err(|error| error.to_string())?.place.realm;
    let request = Request::Bury {
        realm: hex::encode(realm),
        inputs: wanting.iter().map(|grave| hex::encode(&grave.x)).collect(),
    };
    match peer.link.ask(&request, PATIENCE).await {
        Ok(Response::Buried(statuses)) if statuses.len() == wanting.len() => Ok(statuses),
        Ok(_) => Err("an answer to another question".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}
