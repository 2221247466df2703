//! Three brokers (replication 3, two in sync) under a steady load of producing and consuming: a leader is killed, another
//! is frozen, the group's coordinator is killed, every broker is restarted. Nothing acknowledged is lost, every record is
//! processed, in order, by one member at a time.

use std::sync::Arc;
use std::time::Duration;

use kafka::{Client, Producer, ProducerConfig};
use native::{KafkaOptions, Stack};

use crate::crew::Hand;
use crate::member::MemberOptions;
use crate::paced::{Load, Shape};
use crate::support::{self, eventually, on};
use crate::{load, tenure, witness};

const TOPIC: &str = "worst-day";
const PARTITIONS: i32 = 12;
const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// 1,000 records a second over all partitions.
const SHAPE: Shape = Shape { keys: 120, every: Duration::from_millis(120) };

/// Longer than the test: nobody waits for a broker that the cluster has given up.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(10);

/// A dead broker is fenced after half the time that this crate's brokers have by default: half the time to wait.
fn brokers() -> KafkaOptions {
    KafkaOptions::three().set("broker.session.timeout.ms", 3_000).set("broker.heartbeat.interval.ms", 500)
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_and_restarting_brokers_cost_no_record_and_no_order() {
    let _turn = support::turn().await;
    let stack = support::start("kafka-worst-day", brokers()).await;
    let bootstrap = stack.kafka.bootstrap();
    let client = load::client(&bootstrap);
    load::create(&client, TOPIC, PARTITIONS, &[("min.insync.replicas", "2")]).await;
    let config = ProducerConfig { delivery_timeout: support::DEADLINE, ..ProducerConfig::standard() };
    let mut patient = client.config().clone();
    patient.request_timeout = REQUEST_TIMEOUT;
    let producer = Producer::new(Client::new(patient), config);
    load::warm(&producer, TOPIC).await;
    let load = Load::start_as(SHAPE, &producer, TOPIC);
    let member = |n| MemberOptions {
        request_timeout: REQUEST_TIMEOUT,
        ..MemberOptions::new(&bootstrap, TOPIC, &format!("member-{n}"))
    };
    let mut hands: Vec<Hand> = (0..3).map(|n| Hand::task(member(n))).collect();
    support::progress(&hands, PARTITIONS, 20).await;

    kill_and_start_again(&stack, leader(&client).await, &hands).await;
    in_sync(&client).await;
    let frozen = usize::try_from(leader(&client).await).unwrap();
    on(&stack, move |stack| stack.kafka.broker(frozen).freeze()).await;
    support::progress(&hands, PARTITIONS, 20).await;
    on(&stack, move |stack| stack.kafka.broker(frozen).thaw()).await;
    in_sync(&client).await;
    let coordinator = coordinator(&client, "worst-day-group").await;
    kill_and_start_again(&stack, coordinator, &hands).await;
    for broker in stack.kafka.brokers().iter().map(native::Broker::id) {
        in_sync(&client).await;
        on(&stack, move |stack| stack.kafka.broker(broker).stop()).await;
        support::progress(&hands, PARTITIONS, 20).await;
        on(&stack, move |stack| stack.kafka.broker(broker).start().unwrap()).await;
    }
    in_sync(&client).await;

    let outcomes = load.stop().await;
    assert_eq!(outcomes.count(Result::is_err), 0, "the delivery time-out outlasts every fault");
    outcomes.check(&witness::topic(&bootstrap, TOPIC, PARTITIONS).await);
    let ends = support::ends(&client, TOPIC).await;
    support::processed(&hands, &ends).await;
    for hand in &mut hands {
        hand.leave().await;
    }
    let tenures = support::tenures(&hands);
    tenure::check_one_owner(&tenures);
    let again = tenure::check_every_record(&tenures, &ends);
    println!("{} records, {again} processed again", ends.values().sum::<i64>());
    assert_eq!(support::committed(&client, "worst-day-group").await, ends, "who leaves has committed");
}

/// The broker is killed; every partition goes on without it; it comes back.
async fn kill_and_start_again(stack: &Arc<Stack>, broker: i32, hands: &[Hand]) {
    let broker = usize::try_from(broker).unwrap();
    on(stack, move |stack| stack.kafka.broker(broker).kill()).await;
    support::progress(hands, PARTITIONS, 20).await;
    on(stack, move |stack| stack.kafka.broker(broker).start().unwrap()).await;
}

/// Returns once every replica of the records and of the groups' offsets is in sync: the next fault may come.
async fn in_sync(client: &Client) {
    eventually("all replicas are in sync", async || {
        let topics = client.topics(&[TOPIC, OFFSETS_TOPIC]).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        let complete = topics.iter().flat_map(|topic| &topic.partitions).all(|partition| partition.in_sync == 3);
        Ok(complete.then_some(()))
    })
    .await;
}

/// The broker that leads the first partition.
async fn leader(client: &Client) -> i32 {
    eventually("a leader", async || Ok(client.topic(TOPIC).await?.partitions[0].leader.map(|leader| leader.0))).await
}

/// The broker that leads the group's partition of the offsets topic.
async fn coordinator(client: &Client, group: &str) -> i32 {
    eventually("a coordinator", async || {
        let topic = client.topic(OFFSETS_TOPIC).await?;
        let partition = partition_of_group(group, topic.partition_count());
        Ok(topic.partitions[partition].leader.map(|leader| leader.0))
    })
    .await
}

/// `Utils.abs(group.hashCode()) % partitions`, as Kafka's `GroupMetadataManager` has it.
fn partition_of_group(group: &str, partitions: i32) -> usize {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    usize::try_from(hash.checked_abs().unwrap_or(0) % partitions).unwrap()
}
