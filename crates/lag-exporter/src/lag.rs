//! The arithmetic of lag: from offsets and commit timestamps to records and seconds. Pure; the time comes with the sample.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka::{Offset, TopicPartition};

/// What one collection read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Wall clock in ms since the epoch, between the reading of the commits and of the end offsets.
    pub(crate) taken_at_ms: i64,
    pub(crate) groups: BTreeMap<Arc<str>, GroupReading>,
}

/// What was read of one group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GroupReading {
    /// Its commits could not be read.
    Unread,
    /// Every partition of every topic that it consumes.
    Partitions(Vec<(TopicPartition, Reading)>),
}

/// What was read of one partition for one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// End of the log; `None` when it could not be read.
    pub(crate) end: Option<Offset>,
    /// The group's position in the partition.
    pub(crate) position: Position,
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The group has committed: next offset, and the timestamp of the last record before it where the metadata tells it.
    Committed { offset: Offset, timestamp_ms: Option<i64> },
    /// The group has never committed: everything from the start of the log is before it, if that could be read.
    Never { start: Option<Offset> },
}

/// Lag of a group on a partition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lag {
    pub(crate) records: u64,
    /// `None` where it cannot be told.
    pub(crate) seconds: Option<f64>,
}

/// Lag of a group: each partition's, `None` where it is unknown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupLag {
    pub(crate) group: Arc<str>,
    pub(crate) partitions: Vec<(TopicPartition, Option<Lag>)>,
}

impl GroupLag {
    /// Sum over the partitions; unknown as soon as one is, since a part of it would look like less lag.
    pub(crate) fn sum(&self) -> Option<u64> {
        self.all(|lag| Some(lag.records)).map(|records| records.iter().sum())
    }

    /// The largest of the partitions; unknown as soon as one is.
    pub(crate) fn max(&self) -> Option<u64> {
        self.all(|lag| Some(lag.records))?.into_iter().max()
    }

    /// The largest time lag of the partitions; unknown as soon as one is.
    pub(crate) fn max_seconds(&self) -> Option<f64> {
        self.all(|lag| lag.seconds)?.into_iter().max_by(f64::total_cmp)
    }

    /// A figure of every partition; `None` unless all are known, and for a group that consumes nothing.
    fn all<T>(&self, figure: impl Fn(Lag) -> Option<T>) -> Option<Vec<T>> {
        let figures: Option<Vec<T>> = self.partitions.iter().map(|(_, lag)| lag.and_then(&figure)).collect();
        figures.filter(|figures| !figures.is_empty())
    }
}

/// What earlier samples leave behind.
#[derive(Debug)]
pub(crate) struct History {
    stale_after: Duration,
    groups: HashMap<Arc<str>, BTreeMap<TopicPartition, Trace>>,
}

/// What is remembered of a group on a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Trace {
    caught_up: Option<CaughtUp>,
    /// The lag that was last read, and when.
    last: Option<(Lag, i64)>,
}

/// The last sample at which the group had processed all there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CaughtUp {
    at_ms: i64,
    end: Offset,
}

impl History {
    /// Lag that could not be read again is given out until it is older than `stale_after`.
    pub(crate) fn new(stale_after: Duration) -> Self {
        Self { stale_after, groups: HashMap::new() }
    }

    /// The lag at the time of `sample`. Groups and partitions that it does not hold are forgotten.
    pub(crate) fn evaluate(&mut self, sample: &Sample) -> Vec<GroupLag> {
        let mut groups = HashMap::with_capacity(sample.groups.len());
        let mut lags = Vec::with_capacity(sample.groups.len());
        for (group, reading) in &sample.groups {
            let before = self.groups.remove(group).unwrap_or_default();
            let after = match reading {
                GroupReading::Unread => before,
                GroupReading::Partitions(partitions) => follow(&before, partitions, sample.taken_at_ms),
            };
            lags.push(self.group_lag(group, &after, sample.taken_at_ms));
            groups.insert(Arc::clone(group), after);
        }
        self.groups = groups;
        lags
    }

    fn group_lag(&self, group: &Arc<str>, traces: &BTreeMap<TopicPartition, Trace>, now_ms: i64) -> GroupLag {
        let stale_after_ms = i64::try_from(self.stale_after.as_millis()).unwrap_or(i64::MAX);
        let fresh =
            |trace: &Trace| trace.last.filter(|(_, at_ms)| now_ms - at_ms <= stale_after_ms).map(|(lag, _)| lag);
        let partitions = traces.iter().map(|(partition, trace)| (partition.clone(), fresh(trace)));
        GroupLag { group: Arc::clone(group), partitions: partitions.collect() }
    }
}

fn follow(
    before: &BTreeMap<TopicPartition, Trace>,
    partitions: &[(TopicPartition, Reading)],
    now_ms: i64,
) -> BTreeMap<TopicPartition, Trace> {
    let followed = partitions.iter().map(|(partition, reading)| {
        let trace = before.get(partition).copied().unwrap_or_default();
        (partition.clone(), trace.follow(*reading, now_ms))
    });
    followed.collect()
}

impl Trace {
    fn follow(self, reading: Reading, now_ms: i64) -> Self {
        let Some(end) = reading.end else { return self };
        let caught_up = caught_up(self.caught_up, end, reading.position, now_ms);
        let last = match records(end, reading.position) {
            Records::Unread => self.last,
            Records::Unknown => None,
            Records::Known(0) => Some((Lag { records: 0, seconds: Some(0.0) }, now_ms)),
            Records::Known(records) => {
                Some((Lag { records, seconds: seconds(reading.position, caught_up, now_ms) }, now_ms))
            }
        };
        Self { caught_up, last }
    }
}

/// How many records a group is behind.
enum Records {
    Known(u64),
    /// This time something could not be read.
    Unread,
    /// The offsets contradict each other: the topic was created again, or records were taken back.
    Unknown,
}

fn records(end: Offset, position: Position) -> Records {
    match position {
        Position::Committed { offset, .. } if offset > end => Records::Unknown,
        Position::Committed { offset, .. } => Records::Known(end.since(offset)),
        Position::Never { start: Some(start) } => Records::Known(end.since(start)),
        Position::Never { start: None } => Records::Unread,
    }
}

/// A mark holds as long as the group stays at or behind it; a group that was set back before it is behind on records
/// that are older than the mark.
fn caught_up(before: Option<CaughtUp>, end: Offset, position: Position, now_ms: i64) -> Option<CaughtUp> {
    match position {
        Position::Committed { offset, .. } if offset == end => Some(CaughtUp { at_ms: now_ms, end }),
        Position::Committed { offset, .. } => before.filter(|mark| offset >= mark.end),
        Position::Never { .. } => None,
    }
}

/// now − max(timestamp of the last processed record, time of the last sample at which the group had caught up): what is
/// unprocessed came after both. Only commits that carry the timestamp tell it; a mark alone does not move with a group
/// that keeps up without ever being done.
fn seconds(position: Position, caught_up: Option<CaughtUp>, now_ms: i64) -> Option<f64> {
    let Position::Committed { timestamp_ms: Some(timestamp_ms), .. } = position else { return None };
    let since_ms = caught_up.map_or(timestamp_ms, |mark| mark.at_ms.max(timestamp_ms));
    let age_ms = u64::try_from(now_ms - since_ms).unwrap_or(0);
    Some(Duration::from_millis(age_ms).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka::PartitionId;

    const STALE_AFTER: Duration = Duration::from_secs(15);

    fn committed(offset: i64, timestamp_ms: i64) -> Position {
        Position::Committed { offset: Offset(offset), timestamp_ms: Some(timestamp_ms) }
    }

    fn foreign(offset: i64) -> Position {
        Position::Committed { offset: Offset(offset), timestamp_ms: None }
    }

    fn at(end: i64, position: Position) -> Reading {
        Reading { end: Some(Offset(end)), position }
    }

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", PartitionId(number))
    }

    fn sample(taken_at_ms: i64, readings: &[Reading]) -> Sample {
        let partitions = (0..).zip(readings).map(|(number, reading)| (partition(number), *reading)).collect();
        Sample { taken_at_ms, groups: [("g".into(), GroupReading::Partitions(partitions))].into() }
    }

    fn unread(taken_at_ms: i64) -> Sample {
        Sample { taken_at_ms, groups: [("g".into(), GroupReading::Unread)].into() }
    }

    /// Runs the samples of one partition and gives the lag after the last of them.
    fn lag_after(samples: &[(i64, Reading)]) -> Option<Lag> {
        let mut history = History::new(STALE_AFTER);
        let lags = samples.iter().map(|(at_ms, reading)| history.evaluate(&sample(*at_ms, &[*reading])));
        lags.last().unwrap()[0].partitions[0].1
    }

    fn lag(records: u64, seconds: f64) -> Option<Lag> {
        Some(Lag { records, seconds: Some(seconds) })
    }

    #[test]
    fn lag_of_one_sample() {
        let unread_start = Position::Never { start: None };
        let never = |start| Position::Never { start: Some(Offset(start)) };
        let without_seconds = |records| Some(Lag { records, seconds: None });
        let cases = [
            ("behind by ten", at(110, committed(100, 7_000)), lag(10, 3.0)),
            ("caught up", at(110, committed(110, 7_000)), lag(0, 0.0)),
            ("caught up, others' commit", at(110, foreign(110)), lag(0, 0.0)),
            ("others' commit tells no time", at(110, foreign(100)), without_seconds(10)),
            ("never committed, all kept", at(110, never(0)), without_seconds(110)),
            ("never committed, some expired", at(110, never(60)), without_seconds(50)),
            ("never committed, empty", at(0, never(0)), lag(0, 0.0)),
            ("never committed, start unread", at(110, unread_start), None),
            ("committed beyond the end", at(50, committed(100, 7_000)), None),
            ("end unread", Reading { end: None, position: committed(100, 7_000) }, None),
            ("record from the future", at(110, committed(100, 12_000)), lag(10, 0.0)),
        ];
        for (name, reading, expected) in cases {
            assert_eq!(lag_after(&[(10_000, reading)]), expected, "{name}");
        }
    }

    #[test]
    fn one_record_after_an_idle_hour_is_not_an_hour_late() {
        let idle = at(100, committed(100, 0));
        let behind = at(101, committed(100, 0));
        assert_eq!(lag_after(&[(3_600_000, idle), (3_605_000, behind)]), lag(1, 5.0));
    }

    #[test]
    fn time_lag_follows_the_commits_of_a_group_that_is_never_done() {
        let samples = [
            (10_000, at(100, committed(100, 9_000))),
            (15_000, at(200, committed(150, 14_000))),
            (20_000, at(300, committed(250, 19_000))),
        ];
        assert_eq!(lag_after(&samples[..2]), lag(50, 1.0));
        assert_eq!(lag_after(&samples), lag(50, 1.0));
    }

    #[test]
    fn a_group_that_was_set_back_is_as_late_as_its_commit_says() {
        let samples = [(10_000, at(100, committed(100, 9_000))), (15_000, at(100, committed(40, 4_000)))];
        assert_eq!(lag_after(&samples), lag(60, 11.0));
    }

    #[test]
    fn a_stopped_group_grows_late_second_by_second() {
        let stopped = committed(100, 9_000);
        let samples = [(10_000, at(100, stopped)), (15_000, at(150, stopped)), (75_000, at(950, stopped))];
        assert_eq!(lag_after(&samples), lag(850, 65.0));
    }

    #[test]
    fn what_cannot_be_read_again_keeps_its_lag_until_it_is_stale() {
        let mut history = History::new(STALE_AFTER);
        history.evaluate(&sample(0, &[at(110, committed(100, 0))]));
        let still = history.evaluate(&unread(15_000));
        assert_eq!(still[0].partitions[0].1, lag(10, 0.0));
        let stale = history.evaluate(&unread(15_001));
        assert_eq!(stale[0].partitions[0].1, None);
    }

    #[test]
    fn a_group_that_is_gone_is_forgotten() {
        let mut history = History::new(STALE_AFTER);
        history.evaluate(&sample(0, &[at(110, committed(100, 0))]));
        let gone = Sample { taken_at_ms: 1, groups: BTreeMap::new() };
        assert!(history.evaluate(&gone).is_empty());
        assert!(history.evaluate(&unread(2))[0].partitions.is_empty());
    }

    #[test]
    fn a_group_is_the_sum_and_maximum_of_its_partitions() {
        let mut history = History::new(STALE_AFTER);
        let readings = [at(110, committed(100, 7_000)), at(50, committed(20, 9_000)), at(5, committed(5, 9_000))];
        let group = history.evaluate(&sample(10_000, &readings)).remove(0);
        assert_eq!((group.sum(), group.max(), group.max_seconds()), (Some(40), Some(30), Some(3.0)));
    }

    #[test]
    fn a_group_that_consumes_nothing_has_no_sum() {
        let group = GroupLag { group: "g".into(), partitions: vec![] };
        assert_eq!((group.sum(), group.max(), group.max_seconds()), (None, None, None));
    }

    #[test]
    fn a_group_with_an_unknown_partition_has_no_sum() {
        let mut history = History::new(STALE_AFTER);
        let readings = [at(110, committed(100, 7_000)), at(50, committed(60, 9_000))];
        let group = history.evaluate(&sample(10_000, &readings)).remove(0);
        assert_eq!((group.sum(), group.max(), group.max_seconds()), (None, None, None));
    }
}
