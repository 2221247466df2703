//! The producer while its only broker is stopped, killed and frozen: every call ends, what was acknowledged is there
//! once and in order, and "unknown" is told from "certainly not in Kafka".

#[path = "support/load.rs"]
mod load;
#[path = "support/paced.rs"]
mod paced;
#[path = "support/witness.rs"]
mod witness;

use std::sync::Arc;
use std::time::Duration;

use kafka::{Client, ClientConfig, ProduceError, ProducerConfig, RejectReason};
use native::{KafkaOptions, Stack, StackOptions};
use paced::{Load, PATIENCE, progress};
use tokio::sync::Mutex;
use tokio::time::Instant;

const PARTITIONS: i32 = 6;

/// One broker at a time is enough for two cores.
static TURN: Mutex<()> = Mutex::const_new(());

/// A broker of this test's own.
async fn broker(name: &'static str) -> Arc<Stack> {
    let start = move || {
        let dir = native::stack_dir(name);
        let kafka = Some(KafkaOptions::single());
        Stack::start(StackOptions { dir, kafka, redis: false, postgres: false }).expect("a broker")
    };
    Arc::new(tokio::task::spawn_blocking(start).await.expect("no panic"))
}

/// Does to the broker what blocks.
async fn on(stack: &Arc<Stack>, act: impl FnOnce(&Stack) + Send + 'static) {
    let stack = Arc::clone(stack);
    tokio::task::spawn_blocking(move || act(&stack)).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_broker_costs_no_record_and_makes_no_duplicate() {
    let _turn = TURN.lock().await;
    let stack = broker("kafka-producer-restart").await;
    let bootstrap = stack.kafka.bootstrap();
    let config = ProducerConfig { delivery_timeout: PATIENCE, ..ProducerConfig::standard() };
    let producer = load::producer(&load::client(&bootstrap), "restart", PARTITIONS, config).await;
    let load = Load::start(&producer, "restart");
    progress(&producer, 1_000).await;
    for kill in [false, true] {
        on(&stack, move |stack| if kill { stack.kafka.kill() } else { stack.kafka.stop() }).await;
        on(&stack, |stack| stack.kafka.start().expect("the broker again")).await;
        progress(&producer, 1_000).await;
    }
    let outcomes = load.stop().await;
    assert_eq!(outcomes.count(Result::is_err), 0);
    assert!(producer.stats().retries > 0, "the restarts met the load");
    outcomes.check(&witness::topic(&bootstrap, "restart", PARTITIONS).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_delivery_timeout_is_told_record_by_record() {
    let _turn = TURN.lock().await;
    let stack = broker("kafka-producer-outage").await;
    let bootstrap = stack.kafka.bootstrap();
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(2), ..ProducerConfig::standard() };
    let producer = load::producer(&load::client(&bootstrap), "outage", PARTITIONS, config).await;
    let load = Load::start(&producer, "outage");
    for _ in 0..3 {
        progress(&producer, 1_000).await;
        on(&stack, |stack| stack.kafka.kill()).await;
        let failed = producer.stats().failed;
        while producer.stats().failed < failed + 1_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        on(&stack, |stack| stack.kafka.start().expect("the broker again")).await;
    }
    progress(&producer, 1_000).await;
    let outcomes = load.stop().await;
    assert!(outcomes.count(|outcome| *outcome == Err(ProduceError::Unavailable)) > 0);
    assert_eq!(
        outcomes.count(|outcome| matches!(outcome, Err(ProduceError::Refused { .. } | ProduceError::Closed))),
        0
    );
    outcomes.check(&witness::topic(&bootstrap, "outage", PARTITIONS).await);
}

/// The requests that a frozen broker has not read yet reach it when it thaws, long after their callers were told
/// "unknown": they must not come behind records that were sent later.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_outlive_their_callers_disturb_nobody() {
    let _turn = TURN.lock().await;
    let stack = broker("kafka-producer-frozen").await;
    let bootstrap = stack.kafka.bootstrap();
    let mut client = ClientConfig::new(vec![bootstrap.clone()], "producer-test");
    client.request_timeout = Duration::from_secs(1);
    client.connect_timeout = Duration::from_secs(1);
    let config = ProducerConfig {
        delivery_timeout: Duration::from_secs(2),
        buffer_bytes: 256 * 1024,
        ..ProducerConfig::standard()
    };
    let producer = load::producer(&Client::new(client), "frozen", PARTITIONS, config).await;
    let load = Load::start(&producer, "frozen");
    for _ in 0..2 {
        progress(&producer, 1_000).await;
        on(&stack, |stack| stack.kafka.freeze()).await;
        let failed = producer.stats().failed;
        while producer.stats().failed < failed + 1_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        on(&stack, |stack| stack.kafka.thaw()).await;
    }
    progress(&producer, 1_000).await;
    let outcomes = load.stop().await;
    assert!(outcomes.count(|outcome| *outcome == Err(ProduceError::TimedOut)) > 0);
    assert!(outcomes.count(|outcome| *outcome == Err(ProduceError::Unavailable)) > 0);
    outcomes.check(&witness::topic(&bootstrap, "frozen", PARTITIONS).await);
    assert!(epochs(&stack, "frozen").await.contains("producerEpoch: 1"), "doubt has ended an epoch");
}

/// Kafka's own view of the batches in a topic.
async fn epochs(stack: &Arc<Stack>, topic: &'static str) -> String {
    let stack = Arc::clone(stack);
    let dump = move || {
        let data = native::stack_dir("kafka-producer-frozen").join("kafka-1/data");
        let log = |partition| format!("{}/{topic}-{partition}/00000000000000000000.log", data.display());
        let files = (0..PARTITIONS).map(log).collect::<Vec<_>>().join(",");
        stack.kafka.tool("kafka.tools.DumpLogSegments", &["--files", &files], "").expect("a dump")
    };
    tokio::task::spawn_blocking(dump).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_hands_the_record_back_and_every_call_ends_in_time() {
    let _turn = TURN.lock().await;
    let stack = broker("kafka-producer-full").await;
    let bootstrap = stack.kafka.bootstrap();
    let limit = Duration::from_secs(2);
    let config = ProducerConfig { buffer_bytes: 100_000, delivery_timeout: limit, ..ProducerConfig::standard() };
    let producer = load::producer(&load::client(&bootstrap), "full", PARTITIONS, config).await;
    on(&stack, |stack| stack.kafka.freeze()).await;
    let (topic, started) = ("full".into(), Instant::now());
    let mut deliveries = Vec::new();
    let rejected = loop {
        let number = u32::try_from(deliveries.len()).expect("not so many");
        match producer.enqueue(load::record(&topic, "driver", number)) {
            Ok(delivery) => deliveries.push(delivery),
            Err(rejected) => break rejected,
        }
    };
    assert_eq!(rejected.reason, RejectReason::BufferFull);
    assert_eq!(*rejected.record, load::record(&topic, "driver", u32::try_from(deliveries.len()).expect("as before")));
    for delivery in deliveries {
        let outcome = tokio::time::timeout(limit * 3, delivery).await.expect("every call ends");
        assert!(matches!(outcome, Err(ProduceError::TimedOut | ProduceError::Unavailable)), "{outcome:?}");
    }
    assert!(started.elapsed() < limit * 3);
    on(&stack, |stack| stack.kafka.thaw()).await;
    let again = producer.send(*rejected.record).await.expect("room again");
    again.await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_in_time_while_the_broker_is_away() {
    let _turn = TURN.lock().await;
    let stack = broker("kafka-producer-close").await;
    let bootstrap = stack.kafka.bootstrap();
    let producer = load::producer(&load::client(&bootstrap), "close", PARTITIONS, ProducerConfig::standard()).await;
    on(&stack, |stack| stack.kafka.kill()).await;
    let delivery = producer.enqueue(load::record(&"close".into(), "driver", 0)).expect("room");
    let started = Instant::now();
    producer.close(Duration::from_secs(1)).await;
    assert!(started.elapsed() < Duration::from_secs(3));
    let outcome = delivery.await;
    assert!(matches!(outcome, Err(ProduceError::Closed | ProduceError::TimedOut)), "{outcome:?}");
}
