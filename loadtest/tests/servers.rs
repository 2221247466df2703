//! The readers of the harness against real Kafka, Redis and PostgreSQL: what they report is what is there.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use kafka::{Client, ClientConfig, TopicSpec};
use loadtest::cluster::{Cluster, Lags, partition_of};
use loadtest::poison;
use loadtest::postgres::Postgres;
use loadtest::redis::Redis;
use loadtest::roster::Roster;
use loadtest::witness::Witness;
use native::{KafkaOptions, Stack, StackOptions};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const TOPIC: &str = "driver-location-updates";
const GROUPS: [&str; 2] = ["driver-location-redis", "driver-location-analytics"];

async fn stack(name: &str, choose: impl FnOnce(&mut StackOptions)) -> Stack {
    let mut options = StackOptions { kafka: None, redis: false, postgres: false, ..StackOptions::all(name) };
    choose(&mut options);
    tokio::task::spawn_blocking(|| Stack::start(options)).await.unwrap().unwrap()
}

async fn create_topic(bootstrap: &str, name: &str, partitions: i32) {
    let client = Client::new(ClientConfig::new(vec![bootstrap.to_owned()], "test"));
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: Some(1), settings: Vec::new() };
    client.create_topic(&spec).await.unwrap();
}

/// A broker that has never had a group needs a moment to find each of them a coordinator.
async fn known_lags(cluster: &Cluster) -> Lags {
    let known = async {
        loop {
            let lags = cluster.lags().await;
            if [lags.redis, lags.analytics, lags.dead_letters].iter().all(Option::is_some) {
                return lags;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_witness_finds_what_it_put_and_the_cluster_counts_it_as_lag() {
    let stack = stack("loadtest-kafka", |options| options.kafka = Some(KafkaOptions::single())).await;
    let bootstrap = stack.kafka.bootstrap();
    create_topic(&bootstrap, TOPIC, 48).await;
    create_topic(&bootstrap, &format!("{TOPIC}.DLT"), 48).await;
    let witness = Witness::connect(&bootstrap).await.unwrap();
    let records = poison::records(1_795_441_689_633);
    let places = witness.put(TOPIC, records.clone()).await.unwrap();
    assert_eq!(places, (0..47).map(|partition| (partition, 0)).collect());
    let mut values = Vec::new();
    let read = witness.read(TOPIC, 48, |found| values.push(found.record.value.clone())).await.unwrap();
    assert_eq!(read, 47);
    assert_eq!(values, records.into_iter().map(|record| record.value).collect::<Vec<_>>());
    let lags = known_lags(&Cluster::new(&bootstrap, TOPIC, GROUPS)).await;
    assert_eq!((lags.redis, lags.analytics, lags.dead_letters), (Some(47), Some(47), Some(0)));
    assert_eq!(witness.dead_letters(TOPIC, 48).await.unwrap().letters, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_read_until_it_is_stopped_and_again_when_it_is_back() {
    let stack = stack("loadtest-redis", |options| options.redis = true).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, stack.redis.port()));
    let mut raw = TcpStream::connect(address).await.unwrap();
    raw.write_all(b"SET a 1\r\nSET b two\r\n").await.unwrap();
    let mut redis = Redis::connect(address).await.unwrap();
    let keys = [b"b".to_vec(), b"none".to_vec(), b"a".to_vec()];
    let values = loop {
        // The writer's connection is another one: its commands may come later.
        let values = redis.mget(&keys).await.unwrap();
        if values[0].is_some() {
            break values;
        }
    };
    assert_eq!(values, [Some(b"two".to_vec()), None, Some(b"1".to_vec())]);
    assert_eq!(redis.version().await.unwrap(), stack.redis.version());
    stack.redis.stop();
    assert!(redis.mget(&keys).await.is_err());
    assert!(Redis::connect(address).await.is_err());
    stack.redis.start().unwrap();
    assert!(Redis::connect(address).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_with_their_milliseconds() {
    let stack = stack("loadtest-postgres", |options| options.postgres = true).await;
    let (client, connection) = tokio_postgres::connect(&stack.postgres.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let table =
        "CREATE TABLE driver_locations (driver_id text, lat double precision, lng double precision, heading real,
                 speed real, ts timestamptz)";
    client.batch_execute(table).await.unwrap();
    let fill = "INSERT INTO driver_locations SELECT 'driver-' || n, 0, 0, 0, 0, to_timestamp(1795441689.633) + n * interval '1 ms'
                FROM generate_series(0, 9999) n";
    client.batch_execute(fill).await.unwrap();
    let postgres = Postgres::connect(&stack.postgres.url()).await.unwrap();
    let mut rows = Vec::new();
    assert_eq!(postgres.rows(|id, ts| rows.push((id.to_owned(), ts))).await.unwrap(), 10_000);
    rows.sort_by_key(|(_, ts)| *ts);
    let expected = (0..10_000).map(|n| (format!("driver-{n}"), 1_795_441_689_633 + n));
    assert!(rows.into_iter().eq(expected));
    let (version, timescale) = postgres.versions().await.unwrap();
    assert!(version.starts_with(char::is_numeric), "{version}");
    assert_eq!(timescale, None);
}

#[test]
fn probes_go_to_every_partition_by_the_partitioner_of_java() {
    let roster = Roster::probes(48, 10, |id| partition_of(id, 48));
    let mut counts = [0; 48];
    for slot in 0..480 {
        counts[partition_of(roster.id(slot).as_bytes(), 48) as usize] += 1;
    }
    assert_eq!(counts, [10; 48]);
}
