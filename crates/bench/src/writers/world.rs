//! The servers of one bench, and how its records get into Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kafka::{Client, ClientConfig, Compression, Producer, ProducerConfig};
use native::{KafkaOptions, Stack, StackOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::feed::{Feed, now_ms};
use super::process::Writer;
use super::{PARTITIONS, look};
use crate::error::Error;
use crate::{meter, topic};

/// The ingest's linger under load, so that the batches are the ones that the writers find.
const LINGER: Duration = Duration::from_millis(10);
/// How long the last records of a feed may wait for their acknowledgement.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks of a live feed at what is due.
const TICK: Duration = Duration::from_millis(1);
/// A live feed that is further behind cannot stand for live input.
const BEHIND_LIMIT: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) runtime: Runtime,
    pub(super) client: Client,
}

/// CPU of the servers so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServersUsed {
    pub(super) kafka_s: f64,
    pub(super) sink_s: f64,
    /// How long the sink waited for a core.
    pub(super) sink_waited_s: f64,
}

/// A feed that goes on until it is stopped.
pub(super) struct Live {
    pub(super) feed: Feed,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), Error>>,
}

impl World {
    /// Kafka and Redis.
    pub(super) fn with_redis(name: &str) -> Result<Self, Error> {
        Self::start(name, true)
    }

    /// Kafka and PostgreSQL.
    pub(super) fn with_postgres(name: &str) -> Result<Self, Error> {
        Self::start(name, false)
    }

    fn start(name: &str, redis: bool) -> Result<Self, Error> {
        let dir = native::stack_dir(&format!("bench-{name}"));
        let kafka = Some(KafkaOptions::single());
        let stack = Stack::start(StackOptions { dir, kafka, redis, postgres: !redis })?;
        let runtime = Runtime::new().map_err(Error::io("start", "the runtime"))?;
        let client = Client::new(ClientConfig::new(vec![stack.kafka.bootstrap()], "bench"));
        Ok(Self { stack, runtime, client })
    }

    pub(super) fn create_topic(&self, name: &str) -> Result<(), Error> {
        self.runtime.block_on(topic::create(&self.client, name, PARTITIONS))
    }

    /// Puts the first `count` records of a feed into a new topic, all at once.
    pub(super) fn fill(&self, feed: &Feed, count: u64) -> Result<(), Error> {
        self.create_topic(&feed.topic)?;
        self.runtime.block_on(async {
            let producer = self.producer(&feed.topic, LINGER).await?;
            for number in 0..count {
                // The outcome of each is counted by the producer.
                let _delivery = producer.send(feed.record(number)?).await.map_err(Error::client)?;
            }
            close(&producer).await
        })
    }

    /// Starts a feed into a new topic; returns once it has come to the present.
    pub(super) fn feed(&self, feed: &Feed) -> Result<Live, Error> {
        self.create_topic(&feed.topic)?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let producer = self.runtime.block_on(self.producer(&feed.topic, LINGER))?;
        let work = live(producer, feed.clone(), Arc::clone(&sent), Arc::clone(&stop));
        let live = Live { feed: feed.clone(), sent, stop, task: self.runtime.spawn(work) };
        look::until("the feed comes to the present", 2, || Ok(1 + u64::from(live.is_live())))?;
        Ok(live)
    }

    /// Ends a feed, whose records were all taken.
    pub(super) fn end(&self, live: Live) -> Result<(), Error> {
        live.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(live.task).map_err(Error::client)?
    }

    pub(super) async fn producer(&self, topic: &str, linger: Duration) -> Result<Producer, Error> {
        let config =
            ProducerConfig { linger, linger_max: linger, compression: Compression::Lz4, ..ProducerConfig::standard() };
        let producer = Producer::new(self.client.clone(), config);
        producer.warm(topic).await?;
        Ok(producer)
    }

    /// Starts redis-writer on a topic, as the only member of a new group.
    pub(super) fn redis_writer(&self, topic: &str, group: &str, flags: &[&str]) -> Result<Writer, Error> {
        let redis = self.stack.redis.url();
        self.writer("redis-writer", topic, group, &[&["--redis-url", &redis], flags].concat())
    }

    /// Starts timescale-writer on a topic, as the only member of a new group.
    pub(super) fn timescale_writer(&self, topic: &str, group: &str) -> Result<Writer, Error> {
        let url = self.stack.postgres.url();
        self.writer("timescale-writer", topic, group, &["--database-url", &url])
    }

    fn writer(&self, name: &str, topic: &str, group: &str, flags: &[&str]) -> Result<Writer, Error> {
        let launch = self.stack.service(name)?.args(["--brokers", &self.stack.kafka.bootstrap()]);
        Writer::start(launch.args(["--topic", topic, "--group", group]).args(flags))
    }

    /// CPU of Kafka and of the sink so far; PostgreSQL's is not asked for, as it is many processes.
    pub(super) fn servers_used(&self) -> Result<ServersUsed, Error> {
        let cpu_s = |pid: Option<i32>| pid.map_or(Ok(f64::NAN), meter::cpu_s);
        let sink = self.stack.redis.get().and_then(|redis| redis.pid());
        let sink_waited_s = sink.map_or(f64::NAN, meter::waited_s);
        Ok(ServersUsed { kafka_s: cpu_s(self.stack.kafka.pid())?, sink_s: cpu_s(sink)?, sink_waited_s })
    }
}

impl Live {
    /// Whether it keeps up with the clock.
    pub(super) fn is_live(&self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        let behind = now_ms() - self.feed.at_ms(sent);
        behind < i64::try_from(BEHIND_LIMIT.as_millis()).unwrap_or(i64::MAX)
    }

    /// Records sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn live(producer: Producer, feed: Feed, sent: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Result<(), Error> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = feed.due(now_ms());
        while number < due && !stop.load(Ordering::Relaxed) {
            let _delivery = producer.send(feed.record(number)?).await.map_err(Error::client)?;
            number += 1;
            sent.store(number, Ordering::Relaxed);
        }
        tokio::time::sleep(TICK).await;
    }
    close(&producer).await
}

async fn close(producer: &Producer) -> Result<(), Error> {
    producer.close(CLOSE_LIMIT).await;
    let stats = producer.stats();
    match stats.records == stats.delivered {
        true => Ok(()),
        false => Err(Error::Client(format!("{} of {} records were not taken", stats.failed, stats.records))),
    }
}
