//! Kafka through rskafka, which shares no code with our client: puts records in, and reads what is really there.

use std::collections::BTreeMap;
use std::time::Duration;

use event::DriverLocation;
use rskafka::BackoffConfig;
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

use crate::events::Moment;
use crate::wait::{LIMIT, eventually, within};

const FETCH_BYTES: std::ops::Range<i32> = 1..4_000_000;
const MAX_WAIT_MS: i32 = 500;
/// Records of one batch.
const BATCH_RECORDS: usize = 2_000;

/// The independent witness.
#[derive(Debug)]
pub struct Witness {
    client: Client,
}

/// A record and where it lies.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The record.
    pub record: Record,
}

impl Found {
    /// Whose position it holds, and when that was taken; none when it holds no event.
    pub fn moment(&self) -> Option<Moment> {
        let made_at_ms = self.record.timestamp.timestamp_millis();
        let location = DriverLocation::decode(self.record.value.as_deref()?, made_at_ms).ok()?;
        Some((location.driver_id.as_str().to_owned(), location.effective_at_ms))
    }

    /// A header's bytes.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.record.headers.get(name).map(Vec::as_slice)
    }

    /// A header as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

impl Witness {
    /// Connects.
    pub async fn connect(bootstrap: &str) -> Self {
        let brokers = bootstrap.split(',').map(str::to_owned).collect();
        let client = ClientBuilder::new(brokers).backoff_config(backoff()).build();
        Self { client: within("rskafka connects", client).await.expect("rskafka connects") }
    }

    /// A record of `driver` (its key) with any value, made at `timestamp_ms`.
    pub fn record(driver: &str, value: Option<Vec<u8>>, timestamp_ms: i64) -> Record {
        let timestamp = DateTime::from_timestamp_millis(timestamp_ms).expect("a time");
        Record { key: Some(driver.as_bytes().to_vec()), value, headers: BTreeMap::new(), timestamp }
    }

    /// Appends records to a partition; returns their offsets.
    pub async fn put(&self, topic: &str, partition: i32, records: Vec<Record>) -> Vec<i64> {
        let writer = self.partition(topic, partition).await;
        let mut offsets = Vec::with_capacity(records.len());
        for batch in records.chunks(BATCH_RECORDS) {
            let appended = within("the witness appends", writer.produce(batch.to_vec(), Compression::Lz4)).await;
            offsets.extend(appended.expect("the witness appends"));
        }
        offsets
    }

    /// Everything in a topic, partition by partition, in order.
    pub async fn read(&self, topic: &str, partitions: i32) -> Vec<Found> {
        let mut found = Vec::new();
        for partition in 0..partitions {
            within("the witness reads", self.read_partition(topic, partition, &mut found)).await;
        }
        found
    }

    /// The end of every partition of a topic.
    pub async fn ends(&self, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
        let mut ends = BTreeMap::new();
        for partition in 0..partitions {
            let reader = self.partition(topic, partition).await;
            let end = within("the end of the log", reader.get_offset(OffsetAt::Latest)).await;
            ends.insert(partition, end.expect("the end of the log"));
        }
        ends
    }

    async fn read_partition(&self, topic: &str, partition: i32, found: &mut Vec<Found>) {
        let reader = self.partition(topic, partition).await;
        let end = reader.get_offset(OffsetAt::Latest).await.expect("the end of the log");
        let mut next = reader.get_offset(OffsetAt::Earliest).await.expect("the start of the log");
        while next < end {
            let (records, _) = reader.fetch_records(next, FETCH_BYTES, MAX_WAIT_MS).await.expect("the witness reads");
            for record in records {
                next = record.offset + 1;
                found.push(Found { partition, offset: record.offset, record: record.record });
            }
        }
    }

    async fn partition(&self, topic: &str, partition: i32) -> PartitionClient {
        // A partition that was just made is heard of by the controller first, and by a busy broker some time later.
        eventually("the partition is there", async || {
            let client = self.client.partition_client(topic, partition, UnknownTopicHandling::Retry);
            client.await.map_err(|error| error.to_string())
        })
        .await
    }
}

/// Its default grows to 500 s and knows no end.
fn backoff() -> BackoffConfig {
    BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(500),
        base: 2.0,
        deadline: Some(LIMIT),
    }
}
