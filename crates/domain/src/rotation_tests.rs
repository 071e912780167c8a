//! The state machine, event by event.

use super::*;

fn after(start: State, acting: ActingAs, events: &[Event]) -> State {
    events.iter().fold(start, |state, event| step(&state, event, acting, Limits::default()))
}

fn staged_2() -> State {
    after(State::new(Some(1), vec![]), ActingAs::Target, &[Event::Claimed, Event::Preflight(Ok(())), Event::Staged(2)])
}

fn probed(answers: &[(Version, Answer)]) -> Event {
    Event::Probed { answers: answers.to_vec(), quiet: true }
}

#[test]
fn the_straight_way_ends_with_the_candidate_current() {
    let state = staged_2();
    assert_eq!(next(&state), Effect::Apply(2));
    let state = after(
        state,
        ActingAs::Target,
        &[Event::Applied(Applied::Confirmed), probed(&[(2, Answer::Opens)]), Event::Settled],
    );
    assert_eq!((state.stage, state.current, state.candidates), (Stage::Done, Some(2), vec![]));
}

#[test]
fn a_failed_preflight_changes_nothing() {
    let state = after(
        State::new(Some(1), vec![]),
        ActingAs::Target,
        &[Event::Claimed, Event::Preflight(Err(FailureClass::Unreachable))],
    );
    assert_eq!((state.stage, state.candidates), (Stage::Failed, vec![]));
}

#[test]
fn a_row_left_in_staged_is_asked_about_before_anything_else() {
    let state = after(staged_2(), ActingAs::Target, &[Event::Claimed]);
    assert_eq!(next(&state), Effect::Probe(vec![2, 1]));
}

#[test]
fn nothing_is_adopted_without_a_version_that_opens() {
    assert!(adopt(&[2, 1], &[(2, Answer::Refused), (1, Answer::Unknown)]).is_none());
    let (winner, dropped) = adopt(&[2, 1], &[(2, Answer::Refused), (1, Answer::Opens)]).expect("one opens");
    assert_eq!((winner.version(), dropped.len(), dropped[0].version()), (1, 1, 2));
}

#[test]
fn nothing_sent_means_the_same_candidate_again() {
    let state = after(staged_2(), ActingAs::Target, &[Event::Applied(Applied::NotReached(FailureClass::Unreachable))]);
    assert_eq!(next(&state), Effect::Wait);
    assert_eq!(next(&after(state, ActingAs::Target, &[Event::Claimed])), Effect::Apply(2));
}

#[test]
fn unknown_never_drops_a_candidate() {
    let state = after(
        staged_2(),
        ActingAs::User,
        &[
            Event::Applied(Applied::Ambiguous(FailureClass::Timeout)),
            probed(&[(2, Answer::Unknown), (1, Answer::Refused)]),
        ],
    );
    assert_eq!((state.stage, state.candidates.clone(), state.current), (Stage::InDoubt, vec![2], Some(1)));
    assert_eq!(next(&state), Effect::Wait);
}

#[test]
fn a_policy_rejection_drops_the_candidate_only_with_a_witness() {
    let rejected = after(staged_2(), ActingAs::Target, &[Event::Applied(Applied::Rejected(FailureClass::Policy))]);
    let unknown = after(rejected.clone(), ActingAs::Target, &[probed(&[(2, Answer::Refused), (1, Answer::Unknown)])]);
    assert_eq!(unknown.candidates, vec![2]);
    let witnessed = after(rejected, ActingAs::Target, &[probed(&[(2, Answer::Refused), (1, Answer::Opens)])]);
    let Effect::Settle { winner, dropped } = next(&witnessed) else { panic!("{witnessed:?}") };
    assert_eq!((winner.version(), dropped.len(), dropped[0].version()), (1, 1, 2));
    let restaged = after(witnessed, ActingAs::Target, &[Event::Settled]);
    assert_eq!(next(&restaged), Effect::Stage);
}

#[test]
fn nothing_is_decided_while_an_application_may_be_under_way() {
    let state = after(
        staged_2(),
        ActingAs::Target,
        &[Event::Claimed, Event::Probed { answers: vec![(2, Answer::Refused), (1, Answer::Opens)], quiet: false }],
    );
    assert_eq!((state.stage, state.candidates.clone()), (Stage::InDoubt, vec![2]));
    assert_eq!(next(&state), Effect::Wait);
}

#[test]
fn all_refused_is_repaired_by_a_privileged_credential_and_shown_otherwise() {
    let answers = probed(&[(2, Answer::Refused), (1, Answer::Refused)]);
    let privileged = after(staged_2(), ActingAs::Target, &[Event::Claimed, answers.clone()]);
    assert_eq!(next(&privileged), Effect::Apply(2));
    let own = after(staged_2(), ActingAs::User, &[Event::Claimed, answers]);
    assert_eq!((own.stage, own.candidates.clone()), (Stage::OutOfSync, vec![2]));
}

#[test]
fn where_nobody_can_be_asked_the_target_is_told_again_and_then_a_person() {
    let answers = probed(&[(2, Answer::Refused), (1, Answer::Unknown)]);
    let lost = Event::Applied(Applied::Ambiguous(FailureClass::Timeout));
    let fresh = || State::new(Some(1), vec![]).issued(Manner::Blind, vec![]);
    let begin = [Event::Claimed, Event::Preflight(Ok(())), Event::Staged(2)];
    let mut state = after(fresh(), ActingAs::User, &begin);
    for _ in 1..Limits::default().applies {
        state = after(state, ActingAs::User, &[lost.clone(), answers.clone()]);
        assert_eq!(next(&state), Effect::Apply(2));
    }
    let given_up = after(state, ActingAs::User, &[lost, answers.clone()]);
    assert_eq!((given_up.stage, given_up.current, given_up.candidates), (Stage::OutOfSync, Some(1), vec![2]));
    let refused = Event::Applied(Applied::Rejected(FailureClass::Config));
    let kept = [&begin[..], &[refused.clone(), answers.clone(), Event::Settled]].concat();
    let kept = after(fresh(), ActingAs::User, &kept);
    assert_eq!((kept.stage, kept.current, kept.candidates), (Stage::Failed, Some(1), vec![]));
    // The former value is refused because the answer that was lost had changed it.
    let lost = Event::Applied(Applied::Ambiguous(FailureClass::Timeout));
    let changed = after(fresh(), ActingAs::User, &[&begin[..], &[lost, answers.clone(), refused, answers]].concat());
    assert_eq!((changed.stage, changed.current, changed.candidates), (Stage::OutOfSync, Some(1), vec![2]));
}

fn told(current: Option<Version>, more: &[Event]) -> State {
    let fresh = State::new(current, vec![]).issued(Manner::Told, vec![]);
    let begin = [Event::Claimed, Event::Preflight(Ok(())), Event::Staged(2)];
    after(fresh, ActingAs::Target, &[&begin[..], more].concat())
}

#[test]
fn what_is_told_is_believed_when_it_was_confirmed_and_told_again_when_nobody_answered() {
    let unknown = probed(&[(2, Answer::Unknown), (1, Answer::Unknown)]);
    let lost = Event::Applied(Applied::Ambiguous(FailureClass::Timeout));
    let confirmed = [Event::Applied(Applied::Confirmed), probed(&[(2, Answer::Unknown)]), Event::Settled];
    let done = told(Some(1), &confirmed);
    assert_eq!((done.stage, done.current), (Stage::Done, Some(2)));
    let mut state = told(Some(1), &[]);
    for _ in 1..Limits::default().applies {
        state = after(state, ActingAs::Target, &[lost.clone(), unknown.clone()]);
        assert_eq!(next(&state), Effect::Apply(2), "the same once more");
    }
    let waits = after(state, ActingAs::Target, &[lost, unknown.clone()]);
    assert_eq!((next(&waits), waits.current, waits.candidates.clone()), (Effect::Wait, Some(1), vec![2]));
    let again = after(waits, ActingAs::Target, &[Event::Claimed, unknown]);
    assert_eq!(next(&again), Effect::Apply(2));
    let done = after(again, ActingAs::Target, &confirmed);
    assert_eq!((done.stage, done.current, done.candidates), (Stage::Done, Some(2), vec![]));
}

#[test]
fn a_refusal_is_believed_only_if_nothing_before_it_may_have_arrived() {
    let unknown = probed(&[(2, Answer::Unknown), (1, Answer::Unknown)]);
    let refused = |class| Event::Applied(Applied::Rejected(class));
    let kept = told(Some(1), &[refused(FailureClass::Privilege), unknown.clone(), Event::Settled]);
    assert_eq!((kept.stage, kept.current, kept.candidates), (Stage::Failed, Some(1), vec![]));
    let lost = Event::Applied(Applied::Ambiguous(FailureClass::Timeout));
    let both = told(Some(1), &[lost.clone(), unknown.clone(), refused(FailureClass::Privilege), unknown.clone()]);
    assert_eq!((both.stage, both.current, both.candidates), (Stage::OutOfSync, Some(1), vec![2]));
    // A stricter policy asks for another candidate, and what may have arrived is kept beside it.
    let stricter = told(Some(1), &[lost, unknown.clone(), refused(FailureClass::Policy), unknown, Event::Staged(3)]);
    assert_eq!((next(&stricter), stricter.candidates.clone()), (Effect::Apply(3), vec![2, 3]));
    assert!(stricter.heard);
}

#[test]
fn a_target_that_shows_that_its_word_no_longer_holds_is_told_again() {
    let answers = [Event::Applied(Applied::Confirmed), probed(&[(2, Answer::Refused)])];
    let state = told(None, &answers);
    assert_eq!((state.stage, state.candidates.clone()), (Stage::InDoubt, vec![2]));
    let state = after(state, ActingAs::Target, &[probed(&[(2, Answer::Refused)])]);
    assert_eq!(next(&state), Effect::Apply(2));
}
