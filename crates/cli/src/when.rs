//! Instants for people: how long ago, and the time in UTC.

use jiff::Timestamp;

/// An RFC 3339 instant as `2026-11-25 21:10Z (3 min ago)`; empty for none and for Go's zero time.
pub fn shown(text: &str, now: Timestamp) -> String {
    let distance = distance(text, now);
    match text.parse::<Timestamp>() {
        Ok(at) if !distance.is_empty() => format!("{} ({distance})", at.strftime("%Y-%m-%d %H:%MZ")),
        _ => String::new(),
    }
}

/// Only how far away an instant is, such as `3 min ago`.
pub fn distance(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) if at.as_second() >= 0 => relative(at, now),
        _ => String::new(),
    }
}

/// Seconds since 1970 in the same form; empty for 0.
pub fn shown_unix(seconds: i64, now: Timestamp) -> String {
    match Timestamp::from_second(seconds) {
        Ok(at) if seconds > 0 => shown(&at.to_string(), now),
        _ => String::new(),
    }
}

fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - at.as_second();
    let length = span(seconds.unsigned_abs());
    match seconds {
        -1..=1 => "now".to_owned(),
        2.. => format!("{length} ago"),
        _ => format!("in {length}"),
    }
}

fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..=119 => (seconds, "s"),
        120..=7_199 => (seconds / 60, "min"),
        7_200..=172_799 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit}")
}

/// The time between two RFC 3339 instants, such as `1.4 s`; empty when one is missing.
pub fn between(from: &str, to: &str) -> String {
    let (Ok(from), Ok(to)) = (from.parse::<Timestamp>(), to.parse::<Timestamp>()) else { return String::new() };
    let tenths = (to.as_millisecond() - from.as_millisecond()).max(0) / 100;
    if tenths < 1200 { format!("{}.{} s", tenths / 10, tenths % 10) } else { span(tenths.unsigned_abs() / 10) }
}

#[cfg(test)]
mod tests {
    use super::{between, shown};

    #[test]
    fn instants_are_told_as_distance_and_in_utc() {
        let now = "2026-11-25T21:10:00Z".parse().expect("an instant");
        assert_eq!(shown("2026-11-25T21:07:00.5Z", now), "2026-11-25 21:07Z (3 min ago)");
        assert_eq!(shown("2026-12-25T21:10:00Z", now), "2026-12-25 21:10Z (in 30 days)");
        assert_eq!(shown("0001-01-01T00:00:00Z", now), "");
        assert_eq!(shown("", now), "");
        assert_eq!(between("2026-11-25T21:10:00Z", "2026-11-25T21:10:01.45Z"), "1.4 s");
    }
}
