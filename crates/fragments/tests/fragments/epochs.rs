//! The epochs of a key searched exhaustively: holders that crash at every write, messages lost, repeated and reordered, and
//! coordinators that say whatever they like, forget, or work against each other.
//!
//! The model runs the very `prepare`, `certify`, `erase` and `plan` of the product. A message that was sent once may arrive at
//! any time, any number of times, or never. A coordinator may begin an attempt with any base and number, so one that forgot what it
//! did, one that was told something old, and several at once are all among them. Holders are alike, so worlds that differ by who is
//! who are searched once: in a world they stand in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use stateright::{Checker as _, Expectation, HasDiscoveries, Model, Property};
use volvelle_fragments::epoch::{Certificate, Epochs, Held, Plan, Transcript, plan};

/// What is broken on purpose, to show that the search would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Correct,
    /// The new fragment takes the place of the old one as soon as it is there.
    ReplaceOnReceipt,
    /// A certificate needs t holders only.
    ThresholdCertifies,
    /// An attempt that is given up is deleted.
    AbortDeletes,
    /// A certificate lets everything else be erased, newer epochs too.
    ErasesNewer,
}

#[derive(Clone, Copy, Debug)]
struct Refreshes {
    variant: Variant,
    n: usize,
    t: usize,
    /// Attempts that may be begun.
    attempts: usize,
}

/// An attempt as a coordinator began it; its outcome's transcript is made of its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Attempt {
    base: u32,
    number: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Holder {
    disk: Epochs,
    /// The attempt whose outcome it has computed and not stored; lost in a crash.
    memory: Option<usize>,
    /// The attempts it confirmed to somebody. A message once sent cannot be taken back.
    confirmed: BTreeSet<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    holders: Vec<Holder>,
    attempts: Vec<Attempt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Begin(Attempt),
    Compute(usize, usize),
    Crash(usize),
    Store(usize),
    Confirm(usize, usize),
    Certify(usize, usize),
    Erase(usize, u32),
    Abort(usize, usize),
}

fn transcript(attempt: usize) -> Transcript {
    [u8::try_from(attempt).expect("few") + 1; 32]
}

impl Refreshes {
    fn certificate(&self, world: &World, attempt: usize) -> Option<Certificate> {
        let confirmed: BTreeMap<u8, Transcript> = (1..)
            .zip(&world.holders)
            .filter(|(_, holder)| holder.confirmed.contains(&attempt))
            .map(|(index, _)| (index, transcript(attempt)))
            .collect();
        let members: BTreeSet<u8> = match self.variant {
            Variant::ThresholdCertifies if confirmed.len() >= self.t => confirmed.keys().copied().collect(),
            _ => (1..).take(self.n).collect(),
        };
        Certificate::of(world.attempts[attempt].number, &members, &confirmed)
    }

    /// Every number that was ever certified, with its outcome: epoch 0, and what all confirmed.
    fn certified(&self, world: &World) -> Vec<(u32, Transcript)> {
        let attempts = (0..world.attempts.len()).filter(|attempt| self.certificate(world, *attempt).is_some());
        std::iter::once((0, [0; 32]))
            .chain(attempts.map(|attempt| (world.attempts[attempt].number, transcript(attempt))))
            .collect()
    }

    fn store(&self, holder: &mut Holder, attempt: usize, how: Attempt) {
        holder.memory = None;
        let before = holder.disk.clone();
        if holder.disk.prepare(how.base, how.number, transcript(attempt)).is_err() {
            return;
        }
        if self.variant == Variant::ReplaceOnReceipt && holder.disk != before {
            holder.disk = Epochs::of([(how.number, Held { transcript: transcript(attempt), certified: false })]);
        }
    }
}

impl Model for Refreshes {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let disk = Epochs::of([(0, Held { transcript: [0; 32], certified: true })]);
        let holder = Holder { disk, memory: None, confirmed: BTreeSet::new() };
        vec![World { holders: vec![holder; self.n], attempts: vec![] }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.attempts.len() < self.attempts {
            let numbers = 1..=u32::try_from(self.attempts).expect("few");
            actions.extend(
                numbers.flat_map(|number| (0..number).map(move |base| Action::Begin(Attempt { base, number }))),
            );
        }
        let certain: Vec<bool> = (0..world.attempts.len()).map(|a| self.certificate(world, a).is_some()).collect();
        for (i, holder) in world.holders.iter().enumerate() {
            match holder.memory {
                Some(_) => actions.extend([Action::Store(i), Action::Crash(i)]),
                None => actions.extend((0..world.attempts.len()).map(|attempt| Action::Compute(i, attempt))),
            }
            for (attempt, certain) in certain.iter().enumerate() {
                let number = world.attempts[attempt].number;
                let stored = holder.disk.held().any(|(n, held)| n == number && held.transcript == transcript(attempt));
                if stored && !holder.confirmed.contains(&attempt) {
                    actions.push(Action::Confirm(i, attempt));
                }
                if *certain {
                    actions.push(Action::Certify(i, attempt));
                }
                if self.variant == Variant::AbortDeletes && stored {
                    actions.push(Action::Abort(i, attempt));
                }
            }
            let newer = |holder: &Holder| {
                let newest = holder.disk.certified().unwrap_or(0);
                holder.disk.held().map(|(n, _)| n).filter(|n| *n != newest).collect::<Vec<_>>()
            };
            let erased = if self.variant == Variant::ErasesNewer && holder.disk.certified() > Some(0) {
                newer(holder)
            } else {
                holder.disk.superseded()
            };
            actions.extend(erased.into_iter().map(|number| Action::Erase(i, number)));
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Begin(attempt) => world.attempts.push(attempt),
            Action::Compute(i, attempt) => {
                let holder = &mut world.holders[i];
                // Nothing is computed but from the base, and nothing that would be refused.
                let how = before.attempts[attempt];
                let mut dry = holder.disk.clone();
                let new = dry.prepare(how.base, how.number, transcript(attempt)).is_ok() && dry != holder.disk;
                holder.memory = new.then_some(attempt);
            }
            Action::Crash(i) => world.holders[i].memory = None,
            Action::Store(i) => {
                if let Some(attempt) = world.holders[i].memory {
                    self.store(&mut world.holders[i], attempt, before.attempts[attempt]);
                }
            }
            Action::Confirm(i, attempt) => {
                world.holders[i].confirmed.insert(attempt);
            }
            Action::Certify(i, attempt) => {
                let certificate = self.certificate(before, attempt)?;
                world.holders[i].disk.certify(&certificate).ok()?;
            }
            Action::Erase(i, number) => {
                let disk = &mut world.holders[i].disk;
                if disk.erase(number).is_err() {
                    *disk = Epochs::of(disk.held().filter(|(n, _)| *n != number).map(|(n, held)| (n, held.clone())));
                }
            }
            Action::Abort(i, attempt) => {
                let number = before.attempts[attempt].number;
                let disk = &mut world.holders[i].disk;
                let kept = disk.held().filter(|(n, held)| *n != number || held.certified);
                *disk = Epochs::of(kept.map(|(n, held)| (n, held.clone())));
            }
        }
        world.holders.sort();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("any t holders share an epoch", any_t_share),
            Property::always("one number has one outcome", |m: &Self, w: &World| {
                let certified = m.certified(w);
                certified.iter().all(|(n, outcome)| certified.iter().all(|(m, other)| n != m || outcome == other))
            }),
            Property::always("everybody holds the newest certified epoch", |m: &Self, w: &World| {
                let newest = m.certified(w).into_iter().max().expect("epoch 0");
                w.holders.iter().all(|h| h.disk.held().any(|(n, held)| (n, held.transcript) == newest))
            }),
            Property::always("whoever lacks a certified epoch knows a newer one", |m: &Self, w: &World| {
                let certified = m.certified(w);
                w.holders
                    .iter()
                    .all(|h| certified.iter().all(|(n, _)| h.disk.holds(*n) || h.disk.certified() > Some(*n)))
            }),
            Property::always("an honest coordinator brings it to an end", settles),
            Property::sometimes("a refresh is complete and the old epoch is gone", |_: &Self, w: &World| {
                w.holders.iter().all(|h| h.disk.held().count() == 1 && h.disk.certified() > Some(0))
            }),
            Property::sometimes("an attempt that broke off is superseded", |_: &Self, w: &World| {
                w.holders.iter().all(|h| h.disk.held().count() == 1 && h.disk.certified() == Some(2))
                    && w.attempts.iter().any(|a| a.number == 1)
                    && !w.holders.iter().all(|h| h.confirmed.contains(&0))
            }),
        ]
    }
}

fn any_t_share(model: &Refreshes, world: &World) -> bool {
    (0_u32..1 << model.n).filter(|set| set.count_ones() as usize == model.t).all(|set| {
        let chosen: Vec<&Epochs> =
            world.holders.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, h)| &h.disk).collect();
        chosen[0].held().any(|(number, held)| {
            let same = |(n, other): (u32, &Held)| n == number && other.transcript == held.transcript;
            chosen.iter().all(|disk| disk.held().any(same))
        })
    })
}

/// Left alone with one coordinator that follows the plan, everybody ends with one and the same epoch, newer than before.
fn settles(model: &Refreshes, world: &World) -> bool {
    if world.holders.iter().any(|holder| holder.memory.is_some()) {
        // The same world after a crash is searched too.
        return true;
    }
    let mut disks: BTreeMap<u8, Epochs> = (1..).zip(world.holders.iter().map(|h| h.disk.clone())).collect();
    let members: BTreeSet<u8> = disks.keys().copied().collect();
    let before = model.certified(world).iter().map(|(n, _)| *n).max();
    for round in 0..4 {
        let number = match plan(&disks) {
            Some(Plan::Finish(number)) => number,
            Some(Plan::Begin { base, number }) => {
                for disk in disks.values_mut() {
                    if disk.prepare(base, number, [200 + round; 32]).is_err() {
                        return false;
                    }
                }
                number
            }
            Some(Plan::Repair(_)) | None => return false,
        };
        let confirmed = disks
            .iter()
            .filter_map(|(index, disk)| {
                disk.held().find(|(n, _)| *n == number).map(|(_, held)| (*index, held.transcript))
            })
            .collect();
        let Some(certificate) = Certificate::of(number, &members, &confirmed) else { return false };
        for disk in disks.values_mut() {
            if disk.certify(&certificate).is_err() {
                return false;
            }
            for old in disk.superseded() {
                if disk.erase(old).is_err() {
                    return false;
                }
            }
        }
        if round > 0 {
            break;
        }
    }
    disks.values().all(|d| d.held().count() == 1 && d.certified() > before && Some(d) == disks.get(&1))
}

/// Past the tests' own capture: how much was searched belongs to the result.
fn report(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// Two attempts, with any base and number each.
fn holds(n: usize, t: usize) {
    let model = Refreshes { variant: Variant::Correct, n, t, attempts: 2 };
    let checker = model.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    report(&format!("epochs, {t} of {n}, at most 2 attempts begun: {states} states, all there are"));
    checker.assert_properties();
}

#[test]
fn any_two_of_three_share_an_epoch_at_every_moment() {
    holds(3, 2);
    // With three attempts the space is too large for every run of the tests: its beginning, breadth first.
    let model = Refreshes { variant: Variant::Correct, n: 3, t: 2, attempts: 3 };
    let checker = model.checker().threads(2).target_state_count(60_000).spawn_bfs().join();
    let states = checker.unique_state_count();
    report(&format!("epochs, 2 of 3, at most 3 attempts begun: the first {states} states, not all"));
    for property in model.properties().iter().filter(|p| p.expectation == Expectation::Always) {
        assert!(checker.discovery(property.name).is_none(), "{}", property.name);
    }
}

#[test]
fn any_two_of_four_share_an_epoch_at_every_moment() {
    holds(4, 2);
}

#[test]
fn any_three_of_five_share_an_epoch_at_every_moment() {
    holds(5, 3);
}

#[test]
fn every_protocol_with_a_flaw_is_found_out() {
    let naive = [(3, 2), (4, 2), (5, 3)].map(|size| (Variant::ReplaceOnReceipt, size));
    let others = [Variant::ThresholdCertifies, Variant::AbortDeletes, Variant::ErasesNewer].map(|v| (v, (3, 2)));
    let broken = ["any t holders share an epoch", "everybody holds the newest certified epoch"];
    for (variant, (n, t)) in naive.into_iter().chain(others) {
        let model = Refreshes { variant, n, t, attempts: 2 };
        let until = HasDiscoveries::AnyOf(broken.into());
        let checker = model.checker().threads(2).finish_when(until).spawn_bfs().join();
        let found = broken.into_iter().find(|property| checker.discovery(property).is_some());
        report(&format!(
            "epochs, {t} of {n}, {variant:?}: broken (\"{}\") after {} states",
            found.unwrap_or("NOT FOUND"),
            checker.unique_state_count()
        ));
        assert!(found.is_some(), "{variant:?} passes with {t} of {n}");
    }
}

#[test]
fn too_many_attempts_and_old_numbers_are_refused() {
    let mut epochs = Epochs::of([(4, Held { transcript: [0; 32], certified: true })]);
    assert!(epochs.prepare(3, 5, [1; 32]).is_err(), "the base is not there");
    assert!(epochs.prepare(4, 4, [1; 32]).is_err(), "the number is taken");
    assert!(epochs.prepare(4, 3, [1; 32]).is_err(), "the number is old");
    let last = 4 + u32::try_from(volvelle_fragments::epoch::MOST_HELD).expect("small") - 1;
    for number in 5..=last {
        epochs.prepare(4, number, [1; 32]).expect("one more");
    }
    assert!(epochs.prepare(4, last + 1, [1; 32]).is_err(), "too many");
    epochs.prepare(4, last, [1; 32]).expect("the same again is no news");
    assert!(epochs.erase(4).is_err(), "it is in use");
    assert_eq!(plan(&BTreeMap::from([(1, epochs.clone()), (2, Epochs::default())])), Some(Plan::Repair(vec![2])));
    assert_eq!(plan(&BTreeMap::from([(1, epochs.clone()), (2, epochs)])), Some(Plan::Finish(last)));
    assert_eq!(plan(&BTreeMap::new()), None);
}
