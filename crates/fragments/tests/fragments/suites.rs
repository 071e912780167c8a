//! Two suites: they speak with another implementation of their standard, records go between them, and they never mix.

use proptest::prelude::*;
use rand_core::OsRng;
use volvelle_fragments::{publics, refresh, repair};
use voprf::{BlindedElement, CipherSuite, EvaluationElement, Group, VoprfClient, VoprfServer};

use super::*;

/// The one scalar of a suite.
fn one<C: CipherSuite>() -> <C::Group as Group>::Scalar {
    let mut rng = OsRng;
    let any = C::Group::random_scalar(&mut rng);
    C::Group::invert_scalar(any) * &any
}

/// Both ways: what the other implementation proves holds here, and what is proved here holds there. A macro, since the other
/// one's functions have bounds that cannot be named briefly.
macro_rules! speaks {
    ($suite:expr, $curve:ty) => {
        let holder = &generate($suite, 3, 2)[1];
        let x = input($suite, "/prod/root").encode().expect("short path");
        let public = holder.share.public();
        let server = VoprfServer::<$curve>::new_with_key(&*holder.share.expose_bytes()).expect("a key");
        let blinded = VoprfClient::<$curve>::deterministic_blind_unchecked(&x, one::<$curve>()).expect("blinds");

        let theirs = server.blind_evaluate(&mut OsRng, &blinded.message);
        let answer = Partial::from_bytes(&theirs.message.serialize()).expect("a point");
        assert_eq!(answer, holder.share.evaluate(&x).expect("evaluates"));
        let proved = Proof::from_bytes($suite, &theirs.proof.serialize()).expect("a proof");
        proof::verify(&public, &[&x], &[answer], &proved).expect("their proof holds here");

        let (ours, proof) = proof::answer(&holder.share, &[&x]).expect("answers");
        let element = EvaluationElement::<$curve>::deserialize(&ours[0]).expect("a point");
        let proof = voprf::Proof::<$curve>::deserialize(&proof.to_bytes()).expect("a proof");
        let output = blinded.state.finalize(&x, &element, &proof, server.get_public_key()).expect("it holds there");
        assert_eq!(output, server.evaluate(&x).expect("evaluates"));
        assert!(BlindedElement::<$curve>::deserialize(&ours[0]).is_ok());
    };
}

#[test]
fn both_suites_speak_with_another_implementation_both_ways() {
    speaks!(Suite::Ristretto255, voprf::Ristretto255);
    speaks!(Suite::P256, p256::NistP256);
}

#[test]
fn a_record_goes_to_the_other_suite_and_back_with_its_payload_untouched() {
    let (first, second) = (generate(Suite::Ristretto255, 3, 2), generate(Suite::P256, 3, 2));
    let from = input(Suite::Ristretto255, "/prod/root");
    let there = Place { key_id: 2, ..from.place.clone() };
    let back = Input { place: Place { key_id: 3, ..from.place.clone() }, ..from.clone() };
    let to = Input { suite: Suite::P256, place: there, salt: from.salt };
    let kek_of = |holders: &[Holder], input: &Input| kek(&[&holders[0], &holders[2]], input);
    for customer in [false, true] {
        let record = Record::seal(&from, &kek_of(&first, &from), customer, b"s3cret").expect("seals");
        let moved = record
            .rewrap((&from, &kek_of(&first, &from)), (&to, &kek_of(&second, &to)), customer)
            .expect("goes to the other suite");
        assert_eq!((moved.suite(), moved.key_id()), (Suite::P256, 2));
        assert_eq!(moved.open(&to, &kek_of(&second, &to)).expect("opens").as_slice(), b"s3cret");
        let again = moved
            .rewrap((&to, &kek_of(&second, &to)), (&back, &kek_of(&first, &back)), customer)
            .expect("and comes back");
        assert_eq!(again.open(&back, &kek_of(&first, &back)).expect("opens").as_slice(), b"s3cret");
        let payload = record.as_bytes().len() - (12 + 6 + 16);
        for other in [&moved, &again] {
            assert_eq!(record.as_bytes()[payload..], other.as_bytes()[payload..], "the payload is untouched");
        }
    }
}

#[test]
fn a_record_moved_to_the_other_suite_by_hand_does_not_open() {
    for (suite, other) in [(Suite::Ristretto255, Suite::P256), (Suite::P256, Suite::Ristretto255)] {
        let (own, theirs) = (generate(suite, 3, 2), generate(other, 3, 2));
        let here = input(suite, "/a");
        let record = Record::seal(&here, &kek(&[&own[0], &own[1]], &here), false, b"v").expect("seals");
        let mut bytes = record.as_bytes().to_vec();
        bytes[4] = other.byte();
        let moved = Record::parse(&bytes).expect("its outline is one");
        let there = moved.input(&here.place).expect("belongs here");
        assert_eq!(there.suite, other);
        for holders in [&own, &theirs] {
            let kek = kek(&[&holders[0], &holders[1]], &there);
            assert_eq!(moved.open(&there, &kek).err(), Some(Error::Commitment));
        }
        // Not even with the key it was sealed under: the wrapping is bound to the input.
        assert_eq!(moved.open(&there, &kek(&[&own[0], &own[1]], &here)).err(), Some(Error::Tampered));
        bytes[4] = 3;
        assert!(Record::parse(&bytes).is_err(), "there is no such suite");
    }
}

#[test]
fn things_of_two_suites_are_an_error_wherever_they_meet() {
    let (one, two) = (generate(Suite::Ristretto255, 3, 2), generate(Suite::P256, 3, 2));
    let x = input(Suite::P256, "/a").encode().expect("short path");
    let (a, b) = (one[0].share.evaluate(&x).expect("evaluates"), two[1].share.evaluate(&x).expect("evaluates"));
    assert_eq!((a.suite(), b.suite()), (Suite::Ristretto255, Suite::P256));
    for mixed in [[(1, a), (2, b)], [(2, b), (1, a)]] {
        assert_eq!(combine(&mixed).err(), Some(Error::Suite));
    }
    let weights = Weights::of(&[1, 2]).expect("a quorum");
    assert_eq!(weights.combine_all(&[vec![a, a], vec![b, b]]).err(), Some(Error::Suite));
    assert_eq!(weights.combine_all(&[vec![b, b], vec![b, a]]).err(), Some(Error::Suite));

    assert_eq!(proof::prove(&one[0].share, &[&x], &[b]).err(), Some(Error::Suite));
    let proved = proof::prove(&one[0].share, &[&x], &[a]).expect("proves");
    assert_eq!(proof::verify(&two[0].share.public(), &[&x], &[b], &proved), Err(Error::Suite));
    assert_eq!(proof::verify(&one[0].share.public(), &[&x], &[b], &proved), Err(Error::Suite));
    assert!(proof::verify(&two[0].share.public(), &[&x], &[a], &proved).is_err());

    let mut shares = one[0].publics.clone();
    shares.insert(3, two[2].share.public());
    assert_eq!(publics::suite(&shares), Err(Error::Suite));
    assert_eq!(publics::threshold(&shares), Err(Error::Suite));
    assert_eq!(publics::group(&shares, 2).err(), Some(Error::Suite));
    assert_eq!(publics::suite(&two[0].publics), Ok(Suite::P256));

    let groups = [&one, &two].map(|holders| publics::group(&holders[0].publics, 2).expect("one polynomial"));
    assert_eq!(repair::split((&one[0].share, 1), &[1, 2], 3, &groups[1]).err(), Some(Error::Suite));
    let part = repair::split((&one[0].share, 1), &[1, 2], 3, &groups[0]).expect("splits").remove(&1).expect("a part");
    assert!(repair::restore(&[part], &two[2].share.public()).is_err());
}

/// Packages of one suite are worth nothing in a generation or refresh of the other, and name their sender.
#[test]
fn a_package_of_the_other_suite_names_its_sender() {
    let (mine, _) = dkg::round1(Suite::P256, 1, 2, 2).expect("round 1");
    let (_, theirs) = dkg::round1(Suite::Ristretto255, 2, 2, 2).expect("round 1");
    let others = BTreeMap::from([(2, theirs)]);
    assert_eq!(dkg::round2(mine, 1, &others).err(), Some(Error::KeyGeneration(Some(2))));
    let (mine, _) = refresh::round1(Suite::P256, 1, 2, 2).expect("round 1");
    let (_, theirs) = refresh::round1(Suite::Ristretto255, 2, 2, 2).expect("round 1");
    let others = BTreeMap::from([(2, theirs)]);
    assert_eq!(refresh::round2(mine, 1, &others).err(), Some(Error::KeyGeneration(Some(2))));
}

#[test]
fn suites_have_one_byte_and_one_word_each() {
    for suite in Suite::ALL {
        assert_eq!(Suite::of_byte(suite.byte()), Some(suite));
        assert_eq!(suite.name().parse(), Ok(suite));
        assert_eq!(serde_json::to_string(&suite).expect("json"), format!("\"{suite}\""));
    }
    assert_eq!(Suite::of_byte(0).or(Suite::of_byte(3)), None);
    assert!("p384".parse::<Suite>().is_err());
}

/// Points have forms beside the compressed one in SEC 1; a share or an answer is read in one form only.
#[test]
fn a_point_of_p256_has_one_encoding() {
    let public = generate(Suite::P256, 2, 2)[0].share.public();
    let encoded = public.to_bytes();
    assert_eq!((encoded.len(), encoded.suite()), (33, Suite::P256));
    assert_eq!(Encoded::of(&encoded), Ok(encoded));
    for tag in (0..=255).filter(|tag| *tag != encoded[0]) {
        let mut other = encoded.to_vec();
        other[0] = tag;
        let read = PublicShare::from_bytes(&other);
        // The other sign is another point; no other first byte is any.
        assert_eq!(read.is_ok(), matches!(tag, 2 | 3), "{tag}");
        assert_ne!(read, Ok(public));
    }
    let mut beyond = [0xff; 33];
    beyond[0] = 2;
    assert!(PublicShare::from_bytes(&beyond).is_err(), "a coordinate is below the prime");
}

fn any_suite() -> impl Strategy<Value = Suite> {
    prop_oneof![Just(Suite::Ristretto255), Just(Suite::P256)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn inputs_come_back_as_they_were_and_any_bytes_are_borne(
        suite in any_suite(), realm: [u8; 16], ids: (u32, u8, u32), item: [u8; 16], salt: [u8; 32], path in ".{0,40}",
        noise in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let (key_id, purpose, version) = ids;
        let input = Input { suite, place: Place { realm, key_id, purpose, item, version, path }, salt };
        let x = input.encode().expect("short path");
        prop_assert_eq!(Input::parse(&x), Ok(input));
        if let Ok(read) = Input::parse(&noise) {
            prop_assert_eq!(read.encode(), Ok(noise.clone()));
        }
        for length in [32, 33] {
            if let Some(bytes) = noise.get(..length) && let Ok(point) = Partial::from_bytes(bytes) {
                prop_assert_eq!(&*point.to_bytes(), bytes, "canonical");
            }
        }
    }

    #[test]
    fn any_two_fragments_give_what_any_other_two_of_their_line_give(
        suite in any_suite(), k in 1_u64.., slope in 1_u64.., pair in 0_usize..36, x in proptest::collection::vec(any::<u8>(), 1..60),
    ) {
        // On the line k + slope·i, in numbers small enough to be written down.
        let share = |i: u8| {
            let value = u128::from(k) + u128::from(slope) * u128::from(i);
            let mut bytes = [0; 32];
            match suite {
                Suite::Ristretto255 => bytes[..16].copy_from_slice(&value.to_le_bytes()),
                Suite::P256 => bytes[16..].copy_from_slice(&value.to_be_bytes()),
            }
            PrfShare::from_bytes(suite, &bytes).expect("not zero")
        };
        let pairs: Vec<(u8, u8)> = (1..=9).flat_map(|i| (i + 1..=9).map(move |j| (i, j))).collect();
        let derive = |(i, j): (u8, u8)| {
            let answers = [(i, share(i).evaluate(&x).expect("evaluates")), (j, share(j).evaluate(&x).expect("evaluates"))];
            let here = input(suite, "/a");
            (combine(&answers).expect("a quorum"), here)
        };
        let (one, here) = derive((1, 2));
        let record = Record::seal(&here, &Kek::derive(&x, &one, None).expect("derives"), false, b"v").expect("seals");
        let (other, _) = derive(pairs[pair]);
        prop_assert_eq!(other.suite(), suite);
        prop_assert!(record.open(&here, &Kek::derive(&x, &other, None).expect("derives")).is_ok());
    }
}
