//! Restoring a lost fragment by t others, or giving one to a new holder (Laing and Stinson, 2018).
//!
//! Each helper splits what it contributes into one part for each helper; each helper sums the parts it got; the holder in need
//! sums those sums. Nobody but that holder learns its fragment, and a helper's own is hidden by its randomness. The restored
//! fragment is believed only if it fits its public share: the library itself checks nothing.

use frost_ristretto255::Ristretto255Sha512;
use frost_ristretto255::keys::repairable::{self, Delta};
use rand_core::OsRng;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

use curve25519_dalek::scalar::Scalar;

use crate::dkg::identifier;
use crate::refresh::key_package;
use crate::{Error, PrfShare, PublicShare};

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
    let identifiers = helpers.iter().map(|helper| identifier(*helper)).collect::<Result<Vec<_>, _>>()?;
    let own = key_package(share, index, threshold, group)?;
    let deltas =
        repairable::repair_share_part1::<Ristretto255Sha512, _>(&identifiers, &own, &mut OsRng, identifier(lost)?)
            .map_err(|_| Error::Quorum)?;
    let part = |helper: u8| -> Result<(u8, Part), Error> {
        let delta = deltas.get(&identifier(helper)?).ok_or(Error::Quorum)?;
        Ok((helper, Zeroizing::new(delta.serialize())))
    };
    helpers.iter().map(|helper| part(*helper)).collect()
}

/// A helper's second step: the sum of the parts it got, one from each helper, for the holder in need.
///
/// # Errors
/// A part is no scalar.
pub fn sum(parts: &[Part]) -> Result<Part, Error> {
    let deltas = parts.iter().map(|part| Delta::deserialize(part)).collect::<Result<Vec<_>, _>>();
    let deltas = deltas.map_err(|_| Error::Encoding("a part of a repair"))?;
    Ok(Zeroizing::new(repairable::repair_share_part2(&deltas).serialize()))
}

/// The last step, at the holder in need: its fragment, which must fit `expected`.
///
/// # Errors
/// A helper sent something wrong; nothing tells which one.
pub fn restore(sums: &[Part], expected: &PublicShare) -> Result<PrfShare, Error> {
    const WRONG: Error = Error::Encoding("a part of a repair");
    let mut total = Scalar::ZERO;
    for sum in sums {
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(sum.as_slice()).map_err(|_| WRONG)?);
        total += Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes)).ok_or(WRONG)?;
    }
    let share = PrfShare::from_bytes(&*Zeroizing::new(total.to_bytes()))?;
    if share.public() == *expected { Ok(share) } else { Err(Error::Repair) }
}
