//! The protocol on a target that makes the credentials itself, such as access keys: every order of events in which two workers may
//! crash, lose answers and leases, searched completely.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker, Model, Property};
use volvelle_domain::connector::{ActingAs, FailureClass};
use volvelle_domain::rotation::{Answer, Applied, Effect, Event, Limits, Manner, Stage, State, next, step};

use super::{Version, report};

type Key = u8;

/// A key of somebody else, there from the beginning.
const FOREIGN: Key = 0;
/// The key that is current at the beginning.
const FIRST: Key = 1;
/// Keys that the target admits: the foreign one, and two of ours.
const MOST: usize = 3;
const LIMITS: Limits = Limits { policy_retries: 1, applies: 2 };

/// What is broken on purpose, to show that the search would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Correct,
    /// What was there before is listed after the issue only.
    ListTooLate,
    /// The former key is revoked before the new one was witnessed.
    RevokeTooEarly,
    /// What an attempt may have left on the target is never looked for.
    ForgetOrphans,
}

#[derive(Clone, Copy, Debug)]
struct Issuing {
    variant: Variant,
    manner: Manner,
    rotations: u8,
    faults: u8,
}

/// What the record of a version holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Content {
    Intent(BTreeSet<Key>),
    Key(Key),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    state: State,
    newest: bool,
    lease_ended: bool,
    /// What the last effect answered, and what is stored with it.
    event: Option<(Event, Option<Content>)>,
    /// The version whose intent it has just written.
    intended: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    row: State,
    leased_to: Option<usize>,
    contents: BTreeMap<Version, Content>,
    /// Superseded and perhaps still on the target.
    graces: BTreeSet<Version>,
    workers: [Option<Worker>; 2],
    keys: BTreeSet<Key>,
    last_key: Key,
    last: Version,
    /// Requests for a key that may still arrive, and whose answer nobody waits for.
    under_way: u8,
    begun: u8,
    faults: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Begin,
    EndGrace,
    Claim(usize),
    Perform(usize, Outcome),
    Save(usize),
    EndLease(usize),
    Crash(usize),
    Arrive,
    Vanish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Fine,
    DoneUnheard,
    Lost,
    NotReached,
    Unknown,
}

impl World {
    fn new() -> Self {
        let mut row = State::new(Some(1), vec![]);
        row.stage = Stage::Done;
        Self {
            row,
            leased_to: None,
            contents: BTreeMap::from([(1, Content::Key(FIRST))]),
            graces: BTreeSet::new(),
            workers: [None, None],
            keys: BTreeSet::from([FOREIGN, FIRST]),
            last_key: FIRST,
            last: 1,
            under_way: 0,
            begun: 0,
            faults: 0,
        }
    }

    fn key_of(&self, version: Option<Version>) -> Option<Key> {
        match self.contents.get(&version?) {
            Some(Content::Key(key)) => Some(*key),
            _ => None,
        }
    }

    fn make_key(&mut self) -> Key {
        self.last_key += 1;
        self.keys.insert(self.last_key);
        self.last_key
    }

    /// What a connector does with one superseded version, given which key is current.
    fn take_off(&mut self, version: Version, current: Option<Key>) {
        match self.contents.get(&version).cloned() {
            Some(Content::Key(key)) if Some(key) != current => {
                self.keys.remove(&key);
            }
            Some(Content::Intent(before)) => self.keys.retain(|key| before.contains(key) || Some(*key) == current),
            _ => {}
        }
    }
}

impl Model for Issuing {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let may_fail = world.faults < self.faults;
        if world.row.stage.is_final() && world.begun < self.rotations {
            actions.push(Action::Begin);
        }
        if world.row.stage.is_final() && !world.graces.is_empty() {
            actions.push(Action::EndGrace);
        }
        for (w, worker) in world.workers.iter().enumerate() {
            let Some(worker) = worker else {
                if !world.row.stage.is_final() && world.leased_to.is_none() {
                    actions.push(Action::Claim(w));
                }
                continue;
            };
            if worker.event.is_some() {
                actions.push(Action::Save(w));
            } else if !worker.lease_ended {
                let all = outcomes(&next(&worker.state), may_fail);
                actions.extend(all.into_iter().map(|outcome| Action::Perform(w, outcome)));
            }
            if may_fail {
                actions.push(Action::Crash(w));
                if !worker.lease_ended {
                    actions.push(Action::EndLease(w));
                }
            }
        }
        if world.under_way > 0 {
            actions.extend([Action::Arrive, Action::Vanish]);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Begin => {
                world.begun += 1;
                begin(self, &mut world);
            }
            Action::EndGrace => {
                world.row = State::ending(before.row.current, before.graces.iter().copied().collect())?;
            }
            Action::Claim(w) => claim(&mut world, w),
            Action::Perform(w, outcome) => {
                world.faults += u8::from(outcome != Outcome::Fine);
                perform(self, &mut world, w, outcome);
            }
            Action::Save(w) => save(&mut world, w),
            Action::EndLease(w) | Action::Crash(w) => {
                world.faults += 1;
                release(&mut world, w, action == Action::Crash(w));
            }
            Action::Arrive => {
                world.under_way -= 1;
                world.make_key();
            }
            Action::Vanish => world.under_way -= 1,
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("current opens the account", |_: &Self, w: &World| {
                w.key_of(w.row.current).is_some_and(|key| w.keys.contains(&key))
            }),
            Property::always("a key that was there before stays", |_: &Self, w: &World| w.keys.contains(&FOREIGN)),
            Property::always("a former key goes only after the new one was witnessed", |_: &Self, w: &World| {
                w.keys.contains(&FIRST) || w.row.current != Some(1)
            }),
            Property::always("an undisturbed rotation succeeds and leaves nothing behind", settles),
            Property::sometimes("a rotation succeeds", |_: &Self, w: &World| {
                w.row.stage == Stage::Done && w.row.current == Some(2)
            }),
            Property::sometimes("every fault is survived", |m: &Self, w: &World| {
                w.faults == m.faults && w.row.stage == Stage::Done && w.begun == m.rotations
            }),
        ]
    }
}

fn begin(model: &Issuing, world: &mut World) {
    let fresh = State::new(world.row.current, world.row.candidates.clone());
    world.row = fresh.issued(model.manner, world.graces.iter().copied().collect());
}

fn outcomes(effect: &Effect, may_fail: bool) -> Vec<Outcome> {
    let bad: &[Outcome] = match effect {
        Effect::End => return vec![],
        Effect::Preflight => &[Outcome::NotReached],
        Effect::Apply(_) => &[Outcome::DoneUnheard, Outcome::Lost, Outcome::NotReached],
        Effect::Probe(_) => &[Outcome::Unknown],
        Effect::Revoke(_) => &[Outcome::DoneUnheard, Outcome::NotReached],
        Effect::Stage | Effect::Settle { .. } | Effect::Wait => &[],
    };
    let mut all = vec![Outcome::Fine];
    if may_fail {
        all.extend_from_slice(bad);
    }
    all
}

fn release(world: &mut World, w: usize, crash: bool) {
    if let Some(worker) = &mut world.workers[w] {
        worker.lease_ended = true;
    }
    if world.leased_to == Some(w) {
        world.leased_to = None;
    }
    if crash {
        world.workers[w] = None;
    }
}

fn claim(world: &mut World, w: usize) {
    world.leased_to = Some(w);
    for other in world.workers.iter_mut().flatten() {
        other.newest = false;
    }
    world.row = step(&world.row, &Event::Claimed, ActingAs::User, LIMITS);
    let state = world.row.clone();
    world.workers[w] = Some(Worker { state, newest: true, lease_ended: false, event: None, intended: None });
}

fn perform(model: &Issuing, world: &mut World, w: usize, outcome: Outcome) {
    let Some(worker) = world.workers[w].clone() else { return };
    let mut intended = worker.intended;
    let answer = match next(&worker.state) {
        Effect::Preflight if outcome == Outcome::Fine => (Event::Preflight(Ok(())), None),
        Effect::Preflight => (Event::Preflight(Err(FailureClass::Unreachable)), None),
        Effect::Stage => {
            let version = world.last + 1;
            intended = Some(version);
            (Event::Staged(version), Some(Content::Intent(world.keys.clone())))
        }
        Effect::Apply(version) => {
            let again = intended.take() != Some(version);
            issue(model, world, &worker.state, (version, again), outcome)
        }
        Effect::Probe(versions) => {
            let answer = |version: Version| match world.key_of(Some(version)) {
                None => Answer::Refused,
                Some(_) if outcome == Outcome::Unknown => Answer::Unknown,
                Some(key) if world.keys.contains(&key) => Answer::Opens,
                Some(_) => Answer::Refused,
            };
            let answers = versions.into_iter().map(|version| (version, answer(version))).collect();
            (Event::Probed { answers, quiet: world.under_way == 0 }, None)
        }
        Effect::Settle { .. } => (Event::Settled, None),
        Effect::Revoke(versions) => (Event::Revoked(revoke(model, world, &versions, outcome)), None),
        Effect::Wait | Effect::End => return release(world, w, true),
    };
    if let Some(worker) = &mut world.workers[w] {
        worker.event = Some(answer);
        worker.intended = intended;
    }
}

fn issue(
    model: &Issuing,
    world: &mut World,
    state: &State,
    (version, again): (Version, bool),
    outcome: Outcome,
) -> (Event, Option<Content>) {
    if world.key_of(Some(version)).is_some() {
        return (Event::Applied(Applied::Rejected(FailureClass::Protocol)), None);
    }
    if outcome == Outcome::NotReached {
        return (Event::Applied(Applied::NotReached(FailureClass::Unreachable)), None);
    }
    let current = world.key_of(state.current);
    if again && model.variant != Variant::ForgetOrphans {
        if model.variant == Variant::ListTooLate {
            world.contents.insert(version, Content::Intent(BTreeSet::new()));
        }
        world.take_off(version, current);
    }
    if world.keys.len() >= MOST {
        return (Event::Applied(Applied::Rejected(FailureClass::Config)), None);
    }
    if outcome == Outcome::Lost {
        world.under_way += 1;
        return (Event::Applied(Applied::Ambiguous(FailureClass::Timeout)), None);
    }
    let key = world.make_key();
    if let (Variant::RevokeTooEarly, Some(current)) = (model.variant, current) {
        world.keys.remove(&current);
    }
    match outcome {
        Outcome::DoneUnheard => (Event::Applied(Applied::Ambiguous(FailureClass::Timeout)), None),
        _ => (Event::Applied(Applied::Confirmed), Some(Content::Key(key))),
    }
}

fn revoke(model: &Issuing, world: &mut World, versions: &[Version], outcome: Outcome) -> Result<(), FailureClass> {
    if outcome == Outcome::NotReached {
        return Err(FailureClass::Unreachable);
    }
    let current = world.key_of(world.row.current);
    for version in versions {
        let orphans = matches!(world.contents.get(version), Some(Content::Intent(_)));
        if !(orphans && model.variant == Variant::ForgetOrphans) {
            world.take_off(*version, current);
        }
    }
    if outcome == Outcome::DoneUnheard { Err(FailureClass::Timeout) } else { Ok(()) }
}

fn save(world: &mut World, w: usize) {
    let Some(worker) = world.workers[w].clone() else { return };
    let Some((event, content)) = worker.event else { return };
    if !worker.newest {
        world.workers[w] = None;
        return;
    }
    let before = worker.state;
    let state = step(&before, &event, ActingAs::User, LIMITS);
    match (&event, content) {
        (Event::Staged(version), Some(content)) => {
            world.last = *version;
            world.contents.insert(*version, content);
        }
        (Event::Applied(_), Some(content)) => {
            let newest = before.candidates.last().copied().unwrap_or_default();
            world.contents.insert(newest, content);
        }
        _ => {}
    }
    if let (Event::Settled, Effect::Settle { dropped, .. }) = (&event, next(&before)) {
        world.graces.extend(dropped.iter().map(|dropped| dropped.version()));
    }
    if event == Event::Revoked(Ok(())) {
        world.graces.retain(|version| !before.superseded.contains(version));
    }
    world.row = state.clone();
    let kept: BTreeSet<Version> = state.open_set().chain(world.graces.iter().copied()).collect();
    world.contents.retain(|version, _| kept.contains(version));
    let over = state.stage.is_final();
    if over {
        world.leased_to = None;
    }
    world.workers[w] = if over { None } else { Some(Worker { state, event: None, ..worker }) };
}

/// Left alone by faults, what is under way ends, and one more rotation succeeds; only current, graces and the foreign key are left.
fn settles(model: &Issuing, world: &World) -> bool {
    let mut world = world.clone();
    if world.under_way > 0 {
        world.make_key();
    }
    world.under_way = 0;
    world.workers = [None, None];
    world.leased_to = None;
    let ends = |world: &mut World| {
        for _ in 0..80 {
            if world.row.stage.is_final() {
                return true;
            }
            match &world.workers[0] {
                None => claim(world, 0),
                Some(worker) if worker.event.is_some() => save(world, 0),
                Some(_) => perform(model, world, 0, Outcome::Fine),
            }
        }
        false
    };
    if !ends(&mut world) {
        return false;
    }
    begin(model, &mut world);
    if !ends(&mut world) || world.row.stage != Stage::Done {
        return false;
    }
    let ours = world.graces.iter().copied().chain(world.row.current).filter_map(|version| world.key_of(Some(version)));
    world.keys == ours.chain([FOREIGN]).collect()
}

fn searched(variant: Variant, manner: Manner, rotations: u8, faults: u8) -> impl Checker<Issuing> {
    let model = Issuing { variant, manner, rotations, faults };
    let checker = model.checker().threads(2).spawn_bfs().join();
    report(&format!("model {model:?}: {} states", checker.unique_state_count()));
    checker
}

#[test]
fn an_issued_key_is_never_lost_and_never_left_behind() {
    searched(Variant::Correct, Manner::Issued, 2, 4).assert_properties();
}

#[test]
fn an_issued_key_lives_beside_the_former_one_in_its_grace() {
    searched(Variant::Correct, Manner::Graceful, 2, 3).assert_properties();
}

#[test]
fn the_search_has_teeth_for_issued_keys() {
    let found = |variant, property: &'static str| {
        let checker = searched(variant, Manner::Issued, 1, 2);
        assert!(checker.discovery(property).is_some(), "{variant:?} was not found");
    };
    found(Variant::ListTooLate, "a key that was there before stays");
    found(Variant::RevokeTooEarly, "a former key goes only after the new one was witnessed");
    found(Variant::ForgetOrphans, "an undisturbed rotation succeeds and leaves nothing behind");
}
