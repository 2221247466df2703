//! The producer on a healthy broker: what is acknowledged can be read by others, in order, and what Kafka does not
//! take is told apart.

#[path = "support/load.rs"]
mod load;
#[path = "support/witness.rs"]
mod witness;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use kafka::{Compression, OutRecord, PartitionId, ProduceError, Producer, ProducerConfig, RejectReason};
use load::Outcomes;
use native::{KafkaOptions, Stack, StackOptions};
use tokio::time::Instant;

fn bootstrap() -> String {
    static STACK: OnceLock<Stack> = OnceLock::new();
    let stack = STACK.get_or_init(|| {
        let dir = native::stack_dir("kafka-producer-basics");
        let kafka = Some(KafkaOptions::single());
        Stack::start(StackOptions { dir, kafka, redis: false, postgres: false }).expect("a broker")
    });
    stack.kafka.bootstrap()
}

/// Enqueues `count` records of each of `keys`, from as many tasks, and waits for all of them.
async fn drive(producer: &Producer, topic: &Arc<str>, keys: u32, count: u32) -> Outcomes {
    let tasks: Vec<_> = (0..keys)
        .map(|key| {
            let (producer, topic, key) = (producer.clone(), Arc::clone(topic), format!("driver-{key}"));
            tokio::spawn(async move {
                let mut deliveries = Vec::new();
                for number in 0..count {
                    let delivery = producer.send(load::record(&topic, &key, number)).await.expect("room");
                    deliveries.push(((key.clone(), number), delivery));
                }
                let mut outcomes = Vec::new();
                for (record, delivery) in deliveries {
                    outcomes.push((record, delivery.await));
                }
                outcomes
            })
        })
        .collect();
    let mut all = Outcomes::default();
    for task in tasks {
        all.0.extend(task.await.expect("no panic"));
    }
    all
}

async fn acknowledged_records_are_read_in_order(topic: &str, compression: Compression) {
    let client = load::client(&bootstrap());
    let producer =
        load::producer(&client, topic, 12, ProducerConfig { compression, ..ProducerConfig::standard() }).await;
    let outcomes = drive(&producer, &topic.into(), 40, 500).await;
    assert_eq!(outcomes.count(Result::is_ok), 20_000);
    outcomes.check(&witness::topic(&bootstrap(), topic, 12).await);
    let stats = producer.stats();
    assert_eq!((stats.records, stats.delivered, stats.failed, stats.buffered_bytes), (20_000, 20_000, 0, 0));
    assert!(stats.requests < 2_000, "one request carries many partitions and records: {}", stats.requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn rskafka_reads_what_was_acknowledged_in_order_of_each_key() {
    acknowledged_records_are_read_in_order("plain", Compression::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rskafka_reads_lz4_batches_too() {
    acknowledged_records_are_read_in_order("lz4", Compression::Lz4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_waits_for_room_in_a_small_buffer() {
    let client = load::client(&bootstrap());
    let small = ProducerConfig { buffer_bytes: 10_000, ..ProducerConfig::standard() };
    let producer = load::producer(&client, "cramped", 3, small).await;
    let outcomes = drive(&producer, &"cramped".into(), 10, 200).await;
    assert_eq!(outcomes.count(Result::is_ok), 2_000);
    outcomes.check(&witness::topic(&bootstrap(), "cramped", 3).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_record_arrives() {
    let client = load::client(&bootstrap());
    let producer = load::producer(&client, "parts", 3, ProducerConfig::standard()).await;
    let record = OutRecord {
        topic: "parts".into(),
        partition: Some(PartitionId(2)),
        key: None,
        value: None,
        headers: vec![(Bytes::from_static(b"name"), Some(Bytes::from_static(b"value")))],
        timestamp_ms: load::TIMESTAMP_MS,
    };
    let delivered = producer.enqueue(record).expect("room").await.expect("acknowledged");
    assert_eq!(delivered.partition, PartitionId(2));
    let (offset, found) = witness::partition(&bootstrap(), "parts", 2).await.remove(0);
    assert_eq!(delivered.offset.map(|offset| offset.0), Some(offset));
    assert_eq!((found.key, found.value), (None, None));
    assert_eq!(found.headers.get("name").map(Vec::as_slice), Some(&b"value"[..]));
    assert_eq!(found.timestamp.timestamp_millis(), load::TIMESTAMP_MS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_topic_does_not_take_is_split_and_only_the_culprit_is_refused() {
    let client = load::client(&bootstrap());
    load::create(&client, "small", 1, &[("max.message.bytes", "2000")]).await;
    let producer = Producer::new(client, ProducerConfig::standard());
    load::warm(&producer, "small").await;
    let topic: Arc<str> = "small".into();
    let mut deliveries = Vec::new();
    for number in 0..200 {
        let mut record = load::record(&topic, "driver", number);
        if number == 77 {
            record.value = Some(Bytes::from(vec![b'x'; 3_000]));
        }
        deliveries.push((("driver".to_owned(), number), producer.enqueue(record).expect("room")));
    }
    let mut outcomes = Outcomes::default();
    for (record, delivery) in deliveries {
        outcomes.0.insert(record, delivery.await);
    }
    let code = kafka_protocol::ResponseError::MessageTooLarge;
    assert_eq!(outcomes.0[&("driver".to_owned(), 77)], Err(ProduceError::Refused { code }));
    assert_eq!(outcomes.count(Result::is_ok), 199);
    outcomes.check(&witness::topic(&bootstrap(), "small", 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_timestamp_costs_no_other_record() {
    let client = load::client(&bootstrap());
    load::create(&client, "timely", 1, &[("message.timestamp.before.max.ms", "86400000000")]).await;
    let producer = Producer::new(client, ProducerConfig::standard());
    load::warm(&producer, "timely").await;
    let topic: Arc<str> = "timely".into();
    let mut deliveries = Vec::new();
    for number in 0..10 {
        let timestamp_ms = if number == 3 { 0 } else { now_ms() };
        let record = OutRecord { timestamp_ms, ..load::record(&topic, "driver", number) };
        deliveries.push(producer.enqueue(record).expect("room"));
    }
    for (number, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.is_ok(), number != 3, "record {number}");
    }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("before the year 292278994")
}

#[tokio::test(flavor = "multi_thread")]
async fn records_for_an_unknown_topic_are_handed_back_and_sending_waits_for_it() {
    let client = load::client(&bootstrap());
    let producer = Producer::new(client.clone(), ProducerConfig::standard());
    let record = load::record(&"awaited".into(), "driver", 0);
    let rejected = producer.enqueue(record.clone()).expect_err("not known yet");
    assert_eq!((*rejected.record, rejected.reason), (record.clone(), RejectReason::NoMetadata));
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(record).await.expect("taken").await }
    });
    load::create(&client, "awaited", 1, &[]).await;
    assert!(sending.await.expect("no panic").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_used_within_ten_seconds() {
    let client = load::client(&bootstrap());
    let producer = load::producer(&client, "growing", 1, ProducerConfig::standard()).await;
    client.create_partitions("growing", 4).await.expect("growth");
    let (topic, started) = ("growing".into(), Instant::now());
    for number in 0.. {
        let delivered = producer.send(load::record(&topic, "driver-7", number)).await.expect("room").await;
        if delivered.expect("acknowledged").partition != PartitionId(0) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "still one partition");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_sends_what_is_enqueued_and_takes_no_more() {
    let client = load::client(&bootstrap());
    let lazy = ProducerConfig { linger: Duration::from_secs(20), ..ProducerConfig::standard() };
    let producer = load::producer(&client, "closing", 3, lazy).await;
    let topic = "closing".into();
    let deliveries: Vec<_> =
        (0..100).map(|number| producer.enqueue(load::record(&topic, "driver", number)).expect("room")).collect();
    producer.close(Duration::from_secs(10)).await;
    for delivery in deliveries {
        delivery.await.expect("acknowledged");
    }
    let rejected = producer.enqueue(load::record(&topic, "driver", 100)).expect_err("closed");
    assert_eq!(rejected.reason, RejectReason::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_still_sends_what_is_enqueued() {
    let client = load::client(&bootstrap());
    let producer = load::producer(&client, "dropped", 1, ProducerConfig::standard()).await;
    let delivery = producer.enqueue(load::record(&"dropped".into(), "driver", 0)).expect("room");
    drop(producer);
    delivery.await.expect("acknowledged");
}

#[test]
fn the_end_of_the_runtime_gives_every_caller_an_answer() {
    let bootstrap = bootstrap();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut delivery = None;
    runtime.block_on(async {
        let lazy = ProducerConfig { linger: Duration::from_secs(20), ..ProducerConfig::standard() };
        let producer = load::producer(&load::client(&bootstrap), "orphaned", 1, lazy).await;
        delivery = Some(producer.enqueue(load::record(&"orphaned".into(), "driver", 0)).expect("room"));
        std::mem::forget(producer);
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    assert_eq!(futures::executor::block_on(delivery.expect("enqueued")), Err(ProduceError::Closed));
}
