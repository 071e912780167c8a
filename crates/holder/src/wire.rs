//! Frames between parties, and the messages that are seldom: key generation and health, in JSON inside a frame.
//!
//! ```text
//! length u32 | version u8 = 1 | kind u8 | call u32 | body          (length counts what follows it; big-endian)
//! ```
//! Several calls may be under way on a connection; an answer has its call's number, and answers come in any order. Every length
//! is bounded before anything is allocated for it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use volvelle_fragments::{PublicShare, Suite, publics};
use zeroize::Zeroizing;

use crate::roster::Roster;

/// The version of everything here.
const VERSION: u8 = 1;
/// Longest frame in bytes: 256 inputs of 1 KiB fit, with room for the authorization.
const LONGEST: usize = 320 * 1024;
/// Bytes of a frame before its body, after its length.
const HEAD: usize = 1 + 1 + 4;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A [`Request`] in JSON.
    Request = 1,
    /// A [`Response`] in JSON.
    Response = 2,
    /// An evaluation, see [`crate::eval`].
    Eval = 3,
    /// The answer to an evaluation.
    Answers = 4,
    /// Why not, as text.
    Refused = 5,
    /// A [`Stale`] in JSON: the evaluation was asked for in an epoch that is not held.
    Stale = 6,
    /// Why no client is believed to be behind an evaluation, as text.
    Unauthorized = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Request, Self::Response, Self::Eval, Self::Answers, Self::Refused, Self::Stale, Self::Unauthorized]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// One message. Its body is wiped: it may be a fragment on its way from dealer to holder, or a part of a record's key.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) call: u32,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Appends a frame.
pub(crate) fn append(out: &mut Vec<u8>, kind: Kind, call: u32, body: &[u8]) -> Result<()> {
    ensure!(body.len() + HEAD <= LONGEST, "a message of {} bytes is too long", body.len());
    out.extend_from_slice(&u32::try_from(body.len() + HEAD)?.to_be_bytes());
    out.extend_from_slice(&[VERSION, kind as u8]);
    out.extend_from_slice(&call.to_be_bytes());
    out.extend_from_slice(body);
    Ok(())
}

/// The first whole frame of `bytes` and its length there; `None` if more bytes are needed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length))?;
    ensure!((HEAD..=LONGEST).contains(&length), "a frame of {length} bytes is not allowed");
    let Some((frame, _)) = rest.split_at_checked(length) else { return Ok(None) };
    let (head, body) = frame.split_first_chunk::<HEAD>().context("a frame has a head")?;
    let [version, kind, a, b, c, d] = *head;
    if version != VERSION {
        bail!("the peer speaks version {version} of the protocol and this is version {VERSION}: upgrade the older one");
    }
    let kind = Kind::of(kind).context("a frame of an unknown kind")?;
    let frame = Frame { kind, call: u32::from_be_bytes([a, b, c, d]), body: Zeroizing::new(body.to_vec()) };
    Ok(Some((frame, 4 + length)))
}

/// What is asked of a holder besides evaluations.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Request {
    /// Who is there (gateways only).
    Health {},
    /// What is known of a key (gateways only).
    KeyInfo { realm: String, key_id: u32 },
    /// Begin a generation; answers this holder's public package (gateways only, as coordinators). Suite 1 is not said, so that
    /// holders from before there were two understand it.
    Round1 {
        realm: String,
        key_id: u32,
        session: String,
        #[serde(default = "first", skip_serializing_if = "is_first")]
        suite: Suite,
    },
    /// Begin a refresh from `base`; answers this holder's public package.
    Refresh1 { realm: String, key_id: u32, session: String, base: u32, epoch: u32 },
    /// Everybody's public packages; sends the secret packages to the other holders.
    Round2 { session: String, packages: BTreeMap<u8, String> },
    /// A secret package from another holder (holders only).
    Share { session: String, package: String },
    /// Compute and store the fragment; answers a signature of the transcript.
    Round3 { session: String },
    /// All signatures: from now on the key is used.
    Activate { realm: String, key_id: u32, transcript: String, signatures: BTreeMap<u8, String> },
    /// Never evaluate these inputs again: their versions were deleted.
    Bury { realm: String, inputs: Vec<String> },
    /// The tombstones in order after this one (holders only).
    Tombstones { after: Option<String> },
    /// The keys that are held, in order, after this one.
    Keys { after: Option<KeyRef> },
    /// The epochs of a key that are held.
    Epochs { realm: String, key_id: u32 },
    /// Sign once more what was stored as this epoch.
    Confirm { realm: String, key_id: u32, epoch: u32 },
    /// All signatures of an epoch: older ones may be erased.
    Certify { realm: String, key_id: u32, epoch: u32, signatures: BTreeMap<u8, String> },
    /// Begin a repair, at the helpers and at the holder in need.
    RepairBegin { session: String, plan: RepairPlan },
    /// At each helper: send each helper its part.
    RepairSplit { session: String },
    /// At each helper: send the sum of the parts to the holder in need.
    RepairSum { session: String },
    /// At the holder in need: restore and store the fragment, which must fit this.
    RepairFinish { session: String, info: KeyInfo },
    /// The highest id that a key of this realm has or ever had here.
    Highest { realm: String },
    /// A newer key took its place: destroy it after the grace, if nobody asks for it.
    Retire { realm: String, key_id: u32 },
    /// It is needed after all.
    Keep { realm: String, key_id: u32 },
}

/// The suite of a message that says none.
const fn first() -> Suite {
    Suite::Ristretto255
}

fn is_first(suite: &Suite) -> bool {
    *suite == first()
}

/// A key's name in a message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRef {
    pub(crate) realm: String,
    pub(crate) key_id: u32,
}

/// Who repairs what for whom.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepairPlan {
    pub(crate) realm: String,
    pub(crate) key_id: u32,
    pub(crate) epoch: u32,
    pub(crate) helpers: Vec<u8>,
    pub(crate) lost: u8,
}

/// What a holder answers.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Response {
    Health {
        index: u8,
        software: String,
        suites: Vec<u8>,
        #[serde(default)]
        clock: u64,
        /// When its administrator last made a backup, as far as it knows.
        #[serde(default)]
        backup: Option<u64>,
        #[serde(default)]
        tombstones: u64,
    },
    Key(Option<KeyInfo>),
    Package(String),
    Signed {
        transcript: String,
        signature: String,
    },
    Done,
    Highest(u32),
    /// For each input of a burial: `buried`, `denied`, `rate` or `bad`.
    Buried(Vec<String>),
    /// Some tombstones, how many there are, and all of them combined.
    Tombstones {
        marks: Vec<String>,
        count: u64,
        digest: String,
    },
    Keys(Vec<KeyRef>),
    Epochs {
        held: Vec<HeldEpoch>,
        /// When the newest certificate was stored, in seconds since 1970.
        since: u64,
        /// When the key is to be destroyed, in seconds since 1970, if it is retired.
        #[serde(default)]
        ends: Option<u64>,
    },
}

/// An epoch that a holder has stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldEpoch {
    pub(crate) epoch: u32,
    pub(crate) transcript: String,
    pub(crate) certified: bool,
}

/// Why an evaluation was not done: the epoch is not held, but these are; and the newest certificate.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Stale {
    pub(crate) held: Vec<u32>,
    pub(crate) newest: Option<KeyInfo>,
}

/// A key in one epoch, as every holder tells it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyInfo {
    /// Whether all signatures are there.
    pub(crate) active: bool,
    #[serde(default)]
    pub(crate) epoch: u32,
    pub(crate) transcript: String,
    pub(crate) publics: BTreeMap<u8, String>,
    pub(crate) signatures: BTreeMap<u8, String>,
}

impl KeyInfo {
    /// The bytes each holder signs: whose key it is, which epoch, what it came of, and the public shares that came of it.
    pub(crate) fn signed_bytes(&self, (realm, key_id): &([u8; 16], u32)) -> Vec<u8> {
        let publics = serde_json::to_vec(&self.publics).unwrap_or_default();
        let (key_id, epoch) = (key_id.to_be_bytes(), self.epoch.to_be_bytes());
        let parts: [&[u8]; 6] =
            [b"FDK-ack-v2", realm.as_slice(), &key_id, &epoch, self.transcript.as_bytes(), publics.as_slice()];
        parts.concat()
    }

    /// What was signed before there were epochs.
    pub(crate) fn first_signed_bytes(&self) -> Vec<u8> {
        let publics = serde_json::to_vec(&self.publics).unwrap_or_default();
        [b"FDK-ack-v1", self.transcript.as_bytes(), publics.as_slice()].concat()
    }

    /// The transcript's bytes.
    pub(crate) fn transcript(&self) -> Result<[u8; 32]> {
        hex::decode(&self.transcript).ok().and_then(|bytes| bytes.try_into().ok()).context("a transcript is 32 bytes")
    }

    /// The suite of this key, which the length of its public shares tells.
    pub(crate) fn suite(&self) -> Result<Suite> {
        Ok(publics::suite(&self.shares()?)?)
    }

    /// Holders needed for an answer with this key.
    pub(crate) fn threshold(&self) -> Result<u8> {
        Ok(publics::threshold(&self.shares()?)?)
    }

    /// The public shares of the holders of a roster. What the key says of a holder that came since follows from the others; one
    /// that was dropped is left out.
    pub(crate) fn shares_for(&self, roster: &Roster) -> Result<BTreeMap<u8, PublicShare>> {
        let (shares, threshold) = (self.shares()?, self.threshold()?);
        let share = |index: u8| match shares.get(&index) {
            Some(share) => Ok((index, *share)),
            None => Ok((index, publics::at(&shares, threshold, index)?)),
        };
        roster.holders.iter().map(|holder| share(holder.index)).collect()
    }

    /// The public shares, as they were signed.
    pub(crate) fn shares(&self) -> Result<BTreeMap<u8, PublicShare>> {
        self.publics.iter().map(|(index, text)| Ok((*index, PublicShare::from_bytes(&hex::decode(text)?)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_back_whole_and_only_whole(call: u32, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Vec::new();
            append(&mut bytes, Kind::Eval, call, &body).expect("short");
            append(&mut bytes, Kind::Refused, 7, b"next").expect("short");
            let (frame, length) = parse(&bytes).expect("sound").expect("whole");
            prop_assert_eq!((frame.kind, frame.call, &*frame.body), (Kind::Eval, call, &body));
            prop_assert!(parse(&bytes[..length - 1]).expect("sound").is_none());
            let (next, _) = parse(&bytes[length..]).expect("sound").expect("whole");
            prop_assert_eq!(next.kind, Kind::Refused);
        }

        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((frame, length))) = parse(&bytes) {
                let mut again = Vec::new();
                append(&mut again, frame.kind, frame.call, &frame.body).expect("short");
                prop_assert_eq!(&again, &bytes[..length]);
            }
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_there() {
        let mut bytes = u32::MAX.to_be_bytes().to_vec();
        assert!(parse(&bytes).is_err());
        bytes[..4].copy_from_slice(&2_u32.to_be_bytes());
        assert!(parse(&bytes).is_err());
        assert!(append(&mut Vec::new(), Kind::Eval, 1, &vec![0; LONGEST]).is_err());
    }
}
