//! Proof that answers were computed with the fragment behind a public share: RFC 9497, section 2.2, batched.

use sha2::Digest;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::curve::{self, Curve, Encoded, Nist, Of, Ristretto, Scalar};
use crate::{Error, Partial, PrfShare, PublicShare, Suite};

/// Challenge and response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    c: Scalar,
    s: Scalar,
}

impl Proof {
    /// Reads two canonical scalars of a suite.
    ///
    /// # Errors
    /// The bytes are anything else.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        const WRONG: Error = Error::Encoding("the proof");
        let scalar = |part: &[u8]| {
            let array = <[u8; 32]>::try_from(part).map_err(|_| WRONG)?;
            curve::decode_scalar(suite, &array).ok_or(WRONG)
        };
        let (c, s) = bytes.split_at_checked(32).ok_or(WRONG)?;
        Ok(Self { c: scalar(c)?, s: scalar(s)? })
    }

    /// Sixty-four bytes for the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&curve::encode_scalar(&self.c));
        bytes[32..].copy_from_slice(&curve::encode_scalar(&self.s));
        bytes
    }
}

/// Proves that `answers` are the evaluations of `inputs` under `share`.
///
/// # Errors
/// No input, more answers than inputs, or answers of another suite.
pub fn prove(share: &PrfShare, inputs: &[&[u8]], answers: &[Partial]) -> Result<Proof, Error> {
    match &share.0 {
        Of::Ristretto255(scalar) => {
            prove_fresh::<Ristretto>(scalar, &points::<Ristretto>(inputs)?, &of::<Ristretto>(answers)?)
        }
        Of::P256(scalar) => prove_fresh::<Nist>(scalar, &points::<Nist>(inputs)?, &of::<Nist>(answers)?),
    }
}

/// Evaluates many inputs and proves all of it at once: the encoded answers and their proof.
///
/// # Errors
/// No input, or one that cannot be hashed.
pub fn answer(share: &PrfShare, inputs: &[&[u8]]) -> Result<(Vec<Encoded>, Proof), Error> {
    match &share.0 {
        Of::Ristretto255(scalar) => answer_with::<Ristretto>(scalar, inputs),
        Of::P256(scalar) => answer_with::<Nist>(scalar, inputs),
    }
}

/// Checks a proof.
///
/// # Errors
/// [`Error::Proof`] if it does not hold; [`Error::Suite`] if not all is of the public share's suite.
pub fn verify(public: &PublicShare, inputs: &[&[u8]], answers: &[Partial], proof: &Proof) -> Result<(), Error> {
    match &public.0 {
        Of::Ristretto255(public) => {
            verify_points::<Ristretto>(public, &points::<Ristretto>(inputs)?, &of::<Ristretto>(answers)?, proof)
        }
        Of::P256(public) => verify_points::<Nist>(public, &points::<Nist>(inputs)?, &of::<Nist>(answers)?, proof),
    }
}

fn points<C: Curve>(inputs: &[&[u8]]) -> Result<Vec<C::Point>, Error> {
    inputs.iter().map(|x| C::hash_to_group(x)).collect()
}

fn of<C: Curve>(answers: &[Partial]) -> Result<Vec<C::Point>, Error> {
    answers.iter().map(|answer| C::point(&answer.0)).collect()
}

fn answer_with<C: Curve>(share: &C::Scalar, inputs: &[&[u8]]) -> Result<(Vec<Encoded>, Proof), Error> {
    let points = points::<C>(inputs)?;
    let answers: Vec<C::Point> = points.iter().map(|point| *point * share).collect();
    let proof = prove_fresh::<C>(share, &points, &answers)?;
    Ok((answers.iter().map(C::encode).collect(), proof))
}

fn prove_fresh<C: Curve>(share: &C::Scalar, inputs: &[C::Point], answers: &[C::Point]) -> Result<Proof, Error> {
    prove_with::<C>(share, inputs, answers, &Zeroizing::new(C::random_scalar()))
}

fn prove_with<C: Curve>(
    share: &C::Scalar,
    inputs: &[C::Point],
    answers: &[C::Point],
    r: &C::Scalar,
) -> Result<Proof, Error> {
    let public = C::base_times(share);
    let m = C::sum_public(&weights::<C>(&public, inputs, answers)?, inputs.iter().copied());
    let z = m * share;
    let c = challenge::<C>(&public, [&m, &z, &C::base_times(r), &(m * r)])?;
    Ok(Proof { c: C::wrap_scalar(c), s: C::wrap_scalar(*r - c * *share) })
}

fn verify_points<C: Curve>(
    public: &C::Point,
    inputs: &[C::Point],
    answers: &[C::Point],
    proof: &Proof,
) -> Result<(), Error> {
    let (c, s) = (C::scalar(&proof.c)?, C::scalar(&proof.s)?);
    let weights = weights::<C>(public, inputs, answers)?;
    let m = C::sum_public(&weights, inputs.iter().copied());
    let z = C::sum_public(&weights, answers.iter().copied());
    let t2 = C::double_base_public(c, public, s);
    let t3 = C::sum_public(&[*s, *c], [m, z].into_iter());
    let expected = challenge::<C>(public, [&m, &z, &t2, &t3])?;
    if bool::from(expected.ct_eq(c)) { Ok(()) } else { Err(Error::Proof) }
}

/// The weight of each input and its answer.
fn weights<C: Curve>(public: &C::Point, inputs: &[C::Point], answers: &[C::Point]) -> Result<Vec<C::Scalar>, Error> {
    if inputs.is_empty() || inputs.len() != answers.len() || inputs.len() > usize::from(u16::MAX) {
        return Err(Error::Proof);
    }
    let mut seed = C::Hash::new();
    prefixed(&mut seed, &C::encode(public));
    prefixed(&mut seed, &[b"Seed-", C::CONTEXT].concat());
    let seed = seed.finalize();
    let mut weights = Vec::with_capacity(inputs.len());
    for (i, (input, answer)) in (0_u16..).zip(inputs.iter().zip(answers)) {
        let mut transcript = Vec::with_capacity(160);
        append(&mut transcript, &seed);
        transcript.extend_from_slice(&i.to_be_bytes());
        append(&mut transcript, &C::encode(input));
        append(&mut transcript, &C::encode(answer));
        transcript.extend_from_slice(b"Composite");
        weights.push(C::hash_to_scalar(&transcript)?);
    }
    Ok(weights)
}

fn challenge<C: Curve>(public: &C::Point, others: [&C::Point; 4]) -> Result<C::Scalar, Error> {
    let mut transcript = Vec::with_capacity(190);
    append(&mut transcript, &C::encode(public));
    for point in others {
        append(&mut transcript, &C::encode(point));
    }
    transcript.extend_from_slice(b"Challenge");
    C::hash_to_scalar(&transcript)
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

fn append(transcript: &mut Vec<u8>, bytes: &[u8]) {
    transcript.extend_from_slice(&length(bytes));
    transcript.extend_from_slice(bytes);
}

fn prefixed(hasher: &mut impl Digest, bytes: &[u8]) {
    hasher.update(length(bytes));
    hasher.update(bytes);
}

#[cfg(test)]
mod tests;
