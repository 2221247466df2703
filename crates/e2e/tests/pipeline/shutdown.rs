//! SIGTERM to every service under load: exit code 0 in time, and nothing that was acknowledged is lost by it.

use std::collections::BTreeSet;

use e2e::{Load, Moment, Scene, Service, Witness, load_turn, now_ms, shared};

const PARTITIONS: i32 = 6;
const DRIVERS: usize = 20;
const SOME: usize = 500;
const POISON: i32 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_ends_every_service_well() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "sigterm", PARTITIONS).await;
    let ingest = scene.ingest(&[]);
    let others = ["redis-writer", "timescale-writer", "dlt-monitor", "lag-exporter"].map(|name| scene.start(name, &[]));
    for service in others.iter().chain([&ingest.service]) {
        service.becomes_ready().await;
    }
    let load = Load::start(ingest.address, "driver", DRIVERS);
    load.accept(SOME).await;
    put_poison(&scene).await;
    for service in &others {
        load.accept(SOME).await;
        ends_well(service);
    }
    load.accept(SOME).await;
    ends_well(&ingest.service);
    let posted = load.stop().await;
    assert!(posted.refused.is_empty(), "{:?}", posted.refused);

    let in_kafka = moments_in_kafka(&scene).await;
    let lost: Vec<_> = posted.accepted.iter().filter(|moment| !in_kafka.contains(*moment)).collect();
    assert!(lost.is_empty(), "acknowledged, and not in Kafka: {lost:?}");
    let told: BTreeSet<_> = posted.accepted.iter().chain(&posted.unknown).collect();
    assert!(in_kafka.iter().all(|moment| told.contains(moment)), "nothing else is in Kafka");

    // What the writers had not settled is still there for the next ones, and nothing of it was settled twice.
    let _writers = [scene.redis_writer(&[]), scene.timescale_writer(&[])];
    scene.history().becomes(&in_kafka.into_iter().collect::<Vec<_>>()).await;
    let ends = scene.ends().await;
    for group in [scene.redis_group(), scene.analytics_group()] {
        scene.reaches(&group, &ends).await;
    }
    assert!(scene.letters().await.len() >= 2 * usize::try_from(POISON).unwrap());
}

/// Also the dlt-monitor shall have something to do.
async fn put_poison(scene: &Scene<'_>) {
    let witness = scene.witness().await;
    for number in 0..POISON {
        let record = Witness::record("driver-p", None, now_ms());
        witness.put(scene.topic(), number % PARTITIONS, vec![record]).await;
    }
}

/// The limit is the service's own: it would end with another code when its drain took longer.
fn ends_well(service: &Service) {
    service.terminate();
    let status = service.ended();
    assert_eq!(status.code(), Some(0), "{status}\n{}", service.log());
    assert!(service.log().contains("stopped") && !service.log().contains("panicked"), "{}", service.log());
}

/// Every event in Kafka, as the witness reads it; fails on one that is there twice.
async fn moments_in_kafka(scene: &Scene<'_>) -> BTreeSet<Moment> {
    let mut moments = BTreeSet::new();
    for found in scene.witness().await.read(scene.topic(), PARTITIONS).await {
        if let Some(moment) = found.moment() {
            assert!(moments.insert(moment.clone()), "{moment:?} is in Kafka twice");
        }
    }
    moments
}
