//! Retention was faster than a group: the pipeline goes on where the log begins, counts what it lost, and says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka::topics::{Mode, Plan};
use kafka::{
    ClassicConfig, Client, ClientConfig, GroupProtocol, Offset, OutRecord, PartitionId, Producer, ProducerConfig,
    TopicPartition, TopicSpec,
};
use native::{KafkaOptions, Stack, StackOptions};
use pipeline::{Batch, Membership, Policy, Settings, Sink, WriteError, Written};
use tokio::time::Instant;

const TOPIC: &str = "worn";
const GROUP: &str = "worn-group";
/// Where the group stands.
const POSITION: Offset = Offset(5);
/// Where the log begins, when the group comes back.
const BEGIN: Offset = Offset(20);
const END: i64 = 30;
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the offsets of what it gets, and says that it stands at [`POSITION`].
#[derive(Default)]
struct KeepingSink(Mutex<Vec<i64>>);

impl Sink for KeepingSink {
    type Event = ();

    const KEEPS_OFFSETS: bool = true;

    async fn write(&self, batch: &Batch<()>) -> Result<Written, WriteError> {
        self.0.lock().unwrap().extend(batch.items().map(|item| item.offset.0));
        Ok(Written::default())
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, WriteError> {
        Ok(partitions.iter().map(|partition| (partition.clone(), POSITION)).collect())
    }

    async fn probe(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(bootstrap: &str) -> Settings {
    Settings {
        service: "retention-test",
        version: "0",
        kafka: ClientConfig::new(vec![bootstrap.to_owned()], "retention-test"),
        topic: Arc::from(TOPIC),
        dead_letter_topic: None,
        topic_create: Mode::Off,
        topics: Plan { topic: TOPIC.to_owned(), dead_letter_topic: None, partitions: 1 },
        pause_above: 1_000,
        resume_below: 100,
        buffer_bytes: 1 << 20,
        membership: Membership { protocol: GroupProtocol::Classic(ClassicConfig::default()), instance_id: None },
        commit_interval: Duration::from_millis(50),
        dead_letter_max_share: None,
        policy: Policy {
            group: GROUP.to_owned(),
            batch_max: 100,
            batch_bytes: 1 << 20,
            linger_max: Duration::from_millis(10),
            writers: 1,
            fetch_min_bytes: 1,
            freshness: None,
        },
    }
}

/// A log from which everything before [`BEGIN`] is gone.
async fn worn_log(client: &Client) {
    let spec = TopicSpec { name: TOPIC.to_owned(), partitions: 1, replication: None, settings: vec![] };
    client.create_topic(&spec).await.unwrap();
    let partition = TopicPartition::new(TOPIC, PartitionId(0));
    let deadline = Instant::now() + PATIENCE;
    while client.topic(TOPIC).await.is_err() {
        assert!(Instant::now() < deadline, "the topic does not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let producer = Producer::new(client.clone(), ProducerConfig::standard());
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let timestamp_ms = i64::try_from(since_epoch.as_millis()).unwrap();
    for number in 0..END {
        let value = Some(number.to_string().into());
        let topic = Arc::clone(&partition.topic);
        let record =
            OutRecord { topic, partition: Some(partition.partition), key: None, value, headers: vec![], timestamp_ms };
        producer.send(record).await.unwrap().await.unwrap();
    }
    assert_eq!(client.delete_records(&partition, BEGIN).await.unwrap(), BEGIN);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_counted_and_logged_and_the_rest_is_written() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    subscriber.init();
    let dir = native::stack_dir("pipeline-retention");
    let options = StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false };
    let stack = Stack::start(options).unwrap();
    let settings = settings(&stack.kafka.bootstrap());
    worn_log(&Client::new(settings.kafka.clone())).await;

    let (context, sink) = (service::test_context().await, Arc::new(KeepingSink::default()));
    let running = tokio::spawn(pipeline::run(settings, |_| Ok(()), Arc::clone(&sink), context.clone()));
    let expected: Vec<i64> = (BEGIN.0..END).collect();
    let deadline = Instant::now() + PATIENCE;
    while *sink.0.lock().unwrap() != expected {
        assert!(Instant::now() < deadline, "{:?}", sink.0.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    context.shutdown.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();

    let metrics = context.admin.render();
    for line in [
        "pipeline_records_lost_to_retention_total{group=\"worn-group\"} 15",
        "pipeline_records_total{group=\"worn-group\",outcome=\"lost_to_retention\"} 15",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let logged = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    let told = logged.lines().find(|line| line.contains("the log does not hold the position any more"));
    let told = told.unwrap_or_else(|| panic!("nothing was said:\n{logged}"));
    for part in ["ERROR", "partition=worn-0", "from=5", "to=20", "lost=15"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}
