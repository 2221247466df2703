//! A circuit breaker: after a few faults in a row it stops asking, then lets one probe through at a time.
//!
//! ```text
//!               n faults in a row                 wait over, one probe admitted
//!     ┌────────┐ ────────────────▶ ┌──────┐ ───────────────────────────────▶ ┌──────────┐
//!     │ Closed │                   │ Open │                                   │ HalfOpen │
//!     └────────┘                   └──────┘ ◀─────────────────────────────── └──────────┘
//!          ▲                                  the probe failed: a longer wait       │
//!          └────────────────────────────────────────────────────────────────────────┘
//!                                       the probe succeeded
//! ```
//!
//! Closed means that traffic flows, as in an electric circuit.

use std::num::NonZeroU32;

use tokio::time::Instant;

use crate::retry::{Backoff, RetryPolicy};

/// Where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Traffic flows; so many faults in a row have been seen.
    Closed {
        /// Faults since the last success.
        faults: u32,
    },
    /// Nothing flows before this moment.
    Open {
        /// When the next probe may go.
        until: Instant,
    },
    /// One probe is under way; nothing else flows until its outcome is known.
    HalfOpen,
}

/// What a caller who wants to use the sink may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go ahead.
    Flow,
    /// Go ahead, alone: the outcome decides for all the others, so it must be reported.
    Probe,
    /// Not before this moment; `None` when it depends on a probe that is under way.
    Wait(Option<Instant>),
}

/// See the drawing in the module's documentation. The clock is the caller's.
#[derive(Debug, Clone)]
pub struct Breaker {
    threshold: NonZeroU32,
    backoff: Backoff,
    state: BreakerState,
}

impl Breaker {
    /// A closed breaker that opens after `threshold` faults in a row, for waits that follow `policy`.
    pub fn new(threshold: NonZeroU32, policy: RetryPolicy, seed: u64) -> Self {
        Self { threshold, backoff: Backoff::new(policy, seed), state: BreakerState::Closed { faults: 0 } }
    }

    /// Asks for a turn. [`Admission::Probe`] is given to one caller at a time.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            BreakerState::Closed { .. } => Admission::Flow,
            // Open → HalfOpen: the wait is over and this caller is the probe.
            BreakerState::Open { until } if now >= until => {
                self.state = BreakerState::HalfOpen;
                Admission::Probe
            }
            BreakerState::Open { until } => Admission::Wait(Some(until)),
            BreakerState::HalfOpen => Admission::Wait(None),
        }
    }

    /// Reports a success. Any → Closed: whoever got an answer proves that the sink is there.
    pub fn success(&mut self) {
        self.backoff.reset();
        self.state = BreakerState::Closed { faults: 0 };
    }

    /// Reports a fault, at the moment at which it was noticed.
    pub fn fault(&mut self, now: Instant) {
        match self.state {
            // Closed → Closed or Open: one more fault in a row.
            BreakerState::Closed { faults } if faults + 1 < self.threshold.get() => {
                self.state = BreakerState::Closed { faults: faults + 1 };
            }
            // Closed → Open: that was the last fault allowed. HalfOpen → Open: the probe failed, the wait grows.
            BreakerState::Closed { .. } | BreakerState::HalfOpen => self.open(now),
            // Open → Open: a call that was under way when the breaker opened. It says nothing new, and counting it
            // would make the wait grow with the number of callers instead of with the number of probes.
            BreakerState::Open { .. } => {}
        }
    }

    /// Gives a probe back that ended without an outcome (its caller was cancelled). HalfOpen → Open, due at once.
    pub fn abandon(&mut self, now: Instant) {
        if self.state == BreakerState::HalfOpen {
            self.state = BreakerState::Open { until: now };
        }
    }

    /// Where the breaker stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    fn open(&mut self, now: Instant) {
        self.state = BreakerState::Open { until: now + self.backoff.next_wait() };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MAX: Duration = Duration::from_secs(2);

    fn breaker(threshold: u32) -> Breaker {
        let policy = RetryPolicy::new(Duration::from_millis(100), 2.0, MAX).unwrap();
        Breaker::new(NonZeroU32::new(threshold).unwrap(), policy, 1)
    }

    fn open_until(breaker: &Breaker) -> Instant {
        match breaker.state() {
            BreakerState::Open { until } => until,
            other => panic!("not open but {other:?}"),
        }
    }

    #[test]
    fn opens_after_the_threshold_of_faults_in_a_row() {
        let now = Instant::now();
        let mut breaker = breaker(3);
        breaker.fault(now);
        breaker.fault(now);
        assert_eq!(breaker.admit(now), Admission::Flow);
        breaker.fault(now);
        assert!(matches!(breaker.state(), BreakerState::Open { .. }));
    }

    #[test]
    fn a_success_between_faults_keeps_it_closed() {
        let now = Instant::now();
        let mut breaker = breaker(2);
        for _ in 0..10 {
            breaker.fault(now);
            breaker.success();
        }
        assert_eq!(breaker.state(), BreakerState::Closed { faults: 0 });
    }

    #[test]
    fn admits_one_probe_at_a_time_after_the_wait() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        breaker.fault(now);
        let until = open_until(&breaker);
        if until > now {
            assert_eq!(breaker.admit(now), Admission::Wait(Some(until)));
        }
        assert_eq!(breaker.admit(until), Admission::Probe);
        assert_eq!(breaker.admit(until + MAX), Admission::Wait(None));
        breaker.success();
        assert_eq!(breaker.admit(until), Admission::Flow);
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        breaker.fault(now);
        let until = open_until(&breaker);
        assert_eq!(breaker.admit(until), Admission::Probe);
        breaker.fault(until);
        assert!(open_until(&breaker) <= until + MAX);
    }

    #[test]
    fn faults_of_calls_already_under_way_do_not_lengthen_the_wait() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        breaker.fault(now);
        let until = open_until(&breaker);
        for _ in 0..50 {
            breaker.fault(now);
        }
        assert_eq!(open_until(&breaker), until);
    }

    #[test]
    fn an_abandoned_probe_frees_the_turn_for_the_next_caller() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        breaker.fault(now);
        let until = open_until(&breaker);
        assert_eq!(breaker.admit(until), Admission::Probe);
        breaker.abandon(until);
        assert_eq!(breaker.admit(until), Admission::Probe);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Advance(u64),
        Ask,
        Success,
        Fault,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![(0..3000u64).prop_map(Step::Advance), Just(Step::Ask), Just(Step::Success), Just(Step::Fault)]
    }

    proptest! {
        #[test]
        fn always_comes_back_within_the_longest_wait(threshold in 1..5u32, steps in prop::collection::vec(step(), 0..200)) {
            let mut breaker = breaker(threshold);
            let mut now = Instant::now();
            for step in steps {
                match step {
                    Step::Advance(ms) => now += Duration::from_millis(ms),
                    Step::Ask => if breaker.admit(now) == Admission::Probe { breaker.fault(now) },
                    Step::Success => breaker.success(),
                    Step::Fault => breaker.fault(now),
                }
                if let BreakerState::Open { until } = breaker.state() {
                    prop_assert!(until <= now + MAX);
                }
                let mut later = breaker.clone();
                prop_assert!(!matches!(later.admit(now + MAX), Admission::Wait(_)));
            }
        }
    }
}
