//! Freshness first: what is too old for its reader is not read at all. Pure.
//!
//! A partition whose next record is older than the life of a position is moved to the first record that is not. The
//! record timestamp counts (when the ingest received it): no position can be younger than that says.

use std::time::Duration;

/// The rule, for one sink.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// How long a position is of use.
    pub life: Duration,
}

impl Freshness {
    /// The time before which records are of no use at `now_ms`.
    pub(crate) fn horizon_ms(self, now_ms: i64) -> i64 {
        now_ms - i64::try_from(self.life.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether all of a batch whose newest record is of `newest_ms` is of no use. A batch without a time is kept.
    pub(crate) fn is_expired(self, newest_ms: i64, now_ms: i64) -> bool {
        newest_ms > 0 && newest_ms < self.horizon_ms(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wholly_older_than_its_life_is_left_out() {
        let rule = Freshness { life: Duration::from_secs(30) };
        let now = 1_000_000;
        for (newest, expired) in [(969_999, true), (970_000, false), (now, false), (now + 5, false), (-1, false)] {
            assert_eq!(rule.is_expired(newest, now), expired, "{newest}");
        }
    }
}
