//! The whole monitor against a real broker: letters by our publisher, by others and by nobody in particular.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dlt_monitor::{Flags, INFO};
use kafka::topics::{self, Mode, Plan};
use kafka::{
    Client, ClientConfig, DeadLetter, DeadLetterConfig, DeadLetterPublisher, Offset, PartitionId, Producer,
    ProducerConfig, TimestampType, TopicPartition,
};
use native::{KafkaOptions, Launch, Port, Process, Signal, Stack, StackOptions, Wish};
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use service::Context;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A machine that is busy with other tests gets this much.
const DEADLINE: Duration = Duration::from_secs(60);

/// The broker of all tests but the one that stops its own; its guard stops it when the test process ends.
fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| start_kafka("dlt-monitor"))
}

fn start_kafka(name: &str) -> Stack {
    let dir = native::stack_dir(name);
    Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false }).unwrap()
}

fn bootstrap() -> String {
    stack().kafka.bootstrap()
}

fn flags(brokers: &str, topic: &str) -> Vec<String> {
    let flags = ["dlt-monitor", "--topic-partitions", "2", "--brokers", brokers, "--topic", topic, "--group"];
    flags.into_iter().map(str::to_owned).chain([format!("monitor-of-{topic}")]).collect()
}

/// A monitor in this process.
struct Monitor {
    context: Context,
    running: JoinHandle<Result<(), dlt_monitor::Error>>,
}

impl Monitor {
    async fn start(brokers: &str, topic: &str) -> Self {
        let flags: Flags = service::parse(&INFO, flags(brokers, topic)).unwrap();
        let context = service::test_context().await;
        let running = tokio::spawn(dlt_monitor::run(flags, context.clone()));
        Self { context, running }
    }

    async fn ready(brokers: &str, topic: &str) -> Self {
        let monitor = Self::start(brokers, topic).await;
        monitor.until("ready", |monitor| monitor.context.health.is_ready()).await;
        monitor
    }

    fn text(&self, series: &str) -> Option<String> {
        let text = self.context.admin.render();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(str::to_owned)
    }

    fn value(&self, series: &str) -> Option<u64> {
        self.text(series).map(|value| value.parse().unwrap())
    }

    fn events(&self, topic: &str) -> Option<u64> {
        self.value(&format!(r#"kafka_dlt_events_total{{topic="{topic}"}}"#))
    }

    fn letters(&self, topic: &str, group: &str, reason: &str) -> Option<u64> {
        self.value(&format!(r#"dlt_letters_total{{topic="{topic}",group="{group}",reason="{reason}"}}"#))
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            let ended = self.running.is_finished();
            assert!(!ended && Instant::now() < deadline, "{what}: ended {ended}\n{}", self.context.admin.render());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.context.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// Publishes letters as a writer of `group` does.
async fn publisher(topic: &str, group: &str) -> DeadLetterPublisher {
    let client = Client::new(ClientConfig::new(vec![bootstrap()], "monitor-test"));
    let dead_letter_topic = topics::dead_letter_topic(topic);
    let plan = Plan { topic: topic.to_owned(), partitions: 2, dead_letter_topic: Some(dead_letter_topic.clone()) };
    topics::ensure(&client, Mode::Auto, &plan).await.unwrap();
    let config = DeadLetterConfig {
        topic: Arc::from(dead_letter_topic),
        group: group.to_owned(),
        service: "test".to_owned(),
        version: "0".to_owned(),
    };
    let publisher = DeadLetterPublisher::new(Producer::new(client, ProducerConfig::standard()), config);
    publisher.warm().await.unwrap();
    publisher
}

async fn publish(publisher: &DeadLetterPublisher, topic: &str, offset: i64, reason: &'static str) {
    let record = kafka::Record {
        offset: Offset(offset),
        timestamp_ms: 1_795_441_689_633,
        timestamp_type: TimestampType::CreateTime,
        key: Some(Bytes::from_static(b"driver-secret")),
        value: Some(Bytes::from_static(b"not protobuf")),
        headers: Vec::new(),
    };
    let source = TopicPartition::new(topic, PartitionId(1));
    let letter = DeadLetter { source, record, reason, detail: "latitude 40.7128".to_owned(), attempts: 1 };
    publisher.publish(&letter).unwrap().await.unwrap();
}

/// Puts a record with these headers into the dead letter topic, as anybody may.
async fn produce(topic: &str, headers: BTreeMap<String, Vec<u8>>) {
    let witness = rskafka::client::ClientBuilder::new(vec![bootstrap()]).build().await.unwrap();
    let dead_letter_topic = topics::dead_letter_topic(topic);
    let producer = witness.partition_client(dead_letter_topic, 0, UnknownTopicHandling::Retry).await.unwrap();
    let timestamp = DateTime::from_timestamp_millis(1_795_441_689_633).unwrap();
    producer
        .produce(vec![Record { key: None, value: None, headers, timestamp }], Compression::NoCompression)
        .await
        .unwrap();
}

#[tokio::test]
async fn letters_are_counted_by_topic_group_and_reason() {
    let monitor = Monitor::ready(&bootstrap(), "counted").await;
    assert_eq!(monitor.events("counted"), Some(0), "there before the first letter, so that it is an increase");
    let redis = publisher("counted", "driver-location-redis").await;
    let analytics = publisher("counted", "driver-location-analytics").await;
    for offset in 0..5 {
        publish(&redis, "counted", offset, "missing_latitude").await;
        publish(&analytics, "counted", offset, "missing_latitude").await;
    }
    publish(&redis, "counted", 5, "undecodable").await;
    monitor.until("eleven letters", |monitor| monitor.events("counted") == Some(11)).await;
    let of = |group, reason| monitor.letters("counted", group, reason);
    assert_eq!(of("driver-location-redis", "missing_latitude"), Some(5));
    assert_eq!(of("driver-location-analytics", "missing_latitude"), Some(5));
    assert_eq!(of("driver-location-redis", "undecodable"), Some(1));
    assert_eq!(
        monitor.value(r#"dlt_originals_total{topic="counted"}"#),
        Some(6),
        "letters of two groups are about one"
    );
    let waiting = r#"dlt_letters_waiting{topic="counted.DLT"}"#;
    monitor.until("eleven letters wait", |monitor| monitor.value(waiting) == Some(11)).await;
    let client = Client::new(ClientConfig::new(vec![bootstrap()], "monitor-test"));
    let place = TopicPartition::new("counted.DLT", PartitionId(1));
    let passed = (place, Offset(11), String::new());
    assert!(monitor.text(r#"dlt_oldest_letter_age_seconds{topic="counted.DLT"}"#).is_some_and(|age| age != "0"));
    client.alter_offsets("counted.DLT.redrive.all", &[passed]).await.unwrap();
    monitor.until("none waits any more", |monitor| monitor.value(waiting) == Some(0)).await;
    assert_eq!(monitor.value(r#"dlt_oldest_letter_age_seconds{topic="counted.DLT"}"#), Some(0));
    monitor.stop().await;
}

#[tokio::test]
async fn letters_of_others_are_counted_too() {
    let monitor = Monitor::ready(&bootstrap(), "others").await;
    produce("others", BTreeMap::new()).await;
    let connect = [("__connect.errors.topic", "orders"), ("__connect.errors.exception.class.name", "E")];
    produce("others", connect.map(|(name, value)| (name.to_owned(), value.into())).into()).await;
    monitor.until("a bare letter", |monitor| monitor.letters("unknown", "unknown", "unknown") == Some(1)).await;
    monitor.until("a letter of connect", |monitor| monitor.letters("orders", "unknown", "E") == Some(1)).await;
    assert_eq!((monitor.events("unknown"), monitor.events("orders")), (Some(1), Some(1)));
    monitor.stop().await;
}

#[tokio::test]
async fn a_letter_that_was_counted_is_not_counted_again_after_a_restart() {
    let redis = publisher("restarted", "driver-location-redis").await;
    publish(&redis, "restarted", 0, "undecodable").await;
    let first = Monitor::ready(&bootstrap(), "restarted").await;
    first.until("the first letter", |monitor| monitor.events("restarted") == Some(1)).await;
    first.stop().await;
    // The counters are the process's, so the second monitor goes on where the first stopped.
    publish(&redis, "restarted", 1, "undecodable").await;
    let second = Monitor::ready(&bootstrap(), "restarted").await;
    second.until("the second letter", |monitor| monitor.events("restarted") >= Some(2)).await;
    second.stop().await;
    let third = Monitor::ready(&bootstrap(), "restarted").await;
    assert_eq!(third.events("restarted"), Some(2));
    third.stop().await;
}

#[tokio::test]
async fn each_letter_is_one_error_line_without_personal_data() {
    let redis = publisher("logged", "driver-location-redis").await;
    publish(&redis, "logged", 4242, "missing_latitude").await;
    let port = Port::lease(Wish::Any).unwrap();
    let listen = format!("127.0.0.1:{}", port.number());
    let launch = stack().service("dlt-monitor").unwrap().args(flags(&bootstrap(), "logged").into_iter().skip(1));
    let process = Process::spawn(&launch.args(["--metrics-listen", &listen])).unwrap();
    process.wait_ready(&format!("http://{listen}/readyz"), DEADLINE).unwrap();
    let log = || std::fs::read_to_string(process.log_path()).unwrap();
    native::wait_until(DEADLINE, "the letter's line", || log().contains("dead letter")).unwrap();
    process.signal(Signal::SIGTERM);
    assert!(process.wait(DEADLINE).unwrap().success());
    let log = log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["logged", "partition=1", "offset=4242", "reason=missing_latitude", "driver-location-redis"] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    assert!(!log.contains("driver-secret") && !log.contains("40.7128"), "{log}");
}

#[tokio::test]
async fn a_flood_is_a_line_a_second_with_counts_and_none_is_left_out() {
    let redis = publisher("flooded", "driver-location-redis").await;
    let letters = (0..1_500).map(|offset| publish(&redis, "flooded", offset, "undecodable"));
    futures::future::join_all(letters).await;
    let port = Port::lease(Wish::Any).unwrap();
    let listen = format!("127.0.0.1:{}", port.number());
    let binary = native::service_binary("dlt-monitor").unwrap();
    let launch = Launch::new("dlt-monitor-flood", binary, stack().log_path("dlt-monitor-flood"));
    let launch = launch.args(flags(&bootstrap(), "flooded").into_iter().skip(1));
    let process = Process::spawn(&launch.args(["--metrics-listen", &listen])).unwrap();
    process.wait_ready(&format!("http://{listen}/readyz"), DEADLINE).unwrap();
    let log = || std::fs::read_to_string(process.log_path()).unwrap();
    // Letters with a line of their own, and those that the lines with counts speak of.
    let told = || {
        let own = log().lines().filter(|line| line.ends_with("dead letter") || line.contains(": dead letter ")).count();
        let counted =
            log().lines().filter(|line| line.contains("a flood of dead letters")).map(letters_of).sum::<usize>();
        (own, counted)
    };
    native::wait_until(DEADLINE, "every letter is told", || told().0 + told().1 == 1_500).unwrap();
    let (own, counted) = told();
    assert!(own < 1_500 && counted > 0, "{own} {counted}");
    process.signal(Signal::SIGTERM);
    assert!(process.wait(DEADLINE).unwrap().success());
}

/// The number in `letters=17`.
fn letters_of(line: &str) -> usize {
    let number = line.split("letters=").nth(1).unwrap();
    number.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn without_kafka_it_is_not_ready_and_becomes_ready_when_it_comes() {
    let stack = start_kafka("dlt-monitor-absent");
    let brokers = stack.kafka.bootstrap();
    stack.kafka.stop();
    let monitor = Monitor::start(&brokers, "late").await;
    let url = format!("http://{}/readyz", monitor.context.admin.local_addr());
    let get = async || {
        let url = url.clone();
        tokio::task::spawn_blocking(move || native::http::get(&url).unwrap()).await.unwrap()
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = get().await;
        assert_eq!(answer.status, 503);
        if answer.body.contains(&brokers) {
            break;
        }
        assert!(Instant::now() < deadline, "never named the broker: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stack.kafka.start().unwrap();
    monitor.until("ready", |monitor| monitor.context.health.is_ready()).await;
    monitor.stop().await;
}
