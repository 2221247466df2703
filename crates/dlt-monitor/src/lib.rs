//! Watches the dead letter topic: counts letters by the topic of their original and writes one error line for each.
//!
//! ```text
//!   <topic>.DLT ──pipeline──▶ headers ─▶ Letter (pure) ─▶ counters, log ─▶ commit
//! ```
//!
//! It has no dead letter topic of its own: a letter about a letter would come back here.

mod config;
mod error;
mod letter;
mod metrics;
mod monitor;

use std::sync::Arc;
use std::time::Duration;

use pipeline::{Policy, Settings};
use service::{Context, Info};

pub use config::Flags;
pub use error::Error;
pub use letter::{Letter, UNKNOWN};

use metrics::LetterMetrics;
use monitor::{LetterSink, read_letter};

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
/// Letters need not wait for company.
const LINGER_MAX: Duration = Duration::from_millis(5);
/// An alert should not wait for bytes.
const FETCH_MIN_BYTES: i32 = 1;
/// One batch at a time: the log keeps the order in which letters arrived.
const WRITERS: usize = 1;

/// Watches until shutdown.
///
/// # Errors
/// What waiting does not help with: missing rights, topics that contradict `--topic-create check`.
pub async fn run(flags: Flags, context: Context) -> Result<(), Error> {
    let metrics = LetterMetrics::new(&flags.common.topic);
    pipeline::run(settings(&flags), read_letter, Arc::new(LetterSink::new(metrics)), context).await
}

fn settings(flags: &Flags) -> Settings {
    let policy = Policy {
        group: flags.group.clone(),
        batch_max: BATCH_MAX,
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
