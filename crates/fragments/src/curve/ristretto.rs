//! Suite 1: ristretto255 with SHA-512.

use std::sync::LazyLock;

use curve25519_dalek::constants::RISTRETTO_BASEPOINT_TABLE;
use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity as _, IsIdentity as _, VartimeMultiscalarMul as _};
use frost_ristretto255::Ristretto255Sha512;
use rand_core::OsRng;
use sha2::Sha512;
use voprf::{Group as _, Ristretto255};

use super::{Curve, Encoded, Of, Point, Scalar as AnyScalar};
use crate::{Error, Suite};

/// The group.
pub(crate) struct Ristretto;

impl Curve for Ristretto {
    type Point = RistrettoPoint;
    type Scalar = Scalar;
    type Hash = Sha512;
    type Frost = Ristretto255Sha512;

    const SUITE: Suite = Suite::Ristretto255;
    const CONTEXT: &'static [u8] = b"OPRFV1-\x01-ristretto255-SHA512";
    /// Points are encoded together without an inversion each if they may be doubled.
    const MULTIPLE: i64 = 2;

    fn identity() -> RistrettoPoint {
        RistrettoPoint::identity()
    }

    fn wrap_point(point: RistrettoPoint) -> Point {
        Of::Ristretto255(point)
    }

    fn wrap_scalar(scalar: Scalar) -> AnyScalar {
        Of::Ristretto255(scalar)
    }

    fn point(point: &Point) -> Result<RistrettoPoint, Error> {
        if let Of::Ristretto255(point) = point { Ok(*point) } else { Err(Error::Suite) }
    }

    fn scalar(scalar: &AnyScalar) -> Result<&Scalar, Error> {
        if let Of::Ristretto255(scalar) = scalar { Ok(scalar) } else { Err(Error::Suite) }
    }

    fn hash_to_group(x: &[u8]) -> Result<RistrettoPoint, Error> {
        let point = Ristretto255::hash_to_curve::<Sha512>(&[x], &[b"HashToGroup-", Self::CONTEXT]);
        point.map_err(|_| Error::Encoding("the input"))
    }

    fn hash_to_scalar(transcript: &[u8]) -> Result<Scalar, Error> {
        let scalar = Ristretto255::hash_to_scalar::<Sha512>(&[transcript], &[b"HashToScalar-", Self::CONTEXT]);
        scalar.map_err(|_| Error::Proof)
    }

    fn random_scalar() -> Scalar {
        Scalar::random(&mut OsRng)
    }

    fn inverse(scalar: &Scalar) -> Scalar {
        scalar.invert()
    }

    fn part(scalar: &Scalar) -> Scalar {
        static HALF: LazyLock<Scalar> = LazyLock::new(|| Scalar::from(2_u8).invert());
        scalar * *HALF
    }

    fn base_times(scalar: &Scalar) -> RistrettoPoint {
        scalar * RISTRETTO_BASEPOINT_TABLE
    }

    fn double(point: RistrettoPoint) -> RistrettoPoint {
        point + point
    }

    fn sum_public(scalars: &[Scalar], points: impl Iterator<Item = RistrettoPoint>) -> RistrettoPoint {
        RistrettoPoint::vartime_multiscalar_mul(scalars, points)
    }

    fn double_base_public(c: &Scalar, point: &RistrettoPoint, s: &Scalar) -> RistrettoPoint {
        RistrettoPoint::vartime_double_scalar_mul_basepoint(c, point, s)
    }

    fn encode(point: &RistrettoPoint) -> Encoded {
        Encoded(Of::Ristretto255(point.compress().to_bytes()))
    }

    fn encode_multiples(points: &[RistrettoPoint]) -> Vec<Encoded> {
        let encoded = RistrettoPoint::double_and_compress_batch(points);
        encoded.iter().map(|point| Encoded(Of::Ristretto255(point.to_bytes()))).collect()
    }

    fn decode(bytes: &[u8]) -> Option<RistrettoPoint> {
        let point = CompressedRistretto::from_slice(bytes).ok()?.decompress()?;
        if point.is_identity() { None } else { Some(point) }
    }

    fn encode_scalar(scalar: &Scalar) -> [u8; 32] {
        scalar.to_bytes()
    }

    fn decode_scalar(bytes: &[u8; 32]) -> Option<Scalar> {
        Scalar::from_canonical_bytes(*bytes).into()
    }
}
