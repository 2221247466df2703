//! One broker for all tests; each test has a topic and a dead letter topic of its own.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use event::{DriverId, DriverLocation};
use kafka::topics::{self, Mode, Plan};
use kafka::{
    Client, ClientConfig, DeadLetter, DeadLetterConfig, DeadLetterPublisher, Offset, OffsetSpec, PartitionId, Producer,
    ProducerConfig, TimestampType, TopicPartition,
};
use native::{KafkaOptions, Listener, Protocol, Stack, StackOptions};
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::record::{Record, RecordAndOffset};

/// A bound for a condition on a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const PARTITIONS: i32 = 3;
/// The time of the first original, ms since the epoch.
pub(crate) const TIME: i64 = 1_795_441_689_633;
/// May do nothing.
pub(crate) const NOBODY: (&str, &str) = ("nobody", "nobody-secret");

pub(crate) fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| {
        let options = KafkaOptions::single()
            .set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            // Who comes without a name is the broker itself, or a client of the listener that asks for none.
            .set("super.users", "User:ANONYMOUS")
            .user(NOBODY.0, NOBODY.1)
            .listener(Listener::new("SASL", Protocol::SaslPlaintext));
        let dir = native::stack_dir("dlt-monitor-commands");
        Stack::start(StackOptions { dir, kafka: Some(options), redis: false, postgres: false }).unwrap()
    })
}

pub(crate) fn bootstrap() -> String {
    stack().kafka.bootstrap()
}

pub(crate) fn client() -> Client {
    Client::new(ClientConfig::new(vec![bootstrap()], "commands-test"))
}

/// A topic with its dead letter topic.
pub(crate) struct World {
    pub(crate) topic: String,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// The one line that says why not.
    #[track_caller]
    pub(crate) fn refusal(&self, code: i32) -> &str {
        let lines: Vec<_> = self.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        assert!(self.code == code && lines.len() == 1, "{self:?}");
        lines[0]
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl World {
    pub(crate) async fn new(topic: &str) -> Self {
        // A server is started in here, which blocks for seconds.
        tokio::task::spawn_blocking(stack).await.unwrap();
        let plan = Plan {
            topic: topic.to_owned(),
            partitions: PARTITIONS,
            dead_letter_topic: Some(topics::dead_letter_topic(topic)),
        };
        topics::ensure(&client(), Mode::Auto, &plan).await.unwrap();
        Self { topic: topic.to_owned() }
    }

    pub(crate) fn dead_letter_topic(&self) -> String {
        topics::dead_letter_topic(&self.topic)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dlt-monitor"));
        command.args(["--brokers", &bootstrap(), "--topic", &self.topic]).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; nobody is there to be asked.
    pub(crate) async fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args)).await
    }

    /// Runs a command and insists that it succeeds; returns what it printed.
    pub(crate) async fn done(&self, args: &[&str]) -> String {
        let done = self.run(args).await;
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done.stdout
    }

    /// The end report of a redrive.
    pub(crate) async fn redrive(&self, args: &[&str]) -> serde_json::Value {
        self.run(&[&["redrive", "--yes", "--output", "json"], args].concat()).await.json()
    }

    /// Starts a command that goes on for a while.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running(Some(child))
    }

    /// Publishes a letter of `group` about each original.
    pub(crate) async fn publish(
        &self,
        group: &str,
        originals: impl IntoIterator<Item = (PartitionId, kafka::Record, &'static str)>,
    ) {
        let client = client();
        let config = DeadLetterConfig {
            topic: Arc::from(self.dead_letter_topic()),
            group: group.to_owned(),
            service: "test".to_owned(),
            version: "9.9".to_owned(),
        };
        let publisher = DeadLetterPublisher::new(Producer::new(client, ProducerConfig::standard()), config);
        publisher.warm().await.unwrap();
        let mut under_way = Vec::new();
        for (partition, record, reason) in originals {
            let source = TopicPartition::new(self.topic.as_str(), partition);
            let letter = DeadLetter { source, record, reason, detail: format!("it is {reason}"), attempts: 1 };
            under_way.push(publisher.publish(&letter).unwrap());
        }
        for delivery in under_way {
            delivery.await.unwrap();
        }
    }

    /// What is in a topic, as rskafka reads it.
    pub(crate) async fn read(&self, topic: &str) -> Vec<(i32, RecordAndOffset)> {
        let witness = rskafka::client::ClientBuilder::new(vec![bootstrap()]).build().await.unwrap();
        let mut found = Vec::new();
        for partition in 0..PARTITIONS {
            let reader = witness.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
            let end = reader.get_offset(OffsetAt::Latest).await.unwrap();
            let mut next = reader.get_offset(OffsetAt::Earliest).await.unwrap();
            while next < end {
                let (records, _) = reader.fetch_records(next, 1..4_000_000, 500).await.unwrap();
                next = records.last().map_or(next, |last| last.offset + 1);
                found.extend(records.into_iter().map(|record| (partition, record)));
            }
        }
        found
    }

    /// What came back.
    pub(crate) async fn back(&self) -> Vec<(i32, RecordAndOffset)> {
        self.read(&self.topic).await
    }

    /// Records of a topic, by the ends of its partitions.
    pub(crate) async fn count(&self, topic: &str) -> i64 {
        let partitions: Vec<_> =
            (0..PARTITIONS).map(|number| TopicPartition::new(topic, PartitionId(number))).collect();
        let ends = client().list_offsets(&partitions, OffsetSpec::Latest).await.unwrap();
        ends.into_iter().map(|(_, end)| end.unwrap().offset.0).sum()
    }

    /// Puts a record into the dead letter topic, as anybody may.
    pub(crate) async fn put(
        &self,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
        headers: BTreeMap<String, Vec<u8>>,
    ) {
        let witness = rskafka::client::ClientBuilder::new(vec![bootstrap()]).build().await.unwrap();
        let topic = self.dead_letter_topic();
        let producer = witness.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        let timestamp = DateTime::from_timestamp_millis(TIME).unwrap();
        let record = Record { key: Some(key.to_vec()), value: value.map(<[u8]>::to_vec), headers, timestamp };
        producer.produce(vec![record], Compression::NoCompression).await.unwrap();
    }
}

/// A command under way; dropping it kills it.
pub(crate) struct Running(Option<Child>);

impl Running {
    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub(crate) async fn end(mut self) -> Done {
        let child = self.0.take().unwrap();
        done(tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}

pub(crate) async fn finish(mut command: Command) -> Done {
    done(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

fn done(Output { status, stdout, stderr }: Output) -> Done {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
}

/// Waits until a condition is met.
pub(crate) async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !met().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An original: a good position of driver `n` in partition `n` % 3 that lay at offset `n`.
pub(crate) fn original(number: i32) -> (PartitionId, kafka::Record) {
    let driver = format!("driver-secret-{number}");
    let at_ms = TIME + i64::from(number);
    let location = DriverLocation {
        driver_id: DriverId::try_from(driver.as_str()).unwrap(),
        latitude: 40.7128,
        longitude: -74.006,
        heading: None,
        speed: None,
        timestamp_ms: at_ms,
        received_at_ms: at_ms,
        effective_at_ms: at_ms,
    };
    let record = kafka::Record {
        offset: Offset(i64::from(number)),
        timestamp_ms: at_ms,
        timestamp_type: TimestampType::CreateTime,
        key: Some(Bytes::from(driver)),
        value: Some(location.encode()),
        headers: vec![("trace".to_owned(), Some(Bytes::from(number.to_string())))],
    };
    (PartitionId(number % PARTITIONS), record)
}

/// Letters about the originals of these numbers.
pub(crate) fn about(
    numbers: std::ops::Range<i32>,
    reason: &'static str,
) -> impl Iterator<Item = (PartitionId, kafka::Record, &'static str)> {
    numbers.map(move |number| {
        let (partition, record) = original(number);
        (partition, record, reason)
    })
}

pub(crate) fn header<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
    record.headers.get(name).and_then(|value| std::str::from_utf8(value).ok())
}

/// Which originals are there, and how often.
pub(crate) fn traces(found: &[(i32, RecordAndOffset)]) -> BTreeMap<i32, usize> {
    let mut traces = BTreeMap::new();
    for (_, record) in found {
        *traces.entry(header(&record.record, "trace").unwrap().parse().unwrap()).or_default() += 1;
    }
    traces
}
