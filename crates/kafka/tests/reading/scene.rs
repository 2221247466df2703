//! The broker, and Java's producer beside it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kafka::{Client, ClientConfig, Offset, OffsetSpec, PartitionId, TopicPartition, TopicSpec};
use native::{KafkaOptions, Stack, StackOptions};

use crate::java::{Java, Program};
use crate::reader::PATIENCE;

pub(crate) fn start(name: &str) -> Stack {
    // The cleaner looks every 15 s by default.
    let kafka = KafkaOptions::single().set("log.cleaner.backoff.ms", 100);
    let dir = native::stack_dir(name);
    Stack::start(StackOptions { dir, kafka: Some(kafka), redis: false, postgres: false }).unwrap()
}

/// The broker of all tests of this binary that leave it running.
pub(crate) fn shared() -> String {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| start("kafka-reading")).kafka.bootstrap()
}

pub(crate) fn client(bootstrap: &str) -> Client {
    Client::new(ClientConfig::new(vec![bootstrap.to_owned()], "reading-test"))
}

/// A topic of one partition that takes the timestamps of `Produce.java`, whatever the date is, and forgets nothing.
pub(crate) async fn create(client: &Client, topic: &str, more: &[(&str, &str)]) -> TopicPartition {
    let settings = [("message.timestamp.after.max.ms", "9223372036854775807"), ("retention.ms", "-1")];
    let settings = settings.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let spec = TopicSpec { name: topic.to_owned(), partitions: 1, replication: None, settings: settings.collect() };
    client.create_topic(&spec).await.unwrap();
    TopicPartition::new(Arc::from(topic), PartitionId(0))
}

/// The position after the last record that readers may see.
pub(crate) async fn end(client: &Client, partition: &TopicPartition) -> Offset {
    let listed = client.list_offsets(std::slice::from_ref(partition), OffsetSpec::Latest).await.unwrap();
    listed.into_iter().next().unwrap().1.unwrap().offset
}

/// Waits until the log ends at `end`: the marker of a transaction is written after its producer has heard that it ended.
pub(crate) async fn ends_at(client: &Client, partition: &TopicPartition, expected: Offset) {
    let reached = async {
        while end(client, partition).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the log ends where it should");
}

/// Java's producer; give it the commands of `Produce.java`.
pub(crate) fn producer(name: &str, bootstrap: &str) -> Program {
    static JAVA: OnceLock<Java> = OnceLock::new();
    JAVA.get_or_init(|| Java::compile(&native::stack_dir("kafka-reading"))).produce(name, bootstrap)
}

/// Sends the records with the numbers from `first` on; returns the first and the last offset.
pub(crate) async fn send(java: &mut Program, producer: &str, topic: &str, first: i64, count: i64) -> (i64, i64) {
    let line = java.command(&format!("send {producer} {topic} 0 {first} {count} 7 1")).await;
    let (_, offsets) = line.offsets();
    (offsets[0], offsets[1])
}
