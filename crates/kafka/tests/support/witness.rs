//! The independent witness: reads a topic back with rskafka, which shares no code with our producer.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

const FETCH_BYTES: std::ops::Range<i32> = 1..1_000_000;
const MAX_WAIT_MS: i32 = 500;

/// A record of one partition, with its offset.
pub(crate) type Found = (i64, Record);

async fn client(bootstrap: &str) -> Client {
    let brokers = bootstrap.split(',').map(str::to_owned).collect();
    ClientBuilder::new(brokers).build().await.expect("rskafka connects")
}

/// All records of `partition`, in order.
pub(crate) async fn partition(bootstrap: &str, topic: &str, partition: i32) -> Vec<Found> {
    let client = client(bootstrap).await;
    let reader = client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.expect("the partition");
    let end = reader.get_offset(OffsetAt::Latest).await.expect("its end");
    let mut position = reader.get_offset(OffsetAt::Earliest).await.expect("its start");
    let mut found = Vec::new();
    while position < end {
        let (records, _) = reader.fetch_records(position, FETCH_BYTES, MAX_WAIT_MS).await.expect("records");
        for record in records {
            position = record.offset + 1;
            found.push((record.offset, record.record));
        }
    }
    found
}

/// All records of a topic, by partition.
pub(crate) async fn topic(bootstrap: &str, topic: &str, partitions: i32) -> BTreeMap<i32, Vec<Found>> {
    let mut found = BTreeMap::new();
    for number in 0..partitions {
        found.insert(number, partition(bootstrap, topic, number).await);
    }
    found
}
