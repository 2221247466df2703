//! A broker, an exporter in this process, and a producer that knows when it put which record.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use kafka::{Client, ClientConfig, CommitMetadata, ErrorKind, Offset, PartitionId, TopicPartition, TopicSpec};
use lag_exporter::{Flags, INFO};
use native::{KafkaOptions, Stack, StackOptions};
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use service::Context;
use tokio::time::Instant;

/// Far more than any step takes, on a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const INTERVAL: &str = "250ms";

/// The broker of all tests but those that stop theirs; its guard stops it when the test process ends.
pub(crate) fn bootstrap() -> String {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| start_kafka("lag-exporter-truth")).kafka.bootstrap()
}

pub(crate) fn start_kafka(name: &str) -> Stack {
    let dir = native::stack_dir(name);
    Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false }).unwrap()
}

pub(crate) fn client(brokers: &str) -> Client {
    Client::new(ClientConfig::new(vec![brokers.to_owned()], "truth"))
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

pub(crate) async fn create(brokers: &str, topic: &str, partitions: i32) {
    let spec = TopicSpec { name: topic.to_owned(), partitions, replication: None, settings: vec![] };
    let deadline = Instant::now() + DEADLINE;
    // A topic that was just deleted is there for a moment longer.
    while client(brokers).create_topic(&spec).await.unwrap() == kafka::Created::AlreadyExists {
        assert!(Instant::now() < deadline, "{topic} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One partition that records are put into, and when each was.
pub(crate) struct Timeline {
    partition: PartitionClient,
    put_at_ms: Vec<i64>,
}

impl Timeline {
    pub(crate) async fn of(brokers: &str, topic: &str, partition: i32) -> Self {
        let witness = rskafka::client::ClientBuilder::new(vec![brokers.to_owned()]).build().await.unwrap();
        let partition = witness.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        Self { partition, put_at_ms: Vec::new() }
    }

    /// Puts `count` records, with the time of now.
    pub(crate) async fn put(&mut self, count: usize) {
        let now_ms = now_ms();
        let timestamp = DateTime::from_timestamp_millis(now_ms).unwrap();
        let record = Record { key: None, value: Some(b"v".to_vec()), headers: Default::default(), timestamp };
        self.partition.produce(vec![record; count], Compression::NoCompression).await.unwrap();
        self.put_at_ms.extend(std::iter::repeat_n(now_ms, count));
    }

    pub(crate) fn end(&self) -> i64 {
        i64::try_from(self.put_at_ms.len()).unwrap()
    }

    /// When the record at `offset` was put.
    pub(crate) fn at_ms(&self, offset: i64) -> i64 {
        self.put_at_ms[usize::try_from(offset).unwrap()]
    }
}

/// Metadata of our commits at `offset`: the time of the record before it.
pub(crate) fn ours(timeline: &Timeline, offset: i64) -> String {
    CommitMetadata { timestamp_ms: timeline.at_ms(offset - 1) }.encode()
}

/// Sets the group's position; retried while a fresh cluster makes its coordinator.
pub(crate) async fn commit(brokers: &str, group: &str, topic: &str, partition: i32, offset: i64, metadata: String) {
    let positions = [(TopicPartition::new(topic, PartitionId(partition)), Offset(offset), metadata)];
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = client(brokers).alter_offsets(group, &positions).await {
        assert!(error.kind() == ErrorKind::Transient && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An exporter in this process; stops when dropped.
pub(crate) struct Exporter {
    pub(crate) context: Context,
}

impl Exporter {
    pub(crate) async fn start(brokers: &str, groups: &str, more: &[&str]) -> Self {
        let flags = ["lag-exporter", "--interval", INTERVAL, "--brokers", brokers, "--groups", groups];
        let flags: Flags = service::parse(&INFO, flags.iter().chain(more)).unwrap();
        let context = service::test_context().await;
        tokio::spawn(lag_exporter::run(flags, context.clone()));
        Self { context }
    }

    pub(crate) fn scrape(&self) -> Scrape {
        Scrape { text: self.context.admin.render(), taken_at_ms: now_ms() }
    }

    /// The first scrape of which `met` holds.
    pub(crate) async fn until(&self, what: &str, met: impl Fn(&Scrape) -> bool) -> Scrape {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let scrape = self.scrape();
            if met(&scrape) {
                return scrape;
            }
            assert!(Instant::now() < deadline, "never came true: {what}\n{}", scrape.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the group lags by `records` on the partition, and by the time since `since_ms` (0 for `None`), as
    /// exactly as `slack_s`.
    pub(crate) async fn shows(&self, place: (&str, i32, &str), records: i64, since_ms: Option<i64>, slack_s: f64) {
        let (topic, partition, group) = place;
        self.until(&format!("{group} lags by {records} since {since_ms:?}"), |scrape| {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let (wanted, seen) = (records as f64, scrape.lag(topic, partition, group));
            let sampled_ms = scrape.sampled_at_ms();
            let truth = since_ms.map_or(0.0, |since_ms| seconds(sampled_ms - since_ms));
            let seconds = scrape.seconds(topic, partition, group);
            seen == Some(wanted) && seconds.is_some_and(|seconds| (seconds - truth).abs() <= slack_s)
        })
        .await;
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

/// What a scrape showed.
pub(crate) struct Scrape {
    pub(crate) text: String,
    taken_at_ms: i64,
}

impl Scrape {
    /// The value of a series, if there is one.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let line = self.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    pub(crate) fn lag(&self, topic: &str, partition: i32, group: &str) -> Option<f64> {
        self.pair("kafka_consumer_lag", topic, partition, group)
    }

    pub(crate) fn seconds(&self, topic: &str, partition: i32, group: &str) -> Option<f64> {
        self.pair("kafka_consumer_lag_seconds", topic, partition, group)
    }

    pub(crate) fn pair(&self, name: &str, topic: &str, partition: i32, group: &str) -> Option<f64> {
        self.value(&format!(r#"{name}{{topic="{topic}",partition="{partition}",group="{group}"}}"#))
    }

    pub(crate) fn group(&self, name: &str, group: &str) -> Option<f64> {
        self.value(&format!(r#"{name}{{group="{group}"}}"#))
    }

    pub(crate) fn verdict(&self, group: &str, verdict: &str) -> bool {
        self.value(&format!(r#"kafka_consumer_group_verdict{{group="{group}",verdict="{verdict}"}}"#)) == Some(1.0)
    }

    pub(crate) fn mentions(&self, label: &str, value: &str) -> bool {
        self.text.contains(&format!("{label}=\"{value}\""))
    }

    /// When the collection began that this scrape shows.
    fn sampled_at_ms(&self) -> i64 {
        let age = self.value("kafka_lag_exporter_sample_age_seconds").unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a test")]
        let age_ms = (age * 1_000.0) as i64;
        self.taken_at_ms - age_ms
    }
}

#[expect(clippy::cast_precision_loss, reason = "ms of a test")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}
