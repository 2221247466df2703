//! The service as a process of its own, between a Kafka and a Redis.

use std::fs;
use std::sync::Arc;

use event::DriverLocation;
use kafka::{Client, ClientConfig, OutRecord, Producer, ProducerConfig};
use native::{KafkaOptions, Launch, Port, Process, Stack, StackOptions, Wish};

use crate::world::PATIENCE;

const TOPIC: &str = "driver-location-updates";

/// A running redis-writer.
pub(crate) struct Writer {
    process: Process,
    producer: Producer,
    metrics: Port,
}

/// A Kafka and a Redis.
pub(crate) fn stack(name: &str) -> Stack {
    let dir = native::stack_dir(&format!("redis-writer-{name}"));
    Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: true, postgres: false }).unwrap()
}

impl Writer {
    /// Starts one on the servers of `stack`, with further `flags`.
    pub(crate) fn start(stack: &Stack, flags: &[&str]) -> Self {
        let metrics = Port::lease(Wish::Any).unwrap();
        let launch = Launch::new("redis-writer", env!("CARGO_BIN_EXE_redis-writer"), stack.log_path("redis-writer"))
            .args(["--brokers", &stack.kafka.bootstrap(), "--redis-url", &stack.redis.url()])
            .args(["--topic-partitions", "1", "--metrics-listen", &format!("127.0.0.1:{}", metrics.number())])
            .args(flags.iter().copied());
        let client = Client::new(ClientConfig::new(vec![stack.kafka.bootstrap()], "test"));
        let producer = Producer::new(client, ProducerConfig::standard());
        let process = Process::spawn(&launch).unwrap();
        process.wait_ready(&format!("http://127.0.0.1:{}/readyz", metrics.number()), PATIENCE).unwrap();
        Self { process, producer, metrics }
    }

    /// Puts positions into Kafka; returns when it has them.
    pub(crate) async fn feed(&self, positions: impl IntoIterator<Item = DriverLocation>) {
        let mut deliveries = Vec::new();
        for position in positions {
            let record = OutRecord {
                topic: Arc::from(TOPIC),
                partition: None,
                key: Some(position.driver_id.as_str().to_owned().into()),
                value: Some(position.encode()),
                headers: Vec::new(),
                timestamp_ms: position.received_at_ms,
            };
            deliveries.push(self.producer.send(record).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> String {
        native::http::get(&format!("http://127.0.0.1:{}/metrics", self.metrics.number())).unwrap().body
    }

    /// All that it has printed since it was started first.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.process.log_path()).unwrap()
    }
}
