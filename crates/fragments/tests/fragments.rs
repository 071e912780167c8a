//! Keys made by the distributed generation, used as holders and gateway use them.

#[path = "fragments/epochs.rs"]
mod epochs;
#[path = "fragments/renewal.rs"]
mod renewal;
#[path = "fragments/suites.rs"]
mod suites;
#[path = "fragments/thresholds.rs"]
mod thresholds;

use std::collections::BTreeMap;

use volvelle_fragments::combine::coefficients;
use volvelle_fragments::record::fresh_salt;
use volvelle_fragments::{
    CustomerFragment, Encoded, Error, Input, Kek, Partial, Place, PrfShare, Proof, PublicShare, Record, Sealed, Suite,
    Weights, combine, customer, dkg, proof,
};

/// One holder's end of a generation.
struct Holder {
    index: u8,
    share: PrfShare,
    publics: BTreeMap<u8, PublicShare>,
    transcript: [u8; 32],
}

fn generate(suite: Suite, n: u8, t: u8) -> Vec<Holder> {
    let (mut states, mut first) = (BTreeMap::new(), BTreeMap::new());
    for i in 1..=n {
        let (state, package) = dkg::round1(suite, i, n, t).expect("round 1");
        states.insert(i, state);
        first.insert(i, package);
    }
    let mut second: BTreeMap<u8, BTreeMap<u8, Vec<u8>>> = BTreeMap::new();
    let mut after = BTreeMap::new();
    for (i, state) in states {
        let others = first.iter().filter(|(j, _)| **j != i).map(|(j, p)| (*j, p.clone())).collect();
        let (state, outgoing) = dkg::round2(state, i, &others).expect("round 2");
        for (to, package) in outgoing {
            second.entry(to).or_default().insert(i, package);
        }
        after.insert(i, state);
    }
    after
        .into_iter()
        .map(|(index, state)| {
            let outcome = dkg::round3(&state, index, &second[&index], b"realm, key, roster").expect("round 3");
            Holder { index, share: outcome.share, publics: outcome.publics, transcript: outcome.transcript }
        })
        .collect()
}

fn place(path: &str) -> Place {
    Place { realm: [7; 16], key_id: 1, purpose: 1, item: [9; 16], version: 3, path: path.into() }
}

fn input(suite: Suite, path: &str) -> Input {
    Input { suite, place: place(path), salt: fresh_salt().expect("randomness") }
}

fn kek(holders: &[&Holder], input: &Input) -> Kek {
    let x = input.encode().expect("short path");
    let answers: Vec<_> = holders.iter().map(|h| (h.index, h.share.evaluate(&x).expect("evaluates"))).collect();
    Kek::derive(&x, &combine(&answers).expect("a quorum"), None).expect("derives")
}

fn subsets(n: usize, size: usize) -> Vec<Vec<usize>> {
    (0..1_usize << n)
        .filter(|mask| mask.count_ones() as usize == size)
        .map(|mask| (0..n).filter(|i| mask >> i & 1 == 1).collect())
        .collect()
}

#[test]
fn any_t_holders_derive_the_same_key_and_fewer_do_not() {
    for suite in Suite::ALL {
        for (n, t) in [(2, 2), (3, 2), (5, 3), (9, 4)] {
            let holders = generate(suite, n, t);
            assert!(holders.windows(2).all(|w| w[0].transcript == w[1].transcript));
            let input = input(suite, "/prod/root");
            let all: Vec<&Holder> = holders.iter().collect();
            let record = Record::seal(&input, &kek(&all[..usize::from(t)], &input), false, b"s3cret").expect("seals");
            for subset in subsets(usize::from(n), usize::from(t)) {
                let quorum: Vec<&Holder> = subset.iter().map(|i| all[*i]).collect();
                assert_eq!(record.open(&input, &kek(&quorum, &input)).expect("opens").as_slice(), b"s3cret");
            }
            for subset in subsets(usize::from(n), usize::from(t) - 1) {
                let few: Vec<&Holder> = subset.iter().map(|i| all[*i]).collect();
                assert_eq!(record.open(&input, &kek(&few, &input)).err(), Some(Error::Commitment));
            }
        }
    }
}

#[test]
fn a_liar_is_noticed_and_named_at_every_position() {
    for suite in Suite::ALL {
        for (n, t) in [(3_u8, 2_usize), (5, 3)] {
            let holders = generate(suite, n, u8::try_from(t).expect("small"));
            let input = input(suite, "/prod/root");
            let x = input.encode().expect("short path");
            let honest: Vec<&Holder> = holders.iter().take(t).collect();
            let record = Record::seal(&input, &kek(&honest, &input), false, b"v").expect("seals");
            for liar in 0..t {
                let mut answers = Vec::new();
                let mut named = Vec::new();
                for (n, holder) in honest.iter().enumerate() {
                    let asked = if n == liar { b"something else".as_slice() } else { &x };
                    let answer = holder.share.evaluate(asked).expect("evaluates");
                    let proof = proof::prove(&holder.share, &[asked], &[answer]).expect("proves");
                    let public = &holders[0].publics[&holder.index];
                    if proof::verify(public, &[&x], &[answer], &proof).is_err() {
                        named.push(n);
                    }
                    answers.push((holder.index, answer));
                }
                let wrong = Kek::derive(&x, &combine(&answers).expect("a quorum"), None).expect("derives");
                assert_eq!(record.open(&input, &wrong).err(), Some(Error::Commitment));
                assert_eq!(named, vec![liar]);
            }
        }
    }
}

#[test]
fn one_proof_covers_a_batch_and_no_other_batch() {
    for suite in Suite::ALL {
        let holder = &generate(suite, 3, 2)[0];
        let xs: Vec<Vec<u8>> = (0..5).map(|i| input(suite, &format!("/a/{i}")).encode().expect("short path")).collect();
        let inputs: Vec<&[u8]> = xs.iter().map(Vec::as_slice).collect();
        let mut answers: Vec<Partial> = inputs.iter().map(|x| holder.share.evaluate(x).expect("evaluates")).collect();
        let proof = proof::prove(&holder.share, &inputs, &answers).expect("proves");
        let again = Proof::from_bytes(suite, &proof.to_bytes()).expect("canonical");
        proof::verify(&holder.share.public(), &inputs, &answers, &again).expect("holds");
        answers.swap(1, 2);
        assert_eq!(proof::verify(&holder.share.public(), &inputs, &answers, &proof), Err(Error::Proof));
    }
}

#[test]
fn many_at_once_give_what_they_give_one_by_one() {
    for suite in Suite::ALL {
        for (n, t) in [(3, 2), (9, 5)] {
            let holders = generate(suite, n, t);
            let xs: Vec<Vec<u8>> =
                (0..7).map(|i| input(suite, &format!("/a/{i}")).encode().expect("short path")).collect();
            let inputs: Vec<&[u8]> = xs.iter().map(Vec::as_slice).collect();
            for subset in subsets(usize::from(n), usize::from(t)) {
                let quorum: Vec<&Holder> = subset.iter().map(|i| &holders[*i]).collect();
                let answers: Vec<Vec<Encoded>> =
                    quorum.iter().map(|h| h.share.answer(&inputs).expect("evaluates")).collect();
                let by_input: Vec<Vec<Partial>> = (0..xs.len())
                    .map(|i| answers.iter().map(|a| Partial::from_bytes(&a[i]).expect("a point")).collect())
                    .collect();
                let indices: Vec<u8> = quorum.iter().map(|h| h.index).collect();
                let weights = Weights::of(&indices).expect("a quorum");
                let combined = weights.combine_all(&by_input).expect("combines");
                for (x, combined) in xs.iter().zip(&combined) {
                    let input = Input::parse(x).expect("canonical");
                    let record = Record::seal(&input, &kek(&quorum, &input), false, b"v").expect("seals");
                    let many = Kek::derive(x, combined, None).expect("derives");
                    let sealed = Sealed::parse(record.as_bytes()).expect("a record");
                    let bound = sealed.bind(&input.place).expect("belongs here");
                    assert_eq!(bound.x(), x);
                    assert_eq!(sealed.open(&bound, &many).expect("opens").as_slice(), b"v");
                }
                assert_eq!(weights.combine(&by_input[0][1..]).err(), Some(Error::Quorum));
            }
        }
    }
}

#[test]
fn answers_and_their_proof_come_together() {
    for suite in Suite::ALL {
        let holder = &generate(suite, 3, 2)[0];
        let xs: Vec<Vec<u8>> = (0..3).map(|i| input(suite, &format!("/a/{i}")).encode().expect("short path")).collect();
        let inputs: Vec<&[u8]> = xs.iter().map(Vec::as_slice).collect();
        let (encoded, proof) = proof::answer(&holder.share, &inputs).expect("answers");
        assert_eq!(encoded, holder.share.answer(&inputs).expect("answers"));
        let partials: Vec<Partial> = encoded.iter().map(|y| Partial::from_bytes(y).expect("a point")).collect();
        proof::verify(&holder.share.public(), &inputs, &partials, &proof).expect("holds");
        proof::verify(&holder.share.public(), &inputs[..2], &partials[..2], &proof).expect_err("another batch");
    }
}

#[test]
fn a_record_opens_nowhere_but_at_its_place() {
    for suite in Suite::ALL {
        let holders = generate(suite, 3, 2);
        let quorum = [&holders[0], &holders[2]];
        let here = input(suite, "/prod/root");
        let record = Record::seal(&here, &kek(&quorum, &here), false, b"v").expect("seals");
        let at = |change: &dyn Fn(&mut Place)| {
            let mut place = place("/prod/root");
            change(&mut place);
            record.input(&place).and_then(|i| record.open(&i, &kek(&quorum, &i)).map(|_| ()))
        };
        assert_eq!(at(&|_| ()), Ok(()));
        assert_eq!(at(&|p| p.path = "/public/root".into()), Err(Error::Commitment));
        assert_eq!(at(&|p| p.purpose = 2), Err(Error::Commitment));
        assert_eq!(at(&|p| p.version = 4), Err(Error::Place));
        assert_eq!(at(&|p| p.item = [8; 16]), Err(Error::Place));
        assert_eq!(at(&|p| p.realm = [8; 16]), Err(Error::Place));
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    for suite in Suite::ALL {
        let holders = generate(suite, 2, 2);
        let quorum = [&holders[0], &holders[1]];
        let here = input(suite, "/a");
        let record = Record::seal(&here, &kek(&quorum, &here), false, b"value").expect("seals");
        for n in 0..record.as_bytes().len() {
            let mut bytes = record.as_bytes().to_vec();
            bytes[n] ^= 1;
            let opened = Record::parse(&bytes).and_then(|r| {
                let input = r.input(&place("/a"))?;
                r.open(&input, &kek(&quorum, &input)).map(|_| ())
            });
            assert!(opened.is_err(), "byte {n}");
        }
    }
}

#[test]
fn a_rename_keeps_the_payload_and_closes_the_old_path() {
    for suite in Suite::ALL {
        let holders = generate(suite, 3, 2);
        let quorum = [&holders[1], &holders[2]];
        let from = input(suite, "/old");
        let record = Record::seal(&from, &kek(&quorum, &from), false, b"v").expect("seals");
        let to = Input { suite, place: place("/new"), salt: from.salt };
        let moved = record.rewrap((&from, &kek(&quorum, &from)), (&to, &kek(&quorum, &to)), false).expect("rewraps");
        assert_eq!(moved.open(&to, &kek(&quorum, &to)).expect("opens").as_slice(), b"v");
        assert!(moved.open(&from, &kek(&quorum, &from)).is_err());
        assert_eq!(record.as_bytes()[170..], moved.as_bytes()[170..], "the payload is untouched");
    }
}

#[test]
fn the_customers_leg_is_needed_when_it_took_part() {
    for suite in Suite::ALL {
        let holders = generate(suite, 3, 2);
        let here = input(suite, "/a");
        let x = here.encode().expect("short path");
        let answers: Vec<_> =
            holders[..2].iter().map(|h| (h.index, h.share.evaluate(&x).expect("evaluates"))).collect();
        let derive =
            |leg: Option<&[u8; 32]>| Kek::derive(&x, &combine(&answers).expect("a quorum"), leg).expect("derives");
        let record = Record::seal(&here, &derive(Some(&[5; 32])), true, b"v").expect("seals");
        assert!(record.with_customer());
        assert!(record.open(&here, &derive(Some(&[5; 32]))).is_ok());
        let without = record.rewrap((&here, &derive(Some(&[5; 32]))), (&here, &derive(None)), false).expect("rewraps");
        assert_eq!(without.open(&here, &derive(None)).expect("opens").as_slice(), b"v");
        assert_eq!(without.as_bytes()[170..], record.as_bytes()[170..], "the payload is untouched");
        assert_eq!(record.open(&here, &derive(None)).err(), Some(Error::Commitment));
        assert_eq!(record.open(&here, &derive(Some(&[6; 32]))).err(), Some(Error::Commitment));
    }
}

#[test]
fn what_is_not_canonical_is_refused() {
    for suite in Suite::ALL {
        assert!(PrfShare::from_bytes(suite, &[0; 32]).is_err());
        assert!(PrfShare::from_bytes(suite, &[0xff; 32]).is_err());
        for length in [0, 1, 31, 32, 33, 34, 65] {
            assert!(Partial::from_bytes(&vec![0; length]).is_err(), "the identity, or nothing");
            assert!(Partial::from_bytes(&vec![0xff; length]).is_err());
        }
        assert!(Proof::from_bytes(suite, &[0xff; 64]).is_err());
        let mut x = input(suite, "/a").encode().expect("short path");
        assert!(Input::parse(&x).is_ok());
        x.push(0);
        assert!(Input::parse(&x).is_err());
        assert!(Record::parse(b"FDK1 short").is_err());
        assert_eq!(coefficients(&[1, 1]), Err(Error::Quorum));
        assert_eq!(coefficients(&[0, 1]), Err(Error::Quorum));
        assert_eq!(coefficients(&[1, 10]), Err(Error::Quorum));
        assert!(dkg::round1(suite, 1, 3, 1).is_err());
        assert!(dkg::round1(suite, 1, 10, 2).is_err());
    }
}

#[test]
fn a_wrong_package_names_its_sender() {
    for suite in Suite::ALL {
        let (one, _) = dkg::round1(suite, 1, 2, 2).expect("round 1");
        let (_, two) = dkg::round1(suite, 2, 2, 2).expect("round 1");
        let (after, _) = dkg::round2(one, 1, &BTreeMap::from([(2, two)])).expect("round 2");
        let garbage = BTreeMap::from([(2, vec![1, 2, 3])]);
        assert_eq!(dkg::round3(&after, 1, &garbage, b"").err(), Some(Error::KeyGeneration(Some(2))));
    }
}

/// Two fixed fragments, of no use but here.
fn fixed_kek(suite: Suite, x: &[u8]) -> Kek {
    let answers = [(1, 2_u8), (2, 3)].map(|(index, byte)| {
        let mut bytes = [byte; 32];
        // Below the order, whichever end is the high one.
        (bytes[0], bytes[31]) = if suite == Suite::P256 { (0, byte) } else { (byte, 0) };
        (index, PrfShare::from_bytes(suite, &bytes).expect("canonical").evaluate(x).expect("evaluates"))
    });
    Kek::derive(x, &combine(&answers).expect("a quorum"), None).expect("derives")
}

/// Frozen: whoever changes these bytes makes every stored record unreadable.
#[test]
fn the_formats_stay_what_they_are() {
    for (suite, stored) in
        [(Suite::Ristretto255, include_str!("record.hex")), (Suite::P256, include_str!("record-p256.hex"))]
    {
        let x = Input { suite, place: place("/prod/root"), salt: [1; 32] }.encode().expect("short path");
        let expected = format!(
            "46444b7831{:02x}{}0000000101{}00000003{}000a{}",
            suite.byte(),
            "07".repeat(16),
            "09".repeat(16),
            "01".repeat(32),
            hex::encode("/prod/root")
        );
        assert_eq!(hex::encode(&x), expected);
        let again = Input::parse(&x).expect("canonical");
        let fresh = Record::seal(&again, &fixed_kek(suite, &x), false, b"frozen").expect("seals");
        println!("a fresh one of {suite}: {}", hex::encode(fresh.as_bytes()));
        let stored = hex::decode(stored.trim()).expect("hex");
        let record = Record::parse(&stored).expect("a record");
        let input = record.input(&place("/prod/root")).expect("belongs here");
        assert_eq!((&input, record.suite()), (&again, suite));
        assert_eq!(record.open(&input, &fixed_kek(suite, &x)).expect("opens").as_slice(), b"frozen");
        assert_eq!(fresh.as_bytes()[..110], stored[..110], "header and commitment");
        assert_eq!(fresh.as_bytes().len(), stored.len());
    }
}

#[test]
fn the_customers_legs_never_change() {
    let bytes: Vec<u8> = (0..32).collect();
    let fragment = CustomerFragment::from_bytes(&bytes).expect("a fragment");
    // Python: hmac.new(bytes(range(32)), message, hashlib.sha256).hexdigest()
    let leg = "97cd77dc790ea39d90b0c51ea4b9bb244ac43be45640b63ad59b6d770c09509e";
    let check = "64772c9f0aafd9b96e846110798633f61bbacfbaa227dd051f5cf043102f6b63";
    assert_eq!(hex::encode(*fragment.leg(b"FDKx1...")), leg);
    assert_eq!(hex::encode(fragment.check()), check);
    assert!(
        !input(Suite::P256, "/a").encode().expect("short path").starts_with(&customer::CHECKED[..4]),
        "no input is checked"
    );
    for wrong in [&bytes[1..], &[7; 32], &[]] {
        assert!(CustomerFragment::from_bytes(wrong).is_err(), "{wrong:?}");
    }
    let fresh = customer::generate().expect("randomness");
    assert_ne!(*fresh, *customer::generate().expect("randomness"));
    assert!(CustomerFragment::from_bytes(&*fresh).is_ok());
}
