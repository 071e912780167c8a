//! When a secret is due next: an interval in days at an hour of the day (UTC), or a cron expression with a time zone.
//!
//! Pure: the instant after which to look and the seed of the jitter are arguments.

use croner::Cron;
use croner::parser::CronParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use crate::ids::Micros;
use crate::item::Schedule;

/// Longest interval in days.
pub const LONGEST_INTERVAL_DAYS: u32 = 365;
/// Longest interval where it counts minutes.
pub const LONGEST_INTERVAL_MINUTES: u32 = LONGEST_INTERVAL_DAYS * 24 * 60;
/// Equal due times are spread over this many seconds.
pub const JITTER_SECONDS: u64 = 300;

/// What is wrong with a schedule; each names the parameter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The interval is out of range.
    #[error("rotation-interval must be between 1 and {LONGEST_INTERVAL_DAYS} days, not {0}")]
    Interval(u32),
    /// The interval is out of range.
    #[error("rotation-interval must be between 1 and {LONGEST_INTERVAL_MINUTES} minutes, not {0}")]
    Minutes(u32),
    /// The hour is out of range.
    #[error("rotation-hour must be between 0 and 23 (UTC), not {0}")]
    Hour(u32),
    /// The cron expression is not understood.
    #[error("rotation-cron is not a cron expression of five fields: {0}")]
    Cron(String),
    /// The time zone is not known.
    #[error("rotation-time-zone {0:?} is not a time zone of the IANA database, such as Europe/Berlin")]
    TimeZone(String),
    /// Rotation is on, but nothing says when.
    #[error("auto-rotate needs rotation-interval (days) or rotation-cron")]
    Nothing,
}

/// Checks a schedule without computing anything.
///
/// # Errors
/// The first parameter that is wrong.
pub fn check(schedule: &Schedule) -> Result<(), ScheduleError> {
    if schedule.hour > 23 {
        return Err(ScheduleError::Hour(schedule.hour));
    }
    zone(schedule)?;
    if !schedule.cron.is_empty() {
        return cron(&schedule.cron).map(|_| ());
    }
    match schedule.interval_days {
        0 if schedule.auto_rotate => Err(ScheduleError::Nothing),
        minutes if schedule.in_minutes && minutes > LONGEST_INTERVAL_MINUTES => Err(ScheduleError::Minutes(minutes)),
        days if !schedule.in_minutes && days > LONGEST_INTERVAL_DAYS => Err(ScheduleError::Interval(days)),
        _ => Ok(()),
    }
}

/// The first instant after `after` at which the secret is due, spread by up to [`JITTER_SECONDS`] according to `seed`;
/// `None` if it does not rotate by itself.
///
/// # Errors
/// The schedule is wrong (see [`check`]).
pub fn next_due(schedule: &Schedule, after: Micros, seed: u64) -> Result<Option<Micros>, ScheduleError> {
    if !schedule.auto_rotate {
        return Ok(None);
    }
    check(schedule)?;
    if schedule.in_minutes && schedule.cron.is_empty() {
        let pause = i64::from(schedule.interval_days) * 60;
        // A tenth of the interval at most, so that it stays recognisable.
        let jitter = i64::try_from(seed % JITTER_SECONDS).unwrap_or(0).min(pause / 10);
        return Ok(Some(after.plus_seconds(pause + jitter)));
    }
    let start = Timestamp::from_microsecond(after.0).unwrap_or(Timestamp::MAX).to_zoned(zone(schedule)?);
    let due = if schedule.cron.is_empty() { by_interval(schedule, &start) } else { by_cron(schedule, &start)? };
    let jitter = i64::try_from(seed % JITTER_SECONDS).unwrap_or(0);
    Ok(due.map(|zoned| Micros(zoned.timestamp().as_microsecond()).plus_seconds(jitter)))
}

/// `interval` days after the day of `start`, at the hour; never earlier than tomorrow.
fn by_interval(schedule: &Schedule, start: &Zoned) -> Option<Zoned> {
    let utc = start.with_time_zone(TimeZone::UTC);
    let day = utc.date().checked_add(i64::from(schedule.interval_days).days()).ok()?;
    let hour = i8::try_from(schedule.hour).ok()?;
    day.at(hour, 0, 0, 0).to_zoned(TimeZone::UTC).ok()
}

fn by_cron(schedule: &Schedule, start: &Zoned) -> Result<Option<Zoned>, ScheduleError> {
    Ok(cron(&schedule.cron)?.find_next_occurrence(start, false).ok())
}

fn cron(text: &str) -> Result<Cron, ScheduleError> {
    CronParser::new().parse(text).map_err(|error| ScheduleError::Cron(error.to_string()))
}

fn zone(schedule: &Schedule) -> Result<TimeZone, ScheduleError> {
    if schedule.time_zone.is_empty() {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(&schedule.time_zone).map_err(|_| ScheduleError::TimeZone(schedule.time_zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        Micros(text.parse::<Timestamp>().expect("a time").as_microsecond())
    }

    fn interval(days: u32, hour: u32) -> Schedule {
        Schedule { auto_rotate: true, interval_days: days, hour, ..Schedule::default() }
    }

    fn cron_in(cron: &str, zone: &str) -> Schedule {
        Schedule { auto_rotate: true, cron: cron.into(), time_zone: zone.into(), ..Schedule::default() }
    }

    #[test]
    fn days_are_counted_from_the_day_and_the_hour_is_utc() {
        let due = next_due(&interval(30, 14), at("2026-11-24T15:30:00Z"), 0).expect("fine");
        assert_eq!(due, Some(at("2026-12-24T14:00:00Z")));
    }

    #[test]
    fn minutes_are_counted_from_now_and_have_no_hour() {
        let schedule = Schedule { in_minutes: true, ..interval(90, 14) };
        let due = |seed| next_due(&schedule, at("2026-11-24T15:30:00Z"), seed).expect("fine");
        assert_eq!(due(0), Some(at("2026-11-24T17:00:00Z")));
        assert_eq!(due(299), Some(at("2026-11-24T17:04:59Z")));
        assert_eq!(check(&Schedule { in_minutes: true, ..interval(525_600, 0) }), Ok(()));
        let long = Schedule { in_minutes: true, ..interval(525_601, 0) };
        assert_eq!(check(&long), Err(ScheduleError::Minutes(525_601)));
    }

    #[test]
    fn jitter_spreads_by_at_most_five_minutes() {
        let due = next_due(&interval(1, 0), at("2026-11-24T15:30:00Z"), 299).expect("fine");
        assert_eq!(due, Some(at("2026-11-25T00:04:59Z")));
    }

    #[test]
    fn a_time_that_does_not_exist_is_moved_not_skipped() {
        let due = next_due(&cron_in("30 2 * * *", "America/New_York"), at("2027-03-14T05:00:00Z"), 0).expect("fine");
        assert_eq!(due, Some(at("2027-03-14T07:00:00Z")));
    }

    #[test]
    fn a_time_that_comes_twice_runs_once() {
        let schedule = cron_in("30 1 * * *", "America/New_York");
        let first = next_due(&schedule, at("2027-11-07T04:00:00Z"), 0).expect("fine").expect("due");
        let second = next_due(&schedule, first, 0).expect("fine").expect("due");
        assert!(second.0 - first.0 > 20 * 3600 * 1_000_000);
    }

    #[test]
    fn what_does_not_rotate_is_never_due() {
        assert_eq!(next_due(&Schedule::default(), Micros(0), 0), Ok(None));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(check(&interval(366, 0)), Err(ScheduleError::Interval(366)));
        assert_eq!(check(&interval(1, 24)), Err(ScheduleError::Hour(24)));
        assert_eq!(check(&interval(0, 0)), Err(ScheduleError::Nothing));
        assert!(matches!(check(&cron_in("61 * * * *", "")), Err(ScheduleError::Cron(_))));
        assert!(matches!(check(&cron_in("0 * * * *", "Mars/Base")), Err(ScheduleError::TimeZone(_))));
    }
}
