//! Staleness as a reader of Redis sees it: from a position's effective time until it, or a newer one of its driver, can be read.

use std::collections::VecDeque;
use std::time::Duration;

use crate::quantile::quantile;

/// Span that the figure of the moment covers.
const WINDOW: Duration = Duration::from_secs(1);

/// A probe that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    effective: Duration,
    seen: Option<Duration>,
}

/// Follows every probe from its effective time until it is seen.
#[derive(Debug, Default)]
pub struct Tracker {
    probes: Vec<Probe>,
    /// By driver, the numbers of its probes not yet seen, oldest first.
    waiting: Vec<VecDeque<usize>>,
    /// Moment and staleness of what was seen within the last second.
    recent: VecDeque<(Duration, Duration)>,
}

/// Quantiles of a span of probes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// Probes whose effective time is in the span.
    pub sent: u64,
    /// Those that were seen.
    pub seen: u64,
    /// Median staleness in milliseconds; one never seen counts with its age.
    pub p50_ms: Option<f64>,
    /// 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
}

impl Tracker {
    /// A tracker of `drivers` drivers.
    #[must_use]
    pub fn new(drivers: usize) -> Self {
        Self { waiting: vec![VecDeque::new(); drivers], ..Self::default() }
    }

    /// Enters the probe of driver `slot`; the probes of a driver come in order.
    pub fn sent(&mut self, slot: usize, effective: Duration) {
        self.waiting[slot].push_back(self.probes.len());
        self.probes.push(Probe { effective, seen: None });
    }

    /// Notes that Redis showed, at `now`, the position of driver `slot` of the moment `effective`.
    pub fn read(&mut self, slot: usize, effective: Duration, now: Duration) {
        while let Some(number) = self.waiting[slot].front().copied() {
            let probe = &mut self.probes[number];
            // A reader sees milliseconds: a probe counts as shown from the millisecond that it was stamped with.
            if probe.effective.as_millis() > effective.as_millis() {
                break;
            }
            probe.seen = Some(now);
            self.recent.push_back((now, now.saturating_sub(probe.effective)));
            self.waiting[slot].pop_front();
        }
    }

    /// Drivers with a probe not yet seen.
    pub fn outstanding(&self) -> impl Iterator<Item = usize> + '_ {
        self.waiting.iter().enumerate().filter(|(_, waiting)| !waiting.is_empty()).map(|(slot, _)| slot)
    }

    /// p99 over the last second: of what was seen in it, and of what is not seen yet with its age so far.
    pub fn p99_ms(&mut self, now: Duration) -> Option<f64> {
        while self.recent.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.recent.pop_front();
        }
        let ages = self.waiting.iter().flatten().map(|number| now.saturating_sub(self.probes[*number].effective));
        let all: Vec<f64> = self.recent.iter().map(|(_, staleness)| *staleness).chain(ages).map(millis).collect();
        quantile(&all, 0.99)
    }

    /// The probes with an effective time from `from` up to `until`, as things stand at `now`.
    #[must_use]
    pub fn summary(&self, from: Duration, until: Duration, now: Duration) -> Summary {
        let span = self.probes.iter().filter(|probe| probe.effective >= from && probe.effective < until);
        let staleness = |probe: &Probe| millis(probe.seen.unwrap_or(now).saturating_sub(probe.effective));
        let all: Vec<f64> = span.clone().map(staleness).collect();
        Summary {
            sent: all.len() as u64,
            seen: span.filter(|probe| probe.seen.is_some()).count() as u64,
            p50_ms: quantile(&all, 0.5),
            p99_ms: quantile(&all, 0.99),
        }
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_newer_position_of_the_driver_shows_the_older_ones_too() {
        let mut tracker = Tracker::new(2);
        tracker.sent(0, ms(100));
        tracker.sent(0, ms(200));
        tracker.sent(1, ms(150));
        tracker.read(0, ms(200), ms(230));
        let summary = tracker.summary(ms(0), ms(1_000), ms(1_000));
        assert_eq!((summary.sent, summary.seen), (3, 2));
        assert_eq!(summary.p50_ms, Some(130.0));
        assert_eq!(tracker.outstanding().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn an_older_position_shows_nothing_new() {
        let mut tracker = Tracker::new(1);
        tracker.sent(0, ms(200));
        tracker.read(0, ms(199), ms(300));
        assert_eq!(tracker.outstanding().count(), 1);
    }

    #[test]
    fn one_never_seen_counts_with_its_age() {
        let mut tracker = Tracker::new(1);
        tracker.sent(0, ms(100));
        let summary = tracker.summary(ms(0), ms(1_000), ms(9_100));
        assert_eq!((summary.seen, summary.p99_ms), (0, Some(9_000.0)));
    }

    #[test]
    fn a_millisecond_timestamp_shows_the_probe_within_that_millisecond() {
        let mut tracker = Tracker::new(1);
        tracker.sent(0, Duration::from_micros(200_900));
        tracker.read(0, ms(200), ms(210));
        assert_eq!(tracker.outstanding().count(), 0);
    }

    #[test]
    fn the_figure_of_the_moment_forgets_after_a_second_and_counts_what_waits() {
        let mut tracker = Tracker::new(1);
        assert_eq!(tracker.p99_ms(ms(0)), None);
        tracker.sent(0, ms(0));
        assert_eq!(tracker.p99_ms(ms(4_000)), Some(4_000.0));
        tracker.read(0, ms(0), ms(4_000));
        assert_eq!(tracker.p99_ms(ms(5_000)), Some(4_000.0));
        tracker.sent(0, ms(5_000));
        assert_eq!(tracker.p99_ms(ms(5_001)), Some(1.0));
    }

    #[test]
    fn a_span_holds_its_first_moment_and_not_its_last() {
        let mut tracker = Tracker::new(1);
        for at in [99, 100, 199, 200] {
            tracker.sent(0, ms(at));
        }
        assert_eq!(tracker.summary(ms(100), ms(200), ms(300)).sent, 2);
    }
}
