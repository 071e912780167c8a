//! New fragments of the same key: every member deals a polynomial that is zero at zero (Herzberg, Jarecki, Krawczyk and Yung,
//! CRYPTO 1995), by FROST's distributed refresh.
//!
//! The key, its public key and every sealed record stay as they are. Round-2 packages are secret, from holder to holder. What
//! comes out is checked here once more: the new public shares lie on a polynomial of degree t-1 through the same public key.

use std::collections::BTreeMap;

use frost_core::keys::dkg::{round1, round2};
use frost_core::keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare, refresh};
use frost_core::{Ciphersuite, Identifier, VerifyingKey};
use rand_core::OsRng;

use crate::curve::{Curve, Nist, Of, Ristretto};
use crate::dkg::{
    self, FirstSecret, Outcome, Packages, SecondSecret, culprit, first_packages, identifier, outgoing, without,
};
use crate::{Error, MOST_HOLDERS, PrfShare, PublicShare, Suite, publics};

/// A holder's secret after round 1. It cannot be cloned or written anywhere; a crash starts the refresh anew.
pub struct AfterRound1 {
    secret: FirstSecret,
    own: Vec<u8>,
}

/// A holder's secret after round 2.
pub struct AfterRound2 {
    secret: SecondSecret,
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
pub fn round1(suite: Suite, index: u8, n: u8, t: u8) -> Result<(AfterRound1, Vec<u8>), Error> {
    if !(2..=n).contains(&t) || n > MOST_HOLDERS || !(1..=MOST_HOLDERS).contains(&index) {
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
    let (secret, package) = refresh::refresh_dkg_part1(identifier(index)?, u16::from(n), u16::from(t), OsRng)
        .map_err(|_| Error::KeyGeneration(None))?;
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
    let (secret, packages) =
        refresh::refresh_dkg_part2(secret, &first_packages(others)?).map_err(|_| Error::KeyGeneration(None))?;
    Ok((wrap(secret), outgoing(others, &packages)?))
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
    match &state.secret {
        Of::Ristretto255(secret) => {
            third::<Ristretto>((secret, index), (&state.first, received), share, members, context)
        }
        Of::P256(secret) => third::<Nist>((secret, index), (&state.first, received), share, members, context),
    }
}

fn third<C: Curve>(
    (secret, index): (&round2::SecretPackage<C::Frost>, u8),
    (first, received): (&Packages, &Packages),
    share: &PrfShare,
    members: &Members<'_>,
    context: &[u8],
) -> Result<Outcome, Error> {
    C::scalar(&share.0)?;
    let others = without(first, index);
    let mut second = BTreeMap::new();
    for (from, bytes) in received {
        let package = round2::Package::deserialize(bytes).map_err(|_| Error::KeyGeneration(Some(*from)))?;
        let dealt = PrfShare::from_bytes(C::SUITE, &package.signing_share().serialize());
        let fits = match (dealt, others.get(from)) {
            (Ok(dealt), Some(first)) => fits::<C>(&dealt, first, index)?,
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
    let (key, all) = refresh::refresh_dkg_shares(secret, &first_packages(&others)?, &second, all, own)
        .map_err(|error| Error::KeyGeneration(culprit(&error)))?;
    let share = PrfShare::from_bytes(C::SUITE, &key.signing_share().serialize())?;
    let by_index = dkg::public_shares(&all, first.keys())?;
    let fits = by_index.len() == members.publics.len()
        && by_index.get(&index) == Some(&share.public())
        && publics::group(&by_index, members.threshold)? == group;
    if !fits {
        return Err(Error::KeyGeneration(None));
    }
    let transcript = dkg::transcript((b"FDK-refresh-v1", context), first, &group, &by_index);
    Ok(Outcome { share, group, publics: by_index, transcript })
}

/// Whether what a dealer sent lies on the polynomial it committed itself to (Feldman). The library checks it too, but does not say
/// whose package is wrong.
fn fits<C: Curve>(dealt: &PrfShare, first: &[u8], index: u8) -> Result<bool, Error> {
    let package = round1::Package::<C::Frost>::deserialize(first).map_err(|_| Error::KeyGeneration(None))?;
    let commitment = package.commitment().serialize().map_err(|_| Error::KeyGeneration(None))?;
    let (mut expected, index) = (C::identity(), C::Scalar::from(u64::from(index)));
    for coefficient in commitment.iter().rev() {
        expected = (expected + C::point(&PublicShare::from_bytes(coefficient)?.0)?) * &index;
    }
    Ok(C::base_times(C::scalar(&dealt.0)?) == expected)
}

/// A fragment as the frost crate wants it.
pub(crate) fn key_package<F: Ciphersuite>(
    share: &PrfShare,
    index: u8,
    threshold: u8,
    group: &PublicShare,
) -> Result<KeyPackage<F>, Error> {
    const WRONG: Error = Error::KeyGeneration(None);
    let signing = SigningShare::deserialize(&*share.expose_bytes()).map_err(|_| WRONG)?;
    let verifying = VerifyingShare::deserialize(&share.public().to_bytes()).map_err(|_| WRONG)?;
    let key = VerifyingKey::deserialize(&group.to_bytes()).map_err(|_| WRONG)?;
    Ok(KeyPackage::new(identifier(index)?, signing, verifying, key, u16::from(threshold)))
}

fn public_package<F: Ciphersuite>(members: &Members<'_>, group: &PublicShare) -> Result<PublicKeyPackage<F>, Error> {
    const WRONG: Error = Error::KeyGeneration(None);
    let mut shares: BTreeMap<Identifier<F>, VerifyingShare<F>> = BTreeMap::new();
    for (index, public) in members.publics {
        let share = VerifyingShare::deserialize(&public.to_bytes()).map_err(|_| WRONG)?;
        shares.insert(identifier(*index)?, share);
    }
    let key = VerifyingKey::deserialize(&group.to_bytes()).map_err(|_| WRONG)?;
    Ok(PublicKeyPackage::new(shares, key, Some(u16::from(members.threshold))))
}
