//! How far behind the groups are that decide how often drivers send: offsets from Kafka, time lag from what is known of
//! the oldest record that waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ::kafka::{Client, CommitMetadata, CommittedOffsets, OffsetSpec, PartitionId, TopicPartition};
use backpressure::admission::GroupLag;
use tracing::debug;

/// Log ends that are kept, one for each reading: with them the age of a record is known without the group's help.
const SAMPLES: usize = 60;
/// A group this little behind has caught up.
const CURRENT_S: f64 = 1.0;
/// A group that is behind and has not moved for so long has stopped.
const STOPPED_AFTER_MS: u64 = 3_000;

/// How a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not known, or not any more.
    Unknown,
    /// It has caught up, or is less than a second behind.
    Current,
    /// It is behind, and moves on.
    Behind,
    /// It is behind, and nothing moves.
    Stopped,
}

impl Verdict {
    pub(crate) const ALL: [Self; 4] = [Self::Unknown, Self::Current, Self::Behind, Self::Stopped];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Stopped => "stopped",
        }
    }
}

/// The worst of the groups at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) group: GroupLag,
    pub(crate) verdict: Verdict,
}

/// Reads the lag of some groups on one topic.
pub(crate) struct Reader {
    client: Client,
    topic: Arc<str>,
    groups: Vec<(String, Follower)>,
    ends: Ends,
}

impl Reader {
    pub(crate) fn new(client: Client, topic: &str, groups: &[String]) -> Self {
        let groups = groups.iter().map(|group| (group.clone(), Follower::default())).collect();
        Self { client, topic: topic.into(), groups, ends: Ends::default() }
    }

    pub(crate) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// None when nothing can be said: Kafka does not answer, or none of the groups has ever committed.
    pub(crate) async fn read(&mut self, now_ms: u64) -> Option<Reading> {
        let count = self.client.known_topic(&self.topic)?.partition_count();
        let partitions: Vec<_> =
            (0..count).map(|number| TopicPartition::new(Arc::clone(&self.topic), PartitionId(number))).collect();
        // Ends first: what is committed by then has certainly been there, so nobody seems to be behind who is not.
        let listed = self.client.list_offsets(&partitions, OffsetSpec::Latest).await;
        let listed = listed.inspect_err(|error| debug!(%error, "log ends not read")).ok()?;
        let ends = listed.iter().filter_map(|(at, end)| Some((at.partition.0, end.as_ref().ok()?.offset.0)));
        self.ends.add(now_ms, ends.collect());
        let names: Vec<_> = self.groups.iter().map(|(name, _)| name.as_str()).collect();
        let committed = self.client.committed_offsets_of(&names).await;
        let mut committed = committed.inspect_err(|error| debug!(%error, "committed offsets not read")).ok()?;
        let mut worst: Option<Reading> = None;
        for (name, follower) in &mut self.groups {
            let Some(Ok(offsets)) = committed.remove(name) else { continue };
            let reading = follower.reading(now_ms, &self.ends, &positions(&self.topic, &offsets));
            worst = worse(worst, reading);
        }
        worst
    }
}

fn worse(one: Option<Reading>, other: Option<Reading>) -> Option<Reading> {
    match (one, other) {
        (Some(one), Some(other)) if one.group.time_lag_s >= other.group.time_lag_s => Some(one),
        (one, other) => other.or(one),
    }
}

fn positions(topic: &str, offsets: &CommittedOffsets) -> Vec<Position> {
    let ours = offsets.iter().filter(|(at, _)| &*at.topic == topic);
    ours.map(|(at, committed)| Position {
        partition: at.partition.0,
        next: committed.offset.0,
        processed_until_ms: CommitMetadata::parse(&committed.metadata)
            .and_then(|metadata| u64::try_from(metadata.timestamp_ms).ok()),
    })
    .collect()
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, Copy)]
struct Position {
    partition: i32,
    next: i64,
    /// Timestamp of the last record that was processed, where the group says so.
    processed_until_ms: Option<u64>,
}

/// The log's ends of late, by partition.
#[derive(Debug, Default)]
struct Ends {
    samples: VecDeque<(u64, HashMap<i32, i64>)>,
}

impl Ends {
    fn add(&mut self, now_ms: u64, ends: HashMap<i32, i64>) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ms, ends));
    }

    fn latest(&self, partition: i32) -> Option<i64> {
        self.samples.back()?.1.get(&partition).copied()
    }

    /// The last moment at which the log ended at `offset` or before: the record there came later.
    fn not_there_at(&self, partition: i32, offset: i64) -> Option<u64> {
        let before = |ends: &HashMap<i32, i64>| ends.get(&partition).is_some_and(|end| *end <= offset);
        self.samples.iter().rev().find(|(_, ends)| before(ends)).map(|(at, _)| *at)
    }

    fn oldest(&self) -> Option<u64> {
        self.samples.front().map(|(at, _)| *at)
    }
}

/// One group from reading to reading.
#[derive(Debug, Default)]
struct Follower {
    processed: u64,
    moved_at_ms: u64,
}

impl Follower {
    fn reading(&mut self, now_ms: u64, ends: &Ends, positions: &[Position]) -> Option<Reading> {
        if positions.is_empty() {
            return None;
        }
        let (mut waiting, mut processed, mut time_lag_ms) = (0_u64, 0_u64, 0);
        for position in positions {
            let Some(end) = ends.latest(position.partition) else { continue };
            waiting = waiting.saturating_add(u64::try_from(end.saturating_sub(position.next)).unwrap_or(0));
            processed = processed.saturating_add(u64::try_from(position.next).unwrap_or(0));
            time_lag_ms = time_lag_ms.max(lag_ms(now_ms, ends, position, end));
        }
        if processed != self.processed || waiting == 0 {
            (self.processed, self.moved_at_ms) = (processed, now_ms);
        }
        let time_lag_s = time_lag_ms as f64 / 1_000.0;
        let verdict = match now_ms.saturating_sub(self.moved_at_ms) {
            _ if time_lag_s < CURRENT_S => Verdict::Current,
            ..STOPPED_AFTER_MS => Verdict::Behind,
            _ => Verdict::Stopped,
        };
        let group = GroupLag { time_lag_s, waiting, processed, read_at_ms: now_ms };
        Some(Reading { group, verdict })
    }
}

/// The age of the record at the committed offset, as far as it is known: it came after the last one processed, and after
/// the last moment at which it was not there. Without either of them it is at least as old as the oldest sample.
fn lag_ms(now_ms: u64, ends: &Ends, position: &Position, end: i64) -> u64 {
    if end <= position.next {
        return 0;
    }
    let after = position.processed_until_ms.max(ends.not_there_at(position.partition, position.next));
    now_ms.saturating_sub(after.or(ends.oldest()).unwrap_or(now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_441_689_633;

    fn at(next: i64, processed_until_ms: Option<u64>) -> [Position; 1] {
        [Position { partition: 0, next, processed_until_ms }]
    }

    fn ends(samples: &[(u64, i64)]) -> Ends {
        let mut ends = Ends::default();
        samples.iter().for_each(|(ago, end)| ends.add(NOW - ago, HashMap::from([(0, *end)])));
        ends
    }

    fn lag(ends: &Ends, position: [Position; 1]) -> f64 {
        Follower::default().reading(NOW, ends, &position).unwrap().group.time_lag_s
    }

    #[test]
    fn a_group_that_has_everything_has_no_lag() {
        let ends = ends(&[(1_000, 100), (0, 100)]);
        assert_eq!(lag(&ends, at(100, Some(NOW - 3_600_000))), 0.0, "after an idle hour either");
        assert_eq!(lag(&ends, at(101, None)), 0.0, "committed since the ends were read");
    }

    #[test]
    fn the_oldest_that_waits_came_after_the_last_processed_and_after_it_was_not_there() {
        let ends = ends(&[(3_000, 50), (2_000, 100), (1_000, 150), (0, 200)]);
        assert_eq!(lag(&ends, at(100, Some(NOW - 1_500))), 1.5);
        assert_eq!(
            lag(&ends, at(100, Some(NOW - 3_600_000))),
            2.0,
            "one record after an idle hour is not an hour late"
        );
        assert_eq!(lag(&ends, at(100, None)), 2.0, "groups of others");
        assert_eq!(lag(&ends, at(10, None)), 3.0, "at least");
    }

    #[test]
    fn a_group_that_never_committed_is_unknown() {
        assert!(Follower::default().reading(NOW, &ends(&[(0, 5)]), &[]).is_none());
    }

    #[test]
    fn a_group_is_current_then_behind_then_stopped() {
        let mut follower = Follower::default();
        let mut verdict = |ago: u64, end: i64, next: i64| {
            let ends = ends(&[(20_000, next), (ago, end)]);
            follower.reading(NOW - ago, &ends, &at(next, None)).unwrap().verdict
        };
        assert_eq!(verdict(9_000, 100, 100), Verdict::Current);
        assert_eq!(verdict(8_000, 100, 50), Verdict::Behind);
        assert_eq!(verdict(6_000, 150, 50), Verdict::Behind);
        assert_eq!(verdict(4_000, 150, 50), Verdict::Stopped);
        assert_eq!(verdict(3_000, 150, 60), Verdict::Behind);
    }

    #[test]
    fn the_worst_group_counts() {
        let reading = |time_lag_s| {
            let group = GroupLag { time_lag_s, waiting: 0, processed: 0, read_at_ms: NOW };
            Some(Reading { group, verdict: Verdict::Behind })
        };
        for (one, other, expected) in
            [(Some(1.0), Some(3.0), 3.0), (Some(3.0), Some(1.0), 3.0), (None, Some(1.0), 1.0), (Some(2.0), None, 2.0)]
        {
            let worst = worse(one.and_then(reading), other.and_then(reading)).unwrap();
            assert_eq!(worst.group.time_lag_s, expected);
        }
    }
}
