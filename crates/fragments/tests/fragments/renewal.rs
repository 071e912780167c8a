//! Refresh and repair with real fragments: the key and every record stay, everything else changes.

use std::collections::BTreeMap;

use volvelle_fragments::repair::Part;
use volvelle_fragments::{Error, PrfShare, PublicShare, Record, Suite, publics, refresh, repair};

use crate::{Holder, generate, input, kek};

/// All holders replace their fragments.
fn refreshed(holders: &[Holder], t: u8, spoil: impl Fn(u8, u8, &mut Vec<u8>)) -> Result<Vec<Holder>, Error> {
    let n = u8::try_from(holders.len()).expect("few");
    let (mut states, mut first) = (BTreeMap::new(), BTreeMap::new());
    for holder in holders {
        let (state, package) = refresh::round1(holder.share.suite(), holder.index, n, t)?;
        states.insert(holder.index, state);
        first.insert(holder.index, package);
    }
    let mut second: BTreeMap<u8, BTreeMap<u8, Vec<u8>>> = BTreeMap::new();
    let mut after = BTreeMap::new();
    for (i, state) in states {
        let others = first.iter().filter(|(j, _)| **j != i).map(|(j, p)| (*j, p.clone())).collect();
        let (state, outgoing) = refresh::round2(state, i, &others)?;
        for (to, mut package) in outgoing {
            spoil(i, to, &mut package);
            second.entry(to).or_default().insert(i, package);
        }
        after.insert(i, state);
    }
    holders
        .iter()
        .map(|holder| {
            let members = refresh::Members { threshold: t, publics: &holder.publics };
            let state = (&after[&holder.index], holder.index);
            let outcome = refresh::round3(state, &second[&holder.index], &holder.share, &members, b"context")?;
            Ok(Holder {
                index: holder.index,
                share: outcome.share,
                publics: outcome.publics,
                transcript: outcome.transcript,
            })
        })
        .collect()
}

fn quorums(holders: &[Holder], t: usize) -> impl Iterator<Item = Vec<&Holder>> {
    (0_u32..1 << holders.len())
        .filter(move |set| set.count_ones() as usize == t)
        .map(|set| holders.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, h)| h).collect())
}

#[test]
fn every_quorum_opens_after_each_refresh_and_no_mix_of_epochs_does() {
    for suite in Suite::ALL {
        for (n, t) in [(3_u8, 2_u8), (4, 2), (5, 3)] {
            let mut holders = generate(suite, n, t);
            let here = input(suite, "/a");
            let first = kek(&quorums(&holders, usize::from(t)).next().expect("one"), &here);
            let record = Record::seal(&here, &first, false, b"v").expect("seals");
            let group = publics::group(&holders[0].publics, t).expect("one polynomial");
            for _ in 0..3 {
                let new = refreshed(&holders, t, |_, _, _| ()).expect("refreshes");
                assert!(new.iter().all(|h| h.transcript == new[0].transcript));
                assert_eq!(publics::group(&new[0].publics, t).expect("one polynomial"), group);
                for (old, new) in holders.iter().zip(&new) {
                    assert_ne!(old.share.expose_bytes(), new.share.expose_bytes(), "all fragments are new");
                    assert_eq!(new.publics[&new.index], new.share.public());
                }
                for quorum in quorums(&new, usize::from(t)) {
                    assert_eq!(record.open(&here, &kek(&quorum, &here)).expect("opens").as_slice(), b"v");
                }
                for mut quorum in quorums(&new, usize::from(t)) {
                    let stale = usize::from(quorum[0].index) - 1;
                    quorum[0] = &holders[stale];
                    assert_eq!(record.open(&here, &kek(&quorum, &here)).err(), Some(Error::Commitment));
                }
                holders = new;
            }
        }
    }
}

#[test]
fn a_dealer_that_sends_a_wrong_part_is_named() {
    for suite in Suite::ALL {
        let holders = generate(suite, 3, 2);
        let spoiled = refreshed(&holders, 2, |from, to, package| {
            if (from, to) == (2, 3) {
                // The lowest bit of the scalar, wherever the suite has it.
                let at = if suite == Suite::P256 { package.len() - 1 } else { package.len() - 32 };
                package[at] ^= 1;
            }
        });
        assert_eq!(spoiled.err(), Some(Error::KeyGeneration(Some(2))));
    }
}

#[test]
fn public_shares_off_the_polynomial_are_noticed() {
    for suite in Suite::ALL {
        let (holders, others) = (generate(suite, 4, 2), generate(suite, 4, 2));
        let mut all = holders[0].publics.clone();
        publics::group(&all, 2).expect("one polynomial");
        all.insert(4, others[3].share.public());
        assert_eq!(publics::group(&all, 2).err(), Some(Error::KeyGeneration(Some(4))));
        all.retain(|index, _| *index == 1);
        assert_eq!(publics::group(&all, 2).err(), Some(Error::Quorum));
    }
}

/// What `helpers` send on for the holder `lost`.
fn sums(holders: &[Holder], helpers: &[u8], lost: u8, group: &PublicShare) -> Vec<Part> {
    let mut parts: BTreeMap<u8, Vec<Part>> = BTreeMap::new();
    for helper in helpers {
        let holder = &holders[usize::from(*helper) - 1];
        for (to, part) in repair::split((&holder.share, *helper), helpers, lost, group).expect("splits") {
            parts.entry(to).or_default().push(part);
        }
    }
    parts.values().map(|parts| repair::sum(group.suite(), parts).expect("sums")).collect()
}

#[test]
fn a_lost_fragment_is_restored_exactly_and_a_spoiled_repair_is_refused() {
    for suite in Suite::ALL {
        let holders = generate(suite, 5, 3);
        let group = publics::group(&holders[0].publics, 3).expect("one polynomial");
        for (lost, helpers) in [(1_u8, [2_u8, 3, 4]), (3, [1, 2, 5]), (5, [4, 1, 3])] {
            let holder = &holders[usize::from(lost) - 1];
            let mut sent = sums(&holders, &helpers, lost, &group);
            let restored: PrfShare = repair::restore(&sent, &holder.publics[&lost]).expect("restores");
            assert_eq!(restored.expose_bytes(), holder.share.expose_bytes());
            let at = if suite == Suite::P256 { 31 } else { 0 };
            sent[1][at] ^= 1;
            assert_eq!(repair::restore(&sent, &holder.publics[&lost]).err(), Some(Error::Repair));
        }
        assert!(repair::split((&holders[0].share, 1), &[1, 2, 3], 3, &group).is_err(), "nobody helps itself");
        assert!(repair::split((&holders[0].share, 1), &[2, 3, 4], 5, &group).is_err(), "it is no helper");
    }
}

#[test]
fn a_new_holder_gets_a_fragment_that_fits_what_everybody_can_compute() {
    for suite in Suite::ALL {
        let holders = generate(suite, 3, 2);
        let group = publics::group(&holders[0].publics, 2).expect("one polynomial");
        let expected = publics::at(&holders[0].publics, 2, 4).expect("a point");
        let share = repair::restore(&sums(&holders, &[1, 3], 4, &group), &expected).expect("enrols");
        let mut publics = holders[0].publics.clone();
        publics.insert(4, share.public());
        assert_eq!(publics::group(&publics, 2).expect("one polynomial"), group);
        let here = input(suite, "/a");
        let record = Record::seal(&here, &kek(&[&holders[0], &holders[1]], &here), false, b"v").expect("seals");
        let new = Holder { index: 4, share, publics, transcript: [0; 32] };
        assert_eq!(record.open(&here, &kek(&[&holders[1], &new], &here)).expect("opens").as_slice(), b"v");
    }
}
