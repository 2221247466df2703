//! The whole service in this process, between a real Kafka and a real PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use ::service::{Context, Stop, parse, test_context};
use event::DriverLocation;
use kafka::{Client, ClientConfig, OutRecord, PartitionId, Producer, ProducerConfig};
use native::{KafkaOptions, Process, Stack, StackOptions};
use timescale_writer::{Config, Error, INFO, run};
use tokio::task::JoinHandle;

use crate::world::{self, NOW, TOPIC, nth, until};

const PARTITIONS: i32 = 4;
const RECORDS: i64 = 20_000;

struct Running {
    context: Context,
    service: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn start(stack: &Stack, flags: &[&str]) -> Self {
        let (brokers, url) = (stack.kafka.bootstrap(), stack.postgres.url());
        let given = ["timescale-writer", "--brokers", &brokers, "--database-url", &url, "--topic-partitions", "4"];
        let config: Config = match parse(&INFO, [given.as_slice(), flags].concat()) {
            Ok(config) => config,
            Err(Stop::Text(text)) => panic!("{text}"),
            Err(Stop::Usage(usage)) => panic!("{usage}"),
        };
        let context = test_context().await;
        let service = tokio::spawn(run(config, context.clone()));
        Self { context, service }
    }

    async fn stop(self) {
        self.context.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.service).await.unwrap().unwrap().unwrap();
    }
}

fn producer(stack: &Stack) -> Producer {
    let client = Client::new(ClientConfig::new(vec![stack.kafka.bootstrap()], "test"));
    Producer::new(client, ProducerConfig::standard())
}

async fn produce(producer: &Producer, partition: i32, value: Option<DriverLocation>) {
    let record = OutRecord {
        topic: Arc::from(TOPIC),
        partition: Some(PartitionId(partition)),
        key: None,
        value: value.map(|event| event.encode()),
        headers: Vec::new(),
        timestamp_ms: NOW,
    };
    // The delivery is not waited for: the rows tell.
    drop(producer.send(record).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_becomes_one_row_also_over_a_restart() {
    let dir = native::stack_dir("timescale-writer-service");
    let kafka = Some(KafkaOptions::single());
    let stack = Stack::start(StackOptions { dir, kafka, redis: false, postgres: true }).unwrap();
    let first = Running::start(&stack, &[]).await;
    until("the first is ready", async || first.context.health.is_ready()).await;
    let client = world::connect(&stack.postgres.url()).await;
    let producer = producer(&stack);
    for offset in 0..RECORDS / 2 {
        for partition in 0..PARTITIONS {
            // One record in a hundred is poison.
            let value = (offset % 100 != 50).then(|| nth(partition, offset));
            produce(&producer, partition, value).await;
        }
    }
    until("some are written", async || world::rows(&client).await > RECORDS).await;
    first.stop().await;
    for offset in RECORDS / 2..RECORDS {
        for partition in 0..PARTITIONS {
            produce(&producer, partition, Some(nth(partition, offset))).await;
        }
    }
    let second = Running::start(&stack, &["--writers", "4", "--batch-max", "700"]).await;
    let expected = i64::from(PARTITIONS) * (RECORDS - RECORDS / 200);
    until("all are written", async || world::rows(&client).await >= expected).await;
    second.stop().await;
    let query = "SELECT count(*), count(DISTINCT driver_id) FROM driver_locations";
    let row = client.query_one(query, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (expected, expected));
    let query = "SELECT count(*) FROM driver_location_offsets WHERE next_offset = $1 AND topic_id <> '00000000-0000-0000-0000-000000000000'";
    assert_eq!(client.query_one(query, &[&RECORDS]).await.unwrap().get::<_, i64>(0), i64::from(PARTITIONS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_again_and_again_leaves_each_record_once() {
    const KILLS: i64 = 5;
    let dir = native::stack_dir("timescale-writer-killed");
    let kafka = Some(KafkaOptions::single().set("group.min.session.timeout.ms", 100));
    let stack = Stack::start(StackOptions { dir, kafka, redis: false, postgres: true }).unwrap();
    let flags = [
        "--brokers",
        &stack.kafka.bootstrap(),
        "--database-url",
        &stack.postgres.url(),
        "--topic-partitions",
        "4",
        "--metrics-listen",
        "127.0.0.1:0",
        "--batch-max",
        "300",
        "--session-timeout",
        "1s",
        "--heartbeat-interval",
        "200ms",
    ];
    let launch = stack.service("timescale-writer").unwrap().args(flags);
    let mut writer = Process::spawn(&launch).unwrap();
    let client = world::connect(&stack.postgres.url()).await;
    let tables = "SELECT to_regclass('driver_location_offsets') IS NOT NULL";
    until("the tables are there", async || client.query_one(tables, &[]).await.unwrap().get(0)).await;
    let producer = producer(&stack);
    let producing = tokio::spawn(async move {
        for offset in 0..RECORDS {
            for partition in 0..PARTITIONS {
                produce(&producer, partition, Some(nth(partition, offset))).await;
            }
        }
    });
    let expected = i64::from(PARTITIONS) * RECORDS;
    for kill in 1..=KILLS {
        until("some more are written", async || world::rows(&client).await >= kill * expected / (KILLS + 2)).await;
        writer.kill();
        writer = Process::spawn(&launch).unwrap();
    }
    producing.await.unwrap();
    until("all are written", async || world::rows(&client).await >= expected).await;
    assert!(writer.stop().success());
    let query = "SELECT count(*), count(DISTINCT driver_id) FROM driver_locations";
    let row = client.query_one(query, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (expected, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_only_needs_no_kafka_and_ends() {
    let stack = world::server("migrates");
    let url = stack.postgres.url();
    let config: Config = parse(&INFO, ["timescale-writer", "--migrate", "only", "--database-url", &url]).unwrap();
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, run(config, test_context().await)).await.unwrap().unwrap();
    assert_eq!(world::rows(&world::connect(&url).await).await, 0);
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
