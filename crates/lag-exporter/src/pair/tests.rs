//! The arithmetic of a pair, case by case. Times are ms.

use super::*;

const RULES: Rules = Rules { uncommitted: Uncommitted::Earliest, tolerance_ms: 5_100 };

/// A pair, and the ends that its partition was seen to have.
#[derive(Default)]
struct Pair {
    trace: Trace,
    ends: Ends,
}

fn ours(offset: i64, timestamp_ms: i64) -> Position {
    Position::Committed(Commit { offset, timestamp_ms: Some(timestamp_ms) })
}

fn others(offset: i64) -> Position {
    Position::Committed(Commit { offset, timestamp_ms: None })
}

impl Pair {
    fn see(&mut self, now_ms: i64, start: i64, end: i64, position: Position) -> (Step, Result<Lag, Reason>) {
        self.see_by(RULES, now_ms, start, end, position)
    }

    fn see_by(
        &mut self,
        rules: Rules,
        now_ms: i64,
        start: i64,
        end: i64,
        position: Position,
    ) -> (Step, Result<Lag, Reason>) {
        self.ends.observe(end, now_ms);
        let sight = Sight { now_ms, start: Some(start), end, position, ends: &self.ends, rules };
        (self.trace.follow(&sight), self.trace.lag(&sight))
    }

    fn lag(&mut self, now_ms: i64, end: i64, position: Position) -> (u64, Result<f64, Reason>) {
        let lag = self.see(now_ms, 0, end, position).1.unwrap();
        (lag.records, lag.seconds)
    }
}

fn first(start: i64, end: i64, position: Position) -> Result<(u64, Result<f64, Reason>), Reason> {
    Pair::default().see(10_000, start, end, position).1.map(|lag| (lag.records, lag.seconds))
}

#[test]
fn lag_of_one_sample() {
    let cases = [
        ("behind by ten", 0, 110, ours(100, 7_000), Ok((10, Ok(3.0)))),
        ("caught up", 0, 110, ours(110, 7_000), Ok((0, Ok(0.0)))),
        ("caught up, others' commit", 0, 110, others(110), Ok((0, Ok(0.0)))),
        ("others' commit, nothing watched yet", 0, 110, others(100), Ok((10, Err(Reason::NoHistory)))),
        ("long ago, the record has to be read", 0, 110, ours(100, 1_000), Ok((10, Err(Reason::NotReadYet)))),
        ("never committed, all kept", 0, 110, Position::Never, Ok((110, Err(Reason::NoHistory)))),
        ("never committed, some expired", 60, 110, Position::Never, Ok((50, Err(Reason::NoHistory)))),
        ("never committed, empty", 0, 0, Position::Never, Ok((0, Ok(0.0)))),
        ("never committed, all expired", 9, 9, Position::Never, Ok((0, Ok(0.0)))),
        ("committed beyond the end", 0, 50, ours(100, 7_000), Err(Reason::BeyondEnd)),
        ("record from the future", 0, 110, ours(100, 12_000), Ok((10, Ok(0.0)))),
        ("all that waited is lost", 110, 110, ours(100, 7_000), Ok((10, Ok(0.0)))),
    ];
    for (name, start, end, position, expected) in cases {
        assert_eq!(first(start, end, position), expected, "{name}");
    }
}

#[test]
fn a_group_that_begins_at_the_end_lags_by_nothing_until_it_commits() {
    let rules = Rules { uncommitted: Uncommitted::Latest, ..RULES };
    let lag = Pair::default().see_by(rules, 10_000, 0, 110, Position::Never).1.unwrap();
    assert_eq!((lag.records, lag.seconds), (0, Ok(0.0)));
}

#[test]
fn one_record_after_an_idle_hour_is_not_an_hour_late() {
    for position in [ours(100, 0), others(100)] {
        let mut pair = Pair::default();
        let _ = pair.lag(3_600_000, 100, position);
        let (records, seconds) = pair.lag(3_605_000, 101, position);
        assert!(records == 1 && seconds.unwrap() <= 5.0, "{position:?}: {seconds:?}");
    }
}

#[test]
fn just_after_a_restart_the_record_itself_is_read() {
    let (now_ms, hour_ago) = (3_600_000, 0);
    let mut pair = Pair::default();
    let lag = pair.see(now_ms, 0, 101, ours(100, hour_ago)).1.unwrap();
    assert_eq!((lag.seconds, lag.wants), (Err(Reason::NotReadYet), Some(100)));
    pair.trace.learn(100, Read::At(now_ms - 2_000));
    let lag = pair.see(now_ms + 1_000, 0, 101, ours(100, hour_ago)).1.unwrap();
    assert_eq!((lag.seconds, lag.method, lag.wants), (Ok(3.0), Method::Record, None));
}

#[test]
fn where_records_may_not_be_read_our_commits_tell_the_time_all_the_same() {
    let mut pair = Pair::default();
    pair.trace.learn(100, Read::Denied);
    assert_eq!(pair.lag(60_000, 101, ours(100, 0)), (1, Ok(60.0)));
    assert_eq!(pair.lag(60_000, 101, others(100)), (1, Err(Reason::NoHistory)));
}

#[test]
fn the_marker_of_a_transaction_is_a_record_that_nobody_waits_for() {
    let mut pair = Pair::default();
    let _ = pair.lag(0, 10, others(10));
    pair.trace.learn(10, Read::Nothing);
    assert_eq!(pair.lag(60_000, 11, others(10)), (1, Ok(0.0)));
}

#[test]
fn time_lag_follows_the_commits_of_a_group_that_is_never_done() {
    let mut pair = Pair::default();
    let _ = pair.lag(10_000, 100, ours(100, 9_000));
    assert_eq!(pair.lag(15_000, 200, ours(150, 14_000)), (50, Ok(1.0)));
    assert_eq!(pair.lag(20_000, 300, ours(250, 19_000)), (50, Ok(1.0)));
}

#[test]
fn others_are_timed_by_when_the_log_reached_their_offset() {
    let mut pair = Pair::default();
    // A record each 10 ms; the group is 20 s behind all the time.
    for tick in 0..=12 {
        let _ = pair.lag(5_000 * tick, 500 * tick, others((500 * tick - 2_000).max(0)));
    }
    let (records, seconds) = pair.lag(65_000, 6_500, others(4_500));
    assert_eq!(records, 2_000);
    assert!((seconds.unwrap() - 20.0).abs() < 0.1, "{seconds:?}");
}

#[test]
fn a_record_that_came_while_nobody_looked_is_read() {
    let mut pair = Pair::default();
    let _ = pair.lag(0, 100, others(100));
    let lag = pair.see(60_000, 0, 200, others(100)).1.unwrap();
    assert_eq!((lag.seconds, lag.wants), (Err(Reason::NotReadYet), Some(100)));
    pair.trace.learn(100, Read::At(58_000));
    assert_eq!(pair.lag(60_000, 200, others(100)), (100, Ok(2.0)));
    pair.trace.learn(100, Read::Denied);
    assert_eq!(
        pair.lag(60_000, 200, others(100)),
        (100, Ok(59.7)),
        "where it may not be read, the guess is better than nothing"
    );
}

#[test]
fn a_group_that_was_set_back_is_as_late_as_its_commit_says() {
    let mut pair = Pair::default();
    let _ = pair.lag(10_000, 100, ours(100, 9_000));
    let (step, lag) = pair.see(15_000, 0, 100, ours(40, 4_000));
    assert_eq!((step.rewound, step.consumed), (true, 0));
    assert_eq!(lag.unwrap().seconds, Ok(11.0));
}

#[test]
fn a_stopped_group_grows_late_second_by_second() {
    for (position, slack) in [(ours(100, 9_000), 0.0), (others(100), 2.5)] {
        let mut pair = Pair::default();
        let _ = pair.lag(10_000, 100, position);
        let _ = pair.lag(15_000, 150, position);
        let (records, seconds) = pair.lag(75_000, 950, position);
        assert_eq!(records, 850);
        assert!((seconds.unwrap() - 65.0).abs() <= slack, "{seconds:?}");
    }
}

#[test]
fn what_retention_takes_before_it_was_processed_is_counted_once() {
    let mut pair = Pair::default();
    let mut lost = |now_ms, start, committed| pair.see(now_ms, start, 1_000, others(committed)).0.lost;
    assert_eq!(lost(0, 0, 100), 0);
    assert_eq!(lost(1, 150, 100), 50);
    assert_eq!(lost(2, 150, 100), 0);
    assert_eq!(lost(3, 200, 100), 50);
    assert_eq!(lost(4, 200, 300), 0);
    assert_eq!(lost(5, 310, 300), 10);
}

#[test]
fn steps_count_what_was_consumed() {
    let mut pair = Pair::default();
    assert_eq!(pair.see(0, 0, 100, others(40)).0.consumed, 0, "not seen before");
    assert_eq!(pair.see(1, 0, 100, others(70)).0.consumed, 30);
    let mut beginner = Pair::default();
    let _ = beginner.see(0, 20, 100, Position::Never);
    assert_eq!(beginner.see(1, 20, 100, others(50)).0.consumed, 30, "its first commit");
    assert_eq!(beginner.see(2, 20, 100, Position::Never).0, Step::default(), "a commit that expired is no step back");
}

#[test]
fn what_waits_without_moving_is_stuck() {
    let mut pair = Pair::default();
    let mut stuck = |now_ms, end, committed| {
        pair.ends.observe(end, now_ms);
        let sight = Sight { now_ms, start: Some(0), end, position: others(committed), ends: &pair.ends, rules: RULES };
        pair.trace.follow(&sight);
        pair.trace.stuck_ms(&sight)
    };
    assert_eq!(stuck(0, 100, 50), 0);
    assert_eq!(stuck(5_000, 100, 60), 0);
    assert_eq!(stuck(9_000, 100, 60), 4_000);
    assert_eq!(stuck(10_000, 60, 60), 0, "nothing waits");
    assert_eq!(stuck(15_000, 70, 60), 5_000);
}
