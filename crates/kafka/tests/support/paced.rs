//! A load at a steady pace, which goes on through whatever happens to the cluster.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use kafka::Producer;
use tokio::time::Instant;

use crate::load::{Outcomes, record};

/// How many drivers, and how often each of them reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) keys: u32,
    pub(crate) every: Duration,
}

/// Few keys in quick succession.
const STANDARD: Shape = Shape { keys: 20, every: Duration::from_millis(5) };
/// Nothing that a test waits for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Enqueues a record of each key at a time until told to stop; every record's outcome is awaited.
pub(crate) struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<Outcomes>,
}

impl Load {
    pub(crate) fn start(producer: &Producer, topic: &str) -> Self {
        Self::start_as(STANDARD, producer, topic)
    }

    pub(crate) fn start_as(shape: Shape, producer: &Producer, topic: &str) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (producer, topic): (_, Arc<str>) = (producer.clone(), topic.into());
        let task = tokio::spawn(async move {
            let mut tasks = Vec::new();
            let mut pace = tokio::time::interval(shape.every);
            for number in 0.. {
                if *stopped.borrow() {
                    break;
                }
                pace.tick().await;
                for key in 0..shape.keys {
                    let key = format!("driver-{key}");
                    if let Ok(delivery) = producer.enqueue(record(&topic, &key, number)) {
                        tasks.push(tokio::spawn(async move { ((key, number), delivery.await) }));
                    }
                }
            }
            let mut outcomes = Outcomes::default();
            for task in tasks {
                outcomes.0.extend([task.await.expect("no panic")]);
            }
            outcomes
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Outcomes {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE * 2, self.task).await.expect("every call ends").expect("no panic")
    }
}

/// Returns once `producer` has delivered `count` more records than now.
pub(crate) async fn progress(producer: &Producer, count: u64) {
    let goal = producer.stats().delivered + count;
    let limit = Instant::now() + PATIENCE;
    while producer.stats().delivered < goal {
        assert!(Instant::now() < limit, "no progress");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
