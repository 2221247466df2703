//! Kafka away, gone and slow.

use std::time::Duration;

use crate::cluster::{LIMIT, PARTITIONS, Running, bootstrap, disturbable};
use crate::phone::{Answer, BATCH, Phone, SINGLE, now_ms, position};

async fn post(ingest: &Running, driver: &str) -> Answer {
    Phone::connect(ingest.address).await.post(SINGLE, &position(driver, now_ms()).to_string()).await
}

async fn until_accepted(ingest: &Running, driver: &str) {
    let accepted = async {
        while post(ingest, driver).await.status != 202 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, accepted).await.expect("Kafka takes events again");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_at_the_start_it_waits_and_then_works() {
    let stack = disturbable().await;
    tokio::task::block_in_place(|| stack.kafka.stop());
    let ingest = Running::start(&stack.kafka.bootstrap(), "faults-absent", &["--ack-timeout=1s"]).await;
    let answer = post(&ingest, "driver-1").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "kafka_unavailable"));
    assert!(!ingest.context.health.is_ready());
    tokio::task::block_in_place(|| stack.kafka.start().unwrap());
    ingest.until_ready(true).await;
    assert_eq!(post(&ingest, "driver-2").await.status, 202);
    let drivers: Vec<_> = ingest.events().await.into_iter().map(|event| event.key).collect();
    assert_eq!(drivers, ["driver-2"], "what was refused as unavailable is certainly not in Kafka");
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_answers_are_503_and_then_202_again() {
    let stack = disturbable().await;
    let ingest = Running::start(&stack.kafka.bootstrap(), "faults-stopped", &["--ack-timeout=500ms"]).await;
    ingest.until_ready(true).await;
    assert_eq!(post(&ingest, "before").await.status, 202);
    tokio::task::block_in_place(|| stack.kafka.kill());
    let single = post(&ingest, "during").await;
    assert_eq!(single.status, 503);
    assert!(["kafka_unavailable", "kafka_timeout"].contains(&single.problem().as_str()), "{single:?}");
    let batch = format!("[{},{{}}]", position("during", now_ms()));
    let batch = Phone::connect(ingest.address).await.post(BATCH, &batch).await;
    assert_eq!(batch.status, 503, "{batch:?}");
    batch.problem();
    ingest.until_ready(false).await;
    tokio::task::block_in_place(|| stack.kafka.start().unwrap());
    until_accepted(&ingest, "after").await;
    ingest.until_ready(true).await;
    let drivers: Vec<_> = ingest.events().await.into_iter().map(|event| event.key).collect();
    for acknowledged in ["before", "after"] {
        assert!(drivers.iter().any(|driver| driver == acknowledged), "{acknowledged} was acknowledged");
    }
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_fills_the_limit_and_then_refuses_at_once() {
    let stack = disturbable().await;
    let flags = ["--ack-timeout=20s", "--max-requests-in-flight=5", "--topic-create=auto"];
    let ingest = Running::start(&stack.kafka.bootstrap(), "faults-frozen", &flags).await;
    ingest.until_ready(true).await;
    stack.kafka.freeze();
    let address = ingest.address;
    let waiting: Vec<_> = (0..5)
        .map(|at| {
            tokio::spawn(async move {
                let body = position(&format!("waiting-{at}"), now_ms()).to_string();
                Phone::connect(address).await.post(SINGLE, &body).await.status
            })
        })
        .collect();
    while ingest.counter("ingest_requests_in_flight") < 5 {
        tokio::task::yield_now().await;
    }
    let answer = post(&ingest, "refused").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too_many_requests_in_flight"));
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&seconds));
    stack.kafka.thaw();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 202);
    }
    assert_eq!(ingest.events().await.len(), 5);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_too_few_partitions_is_an_error_only_when_checked() {
    let made = Running::ready("faults-partitions", &[]).await;
    made.stop().await.unwrap();
    let more = (PARTITIONS + 1).to_string();
    let flags = ["--topic-create=check", "--topic-partitions", &more];
    let checked = Running::start(&bootstrap().await, "faults-partitions", &flags).await;
    let error = checked.ended().await.unwrap_err().to_string();
    assert!(error.contains("--topic-partitions 4") && error.contains("faults-partitions has 3"), "{error}");
    let lenient = Running::ready("faults-partitions", &["--topic-partitions", &more]).await;
    assert_eq!(post(&lenient, "driver-1").await.status, 202);
    lenient.stop().await.unwrap();
}
