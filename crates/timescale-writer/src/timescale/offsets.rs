//! Offsets kept beside the rows: how they are named, read and moved.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event::DriverLocation;
use kafka::{Client as Kafka, Offset, PartitionId, TopicPartition};
use pipeline::{Batch, Refused, Slice, WriteError};
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
    SELECT stored.topic, stored.partition, stored.next_offset, stored.kept_until,
        (extract(epoch FROM stored.kept_before) * 1000)::bigint
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

/// What is stored about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) next: Offset,
    pub(crate) kept: Option<Kept>,
}

/// A stretch that is read again though some of its rows stayed: of records before `until`, those that are older than
/// `before_ms` by their effective time. Such records are in the table already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) until: Offset,
    pub(crate) before_ms: i64,
}

impl Kept {
    fn has(self, offset: Offset, event: &DriverLocation) -> bool {
        offset < self.until && event.effective_at_ms < self.before_ms
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

/// What a batch of a partition has to know of it.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: TopicId,
    kept: Option<Kept>,
}

/// The topic id of each partition that is read. It is learnt when a partition begins and stays until it begins again:
/// a batch of a topic that was deleted meanwhile must not move the offset of its successor.
pub(crate) struct Keys {
    source: TopicIds,
    known: Mutex<HashMap<TopicPartition, Known>>,
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
            known.insert(partition.clone(), Known { id, kept: None });
            claim.add(partition, id);
        }
        Ok(claim)
    }

    /// Learns which rows of partitions that begin were kept.
    pub(crate) fn note_kept(&self, stored: &HashMap<TopicPartition, Stored>) {
        let mut known = self.known();
        for (partition, stored) in stored {
            if let Some(known) = known.get_mut(partition) {
                known.kept = stored.kept;
            }
        }
    }

    /// What a batch says of its partitions' offsets.
    pub(crate) async fn claim(&self, slices: &[Slice<DriverLocation>]) -> Result<Claim, WriteError> {
        let unknown: Vec<_> = {
            let known = self.known();
            let unknown = slices.iter().filter(|slice| begins_again(slice) || !known.contains_key(&slice.partition));
            unknown.map(|slice| slice.partition.clone()).collect()
        };
        if !unknown.is_empty() {
            self.look_up(&unknown).await?;
        }
        let known = self.known();
        let mut claim = Claim::default();
        for slice in slices {
            let Known { id, kept } = known[&slice.partition];
            claim.add(&slice.partition, id);
            claim.kept.push(kept);
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

    fn known(&self) -> MutexGuard<'_, HashMap<TopicPartition, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the records go back behind where they were: then they may be of a new topic of the same name.
fn begins_again(slice: &Slice<DriverLocation>) -> bool {
    let goes_back = slice.items.first().is_some_and(|item| item.offset < slice.start);
    goes_back || slice.next < slice.start || !slice.items.is_sorted_by_key(|item| item.offset)
}

/// Partitions with their offsets, column by column, as the statements take them.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    topics: Vec<String>,
    topic_ids: Vec<String>,
    partitions: Vec<i32>,
    expected: Vec<i64>,
    next: Vec<i64>,
    kept: Vec<Option<Kept>>,
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

    /// The items of the batch that the claim was made for, without those that are in the table already.
    pub(crate) fn rows<'a>(&'a self, batch: &'a Batch<DriverLocation>) -> impl Iterator<Item = Numbered<'a>> {
        let slices = batch.slices.iter().zip(&self.kept).enumerate();
        slices.flat_map(|(slice, (content, kept))| {
            let items = content.items.iter().enumerate();
            let missing = items.filter(move |(_, item)| !kept.is_some_and(|kept| kept.has(item.offset, &item.event)));
            missing.map(move |(item, content)| Numbered { slice, item, event: &content.event })
        })
    }

    /// Moves the offsets; returns how many moved.
    pub(crate) async fn fence(&self, client: &Client, fence: &Statement, group: &str) -> Result<usize, Fault> {
        let Self { topics, topic_ids, partitions, expected, next, kept: _ } = self;
        let row = client.query_one(fence, &[&group, topics, topic_ids, partitions, expected, next]).await?;
        Ok(usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
    }

    /// Reads what is stored; partitions without an offset are absent.
    pub(crate) async fn stored(&self, client: &Client, group: &str) -> Result<HashMap<TopicPartition, Stored>, Fault> {
        let rows = client.query(STORED, &[&group, &self.topics, &self.topic_ids, &self.partitions]).await?;
        let stored = rows.iter().map(|row| {
            let partition = TopicPartition::new(row.try_get::<_, String>(0)?, PartitionId(row.try_get(1)?));
            let kept: Option<i64> = row.try_get(3)?;
            let before_ms: Option<i64> = row.try_get(4)?;
            let kept = kept.zip(before_ms).map(|(until, before_ms)| Kept { until: Offset(until), before_ms });
            Ok((partition, Stored { next: Offset(row.try_get(2)?), kept }))
        });
        stored.collect()
    }
}

/// An item of a batch, with the indices that [`Refused`] wants.
pub(crate) struct Numbered<'a> {
    slice: usize,
    item: usize,
    pub(crate) event: &'a DriverLocation,
}

impl Numbered<'_> {
    pub(crate) fn refused(&self, fault: &Fault) -> Refused {
        Refused { slice: self.slice, item: self.item, fault: fault.of_record() }
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
