//! What is remembered of drivers: when each last sent, in eight bytes. It only refines the slot rule, so it may forget
//! and even mistake one driver for another; it never grows.

use std::sync::atomic::{AtomicU64, Ordering};

use super::slot::DriverHash;

/// Entries of one bucket: a cache line.
const WAYS: usize = 8;
/// The upper bits of an entry tell drivers of one bucket apart, the lower ones hold a moment.
const MOMENT_BITS: u32 = 42;
const MOMENT_MASK: u64 = (1 << MOMENT_BITS) - 1;

/// A fixed table of moments by driver; the oldest of a bucket gives way.
#[derive(Debug)]
pub struct DriverMemory {
    entries: Box<[AtomicU64]>,
}

impl DriverMemory {
    /// Room for about `drivers`, 8 bytes each.
    #[must_use]
    pub fn new(drivers: usize) -> Self {
        let entries = drivers.max(WAYS).next_power_of_two();
        Self { entries: (0..entries).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Bytes that it occupies, now and for ever.
    #[must_use]
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.entries)
    }

    /// The moment that was last noted for this driver, in milliseconds; None when it is not remembered.
    #[must_use]
    pub fn last_ms(&self, driver: DriverHash) -> Option<u64> {
        let tag = tag(driver);
        let entry = self.bucket(driver).iter().map(|entry| entry.load(Ordering::Relaxed));
        entry.filter(|entry| *entry != 0).find(|entry| entry >> MOMENT_BITS == tag).map(|entry| entry & MOMENT_MASK)
    }

    /// Notes a moment. Two who write at once may lose one of the two notes, which costs a refinement and nothing else.
    pub fn note(&self, driver: DriverHash, at_ms: u64) {
        let tag = tag(driver);
        let fresh = (tag << MOMENT_BITS) | (at_ms & MOMENT_MASK).max(1);
        let mut oldest: Option<(&AtomicU64, u64)> = None;
        for entry in self.bucket(driver) {
            let value = entry.load(Ordering::Relaxed);
            if value == 0 || value >> MOMENT_BITS == tag {
                return entry.store(fresh, Ordering::Relaxed);
            }
            let moment = value & MOMENT_MASK;
            if oldest.is_none_or(|(_, before)| moment < before) {
                oldest = Some((entry, moment));
            }
        }
        if let Some((entry, _)) = oldest {
            entry.store(fresh, Ordering::Relaxed);
        }
    }

    fn bucket(&self, driver: DriverHash) -> &[AtomicU64] {
        let buckets = self.entries.len() / WAYS;
        // The length is a power of two, and so is the number of buckets.
        let start = (driver.bits() as usize & (buckets - 1)) * WAYS;
        self.entries.get(start..start + WAYS).unwrap_or_default()
    }
}

fn tag(driver: DriverHash) -> u64 {
    driver.bits() >> MOMENT_BITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn driver(number: u64) -> DriverHash {
        DriverHash::of(format!("driver-{number}").as_bytes())
    }

    #[test]
    fn it_remembers_those_it_has_room_for() {
        let memory = DriverMemory::new(65_536);
        for number in 0..30_000 {
            memory.note(driver(number), 1_000 + number);
        }
        let kept = (0..30_000).filter(|number| memory.last_ms(driver(*number)) == Some(1_000 + number)).count();
        assert!(kept > 29_000, "{kept}");
        assert_eq!(memory.bytes(), 8 * 65_536);
    }

    #[test]
    fn the_oldest_gives_way_and_nothing_grows() {
        let memory = DriverMemory::new(64);
        for number in 0..10_000 {
            memory.note(driver(number), 1 + number);
        }
        assert_eq!(memory.last_ms(driver(9_999)), Some(10_000));
        assert_eq!(memory.last_ms(driver(0)), None);
        assert_eq!(memory.bytes(), 512);
    }

    proptest! {
        #[test]
        fn the_last_note_is_what_is_remembered(numbers in prop::collection::vec(0..50_u64, 1..200)) {
            let memory = DriverMemory::new(4_096);
            for (at, number) in numbers.iter().enumerate() {
                memory.note(driver(*number), 1 + at as u64);
                prop_assert_eq!(memory.last_ms(driver(*number)), Some(1 + at as u64));
            }
        }
    }
}
