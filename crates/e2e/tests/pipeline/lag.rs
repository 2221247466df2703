//! The lag that the exporter shows, against what is known to be in Kafka.

use std::collections::BTreeMap;

use e2e::{Scene, Service, Witness, event, eventually, now_ms, shared};

const PARTITIONS: i32 = 4;

/// Records put into each partition: none into the first.
fn share(partition: i32) -> i32 {
    7 * partition
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_stopped_group_is_exact_and_0_after_its_drain() {
    let scene = Scene::set(shared().await, "lagging", PARTITIONS).await;
    scene.create_topics().await;
    let exporter = scene.lag_exporter(&[]);
    exporter.becomes_ready().await;
    let (analytics, redis) = (scene.analytics_group(), scene.redis_group());

    put(&scene).await;
    let writer = scene.timescale_writer(&[]);
    scene.reaches(&analytics, &scene.ends().await).await;
    shows(&scene, &exporter, &analytics, |_| 0).await;
    writer.terminate();
    assert_eq!(writer.ended().code(), Some(0));

    put(&scene).await;
    shows(&scene, &exporter, &analytics, share).await;
    // A group that is watched by name and has never run lags by all that there is.
    shows(&scene, &exporter, &redis, |partition| 2 * share(partition)).await;

    let _writer = scene.timescale_writer(&[]);
    shows(&scene, &exporter, &analytics, |_| 0).await;
    shows(&scene, &exporter, &redis, |partition| 2 * share(partition)).await;
}

async fn put(scene: &Scene<'_>) {
    let witness = scene.witness().await;
    for partition in 0..PARTITIONS {
        let (driver, now) = (format!("driver-{partition}"), now_ms());
        let times = (0..share(partition)).map(|number| now + i64::from(number));
        let records = times.map(|at| Witness::record(&driver, Some(event(&driver, at)), at)).collect();
        witness.put(scene.topic(), partition, records).await;
    }
}

/// Waits until the lag of every partition is what `expected` says.
async fn shows(scene: &Scene<'_>, exporter: &Service, group: &str, expected: impl Fn(i32) -> i32) {
    let series = |partition| {
        format!("kafka_consumer_lag{{topic=\"{}\",partition=\"{partition}\",group=\"{group}\"}}", scene.topic())
    };
    let expected: BTreeMap<_, _> =
        (0..PARTITIONS).map(|partition| (partition, Some(f64::from(expected(partition))))).collect();
    eventually("the lag is exact", async || {
        let seen: BTreeMap<_, _> =
            (0..PARTITIONS).map(|partition| (partition, exporter.value(&series(partition)))).collect();
        if seen == expected { Ok(()) } else { Err(format!("{group}: {seen:?}, not {expected:?}")) }
    })
    .await;
}
