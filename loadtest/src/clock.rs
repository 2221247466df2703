//! The one clock of a run: a moment is a distance from the start, and every thread turns it into wall time in the same way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Start of a run on the monotonic clock and on the wall, taken together.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall_ms: i64,
}

impl Clock {
    /// A clock whose zero is `delay` from now: time enough to start the threads that go by it.
    #[must_use]
    pub fn starting_in(delay: Duration) -> Self {
        // The wall is read first and cut to milliseconds: a timestamp made from it is never ahead of the receiver's clock.
        let wall_ms = unix_ms() + millis(delay);
        Self { start: Instant::now() + delay, wall_ms }
    }

    /// Time since the start; zero before it.
    #[must_use]
    pub fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }

    /// The moment `at` as an instant to wait for.
    #[must_use]
    pub fn instant(&self, at: Duration) -> Instant {
        self.start + at
    }

    /// The moment `at` in milliseconds since the epoch.
    #[must_use]
    pub fn wall_ms(&self, at: Duration) -> i64 {
        self.wall_ms + millis(at)
    }

    /// Milliseconds since the epoch at the start.
    #[must_use]
    pub fn base_ms(&self) -> i64 {
        self.wall_ms
    }
}

/// The wall clock, in milliseconds since the epoch.
#[must_use]
pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_moves_with_the_distance_from_the_start() {
        let clock = Clock::starting_in(Duration::ZERO);
        assert_eq!(clock.wall_ms(Duration::from_micros(1_999)), clock.base_ms() + 1);
    }

    #[test]
    fn a_moment_is_never_ahead_of_the_wall() {
        let clock = Clock::starting_in(Duration::ZERO);
        for _ in 0..10_000 {
            let stamped = clock.wall_ms(clock.now());
            assert!(stamped <= unix_ms());
        }
    }
}
