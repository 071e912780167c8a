//! Restoring a lost fragment by t others, or giving one to a new holder (Laing and Stinson, 2018).
//!
//! Each helper splits what it contributes into one part for each helper; each helper sums the parts it got; the holder in need
//! sums those sums. Nobody but that holder learns its fragment, and a helper's own is hidden by its randomness. The restored
//! fragment is believed only if it fits its public share: the library itself checks nothing.

use std::collections::BTreeMap;

use frost_core::Ciphersuite;
use frost_core::keys::repairable::{self, Delta};
use rand_core::OsRng;
use zeroize::Zeroizing;

use crate::curve::{Curve, Nist, Ristretto};
use crate::dkg::identifier;
use crate::refresh::key_package;
use crate::{Error, PrfShare, PublicShare, Suite};

/// Bytes on their way from holder to holder, secret.
pub type Part = Zeroizing<Vec<u8>>;

/// A helper's first step: what each helper gets. `helpers` are exactly t, `lost` is none of them.
///
/// # Errors
/// The helpers are no quorum, or this holder is none of them.
pub fn split(
    (share, index): (&PrfShare, u8),
    helpers: &[u8],
    lost: u8,
    group: &PublicShare,
) -> Result<BTreeMap<u8, Part>, Error> {
    if helpers.contains(&lost) || !helpers.contains(&index) {
        return Err(Error::Quorum);
    }
    let threshold = u8::try_from(helpers.len()).map_err(|_| Error::Quorum)?;
    if group.suite() != share.suite() {
        return Err(Error::Suite);
    }
    match share.suite() {
        Suite::Ristretto255 => {
            split_of::<<Ristretto as Curve>::Frost>((share, index), (helpers, threshold), lost, group)
        }
        Suite::P256 => split_of::<<Nist as Curve>::Frost>((share, index), (helpers, threshold), lost, group),
    }
}

fn split_of<F: Ciphersuite>(
    (share, index): (&PrfShare, u8),
    (helpers, threshold): (&[u8], u8),
    lost: u8,
    group: &PublicShare,
) -> Result<BTreeMap<u8, Part>, Error> {
    let identifiers = helpers.iter().map(|helper| identifier(*helper)).collect::<Result<Vec<_>, _>>()?;
    let own = key_package::<F>(share, index, threshold, group)?;
    let deltas =
        repairable::repair_share_part1(&identifiers, &own, &mut OsRng, identifier(lost)?).map_err(|_| Error::Quorum)?;
    let part = |helper: u8| -> Result<(u8, Part), Error> {
        let delta = deltas.get(&identifier(helper)?).ok_or(Error::Quorum)?;
        Ok((helper, Zeroizing::new(delta.serialize())))
    };
    helpers.iter().map(|helper| part(*helper)).collect()
}

/// A helper's second step: the sum of the parts it got, one from each helper, for the holder in need.
///
/// # Errors
/// A part is no scalar of the suite.
pub fn sum(suite: Suite, parts: &[Part]) -> Result<Part, Error> {
    match suite {
        Suite::Ristretto255 => sum_of::<<Ristretto as Curve>::Frost>(parts),
        Suite::P256 => sum_of::<<Nist as Curve>::Frost>(parts),
    }
}

fn sum_of<F: Ciphersuite>(parts: &[Part]) -> Result<Part, Error> {
    let deltas = parts.iter().map(|part| Delta::<F>::deserialize(part)).collect::<Result<Vec<_>, _>>();
    let deltas = deltas.map_err(|_| Error::Encoding("a part of a repair"))?;
    Ok(Zeroizing::new(repairable::repair_share_part2(&deltas).serialize()))
}

/// The last step, at the holder in need: its fragment, which must fit `expected`.
///
/// # Errors
/// A helper sent something wrong; nothing tells which one.
pub fn restore(sums: &[Part], expected: &PublicShare) -> Result<PrfShare, Error> {
    let share = match expected.suite() {
        Suite::Ristretto255 => total::<Ristretto>(sums)?,
        Suite::P256 => total::<Nist>(sums)?,
    };
    if share.public() == *expected { Ok(share) } else { Err(Error::Repair) }
}

fn total<C: Curve>(sums: &[Part]) -> Result<PrfShare, Error> {
    const WRONG: Error = Error::Encoding("a part of a repair");
    let mut total = Zeroizing::new(C::Scalar::from(0));
    for sum in sums {
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(sum.as_slice()).map_err(|_| WRONG)?);
        *total = *total + C::decode_scalar(&bytes).ok_or(WRONG)?;
    }
    PrfShare::from_bytes(C::SUITE, &*Zeroizing::new(C::encode_scalar(&total)))
}
