//! Making a group key that nobody ever has: FROST's distributed key generation (Komlo and Goldberg, SAC 2020) over
//! the group of a suite, wrapped so that its outcome can only be used as a [`PrfShare`].
//!
//! Each holder runs the three rounds itself. Round-2 packages are secret: they go from holder to holder directly. What the parts
//! agreed on is summed up in [`Outcome::transcript`]; the key is usable only after every holder confirmed the same one.

use std::collections::BTreeMap;

use frost_core::keys::PublicKeyPackage;
use frost_core::keys::dkg::{self, round1, round2};
use frost_core::{Ciphersuite, Identifier};
use rand_core::OsRng;
use sha2::{Digest as _, Sha256};

use crate::curve::{Curve, Nist, Of, Ristretto};
use crate::{Error, MOST_HOLDERS, PrfShare, PublicShare, Suite};

type FrostOf<C> = <C as Curve>::Frost;
/// A holder's secret after a first round, of either suite.
pub(crate) type FirstSecret = Of<round1::SecretPackage<FrostOf<Ristretto>>, round1::SecretPackage<FrostOf<Nist>>>;
/// A holder's secret after a second round, of either suite.
pub(crate) type SecondSecret = Of<round2::SecretPackage<FrostOf<Ristretto>>, round2::SecretPackage<FrostOf<Nist>>>;
/// Encoded packages by index: of a sender, or for a receiver.
pub(crate) type Packages = BTreeMap<u8, Vec<u8>>;

/// A holder's secret after round 1. It cannot be cloned or written anywhere; a crash starts the generation anew.
pub struct AfterRound1 {
    secret: FirstSecret,
    own: Vec<u8>,
}

/// A holder's secret after round 2.
pub struct AfterRound2 {
    secret: SecondSecret,
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

/// The library's name for an index.
pub(crate) fn identifier<F: Ciphersuite>(index: u8) -> Result<Identifier<F>, Error> {
    Identifier::try_from(u16::from(index)).map_err(|_| Error::KeyGeneration(Some(index)))
}

/// Round 1: returns the package to send to everybody.
///
/// # Errors
/// Indices or threshold out of range: 2 ≤ t ≤ n ≤ 9, 1 ≤ index ≤ n.
pub fn round1(suite: Suite, index: u8, n: u8, t: u8) -> Result<(AfterRound1, Vec<u8>), Error> {
    if !(2..=n).contains(&t) || n > MOST_HOLDERS || !(1..=n).contains(&index) {
        return Err(Error::Quorum);
    }
    match suite {
        Suite::Ristretto255 => first((index, n, t), Of::Ristretto255),
        Suite::P256 => first((index, n, t), Of::P256),
    }
}

fn first<F: Ciphersuite>(
    (index, n, t): (u8, u8, u8),
    wrap: impl FnOnce(round1::SecretPackage<F>) -> FirstSecret,
) -> Result<(AfterRound1, Vec<u8>), Error> {
    let (secret, package) =
        dkg::part1(identifier(index)?, u16::from(n), u16::from(t), OsRng).map_err(|_| Error::KeyGeneration(None))?;
    let own = package.serialize().map_err(|_| Error::KeyGeneration(None))?;
    Ok((AfterRound1 { secret: wrap(secret), own: own.clone() }, own))
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
    let (secret, outgoing) = match state.secret {
        Of::Ristretto255(secret) => second(secret, others, Of::Ristretto255)?,
        Of::P256(secret) => second(secret, others, Of::P256)?,
    };
    let mut first = others.clone();
    first.insert(index, state.own);
    Ok((AfterRound2 { secret, first }, outgoing))
}

fn second<F: Ciphersuite>(
    secret: round1::SecretPackage<F>,
    others: &BTreeMap<u8, Vec<u8>>,
    wrap: impl FnOnce(round2::SecretPackage<F>) -> SecondSecret,
) -> Result<(SecondSecret, Packages), Error> {
    let (secret, packages) = dkg::part2(secret, &first_packages(others)?).map_err(|_| Error::KeyGeneration(None))?;
    Ok((wrap(secret), outgoing(others, &packages)?))
}

/// The encoded package for each of the others.
pub(crate) fn outgoing<F: Ciphersuite>(
    others: &BTreeMap<u8, Vec<u8>>,
    packages: &BTreeMap<Identifier<F>, round2::Package<F>>,
) -> Result<Packages, Error> {
    let encoded = |to: &u8| {
        let package = packages.get(&identifier(*to)?).ok_or(Error::KeyGeneration(Some(*to)))?;
        Ok((*to, package.serialize().map_err(|_| Error::KeyGeneration(None))?))
    };
    others.keys().map(encoded).collect()
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
    match &state.secret {
        Of::Ristretto255(secret) => third::<Ristretto>((secret, index), &state.first, received, context),
        Of::P256(secret) => third::<Nist>((secret, index), &state.first, received, context),
    }
}

fn third<C: Curve>(
    (secret, index): (&round2::SecretPackage<C::Frost>, u8),
    first: &BTreeMap<u8, Vec<u8>>,
    received: &BTreeMap<u8, Vec<u8>>,
    context: &[u8],
) -> Result<Outcome, Error> {
    let mut second = BTreeMap::new();
    for (from, bytes) in received {
        let package = round2::Package::deserialize(bytes).map_err(|_| Error::KeyGeneration(Some(*from)))?;
        second.insert(identifier(*from)?, package);
    }
    let (key, publics) = dkg::part3(secret, &first_packages(&without(first, index))?, &second)
        .map_err(|error| Error::KeyGeneration(culprit(&error)))?;
    let share = PrfShare::from_bytes(C::SUITE, &key.signing_share().serialize())?;
    let group = PublicShare::from_bytes(&publics.verifying_key().serialize().map_err(|_| Error::KeyGeneration(None))?)?;
    let by_index = public_shares(&publics, first.keys())?;
    if by_index.get(&index) != Some(&share.public()) {
        return Err(Error::KeyGeneration(Some(index)));
    }
    let transcript = transcript((b"FDK-dkg-v1", context), first, &group, &by_index);
    Ok(Outcome { share, group, publics: by_index, transcript })
}

/// The packages of everybody but this one.
pub(crate) fn without(packages: &BTreeMap<u8, Vec<u8>>, index: u8) -> BTreeMap<u8, Vec<u8>> {
    packages.iter().filter(|(i, _)| **i != index).map(|(i, package)| (*i, package.clone())).collect()
}

pub(crate) fn culprit<F: Ciphersuite>(error: &frost_core::Error<F>) -> Option<u8> {
    let culprits = error.culprits();
    let named = culprits.first()?;
    (1..=MOST_HOLDERS).find(|index| identifier(*index).is_ok_and(|known: Identifier<F>| known == *named))
}

pub(crate) fn first_packages<F: Ciphersuite>(
    packages: &BTreeMap<u8, Vec<u8>>,
) -> Result<BTreeMap<Identifier<F>, round1::Package<F>>, Error> {
    packages
        .iter()
        .map(|(index, bytes)| {
            let package = round1::Package::deserialize(bytes).map_err(|_| Error::KeyGeneration(Some(*index)))?;
            Ok((identifier(*index)?, package))
        })
        .collect()
}

/// The public shares of these holders.
pub(crate) fn public_shares<'a, F: Ciphersuite>(
    package: &PublicKeyPackage<F>,
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
