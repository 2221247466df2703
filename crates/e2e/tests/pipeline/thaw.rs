//! A redis-writer frozen past its session, with records that it had fetched, and thawed while another has written newer
//! positions, some of them from partitions that were not there before: Redis never steps back.
#![allow(clippy::print_stdout, reason = "the figures of a run are part of what it shows")]

use e2e::{Map, Scene, Service, Stream, Watch, disturbable, eventually, load_turn, now_ms};

use crate::groups::own_each_once;

const PARTITIONS: i32 = 6;
const GROWN: i32 = 9;
const DRIVERS: usize = 600;
const PER_SECOND: usize = 6_000;
/// So that no key disappears while nobody writes it: that would look like a step back.
const LIFE: &str = "--position-ttl=10m";
/// Positions that travel before the next part of the story.
const SOME: usize = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thawed_redis_writer_never_takes_the_map_back() {
    let stack = disturbable().await;
    let _turn = load_turn().await;
    let scene = Scene::set(&stack, "thawed-map", PARTITIONS).await;
    let (group, start) = (scene.redis_group(), || scene.redis_writer(&["--redis-timeout=1s", LIFE]));
    let writers = [start(), start()];
    own_each_once(&scene, &group, &writers, PARTITIONS).await;
    let stream = Stream::start(scene.client(), scene.topic(), DRIVERS, PER_SECOND);
    let map = scene.map().await;
    shows_all_since(&map, &stream, 0).await;
    let watch = Watch::start(scene.map().await, stream.drivers().to_vec());

    // While Redis stands still the first writer cannot get rid of what it has fetched, nor of what it has sent.
    stack.redis.freeze();
    holds_records(&writers[0], &group).await;
    writers[0].freeze();
    stack.redis.thaw();
    own_each_once(&scene, &group, &writers[1..], PARTITIONS).await;
    scene.client().create_partitions(scene.topic(), GROWN).await.unwrap();
    own_each_once(&scene, &group, &writers[1..], GROWN).await;
    shows_all_since(&map, &stream, now_ms()).await;

    writers[0].thaw();
    own_each_once(&scene, &group, &writers, GROWN).await;
    let before = stream.sent();
    eventually("the load goes on", async || match stream.sent() - before {
        sent if sent >= SOME => Ok(()),
        sent => Err(format!("{sent} sent")),
    })
    .await;
    let newest = stream.stop().await;
    map.shows(&newest).await;
    scene.reaches(&group, &scene.expecting(GROWN).ends().await).await;
    let seen = watch.stop().await;
    println!("{} looks at {DRIVERS} drivers", seen.looks);
    assert!(seen.looks > 0 && seen.steps_back.is_empty(), "{:?}", seen.steps_back.iter().take(5).collect::<Vec<_>>());
    assert_eq!(scene.letters().await.len(), 0);
}

/// Waits until every driver is on the map with a position taken since `since`.
async fn shows_all_since(map: &Map, stream: &Stream, since: i64) {
    eventually("every driver is on the map", async || {
        let shown = map.timestamps(stream.drivers()).await?;
        let missing = shown.iter().filter(|shown| shown.is_none_or(|at| at < since)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} of {DRIVERS} drivers are not")) }
    })
    .await;
}

async fn holds_records(writer: &Service, group: &str) {
    let held = |name: &str| writer.value(&format!("{name}{{group=\"{group}\"}}"));
    eventually("the writer holds records that it cannot write", async || {
        let (up, records) = (held("pipeline_sink_up"), held("pipeline_held_records"));
        if up == Some(0.0) && records > Some(0.0) { Ok(()) } else { Err(format!("{up:?} {records:?}")) }
    })
    .await;
}
