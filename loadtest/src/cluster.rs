//! What the run watches of Kafka while it goes: lag of groups and dead letters. The only file that speaks through our own client.

use std::collections::HashMap;

use kafka::{Client, ClientConfig, Offset, OffsetSpec, PartitionId, TopicPartition};

/// Reads offsets of the topic, of its dead letter topic, and of groups.
pub struct Cluster {
    client: Client,
    topic: String,
    groups: [&'static str; 2],
}

/// One reading; `None` is what could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lags {
    /// Lag of the Redis group, in records.
    pub redis: Option<u64>,
    /// Lag of the analytics group, in records.
    pub analytics: Option<u64>,
    /// Records in the dead letter topic.
    pub dead_letters: Option<u64>,
}

/// First and next offset by partition.
type Log = HashMap<PartitionId, (Offset, Offset)>;
/// Committed offset by partition.
type Positions = HashMap<PartitionId, Offset>;

impl Cluster {
    /// Watches `topic` and the groups for Redis and analytics, in that order.
    #[must_use]
    pub fn new(bootstrap: &str, topic: &str, groups: [&'static str; 2]) -> Self {
        let config = ClientConfig::new(vec![bootstrap.to_owned()], "loadtest");
        Self { client: Client::new(config), topic: topic.to_owned(), groups }
    }

    /// Number of partitions of the topic.
    pub async fn partitions(&self) -> Result<u32, String> {
        let topic = self.client.topic(&self.topic).await.map_err(|error| error.to_string())?;
        Ok(u32::try_from(topic.partition_count()).unwrap_or(0))
    }

    /// Lag of both groups and number of dead letters, as of now.
    pub async fn lags(&self) -> Lags {
        let dead_letter_topic = kafka::topics::dead_letter_topic(&self.topic);
        let (log, dead, committed) = tokio::join!(
            self.log(&self.topic),
            self.log(&dead_letter_topic),
            self.client.committed_offsets_of(&self.groups),
        );
        let mut committed = committed.unwrap_or_default();
        let mut lag_of = |group: &str| {
            let positions = committed.remove(group)?.ok()?;
            let ours = positions.into_iter().filter(|(partition, _)| *partition.topic == *self.topic);
            let positions = ours.map(|(partition, committed)| (partition.partition, committed.offset)).collect();
            Some(lag(log.as_ref()?, &positions))
        };
        let (redis, analytics) = (lag_of(self.groups[0]), lag_of(self.groups[1]));
        Lags { redis, analytics, dead_letters: dead.map(|dead| lag(&dead, &Positions::new())) }
    }

    /// `None` unless every partition answered: half a log would look like little lag.
    async fn log(&self, topic: &str) -> Option<Log> {
        let known = match self.client.known_topic(topic) {
            Some(known) => known,
            None => self.client.topic(topic).await.ok()?,
        };
        let partitions = known.topic_partitions();
        let (first, next) = tokio::join!(
            self.client.list_offsets(&partitions, OffsetSpec::Earliest),
            self.client.list_offsets(&partitions, OffsetSpec::Latest),
        );
        let first = offsets(first.ok()?)?;
        let next = offsets(next.ok()?)?;
        let both = |(partition, first): (PartitionId, Offset)| Some((partition, (first, *next.get(&partition)?)));
        first.into_iter().map(both).collect()
    }
}

fn offsets(listed: kafka::ListedOffsets) -> Option<Positions> {
    let one = |(partition, listed): (TopicPartition, Result<kafka::ListedOffset, kafka::Error>)| {
        listed.ok().map(|listed| (partition.partition, listed.offset))
    };
    listed.into_iter().map(one).collect()
}

/// Records behind the committed positions; a partition that was never committed lags by all that it holds.
fn lag(log: &Log, committed: &Positions) -> u64 {
    log.iter().map(|(partition, (first, next))| next.since(committed.get(partition).copied().unwrap_or(*first))).sum()
}

/// The partition that a driver's events go to.
#[must_use]
pub fn partition_of(driver_id: &[u8], partitions: u32) -> u32 {
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    u32::try_from(kafka::partition_for_key(driver_id, count).0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_never_committed_lags_by_all_that_it_holds() {
        let log = [(0, (5, 25)), (1, (0, 10)), (2, (7, 7))];
        let log = log.map(|(partition, (first, next))| (PartitionId(partition), (Offset(first), Offset(next)))).into();
        let committed = [(PartitionId(1), Offset(4))].into();
        assert_eq!(lag(&log, &committed), 20 + 6);
    }

    #[test]
    fn a_commit_beyond_the_end_is_no_lag() {
        let log = [(PartitionId(0), (Offset(0), Offset(10)))].into();
        assert_eq!(lag(&log, &[(PartitionId(0), Offset(12))].into()), 0);
    }
}
