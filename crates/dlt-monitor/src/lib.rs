//! Dead letters. As a service: counts them and writes one error line for each. As a command: shows them and sends their
//! originals back.
//!
//! ```text
//!   service   <topic>.DLT ──pipeline──▶ headers ─▶ Letter (pure) ─▶ counters, log ─▶ commit
//!   command   <topic>.DLT ──Scan──▶ Filter (pure) ─▶ list, stats, show, export
//!                                          └─▶ original (pure) ─▶ once? ─▶ Courier ─▶ <topic>     redrive, import
//! ```
//!
//! It has no dead letter topic of its own: a letter about a letter would come back here.

mod anatomy;
pub mod command;
mod config;
mod courier;
mod error;
mod filter;
mod jsonl;
mod letter;
mod lines;
mod metrics;
mod moment;
mod monitor;
mod once;
mod original;
mod pace;
mod scan;
mod story;
mod table;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use kafka::Client;
use pipeline::{Policy, Settings};
use service::{Context, Info};

pub use command::Command;
pub use config::Flags;
pub use error::Error;
pub use filter::{Filter, FilterArgs, ReasonName};
pub use letter::{Letter, UNKNOWN};
pub use moment::Moment;
pub use original::TimestampPolicy;

use command::{Desk, progress_group};
use metrics::LetterMetrics;
use monitor::{LetterSink, read_letter};
use waiting::WaitingTask;

/// What the binary says about itself.
pub const INFO: Info = Info {
    name: "dlt-monitor",
    version: env!("CARGO_PKG_VERSION"),
    about: "Counts the dead letters of driver locations and logs each with its original's topic, partition and offset",
    metrics_listen: "127.0.0.1:9104",
    buckets: &[],
};

/// Letters of one batch: each costs a log line and two counters.
const BATCH_MAX: u64 = 500;
/// Letters may be as large as records can be.
const BATCH_BYTES: u64 = 4 << 20;
/// Letters need not wait for company.
const LINGER_MAX: Duration = Duration::from_millis(5);
/// An alert should not wait for bytes.
const FETCH_MIN_BYTES: i32 = 1;
/// One batch at a time: the log keeps the order in which letters arrived.
const WRITERS: usize = 1;

/// Watches until shutdown; with a subcommand, carries it out.
///
/// # Errors
/// What waiting does not help with: missing rights, topics that contradict `--topic-create check`; see [`Error`].
pub async fn run(flags: Flags, context: Context) -> Result<(), Error> {
    let dead_letter_topic = flags.pipeline.dead_letter_topic(&flags.common.topic);
    if let Some(command) = flags.command {
        let kafka = flags.common.client_config(INFO.name);
        return Desk::new(kafka, &flags.common.topic, &dead_letter_topic, context.shutdown).run(command).await;
    }
    let metrics = LetterMetrics::new(&flags.common.topic);
    let sink = Arc::new(LetterSink::new(metrics));
    let waiting = WaitingTask {
        client: Client::new(flags.common.client_config(INFO.name)),
        group: progress_group(&dead_letter_topic, &flags.redrive_name),
        dead_letter_topic,
    };
    let beside = context.shutdown.child_token();
    tokio::spawn(waiting.run(beside.clone()));
    let summaries = tokio::spawn({
        let (sink, beside) = (Arc::clone(&sink), beside.clone());
        async move { sink.summarize(beside).await }
    });
    // The pipeline's state is large and moved once: on the heap.
    let ended = Box::pin(pipeline::run(settings(&flags), read_letter, Arc::clone(&sink), context)).await;
    beside.cancel();
    // It has no way to fail, and what it has not told is told here.
    let _ = summaries.await;
    sink.tell_summary();
    Ok(ended?)
}

fn settings(flags: &Flags) -> Settings {
    let policy = Policy {
        group: flags.group.clone(),
        batch_max: BATCH_MAX,
        batch_bytes: BATCH_BYTES,
        linger_max: LINGER_MAX,
        writers: WRITERS,
        fetch_min_bytes: FETCH_MIN_BYTES,
        freshness: None,
    };
    let settings = Settings::new(INFO.name, INFO.version, &flags.common, &flags.pipeline, policy);
    Settings {
        topic: flags.pipeline.dead_letter_topic(&flags.common.topic).into(),
        dead_letter_topic: None,
        ..settings
    }
}
