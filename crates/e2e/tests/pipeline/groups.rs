//! Several writers of one group: who owns what, who takes over, and that no record is missed or written twice by it.

use std::collections::BTreeSet;

use e2e::{Load, Posted, Scene, Service, eventually, load_turn, shared};

const PARTITIONS: i32 = 12;
const DRIVERS: usize = 20;
/// Positions that travel between one change of the group and the next.
const SOME: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn timescale_writers_share_the_partitions_and_take_over_from_a_killed_one() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "history-group", PARTITIONS).await;
    let ingest = scene.ingest(&[]);
    ingest.service.becomes_ready().await;
    let load = Load::start(ingest.address, "driver", DRIVERS);
    let group = scene.analytics_group();
    let mut writers = vec![scene.timescale_writer(&[])];
    grow_and_shrink(&scene, &group, &mut writers, || scene.timescale_writer(&[]), &load).await;
    let posted = all_accepted(load).await;
    scene.history().becomes(&posted.accepted).await;
    scene.reaches(&group, &scene.ends().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_writers_share_the_partitions_and_take_over_from_a_killed_one() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "map-group", PARTITIONS).await;
    let ingest = scene.ingest(&[]);
    ingest.service.becomes_ready().await;
    let load = Load::start(ingest.address, "driver", DRIVERS);
    let group = scene.redis_group();
    let mut writers = vec![scene.redis_writer(&[])];
    grow_and_shrink(&scene, &group, &mut writers, || scene.redis_writer(&[]), &load).await;
    let posted = all_accepted(load).await;
    scene.map().await.shows(&posted.newest()).await;
    scene.reaches(&group, &scene.ends().await).await;
}

/// A frozen member loses its partitions; thawed, it still holds records that the next owner has written meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_thawed_timescale_writer_writes_nothing_twice() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "thawed", PARTITIONS).await;
    let ingest = scene.ingest(&[]);
    ingest.service.becomes_ready().await;
    let load = Load::start(ingest.address, "driver", DRIVERS);
    let group = scene.analytics_group();
    let writers = [scene.timescale_writer(&[]), scene.timescale_writer(&[])];
    own_each_partition_once(&scene, &group, &writers).await;
    load.accept(SOME).await;
    writers[0].freeze();
    own_each_partition_once(&scene, &group, &writers[1..]).await;
    load.accept(SOME).await;
    writers[0].thaw();
    own_each_partition_once(&scene, &group, &writers).await;
    load.accept(SOME).await;
    let posted = all_accepted(load).await;
    scene.history().becomes(&posted.accepted).await;
}

/// One member, two, three; then one is killed and the others take its partitions, all under load.
async fn grow_and_shrink(
    scene: &Scene<'_>,
    group: &str,
    writers: &mut Vec<Service>,
    one_more: impl Fn() -> Service,
    load: &Load,
) {
    own_each_partition_once(scene, group, writers).await;
    for _ in 0..2 {
        writers.push(one_more());
        own_each_partition_once(scene, group, writers).await;
        load.accept(SOME).await;
    }
    writers.remove(0).kill();
    own_each_partition_once(scene, group, writers).await;
    load.accept(SOME).await;
}

async fn own_each_partition_once(scene: &Scene<'_>, group: &str, members: &[Service]) {
    own_each_once(scene, group, members, PARTITIONS).await;
}

/// Waits until Kafka and the members agree that each partition has one owner, in even shares.
pub(crate) async fn own_each_once(scene: &Scene<'_>, group: &str, members: &[Service], partitions: i32) {
    let all: BTreeSet<i32> = (0..partitions).collect();
    let series = format!("pipeline_assigned_partitions{{group=\"{group}\"}}");
    eventually("every partition has one owner", async || {
        let described = scene.client().describe_groups(&[group]).await.map_err(|error| error.to_string())?;
        let shares: Vec<Vec<i32>> = described
            .iter()
            .flat_map(|group| &group.members)
            .map(|member| member.partitions.iter().map(|place| place.partition.0).collect())
            .collect();
        let owned = shares.concat();
        let is_even = shares.iter().map(Vec::len).max() <= shares.iter().map(|share| share.len() + 1).min();
        let is_once = owned.len() == all.len() && owned.iter().copied().collect::<BTreeSet<_>>() == all;
        let said: Vec<_> = members.iter().map(|member| member.value(&series).unwrap_or(0.0)).collect();
        let agree = said.iter().sum::<f64>() == f64::from(partitions);
        if shares.len() == members.len() && is_even && is_once && agree {
            return Ok(());
        }
        Err(format!("Kafka: {shares:?}; members: {said:?}"))
    })
    .await;
}

/// Ends the load; the ingest was never disturbed, so it took everything.
async fn all_accepted(load: Load) -> Posted {
    let posted = load.stop().await;
    assert!(posted.refused.is_empty() && posted.unknown.is_empty(), "{:?} {:?}", posted.refused, posted.unknown);
    posted
}
