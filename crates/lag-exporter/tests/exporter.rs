//! The whole exporter against a real broker: known records by rskafka, known commits, exact numbers in a scrape.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use kafka::{
    Client, ClientConfig, CommitMetadata, Consumer, ConsumerConfig, ErrorKind, Offset, PartitionId, TopicPartition,
    TopicSpec,
};
use lag_exporter::{Flags, INFO};
use native::{KafkaOptions, Stack, StackOptions};
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use service::Context;
use tokio::time::Instant;

/// Everything here happens within a few intervals of 250 ms; a machine that is busy with other tests gets more.
const DEADLINE: Duration = Duration::from_secs(30);

/// The broker of all tests but those that stop theirs; its guard stops it when the test process ends.
fn bootstrap() -> String {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| start_kafka("lag-exporter")).kafka.bootstrap()
}

fn start_kafka(name: &str) -> Stack {
    let dir = native::stack_dir(name);
    Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false }).unwrap()
}

fn client() -> Client {
    Client::new(ClientConfig::new(vec![bootstrap()], "exporter-test"))
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// An exporter in this process; stops when dropped.
struct Exporter {
    context: Context,
}

impl Exporter {
    async fn start(brokers: &str, groups: &str, more: &[&str]) -> Self {
        let flags = ["lag-exporter", "--interval", "250ms", "--brokers", brokers, "--groups", groups];
        let flags: Flags = service::parse(&INFO, flags.iter().chain(more)).unwrap();
        let context = service::test_context().await;
        tokio::spawn(lag_exporter::run(flags, context.clone()));
        Self { context }
    }

    fn scrape(&self) -> String {
        self.context.admin.render()
    }

    /// The value of a series, if there is one.
    fn value(&self, series: &str) -> Option<f64> {
        let text = self.scrape();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    fn lag(&self, topic: &str, partition: i32, group: &str) -> Option<f64> {
        self.value(&format!(r#"kafka_consumer_lag{{topic="{topic}",partition="{partition}",group="{group}"}}"#))
    }

    fn seconds(&self, topic: &str, partition: i32, group: &str) -> Option<f64> {
        self.value(&format!(r#"kafka_consumer_lag_seconds{{topic="{topic}",partition="{partition}",group="{group}"}}"#))
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "never came true: {what}\n{}", self.scrape());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

async fn create(name: &str, counts: &[usize]) {
    let partitions = i32::try_from(counts.len()).unwrap();
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: None, settings: vec![] };
    client().create_topic(&spec).await.unwrap();
    for (partition, count) in (0..).zip(counts) {
        produce(name, partition, *count).await;
    }
}

async fn produce(topic: &str, partition: i32, count: usize) {
    let witness = rskafka::client::ClientBuilder::new(vec![bootstrap()]).build().await.unwrap();
    let producer = witness.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
    let timestamp = DateTime::from_timestamp_millis(now_ms()).unwrap();
    let record = Record { key: None, value: Some(b"v".to_vec()), headers: Default::default(), timestamp };
    if count > 0 {
        producer.produce(vec![record; count], Compression::NoCompression).await.unwrap();
    }
}

fn ours(timestamp_ms: i64) -> String {
    CommitMetadata { timestamp_ms }.encode()
}

async fn commit(group: &str, topic: &str, partition: i32, offset: i64, metadata: String) {
    set_position(&client(), group, topic, partition, offset, metadata).await;
}

/// Sets the group's position; retried while a fresh cluster makes its coordinator.
async fn set_position(client: &Client, group: &str, topic: &str, partition: i32, offset: i64, metadata: String) {
    let positions = [(TopicPartition::new(topic, PartitionId(partition)), Offset(offset), metadata)];
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = client.alter_offsets(group, &positions).await {
        assert!(error.kind() == ErrorKind::Transient && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_scrape_shows_what_is_behind_the_commits() {
    create("exact", &[100, 50, 7]).await;
    commit("exact-group", "exact", 0, 40, ours(now_ms() - 3_000)).await;
    commit("exact-group", "exact", 1, 50, ours(now_ms() - 3_000)).await;
    let exporter = Exporter::start(&bootstrap(), "exact-*", &[]).await;
    exporter.until("ready", |exporter| exporter.context.health.is_ready()).await;
    let lag = |partition| exporter.lag("exact", partition, "exact-group");
    assert_eq!((lag(0), lag(1), lag(2)), (Some(60.0), Some(0.0), Some(7.0)));
    let seconds = |partition| exporter.seconds("exact", partition, "exact-group");
    assert!(seconds(0).unwrap() < 60.0, "the record itself was read: {:?}", seconds(0));
    assert_eq!(seconds(1), Some(0.0), "caught up");
    assert!(seconds(2).unwrap() < 60.0, "never committed: the oldest record's age, {:?}", seconds(2));
    assert_eq!(exporter.value(r#"kafka_consumer_group_lag{group="exact-group"}"#), Some(67.0));
    assert_eq!(exporter.value(r#"kafka_consumer_group_lag_max{group="exact-group"}"#), Some(60.0));
    let largest = exporter.value(r#"kafka_consumer_group_lag_seconds_max{group="exact-group"}"#);
    assert!(largest >= seconds(0) && largest >= seconds(2), "{largest:?}");
    assert_eq!(exporter.value("kafka_lag_exporter_up"), Some(1.0));
}

#[tokio::test]
async fn lag_follows_records_and_commits() {
    create("followed", &[10]).await;
    let hour_ago = now_ms() - 3_600_000;
    commit("follower", "followed", 0, 10, ours(hour_ago)).await;
    let exporter = Exporter::start(&bootstrap(), "follower", &[]).await;
    exporter.until("caught up", |exporter| exporter.lag("followed", 0, "follower") == Some(0.0)).await;
    produce("followed", 0, 1).await;
    exporter.until("one behind", |exporter| exporter.lag("followed", 0, "follower") == Some(1.0)).await;
    let seconds = exporter.seconds("followed", 0, "follower").unwrap();
    assert!(seconds < 60.0, "one record after an idle hour is not an hour late: {seconds}");
    commit("follower", "followed", 0, 11, ours(now_ms())).await;
    exporter.until("caught up again", |exporter| exporter.lag("followed", 0, "follower") == Some(0.0)).await;
}

#[tokio::test]
async fn what_is_deleted_vanishes_and_what_is_added_appears() {
    create("shifting", &[5]).await;
    commit("shifter", "shifting", 0, 1, ours(now_ms())).await;
    commit("shifter-too", "shifting", 0, 2, ours(now_ms())).await;
    let exporter = Exporter::start(&bootstrap(), "shifter*", &[]).await;
    exporter.until("lag", |exporter| exporter.lag("shifting", 0, "shifter") == Some(4.0)).await;
    client().create_partitions("shifting", 2).await.unwrap();
    exporter.until("a new partition", |exporter| exporter.lag("shifting", 1, "shifter") == Some(0.0)).await;
    client().delete_group("shifter-too").await.unwrap();
    exporter.until("no deleted group", |exporter| !exporter.scrape().contains(r#"group="shifter-too""#)).await;
    client().delete_topic("shifting").await.unwrap();
    exporter.until("no deleted topic", |exporter| !exporter.scrape().contains(r#"topic="shifting""#)).await;
    assert_eq!(exporter.value("kafka_lag_exporter_up"), Some(1.0));
}

#[tokio::test]
async fn a_group_that_never_ran_lags_by_all_that_the_topic_holds() {
    create("untouched", &[20, 3]).await;
    let exporter = Exporter::start(&bootstrap(), "never-ran", &["--topic", "untouched"]).await;
    exporter.until("ready", |exporter| exporter.context.health.is_ready()).await;
    assert_eq!(exporter.value(r#"kafka_consumer_group_lag{group="never-ran"}"#), Some(23.0));
}

#[tokio::test]
async fn a_group_that_has_joined_and_never_committed_lags_by_all_that_its_topic_holds() {
    create("joined", &[20, 3]).await;
    let exporter = Exporter::start(&bootstrap(), "join*", &[]).await;
    let member = Consumer::join(client(), ConsumerConfig::new("joiner", vec!["joined".into()]));
    let sum = r#"kafka_consumer_group_lag{group="joiner"}"#;
    exporter.until("lag", |exporter| exporter.value(sum) == Some(23.0)).await;
    member.handle.close().await;
}

#[tokio::test]
async fn a_commit_beyond_the_end_is_unknown_and_not_zero() {
    create("again", &[5]).await;
    commit("beyond", "again", 0, 500, ours(now_ms())).await;
    let exporter = Exporter::start(&bootstrap(), "beyond", &[]).await;
    exporter.until("ready", |exporter| exporter.context.health.is_ready()).await;
    assert_eq!(exporter.lag("again", 0, "beyond"), None);
    assert_eq!(exporter.value(r#"kafka_consumer_group_lag{group="beyond"}"#), None);
}

#[tokio::test]
async fn a_group_with_a_strange_name_does_not_break_the_scrape() {
    create("strange", &[1]).await;
    commit("str\"an\\ge", "strange", 0, 0, String::new()).await;
    let exporter = Exporter::start(&bootstrap(), "str*", &[]).await;
    exporter.until("ready", |exporter| exporter.context.health.is_ready()).await;
    assert_eq!(exporter.lag("strange", 0, r#"str\"an\\ge"#), Some(1.0));
    let seconds = exporter.seconds("strange", 0, r#"str\"an\\ge"#).unwrap();
    assert!(seconds < 60.0, "others' commits tell no time, the record itself does: {seconds}");
}

#[tokio::test]
async fn without_kafka_it_says_so_and_withdraws_what_is_stale() {
    let stack = start_kafka("lag-exporter-outage");
    let brokers = stack.kafka.bootstrap();
    stack.kafka.stop();
    let exporter = Exporter::start(&brokers, "*", &["--stale-after", "1s"]).await;
    let failed = "kafka_lag_exporter_failed_collections_total";
    exporter.until("a failed collection", |exporter| exporter.value(failed) > Some(0.0)).await;
    assert!(!exporter.context.health.is_ready());
    // Each of these is told on its own, one after the other.
    exporter.until("up 0", |exporter| exporter.value("kafka_lag_exporter_up") == Some(0.0)).await;

    stack.kafka.start().unwrap();
    exporter.until("ready", |exporter| exporter.context.health.is_ready()).await;
    exporter.until("up 1", |exporter| exporter.value("kafka_lag_exporter_up") == Some(1.0)).await;

    let client = Client::new(ClientConfig::new(vec![brokers], "exporter-test"));
    let spec = TopicSpec { name: "t".to_owned(), partitions: 1, replication: None, settings: vec![] };
    client.create_topic(&spec).await.unwrap();
    set_position(&client, "g", "t", 0, 0, ours(now_ms())).await;
    exporter.until("lag", |exporter| exporter.lag("t", 0, "g") == Some(0.0)).await;
    stack.kafka.kill();
    exporter.until("not ready", |exporter| !exporter.context.health.is_ready()).await;
    exporter.until("no lag rather than 0", |exporter| exporter.lag("t", 0, "g").is_none()).await;
    exporter.until("up 0", |exporter| exporter.value("kafka_lag_exporter_up") == Some(0.0)).await;
    stack.kafka.start().unwrap();
    exporter.until("lag again", |exporter| exporter.lag("t", 0, "g") == Some(0.0)).await;
}
