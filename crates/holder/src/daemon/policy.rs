//! What a holder allows a gateway: paths, operations, and how many different items in a minute, an hour and a day.
//!
//! What must stay true: sealing and opening are judged alike, since whoever may seal an input learns its key; memory is bounded by
//! the budgets themselves; a restart forgets what was counted, so a budget bounds what one run of the holder gives away. What a
//! gateway may bury has a budget too, whether it has a policy or not: nobody else undoes a burial.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use volvelle_fragments::Input;

use crate::eval::{Answer, Operation};
use crate::lock;
use crate::roster::Policy;

/// Versions that a gateway may bury in a day when its policy says nothing.
const BURIED_PER_DAY: u32 = 10_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What one gateway may, and what it has used of it.
pub(super) struct Guard {
    policy: Option<Policy>,
    hasher: RandomState,
    windows: Mutex<Vec<Window>>,
    /// Since when, and how many it has buried.
    buried: Mutex<(Instant, u32)>,
}

/// The items of one span of time.
struct Window {
    span: Duration,
    limit: usize,
    since: Instant,
    seen: HashSet<u64>,
}

impl Guard {
    /// Without a policy everything is allowed.
    pub(super) fn new(policy: Option<Policy>) -> Self {
        let spans = |policy: &Policy| {
            [(60, policy.per_minute), (3600, policy.per_hour), (24 * 3600, policy.per_day)]
                .into_iter()
                .filter_map(|(seconds, limit)| Some((Duration::from_secs(seconds), usize::try_from(limit?).ok()?)))
                .map(|(span, limit)| Window { span, limit, since: Instant::now(), seen: HashSet::new() })
                .collect()
        };
        let windows = Mutex::new(policy.as_ref().map(spans).unwrap_or_default());
        Self { policy, hasher: RandomState::new(), windows, buried: Mutex::new((Instant::now(), 0)) }
    }

    /// Why not, if not. An item that is allowed is counted.
    pub(super) fn refuses(&self, operation: Operation, input: &Input) -> Option<Answer> {
        let policy = self.policy.as_ref().filter(|_| operation != Operation::Probe)?;
        let place = &input.place;
        if !policy.allows(operation.word(), &place.path) {
            return Some(Answer::Denied);
        }
        let item = self.hasher.hash_one((place.realm, place.key_id, place.item, place.version));
        let mut windows = lock(&self.windows);
        for window in windows.iter_mut().filter(|window| window.since.elapsed() >= window.span) {
            window.since = Instant::now();
            window.seen.clear();
        }
        if windows.iter().any(|window| !window.seen.contains(&item) && window.seen.len() >= window.limit) {
            return Some(Answer::Rate);
        }
        for window in windows.iter_mut() {
            window.seen.insert(item);
        }
        None
    }

    /// Why a version that is not buried yet may not be, if it may not. One that may is counted.
    pub(super) fn refuses_burial(&self, input: &Input) -> Option<Answer> {
        let allowed = self.policy.as_ref().is_none_or(|policy| policy.allows("bury", &input.place.path));
        if !allowed {
            return Some(Answer::Denied);
        }
        let limit = self.policy.as_ref().and_then(|policy| policy.buried_per_day).unwrap_or(BURIED_PER_DAY);
        let mut buried = lock(&self.buried);
        if buried.0.elapsed() >= DAY {
            *buried = (Instant::now(), 0);
        }
        if buried.1 >= limit {
            return Some(Answer::Rate);
        }
        buried.1 += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use volvelle_fragments::{Place, Suite};

    use super::*;

    fn input(path: &str, version: u32) -> Input {
        let place = Place { realm: [1; 16], key_id: 1, purpose: 1, item: [2; 16], version, path: path.to_owned() };
        Input { suite: Suite::Ristretto255, place, salt: [3; 32] }
    }

    fn policy() -> Policy {
        Policy {
            gateway: String::new(),
            prefixes: vec!["/prod/".to_owned(), "/one".to_owned()],
            operations: vec!["open".to_owned()],
            per_minute: Some(2),
            per_hour: None,
            per_day: Some(3),
            buried_per_day: Some(2),
        }
    }

    #[test]
    fn only_what_the_policy_names_is_allowed() {
        let guard = Guard::new(Some(policy()));
        for (path, refused) in [
            ("/prod/a", None),
            ("/one", None),
            ("/one/b", None),
            ("/onerous", Some(Answer::Denied)),
            ("/prod", Some(Answer::Denied)),
            ("/", Some(Answer::Denied)),
        ] {
            assert_eq!(guard.refuses(Operation::Open, &input(path, 1)), refused, "{path}");
        }
        assert_eq!(guard.refuses(Operation::Seal, &input("/one", 1)), Some(Answer::Denied));
        assert_eq!(guard.refuses(Operation::Probe, &input("/", 1)), None);
        assert_eq!(Guard::new(None).refuses(Operation::Seal, &input("/", 1)), None);
    }

    #[test]
    fn burying_needs_a_word_of_its_own_and_has_a_budget() {
        let all = Guard::new(None);
        assert_eq!(all.refuses_burial(&input("/", 1)), None);
        lock(&all.buried).1 = BURIED_PER_DAY;
        assert_eq!(all.refuses_burial(&input("/", 2)), Some(Answer::Rate), "even without a policy");
        assert_eq!(Guard::new(Some(policy())).refuses_burial(&input("/one", 1)), Some(Answer::Denied));
        let may = Guard::new(Some(Policy { operations: vec!["bury".to_owned()], ..policy() }));
        assert_eq!(may.refuses_burial(&input("/two", 1)), Some(Answer::Denied), "another path");
        let asked = |version| may.refuses_burial(&input("/one", version));
        assert_eq!((asked(1), asked(2), asked(3)), (None, None, Some(Answer::Rate)));
        let yesterday = Instant::now().checked_sub(DAY).expect("up for a day");
        lock(&may.buried).0 = yesterday;
        assert_eq!(asked(3), None);
    }

    #[test]
    fn different_items_are_counted_and_the_same_one_is_not() {
        let guard = Guard::new(Some(policy()));
        let asked = |version| guard.refuses(Operation::Open, &input("/one", version));
        assert_eq!((asked(1), asked(2), asked(1), asked(2)), (None, None, None, None));
        assert_eq!(asked(3), Some(Answer::Rate));
        // A minute later another one fits into the day, and then no more.
        lock(&guard.windows)[0].since = Instant::now().checked_sub(Duration::from_secs(61)).expect("up for a minute");
        assert_eq!((asked(3), asked(4)), (None, Some(Answer::Rate)));
        assert_eq!(asked(1), None);
    }
}
