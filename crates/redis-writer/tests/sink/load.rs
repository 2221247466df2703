//! Writers that go on with rising effective times whatever happens, each batch until it is written, as the pipeline does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipeline::WriteError;
use redis_writer::RedisSink;
use tokio::task::JoinSet;

use crate::world::{now_ms, position, until, write};

/// A refused batch is offered again after this long.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Two writers of the same sink, each with its own drivers.
pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: JoinSet<HashMap<String, i64>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// Times that some writer has written all of its drivers.
    rounds: AtomicU64,
    /// What the sink said of the batches that it refused.
    refusals: Mutex<Vec<String>>,
}

impl Load {
    /// `drivers` says who reports in a round: more of them from round to round, if it likes.
    pub(crate) fn start(sink: &Arc<RedisSink>, drivers: impl Fn(u64) -> Vec<String> + Clone + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let mut writers = JoinSet::new();
        for half in 0..2 {
            let (shared, sink, drivers) = (Arc::clone(&shared), Arc::clone(sink), drivers.clone());
            writers.spawn(async move {
                let mut newest = HashMap::new();
                let mut round = 0;
                while !shared.is_over.load(Ordering::Relaxed) {
                    let drivers: Vec<_> = drivers(round).into_iter().skip(half).step_by(2).collect();
                    for batch in drivers.chunks(50) {
                        shared.write(&sink, batch, &mut newest).await;
                    }
                    round += 1;
                    shared.rounds.fetch_add(1, Ordering::Relaxed);
                }
                newest
            });
        }
        Self { shared, writers }
    }

    /// Waits until every driver has been written again, from its next position on.
    pub(crate) async fn goes_on(&self) {
        let goal = self.rounds() + 6;
        until("the load goes on", async || {
            assert!(!self.writers.is_empty());
            self.rounds() >= goal
        })
        .await;
    }

    /// Waits until a batch has been refused.
    pub(crate) async fn until_refused(&self) {
        until("a batch is refused", async || !self.refusals().is_empty()).await;
    }

    fn rounds(&self) -> u64 {
        self.shared.rounds.load(Ordering::Relaxed)
    }

    pub(crate) fn refusals(&self) -> Vec<String> {
        self.shared.refusals.lock().unwrap().clone()
    }

    /// Ends it; the effective time of each driver's newest position.
    pub(crate) async fn end(self) -> HashMap<String, i64> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.writers.join_all().await.into_iter().flatten().collect()
    }
}

impl Shared {
    async fn write(&self, sink: &RedisSink, drivers: &[String], newest: &mut HashMap<String, i64>) {
        let positions: Vec<_> = drivers
            .iter()
            .map(|driver| {
                let time = newest.entry(driver.clone()).or_insert(0);
                *time = now_ms().max(*time + 1);
                position(driver, *time, 1)
            })
            .collect();
        while let Err(error) = write(sink, positions.clone()).await {
            let WriteError::SinkFault(said) = error else { panic!("not a sink fault: {error:?}") };
            self.refusals.lock().unwrap().push(said);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// The effective time of a value.
pub(crate) fn time_of(value: &[u8]) -> i64 {
    let json: serde_json::Value = serde_json::from_slice(value).unwrap();
    json["timestamp"].as_i64().unwrap()
}
