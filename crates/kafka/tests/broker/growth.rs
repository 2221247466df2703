//! A topic grows while it is written and read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka::{OutRecord, PartitionId, Producer, ProducerConfig};
use tokio::time::Instant;

use crate::member::{Member, PARTITIONS, settle, topic};
use crate::support;

const TOPIC: &str = "growing";
const GROWN: i32 = 48;
/// Both are to notice within 10 s.
const DEADLINE: Duration = Duration::from_secs(30);

fn record(number: i64, partition: Option<i32>) -> OutRecord {
    OutRecord {
        topic: Arc::from(TOPIC),
        partition: partition.map(PartitionId),
        key: Some(format!("driver-{number}").into()),
        value: Some("a position".into()),
        headers: Vec::new(),
        timestamp_ms: number,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_grows_from_12_to_48_is_noticed_and_read_from_the_beginning_of_what_is_new() {
    let bootstrap = support::bootstrap();
    let client = topic(&bootstrap, TOPIC).await;
    let producer = Producer::new(client.clone(), ProducerConfig::standard());
    let mut members = vec![Member::join(&bootstrap, TOPIC)];
    settle(&mut members).await;
    let mut member = members.remove(0);
    producer.send(record(0, None)).await.unwrap().await.unwrap();
    assert_eq!(producer.partition_count(TOPIC), Some(PARTITIONS));

    client.create_partitions(TOPIC, GROWN).await.unwrap();
    // Others may write there before anybody here has noticed.
    let early = support::produce_into(&bootstrap, TOPIC, GROWN - 1, 3).await;
    let deadline = Instant::now() + DEADLINE;
    let mut read = BTreeSet::new();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let mut number = 0;
    while producer.partition_count(TOPIC) != Some(GROWN) || member.owned.len() != 48 || read != early {
        assert!(
            Instant::now() < deadline,
            "producer: {:?}, member: {}, read: {read:?}",
            producer.partition_count(TOPIC),
            member.owned.len()
        );
        tokio::select! {
            Some(event) = member.consumer.events.recv() => member.take(event),
            Some(fetched) = member.consumer.fetched.recv() => {
                for fetched in fetched.iter().filter(|fetched| fetched.partition.partition.0 == GROWN - 1) {
                    let records = fetched.batches.iter().flat_map(|batch| batch.decode().unwrap());
                    read.extend(records.map(|record| record.offset.0).filter(|offset| early.contains(offset)));
                }
            }
            _ = pace.tick() => {
                number += 1;
                producer.send(record(number, None)).await.unwrap().await.unwrap();
            }
        }
    }
    // And what is new is written to.
    producer.send(record(0, Some(GROWN - 1))).await.unwrap().await.unwrap();
}
