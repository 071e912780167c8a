//! Grace rotation: two credentials alive at once, for targets that admit two.
//!
//! Timing `after`: the new one is made on the rotation date, and the former one is removed so many days later. Timing `before`: the
//! new one is made so many days before the date, and the former one is removed on it. Pure.

use serde_json::{Map, Value};

use crate::connector::{Failure, FailureClass};
use crate::ids::Micros;
use crate::item::Schedule;
use crate::schedule;

const DAY_SECONDS: i64 = 24 * 3600;
/// Longest grace in days.
const LONGEST: i64 = 365;

/// When the former credential goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// The rotation date is that of the new credential.
    After,
    /// The rotation date is that of the former one's end.
    Before,
}

/// How long two credentials live side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// `grace-rotation-interval`.
    pub days: i64,
    /// `grace-rotation-hour`, UTC; `None` keeps the hour of the rotation.
    pub hour: Option<i64>,
    /// `grace-rotation-timing`.
    pub timing: Timing,
}

impl Grace {
    /// What a secret's parameters ask for; `None` if `grace-rotation` is off.
    ///
    /// # Errors
    /// A parameter is wrong; the failure names it.
    pub fn of(params: &Map<String, Value>) -> Result<Option<Self>, Failure> {
        let text = |name: &str| params.get(name).map(plain).unwrap_or_default();
        if text("grace-rotation") != "true" {
            return Ok(None);
        }
        let days = text("grace-rotation-interval").parse::<i64>().ok().filter(|days| (1..=LONGEST).contains(days));
        let days =
            days.ok_or_else(|| wrong("grace-rotation-interval", "must be a number of days between 1 and 365"))?;
        let hour = match text("grace-rotation-hour").as_str() {
            "" => None,
            hour => Some(hour.parse().ok().filter(|hour| (0..24).contains(hour)))
                .map(|hour| hour.ok_or_else(|| wrong("grace-rotation-hour", "must be between 0 and 23 (UTC)")))
                .transpose()?,
        };
        let timing = match text("grace-rotation-timing").as_str() {
            "" | "after" => Timing::After,
            "before" => Timing::Before,
            _ => return Err(wrong("grace-rotation-timing", "must be before or after")),
        };
        Ok(Some(Self { days, hour, timing }))
    }

    /// When what was superseded at `at` is to be removed.
    #[must_use]
    pub fn ends(&self, at: Micros) -> Micros {
        let end = at.plus_seconds(self.days * DAY_SECONDS);
        let Some(hour) = self.hour else { return end };
        let day = end.0.div_euclid(DAY_SECONDS * 1_000_000) * DAY_SECONDS * 1_000_000;
        Micros(day).plus_seconds(hour * 3600).max(at)
    }
}

/// When a secret that was last rotated at `last` is to get its next credential.
#[must_use]
pub fn next_issue(schedule: &Schedule, grace: Option<Grace>, last: Micros, seed: u64) -> Option<Micros> {
    let ahead = match grace {
        Some(Grace { days, timing: Timing::Before, .. }) => days * DAY_SECONDS,
        _ => 0,
    };
    let date = schedule::next_due(schedule, last.plus_seconds(ahead), seed).unwrap_or(None)?;
    Some(date.plus_seconds(-ahead))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn wrong(param: &str, what: &str) -> Failure {
    Failure::new(FailureClass::Config, format!("{param} {what}"), format!("set {param}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grace(value: &Value) -> Result<Option<Grace>, Failure> {
        Grace::of(value.as_object().expect("an object"))
    }

    #[test]
    fn parameters_are_read_as_the_wire_has_them() {
        assert_eq!(grace(&json!({})), Ok(None));
        assert_eq!(grace(&json!({"grace-rotation": "false", "grace-rotation-interval": "x"})), Ok(None));
        let after = grace(&json!({"grace-rotation": "true", "grace-rotation-interval": "3", "grace-rotation-hour": 5}));
        assert_eq!(after, Ok(Some(Grace { days: 3, hour: Some(5), timing: Timing::After })));
        assert!(
            grace(&json!({"grace-rotation": "true"})).is_err_and(|f| f.message.contains("grace-rotation-interval"))
        );
    }

    #[test]
    fn both_timings_put_the_same_days_between_issue_and_end() {
        let schedule = Schedule { auto_rotate: true, interval_days: 30, hour: 14, ..Schedule::default() };
        let day = |n: i64, hour: i64| Micros(0).plus_seconds(n * DAY_SECONDS + hour * 3600);
        let after = Grace { days: 5, hour: Some(14), timing: Timing::After };
        assert_eq!(next_issue(&schedule, Some(after), day(0, 14), 0), Some(day(30, 14)));
        assert_eq!(after.ends(day(30, 14)), day(35, 14));
        let before = Grace { timing: Timing::Before, ..after };
        assert_eq!(next_issue(&schedule, Some(before), day(25, 14), 0), Some(day(55, 14)), "five days before day 60");
        assert_eq!(before.ends(day(55, 14)), day(60, 14));
    }
}
