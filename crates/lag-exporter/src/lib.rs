//! Consumer lag of Kafka groups in records and seconds, for Prometheus.
//!
//! ```text
//!   every --interval: Collector ─▶ Sample ─▶ History (pure): ends, traces, progress ─▶ Report ─▶ Snapshot ─▶ Board
//!                        ▲                      │ records to read, for their time                              │
//!                        └──────────────────────┘                                    a scrape: text of the ◀──┘
//! ```
//!
//! A scrape never calls Kafka. What could not be read has no series: a missing lag is "unknown", never 0.

mod collect;
mod compat;
mod config;
mod ends;
mod error;
mod history;
mod metrics;
mod once;
mod pair;
mod report;
mod sample;
mod selection;
mod snapshot;
mod text;

use std::sync::Arc;
use std::time::Duration;

use kafka::{Client, ErrorKind};
use service::{Component, Context, Info};
use tokio::time::{Instant, MissedTickBehavior};

pub use compat::Compat;
pub use config::{Command, Flags, OnceArgs};
pub use error::Error;
pub use once::Output;
pub use pair::Uncommitted;
pub use snapshot::PerPartition;

use collect::Collector;
use history::History;
use once::OnceTask;
use report::Report;
use sample::Sample;
use snapshot::{Board, Shown, Snapshot};

/// What the binary says about itself.
pub const INFO: Info = Info {
    name: "lag-exporter",
    version: env!("CARGO_PKG_VERSION"),
    about: "Exports the lag of Kafka consumer groups, in records and in seconds, for Prometheus",
    metrics_listen: "127.0.0.1:9105",
    buckets: &[],
};

/// Collects until shutdown; with a subcommand, does what it says.
///
/// # Errors
/// Before the first collection has succeeded, what waiting does not help with: a wrong password, a CA that is not trusted,
/// missing rights. Afterwards none: without Kafka it is not ready and tries again.
pub async fn run(flags: Flags, context: Context) -> Result<(), Error> {
    metrics::describe();
    let client = Client::new(flags.common.client_config(INFO.name));
    let collector = Collector::new(client, flags.selection());
    let history = History::new(flags.settings());
    let ended = match flags.command.clone() {
        Some(Command::Once(args)) => {
            let task = OnceTask { collector, history, interval: flags.interval, window: flags.window, args };
            context.shutdown.run_until_cancelled(task.run()).await
        }
        None => {
            let board = Arc::new(Board::new(flags.stale_after()));
            publish(&context, &board);
            let task = CollectTask {
                collector,
                interval: flags.interval,
                history,
                kafka: context.health.component("kafka"),
                shown: flags.shown(),
                board,
                has_collected: false,
            };
            context.shutdown.run_until_cancelled(task.run()).await
        }
    };
    ended.unwrap_or(Ok(()))
}

fn publish(context: &Context, board: &Arc<Board>) {
    let (health, series) = (Arc::clone(board), Arc::clone(board));
    context.admin.add_metrics(move || health.health(Instant::now()));
    context.admin.add_metrics(move || series.series(Instant::now()));
}

/// What follows from a sample, after the records that it asks for have been read.
async fn judge(history: &mut History, collector: &Collector, sample: &Sample) -> Report {
    let places = history.observe(sample);
    for (place, read) in collector.read(&places).await {
        history.learn(&place, read, sample.taken_at_ms);
    }
    history.report(sample)
}

/// The background collection.
struct CollectTask {
    collector: Collector,
    interval: Duration,
    history: History,
    kafka: Component,
    shown: Shown,
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
                let report = judge(&mut self.history, &self.collector, &sample).await;
                self.board.publish(Snapshot::new(&report, &self.shown, started));
                metrics::collected(started.elapsed());
                self.kafka.ready();
                self.has_collected = true;
            }
            Err(error) if error.kind() == ErrorKind::Fatal && !self.has_collected => return Err(error.into()),
            Err(error) => {
                self.board.collection_failed();
                metrics::failed(started.elapsed(), &error);
                self.kafka.not_ready(error.to_string());
            }
        }
        Ok(())
    }
}
