//! How fast a backlog is worked off. Answers come in bursts, one for each batch that Kafka acknowledges; were every waiting event
//! sent with the burst that frees its connection, generator, service and broker would run in turns, which no crowd of phones makes
//! them do, and a short stall would never be made up for.

use std::time::Duration;

use crate::plan::Plan;

/// Fastest sending, as a multiple of the plan's highest rate; without a backlog it is never reached.
const CATCH_UP: f64 = 1.5;
/// Sending that a pause of the thread may put off: what was due meanwhile goes out at once.
const LONGEST_PAUSE_S: f64 = 0.025;

/// A token bucket of POSTs.
#[derive(Debug)]
pub(super) struct Pace {
    posts_per_s: f64,
    tokens: f64,
    last: Duration,
}

impl Pace {
    /// The pace for a plan, with so many positions in a POST.
    pub(super) fn of(plan: &Plan, positions_per_post: u32) -> Self {
        let highest = plan.stages().map(|stage| stage.rate).max().unwrap_or(1);
        let posts_per_s = CATCH_UP * f64::from(highest) / f64::from(positions_per_post);
        Self { posts_per_s, tokens: 1.0, last: Duration::ZERO }
    }

    /// POSTs that may be sent now; what is not used goes back by [`Self::give_back`].
    pub(super) fn allowance(&mut self, now: Duration) -> u32 {
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.last = now;
        // At least one: a rate of a few a second must not wait for a full bucket.
        let room = (self.posts_per_s * LONGEST_PAUSE_S).max(1.0);
        self.tokens = (self.tokens + elapsed * self.posts_per_s).min(room);
        let whole = self.tokens.floor();
        self.tokens -= whole;
        whole as u32
    }

    /// Takes back what was not sent.
    pub(super) fn give_back(&mut self, unused: u32) {
        self.tokens += f64::from(unused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Stage;

    fn pace(rate: u32, positions: u32) -> Pace {
        Pace::of(&Plan::new(vec![Stage::of("s", rate, Duration::from_secs(1), 50_000)]), positions)
    }

    fn sent_in_a_second(pace: &mut Pace, tick_ms: u64) -> u32 {
        (1..=1_000 / tick_ms).map(|tick| pace.allowance(Duration::from_millis(tick * tick_ms))).sum()
    }

    #[test]
    fn a_backlog_goes_out_at_one_and_a_half_times_the_highest_rate() {
        assert!((74_990..=75_001).contains(&sent_in_a_second(&mut pace(50_000, 1), 1)));
        assert!((7_490..=7_501).contains(&sent_in_a_second(&mut pace(50_000, 10), 1)));
    }

    #[test]
    fn a_pause_of_the_thread_costs_nothing_and_a_long_one_does_not_make_a_burst() {
        assert!((74_990..=75_001).contains(&sent_in_a_second(&mut pace(50_000, 1), 20)));
        assert_eq!(pace(50_000, 1).allowance(Duration::from_secs(9)), 1_875);
    }

    #[test]
    fn what_was_not_sent_may_be_sent_later() {
        let mut pace = pace(1_000, 1);
        let allowed = pace.allowance(Duration::from_millis(10));
        pace.give_back(allowed);
        assert_eq!(pace.allowance(Duration::from_millis(10)), allowed);
    }

    #[test]
    fn the_first_post_of_the_slowest_rate_does_not_wait() {
        assert_eq!(pace(1, 1).allowance(Duration::ZERO), 1);
    }
}
