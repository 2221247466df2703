//! The flags of timescale-writer.

use std::time::Duration;

use kafka::Client;
use pipeline::{PipelineArgs, Policy};
use service::{CommonArgs, Usage};

use crate::INFO;
use crate::timescale::{DatabaseConfig, Migrate, SchemaConfig, SinkConfig, TopicIds, check_url};

/// The consumer group of the history.
pub const DEFAULT_GROUP: &str = "driver-location-analytics";

const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_mins(5);
const CHUNK_MIN: Duration = Duration::from_mins(1);
const CHUNK_MAX: Duration = Duration::from_hours(24 * 365);
const BATCH_LIMIT: u64 = 50_000;
const LINGER_LIMIT: Duration = Duration::from_secs(10);
const FETCH_LIMIT: u64 = 1 << 20;
/// Kafka stores it as a short string of 32,767 bytes at most; nobody needs more than this.
const GROUP_MAX_BYTES: usize = 255;

/// Everything that timescale-writer can be told.
#[derive(Debug, Clone, clap::Parser)]
pub struct Config {
    /// Flags that every service has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Flags of the consumer runtime.
    #[command(flatten)]
    pub pipeline: PipelineArgs,

    /// How batches are made for the database.
    #[command(flatten)]
    pub batch: BatchArgs,

    /// Flags of the history.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// How batches are made for the database.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pipeline options")]
pub struct BatchArgs {
    /// Consumer group; also the name under which the database keeps its offsets
    #[arg(long, value_name = "GROUP", default_value = DEFAULT_GROUP, value_parser = group)]
    pub group: String,

    /// Records of one batch, which is one transaction, 1 to 50000
    #[arg(long, value_name = "RECORDS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=BATCH_LIMIT))]
    pub batch_max: u64,

    /// How long records may wait for others to share their batch while records are coming in, 0ms to 10s
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = service::duration(Duration::ZERO..=LINGER_LIMIT))]
    pub linger_max: Duration,

    /// Batches written at a time, and connections to the database, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub writers: u8,

    /// Bytes that a broker gathers for one answer while records are coming in, 1B to 1MiB
    #[arg(long, value_name = "BYTES", default_value = "50KiB", value_parser = service::bytes(1..=FETCH_LIMIT))]
    pub fetch_min_bytes: usize,
}

/// Flags of the history.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Database options")]
pub struct DatabaseArgs {
    /// Where the database is: postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE
    #[arg(
        long,
        value_name = "URL",
        default_value = "postgres://postgres@127.0.0.1:5432/locations",
        hide_env_values = true
    )]
    pub database_url: String,

    /// The longest wait for the database: to connect, for one statement and for one batch, 100ms to 5m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = service::duration(TIMEOUT_MIN..=TIMEOUT_MAX))]
    pub database_timeout: Duration,

    /// What to do about the schema: auto brings it up to date, only does so and exits, off just checks it
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub migrate: Migrate,

    /// Time that one chunk of the hypertable covers, 1m to 8760h; a change is for chunks to come
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = service::duration(CHUNK_MIN..=CHUNK_MAX))]
    pub chunk_interval: Duration,

    /// Index on (driver_id, ts desc), for questions about one driver; off by default because keeping it makes COPY about
    /// three times as slow (590 against 200 thousand rows/s, measured). Turning it off does not drop it
    #[arg(long, value_name = "WHEN", default_value = "off")]
    pub driver_index: Switch,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Do it.
    On,
    /// Leave it.
    Off,
}

impl service::Config for Config {
    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn check(&self) -> Result<(), Usage> {
        self.pipeline.check()?;
        // The value is not shown: a connection string has many places for a password.
        check_url(&self.database.database_url).map_err(|error| Usage::new("--database-url", "***", error.to_string()))
    }
}

impl Config {
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            group: self.batch.group.clone(),
            batch_max: self.batch.batch_max,
            linger_max: self.batch.linger_max,
            writers: self.batch.writers.into(),
            fetch_min_bytes: i32::try_from(self.batch.fetch_min_bytes).unwrap_or(i32::MAX),
            freshness: None,
        }
    }

    pub(crate) fn database_config(&self) -> DatabaseConfig {
        DatabaseConfig {
            url: self.database.database_url.clone(),
            timeout: self.database.database_timeout,
            connections: self.batch.writers.into(),
        }
    }

    pub(crate) fn schema_config(&self) -> SchemaConfig {
        SchemaConfig {
            migrate: self.database.migrate,
            chunk_interval: self.database.chunk_interval,
            driver_index: self.database.driver_index,
        }
    }

    pub(crate) fn sink_config(&self) -> SinkConfig {
        let client = Client::new(self.common.client_config(INFO.name));
        SinkConfig { group: self.batch.group.clone(), topic_ids: TopicIds::Cluster(client) }
    }
}

fn group(text: &str) -> Result<String, String> {
    let fits = (1..=GROUP_MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("give 1 to {GROUP_MAX_BYTES} bytes without control characters"))
    }
}
