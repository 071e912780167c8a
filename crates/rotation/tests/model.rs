//! The rotation state machine searched exhaustively: two workers, one slot, a target and a network that misbehave,
//! crashes anywhere, leases that end at any moment, and a store restored from an older backup.
//!
//! The model runs the very `step` and `next` of the product. What is assumed: a worker begins nothing after its
//! lease ended (it looks at a monotonic clock), and `quiet` is only said when no application can be under way.
//! Applications begun before may still arrive at any time.

use std::collections::BTreeSet;

use stateright::{Checker as _, Model, Property};
use volvelle_domain::connector::{ActingAs, FailureClass};
use volvelle_domain::rotation::{Answer, Applied, Effect, Event, Limits, Manner, Stage, State, next, step};

#[path = "model/issued.rs"]
mod issued;

type Version = u32;

/// What is broken on purpose, to show that the search would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Correct,
    /// The target hears of a version before it is stored.
    ApplyBeforeStage,
    /// A lost answer is taken for a refusal, and the candidate is forgotten.
    DropOnLostAnswer,
    /// A refusal is believed although an attempt before it may have arrived.
    ForgetHeard,
}

#[derive(Clone, Copy, Debug)]
struct Rotations {
    variant: Variant,
    acting: ActingAs,
    /// `Told`: nobody can be asked what opens.
    manner: Manner,
    /// Rotations that may be begun.
    rotations: u8,
    /// Misbehaviours (crash, lost answer, lease ended, policy refusal) in one history.
    faults: u8,
    restores: u8,
}

const LIMITS: Limits = Limits { policy_retries: 1, applies: 2 };

/// The stored half: one row of the queue, and which versions are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Store {
    row: State,
    /// The worker whose fence is the newest, while its lease lives. (A number would make every wait a new state.)
    leased_to: Option<usize>,
    /// Whether `current` is answered as verified.
    says_verified: bool,
}

/// A worker's memory, lost in a crash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    state: State,
    /// Whether its fence is still the newest.
    newest: bool,
    /// What the last effect answered, not yet saved.
    event: Option<Event>,
    lease_ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    store: Store,
    backup: Option<Store>,
    workers: [Option<Worker>; 2],
    /// The version whose password opens the account.
    target: Version,
    /// Values ever made. A restored store gives numbers out again, but never the same value: so counted here.
    last: Version,
    /// Applications under way whose answer nobody waits for any more.
    under_way: BTreeSet<Version>,
    begun: u8,
    faults: u8,
    restores: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Begin,
    Claim(usize),
    Perform(usize, Outcome),
    Save(usize),
    EndLease(usize),
    Crash(usize),
    Arrive(Version),
    Vanish(Version),
    Backup,
    Restore,
}

/// How the world answers an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Fine,
    /// The target did it; the answer was lost.
    DoneUnheard,
    /// The request was lost, or arrives later; nobody knows.
    Lost,
    NotReached,
    PolicyRefused,
    Unknown,
}

impl Model for Rotations {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut row = State::new(Some(1), vec![]).issued(self.manner, vec![]);
        row.stage = Stage::Done;
        let store = Store { row, leased_to: None, says_verified: true };
        vec![World {
            store,
            backup: None,
            workers: [None, None],
            target: 1,
            last: 1,
            under_way: BTreeSet::new(),
            begun: 0,
            faults: 0,
            restores: 0,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let may_fail = world.faults < self.faults;
        if world.store.row.stage.is_final() && world.begun < self.rotations {
            actions.push(Action::Begin);
        }
        for w in 0..world.workers.len() {
            match &world.workers[w] {
                None if !world.store.row.stage.is_final() && world.store.leased_to.is_none() => {
                    actions.push(Action::Claim(w))
                }
                None => {}
                Some(worker) => {
                    if worker.event.is_some() {
                        actions.push(Action::Save(w));
                    } else if !worker.lease_ended {
                        let effect = next(&worker.state);
                        actions.extend(outcomes(&effect, may_fail).into_iter().map(|o| Action::Perform(w, o)));
                    }
                    if may_fail {
                        actions.push(Action::Crash(w));
                        if !worker.lease_ended {
                            actions.push(Action::EndLease(w));
                        }
                    }
                }
            }
        }
        for version in &world.under_way {
            actions.push(Action::Arrive(*version));
            actions.push(Action::Vanish(*version));
        }
        if world.restores < self.restores {
            match world.backup {
                None => actions.push(Action::Backup),
                Some(_) => actions.push(Action::Restore),
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Begin => {
                world.begun += 1;
                let row = &before.store.row;
                world.store.row = State::new(row.current, row.candidates.clone()).issued(self.manner, vec![]);
            }
            Action::Claim(w) => claim(self, &mut world, w),
            Action::Perform(w, outcome) => {
                if outcome != Outcome::Fine {
                    world.faults += 1;
                }
                perform(self, &mut world, w, outcome);
            }
            Action::Save(w) => save(self, &mut world, w),
            Action::EndLease(w) => {
                world.faults += 1;
                end_lease(&mut world, w, false);
            }
            Action::Crash(w) => {
                world.faults += 1;
                end_lease(&mut world, w, true);
            }
            Action::Arrive(version) => {
                world.under_way.remove(&version);
                world.target = version;
            }
            Action::Vanish(version) => {
                world.under_way.remove(&version);
            }
            Action::Backup => world.backup = Some(before.store.clone()),
            Action::Restore => restore(&mut world),
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("some stored version opens the account", |_: &Self, w: &World| {
                w.restores > 0 || w.store.row.open_set().any(|v| v == w.target)
            }),
            Property::always("what may still arrive is stored", |_: &Self, w: &World| {
                w.restores > 0 || w.under_way.iter().all(|v| w.store.row.open_set().any(|stored| stored == *v))
            }),
            Property::always("a quiet slot answers what opens the account", |_: &Self, w: &World| {
                let row = &w.store.row;
                w.restores > 0
                    || !matches!(row.stage, Stage::Done | Stage::Failed)
                    || (row.current == Some(w.target) && row.candidates.is_empty())
            }),
            Property::always("a restored value is never called verified unseen", |_: &Self, w: &World| {
                w.restores == 0 || !w.store.says_verified || w.store.row.open_set().any(|v| v == w.target)
            }),
            Property::always("without further faults it settles", settles),
            Property::sometimes("a rotation succeeds", |_: &Self, w: &World| {
                w.store.row.stage == Stage::Done && w.store.row.current == Some(2)
            }),
            Property::sometimes("every fault is survived", |m: &Self, w: &World| {
                w.faults == m.faults && w.store.row.stage == Stage::Done && w.begun == m.rotations
            }),
        ]
    }
}

fn outcomes(effect: &Effect, may_fail: bool) -> Vec<Outcome> {
    let bad: &[Outcome] = match effect {
        Effect::End => return vec![],
        Effect::Preflight => &[Outcome::NotReached],
        Effect::Apply(_) => &[Outcome::DoneUnheard, Outcome::Lost, Outcome::NotReached, Outcome::PolicyRefused],
        Effect::Probe(_) => &[Outcome::Unknown],
        Effect::Stage | Effect::Settle { .. } | Effect::Revoke(_) | Effect::Wait => &[],
    };
    let mut all = vec![Outcome::Fine];
    if may_fail {
        all.extend_from_slice(bad);
    }
    all
}

/// Ends the worker's lease, and with a crash its memory. What a crashed worker was about to do is never done.
fn end_lease(world: &mut World, w: usize, crash: bool) {
    if let Some(worker) = &mut world.workers[w] {
        worker.lease_ended = true;
    }
    if world.store.leased_to == Some(w) {
        world.store.leased_to = None;
    }
    if crash {
        world.workers[w] = None;
    }
}

fn claim(model: &Rotations, world: &mut World, w: usize) {
    world.store.leased_to = Some(w);
    for other in world.workers.iter_mut().flatten() {
        other.newest = false;
    }
    world.store.row = step(&world.store.row, &Event::Claimed, model.acting, LIMITS);
    world.workers[w] = Some(Worker { state: world.store.row.clone(), newest: true, event: None, lease_ended: false });
}

/// Does the effect that the worker's state asks for; the answer is not saved yet.
fn perform(model: &Rotations, world: &mut World, w: usize, outcome: Outcome) {
    let Some(worker) = world.workers[w].clone() else { return };
    let event = match next(&worker.state) {
        Effect::Preflight if outcome == Outcome::Fine => Event::Preflight(Ok(())),
        Effect::Preflight => Event::Preflight(Err(FailureClass::Unreachable)),
        Effect::Stage => {
            let version = world.last + 1;
            if model.variant == Variant::ApplyBeforeStage {
                world.target = version;
            }
            Event::Staged(version)
        }
        Effect::Apply(version) => Event::Applied(apply(world, version, outcome)),
        Effect::Probe(versions) => {
            let answer = |v: Version| match outcome {
                Outcome::Unknown => Answer::Unknown,
                _ if model.manner == Manner::Told => Answer::Unknown,
                _ if v == world.target => Answer::Opens,
                _ => Answer::Refused,
            };
            let answers = versions.into_iter().map(|v| (v, answer(v))).collect();
            Event::Probed { answers, quiet: world.under_way.is_empty() }
        }
        Effect::Settle { .. } => Event::Settled,
        Effect::Revoke(_) => Event::Revoked(Ok(())),
        Effect::Wait | Effect::End => return end_lease(world, w, true),
    };
    if let Some(worker) = &mut world.workers[w] {
        worker.event = Some(event);
    }
}

fn apply(world: &mut World, version: Version, outcome: Outcome) -> Applied {
    match outcome {
        Outcome::Fine => {
            world.target = version;
            Applied::Confirmed
        }
        Outcome::DoneUnheard => {
            world.target = version;
            Applied::Ambiguous(FailureClass::Timeout)
        }
        Outcome::Lost | Outcome::Unknown => {
            world.under_way.insert(version);
            Applied::Ambiguous(FailureClass::Timeout)
        }
        Outcome::NotReached => Applied::NotReached(FailureClass::Unreachable),
        Outcome::PolicyRefused => Applied::Rejected(FailureClass::Policy),
    }
}

/// Saves what the effect answered; a worker whose fence is not the newest changes nothing and forgets everything.
fn save(model: &Rotations, world: &mut World, w: usize) {
    let Some(worker) = world.workers[w].clone() else { return };
    let Some(event) = worker.event else { return };
    if !worker.newest {
        world.workers[w] = None;
        return;
    }
    let mut state = step(&worker.state, &event, model.acting, LIMITS);
    if let Event::Staged(version) = event {
        world.last = version;
    }
    if model.variant == Variant::DropOnLostAnswer && matches!(event, Event::Applied(Applied::Ambiguous(_))) {
        state.candidates.clear();
        state.stage = Stage::Failed;
    }
    state.heard &= model.variant != Variant::ForgetHeard;
    if state.stage == Stage::OutOfSync {
        world.store.says_verified = false;
    }
    if event == Event::Settled {
        world.store.says_verified = true;
    }
    world.store.row = state.clone();
    let over = state.stage.is_final();
    if over {
        world.store.leased_to = None;
    }
    world.workers[w] = if over { None } else { Some(Worker { state, event: None, ..worker }) };
}

/// The store goes back to the backup, which takes longer than any application lives; the gateway sees at its start
/// that it is an older one.
fn restore(world: &mut World) {
    let Some(backup) = world.backup.take() else { return };
    world.store = Store { leased_to: None, says_verified: false, ..backup };
    world.workers = [None, None];
    world.under_way.clear();
    world.restores += 1;
}

/// Whether the world, left alone by faults, comes to an end in a bounded number of steps, and to a good one.
fn settles(model: &Rotations, world: &World) -> bool {
    let mut world = world.clone();
    world.under_way.clear();
    world.workers = [None, None];
    world.store.leased_to = None;
    for _ in 0..60 {
        let row = &world.store.row;
        if row.stage.is_final() {
            return world.restores > 0 || row.current == Some(world.target) || row.candidates.contains(&world.target);
        }
        match &world.workers[0] {
            None => claim(model, &mut world, 0),
            Some(worker) if worker.event.is_some() => save(model, &mut world, 0),
            Some(_) => perform(model, &mut world, 0, Outcome::Fine),
        }
    }
    false
}

fn assert_holds(model: Rotations) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    report(&format!("model {model:?}: {} states", checker.unique_state_count()));
    checker.assert_properties();
}

fn assert_found(model: Rotations) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    report(&format!("model {model:?}: violation found after {} states", checker.unique_state_count()));
    assert!(checker.discovery("some stored version opens the account").is_some());
}

#[test]
fn nothing_is_lost_when_a_privileged_credential_acts() {
    assert_holds(Rotations {
        variant: Variant::Correct,
        acting: ActingAs::Target,
        manner: Manner::Chosen,
        rotations: 3,
        faults: 4,
        restores: 0,
    });
}

#[test]
fn nothing_is_lost_when_the_account_changes_itself() {
    let (variant, acting, manner) = (Variant::Correct, ActingAs::User, Manner::Chosen);
    assert_holds(Rotations { variant, acting, manner, rotations: 3, faults: 4, restores: 0 });
}

#[test]
fn nothing_is_lost_where_nobody_can_be_asked() {
    let (variant, acting, manner) = (Variant::Correct, ActingAs::Target, Manner::Told);
    assert_holds(Rotations { variant, acting, manner, rotations: 3, faults: 4, restores: 0 });
}

#[test]
fn the_search_has_teeth_for_what_may_have_been_heard() {
    let (variant, acting, manner) = (Variant::ForgetHeard, ActingAs::Target, Manner::Told);
    assert_found(Rotations { variant, acting, manner, rotations: 1, faults: 4, restores: 0 });
}

#[test]
fn a_restored_store_is_noticed() {
    let (variant, acting, manner) = (Variant::Correct, ActingAs::User, Manner::Chosen);
    assert_holds(Rotations { variant, acting, manner, rotations: 2, faults: 3, restores: 1 });
}

#[test]
fn the_search_has_teeth_for_storing_before_applying() {
    let (variant, acting, manner) = (Variant::ApplyBeforeStage, ActingAs::Target, Manner::Chosen);
    assert_found(Rotations { variant, acting, manner, rotations: 1, faults: 1, restores: 0 });
}

#[test]
fn the_search_has_teeth_for_never_dropping_a_candidate() {
    let (variant, acting, manner) = (Variant::DropOnLostAnswer, ActingAs::Target, Manner::Chosen);
    assert_found(Rotations { variant, acting, manner, rotations: 1, faults: 1, restores: 0 });
}

/// Past the tests' own capture: how much was searched belongs to the result.
fn report(text: &str) {
    let line = format!("{text}\n");
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}
