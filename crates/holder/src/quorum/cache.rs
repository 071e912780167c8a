//! Derived keys, kept for a short time. Never a value.
//!
//! What must stay true: an entry is used no longer than its time; the number of entries is bounded; a key that leaves is wiped
//! (it wipes itself on drop). Entries lie in several parts, so that readers seldom wait for each other.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use volvelle_fragments::Kek;

use crate::lock;

const PARTS: usize = 16;
/// Most keys in one part; 100,000 altogether.
const LARGEST_PART: usize = 6_250;

type Part = HashMap<Box<[u8]>, (Instant, Kek), RandomState>;

pub(super) struct Cache {
    keeps_for: Duration,
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

impl Cache {
    /// With no time at all nothing is kept.
    pub(super) fn new(keeps_for: Duration) -> Self {
        Self { keeps_for, hasher: RandomState::default(), parts: std::array::from_fn(|_| Mutex::default()) }
    }

    fn part(&self, name: &[u8]) -> &Mutex<Part> {
        // The end of a name is seldom the same; the whole of it would be hashed twice.
        let end = &name[name.len().saturating_sub(96)..];
        &self.parts[usize::try_from(self.hasher.hash_one(end) % PARTS as u64).unwrap_or(0)]
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<Kek> {
        if self.keeps_for.is_zero() {
            return None;
        }
        let mut part = lock(self.part(name));
        let (since, kek) = part.get(name)?;
        if since.elapsed() < self.keeps_for {
            return Some(kek.clone());
        }
        part.remove(name);
        None
    }

    pub(super) fn keep(&self, name: &[u8], kek: &Kek) {
        if self.keeps_for.is_zero() {
            return;
        }
        let mut part = lock(self.part(name));
        if part.len() >= LARGEST_PART {
            part.retain(|_, (since, _)| since.elapsed() < self.keeps_for);
            // Still full: some go, whichever they are.
            let mut go = part.len().saturating_sub(LARGEST_PART * 7 / 8);
            part.retain(|_, _| {
                let stays = go == 0;
                go = go.saturating_sub(1);
                stays
            });
        }
        part.insert(name.into(), (Instant::now(), kek.clone()));
    }

    /// Wipes the key of one record.
    pub(super) fn forget(&self, name: &[u8]) {
        lock(self.part(name)).remove(name);
    }

    /// Wipes what is over its time, whether anybody asks for it or not.
    pub(super) fn sweep(&self) {
        for part in &self.parts {
            lock(part).retain(|_, (since, _)| since.elapsed() < self.keeps_for);
        }
    }

    pub(super) fn clear(&self) {
        for part in &self.parts {
            lock(part).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use volvelle_fragments::{PrfShare, Suite, combine};

    use super::*;

    fn kek() -> Kek {
        let answer = |byte: u8| {
            let mut bytes = [byte; 32];
            bytes[31] = 0;
            PrfShare::from_bytes(Suite::Ristretto255, &bytes).expect("canonical").evaluate(b"x").expect("evaluates")
        };
        Kek::derive(b"x", &combine(&[(1, answer(1)), (2, answer(2))]).expect("a quorum"), None).expect("derives")
    }

    #[test]
    fn a_key_is_kept_for_its_time_and_no_longer() {
        let cache = Cache::new(Duration::from_millis(40));
        cache.keep(b"a", &kek());
        assert!(cache.find(b"a").is_some());
        assert!(cache.find(b"b").is_none());
        std::thread::sleep(Duration::from_millis(50));
        assert!(cache.find(b"a").is_none());
        cache.keep(b"a", &kek());
        std::thread::sleep(Duration::from_millis(50));
        cache.sweep();
        assert!(cache.parts.iter().all(|part| lock(part).is_empty()));
        let off = Cache::new(Duration::ZERO);
        off.keep(b"a", &kek());
        assert!(off.find(b"a").is_none());
        assert!(off.parts.iter().all(|part| lock(part).is_empty()));
    }

    #[test]
    fn the_cache_does_not_grow_beyond_its_bound() {
        let cache = Cache::new(Duration::from_secs(60));
        let kek = kek();
        for n in 0..(LARGEST_PART * PARTS + 20_000) {
            cache.keep(&n.to_be_bytes(), &kek);
        }
        assert!(cache.parts.iter().all(|part| lock(part).len() <= LARGEST_PART));
        let last = LARGEST_PART * PARTS + 19_999;
        assert!(cache.find(&last.to_be_bytes()).is_some());
        cache.clear();
        assert!(cache.find(&last.to_be_bytes()).is_none());
    }
}
