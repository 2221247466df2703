//! The producer on three brokers, while leaders die: nothing acknowledged is lost, nothing comes twice.

#[path = "support/load.rs"]
mod load;
#[path = "support/paced.rs"]
mod paced;
#[path = "support/witness.rs"]
mod witness;

use std::sync::Arc;

use kafka::{PartitionId, Producer, ProducerConfig, TopicPartition};
use native::{KafkaOptions, Stack, StackOptions};
use paced::{Load, PATIENCE, progress};

const PARTITIONS: i32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn dying_leaders_cost_no_record_and_make_no_duplicate() {
    let start = || {
        let dir = native::stack_dir("kafka-producer-cluster");
        let kafka = Some(KafkaOptions::three());
        Arc::new(Stack::start(StackOptions { dir, kafka, redis: false, postgres: false }).expect("three brokers"))
    };
    let stack = tokio::task::spawn_blocking(start).await.expect("no panic");
    let bootstrap = stack.kafka.bootstrap();
    let client = load::client(&bootstrap);
    load::create(&client, "moving", PARTITIONS, &[("min.insync.replicas", "2")]).await;
    let config = ProducerConfig { delivery_timeout: PATIENCE, ..ProducerConfig::standard() };
    let producer = Producer::new(client.clone(), config);
    load::warm(&producer, "moving").await;
    let load = Load::start(&producer, "moving");
    for partition in 0..2 {
        progress(&producer, 2_000).await;
        let at = TopicPartition::new("moving", PartitionId(partition));
        let leader = client.known_leader(&at).expect("a leader").0;
        let broker = usize::try_from(leader).expect("an id");
        let again = Arc::clone(&stack);
        tokio::task::spawn_blocking(move || again.kafka.broker(broker).kill()).await.expect("no panic");
        progress(&producer, 2_000).await;
        let again = Arc::clone(&stack);
        let start = move || again.kafka.broker(broker).start().expect("the broker again");
        tokio::task::spawn_blocking(start).await.expect("no panic");
    }
    let outcomes = load.stop().await;
    assert_eq!(outcomes.count(Result::is_err), 0);
    outcomes.check(&witness::topic(&bootstrap, "moving", PARTITIONS).await);
}
