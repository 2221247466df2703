//! The independent witness: rskafka puts in the poison and re-reads both topics, so that a mistake of our own client cannot hide.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use tokio::time::timeout;

use crate::clock::unix_ms;
use crate::poison::Poison;

/// rskafka has no time limits of its own, and backs off for up to 500 s by default.
const CALL_WITHIN: Duration = Duration::from_secs(15);
const BACKOFF: BackoffConfig = BackoffConfig {
    init_backoff: Duration::from_millis(50),
    max_backoff: Duration::from_secs(1),
    base: 2.0,
    deadline: Some(Duration::from_secs(10)),
};
/// Most bytes of records in one fetch.
const FETCH_BYTES: i32 = 8 * 1_024 * 1_024;
/// How long a fetch waits for a first byte.
const FETCH_WAIT_MS: i32 = 500;
/// Fetches in a row that may bring nothing although the log goes on.
const EMPTY_FETCHES: u32 = 5;
/// Headers that name the original of a dead letter.
const ORIGINAL_PARTITION: &str = "kafka_dlt-original-partition";
const ORIGINAL_OFFSET: &str = "kafka_dlt-original-offset";

/// What the witness could not do.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The broker refused, or could not be reached.
    #[error("the independent Kafka client failed to {what}: {detail}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What it said.
        detail: String,
    },
    /// No answer in time.
    #[error("the independent Kafka client did not {what} within {} s", CALL_WITHIN.as_secs())]
    TimedOut {
        /// What was tried.
        what: &'static str,
    },
    /// The log has records that no fetch brings.
    #[error("fetches of {topic}-{partition} bring nothing from offset {offset} on, although the log ends at {end}")]
    Stuck {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where it stopped.
        offset: i64,
        /// Where the log ends.
        end: i64,
    },
}

/// A record in the topic by partition and offset.
pub type Place = (i32, i64);

/// What the dead letter topic holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// Letters altogether.
    pub letters: u64,
    /// The different originals that they name.
    pub originals: BTreeSet<Place>,
}

/// A connection to the cluster.
pub struct Witness {
    client: Client,
}

impl Witness {
    /// Connects.
    pub async fn connect(bootstrap: &str) -> Result<Self, WitnessError> {
        let builder = ClientBuilder::new(vec![bootstrap.to_owned()]).client_id("witness").backoff_config(BACKOFF);
        Ok(Self { client: limited("connect", builder.build()).await? })
    }

    /// Puts record number n into partition n, and says where each went.
    pub async fn put(&self, topic: &str, records: Vec<Poison>) -> Result<BTreeSet<Place>, WitnessError> {
        let mut places = BTreeSet::new();
        for (partition, poison) in (0..).zip(records) {
            let client = self.partition(topic, partition).await?;
            let timestamp = DateTime::<Utc>::from_timestamp_millis(unix_ms()).unwrap_or_default();
            let record = Record { key: Some(poison.key), value: poison.value, headers: [].into(), timestamp };
            let offsets = limited("produce", client.produce(vec![record], Compression::NoCompression)).await?;
            places.extend(offsets.into_iter().map(|offset| (partition, offset)));
        }
        Ok(places)
    }

    /// Reads a whole topic, giving each record to `look`.
    pub async fn read(
        &self,
        topic: &str,
        partitions: u32,
        mut look: impl FnMut(&RecordAndOffset),
    ) -> Result<u64, WitnessError> {
        let mut count = 0;
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let client = self.partition(topic, partition).await?;
            count += read_partition(&client, &mut look).await?;
        }
        Ok(count)
    }

    /// Reads the dead letter topic of `topic`.
    pub async fn dead_letters(&self, topic: &str, partitions: u32) -> Result<DeadLetters, WitnessError> {
        let mut found = DeadLetters::default();
        let originals = &mut found.originals;
        let dead_letter_topic = format!("{topic}.DLT");
        found.letters =
            self.read(&dead_letter_topic, partitions, |letter| originals.extend(original(&letter.record))).await?;
        Ok(found)
    }

    async fn partition(&self, topic: &str, partition: i32) -> Result<Arc<PartitionClient>, WitnessError> {
        let client = self.client.partition_client(topic, partition, UnknownTopicHandling::Error);
        limited("find a partition", client).await.map(Arc::new)
    }
}

async fn read_partition(
    client: &PartitionClient,
    look: &mut impl FnMut(&RecordAndOffset),
) -> Result<u64, WitnessError> {
    let mut offset = limited("list offsets", client.get_offset(OffsetAt::Earliest)).await?;
    let end = limited("list offsets", client.get_offset(OffsetAt::Latest)).await?;
    let (mut count, mut empty) = (0, 0);
    while offset < end {
        let (records, _) = limited("fetch", client.fetch_records(offset, 1..FETCH_BYTES, FETCH_WAIT_MS)).await?;
        empty = if records.is_empty() { empty + 1 } else { 0 };
        if empty == EMPTY_FETCHES {
            return Err(WitnessError::Stuck {
                topic: client.topic().to_owned(),
                partition: client.partition(),
                offset,
                end,
            });
        }
        for record in records.iter().filter(|record| record.offset < end) {
            look(record);
            count += 1;
        }
        offset = records.last().map_or(offset, |last| last.offset + 1);
    }
    Ok(count)
}

fn original(letter: &Record) -> Option<Place> {
    let partition = letter.headers.get(ORIGINAL_PARTITION)?.as_slice().try_into().ok()?;
    let offset = letter.headers.get(ORIGINAL_OFFSET)?.as_slice().try_into().ok()?;
    Some((i32::from_be_bytes(partition), i64::from_be_bytes(offset)))
}

async fn limited<T, E: std::fmt::Display>(
    what: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, WitnessError> {
    let answered = timeout(CALL_WITHIN, call).await.map_err(|_| WitnessError::TimedOut { what })?;
    answered.map_err(|error| WitnessError::Failed { what, detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[(&str, &[u8])]) -> Record {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        Record { key: None, value: None, headers, timestamp: DateTime::default() }
    }

    #[test]
    fn coordinates_are_big_endian_of_four_and_eight_bytes() {
        let partition = [0, 0, 0, 47];
        let offset = [0, 0, 0, 0, 0, 1, 0, 2];
        assert_eq!(
            original(&letter(&[(ORIGINAL_PARTITION, &partition), (ORIGINAL_OFFSET, &offset)])),
            Some((47, 65_538))
        );
        assert_eq!(original(&letter(&[(ORIGINAL_PARTITION, &offset), (ORIGINAL_OFFSET, &offset)])), None);
        assert_eq!(original(&letter(&[])), None);
    }
}
