//! Items a second and driver: the generic cell rate algorithm (ATM Forum, I.371), whose whole state is one moment.

use super::memory::DriverMemory;
use super::slot::DriverHash;

/// Fractions of a millisecond in which moments are kept, so that a thousand items a second can be told from two thousand.
const PARTS: u64 = 256;

/// Holds each driver to a rate, with a burst. Bounded memory: a driver that is forgotten has its burst again.
#[derive(Debug)]
pub struct DriverRate {
    memory: DriverMemory,
    cost: u64,
    burst: u64,
    epoch_ms: u64,
}

impl DriverRate {
    /// `per_second` items, of which `burst` may come at once; `drivers` are remembered.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, drivers: usize, now_ms: u64) -> Self {
        let cost = (1_000 * PARTS / u64::from(per_second.max(1))).max(1);
        // A year before now: moments are kept relative to it, and they fit for a hundred years.
        Self {
            memory: DriverMemory::new(drivers),
            cost,
            burst: cost * u64::from(burst.max(1)),
            epoch_ms: now_ms.saturating_sub(1),
        }
    }

    /// Takes one item of this driver if it has one left; else how many milliseconds until it has.
    ///
    /// # Errors
    /// The wait in milliseconds.
    pub fn take(&self, driver: DriverHash, now_ms: u64) -> Result<(), u64> {
        let now = now_ms.saturating_sub(self.epoch_ms) * PARTS;
        let due = self.memory.last_ms(driver).unwrap_or(0).max(now) + self.cost;
        if due > now + self.burst {
            return Err((due - now - self.burst).div_ceil(PARTS));
        }
        self.memory.note(driver, due);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_795_441_689_633;

    #[test]
    fn a_burst_is_taken_and_then_the_rate() {
        let rate = DriverRate::new(10, 20, 1_000, START);
        let driver = DriverHash::of(b"driver-1");
        let taken = |now| (0..100).filter(|_| rate.take(driver, now).is_ok()).count();
        assert_eq!(taken(START), 20);
        assert_eq!(rate.take(driver, START), Err(100));
        assert_eq!(taken(START + 1_000), 10);
        assert_eq!(taken(START + 100_000), 20);
        assert!(rate.take(DriverHash::of(b"driver-2"), START).is_ok(), "each driver has its own");
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst(waits in prop::collection::vec(0..500_u64, 1..300), per_second in 1..1_000_u32, burst in 1..100_u32) {
            let rate = DriverRate::new(per_second, burst, 100, START);
            let driver = DriverHash::of(b"d");
            let (mut now, mut taken) = (START, 0_u64);
            for wait in waits {
                now += wait;
                taken += u64::from(rate.take(driver, now).is_ok());
            }
            // A cost is rounded down to a part of a millisecond: up to 0.4 % more at a thousand a second.
            let allowed = (now - START) as f64 / 1_000.0 * f64::from(per_second) * 1.005 + f64::from(burst) + 1.0;
            prop_assert!(taken as f64 <= allowed, "{} of {}", taken, allowed);
        }
    }
}
