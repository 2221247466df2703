//! How fast one broker is written to: requests in flight, the pause after a failure, and the linger that fits the load.

use std::time::Duration;

use tokio::time::Instant;

/// First pause after a failed attempt; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The rate of records is averaged over about this time.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// At this rate of records to one broker the linger reaches its upper bound: a request costs both sides as much as
/// some hundred records, so under load fewer and larger ones leave more of the machine for the records.
const FULL_RATE_PER_S: f64 = 50_000.0;

/// Jitter in 0..1, drawn by whoever owns a random generator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jitter(pub(crate) f64);

/// The pause before attempt number `failures` + 1: exponential, the upper half of it random, so that many clients do
/// not come back as one.
pub(crate) fn backoff(failures: u32, jitter: Jitter) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    full.mul_f64(0.5 + 0.5 * jitter.0.clamp(0.0, 1.0))
}

/// Bounds of the pace, for every broker alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PaceLimits {
    /// Linger of an idle broker.
    pub(crate) linger: Duration,
    /// Linger of a broker under full load.
    pub(crate) linger_max: Duration,
    /// Requests under way to one broker.
    pub(crate) max_in_flight: usize,
}

/// State of one broker.
#[derive(Debug)]
pub(crate) struct Pace {
    in_flight: usize,
    failures: u32,
    closed_until: Option<Instant>,
    rate_per_s: f64,
    last_request: Instant,
}

impl Pace {
    /// A broker that nothing was sent to yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { in_flight: 0, failures: 0, closed_until: None, rate_per_s: 0.0, last_request: now }
    }

    /// When the broker may be sent a request; `None` while enough are under way.
    pub(crate) fn open_at(&self, now: Instant, limits: PaceLimits) -> Option<Instant> {
        (self.in_flight < limits.max_in_flight).then(|| self.closed_until.unwrap_or(now).max(now))
    }

    /// How long records wait for company.
    pub(crate) fn linger(&self, limits: PaceLimits) -> Duration {
        let load = (self.rate_per_s / FULL_RATE_PER_S).clamp(0.0, 1.0);
        limits.linger + limits.linger_max.saturating_sub(limits.linger).mul_f64(load)
    }

    /// A request with `records` leaves.
    pub(crate) fn sent(&mut self, records: u32, now: Instant) {
        let elapsed = now.duration_since(self.last_request).max(Duration::from_millis(1));
        let weight = (elapsed.as_secs_f64() / RATE_WINDOW.as_secs_f64()).min(1.0);
        self.rate_per_s += (f64::from(records) / elapsed.as_secs_f64() - self.rate_per_s) * weight;
        self.last_request = now;
        self.in_flight += 1;
    }

    /// A request was answered; `true` when the one before it was not.
    pub(crate) fn answered(&mut self) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.closed_until = None;
        std::mem::take(&mut self.failures) > 0
    }

    /// A request got no answer: the broker is left alone for a while. `true` when it is the first in a row.
    pub(crate) fn failed(&mut self, now: Instant, jitter: Jitter) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.failures = self.failures.saturating_add(1);
        self.closed_until = Some(now + backoff(self.failures, jitter));
        self.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PaceLimits =
        PaceLimits { linger: Duration::from_millis(5), linger_max: Duration::from_millis(20), max_in_flight: 2 };

    #[test]
    fn pauses_double_up_to_their_bound() {
        let pauses: Vec<_> = (1..=7).map(|failures| backoff(failures, Jitter(1.0)).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff(1, Jitter(0.0)), Duration::from_millis(25));
        assert_eq!(backoff(u32::MAX, Jitter(1.0)), BACKOFF_MAX);
    }

    #[test]
    fn linger_grows_with_load_inside_its_bounds() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.linger(LIMITS), LIMITS.linger);
        let mut last = pace.linger(LIMITS);
        for _ in 0..500 {
            now += Duration::from_millis(10);
            pace.sent(1_000, now);
            assert!(pace.linger(LIMITS) >= last);
            last = pace.linger(LIMITS);
        }
        assert_eq!(last, LIMITS.linger_max);
        now += Duration::from_secs(5);
        pace.sent(1, now);
        assert!(pace.linger(LIMITS) < LIMITS.linger + Duration::from_millis(1));
    }

    #[test]
    fn a_broker_is_shut_while_enough_is_under_way_and_after_a_failure() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.open_at(now, LIMITS), Some(now));
        pace.sent(1, now);
        pace.sent(1, now);
        assert_eq!(pace.open_at(now, LIMITS), None);
        assert!(pace.failed(now, Jitter(1.0)));
        assert_eq!(pace.open_at(now, LIMITS), Some(now + BACKOFF_FIRST));
        assert!(!pace.failed(now, Jitter(1.0)));
        pace.sent(1, now);
        assert!(pace.answered());
        assert_eq!(pace.open_at(now, LIMITS), Some(now));
    }
}
