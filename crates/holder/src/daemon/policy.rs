//! What a holder allows a gateway: paths, operations, and how many different items in a minute, an hour and a day.
//!
//! What must stay true: sealing and opening are judged alike, since whoever may seal an input learns its key; memory is bounded by
//! the budgets themselves; a restart forgets what was counted, so a budget bounds what one run of the holder gives away.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use volvelle_fragments::Input;

use crate::eval::{Answer, Operation};
use crate::lock;
use crate::roster::Policy;

/// What one gateway may, and what it has used of it.
pub(super) struct Guard {
    policy: Option<Policy>,
    hasher: RandomState,
    windows: Mutex<Vec<Window>>,
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
        Self { policy, hasher: RandomState::new(), windows }
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
}

#[cfg(test)]
mod tests {
    use volvelle_fragments::Place;

    use super::*;

    fn input(path: &str, version: u32) -> Input {
        let place = Place { realm: [1; 16], key_id: 1, purpose: 1, item: [2; 16], version, path: path.to_owned() };
        Input { place, salt: [3; 32] }
    }

    fn policy() -> Policy {
        Policy {
            gateway: String::new(),
            prefixes: vec!["/prod/".to_owned(), "/one".to_owned()],
            operations: vec!["open".to_owned()],
            per_minute: Some(2),
            per_hour: None,
            per_day: Some(3),
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
