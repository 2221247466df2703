//! SIGTERM to every service under load: exit code 0 in time, and nothing that was acknowledged is lost by it.

use e2e::{Load, Scene, Service, Witness, disturbable, load_turn, now_ms, shared};

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
        service.terminate();
        ends_well(service);
    }
    load.accept(SOME).await;
    ingest.service.terminate();
    ends_well(&ingest.service);
    let posted = load.stop().await;
    assert!(posted.refused.is_empty(), "{:?}", posted.refused);

    let in_kafka = scene.in_kafka(&posted).await;

    // What the writers had not settled is still there for the next ones, and nothing of it was settled twice.
    let _writers = [scene.redis_writer(&[]), scene.timescale_writer(&[])];
    scene.history().becomes(&in_kafka).await;
    scene.drains().await;
    assert!(scene.letters().await.len() >= 2 * usize::try_from(POISON).unwrap());
}

/// What cannot be finished must not hold the end up: it is still in Kafka for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_every_server_hangs_ends_every_service_well() {
    let stack = disturbable().await;
    let _turn = load_turn().await;
    let scene = Scene::set(&stack, "sigterm-hung", PARTITIONS).await;
    let ingest = scene.ingest(&[]);
    let writers = ["redis-writer", "timescale-writer"].map(|name| scene.start(name, &[]));
    let readers = ["dlt-monitor", "lag-exporter"].map(|name| scene.start(name, &[]));
    for service in writers.iter().chain(&readers).chain([&ingest.service]) {
        service.becomes_ready().await;
    }
    let load = Load::start(ingest.address, "driver", DRIVERS);
    load.accept(SOME).await;
    stack.redis.freeze();
    stack.postgres.freeze();
    load.accept(SOME).await;
    stack.kafka.freeze();
    let services = writers.iter().chain(&readers).chain([&ingest.service]);
    services.clone().for_each(Service::terminate);
    services.for_each(ends_well);
    let posted = load.stop().await;

    stack.kafka.thaw();
    stack.postgres.thaw();
    stack.redis.thaw();
    let in_kafka = scene.in_kafka(&posted).await;
    let _writers = [scene.redis_writer(&[]), scene.timescale_writer(&[])];
    scene.history().becomes(&in_kafka).await;
    scene.drains().await;
    assert_eq!(scene.letters().await.len(), 0);
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
    let status = service.ended();
    assert_eq!(status.code(), Some(0), "{status}\n{}", service.log());
    assert!(service.log().contains("stopped") && !service.log().contains("panicked"), "{}", service.log());
}
