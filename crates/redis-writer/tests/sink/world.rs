//! Servers, sinks and positions for the tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::{DriverId, DriverLocation};
use kafka::{Offset, PartitionId, Record, TimestampType, TopicPartition};
use native::{Launch, Port, Process, Signal, Stack, StackOptions, Wish};
use pipeline::{Batch, Item, Sink, Slice, WriteError, Written};
use redis_writer::{Conflate, RedisSink, Security, SinkConfig, ValueFormat};

use crate::resp;

pub(crate) const LIFE: Duration = Duration::from_secs(30);
/// Well above what a busy machine needs for an answer, well below the patience of a test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);
/// A sentinel whose disk held it up for two seconds does nothing for the next thirty.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A Redis of its own.
pub(crate) fn redis(name: &str) -> Stack {
    let dir = native::stack_dir(&format!("redis-writer-{name}"));
    Stack::start(StackOptions { dir, kafka: None, redis: true, postgres: false }).unwrap()
}

/// A Redis with settings that only its command line can make.
pub(crate) struct SpecialRedis {
    launch: Launch,
    process: Option<Process>,
    port: Port,
    bus: Option<Port>,
    pub(crate) dir: PathBuf,
}

impl SpecialRedis {
    pub(crate) fn new(name: &str) -> Self {
        let dir = native::stack_dir(&format!("redis-writer-{name}"));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(dir.join("data")).unwrap();
        let port = Port::lease(Wish::Any).unwrap();
        let launch = Launch::new("redis", "redis-server", dir.join("redis.log"));
        // Asked to end it would write a snapshot first, and stay if it cannot.
        let launch = launch.stopped_by(Signal::SIGKILL, PATIENCE).args([
            "--port".to_owned(),
            port.number().to_string(),
            "--bind".to_owned(),
            "127.0.0.1".to_owned(),
            "--dir".to_owned(),
            dir.join("data").display().to_string(),
            "--save".to_owned(),
            String::new(),
        ]);
        Self { launch, process: None, port, bus: None, dir }
    }

    pub(crate) fn with(mut self, setting: &str, value: &str) -> Self {
        self.launch = self.launch.args([format!("--{setting}"), value.to_owned()]);
        self
    }

    /// Makes it a node of a cluster. Its bus gets a port of its own: the usual one, 10,000 above, may be somebody's.
    pub(crate) fn in_a_cluster(mut self) -> Self {
        let bus = Port::lease(Wish::Any).unwrap();
        let bus_port = bus.number().to_string();
        self.bus = Some(bus);
        self.with("cluster-enabled", "yes").with("cluster-port", &bus_port)
    }

    /// Starts it and waits until it answers anything at all.
    pub(crate) fn start(mut self) -> Self {
        self.process = Some(Process::spawn(&self.launch).unwrap());
        let port = self.port();
        native::wait_until(PATIENCE, "Redis listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
            .unwrap();
        self
    }

    /// Kills it (SIGKILL); it can be started again, with the data directory as it was.
    pub(crate) fn kill(&self) {
        self.running().kill();
    }

    pub(crate) fn freeze(&self) {
        self.running().freeze();
    }

    pub(crate) fn thaw(&self) {
        self.running().thaw();
    }

    fn running(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    pub(crate) fn stop(mut self) -> Self {
        self.process = None;
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port of its cluster bus.
    pub(crate) fn bus(&self) -> u16 {
        self.bus.as_ref().unwrap().number()
    }
}

pub(crate) fn config(port: u16) -> SinkConfig {
    SinkConfig {
        url: format!("redis://127.0.0.1:{port}"),
        security: Security { tls: None, username: None, password: None },
        timeout: TIMEOUT,
        position_ttl: LIFE,
        key_prefix: "driver:loc:".to_owned(),
        value_format: ValueFormat::Json,
        conflate: Conflate::On,
        steady_batch: 1_000,
    }
}

/// A sink that is connected.
pub(crate) async fn sink(config: SinkConfig) -> Arc<RedisSink> {
    let sink = Arc::new(RedisSink::start(config).unwrap());
    ready(&sink).await;
    sink
}

/// Waits until the sink says that it works.
pub(crate) async fn ready(sink: &RedisSink) {
    until("the sink is ready", async || sink.probe().await.is_ok()).await;
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

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A position of `driver` that became true at `effective_at_ms` and was received then; `mark` is its speed.
pub(crate) fn position(driver: &str, effective_at_ms: i64, mark: u16) -> DriverLocation {
    DriverLocation {
        driver_id: DriverId::try_from(driver).unwrap(),
        latitude: 40.7128,
        longitude: -74.006,
        heading: Some(90.0),
        speed: Some(f32::from(mark)),
        timestamp_ms: effective_at_ms,
        received_at_ms: effective_at_ms,
        effective_at_ms,
    }
}

/// A batch with one slice that begins at offset 0 of partition 0.
pub(crate) fn batch(positions: impl IntoIterator<Item = DriverLocation>) -> Batch<DriverLocation> {
    let items: Vec<_> =
        positions.into_iter().enumerate().map(|(index, event)| Item::new(record(index, &event), event)).collect();
    let slice = Slice {
        partition: TopicPartition::new("driver-location-updates", PartitionId(0)),
        start: Offset(0),
        next: Offset(items.len() as i64),
        last_timestamp_ms: now_ms(),
        items,
    };
    Batch { slices: vec![slice] }
}

fn record(index: usize, event: &DriverLocation) -> Record {
    Record {
        offset: Offset(index as i64),
        timestamp_ms: event.received_at_ms,
        timestamp_type: TimestampType::CreateTime,
        key: Some(event.driver_id.as_str().to_owned().into()),
        value: Some(event.encode()),
        headers: Vec::new(),
    }
}

pub(crate) async fn write(
    sink: &RedisSink,
    positions: impl IntoIterator<Item = DriverLocation>,
) -> Result<Written, WriteError> {
    sink.write(&batch(positions)).await
}

/// The count of one outcome.
pub(crate) fn count(written: &Written, outcome: &str) -> u64 {
    written.outcomes.iter().filter(|(name, _)| *name == outcome).map(|(_, count)| count).sum()
}

/// What the map shows of a driver.
pub(crate) fn value(port: u16, driver: &str) -> Option<Vec<u8>> {
    resp::command(port, &["GET", &format!("driver:loc:{driver}")]).bytes()
}

/// The mark of the position that the map shows of a driver.
pub(crate) fn mark(port: u16, driver: &str) -> Option<u16> {
    let json: serde_json::Value = serde_json::from_slice(&value(port, driver)?).unwrap();
    json["speed"].as_f64().map(|speed| speed as u16)
}

/// When the key of a driver expires, in ms since the epoch.
pub(crate) fn expires_at(port: u16, driver: &str) -> i64 {
    resp::command(port, &["PEXPIRETIME", &format!("driver:loc:{driver}")]).integer()
}

/// How often Redis ran a command.
pub(crate) fn calls(port: u16, command: &str) -> u64 {
    statistic(port, "commandstats", &format!("cmdstat_{command}:calls="))
}

/// How often Redis answered with an error of that first word.
pub(crate) fn errors(port: u16, word: &str) -> u64 {
    statistic(port, "errorstats", &format!("errorstat_{word}:count="))
}

fn statistic(port: u16, section: &str, prefix: &str) -> u64 {
    let stats = resp::command(port, &["INFO", section]).text();
    let line = stats.lines().find_map(|line| line.strip_prefix(prefix));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}
