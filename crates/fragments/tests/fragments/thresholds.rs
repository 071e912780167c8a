//! A key's threshold is what its public shares show, and a record goes from a key of one threshold to one of another.

use volvelle_fragments::publics;
use volvelle_fragments::record::KEY_ID_AT;

use super::*;

#[test]
fn public_shares_show_the_threshold_of_their_key() {
    for suite in Suite::ALL {
        for n in 2..=7 {
            for t in 2..=n {
                let holders = generate(suite, n, t);
                assert_eq!(publics::threshold(&holders[0].publics), Ok(t), "{t} of {n}");
            }
        }
        let mut shares = generate(suite, 4, 2).remove(0).publics;
        shares.retain(|index, _| *index > 2);
        assert_eq!(publics::threshold(&shares), Ok(2), "two are left of a key of which two are needed");
        shares.pop_first();
        assert_eq!(publics::threshold(&shares), Err(Error::Quorum), "one share shows nothing");
    }
}

#[test]
fn a_share_off_the_polynomial_shows_another_threshold_and_never_a_lower_one() {
    for suite in Suite::ALL {
        let mut shares = generate(suite, 5, 3).remove(0).publics;
        let foreign = generate(suite, 5, 3).remove(4).publics[&5];
        shares.insert(5, foreign);
        // Four points of degree two and one elsewhere lie on a polynomial of degree four only.
        assert_eq!(publics::threshold(&shares), Ok(5));
    }
}

#[test]
fn a_record_goes_to_a_key_of_another_threshold_and_suite_with_its_payload_as_it_is() {
    for (suite, other) in Suite::ALL.into_iter().flat_map(|suite| Suite::ALL.map(|other| (suite, other))) {
        let (old, new) = (generate(suite, 3, 2), generate(other, 5, 4));
        let from = input(suite, "/prod/root");
        let to = Input { suite: other, place: Place { key_id: 2, ..from.place.clone() }, salt: from.salt };
        let old_kek = kek(&[&old[0], &old[2]], &from);
        let record = Record::seal(&from, &old_kek, false, b"s3cret").expect("seals");
        let new_kek = kek(&[&new[0], &new[1], &new[3], &new[4]], &to);
        let moved = record.rewrap((&from, &old_kek), (&to, &new_kek), false).expect("goes over");
        assert_eq!((record.key_id(), moved.key_id()), (1, 2));
        let at = usize::try_from(KEY_ID_AT).expect("small");
        assert_eq!(moved.as_bytes()[at..at + 4], 2_u32.to_be_bytes(), "where a store finds it");
        assert_eq!(moved.open(&to, &new_kek).expect("opens").as_slice(), b"s3cret");
        assert!(moved.open(&to, &old_kek).is_err() && moved.open(&from, &old_kek).is_err());
        let payload = record.as_bytes().len() - (12 + 6 + 16);
        assert_eq!(record.as_bytes()[payload..], moved.as_bytes()[payload..], "the payload is not touched");
        assert_eq!(record.open(&from, &old_kek).expect("the old one opens too").as_slice(), b"s3cret");
    }
}
