//! How the rows are stored, as flags say: not migrations, since a flag may change with each start.

use std::time::Duration;

use tokio_postgres::Client;

use super::fault::Fault;
use crate::config::Switch;

const TIME_INDEX: &str = "CREATE INDEX IF NOT EXISTS driver_locations_ts_idx ON driver_locations (ts)";
const DRIVER_INDEX: &str =
    "CREATE INDEX IF NOT EXISTS driver_locations_driver_id_ts_idx ON driver_locations (driver_id, ts DESC)";

const EXTENSION_IS_INSTALLED: &str = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')";
const IS_HYPERTABLE: &str = "
    SELECT EXISTS (
        SELECT FROM timescaledb_information.hypertables
        WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass('driver_locations')
    )";

// The classic form of the call, which every 2.x knows. It makes the index on ts by itself.
const CREATE_HYPERTABLE: &str =
    "SELECT create_hypertable('driver_locations', 'ts', chunk_time_interval => make_interval(secs => $1))";
const CHUNK_INTERVAL: &str = "SELECT set_chunk_time_interval('driver_locations', make_interval(secs => $1))";

// The names of before 2.18, which every 2.x knows. A driver's positions lie side by side, newest first, as they are asked for.
const COLUMNSTORE_IS_ON: &str = "
    SELECT EXISTS (
        SELECT FROM timescaledb_information.hypertables
        WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass('driver_locations')
            AND compression_enabled
    )";
const COLUMNSTORE: &str = "
    ALTER TABLE driver_locations SET (
        timescaledb.compress, timescaledb.compress_segmentby = 'driver_id', timescaledb.compress_orderby = 'ts DESC'
    )";
const POLICY_IS_THERE: &str = "
    SELECT EXISTS (
        SELECT FROM timescaledb_information.jobs
        WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass('driver_locations')
            AND proc_name = $1 AND (config ->> $2)::interval = make_interval(secs => $3)
    )";

/// One of TimescaleDB's policies.
struct Policy {
    job: &'static str,
    setting: &'static str,
    remove: &'static str,
    add: &'static str,
}

const COLUMNSTORE_POLICY: Policy = Policy {
    job: "policy_compression",
    setting: "compress_after",
    remove: "SELECT remove_compression_policy('driver_locations', if_exists => true)",
    add: "SELECT add_compression_policy('driver_locations', compress_after => make_interval(secs => $1))",
};
const RETENTION_POLICY: Policy = Policy {
    job: "policy_retention",
    setting: "drop_after",
    remove: "SELECT remove_retention_policy('driver_locations', if_exists => true)",
    add: "SELECT add_retention_policy('driver_locations', drop_after => make_interval(secs => $1))",
};

/// How the rows shall be stored.
#[derive(Debug, Clone, Copy)]
pub struct Storage {
    /// Time that one chunk of the hypertable covers.
    pub chunk_interval: Duration,
    /// Whether there shall be an index for questions about one driver.
    pub driver_index: Switch,
    /// Age at which chunks become columns; `None`: whatever is there stays.
    pub columnstore_after: Option<Duration>,
    /// Age at which chunks are dropped; `None`: whatever is there stays.
    pub retention: Option<Duration>,
}

/// What `driver_locations` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// TimescaleDB's, in chunks by time.
    Hypertable,
    /// PostgreSQL's own.
    Plain,
}

/// Brings the storage to what is asked for.
pub(super) async fn shape(client: &Client, storage: Storage) -> Result<TableKind, Fault> {
    let kind = make_hypertable(client, storage.chunk_interval).await?;
    client.batch_execute(TIME_INDEX).await?;
    if storage.driver_index == Switch::On {
        client.batch_execute(DRIVER_INDEX).await?;
    }
    match kind {
        TableKind::Hypertable => set_policies(client, storage).await?,
        TableKind::Plain => warn_of_policies(storage),
    }
    Ok(kind)
}

async fn set_policies(client: &Client, storage: Storage) -> Result<(), Fault> {
    if let Some(age) = storage.columnstore_after {
        // Set once: chunks that are columns already would forbid another order.
        if !truth(client, COLUMNSTORE_IS_ON).await? {
            client.batch_execute(COLUMNSTORE).await?;
        }
        COLUMNSTORE_POLICY.set(client, age).await?;
    }
    if let Some(age) = storage.retention {
        RETENTION_POLICY.set(client, age).await?;
    }
    Ok(())
}

impl Policy {
    /// A policy that is as it should be stays, with the history of its job.
    async fn set(&self, client: &Client, age: Duration) -> Result<(), Fault> {
        let seconds = age.as_secs_f64();
        let row = client.query_one(POLICY_IS_THERE, &[&self.job, &self.setting, &seconds]).await?;
        if !row.try_get::<_, bool>(0)? {
            client.query(self.remove, &[]).await?;
            client.query(self.add, &[&seconds]).await?;
            tracing::info!(policy = self.job, after = service::format_duration(age), "policy set");
        }
        Ok(())
    }
}

fn warn_of_policies(storage: Storage) {
    for (flag, age) in [("--columnstore-after", storage.columnstore_after), ("--retention", storage.retention)] {
        if let Some(age) = age {
            let value = service::format_duration(age);
            tracing::warn!(
                "{flag} {value}: needs a hypertable of TimescaleDB; the plain table keeps every row as it is"
            );
        }
    }
}

async fn make_hypertable(client: &Client, chunk_interval: Duration) -> Result<TableKind, Fault> {
    let kind = table_kind(client).await?;
    if !truth(client, EXTENSION_IS_INSTALLED).await? {
        return Ok(kind);
    }
    let seconds = chunk_interval.as_secs_f64();
    if kind == TableKind::Hypertable {
        client.execute(CHUNK_INTERVAL, &[&seconds]).await?;
        return Ok(kind);
    }
    if truth(client, "SELECT EXISTS (SELECT FROM driver_locations)").await? {
        tracing::warn!(
            "driver_locations holds rows already and stays a plain table; create_hypertable(…, migrate_data => true) converts it"
        );
        return Ok(kind);
    }
    client.query(CREATE_HYPERTABLE, &[&seconds]).await?;
    Ok(TableKind::Hypertable)
}

/// What the table is now.
pub(super) async fn table_kind(client: &Client) -> Result<TableKind, Fault> {
    let is_hypertable = truth(client, EXTENSION_IS_INSTALLED).await? && truth(client, IS_HYPERTABLE).await?;
    Ok(if is_hypertable { TableKind::Hypertable } else { TableKind::Plain })
}

/// The answer to a yes-or-no question.
pub(super) async fn truth(client: &Client, question: &str) -> Result<bool, Fault> {
    Ok(client.query_one(question, &[]).await?.try_get(0)?)
}
