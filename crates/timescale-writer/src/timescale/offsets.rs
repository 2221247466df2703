//! Offsets kept beside the rows: how they are named, read and moved.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event::DriverLocation;
use kafka::{Client as Kafka, Offset, PartitionId, TopicPartition};
use pipeline::{Slice, WriteError};
use tokio_postgres::{Client, Statement};

use super::fault::Fault;

/// Moves the offsets of a batch and counts those that moved: where a row is stored, only from the offset that the batch
/// begins at; where none is (the group has never written this partition), the first of several rivals wins.
///
/// A rival's open transaction is waited for: its row lock, or its key in the unique index. What it committed decides.
pub(crate) const FENCE: &str = "
    WITH given AS (
        SELECT topic, topic_id::uuid AS topic_id, partition, expected, next
        FROM unnest($2::text[], $3::text[], $4::int4[], $5::int8[], $6::int8[])
            AS given (topic, topic_id, partition, expected, next)
    ), moved AS (
        UPDATE driver_location_offsets AS stored SET next_offset = given.next FROM given
        WHERE stored.consumer_group = $1 AND stored.topic = given.topic AND stored.topic_id = given.topic_id
            AND stored.partition = given.partition AND stored.next_offset = given.expected
        RETURNING 1
    ), begun AS (
        INSERT INTO driver_location_offsets (consumer_group, topic, topic_id, partition, next_offset)
        SELECT $1, given.topic, given.topic_id, given.partition, given.next FROM given
        WHERE NOT EXISTS (
            SELECT FROM driver_location_offsets AS stored
            WHERE stored.consumer_group = $1 AND stored.topic = given.topic AND stored.topic_id = given.topic_id
                AND stored.partition = given.partition
        )
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM moved) + (SELECT count(*) FROM begun)";

const STORED: &str = "
    SELECT stored.topic, stored.partition, stored.next_offset
    FROM driver_location_offsets AS stored
    JOIN unnest($2::text[], $3::text[], $4::int4[]) AS given (topic, topic_id, partition)
        ON stored.topic = given.topic AND stored.topic_id = given.topic_id::uuid AND stored.partition = given.partition
    WHERE stored.consumer_group = $1";

/// Tells a topic from a later one of the same name; all zero where the cluster gives none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Display for TopicId {
    /// As a UUID, the way the database shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the ids of topics come from.
#[derive(Clone)]
pub enum TopicIds {
    /// Asked for when partitions begin.
    Cluster(Kafka),
    /// Given beforehand, one for every topic.
    Fixed(TopicId),
}

impl fmt::Debug for TopicIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(_) => f.write_str("Cluster"),
            Self::Fixed(id) => write!(f, "Fixed({id})"),
        }
    }
}

/// The topic id of each partition that is read. It is learnt when a partition begins and stays until it begins again:
/// a batch of a topic that was deleted meanwhile must not move the offset of its successor.
pub(crate) struct Keys {
    source: TopicIds,
    known: Mutex<HashMap<TopicPartition, TopicId>>,
}

impl Keys {
    pub(crate) fn new(source: TopicIds) -> Self {
        Self { source, known: Mutex::default() }
    }

    /// Learns the ids of partitions that begin.
    pub(crate) async fn look_up(&self, partitions: &[TopicPartition]) -> Result<Claim, WriteError> {
        let mut ids: HashMap<Arc<str>, TopicId> = HashMap::new();
        for partition in partitions {
            if !ids.contains_key(&partition.topic) {
                ids.insert(Arc::clone(&partition.topic), self.ask(&partition.topic).await?);
            }
        }
        let mut claim = Claim::default();
        let mut known = self.known();
        for partition in partitions {
            let id = ids[&partition.topic];
            known.insert(partition.clone(), id);
            claim.add(partition, id);
        }
        Ok(claim)
    }

    /// What a batch says of its partitions' offsets.
    pub(crate) async fn claim(&self, slices: &[Slice<DriverLocation>]) -> Result<Claim, WriteError> {
        let unknown: Vec<_> = {
            let known = self.known();
            let unknown = slices.iter().filter(|slice| !known.contains_key(&slice.partition));
            unknown.map(|slice| slice.partition.clone()).collect()
        };
        if !unknown.is_empty() {
            self.look_up(&unknown).await?;
        }
        let known = self.known();
        let mut claim = Claim::default();
        for slice in slices {
            claim.add(&slice.partition, known[&slice.partition]);
            claim.expected.push(slice.start.0);
            claim.next.push(slice.next.0);
        }
        Ok(claim)
    }

    async fn ask(&self, topic: &str) -> Result<TopicId, WriteError> {
        match &self.source {
            TopicIds::Fixed(id) => Ok(*id),
            TopicIds::Cluster(client) => {
                let topic = client.topic(topic).await;
                topic.map(|topic| TopicId(topic.topic_id)).map_err(|error| WriteError::SinkFault(error.to_string()))
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TopicPartition, TopicId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Partitions with their offsets, column by column, as the statements take them.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    topics: Vec<String>,
    topic_ids: Vec<String>,
    partitions: Vec<i32>,
    expected: Vec<i64>,
    next: Vec<i64>,
}

impl Claim {
    fn add(&mut self, partition: &TopicPartition, id: TopicId) {
        self.topics.push(partition.topic.to_string());
        self.topic_ids.push(id.to_string());
        self.partitions.push(partition.partition.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Moves the offsets; returns how many moved.
    pub(crate) async fn fence(&self, client: &Client, fence: &Statement, group: &str) -> Result<usize, Fault> {
        let Self { topics, topic_ids, partitions, expected, next } = self;
        let row = client.query_one(fence, &[&group, topics, topic_ids, partitions, expected, next]).await?;
        Ok(usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
    }

    /// Reads what is stored; partitions without an offset are absent.
    pub(crate) async fn stored(&self, client: &Client, group: &str) -> Result<HashMap<TopicPartition, Offset>, Fault> {
        let rows = client.query(STORED, &[&group, &self.topics, &self.topic_ids, &self.partitions]).await?;
        let stored = rows.iter().map(|row| {
            let partition = TopicPartition::new(row.try_get::<_, String>(0)?, PartitionId(row.try_get(1)?));
            Ok((partition, Offset(row.try_get(2)?)))
        });
        stored.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_reads_like_a_uuid() {
        let id = TopicId(std::array::from_fn(|index| u8::try_from(index * 17).unwrap()));
        assert_eq!(id.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
