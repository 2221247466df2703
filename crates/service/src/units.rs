//! Value parsers of flags: durations and sizes with human units, addresses, topic names.
//! Every refusal says what is allowed, since it becomes the user's one line.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Kafka's own limit (`Topic.MAX_NAME_LENGTH`).
const TOPIC_NAME_MAX: usize = 249;
/// Kafka stores it as a short string of 32,767 bytes at most; nobody needs more than this.
const GROUP_NAME_MAX: usize = 255;

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const BYTE_UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// A parser for `500ms`, `2s`, `10m`, `1h` (whole numbers), within `allowed`.
pub fn duration(
    allowed: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let parsed = scaled(text, &DURATION_UNITS).map(Duration::from_millis);
        parsed.filter(|value| allowed.contains(value)).ok_or_else(|| {
            let (from, to) = (format_duration(*allowed.start()), format_duration(*allowed.end()));
            format!("give {from} to {to} as a whole number with unit ms, s, m or h")
        })
    }
}

/// A parser for `1000`, `16KiB`, `1MiB`, `2GiB`, within `allowed` bytes.
pub fn bytes(allowed: RangeInclusive<u64>) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let parsed = text.parse().ok().or_else(|| scaled(text, &BYTE_UNITS));
        parsed.filter(|value| allowed.contains(value)).and_then(|value| usize::try_from(value).ok()).ok_or_else(|| {
            let (from, to) = (format_bytes(*allowed.start()), format_bytes(*allowed.end()));
            format!("give {from} to {to} as a whole number, in bytes or with unit KiB, MiB or GiB")
        })
    }
}

/// A parser for a number within `allowed`.
pub fn number<T>(allowed: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let parsed = text.parse().ok().filter(|value| allowed.contains(value));
        parsed.ok_or_else(|| format!("give {} to {}", allowed.start(), allowed.end()))
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `90000 ms` as `90s`, in the largest unit that divides it; what [`duration`] reads back.
#[must_use]
pub fn format_duration(value: Duration) -> String {
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    unscaled(millis, &DURATION_UNITS).unwrap_or_else(|| format!("{millis}ms"))
}

/// `65536` as `64KiB`, in the largest unit that divides it; what [`bytes`] reads back.
#[must_use]
pub fn format_bytes(value: u64) -> String {
    unscaled(value, &BYTE_UNITS[..3]).unwrap_or_else(|| value.to_string())
}

fn unscaled(value: u64, units: &[(&str, u64)]) -> Option<String> {
    let (unit, factor) = units.iter().rev().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))?;
    let mut text = (value / factor).to_string();
    let _ = text.write_str(unit);
    Some(text)
}

/// Parser of an address to listen on: IP and port, port 0 for any free one.
///
/// # Errors
/// What to write instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give IP:PORT, for example 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080".to_owned())
}

/// Parser of one `host:port` of a Kafka broker.
///
/// # Errors
/// What to write instead.
pub fn broker(text: &str) -> Result<String, String> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let name = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/:,".contains(c));
        (bracketed || name) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid {
        return Ok(text.to_owned());
    }
    Err("give HOST:PORT, several separated by commas, for example kafka-0:9092,kafka-1:9092".to_owned())
}

/// Parser of a topic name, by Kafka's own rule.
///
/// # Errors
/// What is allowed.
pub fn topic_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=TOPIC_NAME_MAX).contains(&text.len()) && text.chars().all(legal) && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err(format!("give 1 to {TOPIC_NAME_MAX} of letters, digits, '.', '_' and '-'"))
}

/// Parser of a consumer group's name.
///
/// # Errors
/// What is allowed.
pub fn group_name(text: &str) -> Result<String, String> {
    if (1..=GROUP_NAME_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("give 1 to {GROUP_NAME_MAX} bytes without control characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_human_units() {
        let parse = duration(Duration::from_millis(1)..=Duration::from_hours(24));
        for (text, millis) in [("1ms", 1), ("500ms", 500), ("2s", 2_000), ("10m", 600_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
        for wrong in
            ["", "5", "s", "-1s", "1.5s", "1 s", "0ms", "25h", "1d", "99999999999999999999s", "9999999999999999999s"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refused_duration_names_the_range() {
        let refusal = duration(Duration::from_millis(500)..=Duration::from_mins(2))("3m").unwrap_err();
        assert_eq!(refusal, "give 500ms to 2m as a whole number with unit ms, s, m or h");
    }

    #[test]
    fn sizes_have_human_units() {
        let parse = bytes(1..=1 << 32);
        for (text, size) in [("1", 1), ("1000", 1_000), ("16KiB", 16 << 10), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(parse(text), Ok(size), "{text}");
            assert_eq!(format_bytes(size as u64), text);
        }
        for wrong in ["", "0", "1kb", "1 MiB", "-1", "8GiB", "1.5MiB"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn brokers_need_host_and_port() {
        for right in ["localhost:9092", "10.0.0.1:1", "[::1]:9092", "kafka-0.kafka.svc:65535"] {
            assert_eq!(broker(right).as_deref(), Ok(right));
        }
        for wrong in [
            "",
            "localhost",
            ":9092",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "http://x:9092",
            "a b:1",
            "::1:9092",
        ] {
            assert!(broker(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn topic_names_follow_kafkas_rule() {
        assert!(topic_name("driver-location-updates.DLT").is_ok());
        let long = "t".repeat(250);
        for wrong in ["", ".", "..", "a/b", "ä", "a b", long.as_str()] {
            assert!(topic_name(wrong).is_err(), "{wrong}");
        }
    }
}
