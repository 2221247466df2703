//! Waiting for a condition: the only place here that sleeps.

use std::time::Duration;

use tokio::time::Instant;

/// Longest wait for anything that is sure to come; far more than three times what the slowest step takes.
pub const LIMIT: Duration = Duration::from_secs(90);
/// How long a condition is left alone between two looks.
const POLL: Duration = Duration::from_millis(40);

/// The outcome of `work`; panics with `what` when there is none after [`LIMIT`]: a client that waits for ever would only
/// say that the whole run took too long.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// Looks until there is an answer; panics with `what` and the last thing seen when [`LIMIT`] has passed.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(LIMIT, what, look).await
}

/// The same with another limit.
pub async fn eventually_within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let is_last = Instant::now() >= deadline;
        match within(what, look()).await {
            Ok(found) => return found,
            Err(seen) if is_last => panic!("not within {limit:?}: {what}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
