//! Dead letters on a real broker, read back by rskafka.

#[path = "support/load.rs"]
mod load;
#[path = "support/witness.rs"]
mod witness;

use std::sync::OnceLock;

use bytes::Bytes;
use kafka::dead_letter::headers;
use kafka::{
    DeadLetter, DeadLetterConfig, DeadLetterPublisher, Offset, PartitionId, Producer, ProducerConfig, Record,
    RejectReason, TimestampType, TopicPartition,
};
use native::{KafkaOptions, Stack, StackOptions};

const DLT_PARTITIONS: i32 = 4;

fn bootstrap() -> String {
    static STACK: OnceLock<Stack> = OnceLock::new();
    let stack = STACK.get_or_init(|| {
        let dir = native::stack_dir("kafka-dead-letter");
        let kafka = Some(KafkaOptions::single());
        Stack::start(StackOptions { dir, kafka, redis: false, postgres: false }).expect("a broker")
    });
    stack.kafka.bootstrap()
}

async fn publisher(topic: &str, settings: &[(&str, &str)]) -> DeadLetterPublisher {
    let client = load::client(&bootstrap());
    load::create(&client, topic, DLT_PARTITIONS, settings).await;
    let producer = Producer::new(client, ProducerConfig::standard());
    load::warm(&producer, topic).await;
    DeadLetterPublisher::new(producer, config(topic))
}

fn config(topic: &str) -> DeadLetterConfig {
    DeadLetterConfig {
        topic: topic.into(),
        group: "driver-location-redis".into(),
        service: "redis-writer".into(),
        version: "0.1.0".into(),
    }
}

fn letter(partition: i32, offset: i64, value: Option<Bytes>) -> DeadLetter {
    DeadLetter {
        source: TopicPartition::new("source", PartitionId(partition)),
        record: Record {
            offset: Offset(offset),
            timestamp_ms: load::TIMESTAMP_MS,
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(&[0xff, 0x00])),
            value,
            headers: vec![("trace".into(), Some(Bytes::from_static(b"abc")))],
        },
        reason: "null_value",
        detail: "no value".into(),
        attempts: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_carries_the_original_and_its_coordinates() {
    let publisher = publisher("source.DLT", &[]).await;
    let deliveries: Vec<_> =
        (0..6).map(|partition| publisher.publish(&letter(partition, 4_711, None)).expect("room")).collect();
    for (source, delivery) in (0..).zip(deliveries) {
        let delivered = delivery.await.expect("acknowledged");
        assert_eq!(delivered.partition, PartitionId(source % DLT_PARTITIONS), "the original's, as far as there are");
    }
    let (_, found) = witness::partition(&bootstrap(), "source.DLT", 3).await.remove(0);
    assert_eq!((found.key.as_deref(), found.value), (Some(&[0xff, 0x00][..]), None));
    let header = |name: &str| found.headers.get(name).map(Vec::as_slice);
    assert_eq!(header("trace"), Some(&b"abc"[..]));
    assert_eq!(header(headers::ORIGINAL_TOPIC), Some(&b"source"[..]));
    assert_eq!(header(headers::ORIGINAL_PARTITION), Some(&3_i32.to_be_bytes()[..]));
    assert_eq!(header(headers::ORIGINAL_OFFSET), Some(&4_711_i64.to_be_bytes()[..]));
    assert_eq!(header(headers::ORIGINAL_TIMESTAMP), Some(&load::TIMESTAMP_MS.to_be_bytes()[..]));
    assert_eq!(header(headers::REASON), Some(&b"null_value"[..]));
    assert_eq!(header(headers::GROUP), Some(&b"driver-location-redis"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_letter_is_kept_whole_where_the_topic_takes_it() {
    let publisher = publisher("roomy.DLT", &[]).await;
    let noise = Bytes::from(vec![7; 900_000]);
    publisher.publish(&letter(0, 1, Some(noise.clone()))).expect("room").await.expect("acknowledged");
    let (_, found) = witness::partition(&bootstrap(), "roomy.DLT", 0).await.remove(0);
    assert_eq!(found.value.as_deref(), Some(&noise[..]));
    assert!(!found.headers.contains_key(headers::TRUNCATED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_the_topic_does_not_take_is_truncated_and_says_so() {
    let publisher = publisher("narrow.DLT", &[("max.message.bytes", "200000")]).await;
    let large = publisher.publish(&letter(0, 1, Some(Bytes::from(vec![7; 900_000])))).expect("room");
    let small = publisher.publish(&letter(0, 2, Some(Bytes::from_static(b"small")))).expect("room");
    large.await.expect("acknowledged");
    small.await.expect("acknowledged");
    let found = witness::partition(&bootstrap(), "narrow.DLT", 0).await;
    let of_offset = |offset: i64| {
        let is_it = |found: &&witness::Found| found.1.headers[headers::ORIGINAL_OFFSET] == offset.to_be_bytes();
        &found.iter().find(is_it).expect("the letter").1
    };
    assert_eq!(of_offset(1).value.as_ref().map(Vec::len), Some(64 * 1024));
    assert_eq!(of_offset(1).headers[headers::TRUNCATED], b"value");
    assert_eq!(of_offset(1).headers[headers::ORIGINAL_SIZE], b"900010");
    assert_eq!(of_offset(2).value.as_deref(), Some(&b"small"[..]));
    assert_eq!(found.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_topic_a_letter_is_handed_back() {
    let producer = Producer::new(load::client(&bootstrap()), ProducerConfig::standard());
    let publisher = DeadLetterPublisher::new(producer, config("missing.DLT"));
    assert!(publisher.warm().await.is_err());
    assert_eq!(publisher.publish(&letter(0, 1, None)).err(), Some(RejectReason::NoMetadata));
}
