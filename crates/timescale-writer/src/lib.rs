//! Kafka to TimescaleDB: the history, completeness first.
//!
//! ```text
//! Kafka ──pipeline──▶ DriverLocation ──▶ one transaction a batch: fence and move the offsets ─ binary COPY ─ COMMIT
//!                          │ poison                                     │ refused rows (bisected)
//!                          ▼                                            ▼
//!                     dead letters ◀────────────────────────────────────┘
//! ```
//!
//! Rows and next offset stand or fall together, and the offset moves only from where this writer believes it to be: so
//! each Kafka record is stored exactly once, whatever dies and whoever else writes.

mod command;
mod config;
pub mod copy;
mod error;
pub mod metrics;
mod replay;
mod task;
mod timescale;
mod timestamp;

use std::sync::Arc;

use event::{DriverLocation, Invalid};
use kafka::Record;
use pipeline::{RecordFault, Settings};
use service::{Context, Info};
use task::Task;

pub use command::{Command, EraseArgs, OffsetsCommand, SetArgs, Target};
pub use config::{Config, DEFAULT_GROUP, DatabaseArgs, HistoryBatches, Switch};
pub use error::Error;
pub use timescale::{
    Database, DatabaseConfig, Environment, Given, Migrate, SchemaConfig, ServerSettings, SettingError, SinkConfig,
    Storage, TableKind, TimescaleSink, TopicId, TopicIds, prepare_schema,
};
pub use timestamp::Timestamp;

/// What the binary says about itself.
pub const INFO: Info = Info {
    name: "timescale-writer",
    version: env!("CARGO_PKG_VERSION"),
    about: "Writes every position from Kafka to TimescaleDB or PostgreSQL, each exactly once: the history",
    metrics_listen: "127.0.0.1:9103",
    buckets: &pipeline::metrics::BUCKETS,
};

/// Runs the service until `context.shutdown`; with `--migrate only`, until the schema is there; with a subcommand, the task.
///
/// # Errors
/// What waiting does not help with; see [`Error`].
pub async fn run(config: Config, context: Context) -> Result<(), Error> {
    let database = Arc::new(Database::new(config.database_config()?));
    if let Some(command) = config.command.clone() {
        let task = Task { database, kafka: config.kafka(), group: config.batch.group, topic: config.common.topic };
        let Some(done) = context.shutdown.run_until_cancelled(task.run(command)).await else {
            return Err(Error::Refused("interrupted: what the database had not finished was rolled back".to_owned()));
        };
        return done;
    }
    let schema = context.health.component("schema");
    let preparing = prepare_schema(&database, config.schema_config(), &schema);
    let Some(prepared) = context.shutdown.run_until_cancelled(preparing).await else { return Ok(()) };
    prepared?;
    if config.database.migrate == Migrate::Only {
        return Ok(());
    }
    let sink = TimescaleSink::new(database, config.sink_config());
    let settings = Settings::new(INFO.name, INFO.version, &config.common, &config.pipeline, config.policy());
    // The pipeline's state is large and moved once: on the heap.
    Box::pin(pipeline::run(settings, decode, Arc::new(sink), context)).await?;
    Ok(())
}

fn decode(record: &Record) -> Result<DriverLocation, RecordFault> {
    DriverLocation::of_record(record.value.as_deref(), record.timestamp_ms)
        .map_err(|Invalid { reason, detail }| RecordFault { reason: reason.as_str(), detail })
}
