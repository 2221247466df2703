//! The Kafka of these tests, an ingest on it, and the witness.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use event::DriverLocation;
use location_ingest::{Args, Error, INFO, Ingest};
use native::{KafkaOptions, Stack, StackOptions};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use service::Context;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

/// Longest wait for anything that is sure to come.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Few, so that the witness is quick.
pub(crate) const PARTITIONS: i32 = 3;

fn start(name: &str) -> Stack {
    let dir = native::stack_dir(&format!("location-ingest-{name}"));
    let options = StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false };
    Stack::start(options).expect("a Kafka for the tests")
}

/// The address of a broker that all tests share and none disturbs.
pub(crate) async fn bootstrap() -> String {
    static STACK: OnceLock<Stack> = OnceLock::new();
    let stack = tokio::task::spawn_blocking(|| STACK.get_or_init(|| start("shared"))).await.unwrap();
    stack.kafka.bootstrap()
}

/// A broker of one test's own for the time being, to be stopped and frozen.
pub(crate) async fn disturbable() -> MutexGuard<'static, Stack> {
    static STACK: OnceLock<Mutex<Stack>> = OnceLock::new();
    let stack = tokio::task::spawn_blocking(|| STACK.get_or_init(|| Mutex::new(start("faults")))).await.unwrap();
    stack.lock().await
}

/// An ingest in this process.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) context: Context,
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Started with `flags` on `bootstrap`, not necessarily ready.
    pub(crate) async fn start(bootstrap: &str, topic: &str, flags: &[&str]) -> Self {
        let partitions = format!("--topic-partitions={PARTITIONS}");
        let own = flags.iter().any(|flag| flag.starts_with("--topic-partitions"));
        let default = if own { &[][..] } else { &[partitions.as_str()] };
        let common = ["location-ingest", "--listen=127.0.0.1:0", "--brokers", bootstrap, "--topic", topic];
        let args: Args = service::parse(&INFO, [&common[..], default, flags].concat()).unwrap();
        let context = service::test_context().await;
        let ingest = Ingest::bind(args, context.clone()).await.unwrap();
        let address = ingest.local_addr();
        let task = tokio::spawn(ingest.serve());
        Self { address, context, bootstrap: bootstrap.to_owned(), topic: topic.to_owned(), task }
    }

    /// Started on the shared broker, and ready.
    pub(crate) async fn ready(topic: &str, flags: &[&str]) -> Self {
        let running = Self::start(&bootstrap().await, topic, flags).await;
        running.until_ready(true).await;
        running
    }

    /// Waits until the readiness is as wanted.
    pub(crate) async fn until_ready(&self, wanted: bool) {
        let changed = async {
            while self.context.health.is_ready() != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, changed).await.unwrap_or_else(|_| panic!("not ready={wanted} within the limit"));
    }

    /// Shuts down and gives the outcome of the service.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.context.shutdown.cancel();
        self.ended().await
    }

    /// The outcome of a service that ends by itself.
    pub(crate) async fn ended(self) -> Result<(), Error> {
        tokio::time::timeout(LIMIT, self.task).await.expect("the service ends").unwrap()
    }

    /// The value of a counter of this process.
    pub(crate) fn counter(&self, series: &str) -> u64 {
        let text = self.context.admin.render();
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("{series} is not in:\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Everything in the topic.
    pub(crate) async fn events(&self) -> Vec<Event> {
        events(&self.bootstrap, &self.topic).await
    }
}

/// A record as the witness reads it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) record_time_ms: i64,
    pub(crate) location: DriverLocation,
}

/// Everything in a topic of [`PARTITIONS`] partitions.
pub(crate) async fn events(bootstrap: &str, topic: &str) -> Vec<Event> {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build().await.unwrap();
    let mut events = Vec::new();
    for partition in 0..PARTITIONS {
        let reader = client.partition_client(topic, partition, UnknownTopicHandling::Error).await.unwrap();
        let end = reader.get_offset(OffsetAt::Latest).await.unwrap();
        let mut next = 0;
        while next < end {
            let (records, _) = reader.fetch_records(next, 1..1_000_000, 1_000).await.unwrap();
            for record in records {
                next = record.offset + 1;
                let record_time_ms = record.record.timestamp.timestamp_millis();
                let value = record.record.value.unwrap();
                let location = DriverLocation::decode(&value, record_time_ms).unwrap();
                let key = String::from_utf8(record.record.key.unwrap()).unwrap();
                events.push(Event { partition, key, record_time_ms, location });
            }
        }
    }
    events
}

/// The events of each driver by their own timestamps, in the order of the log.
pub(crate) fn by_driver(events: &[Event]) -> BTreeMap<&str, Vec<i64>> {
    let mut drivers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for event in events {
        drivers.entry(&event.key).or_default().push(event.location.timestamp_ms);
    }
    drivers
}
