//! Keeps a rate by a schedule: each record has its moment. Pure.
//!
//! A record that comes late does not push the others back, so that the rate holds over small hiccups; after a long stop
//! the schedule begins anew rather than catch up in one burst.

use std::time::Duration;

use tokio::time::Instant;

/// How far behind its schedule a sender may be and still catch up.
const SLACK: Duration = Duration::from_millis(100);

/// A schedule of so many records a second.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    next: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), next: None }
    }

    /// When the next record may go; takes its place in the schedule.
    pub(crate) fn due(&mut self, now: Instant) -> Instant {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let due = self.next.unwrap_or(now).max(earliest);
        self.next = Some(due + self.interval);
        due
    }
}

/// A parser for `500` and `500/s`.
pub(crate) fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number
        .filter(|rate| (1..=10_000_000).contains(rate))
        .ok_or_else(|| "give 1/s to 10000000/s, such as 500/s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_leave_at_their_rate_whenever_they_come() {
        let begun = Instant::now();
        let mut pace = Pace::new(100);
        let mut now = begun;
        for number in 0..1_000_u32 {
            // Each tenth comes 50 ms late.
            now = pace.due(now).max(now) + Duration::from_millis(if number % 10 == 0 { 50 } else { 0 });
        }
        let took = now - begun;
        assert!(took > Duration::from_millis(9_900) && took < Duration::from_millis(10_150), "{took:?}");
    }

    #[test]
    fn a_long_stop_is_not_made_up_for_in_a_burst() {
        let begun = Instant::now();
        let mut pace = Pace::new(10);
        pace.due(begun);
        let later = begun + Duration::from_secs(60);
        let at_once = (0..600).filter(|_| pace.due(later) <= later).count();
        assert!(at_once <= 2, "{at_once}");
    }

    #[test]
    fn rates_are_numbers_a_second() {
        assert_eq!((rate("500/s"), rate("7")), (Ok(500), Ok(7)));
        for wrong in ["", "0", "0/s", "-1", "5/m", "fast", "1.5/s", "99999999/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
