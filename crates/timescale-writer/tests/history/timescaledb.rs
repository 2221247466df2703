//! TimescaleDB's own DDL and policies, on TimescaleDB in WebAssembly: it takes one client at a time and no COPY. The rest
//! of the suite runs on a whole TimescaleDB with TIMESCALE_URL.

use std::process::Command;
use std::time::Duration;

use native::{Launch, Port, Process, Wish};
use timescale_writer::{SchemaConfig, Storage, Switch, TableKind};

use crate::world::{connect, prepare, schema, storage, until};

/// More than the jobs and chunks of the test are.
const HOUR: Duration = Duration::from_hours(1);

struct TimescaleDb {
    url: String,
    process: Process,
    _port: Port,
}

impl TimescaleDb {
    async fn start() -> Self {
        let install = native::root_dir().join("deploy/native/install");
        assert!(Command::new(install).arg("pglite").status().unwrap().success());
        let port = Port::lease(Wish::Any).unwrap();
        let dir = native::native_dir().join("pglite");
        let launch = Launch::new("timescaledb", "node", dir.join(format!("{}.log", port.number())));
        let server = dir.join("server.mjs").into_os_string();
        let process = Process::spawn(&launch.arg(server).arg(port.number().to_string())).unwrap();
        until("TimescaleDB listens", async || {
            assert_eq!(process.status(), None, "{}", process.log_tail());
            process.log_tail().contains("listening")
        })
        .await;
        let url = format!("postgres://postgres:postgres@127.0.0.1:{}/postgres?sslmode=disable", port.number());
        Self { url, process, _port: port }
    }

    async fn prepare(&self, storage: Storage) -> TableKind {
        let config = SchemaConfig { storage, ..schema() };
        prepare(&self.url, config).await.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log_tail()))
    }

    /// One value of one row, as text; each look is a connection of its own.
    async fn ask(&self, query: &str) -> String {
        let client = connect(&self.url).await;
        let rows = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let row = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        row.unwrap_or_default()
    }

    async fn policies(&self) -> String {
        self.ask(
            "SELECT string_agg(job_id || ' ' || proc_name || ' ' || coalesce(config ->> 'compress_after', config ->> 'drop_after'), ', ' ORDER BY proc_name)
             FROM timescaledb_information.jobs WHERE hypertable_name = 'driver_locations'",
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_becomes_a_hypertable_with_the_policies_asked_for() {
    let db = TimescaleDb::start().await;
    assert_eq!(db.prepare(storage()).await, TableKind::Hypertable);
    let interval =
        "SELECT time_interval FROM timescaledb_information.dimensions WHERE hypertable_name = 'driver_locations'";
    assert_eq!(db.ask(interval).await, "01:00:00");
    assert_eq!(db.policies().await, "");

    let shaped = Storage {
        chunk_interval: 6 * HOUR,
        driver_index: Switch::On,
        columnstore_after: Some(24 * HOUR),
        retention: Some(240 * HOUR),
    };
    assert_eq!(db.prepare(shaped).await, TableKind::Hypertable);
    assert_eq!(db.ask(interval).await, "06:00:00");
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'driver_locations'";
    assert_eq!(db.ask(indexes).await, "2");
    let policies = db.policies().await;
    assert!(policies.contains("policy_compression 24:00:00"), "{policies}");
    assert!(policies.contains("policy_retention 240:00:00"), "{policies}");
    let columns = "SELECT string_agg(attname || coalesce(segmentby_column_index, orderby_column_index) || coalesce(orderby_asc, true), ',' ORDER BY attname)
        FROM timescaledb_information.compression_settings WHERE hypertable_name = 'driver_locations'";
    assert_eq!(db.ask(columns).await, "driver_id1true,ts1false");

    db.prepare(shaped).await;
    assert_eq!(db.policies().await, policies, "what is as it should be is left alone");
    db.prepare(storage()).await;
    assert_eq!(db.policies().await, policies, "off leaves what is there");
    db.prepare(Storage { retention: Some(120 * HOUR), ..shaped }).await;
    let changed = db.policies().await;
    assert!(changed.contains("policy_retention 120:00:00"), "{changed}");
    assert_eq!(changed.split(", ").next(), policies.split(", ").next(), "the other policy is the same job");

    db.ask(
        "INSERT INTO driver_locations SELECT 'driver', 1, 2, NULL, NULL, now() - make_interval(hours => hours)
         FROM generate_series(0, 240, 2) AS hours",
    )
    .await;
    db.ask(
        "DO $$ DECLARE job integer; BEGIN
             FOR job IN SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = 'driver_locations'
                 ORDER BY proc_name DESC LOOP CALL run_job(job); END LOOP;
         END $$",
    )
    .await;
    let oldest = "SELECT extract(epoch FROM now() - min(ts))::int / 3600 BETWEEN 114 AND 127 FROM driver_locations";
    assert_eq!(db.ask(oldest).await, "t", "whole chunks of 6 h go when they are older than 120 h");
    let columns = "SELECT count(*) FILTER (WHERE is_compressed) BETWEEN 14 AND 18 FROM timescaledb_information.chunks
        WHERE hypertable_name = 'driver_locations'";
    assert_eq!(db.ask(columns).await, "t", "those between 24 h and 120 h are columns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_holds_rows_stays_plain_until_its_owner_converts_it() {
    let db = TimescaleDb::start().await;
    db.ask(
        "CREATE TABLE driver_locations (driver_id text NOT NULL, lat double precision NOT NULL,
             lng double precision NOT NULL, heading real, speed real, ts timestamptz NOT NULL);
         INSERT INTO driver_locations VALUES ('driver', 1, 2, NULL, NULL, now())",
    )
    .await;
    assert_eq!(db.prepare(Storage { retention: Some(HOUR), ..storage() }).await, TableKind::Plain);
    assert_eq!(db.ask("SELECT count(*) FROM driver_locations").await, "1");
    db.ask("SELECT create_hypertable('driver_locations', 'ts', migrate_data => true)").await;
    assert_eq!(db.prepare(storage()).await, TableKind::Hypertable);
}
