//! Consumer lag of Kafka groups in records and seconds, for Prometheus.
//!
//! ```text
//!   every --interval: groups → committed offsets → end offsets ─▶ Sample ─▶ lag (pure) ─▶ Snapshot ─▶ Board
//!   a scrape:                                                                        text of the ◀──────┘
//! ```
//!
//! A scrape never calls Kafka. What could not be read has no series: a missing lag is "unknown", never 0.

mod collect;
mod config;
mod error;
mod lag;
mod metrics;
mod selection;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use kafka::{Client, ErrorKind};
use service::{Component, Context, Info};
use tokio::time::{Instant, MissedTickBehavior};

pub use config::Flags;
pub use error::Error;

use collect::Collector;
use lag::History;
use snapshot::{Board, Snapshot};

/// What the binary says about itself.
pub const INFO: Info = Info {
    name: "lag-exporter",
    version: env!("CARGO_PKG_VERSION"),
    about: "Exports the lag of Kafka consumer groups, in records and in seconds, for Prometheus",
    metrics_listen: "127.0.0.1:9105",
    buckets: &[],
};

/// Collects until shutdown.
///
/// # Errors
/// Before the first collection has succeeded, what waiting does not help with: a wrong password, a CA that is not trusted,
/// missing rights. Afterwards none: without Kafka it is not ready and tries again.
pub async fn run(flags: Flags, context: Context) -> Result<(), Error> {
    metrics::describe();
    let board = Arc::new(Board::new(flags.stale_after()));
    let scraped = Arc::clone(&board);
    context.admin.add_metrics(move || scraped.render(Instant::now()));
    let client = Client::new(flags.common.client_config(INFO.name));
    let task = CollectTask {
        collector: Collector::new(client, flags.groups, flags.common.topic),
        interval: flags.interval,
        history: History::new(board.stale_after()),
        kafka: context.health.component("kafka"),
        board,
        has_collected: false,
    };
    match context.shutdown.run_until_cancelled(task.run()).await {
        Some(ended) => ended,
        None => Ok(()),
    }
}

/// The background collection.
struct CollectTask {
    collector: Collector,
    interval: Duration,
    history: History,
    kafka: Component,
    board: Arc<Board>,
    has_collected: bool,
}

impl CollectTask {
    async fn run(mut self) -> Result<(), Error> {
        let mut ticks = tokio::time::interval(self.interval);
        // After a slow collection the next one waits a whole interval: the cluster may be slow because it is busy.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.collect().await?;
        }
    }

    async fn collect(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        match self.collector.collect().await {
            Ok(sample) => {
                let groups = self.history.evaluate(&sample);
                self.board.publish(Snapshot::new(&groups, started));
                metrics::collected(started.elapsed());
                self.kafka.ready();
                self.has_collected = true;
            }
            Err(error) if error.kind() == ErrorKind::Fatal && !self.has_collected => return Err(error.into()),
            Err(error) => {
                self.board.collection_failed();
                metrics::failed(started.elapsed());
                self.kafka.not_ready(error.to_string());
            }
        }
        Ok(())
    }
}
