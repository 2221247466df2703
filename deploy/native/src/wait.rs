//! Waiting for a condition with a deadline: the one place in this crate that looks at a clock.

use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// How long a condition is left alone between two looks: well below what a start takes, and 40 looks a second cost nothing.
const POLL: Duration = Duration::from_millis(25);

/// A moment by which something must have happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "servers live in real time, and this crate knows no tokio clock")]
    fn now() -> Instant {
        Instant::now()
    }

    pub(crate) fn after(limit: Duration) -> Self {
        Self(Self::now() + limit)
    }

    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Self::now())
    }

    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}

/// Asks until there is an answer or `limit` has passed; the last look is after the deadline.
pub(crate) fn poll_until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(limit);
    loop {
        let last = deadline.has_passed();
        if let Some(found) = look() {
            return Some(found);
        }
        if last {
            return None;
        }
        pause(POLL.min(deadline.remaining()));
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// [`Error::TimedOut`] with `what` when it does not within `limit`.
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<(), Error> {
    poll_until(limit, || condition().then_some(())).ok_or_else(|| Error::TimedOut { what: what.to_owned(), limit })
}

/// The interval between two looks at something that nobody announces, such as another program's port.
pub(crate) fn pause(interval: Duration) {
    let deadline = Deadline::after(interval);
    while !deadline.has_passed() {
        // May return early; the loop is for that.
        thread::park_timeout(deadline.remaining());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        wait_until(Duration::from_secs(60), "three looks", || {
            looks += 1;
            looks == 3
        })
        .unwrap();
        assert_eq!(looks, 3);
    }

    #[test]
    fn a_condition_that_stays_false_names_itself_and_the_limit() {
        let error = wait_until(Duration::from_millis(1), "pigs fly", || false).unwrap_err();
        assert_eq!(error.to_string(), "pigs fly: not within 1ms");
    }
}
