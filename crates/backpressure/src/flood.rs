//! A gate against a flood of faults: when more than a share of the last minute's records are faulty, the fault is hardly
//! the records'. Then everything waits, and a probe looks now and then whether it is over.
//!
//! ```text
//!                share of the window > limit            probe: still a flood
//!   ┌──────────┐ ───────────────────────▶ ┌──────────┐ ◀──────────┐
//!   │ Watching │                          │ Holding  │ ───────────┘
//!   └──────────┘ ◀─── past the end ─── ┌──┴────────┐ │
//!                                      │ Draining  │◀┘ probe: the newest records are good again, or none come
//!                                      └───────────┘
//! ```
//!
//! What piled up while it held is of the flood: it is let through without another judgement up to the end that the probe
//! saw, or the gate would close again over the very records that it has to get rid of.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How far back the share is taken.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The window moves in steps of this.
const STEP: Duration = Duration::from_secs(1);
/// Pause between two probes.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Fewer faults than this in a window are no flood, whatever their share: one bad record of one is 100 %.
pub const MIN_FAULTS: u64 = 10;

/// The share is no share.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a share must be more than 0 and at most 1, not {0}")]
pub struct ShareError(pub f64);

/// Records of a stretch, and how many of them are faulty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub records: u64,
    /// The faulty ones.
    pub faults: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.faults += other.faults;
    }
}

/// What to do with a stretch of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Wait, and ask again at that time.
    Hold {
        /// When.
        until: Instant,
    },
    /// Look at the newest records and tell [`Flood::probed`]; nothing passes before.
    Probe,
}

/// See the drawing above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloodState {
    /// Records pass and are counted.
    Watching,
    /// Nothing passes; the next probe is due at that time.
    Holding {
        /// When.
        probe_at: Instant,
    },
    /// Records before this position pass uncounted.
    Draining {
        /// Which.
        until: u64,
    },
}

/// The gate of one partition.
#[derive(Debug, Clone)]
pub struct Flood {
    max_share: f64,
    /// One tally for each step in which records came, the oldest first.
    window: VecDeque<(Instant, Tally)>,
    state: FloodState,
}

impl Flood {
    /// A gate that lets up to `max_share` of faults through.
    ///
    /// # Errors
    /// When that is not more than 0 and at most 1.
    pub fn new(max_share: f64) -> Result<Self, ShareError> {
        if !(max_share > 0.0 && max_share <= 1.0) {
            return Err(ShareError(max_share));
        }
        Ok(Self { max_share, window: VecDeque::new(), state: FloodState::Watching })
    }

    /// The state after the last question.
    pub fn state(&self) -> FloodState {
        self.state
    }

    /// Asks for a stretch of records that begins at `position`. What passes is counted; what is held is not.
    pub fn admit(&mut self, now: Instant, position: u64, stretch: Tally) -> Verdict {
        match self.state {
            // Draining → Watching: what had piled up is through.
            FloodState::Draining { until } if position >= until => {
                self.window.clear();
                self.state = FloodState::Watching;
                self.watch(now, stretch)
            }
            FloodState::Draining { .. } => Verdict::Pass,
            FloodState::Holding { probe_at } if now < probe_at => Verdict::Hold { until: probe_at },
            FloodState::Holding { .. } => Verdict::Probe,
            FloodState::Watching => self.watch(now, stretch),
        }
    }

    /// Tells what a probe found among the records of the last [`WINDOW`], and the position behind the newest of them.
    pub fn probed(&mut self, now: Instant, newest: Tally, end: u64) -> Verdict {
        if self.is_flood(newest) {
            return self.hold(now);
        }
        // Holding → Draining: the newest records are good again, or there are none.
        self.window.clear();
        self.state = FloodState::Draining { until: end };
        Verdict::Pass
    }

    /// A probe that failed says nothing.
    pub fn not_probed(&mut self, now: Instant) -> Verdict {
        self.hold(now)
    }

    fn watch(&mut self, now: Instant, stretch: Tally) -> Verdict {
        while self.window.front().is_some_and(|(begun, _)| now.saturating_duration_since(*begun) >= WINDOW) {
            self.window.pop_front();
        }
        let mut all = stretch;
        self.window.iter().for_each(|(_, tally)| all.add(*tally));
        // A stretch without faults passes whatever was before: it is the cure.
        if stretch.faults > 0 && self.is_flood(all) {
            return self.hold(now);
        }
        match self.window.back_mut() {
            Some((begun, tally)) if now.saturating_duration_since(*begun) < STEP => tally.add(stretch),
            _ => self.window.push_back((now, stretch)),
        }
        Verdict::Pass
    }

    /// Watching or Holding → Holding.
    fn hold(&mut self, now: Instant) -> Verdict {
        let probe_at = now + PROBE_EVERY;
        self.state = FloodState::Holding { probe_at };
        Verdict::Hold { until: probe_at }
    }

    #[expect(clippy::cast_precision_loss, reason = "a share of counts far below 2^52")]
    fn is_flood(&self, tally: Tally) -> bool {
        tally.faults >= MIN_FAULTS && tally.faults as f64 > self.max_share * tally.records as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(records: u64, faults: u64) -> Tally {
        Tally { records, faults }
    }

    fn seconds(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn a_share_of_the_last_minute_decides() {
        let begun = Instant::now();
        // Each row: when, records, faults, whether they pass.
        for (name, rows) in [
            ("few faults are no flood", vec![(0, 9, 9, true), (61, 9, 9, true), (122, 9, 9, true)]),
            ("the limit itself passes", vec![(0, 100, 50, true), (1, 100, 50, true)]),
            ("more than the limit does not", vec![(0, 100, 50, true), (1, 100, 51, false)]),
            ("a good minute before makes room", vec![(0, 1_000, 0, true), (30, 400, 400, true)]),
            ("which ends with the minute", vec![(0, 1_000, 0, true), (60, 400, 400, false)]),
            ("at once", vec![(0, 10, 10, false)]),
            ("faults add up over the minute", vec![(0, 8, 8, true), (20, 8, 8, false)]),
            ("good records pass in any case", vec![(0, 9, 9, true), (1, 5, 0, true), (2, 20, 6, true)]),
        ] {
            let mut flood = Flood::new(0.5).unwrap();
            for (at, records, faults, passes) in rows {
                let verdict = flood.admit(seconds(begun, at), at, tally(records, faults));
                assert_eq!(verdict == Verdict::Pass, passes, "{name}: at {at}: {verdict:?}");
            }
        }
    }

    #[test]
    fn it_holds_probes_drains_and_watches_again() {
        let begun = Instant::now();
        let mut flood = Flood::new(0.1).unwrap();
        let poison = tally(50, 50);
        assert_eq!(flood.admit(begun, 0, poison), Verdict::Hold { until: begun + PROBE_EVERY });
        assert_eq!(flood.admit(seconds(begun, 4), 0, poison), Verdict::Hold { until: begun + PROBE_EVERY });
        assert_eq!(flood.admit(seconds(begun, 5), 0, poison), Verdict::Probe);
        let next = seconds(begun, 5) + PROBE_EVERY;
        assert_eq!(flood.probed(seconds(begun, 5), tally(500, 400), 550), Verdict::Hold { until: next });
        assert_eq!(flood.admit(seconds(begun, 10), 0, poison), Verdict::Probe);
        assert_eq!(flood.not_probed(seconds(begun, 10)), Verdict::Hold { until: seconds(begun, 15) });
        assert_eq!(flood.admit(seconds(begun, 15), 0, poison), Verdict::Probe);
        assert_eq!(flood.probed(seconds(begun, 15), tally(500, 1), 900), Verdict::Pass);
        assert_eq!(flood.admit(seconds(begun, 16), 0, tally(400, 400)), Verdict::Pass, "the flood itself drains");
        assert_eq!(flood.admit(seconds(begun, 17), 899, poison), Verdict::Pass);
        assert_eq!(flood.admit(seconds(begun, 18), 900, tally(50, 0)), Verdict::Pass);
        assert_eq!(flood.state(), FloodState::Watching);
        assert!(matches!(flood.admit(seconds(begun, 19), 950, poison), Verdict::Hold { .. }), "a new flood");
    }

    #[test]
    fn when_nothing_comes_any_more_it_lets_the_rest_through() {
        let begun = Instant::now();
        let mut flood = Flood::new(0.1).unwrap();
        flood.admit(begun, 0, tally(50, 50));
        assert_eq!(flood.admit(seconds(begun, 70), 0, tally(50, 50)), Verdict::Probe);
        assert_eq!(flood.probed(seconds(begun, 70), tally(0, 0), 50), Verdict::Pass);
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for wrong in [0.0, -0.1, 1.01, f64::NAN, f64::INFINITY] {
            assert!(Flood::new(wrong).is_err(), "{wrong}");
        }
        assert!(Flood::new(1.0).is_ok());
    }

    proptest! {
        #[test]
        fn without_faults_everything_passes(counts in prop::collection::vec((0..100u64, 0..1000u64), 0..100)) {
            let (begun, mut flood, mut at) = (Instant::now(), Flood::new(0.01).unwrap(), 0);
            for (wait, records) in counts {
                at += wait;
                prop_assert_eq!(flood.admit(seconds(begun, at), at, tally(records, 0)), Verdict::Pass);
                prop_assert!(flood.window.len() <= 61);
            }
        }
    }
}
