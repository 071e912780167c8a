//! Making a group key that nobody ever has: FROST's distributed key generation (Komlo and Goldberg, SAC 2020) over
//! ristretto255, wrapped so that its outcome can only be used as a [`PrfShare`].
//!
//! Each holder runs the three rounds itself. Round-2 packages are secret: they go from holder to holder directly. What the parts
//! agreed on is summed up in [`Outcome::transcript`]; the key is usable only after every holder confirmed the same one.

use std::collections::BTreeMap;

use frost_ristretto255::Identifier;
use frost_ristretto255::keys::PublicKeyPackage;
use frost_ristretto255::keys::dkg::{self, round1, round2};
use rand_core::OsRng;
use sha2::{Digest as _, Sha256};

use crate::{Error, MOST_HOLDERS, PrfShare, PublicShare};

/// A holder's secret after round 1. It cannot be cloned or written anywhere; a crash starts the generation anew.
pub struct AfterRound1 {
    secret: round1::SecretPackage,
    own: Vec<u8>,
}

/// A holder's secret after round 2.
pub struct AfterRound2 {
    secret: round2::SecretPackage,
    first: BTreeMap<u8, Vec<u8>>,
}

/// What a holder has at the end.
pub struct Outcome {
    /// Its own fragment.
    pub share: PrfShare,
    /// `k·G`.
    pub group: PublicShare,
    /// Every holder's public share, by index.
    pub publics: BTreeMap<u8, PublicShare>,
    /// SHA-256 of everything that must be the same for all.
    pub transcript: [u8; 32],
}

pub(crate) fn identifier(index: u8) -> Result<Identifier, Error> {
    Identifier::try_from(u16::from(index)).map_err(|_| Error::KeyGeneration(Some(index)))
}

/// Round 1: returns the package to send to everybody.
///
/// # Errors
/// Indices or threshold out of range: 2 ≤ t ≤ n ≤ 9, 1 ≤ index ≤ n.
pub fn round1(index: u8, n: u8, t: u8) -> Result<(AfterRound1, Vec<u8>), Error> {
    if !(2..=n).contains(&t) || n > MOST_HOLDERS || !(1..=n).contains(&index) {
        return Err(Error::Quorum);
    }
    let (secret, package) =
        dkg::part1(identifier(index)?, u16::from(n), u16::from(t), OsRng).map_err(|_| Error::KeyGeneration(None))?;
    let own = package.serialize().map_err(|_| Error::KeyGeneration(None))?;
    Ok((AfterRound1 { secret, own: own.clone() }, own))
}

/// Round 2: takes the others' packages and returns the secret package for each of them.
///
/// # Errors
/// Names a holder whose package is wrong.
pub fn round2(
    state: AfterRound1,
    index: u8,
    others: &BTreeMap<u8, Vec<u8>>,
) -> Result<(AfterRound2, BTreeMap<u8, Vec<u8>>), Error> {
    let (secret, packages) =
        dkg::part2(state.secret, &first_packages(others)?).map_err(|_| Error::KeyGeneration(None))?;
    let mut outgoing = BTreeMap::new();
    for to in others.keys() {
        let package = packages.get(&identifier(*to)?).ok_or(Error::KeyGeneration(Some(*to)))?;
        outgoing.insert(*to, package.serialize().map_err(|_| Error::KeyGeneration(None))?);
    }
    let mut first = others.clone();
    first.insert(index, state.own);
    Ok((AfterRound2 { secret, first }, outgoing))
}

/// Round 3: takes the secret packages the others sent to this holder, and the context (realm, key, roster, t and n) that all
/// must agree on too.
///
/// # Errors
/// Names a holder whose package does not fit its commitment.
pub fn round3(
    state: &AfterRound2,
    index: u8,
    received: &BTreeMap<u8, Vec<u8>>,
    context: &[u8],
) -> Result<Outcome, Error> {
    let others: BTreeMap<u8, Vec<u8>> =
        state.first.iter().filter(|(i, _)| **i != index).map(|(i, p)| (*i, p.clone())).collect();
    let mut second = BTreeMap::new();
    for (from, bytes) in received {
        let package = round2::Package::deserialize(bytes).map_err(|_| Error::KeyGeneration(Some(*from)))?;
        second.insert(identifier(*from)?, package);
    }
    let (key, publics) = dkg::part3(&state.secret, &first_packages(&others)?, &second)
        .map_err(|error| Error::KeyGeneration(culprit(&error)))?;
    let share = PrfShare::from_bytes(&key.signing_share().serialize())?;
    let group = PublicShare::from_bytes(&publics.verifying_key().serialize().map_err(|_| Error::KeyGeneration(None))?)?;
    let by_index = public_shares(&publics, state.first.keys())?;
    if by_index.get(&index) != Some(&share.public()) {
        return Err(Error::KeyGeneration(Some(index)));
    }
    let transcript = transcript((b"FDK-dkg-v1", context), &state.first, &group, &by_index);
    Ok(Outcome { share, group, publics: by_index, transcript })
}

pub(crate) fn culprit(error: &frost_ristretto255::Error) -> Option<u8> {
    let bytes = error.culprits().first()?.serialize();
    bytes.first().copied().filter(|index| (1..=MOST_HOLDERS).contains(index))
}

pub(crate) fn first_packages(packages: &BTreeMap<u8, Vec<u8>>) -> Result<BTreeMap<Identifier, round1::Package>, Error> {
    packages
        .iter()
        .map(|(index, bytes)| {
            let package = round1::Package::deserialize(bytes).map_err(|_| Error::KeyGeneration(Some(*index)))?;
            Ok((identifier(*index)?, package))
        })
        .collect()
}

/// The public shares of these holders.
pub(crate) fn public_shares<'a>(
    package: &PublicKeyPackage,
    indices: impl Iterator<Item = &'a u8>,
) -> Result<BTreeMap<u8, PublicShare>, Error> {
    indices
        .map(|i| {
            let public = package.verifying_shares().get(&identifier(*i)?).ok_or(Error::KeyGeneration(Some(*i)))?;
            let bytes = public.serialize().map_err(|_| Error::KeyGeneration(Some(*i)))?;
            Ok((*i, PublicShare::from_bytes(&bytes)?))
        })
        .collect()
}

/// SHA-256 of what all must agree on, for one kind of agreement.
pub(crate) fn transcript(
    (kind, context): (&[u8], &[u8]),
    first: &BTreeMap<u8, Vec<u8>>,
    group: &PublicShare,
    publics: &BTreeMap<u8, PublicShare>,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(kind);
    hash.update(u64::try_from(context.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(context);
    for (index, package) in first {
        hash.update([*index]);
        hash.update(u64::try_from(package.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(package);
    }
    hash.update(group.to_bytes());
    for (index, public) in publics {
        hash.update([*index]);
        hash.update(public.to_bytes());
    }
    hash.finalize().into()
}
