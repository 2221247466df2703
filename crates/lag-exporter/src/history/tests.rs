//! Samples in, reports out.

use super::*;
use crate::pair::Uncommitted;

const SETTINGS: Settings = Settings {
    rules: Rules { uncommitted: Uncommitted::Earliest, tolerance_ms: 5_100 },
    stale_after: Duration::from_secs(15),
    window: Duration::from_secs(60),
};

fn log(id: u8, ends: &[Option<i64>]) -> TopicReading {
    let partitions =
        ends.iter().map(|end| PartitionReading { start: Some(0), end: *end, ..PartitionReading::default() });
    TopicReading { id: [id; 16], partitions: partitions.collect(), retention_ms: None }
}

fn ours(offset: i64, timestamp_ms: i64) -> Option<Commit> {
    Some(Commit { offset, timestamp_ms: Some(timestamp_ms) })
}

type Consumed<'a> = Vec<(&'a str, Vec<Option<Commit>>)>;

fn group(consumed: Result<Consumed<'_>, Reason>) -> GroupReading {
    let consumed = consumed.map(|topics| topics.into_iter().map(|(topic, commits)| (topic.into(), commits)).collect());
    GroupReading {
        protocol: "classic".to_owned(),
        state: "Stable".to_owned(),
        members: Some(1),
        owners: HashMap::new(),
        consumed,
    }
}

fn sample(taken_at_ms: i64, topics: &[(&str, TopicReading)], reading: GroupReading) -> Sample {
    let topics = topics.iter().map(|(topic, log)| ((*topic).into(), Ok(log.clone())));
    Sample { taken_at_ms, topics: topics.collect(), groups: [("g".into(), reading)].into(), brokers: Vec::new() }
}

fn report(history: &mut History, sample: &Sample) -> Report {
    history.observe(sample);
    history.report(sample)
}

#[test]
fn what_cannot_be_read_again_keeps_its_lag_until_it_is_stale() {
    let mut history = History::new(SETTINGS);
    let topics = [("t", log(1, &[Some(110)]))];
    report(&mut history, &sample(0, &topics, group(Ok(vec![("t", vec![ours(100, 0)])]))));
    let unread = |at_ms| sample(at_ms, &topics, group(Err(Reason::GroupUnread)));
    assert_eq!(report(&mut history, &unread(15_000)).groups[0].lag_sum(), Some(10));
    let stale = report(&mut history, &unread(15_001));
    assert_eq!((stale.groups[0].lag_sum(), stale.groups[0].unread), (None, Some(Reason::GroupUnread)));
}

#[test]
fn an_end_that_cannot_be_read_keeps_the_lag_of_its_partition() {
    let mut history = History::new(SETTINGS);
    let commits = || group(Ok(vec![("t", vec![ours(100, 0), ours(7, 0)])]));
    report(&mut history, &sample(0, &[("t", log(1, &[Some(110), Some(7)]))], commits()));
    let kept = report(&mut history, &sample(5_000, &[("t", log(1, &[None, Some(8)]))], commits()));
    let lags: Vec<_> = kept.groups[0].topics[0].pairs.iter().map(|pair| pair.lag).collect();
    assert_eq!(lags, [Ok(10), Ok(1)]);
}

#[test]
fn groups_topics_and_partitions_that_are_gone_are_forgotten() {
    let mut history = History::new(SETTINGS);
    let both = [("a", log(1, &[Some(10)])), ("b", log(2, &[Some(10), Some(10)]))];
    report(&mut history, &sample(0, &both, group(Ok(vec![("a", vec![ours(1, 0)]), ("b", vec![ours(2, 0)])]))));
    let one = report(&mut history, &sample(1, &both[..1], group(Ok(vec![("a", vec![ours(1, 0)])]))));
    assert_eq!((one.topics.len(), one.groups[0].topics.len()), (1, 1));
    assert_eq!((history.topics.len(), history.groups["g"].topics.len()), (1, 1));
    report(&mut history, &Sample { taken_at_ms: 2, ..Sample::default() });
    assert!(history.groups.is_empty() && history.topics.is_empty());
}

#[test]
fn a_topic_that_was_created_again_is_not_one_that_was_rewound() {
    let mut history = History::new(SETTINGS);
    let commits = |offset| group(Ok(vec![("t", vec![ours(offset, 0)])]));
    report(&mut history, &sample(0, &[("t", log(1, &[Some(100)]))], commits(100)));
    let again = report(&mut history, &sample(5_000, &[("t", log(2, &[Some(5)]))], commits(100)));
    assert_eq!((again.groups[0].beyond_end(), again.groups[0].lag_sum()), (1, None));
    let fresh = report(&mut history, &sample(10_000, &[("t", log(2, &[Some(5)]))], commits(5)));
    assert_eq!((fresh.groups[0].lag_sum(), fresh.groups[0].verdict), (Some(0), backpressure::Verdict::Rewound));
}

#[test]
fn one_record_is_asked_for_once_for_all_groups_that_wait_for_it() {
    let mut history = History::new(SETTINGS);
    let topics = [("t", log(1, &[Some(110)]))];
    let mut two = sample(3_600_000, &topics, group(Ok(vec![("t", vec![ours(100, 0)])])));
    two.groups.insert("h".into(), group(Ok(vec![("t", vec![ours(100, 0)])])));
    let places = history.observe(&two);
    assert_eq!(places, [(TopicPartition::new("t", PartitionId(0)), Offset(100))]);
    history.learn(&places[0], Read::At(3_590_000), two.taken_at_ms);
    let report = history.report(&two);
    let seconds: Vec<_> = report.groups.iter().map(|group| group.seconds_max()).collect();
    assert_eq!(seconds, [Some(10.0), Some(10.0)]);
}

#[test]
fn a_topic_whose_records_may_not_be_read_is_left_alone_for_a_while() {
    let mut history = History::new(SETTINGS);
    let topics = [("t", log(1, &[Some(110)]))];
    let waits = |at_ms, offset| {
        sample(at_ms, &topics, group(Ok(vec![("t", vec![Some(Commit { offset, timestamp_ms: None })])])))
    };
    let places = history.observe(&waits(0, 100));
    history.learn(&places[0], Read::Denied, 0);
    assert!(history.observe(&waits(5_000, 101)).is_empty());
    assert_eq!(history.observe(&waits(65_000, 102)).len(), 1);
}

#[test]
fn rates_and_the_hottest_partition_are_those_of_the_window() {
    let mut history = History::new(SETTINGS);
    let at = |second: i64| {
        let ends = [Some(90 * second), Some(10 * second)];
        sample(
            1_000 * second,
            &[("t", log(1, &ends))],
            group(Ok(vec![("t", vec![ours(80 * second, 0), ours(10 * second, 0)])])),
        )
    };
    let reports: Vec<_> = (0..=12).map(|tick| report(&mut history, &at(5 * tick))).collect();
    let (topic, group) = (&reports[12].topics[0], &reports[12].groups[0]);
    assert_eq!((topic.production_rate, topic.hottest_share), (Some(100.0), Some(0.9)));
    assert_eq!((group.production_rate, group.consumption_rate, group.drain_seconds), (Some(100.0), Some(90.0), None));
    assert_eq!((group.hottest_share(), group.verdict), (Some(1.0), backpressure::Verdict::Ok));
}

#[test]
fn a_seeded_history_tells_the_rate_at_the_first_sample() {
    let mut history = History::new(SETTINGS);
    history.seed(&TopicPartition::new("t", PartitionId(0)), [1; 16], 0, 0);
    let theirs = group(Ok(vec![("t", vec![Some(Commit { offset: 300, timestamp_ms: None })])]));
    let sample = sample(60_000, &[("t", log(1, &[Some(600)]))], theirs);
    let places = history.observe(&sample);
    history.learn(&places[0], Read::At(30_000), 60_000);
    let group = &history.report(&sample).groups[0];
    assert_eq!((group.production_rate, group.lag_sum()), (Some(10.0), Some(300)));
    assert_eq!(group.seconds_max(), Some(30.0));
}
