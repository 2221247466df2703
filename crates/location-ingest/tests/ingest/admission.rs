//! Lag of a real group, told to phones: stretched, refused when early, calm again, and blind without consequence.

use std::time::Duration;

use kafka::{Client, ClientConfig, CommitMetadata, Offset, PartitionId, TopicPartition};

use crate::cluster::{LIMIT, PARTITIONS, Running, by_driver};
use crate::phone::{Answer, BATCH, Phone, SINGLE, now_ms, position};

/// Sets the group's offsets: everything processed until `processed_until_ms`, which is before what is in the topic.
async fn commit(ingest: &Running, group: &str, next: i64, processed_until_ms: i64) {
    let client = Client::new(ClientConfig::new(vec![ingest.bootstrap.clone()], "test"));
    let metadata = CommitMetadata { timestamp_ms: processed_until_ms }.encode();
    let positions: Vec<_> = (0..PARTITIONS)
        .map(|number| (TopicPartition::new(ingest.topic.as_str(), PartitionId(number)), Offset(next), metadata.clone()))
        .collect();
    let committed = async {
        // The coordinator of a new cluster takes a moment to be there.
        while client.alter_offsets(group, &positions).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, committed).await.expect("the offsets are set");
}

async fn post(ingest: &Running, driver: &str) -> Answer {
    Phone::connect(ingest.address).await.post(SINGLE, &position(driver, now_ms()).to_string()).await
}

/// Posts as `driver` until the answer is as wanted.
async fn until(ingest: &Running, driver: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let found = async {
        loop {
            let answer = post(ingest, driver).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("an answer as wanted")
}

fn told_ms(answer: &Answer) -> u64 {
    let told = answer.header("x-next-update-ms").unwrap().parse().unwrap();
    assert_eq!(answer.json()["nextUpdateMs"], told, "{answer:?}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_behind_stretches_refuses_the_early_and_calms_again() {
    let group = "admission-group";
    let ingest = Running::ready("admission-behind", &[&format!("--admission-groups={group}")]).await;
    for driver in 0..30 {
        let answer = post(&ingest, &format!("driver-{driver}")).await;
        assert_eq!((answer.status, told_ms(&answer)), (202, 2_000), "a group that never committed is unknown");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"position\";q=1;w=2"));
        assert_eq!(answer.header("ratelimit"), Some("\"position\";r=0;t=2"));
    }
    commit(&ingest, group, 0, now_ms() - 20_000).await;
    let early = until(&ingest, "driver-1", |answer| answer.status == 429).await;
    assert_eq!(early.problem(), "too_early");
    let body = early.json();
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body["violated-policies"], serde_json::json!(["position"]));
    let told = told_ms(&early);
    assert!((2_000..=10_000).contains(&told), "{told}");
    let retry_after: u64 = early.header("retry-after").unwrap().parse().unwrap();
    assert!((retry_after * 1_000).abs_diff(told) <= 500, "{early:?}");

    let stretched = until(&ingest, "driver-1", |answer| answer.status == 202 && told_ms(answer) > 2_000).await;
    assert!(told_ms(&stretched) <= 10_000);
    let text = ingest.context.admin.render();
    assert!(text.contains("ingest_admission_verdict{verdict=\"stopped\"} 1"), "{text}");
    assert!(ingest.counter("ingest_problems_total{code=\"too_early\"}") > 0);
    assert!(ingest.counter("ingest_events_refused_total") > 0);

    commit(&ingest, group, i64::MAX / 2, now_ms()).await;
    let calm = until(&ingest, "driver-1", |answer| answer.status == 202 && told_ms(answer) == 2_000).await;
    assert_eq!(calm.header("ratelimit"), Some("\"position\";r=0;t=2"));
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_batch_each_driver_has_one_turn_for_all_its_positions() {
    let group = "admission-batch-group";
    let ingest = Running::ready("admission-batch", &[&format!("--admission-groups={group}")]).await;
    assert_eq!(post(&ingest, "driver-0").await.status, 202);
    for number in 1..30 {
        assert_eq!(post(&ingest, &format!("driver-{number}")).await.status, 202);
    }
    commit(&ingest, group, 0, now_ms() - 60_000).await;
    until(&ingest, "driver-1", |answer| answer.status == 429).await;
    // Long enough for everyone's promise of two seconds to be over: most of these drivers are not in turn.
    let start = now_ms() - 1_000;
    let items: Vec<_> = (0..200)
        .flat_map(|driver| (0..2).map(move |at| position(&format!("fresh-{driver}"), start + at).to_string()))
        .collect();
    let batch = format!("[{}]", items.join(","));
    let mixed = async {
        loop {
            let answer = Phone::connect(ingest.address).await.post(BATCH, &batch).await;
            if answer.status == 200 && !answer.json()["rejected"].as_array().unwrap().is_empty() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let before = ingest.events().await.len();
    let answer = tokio::time::timeout(LIMIT, mixed).await.expect("some are in turn, and some are not").json();
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!(answer["accepted"].as_u64().unwrap() as usize + rejected.len(), items.len());
    assert!(rejected.iter().all(|item| item["code"] == "too_early" && item["retry"] == true), "{answer}");
    let indices: Vec<_> = rejected.iter().map(|item| item["index"].as_u64().unwrap()).collect();
    assert!(indices.chunks(2).all(|pair| pair[0] + 1 == pair[1] && pair[0] % 2 == 0), "both or none: {indices:?}");
    let events = ingest.events().await;
    assert!(events.len() >= before && by_driver(&events).len() > 30);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_who_sends_too_much_is_held_to_its_rate() {
    let flags = ["--max-driver-rate=1", "--max-batch-positions=5"];
    let ingest = Running::ready("admission-rate", &flags).await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(post(&ingest, "driver-1").await);
    }
    let taken = answers.iter().filter(|answer| answer.status == 202).count();
    assert!((5..10).contains(&taken), "a burst of five, and one a second: {taken}");
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.problem(), "too_many_items");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["driver"]));
    assert_eq!(post(&ingest, "driver-2").await.status, 202, "each driver has its own");
    ingest.stop().await.unwrap();
}
