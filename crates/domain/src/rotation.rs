//! The rotation of one slot as a pure state machine: no I/O, no clock, no randomness.
//!
//! [`next`] says what to do in a state; whoever did it tells [`step`] what came of it and saves the state
//! returned before doing anything else. What must stay true at every instant, whatever crashes: one of the versions
//! *current* and *candidates* opens the account. Therefore the target hears of a version only after that version
//! is saved ([`Stage::Staged`]), and a version leaves the set only by [`Dropped`], which nobody can make without
//! a [`Witness`] of another version.

use serde::{Deserialize, Serialize};

use crate::connector::{ActingAs, FailureClass};
use crate::ids::Version;

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A worker took it; nothing was done yet.
    Claimed,
    /// The target was reached and would admit the change; nothing has changed.
    Preflighted,
    /// The candidate is stored; the target may have heard of it.
    Staged,
    /// The target confirmed the change.
    Applied,
    /// A version was witnessed to open the account; only the books are to be closed.
    Verified,
    /// A version is current, and what it superseded is being taken off the target (issued credentials only).
    Revoking,
    /// It is not known which version opens the account.
    InDoubt,
    /// The candidate is current.
    Done,
    /// Nothing changed: the version that was current still opens the account, or nothing was tried.
    Failed,
    /// Every stored version was definitely refused and nobody can help it: a person is needed.
    OutOfSync,
}

impl Stage {
    /// Whether the rotation has ended.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::OutOfSync)
    }

    /// The stage as it is written in answers, metrics and the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Preflighted => "preflighted",
            Self::Staged => "staged",
            Self::Applied => "applied",
            Self::Verified => "verified",
            Self::Revoking => "revoking",
            Self::InDoubt => "in_doubt",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::OutOfSync => "out_of_sync",
        }
    }
}

/// How often things are tried before a person is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// New candidates after a policy refused one.
    pub policy_retries: u8,
    /// Applications of one candidate.
    pub applies: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self { policy_retries: 3, applies: 5 }
    }
}

/// Where a new credential comes from, and what becomes of the former one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// We choose it, and it replaces the former one on the target.
    #[default]
    Chosen,
    /// The target makes it beside the former one, which is revoked when the new one was witnessed.
    Issued,
    /// The same, and the former one stays until the grace is over.
    Graceful,
    /// The target makes it and puts it in the former one's place; nobody can be asked which of them opens.
    Blind,
    /// We choose it, and it replaces the former one; nobody can be asked which of them opens. So the target's answer is believed, and
    /// where there was none the target is told the same again.
    Told,
}

/// A rotation as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// How far it has come.
    pub stage: Stage,
    /// The version last witnessed, if there is one.
    pub current: Option<Version>,
    /// Versions stored since that may be on the target, oldest first.
    pub candidates: Vec<Version>,
    /// Whether the newest candidate is known not to have been sent since it was staged.
    pub unsent: bool,
    /// Whether the target may have taken one of the candidates at any time.
    #[serde(default)]
    pub heard: bool,
    /// Why the target definitely refused the newest candidate, if it did.
    pub rejected: Option<FailureClass>,
    /// What is to be written in the books (stage `Verified`), and what follows a revocation (stage `Revoking`).
    pub settling: Option<Settling>,
    /// Where a new credential comes from.
    #[serde(default)]
    pub manner: Manner,
    /// Versions that are not current any more and may still open the account: to be revoked.
    #[serde(default)]
    pub superseded: Vec<Version>,
    /// Applications of the newest candidate; of a revocation in stage `Revoking`.
    pub applies: u8,
    /// New candidates made because a policy refused one.
    pub policy_retries: u8,
    /// Why it failed, is in doubt or waits.
    pub class: Option<FailureClass>,
}

/// What is to be written when a version was witnessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settling {
    /// The version witnessed to open the account.
    pub winner: Version,
    /// What follows.
    pub then: Then,
}

/// What follows when the books are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The rotation succeeded.
    Done,
    /// It ends without a change.
    Fail,
    /// Another candidate is tried.
    Restage,
}

impl State {
    /// A fresh rotation of a slot with these stored versions. `candidates` left over from an earlier rotation
    /// are resolved before a new one is made.
    #[must_use]
    pub const fn new(current: Option<Version>, candidates: Vec<Version>) -> Self {
        Self {
            stage: Stage::Claimed,
            current,
            heard: !candidates.is_empty(),
            candidates,
            unsent: false,
            rejected: None,
            settling: None,
            manner: Manner::Chosen,
            superseded: Vec::new(),
            applies: 0,
            policy_retries: 0,
            class: None,
        }
    }

    /// The same where the target makes the credential; `superseded` may still open the account from an earlier rotation.
    #[must_use]
    pub fn issued(mut self, manner: Manner, superseded: Vec<Version>) -> Self {
        self.manner = manner;
        self.superseded = superseded;
        self
    }

    /// The end of a grace: nothing new is made, `superseded` is revoked. `None` without a current version.
    #[must_use]
    pub fn ending(current: Option<Version>, superseded: Vec<Version>) -> Option<Self> {
        let settling = Some(Settling { winner: current?, then: Then::Done });
        let state = Self { settling, ..Self::new(current, Vec::new()) };
        Some(state.issued(Manner::Graceful, superseded).at(Stage::Revoking))
    }

    /// Versions one of which opens the account.
    pub fn open_set(&self) -> impl Iterator<Item = Version> + '_ {
        self.candidates.iter().rev().copied().chain(self.current)
    }

    fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    fn because(mut self, class: Option<FailureClass>) -> Self {
        self.class = class;
        self
    }
}

/// Proof that a version was seen to open the account. Only [`step`] and [`next`] make one, out of a probe's answer; where nobody can
/// be asked ([`Manner::Blind`], [`Manner::Told`]), out of what the target answered to the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness(Version);

impl Witness {
    /// The version that opens the account.
    #[must_use]
    pub const fn version(self) -> Version {
        self.0
    }
}

/// Permission to take one version out of the set {current, candidates}.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    version: Version,
    witness: Witness,
}

impl Dropped {
    /// The only way to drop a version: another one was witnessed.
    fn new(version: Version, witness: Witness) -> Option<Self> {
        (version != witness.0).then_some(Self { version, witness })
    }

    /// The version that may go.
    #[must_use]
    pub const fn version(self) -> Version {
        self.version
    }

    /// The witnessed version on account of which it may go.
    #[must_use]
    pub const fn witness(self) -> Witness {
        self.witness
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Prove that the change can be made; answer [`Event::Preflight`].
    Preflight,
    /// Generate, seal and store a candidate in the same transaction as the state; answer [`Event::Staged`].
    Stage,
    /// Make this version the account's credential; answer [`Event::Applied`].
    Apply(Version),
    /// Find out which of these open the account, in this order; answer [`Event::Probed`].
    Probe(Vec<Version>),
    /// In one transaction: the winner becomes current, `dropped` leave the set; answer [`Event::Settled`].
    Settle {
        /// The version that opens the account.
        winner: Witness,
        /// The versions that do not any more.
        dropped: Vec<Dropped>,
    },
    /// Take these off the target, and whatever an attempt to issue one of them left there; answer [`Event::Revoked`].
    Revoke(Vec<Version>),
    /// Give the lease back and come again after a back-off; the next claim is answered with [`Event::Claimed`].
    Wait,
    /// The rotation has ended.
    End,
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A worker took the lease, of a fresh row or of one that was left.
    Claimed,
    /// The preflight's answer.
    Preflight(Result<(), FailureClass>),
    /// The candidate of this number is stored.
    Staged(Version),
    /// The connector's answer to apply.
    Applied(Applied),
    /// The connector's answers, in the order asked.
    Probed {
        /// One answer per version.
        answers: Vec<(Version, Answer)>,
        /// Whether no application of ours can still be under way on the target.
        quiet: bool,
    },
    /// The books are closed.
    Settled,
    /// What was superseded is off the target, or why not.
    Revoked(Result<(), FailureClass>),
}

/// What became of a change, without words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Applied {
    /// The target confirmed.
    Confirmed,
    /// Definitely not changed.
    Rejected(FailureClass),
    /// Definitely nothing was sent.
    NotReached(FailureClass),
    /// May have changed.
    Ambiguous(FailureClass),
}

/// Whether a version opens the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It does.
    Opens,
    /// It definitely does not.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What to do in `state`, just after it was saved.
#[must_use]
pub fn next(state: &State) -> Effect {
    match state.stage {
        Stage::Claimed => Effect::Preflight,
        // A target admits few credentials at a time: room is made first.
        Stage::Preflighted if !state.superseded.is_empty() => Effect::Revoke(state.superseded.clone()),
        Stage::Preflighted => Effect::Stage,
        Stage::Staged if state.unsent => Effect::Wait,
        Stage::Staged => match state.candidates.last() {
            Some(newest) => Effect::Apply(*newest),
            None => Effect::Stage,
        },
        Stage::Applied => Effect::Probe(state.candidates.last().copied().into_iter().collect()),
        Stage::InDoubt | Stage::Revoking if state.class.is_some() => Effect::Wait,
        Stage::Revoking => Effect::Revoke(state.superseded.clone()),
        Stage::InDoubt => Effect::Probe(state.open_set().collect()),
        Stage::Verified => settle(state),
        Stage::Done | Stage::Failed | Stage::OutOfSync => Effect::End,
    }
}

fn settle(state: &State) -> Effect {
    let Some(settling) = state.settling else { return Effect::Wait };
    let winner = Witness(settling.winner);
    let dropped = state.open_set().filter_map(|version| Dropped::new(version, winner)).collect();
    Effect::Settle { winner, dropped }
}

/// The state after `event`. An event that does not belong to the state changes nothing.
#[must_use]
pub fn step(state: &State, event: &Event, acting: ActingAs, limits: Limits) -> State {
    let s = state.clone();
    match (state.stage, event) {
        (_, Event::Claimed) => claimed(s),
        (Stage::Claimed, Event::Preflight(Ok(()))) if s.candidates.is_empty() => s.at(Stage::Preflighted).because(None),
        (Stage::Claimed, Event::Preflight(Ok(()))) => s.at(Stage::InDoubt).because(None),
        (Stage::Claimed, Event::Preflight(Err(class))) if s.candidates.is_empty() => {
            s.at(Stage::Failed).because(Some(*class))
        }
        (Stage::Claimed, Event::Preflight(Err(class))) => s.at(Stage::InDoubt).because(Some(*class)),
        (Stage::Preflighted, Event::Staged(version)) => staged(s, *version),
        (Stage::Staged, Event::Applied(outcome)) => applied(s, *outcome),
        (Stage::Applied, Event::Probed { answers, .. }) => verified(s, answers),
        (Stage::InDoubt, Event::Probed { answers, quiet }) => resolved(s, answers, *quiet, acting, limits),
        (Stage::Verified, Event::Settled) => settled(s),
        (Stage::Preflighted | Stage::Revoking, Event::Revoked(outcome)) => revoked(s, *outcome, limits),
        _ => s,
    }
}

/// A claim after a crash or a wait: what was sent may have arrived, so ask, unless nothing was sent for sure.
fn claimed(mut s: State) -> State {
    s.class = None;
    match s.stage {
        Stage::Staged if s.unsent => s.unsent = false,
        // What a former worker witnessed may be from before a restore of the store: ask again.
        Stage::Staged | Stage::Applied | Stage::Verified => {
            s.settling = None;
            s.heard = true;
            s.stage = Stage::InDoubt;
        }
        Stage::Preflighted => s.stage = Stage::Claimed,
        _ => {}
    }
    s
}

fn staged(mut s: State, version: Version) -> State {
    s.heard &= !s.candidates.is_empty();
    s.candidates.push(version);
    s.applies = 0;
    s.rejected = None;
    s.at(Stage::Staged).because(None)
}

fn applied(mut s: State, outcome: Applied) -> State {
    s.applies = s.applies.saturating_add(1);
    s.heard |= matches!(outcome, Applied::Confirmed | Applied::Ambiguous(_));
    match outcome {
        Applied::Confirmed => s.at(Stage::Applied).because(None),
        Applied::Rejected(class) => {
            s.rejected = Some(class);
            s.at(Stage::InDoubt).because(None)
        }
        Applied::NotReached(class) => {
            s.unsent = true;
            s.because(Some(class))
        }
        Applied::Ambiguous(_) => s.at(Stage::InDoubt).because(None),
    }
}

fn verified(s: State, answers: &[(Version, Answer)]) -> State {
    match answers.first() {
        Some((version, Answer::Opens)) => won(s, *version, Then::Done),
        // The target has just confirmed it, and does not show that it cannot be so.
        Some((version, Answer::Unknown)) if s.manner == Manner::Told => won(s, *version, Then::Done),
        _ => s.at(Stage::InDoubt).because(None),
    }
}

fn won(mut s: State, winner: Version, then: Then) -> State {
    s.settling = Some(Settling { winner, then });
    s.at(Stage::Verified)
}

fn resolved(s: State, answers: &[(Version, Answer)], quiet: bool, acting: ActingAs, limits: Limits) -> State {
    let opens = answers.iter().find(|(_, answer)| *answer == Answer::Opens).map(|(version, _)| *version);
    let all_refused = answers.len() == s.open_set().count() && answers.iter().all(|(_, a)| *a == Answer::Refused);
    match opens {
        Some(_) if !quiet => s.because(Some(FailureClass::Timeout)),
        Some(winner) if s.candidates.contains(&winner) => won(s, winner, Then::Done),
        Some(current) => unchanged(s, current, answers, limits),
        None if s.manner == Manner::Blind && quiet => unseen(s, limits),
        None if s.manner == Manner::Told && quiet => untold(s, limits),
        None if all_refused && quiet => refused(s, acting, limits),
        None => s.because(Some(FailureClass::Unreachable)),
    }
}

/// The former value still opens the account and nothing is under way.
fn unchanged(mut s: State, current: Version, answers: &[(Version, Answer)], limits: Limits) -> State {
    let refused = |v: &Version| answers.iter().any(|(asked, a)| asked == v && *a == Answer::Refused);
    let older_refused = s.candidates.iter().rev().skip(1).all(refused);
    let newest_refused = s.rejected.is_some() || s.candidates.last().is_none_or(refused);
    if !(older_refused && newest_refused) {
        return s.because(Some(FailureClass::Unreachable));
    }
    match s.rejected {
        Some(FailureClass::Policy) if s.policy_retries < limits.policy_retries => {
            s.policy_retries += 1;
            won(s, current, Then::Restage)
        }
        Some(class) => won(s.because(Some(class)), current, Then::Fail),
        None if s.candidates.is_empty() => won(s, current, Then::Restage),
        None if s.applies >= limits.applies => won(s.because(Some(FailureClass::Protocol)), current, Then::Fail),
        None => s.at(Stage::Staged).because(None),
    }
}

/// Nobody can be asked. What the target said it had not done is believed, unless an attempt before it may have arrived; where it said
/// nothing, it is told again, with the same former value, so many times; then a person has to look.
fn unseen(s: State, limits: Limits) -> State {
    match (s.rejected, s.current) {
        (Some(class), Some(current)) if !s.heard => won(s.because(Some(class)), current, Then::Fail),
        (None, _) if s.applies < limits.applies && !s.candidates.is_empty() => s.at(Stage::Staged).because(None),
        (None, Some(current)) if s.candidates.is_empty() => won(s, current, Then::Restage),
        (class, _) => s.at(Stage::OutOfSync).because(class.or(Some(FailureClass::Timeout))),
    }
}

/// Nobody can be asked, and telling the target the same again does no harm: so it is told until it answers. A refusal is believed as
/// long as no attempt before it may have arrived; otherwise either version may open, and a person has to look.
fn untold(mut s: State, limits: Limits) -> State {
    let unchanged = s.current.filter(|_| !s.heard);
    if s.rejected == Some(FailureClass::Policy) && s.policy_retries < limits.policy_retries {
        s.policy_retries += 1;
        s.rejected = None;
        return match unchanged {
            Some(current) => won(s, current, Then::Restage),
            None => s.at(Stage::Preflighted).because(None),
        };
    }
    match (s.rejected, unchanged) {
        (Some(class), Some(current)) => won(s.because(Some(class)), current, Then::Fail),
        (Some(class), None) => s.at(Stage::OutOfSync).because(Some(class)),
        (None, Some(current)) if s.candidates.is_empty() => won(s, current, Then::Restage),
        (None, _) if s.applies < limits.applies => s.at(Stage::Staged).because(None),
        (None, _) => {
            // So many times in a row; again after the back-off.
            s.applies = 0;
            s.because(Some(FailureClass::Timeout))
        }
    }
}

/// Every stored version was definitely refused.
fn refused(mut s: State, acting: ActingAs, limits: Limits) -> State {
    let may_retry = acting == ActingAs::Target && s.applies < limits.applies;
    match s.rejected {
        Some(FailureClass::Policy) if acting == ActingAs::Target && s.policy_retries < limits.policy_retries => {
            s.policy_retries += 1;
            s.rejected = None;
            s.at(Stage::Preflighted).because(None)
        }
        None if may_retry && !s.candidates.is_empty() => s.at(Stage::Staged).because(None),
        class => s.at(Stage::OutOfSync).because(class.or(Some(FailureClass::Auth))),
    }
}

fn settled(mut s: State) -> State {
    let Some(settling) = s.settling else { return s };
    // An attempt that came to nothing is cleared away at once; a former value may have its grace.
    let spared = s.current.filter(|_| s.manner == Manner::Graceful);
    if matches!(s.manner, Manner::Issued | Manner::Graceful) {
        let gone = |version: &Version| *version != settling.winner && Some(*version) != spared;
        s.superseded = s.open_set().filter(gone).collect();
    }
    s.current = Some(settling.winner);
    s.candidates.clear();
    s.applies = 0;
    if s.superseded.is_empty() {
        return ended(s, settling.then);
    }
    s.rejected = s.class.filter(|_| settling.then == Then::Fail);
    s.at(Stage::Revoking).because(None)
}

/// What could not be taken off the target after many attempts stays superseded in the store: the next rotation tries again.
fn revoked(mut s: State, outcome: Result<(), FailureClass>, limits: Limits) -> State {
    let Err(class) = outcome else {
        s.superseded.clear();
        return match (s.stage, s.settling) {
            (Stage::Revoking, Some(settling)) => {
                let class = s.rejected;
                ended(s.because(class), settling.then)
            }
            _ => s,
        };
    };
    if s.stage == Stage::Preflighted {
        return s.at(Stage::Failed).because(Some(class));
    }
    s.applies = s.applies.saturating_add(1);
    match s.settling {
        Some(settling) if s.applies >= limits.applies => ended(s.because(Some(class)), settling.then),
        _ => s.because(Some(class)),
    }
}

/// The state when the books are closed and nothing is left to be taken off the target.
fn ended(mut s: State, then: Then) -> State {
    s.settling = None;
    s.rejected = None;
    s.applies = 0;
    match then {
        Then::Done => s.at(Stage::Done).because(None),
        Then::Fail => s.at(Stage::Failed),
        Then::Restage => s.at(Stage::Preflighted).because(None),
    }
}

/// What may be written outside a rotation (repair, a password told by a person) when a probe has answered: the first version
/// that opens the account becomes current, and the others of `open_set` are superseded by it.
#[must_use]
pub fn adopt(open_set: &[Version], answers: &[(Version, Answer)]) -> Option<(Witness, Vec<Dropped>)> {
    let (winner, _) = answers.iter().find(|(_, answer)| *answer == Answer::Opens)?;
    let winner = Witness(*winner);
    Some((winner, open_set.iter().filter_map(|version| Dropped::new(*version, winner)).collect()))
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
