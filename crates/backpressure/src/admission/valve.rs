//! What every request asks: may this driver send now, and when next? A calm answer costs one atomic load.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::controller::Steps;
use super::memory::DriverMemory;
use super::slot::{DriverHash, Place, SLOT_MS, STRETCH_MAX};

/// Seconds of history that are kept: the longest told time, and a slot of tolerance.
const HISTORY_S: usize = 12;
/// What an answer and the next request spend on their way.
const NETWORK_MS: u64 = 500;
/// The tolerance is for the few who come late. Where more than a tenth as many come in the slot after their own as in
/// it, they do not come late but twice, to another replica each time; at three tenths there is no tolerance left.
const LATE_SHARE_FREE: f64 = 0.1;
const LATE_SHARE_MAX: f64 = 0.3;
/// Weight of the last second in that share.
const LATE_SHARE_WEIGHT: f64 = 0.2;
/// The steps that are the longest interval; further ones shed turns.
const STEPS_OF_STRETCH: u8 = 32 * (STRETCH_MAX as u8 - 1);
/// The share of turns shed by one further step.
const SHED_PER_STEP: f64 = 1.0 / 64.0;

/// The answer for one driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Take it.
    Take {
        /// When this driver should send next, in milliseconds from now.
        next_ms: u64,
    },
    /// It has come sooner than it was told.
    Early {
        /// The same.
        next_ms: u64,
    },
}

impl Decision {
    /// When this driver should send next, in milliseconds from now.
    #[must_use]
    pub fn next_ms(self) -> u64 {
        match self {
            Self::Take { next_ms } | Self::Early { next_ms } => next_ms,
        }
    }
}

/// The stretch of the present and of the last seconds, read without a lock.
#[derive(Debug)]
pub struct Valve {
    /// What drivers were told, the present first, one for each second.
    history: [AtomicU8; HISTORY_S],
    /// What drivers are held to.
    held: AtomicU8,
    /// When the first entry was set, in milliseconds of the controller's clock.
    set_at_ms: AtomicU64,
    /// The largest of the history: 0 while all of it is calm.
    busiest: AtomicU8,
    /// How late a driver may come, and what decides it: arrivals in their own slot and in the one after.
    tolerance_ms: AtomicU64,
    in_slot: AtomicU64,
    after_slot: AtomicU64,
    late_share: AtomicU64,
    memory: DriverMemory,
}

impl Valve {
    /// Wide open, with room to remember about `drivers`.
    #[must_use]
    pub fn new(drivers: usize) -> Self {
        let history = std::array::from_fn(|_| AtomicU8::new(0));
        Self {
            history,
            held: AtomicU8::new(0),
            set_at_ms: AtomicU64::new(0),
            busiest: AtomicU8::new(0),
            tolerance_ms: AtomicU64::new(SLOT_MS),
            in_slot: AtomicU64::new(0),
            after_slot: AtomicU64::new(0),
            late_share: AtomicU64::new(0.0_f64.to_bits()),
            memory: DriverMemory::new(drivers),
        }
    }

    /// Sets the stretch, as [`super::Controller::step`] gives it. Called by one task, at least once a second.
    pub fn set(&self, now_ms: u64, steps: Steps) {
        let before_ms = self.set_at_ms.swap(now_ms, Ordering::Relaxed);
        let passed = (now_ms / 1_000).saturating_sub(before_ms / 1_000);
        for _ in 0..passed.min(HISTORY_S as u64) {
            for (newer, older) in self.history.iter().zip(self.history.iter().skip(1)).rev() {
                older.store(newer.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        self.history[0].store(steps.told, Ordering::Relaxed);
        self.held.store(steps.held, Ordering::Relaxed);
        let busiest = self.history.iter().map(|steps| steps.load(Ordering::Relaxed)).max();
        self.busiest.store(busiest.unwrap_or_default(), Ordering::Relaxed);
        if passed > 0 {
            self.learn_tolerance();
        }
    }

    fn learn_tolerance(&self) {
        let (own, after) = (self.in_slot.swap(0, Ordering::Relaxed), self.after_slot.swap(0, Ordering::Relaxed));
        let last = after as f64 / own.max(1) as f64;
        let before = f64::from_bits(self.late_share.load(Ordering::Relaxed));
        let share = before + LATE_SHARE_WEIGHT * (last.min(1.0) - before);
        self.late_share.store(share.to_bits(), Ordering::Relaxed);
        let left = 1.0 - ((share - LATE_SHARE_FREE) / (LATE_SHARE_MAX - LATE_SHARE_FREE)).clamp(0.0, 1.0);
        self.tolerance_ms.store((left * SLOT_MS as f64) as u64, Ordering::Relaxed);
    }

    /// The stretch that drivers are told at present, in steps of 1/32 above 1.
    #[must_use]
    pub fn steps(&self) -> u8 {
        self.history[0].load(Ordering::Relaxed)
    }

    /// The interval that drivers are told on average, in milliseconds.
    #[must_use]
    pub fn interval_ms(&self) -> u64 {
        SLOT_MS + SLOT_MS * u64::from(self.steps().min(STEPS_OF_STRETCH)) / 32
    }

    /// Whether every driver may send at any time: then nothing about a driver needs to be known.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.busiest.load(Ordering::Relaxed) == 0
    }

    /// Decides for one driver, and remembers that it was taken.
    pub fn decide(&self, driver: DriverHash, now_ms: u64) -> Decision {
        if self.is_calm() {
            return Decision::Take { next_ms: SLOT_MS };
        }
        let steps = self.steps();
        let place = Place::of(driver, now_ms, driver.stretch(steps));
        self.count(place);
        let next_ms = place.next_ms();
        let held = self.held.load(Ordering::Relaxed);
        if !self.is_in_turn(driver, now_ms, held) || is_shed(driver, place, held) {
            return Decision::Early { next_ms };
        }
        self.memory.note(driver, now_ms);
        Decision::Take { next_ms }
    }

    fn count(&self, place: Place) {
        let counter = match place.behind {
            _ if place.stretch == 1 => return,
            0 => &self.in_slot,
            1 => &self.after_slot,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// In turn by the stretch that drivers are held to, or by one that this driver may have been told and has not outlived.
    fn is_in_turn(&self, driver: DriverHash, now_ms: u64, held: u8) -> bool {
        let stretch = driver.stretch(held);
        if stretch == 1 || self.has_turn(Place::of(driver, now_ms, stretch), driver, now_ms) {
            return true;
        }
        let since_set_ms = now_ms.saturating_sub(self.set_at_ms.load(Ordering::Relaxed));
        let mut tried = 0;
        for (age_s, steps) in self.history.iter().enumerate() {
            let stretch = driver.stretch(steps.load(Ordering::Relaxed));
            // It was last told just before the next entry was set: is that still to be kept?
            let told_ago_ms = if age_s == 0 { 0 } else { since_set_ms + 1_000 * (age_s as u64 - 1) };
            if stretch == tried || told_until_ms(stretch) < told_ago_ms {
                continue;
            }
            tried = stretch;
            if stretch == 1 || self.has_turn(Place::of(driver, now_ms, stretch), driver, now_ms) {
                return true;
            }
        }
        false
    }

    fn has_turn(&self, place: Place, driver: DriverHash, now_ms: u64) -> bool {
        // The tolerance is for those who come late, not for those who come twice.
        let came_already = || {
            let turn_began = now_ms.saturating_sub(place.behind * SLOT_MS + place.into_ms);
            self.memory.last_ms(driver).is_some_and(|last| last >= turn_began)
        };
        place.is_in_turn(self.tolerance_ms.load(Ordering::Relaxed)) && !came_already()
    }
}

/// How long a told interval holds: its length, up to half a slot more where it was aimed at a slot, and the network.
fn told_until_ms(stretch: u64) -> u64 {
    let aimed = if stretch == 1 { 0 } else { SLOT_MS / 2 };
    stretch * SLOT_MS + aimed + NETWORK_MS
}

/// Beyond the longest interval a share of all turns is passed over: another driver's each time, the same for all replicas.
fn is_shed(driver: DriverHash, place: Place, steps: u8) -> bool {
    let beyond = steps.saturating_sub(STEPS_OF_STRETCH);
    beyond > 0 && place.lot(driver) < f64::from(beyond) * SHED_PER_STEP
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_441_690_000;

    fn both(steps: u8) -> Steps {
        Steps { told: steps, held: steps }
    }

    fn driver(number: u64) -> DriverHash {
        DriverHash::of(format!("driver-{number}").as_bytes())
    }

    /// A valve at this stretch for longer than anyone remembers another one.
    fn long_at(steps: u8) -> Valve {
        let valve = Valve::new(1_024);
        (0..20).for_each(|second| valve.set(NOW - 20_000 + second * 1_000, both(steps)));
        valve
    }

    #[test]
    fn calm_means_two_seconds_for_everyone() {
        let valve = long_at(0);
        assert!((0..1_000).all(|number| valve.decide(driver(number), NOW) == Decision::Take { next_ms: 2_000 }));
    }

    #[test]
    fn whoever_comes_as_told_is_taken_and_whoever_does_not_is_mostly_refused() {
        let valve = long_at(64);
        for number in 0..500 {
            let mut now = NOW;
            now += valve.decide(driver(number), now).next_ms();
            for _ in 0..5 {
                let decision = valve.decide(driver(number), now);
                assert!(matches!(decision, Decision::Take { .. }), "driver {number}");
                now += decision.next_ms();
            }
        }
        let stubborn = 10_000;
        let taken =
            (0..30).filter(|at| matches!(valve.decide(driver(stubborn), NOW + at * 2_000), Decision::Take { .. }));
        assert!((9..=11).contains(&taken.count()), "one in three");
    }

    #[test]
    fn what_was_told_before_a_change_is_kept() {
        for (before, after) in [(0, 32), (32, 128), (128, 32), (96, 0), (0, 128)] {
            for number in 0..300 {
                let valve = long_at(before);
                let mut now = NOW - 500;
                // In turn by the old stretch from here on.
                for _ in 0..3 {
                    now += valve.decide(driver(number), now).next_ms();
                    valve.set(now, both(before));
                }
                let told = valve.decide(driver(number), now).next_ms();
                (0..=told / 1_000).for_each(|second| valve.set(now + second * 1_000, both(after)));
                let decision = valve.decide(driver(number), now + told);
                assert!(matches!(decision, Decision::Take { .. }), "driver {number} from {before} to {after}");
            }
        }
    }

    #[test]
    fn back_at_calm_nobody_is_refused() {
        let valve = long_at(128);
        assert!((0..100).any(|number| matches!(valve.decide(driver(number), NOW), Decision::Early { .. })));
        valve.set(NOW, both(0));
        assert!((0..100).all(|number| matches!(valve.decide(driver(number), NOW), Decision::Take { next_ms: 2_000 })));
    }

    #[test]
    fn what_is_told_and_not_held_to_refuses_nobody() {
        let valve = Valve::new(1_024);
        (0..20).for_each(|second| valve.set(NOW - 20_000 + second * 1_000, Steps { told: 128, held: 0 }));
        let decisions: Vec<_> = (0..100).map(|number| valve.decide(driver(number), NOW)).collect();
        assert!(decisions.iter().all(|decision| matches!(decision, Decision::Take { .. })));
        assert!(decisions.iter().any(|decision| decision.next_ms() > 8_000));
    }

    proptest! {
        #[test]
        fn the_told_time_is_always_within_two_and_ten_seconds(history in prop::collection::vec(0..=128_u8, 1..30), number: u64) {
            let valve = Valve::new(64);
            for (second, steps) in history.iter().enumerate() {
                let now = NOW + 1_000 * second as u64;
                valve.set(now, both(*steps));
                prop_assert!((2_000..=10_000).contains(&valve.decide(driver(number), now).next_ms()));
            }
        }
    }
}
