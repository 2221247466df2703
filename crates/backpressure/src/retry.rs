//! How long to wait before the next try: exponential growth up to a maximum, with full jitter.
//!
//! Full jitter (each wait is uniform between zero and the current ceiling) spreads clients that failed together, so
//! that they do not come back together.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// The ceilings of a series of waits: `base`, `base × factor`, `base × factor²`, … and never above `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    base: Duration,
    factor: f64,
    max: Duration,
}

/// A policy that would not back off.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RetryPolicyError {
    /// A base of zero would retry in a busy loop.
    #[error("the base wait must be more than zero")]
    ZeroBase,
    /// A factor below one would come back faster with each failure.
    #[error("the factor {0} must be finite and at least 1")]
    Factor(f64),
    /// The maximum must not be below the base.
    #[error("the maximum wait {max:?} must not be below the base wait {base:?}")]
    MaxBelowBase {
        /// The base that was given.
        base: Duration,
        /// The maximum that was given.
        max: Duration,
    },
}

impl RetryPolicy {
    /// A policy whose ceilings start at `base`, grow by `factor` with each failure and stop growing at `max`.
    ///
    /// # Errors
    /// When the values would not back off.
    pub fn new(base: Duration, factor: f64, max: Duration) -> Result<Self, RetryPolicyError> {
        if base.is_zero() {
            return Err(RetryPolicyError::ZeroBase);
        }
        if !factor.is_finite() || factor < 1.0 {
            return Err(RetryPolicyError::Factor(factor));
        }
        if max < base {
            return Err(RetryPolicyError::MaxBelowBase { base, max });
        }
        Ok(Self { base, factor, max })
    }

    /// The longest wait after `failures` failures in a row (0 and 1 both give the base).
    pub fn ceiling(&self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(exponent);
        // The comparison comes first because a Duration cannot be made from an infinite or huge number of seconds.
        if seconds < self.max.as_secs_f64() { Duration::from_secs_f64(seconds) } else { self.max }
    }
}

/// One series of waits under a [`RetryPolicy`].
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: RetryPolicy,
    failures: u32,
    rng: SmallRng,
}

impl Backoff {
    /// A series that has seen no failure; the same seed gives the same waits.
    pub fn new(policy: RetryPolicy, seed: u64) -> Self {
        Self { policy, failures: 0, rng: SmallRng::seed_from_u64(seed) }
    }

    /// Counts one more failure and says how long to wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.policy.ceiling(self.failures).mul_f64(self.rng.random::<f64>())
    }

    /// Failures since the last [`Backoff::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts again from the base, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn policy() -> RetryPolicy {
        RetryPolicy::new(MS(100), 2.0, MS(1000)).unwrap()
    }

    #[test]
    fn ceilings_double_up_to_the_maximum() {
        let ceilings: Vec<_> = (0..8).map(|failures| policy().ceiling(failures).as_millis()).collect();
        assert_eq!(ceilings, [100, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(policy().ceiling(u32::MAX), MS(1000));
    }

    #[test]
    fn policies_that_would_not_back_off_are_refused() {
        assert_eq!(RetryPolicy::new(MS(0), 2.0, MS(1)), Err(RetryPolicyError::ZeroBase));
        assert_eq!(RetryPolicy::new(MS(1), 0.5, MS(1)), Err(RetryPolicyError::Factor(0.5)));
        assert!(matches!(RetryPolicy::new(MS(1), f64::NAN, MS(1)), Err(RetryPolicyError::Factor(_))));
        let swapped = RetryPolicy::new(MS(2), 2.0, MS(1));
        assert_eq!(swapped, Err(RetryPolicyError::MaxBelowBase { base: MS(2), max: MS(1) }));
    }

    #[test]
    fn a_reset_starts_again_from_the_base() {
        let mut backoff = Backoff::new(policy(), 7);
        for _ in 0..10 {
            backoff.next_wait();
        }
        assert_eq!(backoff.failures(), 10);
        backoff.reset();
        assert!(backoff.next_wait() <= MS(100));
    }

    #[test]
    fn waits_of_different_seeds_spread() {
        let firsts: std::collections::BTreeSet<_> =
            (0..100).map(|seed| Backoff::new(policy(), seed).next_wait()).collect();
        assert!(firsts.len() > 90, "only {} different waits of 100", firsts.len());
    }

    proptest! {
        #[test]
        fn a_wait_never_exceeds_its_ceiling(
            base in 1..10_000u64, factor in 1.0..10.0f64, more in 0..100_000u64, seed: u64, failures in 1..200u32,
        ) {
            let policy = RetryPolicy::new(MS(base), factor, MS(base + more)).unwrap();
            let mut backoff = Backoff::new(policy, seed);
            for failure in 1..=failures {
                let wait = backoff.next_wait();
                prop_assert!(wait <= policy.ceiling(failure));
                prop_assert!(policy.ceiling(failure) <= MS(base + more));
            }
        }

        #[test]
        fn the_same_seed_gives_the_same_waits(seed: u64) {
            let mut a = Backoff::new(policy(), seed);
            let mut b = Backoff::new(policy(), seed);
            for _ in 0..20 {
                prop_assert_eq!(a.next_wait(), b.next_wait());
            }
        }
    }
}
