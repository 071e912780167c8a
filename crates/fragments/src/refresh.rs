//! New fragments of the same key: every member deals a polynomial that is zero at zero (Herzberg, Jarecki, Krawczyk and Yung,
//! CRYPTO 1995), by FROST's distributed refresh.
//!
//! The key, its public key and every sealed record stay as they are. Round-2 packages are secret, from holder to holder. What
//! comes out is checked here once more: the new public shares lie on a polynomial of degree t-1 through the same public key.

use std::collections::BTreeMap;

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use frost_ristretto255::keys::dkg::{round1, round2};
use frost_ristretto255::keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare, refresh};
use frost_ristretto255::{Identifier, VerifyingKey};
use rand_core::OsRng;

use crate::dkg::{self, Outcome, culprit, first_packages, identifier};
use crate::{Error, MOST_HOLDERS, PrfShare, PublicShare, publics};

/// A holder's secret after round 1. It cannot be cloned or written anywhere; a crash starts the refresh anew.
pub struct AfterRound1 {
    secret: round1::SecretPackage,
    own: Vec<u8>,
}

/// A holder's secret after round 2.
pub struct AfterRound2 {
    secret: round2::SecretPackage,
    first: BTreeMap<u8, Vec<u8>>,
}

/// Who takes part in a refresh: all members of a key, with what is known of them.
pub struct Members<'a> {
    /// Holders needed for an answer.
    pub threshold: u8,
    /// Everybody's public share in the epoch that is refreshed.
    pub publics: &'a BTreeMap<u8, PublicShare>,
}

/// Round 1 for holder `index` of `n`: returns the package to send to everybody.
///
/// # Errors
/// Indices or threshold out of range: 2 ≤ t ≤ n ≤ 9, 1 ≤ index ≤ 9.
pub fn round1(index: u8, n: u8, t: u8) -> Result<(AfterRound1, Vec<u8>), Error> {
    if !(2..=n).contains(&t) || n > MOST_HOLDERS || !(1..=MOST_HOLDERS).contains(&index) {
        return Err(Error::Quorum);
    }
    let (secret, package) = refresh::refresh_dkg_part1(identifier(index)?, u16::from(n), u16::from(t), OsRng)
        .map_err(|_| Error::KeyGeneration(None))?;
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
        refresh::refresh_dkg_part2(state.secret, &first_packages(others)?).map_err(|_| Error::KeyGeneration(None))?;
    let mut outgoing = BTreeMap::new();
    for to in others.keys() {
        let package = packages.get(&identifier(*to)?).ok_or(Error::KeyGeneration(Some(*to)))?;
        outgoing.insert(*to, package.serialize().map_err(|_| Error::KeyGeneration(None))?);
    }
    let mut first = others.clone();
    first.insert(index, state.own);
    Ok((AfterRound2 { secret, first }, outgoing))
}

/// Round 3: takes the secret packages the others sent to this holder, its fragment, and the context that all must agree on too.
///
/// # Errors
/// Names a holder whose package does not fit its commitment.
pub fn round3(
    (state, index): (&AfterRound2, u8),
    received: &BTreeMap<u8, Vec<u8>>,
    share: &PrfShare,
    members: &Members<'_>,
    context: &[u8],
) -> Result<Outcome, Error> {
    let others: BTreeMap<u8, Vec<u8>> =
        state.first.iter().filter(|(i, _)| **i != index).map(|(i, p)| (*i, p.clone())).collect();
    let mut second = BTreeMap::new();
    for (from, bytes) in received {
        let package = round2::Package::deserialize(bytes).map_err(|_| Error::KeyGeneration(Some(*from)))?;
        let dealt = PrfShare::from_bytes(&package.signing_share().serialize());
        let fits = match (dealt, others.get(from)) {
            (Ok(dealt), Some(first)) => fits(&dealt, first, index)?,
            _ => false,
        };
        if !fits {
            return Err(Error::KeyGeneration(Some(*from)));
        }
        second.insert(identifier(*from)?, package);
    }
    let group = publics::group(members.publics, members.threshold)?;
    let own = key_package(share, index, members.threshold, &group)?;
    let all = public_package(members, &group)?;
    let (key, all) = refresh::refresh_dkg_shares(&state.secret, &first_packages(&others)?, &second, all, own)
        .map_err(|error| Error::KeyGeneration(culprit(&error)))?;
    let share = PrfShare::from_bytes(&key.signing_share().serialize())?;
    let by_index = dkg::public_shares(&all, state.first.keys())?;
    let fits = by_index.len() == members.publics.len()
        && by_index.get(&index) == Some(&share.public())
        && publics::group(&by_index, members.threshold)? == group;
    if !fits {
        return Err(Error::KeyGeneration(None));
    }
    let transcript = dkg::transcript((b"FDK-refresh-v1", context), &state.first, &group, &by_index);
    Ok(Outcome { share, group, publics: by_index, transcript })
}

/// Whether what a dealer sent lies on the polynomial it committed itself to (Feldman). The library checks it too, but does not say
/// whose package is wrong.
fn fits(dealt: &PrfShare, first: &[u8], index: u8) -> Result<bool, Error> {
    let package = round1::Package::deserialize(first).map_err(|_| Error::KeyGeneration(None))?;
    let commitment = package.commitment().serialize().map_err(|_| Error::KeyGeneration(None))?;
    let mut expected = RistrettoPoint::identity();
    for coefficient in commitment.iter().rev() {
        expected = (expected + PublicShare::from_bytes(coefficient)?.0) * Scalar::from(index);
    }
    Ok(dealt.public().0 == expected)
}

/// A fragment as the frost crate wants it.
pub(crate) fn key_package(
    share: &PrfShare,
    index: u8,
    threshold: u8,
    group: &PublicShare,
) -> Result<KeyPackage, Error> {
    const WRONG: Error = Error::KeyGeneration(None);
    let signing = SigningShare::deserialize(&*share.expose_bytes()).map_err(|_| WRONG)?;
    let verifying = VerifyingShare::deserialize(&share.public().to_bytes()).map_err(|_| WRONG)?;
    let key = VerifyingKey::deserialize(&group.to_bytes()).map_err(|_| WRONG)?;
    Ok(KeyPackage::new(identifier(index)?, signing, verifying, key, u16::from(threshold)))
}

fn public_package(members: &Members<'_>, group: &PublicShare) -> Result<PublicKeyPackage, Error> {
    const WRONG: Error = Error::KeyGeneration(None);
    let mut shares: BTreeMap<Identifier, VerifyingShare> = BTreeMap::new();
    for (index, public) in members.publics {
        let share = VerifyingShare::deserialize(&public.to_bytes()).map_err(|_| WRONG)?;
        shares.insert(identifier(*index)?, share);
    }
    let key = VerifyingKey::deserialize(&group.to_bytes()).map_err(|_| WRONG)?;
    Ok(PublicKeyPackage::new(shares, key, Some(u16::from(members.threshold))))
}
