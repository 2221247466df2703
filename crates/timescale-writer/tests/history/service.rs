//! The whole service in this process, between a real Kafka and a real PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use ::service::{Context, Stop, parse, test_context};
use event::DriverLocation;
use kafka::{Client, ClientConfig, OutRecord, PartitionId, Producer, ProducerConfig};
use native::{Launch, Process};
use timescale_writer::{Config, Error, INFO, run};
use tokio::task::JoinHandle;

use crate::world::{self, KAFKA, NOW, World, nth, until};

pub(crate) const PARTITIONS: i32 = 4;
const RECORDS: i64 = 20_000;

/// The service in this process, on the shared broker, with a topic called like the database.
pub(crate) struct Running {
    pub(crate) context: Context,
    service: JoinHandle<Result<(), Error>>,
}

impl Running {
    pub(crate) async fn start(world: &World, flags: &[&str]) -> Self {
        Self::with(&world.name, &world.url, flags).await
    }

    pub(crate) async fn with(topic: &str, url: &str, flags: &[&str]) -> Self {
        let config = config(topic, url, flags);
        let context = test_context().await;
        let service = tokio::spawn(run(config, context.clone()));
        Self { context, service }
    }

    pub(crate) async fn stop(self) {
        self.context.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.service).await.unwrap().unwrap().unwrap();
    }
}

/// The flags that a service needs, and `flags`.
pub(crate) fn flags(topic: &str, url: &str, flags: &[&str]) -> Vec<String> {
    let brokers = KAFKA.kafka.bootstrap();
    let own = [("--brokers", brokers.as_str()), ("--database-url", url), ("--topic", topic), ("--group", topic)];
    let own = own.into_iter().chain([
        ("--topic-partitions", "4"),
        ("--metrics-listen", "127.0.0.1:0"),
        ("--session-timeout", "1s"),
        ("--heartbeat-interval", "200ms"),
    ]);
    own.flat_map(|(flag, value)| [flag, value]).chain(flags.iter().copied()).map(str::to_owned).collect()
}

fn config(topic: &str, url: &str, more: &[&str]) -> Config {
    match parse(&INFO, [vec![INFO.name.to_owned()], flags(topic, url, more)].concat()) {
        Ok(config) => config,
        Err(Stop::Text(text)) => panic!("{text}"),
        Err(Stop::Usage(usage)) => panic!("{usage}"),
    }
}

pub(crate) fn client() -> Client {
    Client::new(ClientConfig::new(vec![KAFKA.kafka.bootstrap()], "test"))
}

pub(crate) fn producer() -> Producer {
    Producer::new(client(), ProducerConfig::standard())
}

/// `None`: poison. The record's time in Kafka is when the event was received.
pub(crate) async fn produce(producer: &Producer, topic: &str, partition: i32, value: Option<DriverLocation>) {
    let record = OutRecord {
        topic: Arc::from(topic),
        partition: Some(PartitionId(partition)),
        key: None,
        timestamp_ms: value.as_ref().map_or(NOW, |event| event.received_at_ms),
        value: value.map(|event| event.encode()),
        headers: Vec::new(),
    };
    // The delivery is not waited for: the rows tell.
    drop(producer.send(record).await.unwrap());
}

/// All rows, and those that are distinct.
pub(crate) async fn counts(world: &World) -> (i64, i64) {
    let query = "SELECT count(*), count(DISTINCT (driver_id, ts)) FROM driver_locations";
    let row = world.client.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Committed positions in Kafka, the sum over all partitions.
pub(crate) async fn committed(group: &str) -> i64 {
    let committed = client().committed_offsets(group, None).await.unwrap();
    committed.iter().map(|(_, committed)| committed.offset.0).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_becomes_one_row_also_over_a_restart() {
    let world = World::bare().await;
    let first = Running::start(&world, &[]).await;
    until("the first is ready", async || first.context.health.is_ready()).await;
    let producer = producer();
    for offset in 0..RECORDS / 2 {
        for partition in 0..PARTITIONS {
            // One record in a hundred is poison.
            let value = (offset % 100 != 50).then(|| nth(partition, offset));
            produce(&producer, &world.name, partition, value).await;
        }
    }
    until("some are written", async || world.rows().await > RECORDS).await;
    first.stop().await;
    for offset in RECORDS / 2..RECORDS {
        for partition in 0..PARTITIONS {
            produce(&producer, &world.name, partition, Some(nth(partition, offset))).await;
        }
    }
    let second = Running::start(&world, &["--writers", "4", "--batch-max", "700"]).await;
    let expected = i64::from(PARTITIONS) * (RECORDS - RECORDS / 200);
    until("all are written", async || world.rows().await >= expected).await;
    second.stop().await;
    assert_eq!(counts(&world).await, (expected, expected));
    let query = "SELECT count(*) FROM driver_location_offsets WHERE next_offset = $1 AND topic_id <> '00000000-0000-0000-0000-000000000000'";
    assert_eq!(world.client.query_one(query, &[&RECORDS]).await.unwrap().get::<_, i64>(0), i64::from(PARTITIONS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_again_and_again_leaves_each_record_once() {
    const KILLS: i64 = 5;
    let world = World::bare().await;
    let log = native::target_dir().join("native").join(format!("{}.log", world.name));
    let launch = Launch::new("timescale-writer", env!("CARGO_BIN_EXE_timescale-writer"), log);
    let launch = launch.args(flags(&world.name, &world.url, &["--batch-max", "300"]));
    let mut writer = Process::spawn(&launch).unwrap();
    let tables = "SELECT to_regclass('driver_location_offsets') IS NOT NULL";
    until("the tables are there", async || world.client.query_one(tables, &[]).await.unwrap().get(0)).await;
    let (producer, topic) = (producer(), world.name.clone());
    let producing = tokio::spawn(async move {
        for offset in 0..RECORDS {
            for partition in 0..PARTITIONS {
                produce(&producer, &topic, partition, Some(nth(partition, offset))).await;
            }
        }
    });
    let expected = i64::from(PARTITIONS) * RECORDS;
    for kill in 1..=KILLS {
        until("some more are written", async || world.rows().await >= kill * expected / (KILLS + 2)).await;
        writer.kill();
        writer = Process::spawn(&launch).unwrap();
    }
    producing.await.unwrap();
    until("all are written", async || world.rows().await >= expected).await;
    assert!(writer.stop().success());
    assert_eq!(counts(&world).await, (expected, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_only_needs_no_kafka_and_ends() {
    let world = World::bare().await;
    let config: Config = parse(&INFO, ["timescale-writer", "--migrate", "only", "--database-url", &world.url]).unwrap();
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, run(config, test_context().await)).await.unwrap().unwrap();
    assert_eq!(world.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_database_is_waited_for_and_said() {
    let stack = world::server("absent");
    let url = stack.postgres.url();
    stack.postgres.stop();
    let config: Config = parse(&INFO, ["timescale-writer", "--migrate", "only", "--database-url", &url]).unwrap();
    let context = test_context().await;
    let service = tokio::spawn(run(config, context.clone()));
    let readyz = format!("http://{}/readyz", context.admin.local_addr());
    until("it says so", async || {
        let answer = native::http::get(&readyz).unwrap();
        answer.status == 503 && answer.body.contains("/locations") && answer.body.contains("refused")
    })
    .await;
    stack.postgres.start().unwrap();
    tokio::time::timeout(Duration::from_secs(30), service).await.unwrap().unwrap().unwrap();
    assert!(context.health.is_ready());
}
