//! Proof that answers were computed with the fragment behind a public share: RFC 9497, section 2.2, batched.

use curve25519_dalek::constants::RISTRETTO_BASEPOINT_TABLE;
use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::VartimeMultiscalarMul as _;
use rand_core::OsRng;
use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;
use voprf::{Group as _, Ristretto255};
use zeroize::Zeroize as _;

use crate::share::{CONTEXT, hash};
use crate::{Error, Partial, PrfShare, PublicShare};

/// Challenge and response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    c: Scalar,
    s: Scalar,
}

impl Proof {
    /// Reads two canonical scalars.
    ///
    /// # Errors
    /// The bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        const WRONG: Error = Error::Encoding("the proof");
        let scalar = |part: &[u8]| {
            let array = <[u8; 32]>::try_from(part).map_err(|_| WRONG)?;
            Option::<Scalar>::from(Scalar::from_canonical_bytes(array)).ok_or(WRONG)
        };
        let (c, s) = bytes.split_at_checked(32).ok_or(WRONG)?;
        Ok(Self { c: scalar(c)?, s: scalar(s)? })
    }

    /// Sixty-four bytes for the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(self.c.as_bytes());
        bytes[32..].copy_from_slice(self.s.as_bytes());
        bytes
    }
}

/// Proves that `answers` are the evaluations of `inputs` under `share`.
///
/// # Errors
/// No input, or more answers than inputs.
pub fn prove(share: &PrfShare, inputs: &[&[u8]], answers: &[Partial]) -> Result<Proof, Error> {
    let mut r = Scalar::random(&mut OsRng);
    let proof = prove_with(share, &points(inputs)?, answers, &r);
    r.zeroize();
    proof
}

/// Evaluates many inputs and proves all of it at once: the encoded answers and their proof.
///
/// # Errors
/// No input, or one that cannot be hashed.
pub fn answer(share: &PrfShare, inputs: &[&[u8]]) -> Result<(Vec<[u8; 32]>, Proof), Error> {
    let points = points(inputs)?;
    let answers: Vec<Partial> = points.iter().map(|point| Partial(point * share.scalar())).collect();
    let mut r = Scalar::random(&mut OsRng);
    let proof = prove_with(share, &points, &answers, &r);
    r.zeroize();
    Ok((answers.iter().map(Partial::to_bytes).collect(), proof?))
}

/// Checks a proof.
///
/// # Errors
/// [`Error::Proof`] if it does not hold.
pub fn verify(public: &PublicShare, inputs: &[&[u8]], answers: &[Partial], proof: &Proof) -> Result<(), Error> {
    verify_points(public, &points(inputs)?, answers, proof)
}

fn points(inputs: &[&[u8]]) -> Result<Vec<RistrettoPoint>, Error> {
    inputs.iter().map(|x| hash(x)).collect()
}

pub(crate) fn prove_with(
    share: &PrfShare,
    inputs: &[RistrettoPoint],
    answers: &[Partial],
    r: &Scalar,
) -> Result<Proof, Error> {
    let public = share.public();
    let m = weighted(&weights(&public, inputs, answers)?, inputs.iter().copied());
    let z = m * share.scalar();
    let c = challenge(&public, &m, &z, &(r * RISTRETTO_BASEPOINT_TABLE), &(m * r))?;
    Ok(Proof { c, s: r - c * share.scalar() })
}

pub(crate) fn verify_points(
    public: &PublicShare,
    inputs: &[RistrettoPoint],
    answers: &[Partial],
    proof: &Proof,
) -> Result<(), Error> {
    let weights = weights(public, inputs, answers)?;
    let (m, z) = (weighted(&weights, inputs.iter().copied()), weighted(&weights, answers.iter().map(|a| a.0)));
    let t2 = RistrettoPoint::vartime_double_scalar_mul_basepoint(&proof.c, &public.0, &proof.s);
    let t3 = RistrettoPoint::vartime_multiscalar_mul([proof.s, proof.c], [m, z]);
    let expected = challenge(public, &m, &z, &t2, &t3)?;
    if bool::from(expected.as_bytes().ct_eq(proof.c.as_bytes())) { Ok(()) } else { Err(Error::Proof) }
}

/// The weight of each input and its answer.
fn weights(public: &PublicShare, inputs: &[RistrettoPoint], answers: &[Partial]) -> Result<Vec<Scalar>, Error> {
    if inputs.is_empty() || inputs.len() != answers.len() || inputs.len() > usize::from(u16::MAX) {
        return Err(Error::Proof);
    }
    let mut seed = Sha512::new();
    prefixed(&mut seed, &public.to_bytes());
    prefixed(&mut seed, &[b"Seed-", CONTEXT].concat());
    let seed = seed.finalize();
    let mut weights = Vec::with_capacity(inputs.len());
    for (i, (input, answer)) in (0_u16..).zip(inputs.iter().zip(answers)) {
        let mut transcript = Vec::with_capacity(160);
        append(&mut transcript, &seed);
        transcript.extend_from_slice(&i.to_be_bytes());
        append(&mut transcript, input.compress().as_bytes());
        append(&mut transcript, &answer.to_bytes());
        transcript.extend_from_slice(b"Composite");
        weights.push(to_scalar(&transcript)?);
    }
    Ok(weights)
}

fn weighted(weights: &[Scalar], points: impl Iterator<Item = RistrettoPoint>) -> RistrettoPoint {
    RistrettoPoint::vartime_multiscalar_mul(weights, points)
}

fn challenge(
    public: &PublicShare,
    m: &RistrettoPoint,
    z: &RistrettoPoint,
    t2: &RistrettoPoint,
    t3: &RistrettoPoint,
) -> Result<Scalar, Error> {
    let mut transcript = Vec::with_capacity(180);
    append(&mut transcript, &public.to_bytes());
    for point in [m, z, t2, t3] {
        append(&mut transcript, point.compress().as_bytes());
    }
    transcript.extend_from_slice(b"Challenge");
    to_scalar(&transcript)
}

fn to_scalar(transcript: &[u8]) -> Result<Scalar, Error> {
    Ristretto255::hash_to_scalar::<Sha512>(&[transcript], &[b"HashToScalar-", CONTEXT]).map_err(|_| Error::Proof)
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

fn append(transcript: &mut Vec<u8>, bytes: &[u8]) {
    transcript.extend_from_slice(&length(bytes));
    transcript.extend_from_slice(bytes);
}

fn prefixed(hasher: &mut Sha512, bytes: &[u8]) {
    hasher.update(length(bytes));
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Scalar {
        let bytes: [u8; 32] = hex::decode(text).expect("hex").try_into().expect("32 bytes");
        Option::from(Scalar::from_canonical_bytes(bytes)).expect("canonical")
    }

    /// RFC 9497, appendix A.1.2 (ristretto255-SHA512, VOPRF mode), first vector.
    #[test]
    fn the_published_vector_is_met() {
        let share = PrfShare::from_bytes(
            &hex::decode("e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909").expect("hex"),
        )
        .expect("a scalar");
        assert_eq!(
            hex::encode(share.public().to_bytes()),
            "c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e"
        );
        let blind = scalar("64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706");
        let blinded = hash(&[0]).expect("hashes") * blind;
        assert_eq!(
            hex::encode(blinded.compress().as_bytes()),
            "863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945"
        );
        let answer = Partial(blinded * share.scalar());
        assert_eq!(hex::encode(answer.to_bytes()), "aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e");
        let r = scalar("222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e");
        let proof = prove_with(&share, &[blinded], &[answer], &r).expect("proves");
        assert_eq!(
            hex::encode(proof.to_bytes()),
            "ddef93772692e535d1a53903db24367355cc2cc78de93b3be5a8ffcc6985dd066d4346421d17bf5117a2a1ff0fcb2a759f58a539dfbe857a40bce4cf49ec600d"
        );
        verify_points(&share.public(), &[blinded], &[answer], &proof).expect("holds");
    }
}
