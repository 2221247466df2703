//! What the generator was told about each event, compact enough for ten millions of them: nine bytes each.

use crate::roster::DriverTag;

/// What became of an event, as far as its sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Sent or about to be; no answer yet.
    Pending,
    /// The server said that it is in Kafka.
    Accepted,
    /// The server said no.
    Refused,
    /// Written to a connection that then gave no answer: it may be in Kafka.
    Unknown,
    /// Never left the generator: certainly not in Kafka.
    NeverSent,
}

/// An event of ours as one number: driver and timestamp. Two events never share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey(u64);

impl EventKey {
    /// The key of an event `at_ms` after the start of the run.
    #[must_use]
    pub fn new(driver: DriverTag, at_ms: u32) -> Self {
        Self(u64::from(driver.get()) << 32 | u64::from(at_ms))
    }

    /// The key of something read back: its driver's name and its effective time; `None` for what is not of this run.
    #[must_use]
    pub fn of(driver_id: &[u8], effective_ms: i64, base_ms: i64) -> Option<Self> {
        let at_ms = u32::try_from(effective_ms.checked_sub(base_ms)?).ok()?;
        DriverTag::parse(driver_id).map(|driver| Self::new(driver, at_ms))
    }
}

/// All events of one generator in the order in which they were due.
#[derive(Debug)]
pub struct Ledger {
    keys: Vec<EventKey>,
    outcomes: Vec<Outcome>,
}

impl Ledger {
    /// Room for `events` without growing: growing would stop the generator for a moment.
    #[must_use]
    pub fn with_capacity(events: usize) -> Self {
        Self { keys: Vec::with_capacity(events), outcomes: Vec::with_capacity(events) }
    }

    /// Enters an event and gives its number.
    pub fn enter(&mut self, key: EventKey) -> usize {
        self.keys.push(key);
        self.outcomes.push(Outcome::Pending);
        self.keys.len() - 1
    }

    /// Notes what became of an event.
    pub fn settle(&mut self, number: usize, outcome: Outcome) {
        self.outcomes[number] = outcome;
    }

    /// Number of events with this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().filter(|other| **other == outcome).count() as u64
    }

    /// Every event with its outcome.
    pub fn iter(&self) -> impl Iterator<Item = (EventKey, Outcome)> + '_ {
        self.keys.iter().copied().zip(self.outcomes.iter().copied())
    }

    /// Number of events entered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing was entered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_read_back_equals_the_key_entered() {
        let entered = EventKey::new(DriverTag::driver(17), 2_500);
        assert_eq!(EventKey::of(b"driver-17", 1_000_002_500, 1_000_000_000), Some(entered));
        assert_ne!(EventKey::of(b"probe-17", 1_000_002_500, 1_000_000_000), Some(entered));
    }

    #[test]
    fn what_is_older_than_the_run_is_not_of_it() {
        assert_eq!(EventKey::of(b"driver-17", 999, 1_000), None);
        assert_eq!(EventKey::of(b"taxi-17", 2_000, 1_000), None);
    }

    #[test]
    fn outcomes_are_counted_one_by_one() {
        let mut ledger = Ledger::with_capacity(3);
        for at in 0..3 {
            ledger.enter(EventKey::new(DriverTag::driver(1), at));
        }
        ledger.settle(1, Outcome::Accepted);
        ledger.settle(2, Outcome::NeverSent);
        assert_eq!(ledger.count(Outcome::Accepted), 1);
        assert_eq!(ledger.count(Outcome::Pending), 1);
        assert_eq!(ledger.len(), 3);
    }
}
