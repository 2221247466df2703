//! When the map is fresh again after a store was away.

use std::time::Duration;

use crate::thresholds::{RECOVERED_LAG, RECOVERED_STALENESS_MS};

/// One look at the pipeline while it recovers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Moment of the look.
    pub at: Duration,
    /// p99 staleness over the second before it; `None` when nothing was posted in it.
    pub staleness_p99_ms: Option<f64>,
    /// Lag of the Redis group; `None` when it could not be read.
    pub lag: Option<u64>,
}

impl Look {
    /// Whether this look shows a fresh map. What is not known is not fresh.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.staleness_p99_ms.is_some_and(|staleness| staleness < RECOVERED_STALENESS_MS)
            && self.lag.is_some_and(|lag| lag < RECOVERED_LAG)
    }
}

/// Time from `answering` until the first look afterwards that shows a fresh map.
#[must_use]
pub fn recovered_after(answering: Duration, looks: &[Look]) -> Option<Duration> {
    looks.iter().find(|look| look.at >= answering && look.is_fresh()).map(|look| look.at - answering)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at_s: u64, staleness_p99_ms: Option<f64>, lag: Option<u64>) -> Look {
        Look { at: Duration::from_secs(at_s), staleness_p99_ms, lag }
    }

    #[test]
    fn recovery_needs_freshness_and_a_short_lag_together() {
        let looks = [
            look(1, Some(10.0), Some(0)),
            look(10, Some(5_000.0), Some(40_000)),
            look(11, Some(1_000.0), Some(2_000)),
            look(12, Some(2_000.0), Some(100)),
            look(13, Some(1_999.0), Some(1_999)),
        ];
        assert_eq!(recovered_after(Duration::from_secs(10), &looks), Some(Duration::from_secs(3)));
    }

    #[test]
    fn what_is_unknown_is_not_recovered() {
        let looks = [look(10, None, Some(0)), look(11, Some(1.0), None)];
        assert_eq!(recovered_after(Duration::from_secs(10), &looks), None);
    }
}
