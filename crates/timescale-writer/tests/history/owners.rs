//! Two processes that own a partition at once: one wins, the other is turned away, no row is there twice.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kafka::Producer;
use native::{Launch, Port, Process, Wish};
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::service::{counts, flags, produce, producer};
use crate::world::{World, connect, nth, until};

/// So long that a member learns of nothing by its heartbeats while a test runs.
const LONG: [(&str, &str); 2] = [("--session-timeout", "5m"), ("--heartbeat-interval", "100s")];
/// After a rebalance a member asks more often for this long, whatever its interval.
const ATTENTIVE: Duration = Duration::from_secs(4);

/// From one record to the next.
const PACE: Duration = Duration::from_millis(5);

/// A timescale-writer in a process of its own.
struct Writer {
    process: Process,
    metrics: String,
    _port: Port,
}

impl Writer {
    /// With `more` flags, which replace those that the tests usually give.
    fn start(world: &World, url: &str, more: &[(&str, &str)]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let port = Port::lease(Wish::Any).unwrap();
        let metrics = format!("127.0.0.1:{}", port.number());
        let name = format!("{}-{}", world.name, STARTED.fetch_add(1, Ordering::Relaxed));
        let log = native::target_dir().join("native").join(format!("{name}.log"));
        let mut flags = flags(&world.name, url, &[]);
        for (flag, value) in more.iter().copied().chain([("--metrics-listen", metrics.as_str())]) {
            match flags.iter().position(|given| given == flag) {
                Some(at) => value.clone_into(&mut flags[at + 1]),
                None => flags.extend([flag, value].map(str::to_owned)),
            }
        }
        let launch = Launch::new(name, env!("CARGO_BIN_EXE_timescale-writer"), log).args(flags);
        Self { process: Process::spawn(&launch).unwrap(), metrics, _port: port }
    }

    async fn becomes_ready(&self) {
        let readyz = format!("http://{}/readyz", self.metrics);
        until("it is ready", async || {
            assert_eq!(self.process.status(), None, "{}", self.process.log_tail());
            native::http::get(&readyz).is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// Batches that were turned away.
    fn fenced(&self) -> f64 {
        let metrics = native::http::get(&format!("http://{}/metrics", self.metrics)).unwrap().body;
        let series = timescale_writer::metrics::FENCED;
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// Records `range` of partition 0.
async fn put(world: &World, producer: &Producer, range: std::ops::Range<i64>) {
    for offset in range {
        produce(producer, &world.name, 0, Some(nth(0, offset))).await;
    }
}

/// The same, slowly: two who fetch them cut them into different batches.
async fn trickle(world: &World, producer: &Producer, range: std::ops::Range<i64>) {
    let mut ticks = tokio::time::interval(PACE);
    for offset in range {
        ticks.tick().await;
        put(world, producer, offset..offset + 1).await;
    }
}

async fn becomes(world: &World, rows: i64) {
    until("the rows are written", async || world.rows().await >= rows).await;
}

/// Every record up to `end` is there once.
async fn is_whole(world: &World, end: i64) {
    assert_eq!(counts(world).await, (end, end));
    let query = "SELECT next_offset FROM driver_location_offsets WHERE topic = $1 AND partition = 0";
    assert_eq!(world.client.query_one(query, &[&world.name]).await.unwrap().get::<_, i64>(0), end);
}

/// By mistake two members go by one name. The group gives the partitions to the second, and the first does not hear of
/// it before its next heartbeat. In each round both have a batch from the same offset on in hand, waiting for the
/// database, when it lets them go on. Who gets the same stretch as the other finds it done; who gets another is fenced.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_one_partition_one_is_fenced_and_no_row_is_there_twice() {
    const ROUND: i64 = 40;
    let (world, producer) = (World::bare().await, producer());
    let twin = [LONG.as_slice(), &[("--group-instance-id", "twin")]].concat();
    let first = Writer::start(&world, &world.url, &twin);
    first.becomes_ready().await;
    put(&world, &producer, 0..10).await;
    becomes(&world, 10).await;
    // Not for anything to happen: until this time has passed, it would hear of the second at once.
    tokio::time::sleep_until(Instant::now() + ATTENTIVE).await;
    let second = Writer::start(&world, &world.url, &twin);
    second.becomes_ready().await;

    let rival = connect(&world.url).await;
    let in_hand = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND application_name = 'timescale-writer' AND wait_event_type = 'Lock'";
    let mut end = 10;
    until("one is fenced", async || {
        rival.batch_execute("BEGIN; LOCK TABLE driver_location_offsets IN EXCLUSIVE MODE").await.unwrap();
        trickle(&world, &producer, end..end + ROUND).await;
        end += ROUND;
        let both = async || world.client.query_one(in_hand, &[]).await.unwrap().get::<_, i64>(0) >= 2;
        until("both have a batch in hand", both).await;
        rival.batch_execute("ROLLBACK").await.unwrap();
        becomes(&world, end).await;
        first.fenced() + second.fenced() >= 1.0
    })
    .await;
    assert!(second.process.stop().success());
    is_whole(&world, end).await;
}

/// A process that stands still past its session, with a batch on its way to the database, while another goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_thawed_with_a_batch_in_hand_writes_nothing_twice() {
    let (world, producer) = (World::bare().await, producer());
    let proxy = Proxy::start(&world.url).await;
    let first = Writer::start(&world, &proxy.url, &[("--database-timeout", "1m")]);
    first.becomes_ready().await;
    put(&world, &producer, 0..10).await;
    becomes(&world, 10).await;

    proxy.hold();
    put(&world, &producer, 10..110).await;
    until("a batch is on its way", async || proxy.is_holding()).await;
    first.process.freeze();
    let second = Writer::start(&world, &world.url, &[]);
    becomes(&world, 110).await;
    put(&world, &producer, 110..160).await;
    becomes(&world, 160).await;

    proxy.release();
    first.process.thaw();
    first.becomes_ready().await;
    // The first takes over again.
    assert!(second.process.stop().success());
    put(&world, &producer, 160..210).await;
    becomes(&world, 210).await;
    assert!(first.process.stop().success());
    is_whole(&world, 210).await;
}
