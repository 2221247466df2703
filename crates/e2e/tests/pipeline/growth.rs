//! A topic that gets more partitions while everything runs.

use e2e::{Load, Scene, eventually, load_turn, shared};

const DRIVERS: usize = 20;
const SOME: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_grows_under_load_loses_nothing() {
    let _turn = load_turn().await;
    let small = Scene::set(shared().await, "growth", 3).await;
    let ingest = small.ingest(&[]);
    let writers = [small.redis_writer(&[]), small.timescale_writer(&[])];
    for service in writers.iter().chain([&ingest.service]) {
        service.becomes_ready().await;
    }
    let load = Load::start(ingest.address, "driver", DRIVERS);
    load.accept(SOME).await;
    small.client().create_partitions(small.topic(), 6).await.unwrap();
    let large = small.expecting(6);
    eventually("positions arrive in the new partitions", async || {
        let ends = large.ends().await;
        if ends.range(3..).any(|(_, end)| *end > 0) { Ok(()) } else { Err(format!("{ends:?}")) }
    })
    .await;
    load.accept(SOME).await;
    let posted = load.stop().await;
    assert!(posted.refused.is_empty() && posted.unknown.is_empty(), "{:?} {:?}", posted.refused, posted.unknown);
    large.history().becomes(&posted.accepted).await;
    large.map().await.shows(&posted.newest()).await;
    large.drains().await;
}
