//! The slot rule: whose turn it is, by the clock and a hash alone, so that every replica says the same.
//!
//! Time is cut into slots of 2 s, each driver's shifted by a part of its hash so that the load stays even within them.
//! With stretch k, a driver is in turn when (⌊now / 2 s + hash⌋) mod k = 0.

/// Width of a slot: the interval of a phone that nothing stretches, in milliseconds.
pub const SLOT_MS: u64 = 2_000;
/// The largest stretch: a phone is never told to wait longer than 10 s.
pub const STRETCH_MAX: u64 = 5;
/// Where in its slot a phone is told to come: the middle, so that clocks may differ by almost a second either way.
const AIM_MS: u64 = SLOT_MS / 2;

/// What is hashed out of a driver's id; the same in every replica and every release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverHash(u64);

impl DriverHash {
    /// FNV-1a, then the finalizer of SplitMix64: ids that differ in the last digit must not have neighbouring slots.
    #[must_use]
    pub fn of(id: &[u8]) -> Self {
        Self(mix(id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })))
    }

    /// All 64 bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The whole number of slots by which this driver's turns are shifted.
    fn slots(self) -> u64 {
        self.0 & 0xffff
    }

    /// The rest of the shift, in milliseconds.
    fn shift_ms(self) -> u64 {
        (((self.0 >> 16) & 0xffff) * SLOT_MS) >> 16
    }

    /// This driver's whole stretch where all drivers together are to be stretched by `steps` / 32: of stretch 1.75, three
    /// drivers in four have 2 and the fourth has 1.
    pub(crate) fn stretch(self, steps: u8) -> u64 {
        let dither = (self.0 >> 32) & 0x1f;
        (1 + ((u64::from(steps) + dither) >> 5)).min(STRETCH_MAX)
    }
}

/// The finalizer of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Where a driver stands in its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Slots since the last one that was this driver's own; 0 in it.
    pub(crate) behind: u64,
    /// Milliseconds since the present slot began.
    pub(crate) into_ms: u64,
    pub(crate) stretch: u64,
    /// Turns that this driver has had since time began.
    turn: u64,
}

impl Place {
    pub(crate) fn of(driver: DriverHash, now_ms: u64, stretch: u64) -> Self {
        let shifted = now_ms + driver.shift_ms();
        let slots = shifted / SLOT_MS + driver.slots();
        Self { behind: slots % stretch, into_ms: shifted % SLOT_MS, stretch, turn: slots / stretch }
    }

    /// In turn, or no more than `tolerance_ms` after it.
    pub(crate) fn is_in_turn(self, tolerance_ms: u64) -> bool {
        match self.behind {
            0 => true,
            1 => self.into_ms < tolerance_ms,
            _ => false,
        }
    }

    /// A number from 0 to 1 that is drawn anew for each turn, and drawn alike by all replicas.
    pub(crate) fn lot(self, driver: DriverHash) -> f64 {
        let drawn = mix(driver.0 ^ self.turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (drawn >> 40) as f64 / (1_u64 << 24) as f64
    }

    /// How long until this driver should send next: it falls into a slot of its own.
    pub(crate) fn next_ms(self) -> u64 {
        if self.stretch == 1 {
            return SLOT_MS;
        }
        let aim = (self.stretch - self.behind) * SLOT_MS + AIM_MS - self.into_ms;
        // Either bound still falls into that slot, only not into its middle.
        aim.clamp(SLOT_MS, STRETCH_MAX * SLOT_MS)
    }
}

/// `Retry-After` for a driver who is told to come in `next_ms`: whole seconds, still inside its slot.
#[must_use]
pub fn retry_after_s(next_ms: u64) -> u64 {
    ((next_ms + 500) / 1_000).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_same_for_ever() {
        // Replicas of two releases stand beside each other during a rollout.
        assert_eq!(DriverHash::of(b"driver-17").bits(), DriverHash::of(b"driver-17").bits());
        assert_eq!(DriverHash::of(b"").bits(), 0xf52a_15e9_a9b5_e89b);
    }

    #[test]
    fn each_slot_is_the_turn_of_an_equal_share() {
        for stretch in 2..=STRETCH_MAX {
            for now in [0, 777, 1_795_441_689_633] {
                let in_turn =
                    |id: u32| Place::of(DriverHash::of(format!("driver-{id}").as_bytes()), now, stretch).is_in_turn(0);
                let share = (0..10_000).filter(|id| in_turn(*id)).count() as f64 / 10_000.0;
                assert!((share * stretch as f64 - 1.0).abs() < 0.1, "{share} of stretch {stretch}");
            }
        }
    }

    #[test]
    fn a_fraction_of_a_stretch_is_a_share_of_the_drivers() {
        let mean = |steps| {
            let stretch = |id: u32| DriverHash::of(format!("driver-{id}").as_bytes()).stretch(steps);
            (0..10_000).map(stretch).sum::<u64>() as f64 / 10_000.0
        };
        for (steps, expected) in [(0, 1.0), (8, 1.25), (32, 2.0), (56, 2.75), (128, 5.0)] {
            let mean = mean(steps);
            assert!((mean - expected).abs() < 0.03, "{mean} at {steps}");
        }
    }

    proptest! {
        #[test]
        fn the_told_time_falls_into_an_own_slot(id: u64, now in 0..2_000_000_000_000_u64, stretch in 1..=STRETCH_MAX) {
            let driver = DriverHash(id);
            let next = Place::of(driver, now, stretch).next_ms();
            prop_assert!((SLOT_MS..=STRETCH_MAX * SLOT_MS).contains(&next));
            prop_assert_eq!(Place::of(driver, now + next, stretch).behind, 0);
        }

        #[test]
        fn clocks_half_a_second_apart_agree_on_whoever_was_told(id: u64, now in 1_000_000..2_000_000_000_000_u64, stretch in 1..=STRETCH_MAX, skew in -500..=500_i64, network in 0..=200_u64) {
            let driver = DriverHash(id);
            let first = now + Place::of(driver, now, stretch).next_ms();
            // Whoever was told in its slot comes to the middle of the next; the first may have been an early one.
            let then = first + Place::of(driver, first, stretch).next_ms() + network;
            prop_assert!(Place::of(driver, then.checked_add_signed(skew).unwrap(), stretch).is_in_turn(SLOT_MS) || stretch == 5 || stretch == 2);
        }

        #[test]
        fn retry_after_is_whole_seconds_of_the_told_time(next in 2_000..=10_000_u64) {
            prop_assert!(retry_after_s(next).abs_diff(next / 1_000) <= 1);
        }
    }
}
