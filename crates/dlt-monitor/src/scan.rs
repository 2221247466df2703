//! Reads the dead letter topic once: all wanted partitions in one loop, from where the filter begins up to the ends that
//! the topic had at the start. Memory is bounded by the answers that are under way, however many letters there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use kafka::{
    Client, Offset, OffsetSpec, PartitionId, RawBatch, Read, Reader, Record, Stretch, TimestampType, TopicPartition,
};

use crate::error::Error;
use crate::filter::Filter;
use crate::letter::Letter;

/// Answers that are decoded side by side.
const DECODING: usize = 2;

/// Where a letter is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: Offset,
}

/// A letter as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) record: Record,
    pub(crate) letter: Letter,
    /// A batch of the dead letter topic itself that cannot be read: its bytes are the record's value.
    pub(crate) is_undecodable: bool,
}

/// What is to be read.
#[derive(Clone)]
pub(crate) struct Scan {
    client: Client,
    pub(crate) stretches: Vec<Stretch>,
}

/// What one answer gave.
pub(crate) struct Part<T> {
    /// What was made of its letters.
    pub(crate) made: T,
    /// Offsets that were read, for whoever shows progress.
    pub(crate) read: u64,
    /// Where each partition of it goes on.
    pub(crate) positions: Vec<(TopicPartition, Offset)>,
}

impl Scan {
    /// Finds out what there is to read of `topic` for `filter`.
    ///
    /// # Errors
    /// The topic is not there or not ours to read, a partition does not exist, or Kafka is away.
    pub(crate) async fn open(client: &Client, topic: &str, filter: &Filter) -> Result<Self, Error> {
        let metadata = client.topic(topic).await?;
        let count = metadata.partition_count();
        if let Some(missing) = filter.partitions.iter().find(|wanted| **wanted >= count) {
            return Err(Error::Input(format!(
                "--partition {missing}: topic {topic} has the partitions 0 to {}",
                count - 1
            )));
        }
        let mut partitions = metadata.topic_partitions();
        partitions.retain(|one| filter.wants_partition(one.partition.0));
        let spec = filter.since_ms.map_or(OffsetSpec::Earliest, OffsetSpec::AtTimestamp);
        let starts = offsets(client, &partitions, spec).await?;
        let ends = offsets(client, &partitions, OffsetSpec::Latest).await?;
        let stretches = partitions.into_iter().filter_map(|partition| {
            let (from, end) = (*starts.get(&partition)?, *ends.get(&partition)?);
            Some(Stretch { partition, from, end })
        });
        Ok(Self { client: client.clone(), stretches: stretches.collect() })
    }

    /// Only the last `count` offsets of each partition.
    pub(crate) fn tail(mut self, count: u64) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        for stretch in &mut self.stretches {
            stretch.from = stretch.from.max(Offset(stretch.end.0.saturating_sub(count)));
        }
        self
    }

    /// Offsets that will be read.
    pub(crate) fn total(&self) -> u64 {
        self.stretches.iter().map(|stretch| stretch.end.since(stretch.from)).sum()
    }

    /// Reads everything, and makes something of the letters of each answer, beside the reading and in order.
    pub(crate) fn parts<T, W>(self, work: W) -> impl Stream<Item = Result<Part<T>, Error>>
    where
        T: Send + 'static,
        W: Fn(&mut dyn Iterator<Item = Found>) -> T + Send + Sync + 'static,
    {
        let ends: BTreeMap<_, _> = self.stretches.iter().map(|one| (one.partition.clone(), one.end)).collect();
        let (ends, work) = (Arc::new(ends), Arc::new(work));
        let reader = Reader::new(self.client, self.stretches);
        let answers = stream::try_unfold(reader, async |mut reader| {
            Ok::<_, Error>(reader.next().await?.map(|answer| (answer, reader)))
        });
        let made = answers.map(move |answer| {
            let (ends, work) = (Arc::clone(&ends), Arc::clone(&work));
            async move {
                let answer = answer?;
                let making = tokio::task::spawn_blocking(move || part(&answer, &ends, &*work));
                making.await.map_err(|error| Error::Unsent(format!("reading broke off: {error}")))
            }
        });
        made.buffered(DECODING)
    }
}

fn part<T>(
    answer: &[Read],
    ends: &BTreeMap<TopicPartition, Offset>,
    work: &dyn Fn(&mut dyn Iterator<Item = Found>) -> T,
) -> Part<T> {
    let end_of = |partition: &TopicPartition| ends.get(partition).copied().unwrap_or(Offset(i64::MAX));
    let positions: Vec<_> =
        answer.iter().map(|read| (read.partition.clone(), read.next.min(end_of(&read.partition)))).collect();
    let begun = answer.iter().filter_map(|read| Some((read.batches.first()?.start(), read.next)));
    let read = begun.map(|(start, next)| next.since(start)).sum();
    let mut letters = answer.iter().flat_map(|read| {
        let end = end_of(&read.partition);
        let letters = read.batches.iter().flat_map(|batch| letters(&read.partition, batch));
        letters.filter(move |found| found.place.offset < end)
    });
    Part { made: work(&mut letters), read, positions }
}

fn letters(partition: &TopicPartition, batch: &RawBatch) -> Vec<Found> {
    let (records, is_undecodable) = match batch.decode() {
        Ok(records) => (records, false),
        Err(error) => {
            tracing::warn!(%partition, offset = %batch.start(), %error, "a batch of the dead letter topic cannot be read");
            (vec![as_record(batch)], true)
        }
    };
    let found = |record: Record| Found {
        place: Place { partition: partition.clone(), offset: record.offset },
        letter: Letter::of(&record),
        record,
        is_undecodable,
    };
    records.into_iter().map(found).collect()
}

fn as_record(batch: &RawBatch) -> Record {
    Record {
        offset: batch.start(),
        timestamp_ms: batch.max_timestamp_ms().unwrap_or(-1),
        timestamp_type: TimestampType::CreateTime,
        key: None,
        value: Some(batch.bytes().clone()),
        headers: Vec::new(),
    }
}

/// One offset of each partition.
///
/// # Errors
/// What ails the first partition that has none.
pub(crate) async fn offsets(
    client: &Client,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
    let listed = client.list_offsets(partitions, spec).await?;
    listed.into_iter().map(|(partition, listed)| Ok((partition, listed?.offset))).collect()
}

/// Reads one letter.
///
/// # Errors
/// There is none at this place, or Kafka is away.
pub(crate) async fn letter_at(client: &Client, topic: &str, partition: i32, offset: i64) -> Result<Found, Error> {
    let asked = format!("{partition}:{offset}");
    let count = client.topic(topic).await?.partition_count();
    if partition >= count {
        return Err(Error::Input(format!("{asked}: topic {topic} has the partitions 0 to {}", count - 1)));
    }
    let place = TopicPartition::new(topic, PartitionId(partition));
    let first = offsets(client, std::slice::from_ref(&place), OffsetSpec::Earliest).await?[&place];
    let end = offsets(client, std::slice::from_ref(&place), OffsetSpec::Latest).await?[&place];
    if !(first..end).contains(&Offset(offset)) {
        let holds = if first == end {
            "holds no letters".to_owned()
        } else {
            format!("holds {first} to {}", Offset(end.0 - 1))
        };
        return Err(Error::Input(format!("{asked}: offset out of range: partition {partition} of {topic} {holds}")));
    }
    let stretch = Stretch { partition: place.clone(), from: Offset(offset), end: Offset(offset).next() };
    let mut reader = Reader::bounded(client.clone(), vec![stretch], 1);
    while let Some(answer) = reader.next().await? {
        let mut found = answer.iter().flat_map(|read| &read.batches).flat_map(|batch| letters(&place, batch));
        if let Some(found) = found.find(|found| found.place.offset == Offset(offset) || found.is_undecodable) {
            return Ok(found);
        }
    }
    Err(Error::Input(format!("{asked}: no letter is there: a hole that a transaction or compaction left")))
}

#[cfg(test)]
pub(crate) mod samples {
    //! Letters for tests of what is pure.

    use bytes::Bytes;

    use super::*;

    pub(crate) fn found(
        partition: i32,
        offset: i64,
        time: i64,
        key: &'static [u8],
        group: &str,
        reason: &str,
    ) -> Found {
        let record = Record {
            offset: Offset(offset),
            timestamp_ms: time,
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(key)),
            value: Some(Bytes::from_static(b"value")),
            headers: Vec::new(),
        };
        let letter = Letter { group: Some(group.to_owned()), reason: Some(reason.to_owned()), ..Letter::default() };
        let place = Place { partition: TopicPartition::new("t.DLT", PartitionId(partition)), offset: Offset(offset) };
        Found { place, record, letter, is_undecodable: false }
    }
}
