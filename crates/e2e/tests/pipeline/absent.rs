//! Kafka is not there when the services start: each says so, is not ready, and becomes ready when Kafka comes.

use e2e::{Phone, Scene, disturbable, eventually, now_ms, position};

const SERVICES: [&str; 4] = ["redis-writer", "timescale-writer", "dlt-monitor", "lag-exporter"];

#[tokio::test(flavor = "multi_thread")]
async fn services_that_start_before_kafka_wait_for_it() {
    let stack = disturbable().await;
    let scene = Scene::set(&stack, "early", 3).await;
    stack.kafka.stop();
    let ingest = scene.ingest(&[]);
    let others = SERVICES.map(|name| scene.start(name, &[]));
    let bootstrap = stack.kafka.bootstrap();
    for service in others.iter().chain([&ingest.service]) {
        eventually(&format!("{} says that Kafka is not there", service.name()), async || {
            let (status, body) = service.readiness()?;
            let log = service.log();
            let is_told = log.lines().any(|line| line.contains(" WARN ") && line.contains(&bootstrap));
            if status == 503 && body.contains(&bootstrap) && is_told { Ok(()) } else { Err(format!("{body}\n{log}")) }
        })
        .await;
        let log = service.log();
        assert!(service.is_running() && !log.contains("panicked"), "{log}");
    }
    let mut phone = Phone::connect(ingest.address).await.unwrap();
    let answer = phone.post(&position("driver-1", now_ms())).await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (503, &"kafka_unavailable".into()), "{answer:?}");

    stack.kafka.start().unwrap();
    for service in others.iter().chain([&ingest.service]) {
        service.becomes_ready().await;
    }
    let taken_at = now_ms();
    let answer = phone.post(&position("driver-1", taken_at)).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    scene.map().await.shows(&[("driver-1".to_owned(), taken_at)].into()).await;
    scene.history().becomes(&[("driver-1".to_owned(), taken_at)]).await;
}
