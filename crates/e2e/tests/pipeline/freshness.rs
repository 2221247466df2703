//! The map is about now: a backlog that has expired is skipped, however long, and what is newest arrives.

use e2e::{Scene, Service, Witness, event, now_ms, shared};

const PARTITIONS: i32 = 3;
/// Expired positions in each partition: many batches of the log.
const EXPIRED: i64 = 20_000;
const LIFE_MS: i64 = 30_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_backlog_is_skipped_and_counted() {
    let scene = Scene::set(shared().await, "stale", PARTITIONS).await;
    scene.create_topics().await;
    let (witness, now) = (scene.witness().await, now_ms());
    for partition in 0..PARTITIONS {
        let old = format!("old-{partition}");
        let times = (0..EXPIRED).map(|number| now - 2 * LIFE_MS - EXPIRED + number);
        let mut records: Vec<_> = times.map(|at| Witness::record(&old, Some(event(&old, at)), at)).collect();
        let fresh = format!("fresh-{partition}");
        records.push(Witness::record(&fresh, Some(event(&fresh, now)), now));
        witness.put(scene.topic(), partition, records).await;
    }
    let writer = scene.redis_writer(&[]);
    let map = scene.map().await;
    map.shows(&(0..PARTITIONS).map(|partition| (format!("fresh-{partition}"), now)).collect()).await;
    scene.reaches(&scene.redis_group(), &scene.ends().await).await;
    for partition in 0..PARTITIONS {
        map.value(&format!("old-{partition}")).await.expect_err("an expired position");
    }
    // Skipping goes by offsets, so that records which are not even read are counted all the same.
    let counted = f64::from(PARTITIONS) * 20_000.0;
    assert_eq!(outcome(&scene, &writer, "expired"), Some(counted));
    assert_eq!(outcome(&scene, &writer, "written"), Some(f64::from(PARTITIONS)));
}

fn outcome(scene: &Scene<'_>, writer: &Service, outcome: &str) -> Option<f64> {
    writer.value(&format!("pipeline_records_total{{group=\"{}\",outcome=\"{outcome}\"}}", scene.redis_group()))
}
