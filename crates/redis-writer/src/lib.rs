//! Kafka to Redis: the live map, freshness first.
//!
//! ```text
//! Kafka ──pipeline──▶ DriverLocation ──▶ plan: not late, not expired, newest of its driver ──▶ order.lua in Redis
//!                          │ poison                │ counted                                       newer? SET … PXAT
//!                          ▼                       ▼
//!                     dead letters              skipped
//! ```
//!
//! Redis decides the order of positions (`order.lua`), so no position is ever replaced by an older one, and every key
//! expires at its effective time plus the life of a position, however late it was written.

mod config;
mod error;
pub mod metrics;
mod order;
mod place;
mod plan;
mod redis;
mod security;

use std::sync::Arc;

use event::{DriverLocation, Invalid};
use kafka::Record;
use pipeline::{RecordFault, Settings};
use service::{Context, Info};

pub use config::{Config, DEFAULT_GROUP, MapBatches, RedisArgs};
pub use error::Error;
pub use order::ValueFormat;
pub use plan::Conflate;
pub use redis::{RedisSink, SinkConfig, UrlError, check_url};
pub use security::{Security, SecurityArgs};

/// What the binary says about itself.
pub const INFO: Info = Info {
    name: "redis-writer",
    version: env!("CARGO_PKG_VERSION"),
    about: "Writes each driver's newest position from Kafka to Redis: the live map, freshness first",
    metrics_listen: "127.0.0.1:9102",
    buckets: &[
        metrics::BUCKETS,
        pipeline::metrics::BUCKETS[0],
        pipeline::metrics::BUCKETS[1],
        pipeline::metrics::BUCKETS[2],
    ],
};

/// Runs the service until `context.shutdown`.
///
/// # Errors
/// What waiting does not help with; see [`Error`].
pub async fn run(config: Config, context: Context) -> Result<(), Error> {
    let sink = RedisSink::start(config.sink_config()?)?;
    let settings = Settings::new(INFO.name, INFO.version, &config.common, &config.pipeline, config.policy());
    Box::pin(pipeline::run(settings, decode, Arc::new(sink), context)).await?;
    Ok(())
}

fn decode(record: &Record) -> Result<DriverLocation, RecordFault> {
    DriverLocation::of_record(record.value.as_deref(), record.timestamp_ms)
        .map_err(|Invalid { reason, detail }| RecordFault { reason: reason.as_str(), detail })
}
