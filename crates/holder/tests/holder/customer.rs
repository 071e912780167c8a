//! Records that need the customer's fragment, against all holders together.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use volvelle_fragments::{CustomerFragment, Error, Kek, Partial, Place, Record, combine};
use volvelle_holder::{CustomerFragments, Presence, Quorum, QuorumError, Wanted, customer};

use crate::attack::steal;
use crate::{REALM, place, start_of};

/// A new fragment in a file of its own.
fn fresh(folder: &Path, name: &str) -> (PathBuf, CustomerFragments) {
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, &*customer::fresh(name, "").expect("made")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    let known = CustomerFragments::read(&path).expect("read");
    (path, known)
}

fn first(fragments: &CustomerFragments) -> Wanted<'_> {
    let held = fragments.iter().next().expect("one");
    Wanted { id: &held.id, check: &held.check }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_holders_together_open_nothing_without_the_customers_fragment() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, processes, plain) = start_of(folder.path(), 3, 2).await;
    let (file, own) = fresh(folder.path(), "own");
    let (_, other) = fresh(folder.path(), "other");
    let with =
        |fragments: &CustomerFragments| Quorum::with_customer(&setup.quorum, fragments.clone()).expect("a quorum");
    let (owner, stranger) = (with(&own), with(&other));
    let record = owner.seal_with(&place("/a"), Some(first(&own)), b"s3cret").await.expect("seals");

    // Whoever has the fragment reads it, cached or not, alone or among others; also under another path.
    assert_eq!(owner.open(&place("/a"), &record).await.expect("opens").as_slice(), b"s3cret");
    assert_eq!(owner.open(&place("/a"), &record).await.expect("opens").as_slice(), b"s3cret");
    let moved = owner.rewrap(&place("/a"), &place("/b"), &record).await.expect("rewraps");
    assert_eq!(with(&own).open(&place("/b"), &moved).await.expect("opens").as_slice(), b"s3cret");
    assert!(Record::parse(&moved).expect("a record").with_customer());
    let ordinary = owner.seal(&place("/o"), b"open").await.expect("seals");
    let batch = [(place("/a"), record.clone()), (place("/o"), ordinary.clone())];
    let both = with(&own).open_many(&batch).await;
    assert!(both.iter().all(Result::is_ok), "{both:?}");

    // Gateways of the same roster, whom all holders answer, and who have the record.
    let missing =
        |error: &QuorumError| matches!(error, QuorumError::CustomerFragment { presence: Presence::Missing, .. });
    assert!(missing(&plain.open(&place("/a"), &record).await.expect_err("no fragment")));
    assert!(missing(&plain.rewrap(&place("/a"), &place("/b"), &record).await.expect_err("no fragment")));
    let batched = plain.open_many(&batch).await;
    assert!(missing(batched[0].as_ref().expect_err("no fragment")) && batched[1].is_ok(), "{batched:?}");
    // Another key of the account: what needs the fragment is wrapped under it where the fragment is, and the rest everywhere.
    owner.create_key(REALM, 2).await.expect("makes a key");
    let under_two = |path: &str| Place { key_id: 2, ..place(path) };
    let batch = [(under_two("/a"), record.clone()), (under_two("/o"), ordinary.clone())];
    let left = plain.rekey_many(&batch).await;
    assert!(missing(left[0].as_ref().expect_err("no fragment")) && left[1].is_ok(), "{left:?}");
    let left = stranger.rekey_many(&batch).await;
    assert!(left[0].is_err() && left[1].is_ok(), "{left:?}");
    let wrapped = owner.rekey_many(&batch).await.swap_remove(0).expect("rewraps");
    let parsed = Record::parse(&wrapped).expect("a record");
    assert!(parsed.with_customer() && parsed.key_id() == 2);
    assert_eq!(owner.open(&place("/a"), &wrapped).await.expect("opens").as_slice(), b"s3cret");
    assert!(missing(&plain.open(&place("/a"), &wrapped).await.expect_err("no fragment")));
    let wrong = stranger.open(&place("/a"), &record).await.expect_err("another fragment");
    assert!(matches!(wrong, QuorumError::Record(Error::Commitment)), "{wrong}");
    assert!(stranger.rewrap(&place("/a"), &place("/b"), &record).await.is_err());
    assert!(missing(&stranger.seal_with(&place("/a"), Some(first(&own)), b"x").await.expect_err("not here")));
    let renamed = Wanted { check: "00", ..first(&own) };
    let refused = owner.seal_with(&place("/a"), Some(renamed), b"x").await.expect_err("another value");
    assert!(matches!(refused, QuorumError::CustomerFragment { presence: Presence::Wrong, .. }), "{refused}");

    // Every disk of every holder, put together.
    drop(processes);
    let parsed = Record::parse(&record).expect("a record");
    let input = parsed.input(&place("/a")).expect("belongs there");
    let x = input.encode().expect("short");
    let answers: Vec<(u8, Partial)> = (1_u8..)
        .zip(&setup.holder_configs)
        .map(|(index, config)| {
            let share = steal(&config.parent().expect("a folder").join("state"));
            (index, share.evaluate(&x).expect("evaluates"))
        })
        .collect();
    let opens = |answers: &[(u8, Partial)], leg: Option<&[u8; 32]>| {
        let combined = combine(answers).expect("a quorum");
        parsed.open(&input, &Kek::derive(&x, &combined, leg).expect("derives")).is_ok()
    };
    let check = hex::decode(first(&own).check).expect("hex");
    let guesses = [None, Some([0; 32]), Some([1; 32]), Some(check.try_into().expect("32 bytes"))];
    for set in [&answers[..2], &answers[1..]] {
        assert!(guesses.iter().all(|leg| !opens(set, leg.as_ref())));
    }
    // The test has teeth: with the fragment the same disks open it.
    let text: serde_json::Value = serde_json::from_slice(&std::fs::read(file).expect("read")).expect("JSON");
    let value = text["customer_fragments"][0]["value"].as_str().expect("text");
    let value = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).expect("base64");
    let fragment = CustomerFragment::from_bytes(&value).expect("a fragment");
    assert!(opens(&answers[..2], Some(&fragment.leg(&x))));
    assert!(!answers.is_empty() && opens(&answers[1..], Some(&fragment.leg(&x))));
}
