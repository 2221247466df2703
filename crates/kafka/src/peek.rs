//! The first record at or behind an offset: how old is what a group has yet to process?
//!
//! Many partitions in one request. A broker sends the first batch of an answer whole and others only as far as they fit,
//! so what came back empty is asked for again, at the head of the next request.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;

use crate::cluster::{Client, Lane};
use crate::error::Error;
use crate::lag::topic_name;
use crate::record::RawBatch;
use crate::types::{BrokerId, Offset, PartitionId, TopicPartition};

/// Fetch 12 is the last version before topic ids took the place of names.
const FETCH_VERSION: i16 = 12;
const NO_REPLICA: i32 = -1;
const NO_SESSION: i32 = -1;
/// Batches of most producers are smaller (Java's `batch.size` is 16 KiB).
const PARTITION_MAX_BYTES: i32 = 64 << 10;
const MAX_BYTES: i32 = 4 << 20;
/// Partitions in one request: as many as [`MAX_BYTES`] has room for.
const PARTITIONS_PER_REQUEST: usize = 64;
/// Requests to one broker for the partitions of one call; what is left then is for the caller's next try.
const ROUNDS: usize = 8;

/// What lies at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeked {
    /// The first record at the offset or behind it, by its timestamp in ms since the epoch.
    Record {
        /// Its timestamp.
        timestamp_ms: i64,
    },
    /// No record up to the end of the log: markers of transactions, or what compaction has left.
    Nothing,
    /// The broker did not get to it this time.
    NotYet,
}

/// What lies at each offset that was asked for.
pub type PeekedAt = Vec<(TopicPartition, Offset, Result<Peeked, Error>)>;

impl Client {
    /// Reads the first record at each place or behind it, for its time. A partition may be asked for at several offsets.
    ///
    /// # Errors
    /// What kept the cluster from saying who leads the partitions; what ails one place stands in its answer.
    pub async fn peek(&self, places: &[(TopicPartition, Offset)]) -> Result<PeekedAt, Error> {
        let partitions: Vec<_> = places.iter().map(|(partition, _)| partition.clone()).collect();
        let (_, failed) = self.by_leader(&partitions).await?;
        let failed: HashMap<_, _> = failed.into_iter().map(|(at, result)| (at, result.err())).collect();
        let mut by_leader: HashMap<BrokerId, Vec<_>> = HashMap::new();
        let mut peeked = Vec::with_capacity(places.len());
        for (partition, offset) in places {
            match self.known_leader(partition) {
                Some(leader) => by_leader.entry(leader).or_default().push((partition.clone(), *offset)),
                None => {
                    let error = failed.get(partition).cloned().flatten();
                    let error = error.unwrap_or_else(|| Error::NoLeader(partition.to_string()));
                    peeked.push((partition.clone(), *offset, Err(error)));
                }
            }
        }
        for (leader, places) in by_leader {
            peeked.extend(self.peek_at(leader, places).await);
        }
        Ok(peeked)
    }

    async fn peek_at(&self, leader: BrokerId, mut places: Vec<(TopicPartition, Offset)>) -> PeekedAt {
        let mut peeked = Vec::with_capacity(places.len());
        for _ in 0..ROUNDS {
            if places.is_empty() {
                break;
            }
            let asked = take_distinct(&mut places);
            let answers = match self.call(leader, Lane::Short, FETCH_VERSION, &request(&asked)).await {
                Ok(answer) => answer,
                Err(error) => {
                    peeked.extend(asked.into_iter().map(|(at, offset)| (at, offset, Err(error.clone()))));
                    break;
                }
            };
            let mut found = HashMap::new();
            for topic in answers.responses {
                let name: Arc<str> = topic.topic.as_str().into();
                let parts = topic.partitions.into_iter();
                found.extend(
                    parts.map(|data| (TopicPartition::new(Arc::clone(&name), PartitionId(data.partition_index)), data)),
                );
            }
            for (at, offset) in asked {
                match found.remove(&at).map_or(Ok(Peeked::NotYet), |data| read(&at, offset, data)) {
                    Ok(Peeked::NotYet) => places.insert(0, (at, offset)),
                    other => peeked.push((at, offset, other)),
                }
            }
        }
        peeked.extend(places.into_iter().map(|(at, offset)| (at, offset, Ok(Peeked::NotYet))));
        peeked
    }
}

/// Takes as many as one request may hold; a partition stands in a request once.
fn take_distinct(places: &mut Vec<(TopicPartition, Offset)>) -> Vec<(TopicPartition, Offset)> {
    let mut taken: Vec<(TopicPartition, Offset)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    places.retain(|place| {
        let takes = taken.len() < PARTITIONS_PER_REQUEST && seen.insert(place.0.clone());
        if takes {
            taken.push(place.clone());
        }
        !takes
    });
    taken
}

fn request(places: &[(TopicPartition, Offset)]) -> FetchRequest {
    let mut request = FetchRequest::default()
        .with_replica_id(NO_REPLICA.into())
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(MAX_BYTES)
        .with_session_epoch(NO_SESSION);
    for (at, offset) in places {
        if request.topics.last().is_none_or(|topic| topic.topic.as_str() != &*at.topic) {
            request.topics.push(FetchTopic::default().with_topic(topic_name(&at.topic)));
        }
        let partition = FetchPartition::default()
            .with_partition(at.partition.0)
            .with_fetch_offset(offset.0)
            .with_partition_max_bytes(PARTITION_MAX_BYTES);
        if let Some(topic) = request.topics.last_mut() {
            topic.partitions.push(partition);
        }
    }
    request
}

fn read(at: &TopicPartition, offset: Offset, data: PartitionData) -> Result<Peeked, Error> {
    match data.error_code.err() {
        None => {}
        // Retention has passed it, or the log was cut: the caller's offsets are old.
        Some(ResponseError::OffsetOutOfRange) => return Ok(Peeked::NotYet),
        Some(code) => return Err(Error::refused("Fetch", at.to_string(), code)),
    }
    let end = Offset(data.high_watermark);
    let bytes = data.records.unwrap_or_default();
    if bytes.is_empty() {
        return Ok(if offset >= end { Peeked::Nothing } else { Peeked::NotYet });
    }
    let batches = RawBatch::from_log(bytes, offset);
    let mut next = offset;
    for batch in &batches {
        next = batch.next();
        if let Some(timestamp_ms) = first_timestamp(batch) {
            return Ok(Peeked::Record { timestamp_ms });
        }
    }
    Ok(if next >= end { Peeked::Nothing } else { Peeked::NotYet })
}

/// Of a batch that cannot be decoded, its newest record's time is the best there is.
fn first_timestamp(batch: &RawBatch) -> Option<i64> {
    if batch.record_count() == 0 {
        return None;
    }
    match batch.decode() {
        Ok(records) => records.first().map(|record| record.timestamp_ms),
        Err(_) => batch.max_timestamp_ms(),
    }
}
