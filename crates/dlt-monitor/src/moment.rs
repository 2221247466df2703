//! Moments as operators write them: a time (RFC 3339), or how long ago it was (`2h`).

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat};

const FORM: &str = "give how long ago it was, such as 90s, 30m, 2h or 7d, or a time such as 2026-11-23T21:00:00Z";

/// A moment, still relative to now or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// As it was written: two runs with the same words mean the same.
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ago(Duration),
    At(i64),
}

impl Moment {
    /// Milliseconds since the epoch, as seen at `now_ms`.
    pub fn at_ms(&self, now_ms: i64) -> i64 {
        match self.kind {
            Kind::Ago(duration) => {
                now_ms.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)).max(0)
            }
            Kind::At(ms) => ms,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ago = || humantime::parse_duration(text).ok().map(Kind::Ago);
        let at = || DateTime::parse_from_rfc3339(text).ok().map(|time| Kind::At(time.timestamp_millis()));
        let in_range = |kind: &Kind| !matches!(kind, Kind::At(ms) if *ms < 0);
        let kind = at().or_else(ago).filter(in_range).ok_or_else(|| FORM.to_owned())?;
        Ok(Self { text: text.to_owned(), kind })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A timestamp of Kafka as a time; what is none is shown as the number that it is.
pub(crate) fn show_ms(ms: i64) -> String {
    match DateTime::from_timestamp_millis(ms) {
        Some(time) if ms >= 0 => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        _ => ms.to_string(),
    }
}

/// The hour that a timestamp lies in, as `2026-11-23T21`.
pub(crate) fn hour(ms: i64) -> String {
    show_ms(ms).chars().take(13).collect()
}

pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_441_689_633;

    #[test]
    fn durations_and_times_are_read() {
        for (text, expected) in [
            ("2h", NOW - 7_200_000),
            ("90s", NOW - 90_000),
            ("7d", NOW - 604_800_000),
            ("1h 30m", NOW - 5_400_000),
            ("0s", NOW),
            ("9999999d", 0),
            ("2026-11-23T21:08:09.633Z", 1_795_468_089_633),
            ("2026-11-23T22:08:09+01:00", 1_795_468_089_000),
        ] {
            assert_eq!(text.parse::<Moment>().map(|moment| moment.at_ms(NOW)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "yesterday", "2", "-2h", "2026-11-23", "2026-11-23T21:08:09", "1969-01-01T00:00:00Z", "2h\n3x"]
        {
            assert!(text.parse::<Moment>().is_err_and(|line| line.contains("such as 90s")), "{text}");
        }
    }

    #[test]
    fn timestamps_are_shown_as_times_and_wild_ones_as_numbers() {
        assert_eq!(show_ms(NOW), "2026-11-23T13:48:09.633Z");
        assert_eq!(hour(NOW), "2026-11-23T13");
        assert_eq!(show_ms(-1), "-1");
        assert_eq!(show_ms(i64::MAX), i64::MAX.to_string());
    }
}
