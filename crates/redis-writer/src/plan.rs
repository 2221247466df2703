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

use crate::place::Placed;

/// Whether a driver's older positions within a batch are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Conflate {
    /// In catch-up, when more is waiting than a batch holds; else the few repeats are not worth looking for
    Auto,
    /// Only the newest of a batch is written
    On,
    /// Every position is written, in order
    Off,
}

/// What decides about a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How long a position may be seen, from its effective time on.
    pub(crate) life_ms: i64,
    pub(crate) conflate: Conflate,
    /// Positions of the largest batch that is none of a catch-up.
    pub(crate) steady_batch: usize,
}

/// Positions to write, in the order in which they are to be written, and how many are not.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) writes: Vec<Placed<'a>>,
    pub(crate) expired: u64,
    pub(crate) late: u64,
    pub(crate) superseded: u64,
}

impl Rules {
    pub(crate) fn new(life: Duration, conflate: Conflate, steady_batch: u64) -> Self {
        Self {
            life_ms: i64::try_from(life.as_millis()).unwrap_or(i64::MAX),
            conflate,
            steady_batch: usize::try_from(steady_batch).unwrap_or(usize::MAX),
        }
    }

    /// The plan for a batch of `count` positions, given in the order of their offsets within each partition.
    pub(crate) fn plan<'a>(&self, count: usize, positions: impl Iterator<Item = Placed<'a>>, now_ms: i64) -> Plan<'a> {
        let mut plan = Plan::default();
        let conflates = self.conflates(count);
        let mut newest = HashMap::with_capacity(if conflates { count } else { 0 });
        for placed in positions {
            if placed.position.is_late() {
                plan.late += 1;
            } else if self.is_expired(placed.position, now_ms) {
                plan.expired += 1;
            } else if conflates {
                plan.keep_newest(&mut newest, placed);
            } else {
                plan.writes.push(placed);
            }
        }
        plan
    }

    fn conflates(&self, count: usize) -> bool {
        match self.conflate {
            Conflate::Auto => count > self.steady_batch,
            Conflate::On => true,
            Conflate::Off => false,
        }
    }

    fn is_expired(&self, position: &DriverLocation, now_ms: i64) -> bool {
        position.effective_at_ms.saturating_add(self.life_ms) <= now_ms
    }
}

impl<'a> Plan<'a> {
    fn keep_newest(&mut self, newest: &mut HashMap<&'a str, usize>, placed: Placed<'a>) {
        match newest.entry(placed.position.driver_id.as_str()) {
            Entry::Vacant(entry) => {
                entry.insert(self.writes.len());
                self.writes.push(placed);
            }
            Entry::Occupied(entry) => {
                self.superseded += 1;
                let kept = &mut self.writes[*entry.get()];
                *kept = kept.newer(placed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use event::{DriverId, POSITION_LIFE_MS};
    use kafka::{Offset, PartitionId};
    use proptest::prelude::*;

    use super::*;
    use crate::place::Place;

    const NOW: i64 = 1_795_441_689_633;
    const RULES: Rules = Rules { life_ms: POSITION_LIFE_MS, conflate: Conflate::On, steady_batch: 2 };

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

    /// The plan for positions that lie one behind the other in partition 0.
    fn plan<'a>(rules: Rules, batch: &'a [DriverLocation]) -> Plan<'a> {
        let placed = batch.iter().zip(0..).map(|(position, offset)| placed(position, 0, offset));
        rules.plan(batch.len(), placed, NOW)
    }

    fn placed(position: &DriverLocation, partition: i32, offset: i64) -> Placed<'_> {
        let place = Place { partition: PartitionId(partition), offset: Offset(offset) };
        Placed { position, place, won_tie: false }
    }

    fn marks(plan: &Plan<'_>) -> Vec<f64> {
        plan.writes.iter().map(|placed| placed.position.latitude).collect()
    }

    #[test]
    fn keeps_the_newest_position_of_each_driver() {
        let batch =
            [position("a", 900, 1.0), position("b", 800, 2.0), position("a", 700, 3.0), position("a", 750, 4.0)];
        let plan = plan(RULES, &batch);
        assert_eq!(marks(&plan), [3.0, 2.0]);
        assert_eq!(plan.superseded, 2);
    }

    #[test]
    fn the_greater_place_wins_a_tie_in_whatever_order() {
        let (first, second) = (position("a", 5, 1.0), position("a", 5, 2.0));
        for (one, other) in [((0, 7), (0, 8)), ((3, 8), (4, 7))] {
            let (older, newer) = (placed(&first, one.0, one.1), placed(&second, other.0, other.1));
            for order in [[older, newer], [newer, older]] {
                let plan = RULES.plan(2, order.into_iter(), NOW);
                assert_eq!((marks(&plan), plan.writes[0].won_tie), (vec![2.0], true));
            }
        }
    }

    #[test]
    fn who_has_won_a_tie_is_remembered_until_a_newer_position() {
        let batch = [position("a", 5, 1.0), position("a", 5, 2.0), position("a", 6, 3.0), position("b", 5, 1.0)];
        let ties = |batch: &[DriverLocation]| plan(RULES, batch).writes.iter().map(|p| p.won_tie).collect::<Vec<_>>();
        assert_eq!(ties(&batch), [true, false]);
        assert_eq!(ties(&[batch[0].clone(), batch[1].clone(), position("a", 4, 4.0)]), [false]);
        assert_eq!(ties(&[batch[0].clone(), batch[0].clone()]), [false], "the same position twice decides nothing");
    }

    #[test]
    fn auto_conflates_only_what_is_more_than_a_batch() {
        let batch = [position("a", 7, 1.0), position("a", 6, 2.0), position("a", 5, 3.0)];
        let rules = Rules { conflate: Conflate::Auto, ..RULES };
        assert_eq!(marks(&plan(rules, &batch[..2])), [1.0, 2.0]);
        assert_eq!(marks(&plan(rules, &batch)), [3.0]);
    }

    #[test]
    fn without_conflation_every_position_is_written_in_order() {
        let batch = [position("a", 5, 1.0), position("a", 6, 2.0), position("b", 5, 3.0)];
        let plan = plan(Rules { conflate: Conflate::Off, ..RULES }, &batch);
        assert_eq!(marks(&plan), [1.0, 2.0, 3.0]);
        assert_eq!(plan.superseded, 0);
    }

    #[test]
    fn what_would_expire_at_once_is_left_out() {
        let batch = [position("a", POSITION_LIFE_MS - 1, 1.0), position("b", POSITION_LIFE_MS, 2.0)];
        let plan = plan(RULES, &batch);
        assert_eq!((marks(&plan), plan.expired), (vec![1.0], 1));
    }

    #[test]
    fn a_late_position_never_reaches_the_map_however_long_positions_live() {
        let received_at_ms = NOW;
        let late = DriverLocation { received_at_ms, ..position("a", POSITION_LIFE_MS + 1, 1.0) };
        let plan = plan(Rules { life_ms: i64::MAX, ..RULES }, std::slice::from_ref(&late));
        assert_eq!((plan.writes.len(), plan.late), (0, 1));
    }

    proptest! {
        #[test]
        fn every_position_is_accounted_for_once(batch in prop::collection::vec((0..5u8, 0..60_000i64), 0..200)) {
            let batch: Vec<_> = batch.into_iter().map(|(driver, age)| position(&format!("d{driver}"), age, 0.0)).collect();
            let plan = plan(RULES, &batch);
            let written = plan.writes.len() as u64;
            prop_assert_eq!(written + plan.expired + plan.late + plan.superseded, batch.len() as u64);
            for kept in plan.writes {
                let kept = kept.position;
                let newest = batch.iter().filter(|other| other.driver_id == kept.driver_id).map(|other| other.effective_at_ms).max();
                prop_assert_eq!(Some(kept.effective_at_ms), newest);
            }
        }
    }
}
