//! The broker, and records put in by the independent witness.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use kafka::ClientConfig;
use native::{KafkaOptions, Stack, StackOptions};
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;

/// The broker of all tests of this binary; its guard stops it when the test process ends.
pub(crate) fn bootstrap() -> String {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(start).kafka.bootstrap()
}

fn start() -> Stack {
    let dir = native::stack_dir("kafka-broker");
    Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false }).unwrap()
}

pub(crate) fn config(bootstrap: &str, client_id: &str) -> ClientConfig {
    ClientConfig::new(vec![bootstrap.to_owned()], client_id)
}

/// Puts `per_partition` records into each partition; returns how many there are in all.
pub(crate) async fn produce_numbered(bootstrap: &str, topic: &str, partitions: i32, per_partition: usize) -> usize {
    let witness = rskafka::client::ClientBuilder::new(vec![bootstrap.to_owned()]).build().await.unwrap();
    for partition in 0..partitions {
        let producer = witness.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        for chunk in (0..per_partition).collect::<Vec<_>>().chunks(50) {
            let records = chunk.iter().map(|number| Record {
                key: None,
                value: Some(number.to_string().into_bytes()),
                headers: Default::default(),
                timestamp: now(),
            });
            producer.produce(records.collect(), Compression::NoCompression).await.unwrap();
        }
    }
    usize::try_from(partitions).unwrap() * per_partition
}

/// Puts `count` records into one new partition as soon as the broker has it; returns their offsets.
pub(crate) async fn produce_into(bootstrap: &str, topic: &str, partition: i32, count: usize) -> BTreeSet<i64> {
    let witness = rskafka::client::ClientBuilder::new(vec![bootstrap.to_owned()]).build().await.unwrap();
    let producer = witness.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
    let record = Record { key: None, value: Some(b"early".to_vec()), headers: Default::default(), timestamp: now() };
    producer.produce(vec![record; count], Compression::NoCompression).await.unwrap().into_iter().collect()
}

pub(crate) fn now() -> rskafka::chrono::DateTime<rskafka::chrono::Utc> {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    rskafka::chrono::DateTime::from_timestamp_millis(i64::try_from(since_epoch.as_millis()).unwrap()).unwrap()
}
