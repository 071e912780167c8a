//! The vectors of RFC 9497, appendix A, for the mode with proofs: hash, evaluation and proof.

use super::*;

fn scalar<C: Curve>(text: &str) -> C::Scalar {
    let bytes: [u8; 32] = hex::decode(text).expect("hex").try_into().expect("32 bytes");
    C::decode_scalar(&bytes).expect("canonical")
}

/// One vector; what it has for each input is separated by commas.
struct Vector {
    input: &'static str,
    blind: &'static str,
    blinded: &'static str,
    evaluated: &'static str,
    proof: &'static str,
    r: &'static str,
}

fn meets<C: Curve>((secret, public): (&str, &str), vector: &Vector) {
    let share = PrfShare::from_bytes(C::SUITE, &hex::decode(secret).expect("hex")).expect("a scalar");
    assert_eq!(hex::encode(share.public().to_bytes()), public);
    let (mut inputs, mut answers) = (Vec::new(), Vec::new());
    for (input, blind) in vector.input.split(',').zip(vector.blind.split(',')) {
        let hashed = C::hash_to_group(&hex::decode(input).expect("hex")).expect("hashes");
        inputs.push(hashed * &scalar::<C>(blind));
        answers.push(inputs[inputs.len() - 1] * C::scalar(&share.0).expect("of this suite"));
    }
    let encoded =
        |points: &[C::Point]| points.iter().map(|point| hex::encode(C::encode(point))).collect::<Vec<_>>().join(",");
    assert_eq!(encoded(&inputs), vector.blinded);
    assert_eq!(encoded(&answers), vector.evaluated);
    let secret = C::scalar(&share.0).expect("of this suite");
    let proof = prove_with::<C>(secret, &inputs, &answers, &scalar::<C>(vector.r)).expect("proves");
    assert_eq!(hex::encode(proof.to_bytes()), vector.proof);
    let public = C::point(&share.public().0).expect("of this suite");
    verify_points::<C>(&public, &inputs, &answers, &proof).expect("holds");
    answers[0] = answers[0] + inputs[0];
    assert_eq!(verify_points::<C>(&public, &inputs, &answers, &proof), Err(Error::Proof));
}

/// Appendix A.1.2 (ristretto255-SHA512), first vector.
#[test]
fn the_published_vector_of_suite_1_is_met() {
    let key = (
        "e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909",
        "c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e",
    );
    let vector = Vector {
        input: "00",
        blind: "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706",
        blinded: "863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945",
        evaluated: "aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e",
        proof: "ddef93772692e535d1a53903db24367355cc2cc78de93b3be5a8ffcc6985dd066d4346421d17bf5117a2a1ff0fcb2a759f58a539dfbe857a40bce4cf49ec600d",
        r: "222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e",
    };
    meets::<Ristretto>(key, &vector);
}

/// Appendix A.3.2 (P256-SHA256), all vectors.
#[test]
fn the_published_vectors_of_suite_2_are_met() {
    let key = (
        "ca5d94c8807817669a51b196c34c1b7f8442fde4334a7121ae4736364312fca6",
        "03e17e70604bcabe198882c0a1f27a92441e774224ed9c702e51dd17038b102462",
    );
    let one = Vector {
        input: "00",
        blind: "3338fa65ec36e0290022b48eb562889d89dbfa691d1cde91517fa222ed7ad364",
        blinded: "02dd05901038bb31a6fae01828fd8d0e49e35a486b5c5d4b4994013648c01277da",
        evaluated: "0209f33cab60cf8fe69239b0afbcfcd261af4c1c5632624f2e9ba29b90ae83e4a2",
        proof: "e7c2b3c5c954c035949f1f74e6bce2ed539a3be267d1481e9ddb178533df4c2664f69d065c604a4fd953e100b856ad83804eb3845189babfa5a702090d6fc5fa",
        r: "f9db001266677f62c095021db018cd8cbb55941d4073698ce45c405d1348b7b1",
    };
    let two = Vector {
        input: "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
        blind: one.blind,
        blinded: "03cd0f033e791c4d79dfa9c6ed750f2ac009ec46cd4195ca6fd3800d1e9b887dbd",
        evaluated: "030d2985865c693bf7af47ba4d3a3813176576383d19aff003ef7b0784a0d83cf1",
        proof: "2787d729c57e3d9512d3aa9e8708ad226bc48e0f1750b0767aaff73482c44b8d2873d74ec88aebd3504961acea16790a05c542d9fbff4fe269a77510db00abab",
        r: one.r,
    };
    let batch = Vector {
        input: "00,5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
        blind: "3338fa65ec36e0290022b48eb562889d89dbfa691d1cde91517fa222ed7ad364,f9db001266677f62c095021db018cd8cbb55941d4073698ce45c405d1348b7b1",
        blinded: "02dd05901038bb31a6fae01828fd8d0e49e35a486b5c5d4b4994013648c01277da,03462e9ae64cae5b83ba98a6b360d942266389ac369b923eb3d557213b1922f8ab",
        evaluated: "0209f33cab60cf8fe69239b0afbcfcd261af4c1c5632624f2e9ba29b90ae83e4a2,02bb24f4d838414aef052a8f044a6771230ca69c0a5677540fff738dd31bb69771",
        proof: "bdcc351707d02a72ce49511c7db990566d29d6153ad6f8982fad2b435d6ce4d60da1e6b3fa740811bde34dd4fe0aa1b5fe6600d0440c9ddee95ea7fad7a60cf2",
        r: "350e8040f828bf6ceca27405420cdf3d63cb3aef005f40ba51943c8026877963",
    };
    for vector in [one, two, batch] {
        meets::<Nist>(key, &vector);
    }
}
