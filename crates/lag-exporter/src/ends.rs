//! When did the log of a partition reach an offset? A bounded history of (end offset, time).
//!
//! When it is full, every second point of its older half goes: what is long ago is known less exactly, in proportion.

use std::collections::VecDeque;

/// Points of one partition: at an interval of 5 s the last ten minutes are known to 5 s.
const MAX_POINTS: usize = 256;

/// The ends of one partition's log over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Both rise, or stay.
    points: VecDeque<Point>,
    /// How far the end moved with the last point.
    grown: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    end: i64,
    at_ms: i64,
}

/// When a record was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Not before; `None` when it was there before the history begins.
    pub(crate) not_before_ms: Option<i64>,
    /// Not after.
    pub(crate) not_after_ms: i64,
    /// The best guess, where there is one.
    pub(crate) about_ms: Option<i64>,
}

impl Ends {
    /// Takes note of the end at a time. A log that has become shorter is another one, and begins anew.
    pub(crate) fn observe(&mut self, end: i64, at_ms: i64) {
        if self.points.back().is_some_and(|last| end < last.end || at_ms < last.at_ms) {
            self.points.clear();
        }
        self.grown = self.points.back().map_or(0, |last| u64::try_from(end - last.end).unwrap_or(0));
        let point = Point { end, at_ms };
        let len = self.points.len();
        let stands_still = len >= 2 && self.points[len - 1].end == end && self.points[len - 2].end == end;
        if stands_still {
            self.points[len - 1] = point;
        } else {
            self.points.push_back(point);
        }
        if self.points.len() > MAX_POINTS {
            self.thin();
        }
    }

    /// How far the end moved from the last observation but one to the last.
    pub(crate) fn grown(&self) -> u64 {
        self.grown
    }

    /// When the record at `offset` was appended; `None` when the log does not reach that far.
    pub(crate) fn appended(&self, offset: i64) -> Option<Appended> {
        let after = self.points.partition_point(|point| point.end <= offset);
        let later = self.points.get(after)?;
        let Some(earlier) = after.checked_sub(1).map(|before| self.points[before]) else {
            return Some(Appended { not_before_ms: None, not_after_ms: later.at_ms, about_ms: None });
        };
        Some(Appended {
            not_before_ms: Some(earlier.at_ms),
            not_after_ms: later.at_ms,
            about_ms: Some(
                earlier.at_ms + part(later.at_ms - earlier.at_ms, offset - earlier.end, later.end - earlier.end),
            ),
        })
    }

    /// Records appended a second over the last `window_ms`; `None` while less than two moments are known.
    #[expect(clippy::cast_precision_loss, reason = "2^53 records a window are no more")]
    pub(crate) fn rate(&self, window_ms: i64) -> Option<f64> {
        let last = self.points.back()?;
        let from_ms = last.at_ms - window_ms;
        let inside = self.points.partition_point(|point| point.at_ms <= from_ms);
        let first = match inside.checked_sub(1) {
            None => *self.points.front()?,
            Some(before) => match (self.points[before], self.points.get(inside)) {
                (earlier, Some(later)) => {
                    let grown = part(later.end - earlier.end, from_ms - earlier.at_ms, later.at_ms - earlier.at_ms);
                    Point { end: earlier.end + grown, at_ms: from_ms }
                }
                (earlier, None) => earlier,
            },
        };
        let ms = last.at_ms - first.at_ms;
        (ms > 0).then(|| (last.end - first.end) as f64 * 1_000.0 / ms as f64)
    }

    fn thin(&mut self) {
        let older = self.points.len() / 2;
        let mut index = 0;
        self.points.retain(|_| {
            index += 1;
            index > older || index % 2 == 1
        });
    }
}

/// `whole` × (`share` + ½) / `of`, in the middle of the record's own part; for rates the half is noise.
fn part(whole: i64, share: i64, of: i64) -> i64 {
    let of = i128::from(of.max(1));
    let exact = i128::from(whole) * (2 * i128::from(share) + 1) / (2 * of);
    i64::try_from(exact).unwrap_or(whole).clamp(0, whole.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(points: &[(i64, i64)]) -> Ends {
        let mut ends = Ends::default();
        points.iter().for_each(|(end, at_ms)| ends.observe(*end, *at_ms));
        ends
    }

    fn about(ends: &Ends, offset: i64) -> Option<i64> {
        ends.appended(offset)?.about_ms
    }

    #[test]
    fn a_record_was_appended_between_two_ends() {
        let ends = history(&[(0, 0), (100, 1_000), (100, 9_000), (200, 10_000)]);
        let cases =
            [(0, Some(5)), (50, Some(505)), (99, Some(995)), (100, Some(9_005)), (199, Some(9_995)), (200, None)];
        for (offset, expected) in cases {
            assert_eq!(about(&ends, offset), expected, "record {offset}");
        }
    }

    #[test]
    fn what_was_there_before_has_an_upper_bound_only() {
        let ends = history(&[(100, 5_000), (200, 10_000)]);
        assert_eq!(ends.appended(50), Some(Appended { not_before_ms: None, not_after_ms: 5_000, about_ms: None }));
    }

    #[test]
    fn an_idle_hour_takes_two_points_and_does_not_age_the_next_record() {
        let mut ends = Ends::default();
        (0..720).for_each(|tick| ends.observe(100, 5_000 * tick));
        ends.observe(101, 3_600_000);
        assert_eq!(ends.points.len(), 3);
        assert_eq!(ends.appended(100).unwrap().not_before_ms, Some(3_595_000));
    }

    #[test]
    fn a_shorter_log_begins_anew() {
        let ends = history(&[(100, 0), (200, 1_000), (5, 2_000)]);
        assert_eq!((ends.appended(150), ends.appended(3).unwrap().about_ms, ends.grown()), (None, None, 0));
    }

    #[test]
    fn memory_is_bounded_and_what_is_old_is_still_known_in_proportion() {
        let mut ends = Ends::default();
        // A record a second for three hours, seen each second.
        (0..10_800).for_each(|second| ends.observe(second, 1_000 * second));
        assert!(ends.points.len() <= MAX_POINTS);
        for offset in [10, 100, 1_000, 5_000, 10_000, 10_700, 10_790] {
            let error_ms = (about(&ends, offset).unwrap() - 1_000 * offset).abs();
            let age_ms = 1_000 * (10_799 - offset);
            assert!(error_ms <= 1_000 + age_ms / 50, "record {offset}: {error_ms} ms");
        }
    }

    #[test]
    fn rates_are_those_of_the_window() {
        let ends = history(&[(0, 0), (600, 60_000), (2_400, 120_000)]);
        assert_eq!(ends.rate(60_000), Some(30.0));
        assert_eq!(ends.rate(600_000), Some(20.0));
        assert_eq!(history(&[(5, 0)]).rate(60_000), None);
        assert_eq!(history(&[(5, 0), (5, 1_000)]).rate(60_000), Some(0.0));
    }
}
