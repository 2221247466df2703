//! `redrive`: each original goes back once, as it was; what must stay stays.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka::{PartitionId, partition_for_key};

use crate::world::{PARTITIONS, TIME, World, about, client, header, original, traces};

#[tokio::test(flavor = "multi_thread")]
async fn an_original_goes_back_once_as_it_was() {
    let world = World::new("once").await;
    world.publish("redis", about(0..30, "missing_latitude")).await;
    world.publish("analytics", about(0..30, "missing_latitude")).await;
    let report = world.redrive(&[]).await;
    assert_eq!((&report["sent"], &report["read"]), (&30.into(), &60.into()), "{report}");
    assert_eq!(report["stays"], serde_json::json!({"duplicate": 30}));
    let back = world.back().await;
    assert_eq!(traces(&back), (0..30).map(|number| (number, 1)).collect());
    for (partition, found) in &back {
        let number: i32 = header(&found.record, "trace").unwrap().parse().unwrap();
        let (was, expected) = original(number);
        let record = &found.record;
        assert_eq!(record.key.as_deref(), expected.key.as_deref());
        assert_eq!(record.value.as_deref(), expected.value.as_deref());
        assert_eq!(record.timestamp.timestamp_millis(), expected.timestamp_ms);
        assert_eq!(PartitionId(*partition), partition_for_key(expected.key.as_ref().unwrap(), PARTITIONS));
        let names: Vec<_> = record.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["redrive-count", "redrive-of", "trace"], "no header of a letter is left");
        assert_eq!(header(record, "redrive-count"), Some("1"));
        assert_eq!(header(record, "redrive-of"), Some(format!("once-{was}@{number}").as_str()));
    }
    assert_eq!(world.redrive(&[]).await["sent"], 0, "nothing is left");
    assert_eq!(world.count("once").await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_a_slow_group_is_no_second_original_in_a_later_run() {
    let world = World::new("slow-group").await;
    world.publish("redis", about(0..10, "missing_latitude")).await;
    assert_eq!(world.redrive(&["--name", "fix"]).await["sent"], 10);
    world.publish("analytics", about(0..12, "missing_latitude")).await;
    let report = world.redrive(&["--name", "fix"]).await;
    assert_eq!((&report["sent"], &report["stays"]["duplicate"]), (&2.into(), &10.into()), "{report}");
    assert_eq!(traces(&world.back().await), (0..12).map(|number| (number, 1)).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_and_writes_nothing() {
    let world = World::new("dry").await;
    world.publish("redis", about(0..5, "missing_latitude")).await;
    let text = world.done(&["redrive", "--dry-run"]).await;
    assert!(text.contains("would send  5") && !text.contains("driver-secret"), "{text}");
    for number in 0..5 {
        let (partition, record) = original(number);
        let to = partition_for_key(record.key.as_ref().unwrap(), PARTITIONS);
        let line = format!("dry-{partition}@{number}  ->  dry-{to}  key #");
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert_eq!(world.count("dry").await, 0);
    assert_eq!(world.count("dry.DLT").await, 5);
    let committed = client().committed_offsets("dry.DLT.redrive.all", None).await.unwrap();
    assert_eq!(committed, [], "nothing is committed");
    assert_eq!(world.redrive(&[]).await["sent"], 5, "and nothing is counted as done");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_goes_back_and_each_filter_has_its_progress() {
    let world = World::new("chosen").await;
    world.publish("redis", about(0..10, "missing_latitude")).await;
    world.publish("redis", about(10..20, "undecodable")).await;
    let report = world.redrive(&["--reason", "undecodable", "--max", "4"]).await;
    assert_eq!(report["sent"], 4, "{report}");
    assert_eq!(world.redrive(&["--reason", "undecodable"]).await["sent"], 6);
    assert_eq!(world.redrive(&["--reason", "missing_latitude"]).await["sent"], 10, "not skipped by the other one");
    assert_eq!(traces(&world.back().await), (0..20).map(|number| (number, 1)).collect());
    world.redrive(&["--name", "mine", "--key", "driver-secret-3"]).await;
    let done = world.run(&["redrive", "--yes", "--name", "mine"]).await;
    assert!(done.refusal(64).contains("--name mine: was begun with --key #"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_came_back_too_often_stays() {
    let world = World::new("loop").await;
    let with_count = |number: i32, count: &'static str| {
        let (partition, mut record) = original(number);
        record.headers.push(("redrive-count".to_owned(), Some(Bytes::from_static(count.as_bytes()))));
        (partition, record, "missing_latitude")
    };
    world.publish("redis", [with_count(0, "3"), with_count(1, "2"), with_count(2, "9")]).await;
    let report = world.redrive(&[]).await;
    assert_eq!((&report["sent"], &report["stays"]["max_redrives"]), (&1.into(), &2.into()), "{report}");
    let back = world.back().await;
    assert_eq!(header(&back[0].1.record, "redrive-count"), Some("3"));
    assert_eq!(world.redrive(&["--name", "more", "--max-redrives", "5"]).await["sent"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_topic_and_the_time_of_sending_can_be_asked_for() {
    let world = World::new("elsewhere").await;
    let repair = World::new("elsewhere-repair").await;
    world.publish("redis", about(0..6, "missing_latitude")).await;
    world.put(0, b"bare", Some(b"no headers at all"), BTreeMap::new()).await;
    let plain = world.run(&["redrive", "--dry-run"]).await;
    assert!(plain.stdout.contains("unknown_original"), "{plain:?}");
    let report = world.redrive(&["--to", "elsewhere-repair", "--timestamp", "now"]).await;
    assert_eq!(report["sent"], 7, "{report}");
    let found = repair.back().await;
    assert!(found.iter().all(|(_, found)| found.record.timestamp.timestamp_millis() != TIME));
    assert!(
        found.iter().any(|(_, found)| header(&found.record, "redrive-of") == Some("elsewhere.DLT-0@2")),
        "{found:?}"
    );
    assert_eq!(world.count("elsewhere").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_not_exceeded() {
    let world = World::new("paced").await;
    world.publish("redis", about(0..600, "missing_latitude")).await;
    let report = world.redrive(&["--rate", "300/s", "--timestamp", "now"]).await;
    assert_eq!(report["sent"], 600);
    let back = world.back().await;
    let times: Vec<_> = back.iter().map(|(_, found)| found.record.timestamp.timestamp_millis()).collect();
    assert_eq!(times.len(), 600);
    // 600 records at 300/s take 2 s. How far a busy machine stays below the rate is not for a test to judge.
    assert!(report["seconds"].as_f64().unwrap() > 1.8, "{report}");
}
