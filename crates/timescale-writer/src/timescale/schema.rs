//! The tables: brought up to date under a lock, and checked against what the writer needs.
//!
//! ```text
//! extension (if the server has it) ─▶ one transaction under an advisory lock: migrations ─▶ hypertable ─▶ check ─▶ indexes
//! ```

use std::time::Duration;

use service::Component;
use tokio_postgres::Client;

use super::database::Database;
use super::fault::Fault;
use super::storage::{self, Storage, TableKind};
use crate::error::Error;
use crate::metrics;

/// Pause between attempts while the database is away.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// An index over a large table takes its time; a lock holder that hangs must not be waited for without end.
const MIGRATION_LIMIT: Duration = Duration::from_hours(1);
/// Any number that no other program uses for its advisory locks: "driver-l" in ASCII.
const LOCK: i64 = 0x6472_6976_6572_2d6c;

const MIGRATIONS_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS driver_location_migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

/// Every change of the schema, in order. A migration that was released is never edited; its number is its place.
const MIGRATIONS: [(&str, &str); 3] = [
    (
        "rows",
        "CREATE TABLE IF NOT EXISTS driver_locations (
            driver_id text NOT NULL,
            lat double precision NOT NULL,
            lng double precision NOT NULL,
            heading real,
            speed real,
            ts timestamptz NOT NULL
        )",
    ),
    (
        // Every transaction updates its rows: the room left in each page keeps those updates off the index.
        "offsets",
        "CREATE TABLE IF NOT EXISTS driver_location_offsets (
            consumer_group text NOT NULL,
            topic text NOT NULL,
            topic_id uuid NOT NULL,
            partition integer NOT NULL,
            next_offset bigint NOT NULL,
            PRIMARY KEY (consumer_group, topic, topic_id, partition)
        ) WITH (fillfactor = 50)",
    ),
    (
        // While a stretch is read again: rows of records before `kept_until` whose ts is before `kept_before` were kept.
        "replays",
        "ALTER TABLE driver_location_offsets
            ADD COLUMN IF NOT EXISTS kept_until bigint,
            ADD COLUMN IF NOT EXISTS kept_before timestamptz",
    ),
];

const EXTENSION: &str = "SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'timescaledb'";

/// Classes of errors that pass: connection, read-only, rollback, resources, locks, shutdown, the system underneath.
const DATABASE_IS_BUSY: [&str; 7] = ["08", "25", "40", "53", "55", "57", "58"];

const COLUMNS: &str = "
    SELECT attname::text, format_type(atttypid, atttypmod), attnotnull AND NOT atthasdef AND attidentity = '' AND attgenerated = ''
    FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum";
const KEY: &str = "
    SELECT coalesce(array_agg(attname::text ORDER BY attname), '{}')
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = to_regclass($1) AND indisprimary";
const RIGHTS: &str = "
    SELECT has_table_privilege('driver_locations', 'INSERT')
        AND has_table_privilege('driver_location_offsets', 'SELECT')
        AND has_table_privilege('driver_location_offsets', 'INSERT')
        AND has_table_privilege('driver_location_offsets', 'UPDATE')";

/// A table as the writer needs it. Further columns are the operator's business, as long as a row may leave them out.
struct Shape {
    table: &'static str,
    columns: &'static [(&'static str, &'static str)],
    /// Columns of which NULL is written.
    nullable: &'static [&'static str],
    /// In alphabetical order; empty: any.
    key: &'static [&'static str],
}

const SHAPES: [Shape; 2] = [
    Shape {
        table: "driver_locations",
        columns: &[
            ("driver_id", "text"),
            ("lat", "double precision"),
            ("lng", "double precision"),
            ("heading", "real"),
            ("speed", "real"),
            ("ts", "timestamp with time zone"),
        ],
        nullable: &["heading", "speed"],
        key: &[],
    },
    Shape {
        table: "driver_location_offsets",
        columns: &[
            ("consumer_group", "text"),
            ("topic", "text"),
            ("topic_id", "uuid"),
            ("partition", "integer"),
            ("next_offset", "bigint"),
            ("kept_until", "bigint"),
            ("kept_before", "timestamp with time zone"),
        ],
        nullable: &["kept_until", "kept_before"],
        // The fence leans on it: without it two first owners would both begin a partition.
        key: &["consumer_group", "partition", "topic", "topic_id"],
    },
];

/// What to do about the schema at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Migrate {
    /// Bring it up to date, then write.
    Auto,
    /// Bring it up to date and exit.
    Only,
    /// Only check it.
    Off,
}

/// How the schema shall be.
#[derive(Debug, Clone, Copy)]
pub struct SchemaConfig {
    /// Whether it may be changed.
    pub migrate: Migrate,
    /// How rows are stored.
    pub storage: Storage,
}

/// Why the schema is not there.
enum Trouble {
    /// The database is away, or busy with something that passes.
    Wait(Fault),
    /// Waiting does not help.
    Fatal(Error),
}

/// Waits for the database and brings the schema up to date as `config` says.
///
/// # Errors
/// What waiting does not help with: wrong password, missing database or right, a table of another shape.
pub async fn prepare_schema(
    database: &Database,
    config: SchemaConfig,
    component: &Component,
) -> Result<TableKind, Error> {
    component.not_ready(format!("connecting to {}", database.address()));
    loop {
        match prepare(database, config).await {
            Ok(kind) => {
                component.ready();
                report(database, kind);
                return Ok(kind);
            }
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Wait(fault)) => component.not_ready(database.explain(&fault)),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Checks once that the tables are there.
///
/// # Errors
/// Why they cannot be used; also that the database is away.
pub(crate) async fn check_schema(database: &Database) -> Result<(), Error> {
    let session = database.session().await.map_err(|fault| fault.of_task(database))?;
    match wrong_shape(&session.client).await.map_err(|fault| fault.of_task(database))? {
        Some(wrong) => Err(Error::Schema(format!("{}: {wrong}", database.address()))),
        None => Ok(()),
    }
}

fn report(database: &Database, kind: TableKind) {
    metrics::report_hypertable(kind == TableKind::Hypertable);
    let address = database.address();
    match kind {
        TableKind::Hypertable => tracing::info!(address, "driver_locations is a hypertable of TimescaleDB"),
        TableKind::Plain => {
            tracing::info!(address, "driver_locations is a plain table of PostgreSQL");
        }
    }
}

async fn prepare(database: &Database, config: SchemaConfig) -> Result<TableKind, Trouble> {
    let judge = |fault| judge(database, fault);
    if config.migrate != Migrate::Off {
        add_extension(database).await.map_err(judge)?;
    }
    let session = database.session().await.map_err(judge)?;
    let work = async {
        let client = &session.client;
        if config.migrate != Migrate::Off {
            client.batch_execute(&format!("SET statement_timeout = {}", MIGRATION_LIMIT.as_millis())).await?;
            client.batch_execute("BEGIN").await?;
            client.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            migrate(client).await?;
        }
        if let Some(wrong) = wrong_shape(client).await? {
            return Ok(Err(wrong));
        }
        if config.migrate != Migrate::Off {
            let kind = storage::shape(client, config.storage).await?;
            client.batch_execute("COMMIT").await?;
            return Ok(Ok(kind));
        }
        Ok(Ok(storage::table_kind(client).await?))
    };
    let done = tokio::time::timeout(MIGRATION_LIMIT, work).await.unwrap_or(Err(Fault::TimedOut(MIGRATION_LIMIT)));
    match done.map_err(judge)? {
        Ok(kind) => Ok(kind),
        Err(wrong) => Err(Trouble::Fatal(Error::Schema(format!("{}: {wrong}", database.address())))),
    }
}

/// Installs TimescaleDB where the server has it, in a session of its own: a server that has its files but does not
/// preload it ends the session. Then, as without the right to install it, a plain table has to do.
async fn add_extension(database: &Database) -> Result<(), Fault> {
    let session = database.session().await?;
    let client = &session.client;
    let extension = client.query_opt(EXTENSION, &[]).await?;
    let Some(row) = extension else { return Ok(()) };
    if row.try_get(0)? {
        return Ok(());
    }
    // Held until the session ends: of two that install it at once, one would fail.
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    match client.batch_execute("CREATE EXTENSION IF NOT EXISTS timescaledb").await.map_err(Fault::from) {
        Err(fault) if fault.class().is_some_and(|class| !DATABASE_IS_BUSY.contains(&class)) => {
            tracing::warn!(why = fault.text(), "TimescaleDB is available but cannot be installed: going on without it");
            Ok(())
        }
        done => done,
    }
}

/// Applies what is missing, inside the transaction that holds the lock.
async fn migrate(client: &Client) -> Result<(), Fault> {
    client.batch_execute(MIGRATIONS_TABLE).await?;
    let newest = "SELECT coalesce(max(version), 0) FROM driver_location_migrations";
    let applied: i32 = client.query_one(newest, &[]).await?.try_get(0)?;
    for (version, (name, statements)) in (1_i32..).zip(MIGRATIONS) {
        if version > applied {
            client.batch_execute(statements).await?;
            let record = "INSERT INTO driver_location_migrations (version, name) VALUES ($1, $2)";
            client.execute(record, &[&version, &name]).await?;
            tracing::info!(version, name, "migrated");
        }
    }
    if usize::try_from(applied).is_ok_and(|applied| applied > MIGRATIONS.len()) {
        let known = MIGRATIONS.len();
        tracing::warn!(version = applied, known, "a newer timescale-writer has migrated the schema");
    }
    Ok(())
}

/// What is wrong with the tables, in one line.
async fn wrong_shape(client: &Client) -> Result<Option<String>, Fault> {
    for shape in &SHAPES {
        let rows = client.query(COLUMNS, &[&shape.table]).await?;
        let columns = rows
            .iter()
            .map(|row| Ok(Column { name: row.try_get(0)?, kind: row.try_get(1)?, is_required: row.try_get(2)? }));
        let columns = columns.collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
        let key: Vec<String> = client.query_one(KEY, &[&shape.table]).await?.try_get(0)?;
        if let Some(wrong) = shape.wrong(&columns, &key) {
            return Ok(Some(wrong));
        }
    }
    let missing_right = "the user may not insert into driver_locations, or not select, insert and update in \
                         driver_location_offsets; grant these rights";
    Ok((!storage::truth(client, RIGHTS).await?).then(|| missing_right.to_owned()))
}

/// A column as it is. Required: a row that leaves it out, or has NULL in it, is refused.
struct Column {
    name: String,
    kind: String,
    is_required: bool,
}

impl Shape {
    fn wrong(&self, columns: &[Column], key: &[String]) -> Option<String> {
        let table = self.table;
        if columns.is_empty() {
            return Some(format!("there is no table {table}; start with --migrate auto or run --migrate only once"));
        }
        let missing =
            self.columns.iter().find_map(|(name, kind)| match columns.iter().find(|column| column.name == *name) {
                None => Some(format!("has no column {name} {kind}")),
                Some(column) if column.kind != *kind => {
                    Some(format!("has column {name} as {}, not as {kind}", column.kind))
                }
                Some(column) if column.is_required && self.nullable.contains(name) => {
                    Some(format!("has NOT NULL on {name}, which is NULL where there is nothing to say"))
                }
                Some(_) => None,
            });
        let is_ours = |column: &&Column| self.columns.iter().any(|(name, _)| column.name == *name);
        let foreign = columns.iter().filter(|column| column.is_required && !is_ours(column));
        let foreign =
            foreign.map(|column| format!("has column {}, NOT NULL and without a default", column.name)).next();
        let other_key = !self.key.is_empty() && self.key != key;
        let other_key = other_key.then(|| format!("needs the primary key ({})", self.key.join(", ")));
        let wrong = missing.or(foreign).or(other_key)?;
        Some(format!(
            "table {table} {wrong}; change the table, or give a --database-url with another database or search_path"
        ))
    }
}

fn judge(database: &Database, fault: Fault) -> Trouble {
    let line = |remedy: &str| format!("{}; {remedy}", database.explain(&fault));
    let fatal = match (fault.sqlstate(), fault.class()) {
        (Some("42501"), _) => {
            Error::Forbidden(line("grant CREATE on the schema, or let --migrate only run as its owner"))
        }
        (_, Some("28")) => Error::Forbidden(line("check user and password in --database-url, and pg_hba.conf")),
        (_, Some("3D")) => Error::NoDatabase(line("create the database, or name another in --database-url")),
        (_, Some(class)) if !DATABASE_IS_BUSY.contains(&class) && class != "XX" => {
            Error::Schema(line("the schema cannot be brought up to date"))
        }
        (None, _) if fault.is_about_tls() => {
            Error::Untrusted(line("check sslmode and sslrootcert, and the server's certificate"))
        }
        (None, _) if fault.is_about_settings() => Error::Forbidden(line("check user and password in --database-url")),
        _ => return Trouble::Wait(fault),
    };
    Trouble::Fatal(fatal)
}

impl Fault {
    /// The end of a task: it does not wait.
    pub(crate) fn of_task(self, database: &Database) -> Error {
        match judge(database, self) {
            Trouble::Fatal(error) => error,
            Trouble::Wait(fault) => Error::Away(database.explain(&fault)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(changes: &[(&str, &str, bool)]) -> Vec<Column> {
        let shape = &SHAPES[0];
        let mut columns: Vec<_> = shape
            .columns
            .iter()
            .map(|(name, kind)| Column {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                is_required: !shape.nullable.contains(name),
            })
            .collect();
        for (name, kind, is_required) in changes {
            columns.retain(|column| column.name != *name);
            if !kind.is_empty() {
                let (name, kind) = ((*name).to_owned(), (*kind).to_owned());
                columns.push(Column { name, kind, is_required: *is_required });
            }
        }
        columns
    }

    #[test]
    fn a_table_that_would_refuse_every_row_is_wrong() {
        fn wrong(changes: &[(&str, &str, bool)]) -> Option<String> {
            SHAPES[0].wrong(&columns(changes), &[])
        }
        assert_eq!(wrong(&[]), None);
        assert_eq!(wrong(&[("note", "text", false)]), None, "a column that rows may leave out");
        for (change, part) in [
            (("ts", "", true), "has no column ts"),
            (("lat", "real", true), "has column lat as real, not as double precision"),
            (("speed", "real", true), "has NOT NULL on speed"),
            (("note", "text", true), "has column note, NOT NULL and without a default"),
        ] {
            let line = wrong(&[change]).unwrap();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
        assert!(SHAPES[0].wrong(&[], &[]).unwrap().contains("--migrate"));
    }

    #[test]
    fn offsets_need_their_key() {
        let shape = &SHAPES[1];
        let column = |(name, kind): &(&str, &str)| Column {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            is_required: !shape.nullable.contains(name),
        };
        let columns: Vec<_> = shape.columns.iter().map(column).collect();
        let key: Vec<_> = shape.key.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(shape.wrong(&columns, &key), None);
        assert!(shape.wrong(&columns, &[]).unwrap().contains("primary key"));
    }
}
