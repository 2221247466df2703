//! Redis frozen under load: the writer holds what fits, loses nothing and accuses no record, and the map is fresh soon
//! after. 15 s of it in `make test`; with LONG=1 (`make test-long`) the whole minute.
#![allow(clippy::print_stdout, reason = "the figures of a run are part of what it shows")]

use std::env;
use std::time::Duration;

use e2e::{Map, Scene, Service, Stream, disturbable, eventually, eventually_within, load_turn, now_ms};
use tokio::time::Instant;

const PARTITIONS: i32 = 12;
const PER_SECOND: usize = 20_000;
/// Each posts twice a second.
const DRIVERS: usize = 10_000;
/// Older than this may no position be that nobody has seen yet.
const STALENESS_MS: i64 = 2_000;
/// Three times the promise.
const FRESH_LIMIT: Duration = Duration::from_secs(30);
/// Resident memory that redis-writer never exceeds.
const MEMORY_LIMIT: u64 = 96 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_costs_bounded_memory_no_record_and_seconds_of_freshness() {
    let stack = disturbable().await;
    let _turn = load_turn().await;
    let scene = Scene::set(&stack, "frozen-redis", PARTITIONS).await;
    let writer = scene.redis_writer(&[]);
    writer.becomes_ready().await;
    let stream = Stream::start(scene.client(), scene.topic(), DRIVERS, PER_SECOND);
    let map = scene.map().await;
    becomes_fresh(&map, &stream).await;
    assert_eq!(metric(&scene, &writer, "pipeline_retries_total", ""), Some(0.0), "nothing to repeat yet");

    freeze(&scene, &writer, &stream, || stack.redis.freeze()).await;
    stack.redis.thaw();
    let thawed = Instant::now();
    becomes_fresh(&map, &stream).await;
    println!("fresh {:.1} s after the thaw", thawed.elapsed().as_secs_f64());

    let newest = stream.stop().await;
    scene.reaches(&scene.redis_group(), &scene.ends().await).await;
    map.shows(&newest).await;
    let memory = writer.memory().unwrap();
    println!("redis-writer: {} MiB, at most {} MiB", memory.resident >> 20, memory.peak >> 20);
    assert!(memory.peak <= MEMORY_LIMIT, "{memory:?}");
    let faults = metric(&scene, &writer, "pipeline_sink_faults_total", ",kind=\"sink\"");
    let retries = metric(&scene, &writer, "pipeline_retries_total", "");
    println!("{} attempts repeated", retries.unwrap_or_default());
    assert!(retries > Some(0.0) && retries == faults, "each failed attempt is repeated once: {retries:?}, {faults:?}");
    assert_eq!(scene.letters().await.len(), 0, "a fault of a sink is no fault of a record");
}

/// Redis is frozen for its time; the writer must have noticed, and keep its bounds.
async fn freeze(scene: &Scene<'_>, writer: &Service, stream: &Stream, act: impl FnOnce()) {
    let seconds = if env::var_os("LONG").is_some() { 60 } else { 15 };
    let (since, sent) = (Instant::now(), stream.sent());
    act();
    eventually("the writer says that Redis is down", async || {
        let up = metric(scene, writer, "pipeline_sink_up", "");
        if up == Some(0.0) { Ok(()) } else { Err(format!("pipeline_sink_up {up:?}")) }
    })
    .await;
    let mut most = 0;
    eventually("the freeze has lasted", async || {
        assert_eq!(metric(scene, writer, "pipeline_sink_up", ""), Some(0.0), "{}", writer.log());
        most = most.max(writer.memory()?.resident);
        assert!(most <= MEMORY_LIMIT, "{most} bytes");
        let lasted = since.elapsed().as_secs();
        if lasted >= seconds { Ok(()) } else { Err(format!("{lasted} of {seconds} s")) }
    })
    .await;
    println!("frozen {seconds} s, {} positions, redis-writer {} MiB", stream.sent() - sent, most >> 20);
}

/// Every driver's newest position is on the map, or one so young that what came after it cannot be stale yet.
async fn becomes_fresh(map: &Map, stream: &Stream) {
    eventually_within(FRESH_LIMIT, "the map is fresh", async || {
        // In this order: what is sent in between makes the map look older, never newer.
        let shown = map.timestamps(stream.drivers()).await?;
        let (newest, now) = (stream.newest(), now_ms());
        let is_fresh = |(shown, newest): &(Option<i64>, i64)| {
            *newest > 0 && shown.is_some_and(|shown| shown >= *newest || now - shown <= STALENESS_MS)
        };
        let stale = shown.into_iter().zip(newest).filter(|pair| !is_fresh(pair)).count();
        if stale == 0 { Ok(()) } else { Err(format!("{stale} of {DRIVERS} drivers are stale")) }
    })
    .await;
}

fn metric(scene: &Scene<'_>, writer: &Service, name: &str, labels: &str) -> Option<f64> {
    writer.value(&format!("{name}{{group=\"{}\"{labels}}}", scene.redis_group()))
}
