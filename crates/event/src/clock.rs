//! Which moment a position belongs to, when phones' clocks are wrong and phones upload late (design: "Time").

use crate::Reason;

/// How long a position is worth showing on the map, from its effective time.
pub const POSITION_LIFE_MS: i64 = 30_000;
/// 2000-01-01T00:00:00Z: an earlier timestamp is a clock that was never set, or seconds taken for milliseconds.
pub const EARLIEST_MS: i64 = 946_684_800_000;
/// A timestamp may be ahead of the receiver by this much.
pub const FARTHEST_AHEAD_MS: i64 = 24 * 60 * 60 * 1000;
/// A sending time this close to the receipt is a right clock and a network's delay: nothing is corrected.
pub const SENT_AT_TOLERANCE_MS: i64 = 2_000;

/// What was done to a phone's timestamp to get the effective time. Each is counted by the ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockNote {
    /// Shifted by the difference between the phone's sending time and the receipt.
    pub corrected: bool,
    /// It was ahead of the receiver and became the time of receipt.
    pub clamped: bool,
}

/// Checks a timestamp against the receiver's clock.
pub(crate) fn check_timestamp(timestamp_ms: i64, received_at_ms: i64) -> Result<i64, Reason> {
    if timestamp_ms < EARLIEST_MS {
        return Err(Reason::TimestampTooOld);
    }
    if timestamp_ms > received_at_ms.saturating_add(FARTHEST_AHEAD_MS) {
        return Err(Reason::TimestampTooFarAhead);
    }
    Ok(timestamp_ms)
}

/// The effective time of a checked timestamp; `sent_at_ms` has passed [`check_timestamp`] too.
pub(crate) fn effective_time(timestamp_ms: i64, sent_at_ms: Option<i64>, received_at_ms: i64) -> (i64, ClockNote) {
    let offset = sent_at_ms.map_or(0, |sent_at| received_at_ms.saturating_sub(sent_at));
    let corrected = offset.unsigned_abs() > SENT_AT_TOLERANCE_MS.unsigned_abs();
    let moment = if corrected { timestamp_ms.saturating_add(offset) } else { timestamp_ms };
    let clamped = moment > received_at_ms;
    (moment.min(received_at_ms), ClockNote { corrected, clamped })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_795_441_689_633;
    const MINUTE: i64 = 60_000;

    #[test]
    fn a_right_clock_is_left_alone() {
        for sent_at in [None, Some(NOW - 50), Some(NOW - 2_000), Some(NOW + 2_000)] {
            assert_eq!(effective_time(NOW - 100, sent_at, NOW), (NOW - 100, ClockNote::default()), "{sent_at:?}");
        }
    }

    #[test]
    fn a_slow_clock_is_corrected_by_its_sending_time() {
        let phone = NOW - 5 * MINUTE;
        let note = ClockNote { corrected: true, clamped: false };
        assert_eq!(effective_time(phone - 300, Some(phone), NOW), (NOW - 300, note));
        assert_eq!(effective_time(NOW - 2_301, Some(NOW - 2_001), NOW), (NOW - 300, note));
    }

    #[test]
    fn a_fast_clock_is_corrected_or_else_clamped() {
        let phone = NOW + 5 * MINUTE;
        assert_eq!(
            effective_time(phone - 300, Some(phone), NOW),
            (NOW - 300, ClockNote { corrected: true, clamped: false })
        );
        assert_eq!(effective_time(phone - 300, None, NOW), (NOW, ClockNote { corrected: false, clamped: true }));
    }

    #[test]
    fn a_buffered_point_keeps_its_age() {
        let hour = 60 * MINUTE;
        assert_eq!(effective_time(NOW - hour, Some(NOW - 20), NOW).0, NOW - hour);
        let slow = NOW - 5 * MINUTE;
        assert_eq!(effective_time(slow - hour, Some(slow), NOW).0, NOW - hour);
    }

    #[test]
    fn a_point_taken_after_it_was_sent_is_clamped() {
        let phone = NOW - 5 * MINUTE;
        assert_eq!(effective_time(phone + 10, Some(phone), NOW), (NOW, ClockNote { corrected: true, clamped: true }));
    }

    #[test]
    fn timestamps_have_an_earliest_and_a_farthest() {
        assert_eq!(check_timestamp(EARLIEST_MS, NOW), Ok(EARLIEST_MS));
        assert_eq!(check_timestamp(EARLIEST_MS - 1, NOW), Err(Reason::TimestampTooOld));
        assert_eq!(check_timestamp(i64::MIN, NOW), Err(Reason::TimestampTooOld));
        assert_eq!(check_timestamp(NOW + FARTHEST_AHEAD_MS, NOW), Ok(NOW + FARTHEST_AHEAD_MS));
        assert_eq!(check_timestamp(NOW + FARTHEST_AHEAD_MS + 1, NOW), Err(Reason::TimestampTooFarAhead));
        assert_eq!(check_timestamp(i64::MAX, NOW), Err(Reason::TimestampTooFarAhead));
    }

    proptest! {
        #[test]
        fn effective_time_is_never_later_than_receipt(timestamp: i64, sent_at: Option<i64>, received_at: i64) {
            prop_assert!(effective_time(timestamp, sent_at, received_at).0 <= received_at);
        }
    }
}
