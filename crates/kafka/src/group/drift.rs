//! When the leader of a load-aware group shares out anew although nobody came or went. Pure.
//!
//! ```text
//!   even ──▶ uneven once ──▶ … ──▶ uneven PATIENCE times in a row, and a new plan would help ──▶ share out anew
//!     ▲            │
//!     └── even ◀───┘              nothing of this within the minimum interval after the last time
//! ```
//!
//! What it takes to begin (`UNEVEN`) lies well above what the assignor leaves behind (its tolerance), and a plan that
//! does not lower the busiest member by much is no reason: so the group never goes in circles.

use std::time::Duration;

use tokio::time::Instant;

/// The busiest member's load, as a multiple of the mean, from which on a group is uneven.
const UNEVEN: f64 = 1.20;
/// What a new plan must take off that multiple to be worth a rebalance.
const WORTHWHILE: f64 = 0.10;
/// Observations in a row that must agree; they are seconds apart.
const PATIENCE: u32 = 3;

/// Watches how even a group is.
#[derive(Debug)]
pub(crate) struct Drift {
    min_interval: Duration,
    shared_out_at: Instant,
    uneven_in_a_row: u32,
}

impl Drift {
    /// Begins to watch what was shared out at `now`.
    pub(crate) fn new(min_interval: Duration, now: Instant) -> Self {
        Self { min_interval, shared_out_at: now, uneven_in_a_row: 0 }
    }

    /// Takes in how uneven the group is and would be after sharing out anew (busiest member / mean); whether to do so.
    pub(crate) fn observe(&mut self, is: f64, would_be: f64, now: Instant) -> bool {
        let worthwhile = is >= UNEVEN && is - would_be >= WORTHWHILE;
        self.uneven_in_a_row = if worthwhile { self.uneven_in_a_row + 1 } else { 0 };
        self.uneven_in_a_row >= PATIENCE && now.duration_since(self.shared_out_at) >= self.min_interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_INTERVAL: Duration = Duration::from_secs(60);

    struct Clock {
        drift: Drift,
        now: Instant,
    }

    impl Clock {
        fn start() -> Self {
            let now = Instant::now();
            Self { drift: Drift::new(MIN_INTERVAL, now), now }
        }

        fn observe_after(&mut self, seconds: u64, is: f64, would_be: f64) -> bool {
            self.now += Duration::from_secs(seconds);
            self.drift.observe(is, would_be, self.now)
        }
    }

    #[test]
    fn a_lasting_drift_is_acted_on_once_the_minimum_interval_is_over() {
        let mut clock = Clock::start();
        let acted: Vec<bool> = (0..13).map(|_| clock.observe_after(5, 1.5, 1.02)).collect();
        assert!(acted[..11].iter().all(|acted| !acted), "within the minute: {acted:?}");
        assert!(acted[11], "at the minute: {acted:?}");
    }

    #[test]
    fn a_short_peak_is_not_acted_on() {
        let mut clock = Clock::start();
        for _ in 0..20 {
            assert!(!clock.observe_after(30, 1.5, 1.02));
            assert!(!clock.observe_after(5, 1.5, 1.02));
            assert!(!clock.observe_after(5, 1.1, 1.02), "even again: the count begins anew");
        }
    }

    #[test]
    fn what_a_new_plan_cannot_help_is_left_alone() {
        let mut clock = Clock::start();
        for _ in 0..100 {
            assert!(!clock.observe_after(60, 1.9, 1.85), "one partition outweighs all others");
            assert!(!clock.observe_after(60, 1.15, 1.0), "uneven, but not much");
        }
    }
}
