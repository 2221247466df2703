//! Servers, sinks and positions for the tests.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use ::service::Health;
use event::{DriverId, DriverLocation};
use kafka::{Offset, PartitionId, Record, TimestampType, TopicPartition};
use native::{KafkaOptions, Stack, StackOptions};
use pipeline::{Batch, Item, Slice};
use timescale_writer::{
    Database, DatabaseConfig, Error, Given, Migrate, SchemaConfig, ServerSettings, SinkConfig, Storage, Switch,
    TableKind, TimescaleSink, TopicId, TopicIds, prepare_schema,
};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

pub(crate) const TOPIC: &str = "driver-location-updates";
pub(crate) const GROUP: &str = "driver-location-analytics";
pub(crate) const TOPIC_ID: TopicId = TopicId([7; 16]);
pub(crate) const NOW: i64 = 1_795_441_689_633;
/// Well above what a busy machine needs for an answer, well below the patience of a test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that all tests share which do not harm it; it ends with this process.
static SHARED: LazyLock<Stack> = LazyLock::new(|| server("shared"));

/// A broker that all tests share which do not harm it. It gives up a silent member after no more than a second.
pub(crate) static KAFKA: LazyLock<Stack> = LazyLock::new(|| {
    let kafka = Some(KafkaOptions::single().set("group.min.session.timeout.ms", 100));
    let dir = native::stack_dir("timescale-writer-kafka");
    Stack::start(StackOptions { dir, kafka, redis: false, postgres: false }).unwrap()
});

/// A TimescaleDB of the caller's that the suite is to run against, as somebody who may create databases.
pub(crate) static GIVEN: LazyLock<Option<String>> = LazyLock::new(|| env::var("TIMESCALE_URL").ok());

/// A server of its own, also where one is given: for tests that stop it, hang it, fill it or change its settings.
pub(crate) fn server(name: &str) -> Stack {
    let dir = native::stack_dir(&format!("timescale-writer-{name}"));
    Stack::start(StackOptions { dir, kafka: None, redis: false, postgres: true }).unwrap()
}

/// A database of its own, on the shared server or on the given one.
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) admin_url: String,
    pub(crate) name: String,
    pub(crate) client: Client,
}

impl World {
    /// Without any table.
    pub(crate) async fn bare() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (url, admin_url) = match &*GIVEN {
            Some(url) => (url.clone(), url.clone()),
            None => (SHARED.postgres.url(), SHARED.postgres.admin_url()),
        };
        let name = format!("writer_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        connect(&url).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (url, admin_url) = (on_database(&url, &name), on_database(&admin_url, &name));
        let client = connect(&url).await;
        Self { url, admin_url, name, client }
    }

    /// With the writer's tables.
    pub(crate) async fn new() -> Self {
        let world = Self::bare().await;
        prepare(&world.url, schema()).await.unwrap();
        world
    }

    pub(crate) fn sink(&self) -> TimescaleSink {
        sink(&self.url, TIMEOUT)
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap();
    }

    pub(crate) async fn rows(&self) -> i64 {
        rows(&self.client).await
    }

    /// The stored offset of a partition.
    pub(crate) async fn offset(&self, partition: i32) -> Option<i64> {
        offset(&self.client, partition).await
    }
}

impl Drop for World {
    /// The databases of the shared server go with it; on a given one they would stay.
    fn drop(&mut self) {
        let Some(url) = GIVEN.as_ref() else { return };
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { connect(url).await.batch_execute(&statement).await })
        });
        let dropped = dropping.join();
        if !thread::panicking() {
            dropped.unwrap().unwrap();
        }
    }
}

/// The same server, another database.
pub(crate) fn on_database(url: &str, name: &str) -> String {
    let (server, rest) = url.rsplit_once('/').unwrap();
    let parameters = rest.split_once('?').map_or_else(String::new, |(_, parameters)| format!("?{parameters}"));
    format!("{server}/{name}{parameters}")
}

/// What the table is to become. Panics where a server is given that cannot make it a hypertable: then nothing is shown.
pub(crate) async fn kind() -> TableKind {
    let Some(url) = GIVEN.as_ref() else { return TableKind::Plain };
    let available = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')";
    let row = connect(url).await.query_one(available, &[]).await.unwrap();
    assert!(
        row.get::<_, bool>(0),
        "this test needs TimescaleDB, and the server of TIMESCALE_URL has no such extension"
    );
    TableKind::Hypertable
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn rows(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM driver_locations", &[]).await.unwrap().get(0)
}

pub(crate) async fn offset(client: &Client, partition: i32) -> Option<i64> {
    let query =
        "SELECT next_offset FROM driver_location_offsets WHERE consumer_group = $1 AND topic = $2 AND partition = $3";
    client.query_opt(query, &[&GROUP, &TOPIC, &partition]).await.unwrap().map(|row| row.get(0))
}

pub(crate) fn schema() -> SchemaConfig {
    SchemaConfig { migrate: Migrate::Auto, storage: storage() }
}

pub(crate) fn storage() -> Storage {
    Storage {
        chunk_interval: Duration::from_hours(1),
        driver_index: Switch::Off,
        columnstore_after: None,
        retention: None,
    }
}

pub(crate) fn database(url: &str, timeout: Duration) -> Arc<Database> {
    let server = ServerSettings::read(Given { url: Some(url), password_file: None }, &|_| None).unwrap();
    Arc::new(Database::new(DatabaseConfig { server, timeout, connections: 2 }))
}

/// Brings the schema up to date.
pub(crate) async fn prepare(url: &str, config: SchemaConfig) -> Result<TableKind, Error> {
    let component = Health::new(CancellationToken::new()).component("schema");
    let database = database(url, TIMEOUT);
    tokio::time::timeout(PATIENCE, prepare_schema(&database, config, &component)).await.expect("an answer")
}

pub(crate) fn sink(url: &str, timeout: Duration) -> TimescaleSink {
    sink_of(url, timeout, GROUP, TOPIC_ID)
}

pub(crate) fn sink_of(url: &str, timeout: Duration, group: &str, topic_id: TopicId) -> TimescaleSink {
    let config = SinkConfig { group: group.to_owned(), topic_ids: TopicIds::Fixed(topic_id) };
    TimescaleSink::new(database(url, timeout), config)
}

/// Asks until the answer is yes.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}

pub(crate) fn position(driver: &str, effective_at_ms: i64) -> DriverLocation {
    DriverLocation {
        driver_id: DriverId::try_from(driver).unwrap(),
        latitude: 40.7128,
        longitude: -74.006,
        heading: Some(90.0),
        speed: Some(31.5),
        timestamp_ms: effective_at_ms,
        received_at_ms: effective_at_ms,
        effective_at_ms,
    }
}

/// Where record `offset` of `partition` has its latitude from, so that tests can tell rows apart.
pub(crate) fn nth(partition: i32, offset: i64) -> DriverLocation {
    position(&format!("driver-{partition}-{offset}"), NOW + offset)
}

pub(crate) fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, PartitionId(partition))
}

/// Records `from` to before `to` of a partition.
pub(crate) fn slice(partition: i32, from: i64, to: i64) -> Slice<DriverLocation> {
    slice_of(partition, from, (from..to).map(|offset| nth(partition, offset)))
}

/// Given positions as the records of a partition from `from` on.
pub(crate) fn slice_of(
    partition: i32,
    from: i64,
    events: impl IntoIterator<Item = DriverLocation>,
) -> Slice<DriverLocation> {
    let items: Vec<_> = (from..).zip(events).map(|(offset, event)| Item::new(record(offset, &event), event)).collect();
    let next = Offset(from + i64::try_from(items.len()).unwrap());
    Slice { partition: tp(partition), start: Offset(from), next, last_timestamp_ms: NOW, items }
}

pub(crate) fn batch(slices: impl IntoIterator<Item = Slice<DriverLocation>>) -> Batch<DriverLocation> {
    Batch { slices: slices.into_iter().collect() }
}

fn record(offset: i64, event: &DriverLocation) -> Record {
    Record {
        offset: Offset(offset),
        timestamp_ms: event.received_at_ms,
        timestamp_type: TimestampType::CreateTime,
        key: Some(event.driver_id.as_str().to_owned().into()),
        value: Some(event.encode()),
        headers: Vec::new(),
    }
}
