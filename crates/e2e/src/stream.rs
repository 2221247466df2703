//! Drivers whose positions go straight into Kafka at a steady rate, for tests of what comes behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use kafka::{Client, OutRecord, Producer, ProducerConfig};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::events::{event, now_ms};
use crate::wait::{LIMIT, within};

/// Ticks a second, each with its part of the positions.
const TICKS: usize = 100;

/// Drivers under way, each posting in its turn.
pub struct Stream {
    stop: CancellationToken,
    task: JoinHandle<Producer>,
    sent: Arc<Sent>,
}

#[derive(Debug)]
struct Sent {
    drivers: Vec<String>,
    /// The time of the last position of each, ms since the epoch; 0: none yet.
    last_ms: Vec<AtomicI64>,
    count: AtomicUsize,
}

impl Stream {
    /// `drivers` of them, `per_second` positions together, to the partitions that their names decide.
    pub fn start(client: Client, topic: &str, drivers: usize, per_second: usize) -> Self {
        let sent = Arc::new(Sent {
            drivers: (0..drivers).map(|number| format!("driver-{number}")).collect(),
            last_ms: (0..drivers).map(|_| AtomicI64::new(0)).collect(),
            count: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let producer = Producer::new(client, ProducerConfig::standard());
        let task = tokio::spawn(run(producer, Arc::from(topic), per_second, Arc::clone(&sent), stop.clone()));
        Self { stop, task, sent }
    }

    /// How many positions were sent so far.
    pub fn sent(&self) -> usize {
        self.sent.count.load(Ordering::Relaxed)
    }

    /// The names of all drivers.
    pub fn drivers(&self) -> &[String] {
        &self.sent.drivers
    }

    /// The time of the newest position of each driver, in their order.
    pub fn newest(&self) -> Vec<i64> {
        self.sent.last_ms.iter().map(|last| last.load(Ordering::Relaxed)).collect()
    }

    /// Ends the load. Returns each driver's newest position when Kafka has them all.
    pub async fn stop(self) -> BTreeMap<String, i64> {
        self.stop.cancel();
        let producer = within("the load ends", self.task).await.expect("the load goes on");
        producer.close(LIMIT).await;
        let stats = producer.stats();
        assert_eq!((stats.failed, stats.delivered), (0, stats.records), "Kafka takes every position");
        let newest = self.sent.last_ms.iter().map(|last| last.load(Ordering::Relaxed));
        self.sent.drivers.iter().cloned().zip(newest).filter(|(_, last)| *last > 0).collect()
    }
}

async fn run(
    producer: Producer,
    topic: Arc<str>,
    per_second: usize,
    sent: Arc<Sent>,
    stop: CancellationToken,
) -> Producer {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(TICKS).expect("a small number"));
    // After a stall of this machine the missing positions follow: the rate holds on average.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut turn = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for _ in 0..per_second / TICKS {
            post(&producer, &topic, &sent, turn).await;
            turn = (turn + 1) % sent.drivers.len();
        }
    }
    producer
}

async fn post(producer: &Producer, topic: &Arc<str>, sent: &Sent, turn: usize) {
    let driver = &sent.drivers[turn];
    // No two positions of a driver have the same time, whatever the clock does.
    let at = now_ms().max(sent.last_ms[turn].load(Ordering::Relaxed) + 1);
    let record = OutRecord {
        topic: Arc::clone(topic),
        partition: None,
        key: Some(driver.clone().into()),
        value: Some(event(driver, at).into()),
        headers: Vec::new(),
        timestamp_ms: at,
    };
    // What becomes of it is asked at the end.
    drop(producer.send(record).await.expect("the producer takes positions"));
    sent.last_ms[turn].store(at, Ordering::Relaxed);
    sent.count.fetch_add(1, Ordering::Relaxed);
}
