//! The flags of timescale-writer.

use std::path::PathBuf;
use std::time::Duration;

use kafka::Client;
use pipeline::{BatchArgs, BatchProfile, FlagText, PipelineArgs, Policy};
use service::{CommonArgs, Usage};

use crate::INFO;
use crate::command::Command;
use crate::timescale::{
    DatabaseConfig, Given, Migrate, SchemaConfig, ServerSettings, SettingError, SinkConfig, Storage, TopicIds,
};

/// The consumer group of the history.
pub const DEFAULT_GROUP: &str = "driver-location-analytics";

const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_mins(5);
const CHUNK_MIN: Duration = Duration::from_mins(1);
const CHUNK_MAX: Duration = Duration::from_hours(24 * 365);
const AGE_MIN: Duration = Duration::from_hours(1);
const AGE_MAX: Duration = Duration::from_hours(87_600);

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
    pub batch: BatchArgs<HistoryBatches>,

    /// Flags of the history.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// A single task instead of the service.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What --help says of how batches are made for the database.
#[derive(Debug, Clone)]
pub struct HistoryBatches;

impl BatchProfile for HistoryBatches {
    const GROUP: FlagText = FlagText {
        default: DEFAULT_GROUP,
        help: "Consumer group; also the name under which the database keeps its offsets",
    };
    const BATCH_MAX: FlagText =
        FlagText { default: "5000", help: "Records of one batch, which is one transaction, 1 to 50000" };
    const BATCH_LIMIT: u64 = 50_000;
    const LINGER_MAX: FlagText = FlagText {
        default: "100ms",
        help: "How long records may wait for others to share their batch while records are coming in, 0ms to 10s",
    };
    const LINGER_LIMIT: Duration = Duration::from_secs(10);
    const WRITERS: FlagText =
        FlagText { default: "2", help: "Batches written at a time, and connections to the database, 1 to 64" };
    const FETCH_MIN_BYTES: &'static str = "50KiB";
}

/// Flags of the history.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Database options")]
pub struct DatabaseArgs {
    /// Where the database is: postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?KEYWORD=VALUE&…] or KEYWORD=VALUE …, as
    /// psql reads it, sslmode included. What it leaves out is taken from psql's variables (PGHOST, PGPASSWORD, …) and
    /// password file [default: those alone, else postgres://postgres@127.0.0.1:5432/locations]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// File whose first line is the password, read at the start
    #[arg(long, value_name = "PATH")]
    pub database_password_file: Option<PathBuf>,

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

    /// Age at which chunks become columns, compressed and ordered by driver, 1h to 87600h, or off. Needs TimescaleDB. off
    /// leaves a policy that is there
    #[arg(long, value_name = "DURATION|off", default_value = "off", value_parser = Age::parse)]
    pub columnstore_after: Age,

    /// Age at which chunks are dropped, 1h to 87600h, or off. Needs TimescaleDB. off leaves a policy that is there
    #[arg(long, value_name = "DURATION|off", default_value = "off", value_parser = Age::parse)]
    pub retention: Age,
}

impl DatabaseArgs {
    fn check(&self) -> Result<(), Usage> {
        match (self.columnstore_after.0, self.retention.0) {
            (Some(columns), Some(dropped)) if columns >= dropped => {
                let limit = service::format_duration(dropped);
                let remedy = format!("must be below --retention ({limit}): what is dropped need not be compressed");
                Err(Usage::new("--columnstore-after", service::format_duration(columns), remedy))
            }
            _ => Ok(()),
        }
    }
}

/// An age at which something is done to chunks, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(pub Option<Duration>);

impl Age {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let age = service::duration(AGE_MIN..=AGE_MAX)(text);
        age.map(|age| Self(Some(age))).map_err(|error| format!("{error}, or off"))
    }
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

    fn is_task(&self) -> bool {
        self.command.is_some()
    }

    fn check(&self) -> Result<(), Usage> {
        self.pipeline.check()?;
        self.database.check()?;
        self.server().map(drop).map_err(|SettingError { name, value, remedy }| Usage::new(name, value, remedy))
    }
}

impl Config {
    pub(crate) fn policy(&self) -> Policy {
        self.batch.policy(None)
    }

    pub(crate) fn database_config(&self) -> Result<DatabaseConfig, SettingError> {
        Ok(DatabaseConfig {
            server: self.server()?,
            timeout: self.database.database_timeout,
            connections: self.batch.writers.into(),
        })
    }

    fn server(&self) -> Result<ServerSettings, SettingError> {
        let DatabaseArgs { database_url: url, database_password_file: password_file, .. } = &self.database;
        let given = Given { url: url.as_deref(), password_file: password_file.as_deref() };
        ServerSettings::read(given, &|name| std::env::var(name).ok())
    }

    pub(crate) fn schema_config(&self) -> SchemaConfig {
        SchemaConfig {
            migrate: self.database.migrate,
            storage: Storage {
                chunk_interval: self.database.chunk_interval,
                driver_index: self.database.driver_index,
                columnstore_after: self.database.columnstore_after.0,
                retention: self.database.retention.0,
            },
        }
    }

    pub(crate) fn kafka(&self) -> Client {
        Client::new(self.common.client_config(INFO.name))
    }

    pub(crate) fn sink_config(&self) -> SinkConfig {
        SinkConfig { group: self.batch.group.clone(), topic_ids: TopicIds::Cluster(self.kafka()) }
    }
}
