//! Suite 2: NIST P-256 with SHA-256, points in the compressed form of SEC 1, scalars big-endian.

use frost_p256::P256Sha256;
use p256::elliptic_curve::point::Double as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::elliptic_curve::{Field as _, PrimeField as _};
use p256::{FieldBytes, NistP256, ProjectivePoint, Scalar};
use rand_core::OsRng;
use sha2::Sha256;
use voprf::Group;

use super::{Curve, Encoded, Of, Point, Scalar as AnyScalar};
use crate::{Error, Suite};

/// The group.
pub(crate) struct Nist;

impl Curve for Nist {
    type Point = ProjectivePoint;
    type Scalar = Scalar;
    type Hash = Sha256;
    type Frost = P256Sha256;

    const SUITE: Suite = Suite::P256;
    const CONTEXT: &'static [u8] = b"OPRFV1-\x01-P256-SHA256";
    const MULTIPLE: i64 = 1;

    fn identity() -> ProjectivePoint {
        ProjectivePoint::IDENTITY
    }

    fn wrap_point(point: ProjectivePoint) -> Point {
        Of::P256(point)
    }

    fn wrap_scalar(scalar: Scalar) -> AnyScalar {
        Of::P256(scalar)
    }

    fn point(point: &Point) -> Result<ProjectivePoint, Error> {
        if let Of::P256(point) = point { Ok(*point) } else { Err(Error::Suite) }
    }

    fn scalar(scalar: &AnyScalar) -> Result<&Scalar, Error> {
        if let Of::P256(scalar) = scalar { Ok(scalar) } else { Err(Error::Suite) }
    }

    fn hash_to_group(x: &[u8]) -> Result<ProjectivePoint, Error> {
        let point = <NistP256 as Group>::hash_to_curve::<Sha256>(&[x], &[b"HashToGroup-", Self::CONTEXT]);
        point.map_err(|_| Error::Encoding("the input"))
    }

    fn hash_to_scalar(transcript: &[u8]) -> Result<Scalar, Error> {
        let scalar = <NistP256 as Group>::hash_to_scalar::<Sha256>(&[transcript], &[b"HashToScalar-", Self::CONTEXT]);
        scalar.map_err(|_| Error::Proof)
    }

    fn random_scalar() -> Scalar {
        Scalar::random(&mut OsRng)
    }

    fn inverse(scalar: &Scalar) -> Scalar {
        scalar.invert().unwrap_or(Scalar::ZERO)
    }

    fn part(scalar: &Scalar) -> Scalar {
        *scalar
    }

    fn base_times(scalar: &Scalar) -> ProjectivePoint {
        ProjectivePoint::GENERATOR * scalar
    }

    fn double(point: ProjectivePoint) -> ProjectivePoint {
        point.double()
    }

    /// Straus: one run of doublings for all products, four bits at a time.
    fn sum_public(scalars: &[Scalar], points: impl Iterator<Item = ProjectivePoint>) -> ProjectivePoint {
        let terms: Vec<(FieldBytes, [ProjectivePoint; 15])> =
            scalars.iter().map(Scalar::to_bytes).zip(points.map(multiples)).collect();
        let mut sum = ProjectivePoint::IDENTITY;
        for at in 0..64 {
            sum = sum.double().double().double().double();
            for (scalar, multiples) in &terms {
                let digit = usize::from(scalar[at / 2] >> (4 * (1 - at % 2)) & 15);
                if digit > 0 {
                    sum += multiples[digit - 1];
                }
            }
        }
        sum
    }

    fn double_base_public(c: &Scalar, point: &ProjectivePoint, s: &Scalar) -> ProjectivePoint {
        Self::sum_public(&[*c, *s], [*point, ProjectivePoint::GENERATOR].into_iter())
    }

    /// The identity, which only answers of liars sum to, becomes zeros, which are no point's encoding.
    fn encode(point: &ProjectivePoint) -> Encoded {
        let mut bytes = [0; 33];
        let encoded = point.to_encoded_point(true);
        bytes[..encoded.len()].copy_from_slice(encoded.as_bytes());
        Encoded(Of::P256(bytes))
    }

    fn encode_multiples(points: &[ProjectivePoint]) -> Vec<Encoded> {
        points.iter().map(Self::encode).collect()
    }

    fn decode(bytes: &[u8]) -> Option<ProjectivePoint> {
        // SEC 1 has other forms of points, and some of them have this length too.
        let compressed = bytes.len() == 33 && matches!(bytes.first(), Some(2 | 3));
        if compressed { <NistP256 as Group>::deserialize_elem(bytes).ok() } else { None }
    }

    fn encode_scalar(scalar: &Scalar) -> [u8; 32] {
        scalar.to_bytes().into()
    }

    fn decode_scalar(bytes: &[u8; 32]) -> Option<Scalar> {
        Scalar::from_repr((*bytes).into()).into()
    }
}

/// Once to fifteen times a point.
fn multiples(point: ProjectivePoint) -> [ProjectivePoint; 15] {
    let mut multiples = [point; 15];
    for at in 1..15 {
        multiples[at] = multiples[at - 1] + point;
    }
    multiples
}
