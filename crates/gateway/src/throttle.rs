//! Slows down guessing of access keys, per access id and address, and per address alone. A stranger's
//! failures from elsewhere never keep the owner out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use volvelle_domain::ids::Micros;

const FREE_PER_PAIR: u32 = 5;
const FREE_PER_ADDRESS: u32 = 50;
const LONGEST_SECONDS: i64 = 60;
const FORGET_SECONDS: i64 = 900;
const MAX_ENTRIES: usize = 100_000;

#[derive(Clone, Copy)]
struct Record {
    failures: u32,
    until: Micros,
    last: Micros,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    access_id: Option<String>,
    address: IpAddr,
}

/// Failed attempts of late.
#[derive(Default)]
pub struct Throttle {
    records: Mutex<HashMap<Key, Record>>,
}

impl Throttle {
    /// Whether an attempt may be made now.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn check(&self, access_id: &str, address: IpAddr, now: Micros) -> Result<(), u64> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let until = keys(access_id, address).iter().filter_map(|(key, _)| records.get(key)).map(|r| r.until.0).max();
        match until {
            Some(until) if until > now.0 => Err(u64::try_from((until - now.0).div_euclid(1_000_000) + 1).unwrap_or(1)),
            Some(_) | None => Ok(()),
        }
    }

    /// Notes a failed attempt.
    pub fn failed(&self, access_id: &str, address: IpAddr, now: Micros) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= MAX_ENTRIES {
            records.retain(|_, record| now < record.last.plus_seconds(FORGET_SECONDS) && now < record.until);
        }
        for (key, free) in keys(access_id, address) {
            let record = records.entry(key).or_insert(Record { failures: 0, until: now, last: now });
            if now >= record.last.plus_seconds(FORGET_SECONDS) {
                record.failures = 0;
            }
            record.failures = record.failures.saturating_add(1);
            record.last = now;
            let over = record.failures.saturating_sub(free);
            if over > 0 {
                record.until = now.plus_seconds((1_i64 << (over - 1).min(6)).min(LONGEST_SECONDS));
            }
        }
    }

    /// Notes a success: the pair's failures are forgotten, the address's are not.
    pub fn succeeded(&self, access_id: &str, address: IpAddr) {
        let [(pair, _), _] = keys(access_id, address);
        self.records.lock().unwrap_or_else(PoisonError::into_inner).remove(&pair);
    }
}

fn keys(access_id: &str, address: IpAddr) -> [(Key, u32); 2] {
    let short: String = access_id.chars().take(64).collect();
    [(Key { access_id: Some(short), address }, FREE_PER_PAIR), (Key { access_id: None, address }, FREE_PER_ADDRESS)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_slowed_and_nobody_else_is() {
        let throttle = Throttle::default();
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Micros(1_000_000_000);
        for _ in 0..FREE_PER_PAIR {
            assert_eq!(throttle.check("p-1", here, now), Ok(()));
            throttle.failed("p-1", here, now);
        }
        throttle.failed("p-1", here, now);
        assert!(throttle.check("p-1", here, now).is_err());
        assert_eq!(throttle.check("p-1", there, now), Ok(()));
        assert_eq!(throttle.check("p-2", here, now), Ok(()));
        assert_eq!(throttle.check("p-1", here, now.plus_seconds(2)), Ok(()));
        for _ in 0..40 {
            throttle.failed("p-1", here, now);
        }
        assert_eq!(throttle.check("p-1", here, now.plus_seconds(LONGEST_SECONDS)), Ok(()));
        throttle.succeeded("p-1", here);
        assert_eq!(throttle.check("p-1", here, now), Ok(()));
    }

    #[test]
    fn one_address_cannot_try_many_ids() {
        let throttle = Throttle::default();
        let here = IpAddr::from([10, 0, 0, 1]);
        for id in 0..=FREE_PER_ADDRESS {
            throttle.failed(&format!("p-{id}"), here, Micros(0));
        }
        assert!(throttle.check("p-new", here, Micros(0)).is_err());
    }
}
