//! Fills a dead letter topic, to measure the commands on it: `letters BROKERS TOPIC COUNT`. Each original leaves two
//! letters, one of each of two groups, as in production.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "a program for measuring")]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use kafka::topics::{self, Mode, Plan};
use kafka::{
    Client, ClientConfig, DeadLetter, DeadLetterConfig, DeadLetterPublisher, LetterDelivery, Offset, PartitionId,
    Producer, ProducerConfig, RejectReason, TimestampType, TopicPartition,
};

const PARTITIONS: i32 = 48;
const UNDER_WAY: usize = 20_000;
const TIME: i64 = 1_795_441_689_633;

#[tokio::main]
async fn main() {
    let args: Vec<_> = std::env::args().collect();
    let [_, brokers, topic, count] = args.as_slice() else { panic!("letters BROKERS TOPIC COUNT") };
    let client = Client::new(ClientConfig::new(vec![brokers.clone()], "letters"));
    let dead_letter_topic = topics::dead_letter_topic(topic);
    let plan =
        Plan { topic: topic.clone(), partitions: PARTITIONS, dead_letter_topic: Some(dead_letter_topic.clone()) };
    topics::ensure(&client, Mode::Auto, &plan).await.expect("topics");
    let mut publishers = Vec::new();
    for group in ["driver-location-redis", "driver-location-analytics"] {
        let config = DeadLetterConfig {
            topic: Arc::from(dead_letter_topic.as_str()),
            group: group.to_owned(),
            service: "letters".to_owned(),
            version: "0".to_owned(),
        };
        let publisher = DeadLetterPublisher::new(Producer::new(client.clone(), ProducerConfig::standard()), config);
        publisher.warm().await.expect("the topic");
        publishers.push(publisher);
    }
    let count: i64 = count.parse().expect("a number");
    let mut under_way = VecDeque::new();
    for number in 0..count / 2 {
        for publisher in &publishers {
            under_way.push_back(publish(publisher, topic, number).await);
            if under_way.len() >= UNDER_WAY {
                under_way.pop_front().unwrap().await.expect("acknowledged");
            }
        }
    }
    for delivery in under_way {
        delivery.await.expect("acknowledged");
    }
    println!("{count} letters");
}

async fn publish(publisher: &DeadLetterPublisher, topic: &str, number: i64) -> LetterDelivery {
    let partition = PartitionId(i32::try_from(number % i64::from(PARTITIONS)).unwrap());
    let record = kafka::Record {
        offset: Offset(number),
        timestamp_ms: TIME + number,
        timestamp_type: TimestampType::CreateTime,
        key: Some(Bytes::from(format!("driver-{}", number % 5_000))),
        value: Some(Bytes::from(vec![0x0a; 60])),
        headers: Vec::new(),
    };
    let source = TopicPartition::new(topic, partition);
    let detail = "latitude must be a number from -90 to 90, in degrees north.".to_owned();
    let letter = DeadLetter { source, record, reason: "invalid_latitude", detail, attempts: 1 };
    loop {
        match publisher.publish(&letter) {
            Ok(delivery) => return delivery,
            Err(RejectReason::BufferFull) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            Err(error) => panic!("{error}"),
        }
    }
}
