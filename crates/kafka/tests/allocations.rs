//! What a record costs the allocator on its way to Kafka, counted over the whole process: the hot path of the ingest.

#[path = "support/load.rs"]
mod load;
#[path = "support/witness.rs"]
mod witness;

use std::alloc::System;
use std::sync::Arc;

use bytes::Bytes;
use kafka::{Compression, Delivery, OutRecord, Producer, ProducerConfig};
use native::{KafkaOptions, Stack, StackOptions};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TOPIC: &str = "allocations";
const PARTITIONS: i32 = 48;
const RECORDS: usize = 50_000;
const KEYS: [&str; 8] = ["a-1", "b-2", "c-3", "d-4", "e-5", "f-6", "g-7", "h-8"];
const VALUE: [u8; 60] = [7; 60];

fn records(topic: &Arc<str>) -> Vec<OutRecord> {
    let record = |number: usize| OutRecord {
        topic: Arc::clone(topic),
        partition: None,
        key: Some(Bytes::from_static(KEYS[number % KEYS.len()].as_bytes())),
        value: Some(Bytes::from_static(&VALUE)),
        headers: Vec::new(),
        timestamp_ms: load::TIMESTAMP_MS,
    };
    (0..RECORDS).map(record).collect()
}

/// Enqueues all and waits for each acknowledgement; `deliveries` has the room beforehand.
async fn deliver(producer: &Producer, records: Vec<OutRecord>, deliveries: &mut Vec<Delivery>) {
    for record in records {
        deliveries.push(producer.send(record).await.expect("room"));
    }
    for delivery in deliveries.drain(..) {
        delivery.await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_takes_less_than_one_allocation_from_the_caller_to_its_acknowledgement() {
    let dir = native::stack_dir("kafka-allocations");
    let kafka = Some(KafkaOptions::single());
    let stack = Stack::start(StackOptions { dir, kafka, redis: false, postgres: false }).expect("a broker");
    let client = load::client(&stack.kafka.bootstrap());
    let config = ProducerConfig { compression: Compression::Lz4, ..ProducerConfig::standard() };
    let producer = load::producer(&client, TOPIC, PARTITIONS, config).await;
    let topic: Arc<str> = TOPIC.into();
    let mut deliveries = Vec::with_capacity(RECORDS);
    // Once before, so that connections and buffers are there.
    deliver(&producer, records(&topic), &mut deliveries).await;

    let batch = records(&topic);
    let region = Region::new(ALLOCATOR);
    deliver(&producer, batch, &mut deliveries).await;
    let counted = region.change();
    let allocations = counted.allocations + counted.reallocations;
    println!("{:.3} allocations a record", allocations as f64 / RECORDS as f64);
    assert!(allocations < RECORDS, "{allocations} for {RECORDS} records: {counted:?}");
}
