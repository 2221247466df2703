//! Which positions of a batch go to Redis at all. Pure.
//!
//! ```text
//! batch ──▶ late? ──▶ expired? ──▶ newest of its driver? ──▶ written
//!             │           │                │
//!             ▼           ▼                ▼
//!           late       expired        superseded            counted, and their offsets committed
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use event::DriverLocation;

/// Whether a driver's older positions within a batch are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Conflate {
    /// Only the newest of a batch is written.
    On,
    /// Every position is written, in order.
    Off,
}

/// What decides about a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How long a position may be seen, from its effective time on.
    pub(crate) life_ms: i64,
    pub(crate) conflate: Conflate,
}

/// Positions to write, in the order in which they are to be written, and how many are not.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) writes: Vec<&'a DriverLocation>,
    pub(crate) expired: u64,
    pub(crate) late: u64,
    pub(crate) superseded: u64,
}

impl Rules {
    pub(crate) fn new(life: Duration, conflate: Conflate) -> Self {
        Self { life_ms: i64::try_from(life.as_millis()).unwrap_or(i64::MAX), conflate }
    }

    /// `positions` in the order of their offsets within each partition.
    pub(crate) fn plan<'a>(&self, positions: impl Iterator<Item = &'a DriverLocation>, now_ms: i64) -> Plan<'a> {
        let mut plan = Plan::default();
        let mut newest = HashMap::new();
        for position in positions {
            if position.is_late() {
                plan.late += 1;
            } else if self.is_expired(position, now_ms) {
                plan.expired += 1;
            } else {
                match self.conflate {
                    Conflate::On => plan.keep_newest(&mut newest, position),
                    Conflate::Off => plan.writes.push(position),
                }
            }
        }
        plan
    }

    fn is_expired(&self, position: &DriverLocation, now_ms: i64) -> bool {
        position.effective_at_ms.saturating_add(self.life_ms) <= now_ms
    }
}

impl<'a> Plan<'a> {
    fn keep_newest(&mut self, newest: &mut HashMap<&'a str, usize>, position: &'a DriverLocation) {
        match newest.entry(position.driver_id.as_str()) {
            Entry::Vacant(entry) => {
                entry.insert(self.writes.len());
                self.writes.push(position);
            }
            Entry::Occupied(entry) => {
                self.superseded += 1;
                let kept = &mut self.writes[*entry.get()];
                // At equal times the later offset wins: it is the later one of the batch.
                if position.effective_at_ms >= kept.effective_at_ms {
                    *kept = position;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use event::{DriverId, POSITION_LIFE_MS};
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_795_441_689_633;
    const RULES: Rules = Rules { life_ms: POSITION_LIFE_MS, conflate: Conflate::On };

    fn position(driver: &str, age_ms: i64, mark: f64) -> DriverLocation {
        DriverLocation {
            driver_id: DriverId::try_from(driver).unwrap(),
            latitude: mark,
            longitude: 0.0,
            heading: None,
            speed: None,
            timestamp_ms: NOW - age_ms,
            received_at_ms: NOW - age_ms,
            effective_at_ms: NOW - age_ms,
        }
    }

    fn marks(plan: &Plan<'_>) -> Vec<f64> {
        plan.writes.iter().map(|position| position.latitude).collect()
    }

    #[test]
    fn keeps_the_newest_position_of_each_driver() {
        let batch =
            [position("a", 900, 1.0), position("b", 800, 2.0), position("a", 700, 3.0), position("a", 750, 4.0)];
        let plan = RULES.plan(batch.iter(), NOW);
        assert_eq!(marks(&plan), [3.0, 2.0]);
        assert_eq!(plan.superseded, 2);
    }

    #[test]
    fn the_later_offset_wins_a_tie() {
        let batch = [position("a", 5, 1.0), position("a", 5, 2.0)];
        assert_eq!(marks(&RULES.plan(batch.iter(), NOW)), [2.0]);
    }

    #[test]
    fn without_conflation_every_position_is_written_in_order() {
        let batch = [position("a", 5, 1.0), position("a", 6, 2.0), position("b", 5, 3.0)];
        let plan = Rules { conflate: Conflate::Off, ..RULES }.plan(batch.iter(), NOW);
        assert_eq!(marks(&plan), [1.0, 2.0, 3.0]);
        assert_eq!(plan.superseded, 0);
    }

    #[test]
    fn what_would_expire_at_once_is_left_out() {
        let batch = [position("a", POSITION_LIFE_MS - 1, 1.0), position("b", POSITION_LIFE_MS, 2.0)];
        let plan = RULES.plan(batch.iter(), NOW);
        assert_eq!((marks(&plan), plan.expired), (vec![1.0], 1));
    }

    #[test]
    fn a_late_position_never_reaches_the_map_however_long_positions_live() {
        let received_at_ms = NOW;
        let late = DriverLocation { received_at_ms, ..position("a", POSITION_LIFE_MS + 1, 1.0) };
        let plan = Rules { life_ms: i64::MAX, ..RULES }.plan([&late].into_iter(), NOW);
        assert_eq!((plan.writes.len(), plan.late), (0, 1));
    }

    proptest! {
        #[test]
        fn every_position_is_accounted_for_once(batch in prop::collection::vec((0..5u8, 0..60_000i64), 0..200)) {
            let batch: Vec<_> = batch.into_iter().map(|(driver, age)| position(&format!("d{driver}"), age, 0.0)).collect();
            let plan = RULES.plan(batch.iter(), NOW);
            let written = plan.writes.len() as u64;
            prop_assert_eq!(written + plan.expired + plan.late + plan.superseded, batch.len() as u64);
            for kept in plan.writes {
                let newest = batch.iter().filter(|other| other.driver_id == kept.driver_id).map(|other| other.effective_at_ms).max();
                prop_assert_eq!(Some(kept.effective_at_ms), newest);
            }
        }
    }
}
