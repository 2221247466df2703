//! Looks at something from outside until it is done, and the time between the first and the last sign of work.

use std::time::Duration;

use tokio::time::Instant;

use super::DRAIN_LIMIT;
use crate::error::Error;

/// Between two looks: half a hundredth of a drain, and a look costs a server a tenth of a millisecond.
const INTERVAL: Duration = Duration::from_millis(10);

/// Asks `done` how much is done until it is `goal`. The answer is the time from the last look that saw nothing, so
/// that a start is no part of it, to the first that saw everything.
pub(super) fn until(what: &str, goal: u64, mut done: impl FnMut() -> Result<u64, Error>) -> Result<f64, Error> {
    let begun = Instant::now();
    let mut idle_until = begun;
    loop {
        let seen = done()?;
        let now = Instant::now();
        match seen {
            0 => idle_until = now,
            _ if seen >= goal => return Ok((now - idle_until).as_secs_f64()),
            _ => {}
        }
        if begun.elapsed() > DRAIN_LIMIT {
            return Err(Error::Client(format!("{what}: {seen} of {goal} after {DRAIN_LIMIT:?}")));
        }
        pause(INTERVAL);
    }
}

/// The rest between two looks at what nobody announces.
pub(super) fn pause(interval: Duration) {
    std::thread::park_timeout(interval);
}
