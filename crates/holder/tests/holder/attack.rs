//! What somebody can do who took everything from the disks of some holders.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use volvelle_fragments::{Kek, Partial, PrfShare, Record, Suite, combine};

use crate::{REALM, place, start_of};

/// Reads a fragment from a holder's state folder, as the holder does, or a thief.
pub(crate) fn steal(state: &Path) -> PrfShare {
    steal_epoch(state, 0)
}

/// The fragment of the holder's only epoch, which is this one.
pub(crate) fn steal_epoch(state: &Path, epoch: u32) -> PrfShare {
    let text = std::fs::read(state.join(format!("{}-1.json", hex::encode(REALM)))).expect("a fragment file");
    let file: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let slot = &file["epochs"][0];
    let name = slot["key_file"].as_str().expect("text");
    let opened = |key: &[u8], aad: &[u8], sealed: &[u8]| {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a key"));
        let nonce = Nonce::try_assume_unique_for_key(&sealed[..12]).expect("a nonce");
        let mut sealed = sealed[12..].to_vec();
        key.open_in_place(nonce, Aad::from(aad), &mut sealed).expect("opens").to_vec()
    };
    let own = std::fs::read(state.join("seal.key")).expect("a key file");
    let file_key = std::fs::read(state.join(name)).expect("a file key");
    let file_key = opened(&own, format!("FDK-file-key-v1:{name}").as_bytes(), &file_key);
    let aad = [b"FDK-share-v2", REALM.as_slice(), &1_u32.to_be_bytes(), &epoch.to_be_bytes()].concat();
    let share = hex::decode(slot["sealed_share"].as_str().expect("text")).expect("hex");
    PrfShare::from_bytes(Suite::default(), &opened(&file_key, &aad, &share)).expect("a fragment")
}

/// Every way to combine some of the answers, each under any index it may claim to have.
fn guesses(answers: &[Partial], most: usize) -> Vec<Vec<(u8, Partial)>> {
    let mut all: Vec<Vec<(u8, Partial)>> = vec![vec![]];
    for answer in answers {
        for guess in all.clone() {
            all.extend((1..=9).map(|index| {
                let mut longer = guess.clone();
                longer.push((index, *answer));
                longer
            }));
        }
    }
    all.retain(|guess| !guess.is_empty() && guess.len() <= most);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disks_of_all_but_one_of_the_needed_holders_open_nothing() {
    for (n, t) in [(3_u8, 2_usize), (5, 3)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (setup, processes, quorum) = start_of(folder.path(), n, u8::try_from(t).expect("small")).await;
        let record = quorum.seal(&place("/a"), b"s3cret").await.expect("seals");
        drop(processes);
        let record = Record::parse(&record).expect("a record");
        let input = record.input(&place("/a")).expect("belongs there");
        let x = input.encode().expect("short");
        let opens = |answers: &[(u8, Partial)]| {
            let Ok(combined) = combine(answers) else { return false };
            record.open(&input, &Kek::derive(&x, &combined, None).expect("derives")).is_ok()
        };
        let stolen: BTreeMap<u8, Partial> = (1..)
            .zip(&setup.holder_configs)
            .map(|(index, config)| {
                let share = steal(&config.parent().expect("a folder").join("state"));
                (index, share.evaluate(&x).expect("evaluates"))
            })
            .collect();
        let all: Vec<(u8, Partial)> = stolen.into_iter().collect();
        for set in (0_u32..1 << n).filter(|set| set.count_ones() as usize == t - 1) {
            let some: Vec<Partial> = (0..n).filter(|i| set >> i & 1 == 1).map(|i| all[usize::from(i)].1).collect();
            let tried = guesses(&some, t);
            assert!(tried.len() >= 9);
            assert!(tried.iter().all(|guess| !opens(guess)), "holders {set:b} of {n}");
        }
        // The test has teeth: one disk more opens it.
        for set in (0_u32..1 << n).filter(|set| set.count_ones() as usize == t) {
            let enough: Vec<(u8, Partial)> =
                (0..n).filter(|i| set >> i & 1 == 1).map(|i| all[usize::from(i)]).collect();
            assert!(opens(&enough), "holders {set:b} of {n}");
        }
    }
}
