//! Topics, offsets and coordinators on three brokers: what one broker cannot show.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::HashSet;
use std::time::Duration;

use kafka::topics::{self, Mode, Plan};
use kafka::{Client, ClientConfig, ErrorKind, Offset, OffsetSpec, PartitionId, TopicPartition};
use native::{KafkaOptions, Stack, StackOptions};
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use tokio::time::Instant;

/// A broker that was stopped is noticed, and its partitions led by others, within seconds.
const DEADLINE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 12;

fn start() -> Stack {
    let dir = native::stack_dir("kafka-cluster");
    Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::three()), redis: false, postgres: false }).unwrap()
}

fn client(stack: &Stack) -> Client {
    let brokers = stack.kafka.bootstrap().split(',').map(str::to_owned).collect();
    Client::new(ClientConfig::new(brokers, "cluster-test"))
}

async fn produce(stack: &Stack, topic: &str, per_partition: usize) {
    let brokers = stack.kafka.bootstrap().split(',').map(str::to_owned).collect();
    let witness = rskafka::client::ClientBuilder::new(brokers).build().await.unwrap();
    let timestamp = DateTime::from_timestamp_millis(1_795_441_000_000).unwrap();
    let record = Record { key: None, value: Some(b"v".to_vec()), headers: Default::default(), timestamp };
    for partition in 0..PARTITIONS {
        let producer = witness.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        producer.produce(vec![record.clone(); per_partition], Compression::NoCompression).await.unwrap();
    }
}

/// Tries until it works; only what passes by itself may stand in the way.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Result<T, kafka::Error>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(error.kind() == ErrorKind::Transient && Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ends(client: &Client, partitions: &[TopicPartition]) -> Result<Vec<i64>, kafka::Error> {
    let listed = client.list_offsets(partitions, OffsetSpec::Latest).await?;
    listed.into_iter().map(|(_, result)| result.map(|listed| listed.offset.0)).collect()
}

#[tokio::test]
async fn three_brokers_hold_three_replicas_and_offsets_follow_their_leaders() {
    let stack = start();
    let client = client(&stack);
    let plan = Plan { topic: "t".to_owned(), partitions: PARTITIONS, dead_letter_topic: Some("t.DLT".to_owned()) };
    let outcome = eventually(async || topics::ensure(&client, Mode::Auto, &plan).await).await;
    assert_eq!(outcome.warnings, Vec::<String>::new());
    for name in ["t", "t.DLT"] {
        assert_eq!(client.topic_settings(name).await.unwrap()["min.insync.replicas"], "2");
        assert!(client.topic(name).await.unwrap().partitions.iter().all(|partition| partition.replicas == 3));
    }
    let topic = client.topic("t").await.unwrap();
    let leaders: HashSet<_> = topic.partitions.iter().map(|partition| partition.leader).collect();
    assert_eq!(leaders.len(), 3, "every broker leads some partitions");
    produce(&stack, "t", 7).await;
    let partitions = topic.topic_partitions();
    assert_eq!(ends(&client, &partitions).await.unwrap(), [7; 12]);

    let groups: Vec<_> = (0..20).map(|number| format!("g{number}")).collect();
    let names: Vec<_> = groups.iter().map(String::as_str).collect();
    for group in &names {
        let position = [(TopicPartition::new("t", PartitionId(0)), Offset(3), String::new())];
        eventually(async || client.alter_offsets(group, &position).await).await;
    }
    let committed = client.committed_offsets_of(&names).await.unwrap();
    assert!(committed.values().all(|group| group.as_ref().unwrap().len() == 1), "whichever broker coordinates them");
    assert_eq!(client.list_groups().await.unwrap().len(), 20);

    stack.kafka.broker(2).stop();
    assert_eq!(eventually(async || ends(&client, &partitions).await).await, [7; 12], "by the leaders that took over");
    let all_read = eventually(async || {
        let committed = client.committed_offsets_of(&names).await?;
        committed.into_values().map(|group| group.map(|offsets| offsets.len())).sum::<Result<usize, _>>()
    });
    assert_eq!(all_read.await, 20, "by the coordinators that took over");
    assert_eq!(eventually(async || client.list_groups().await).await.len(), 20);
}
