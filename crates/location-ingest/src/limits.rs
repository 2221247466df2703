//! What may be under way at once. Counters rather than semaphores: nobody waits here, who finds no room is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Args;
use crate::problem::Problem;

/// The limits of one process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    requests: Bounded,
    body_bytes: Bounded,
}

impl Limits {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            requests: Bounded::new(args.max_requests_in_flight),
            body_bytes: Bounded::new(args.max_body_bytes_in_flight),
        }
    }

    /// A place among the requests that wait for Kafka.
    pub(crate) fn request(&self) -> Result<Held, Problem> {
        self.requests.take(1).ok_or(Problem::TooManyRequestsInFlight)
    }

    /// No memory yet for a body that arrives in pieces; [`Held::grow`] takes it piece by piece.
    pub(crate) fn body(&self) -> Held {
        Held { bounded: self.body_bytes.clone(), amount: 0 }
    }

    /// Requests that wait for Kafka.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.requests.used.load(Ordering::Relaxed)
    }

    /// Memory held by bodies that arrive in pieces.
    pub(crate) fn body_bytes_in_flight(&self) -> usize {
        self.body_bytes.used.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone)]
struct Bounded {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }

    fn take(&self, amount: usize) -> Option<Held> {
        let mut held = Held { bounded: self.clone(), amount: 0 };
        held.grow(amount).then_some(held)
    }
}

/// A share of a limit; dropping it gives the share back.
#[derive(Debug)]
#[must_use = "a share that is dropped at once bounds nothing"]
pub(crate) struct Held {
    bounded: Bounded,
    amount: usize,
}

impl Held {
    /// Takes more; false when there is no room, and then nothing was taken.
    pub(crate) fn grow(&mut self, amount: usize) -> bool {
        // Adding first and taking back when it was too much needs no loop; two who collide at the very limit may both
        // be refused, which is a refusal early by one.
        let before = self.bounded.used.fetch_add(amount, Ordering::Relaxed);
        if before + amount > self.bounded.limit {
            self.bounded.used.fetch_sub(amount, Ordering::Relaxed);
            return false;
        }
        self.amount += amount;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bounded.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_comes_back_when_it_is_dropped() {
        let bounded = Bounded::new(3);
        let mut first = bounded.take(2).unwrap();
        assert!(bounded.take(2).is_none());
        assert!(first.grow(1));
        assert!(!first.grow(1));
        drop(first);
        assert!(bounded.take(3).is_some());
        assert_eq!(bounded.used.load(Ordering::Relaxed), 0);
    }
}
