//! Commits at known offsets of a known timeline, with our metadata and without: through a spike, a pause, a stop, a drain
//! and idleness.

use std::time::Duration;

use crate::scene::{Exporter, Timeline, bootstrap, commit, create, now_ms, ours};

/// One interval, and what Kafka and a busy machine need for a collection.
const EXACT: f64 = 0.6;
const ABOUT: f64 = 1.0;
/// Between puts, so that the records of a timeline differ in time.
const STEP: Duration = Duration::from_millis(300);

/// Plays the same timeline for a group whose commits tell the time, and for one whose do not.
async fn plays(name: &str, metadata: fn(&Timeline, i64) -> String, slack: f64) {
    let (brokers, topic, group) = (bootstrap(), format!("timeline-{name}"), format!("timeline-{name}"));
    create(&brokers, &topic, 1).await;
    let mut timeline = Timeline::of(&brokers, &topic, 0).await;
    let place = (topic.as_str(), 0, group.as_str());
    let committed = async |timeline: &Timeline, offset| {
        commit(&brokers, &group, &topic, 0, offset, metadata(timeline, offset)).await;
    };

    timeline.put(10).await;
    committed(&timeline, 10).await;
    let exporter = Exporter::start(&brokers, &group, &["--window", "5s"]).await;
    exporter.shows(place, 0, None, 0.0).await;

    // A spike: more comes than is processed.
    let spike_ms = now_ms();
    for _ in 0..4 {
        timeline.put(500).await;
        tokio::time::sleep(STEP).await;
    }
    exporter.shows(place, 2_000, Some(timeline.at_ms(10)), slack).await;
    assert!(timeline.at_ms(10) >= spike_ms);

    // It processes half of it, and is as late as the oldest of the rest.
    committed(&timeline, 1_010).await;
    exporter.shows(place, 1_000, Some(timeline.at_ms(1_010)), slack + 0.3).await;

    // A pause, then a stop: the oldest record ages, and records come.
    timeline.put(5).await;
    exporter.shows(place, 1_005, Some(timeline.at_ms(1_010)), slack + 0.3).await;
    let stopped = exporter.until("a verdict", |scrape| scrape.verdict(&group, "stopped")).await;
    assert!(stopped.seconds(&topic, 0, &group).unwrap() > 4.0, "it has stood still for a window");
    assert_eq!(stopped.group("kafka_consumer_group_members", &group), Some(0.0));

    // A drain.
    committed(&timeline, timeline.end()).await;
    let drained = exporter.until("drained", |scrape| scrape.lag(&topic, 0, &group) == Some(0.0)).await;
    assert_eq!(drained.group("kafka_consumer_group_lag_seconds_max", &group), Some(0.0));
    assert_eq!(drained.group("kafka_consumer_group_drain_seconds", &group), Some(0.0));

    // Idleness: nothing comes, nothing waits, and the next record is not as late as the last one is old.
    exporter
        .until("a second of idleness", |scrape| {
            scrape.group("kafka_consumer_group_commit_age_seconds", &group) > Some(1.5)
        })
        .await;
    timeline.put(1).await;
    exporter.shows(place, 1, Some(timeline.at_ms(timeline.end() - 1)), slack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_carry_the_time_are_exact_through_spike_pause_stop_drain_and_idleness() {
    plays("ours", ours, EXACT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_commits_are_known_to_a_second_through_spike_pause_stop_drain_and_idleness() {
    plays("others", |_, _| String::new(), ABOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn just_after_a_start_one_record_after_an_idle_time_is_as_old_as_it_is() {
    let brokers = bootstrap();
    create(&brokers, "restarted", 1).await;
    let mut timeline = Timeline::of(&brokers, "restarted", 0).await;
    timeline.put(10).await;
    let hour_ago = kafka::CommitMetadata { timestamp_ms: now_ms() - 3_600_000 }.encode();
    commit(&brokers, "restarted-ours", "restarted", 0, 10, hour_ago).await;
    commit(&brokers, "restarted-others", "restarted", 0, 10, String::new()).await;
    timeline.put(1).await;
    let exporter = Exporter::start(&brokers, "restarted-*", &[]).await;
    for group in ["restarted-ours", "restarted-others"] {
        exporter.shows(("restarted", 0, group), 1, Some(timeline.at_ms(10)), EXACT).await;
        let method = format!(r#"kafka_consumer_group_time_lag_info{{group="{group}",method="record"}}"#);
        assert_eq!(exporter.scrape().value(&method), Some(1.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_never_committed_lag_by_all_that_they_hold() {
    let brokers = bootstrap();
    create(&brokers, "partly", 3).await;
    for (partition, count) in [(0, 50), (1, 30), (2, 20)] {
        Timeline::of(&brokers, "partly", partition).await.put(count).await;
    }
    commit(&brokers, "partly-group", "partly", 0, 45, String::new()).await;
    let exporter = Exporter::start(&brokers, "partly-group", &[]).await;
    let scrape =
        exporter.until("lag", |scrape| scrape.group("kafka_consumer_group_lag", "partly-group").is_some()).await;
    let lags = [0, 1, 2].map(|partition| scrape.lag("partly", partition, "partly-group"));
    assert_eq!(lags, [Some(5.0), Some(30.0), Some(20.0)]);
    assert_eq!(scrape.group("kafka_consumer_group_lag", "partly-group"), Some(55.0));
    let latest = Exporter::start(&brokers, "partly-group", &["--uncommitted", "latest"]).await;
    latest.until("its policy", |scrape| scrape.group("kafka_consumer_group_lag", "partly-group") == Some(5.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_three_topics_is_the_sum_of_them() {
    let brokers = bootstrap();
    for (number, topic) in ["three-a", "three-b", "three-c"].into_iter().enumerate() {
        create(&brokers, topic, 2).await;
        Timeline::of(&brokers, topic, 0).await.put(10 * (number + 1)).await;
        commit(&brokers, "three", topic, 0, 4, String::new()).await;
    }
    let exporter = Exporter::start(&brokers, "three", &[]).await;
    exporter.until("the sum", |scrape| scrape.group("kafka_consumer_group_lag", "three") == Some(48.0)).await;
    let some = Exporter::start(&brokers, "three", &["--topics", "three-*,!three-b"]).await;
    let scrape = some.until("two", |scrape| scrape.group("kafka_consumer_group_lag", "three") == Some(32.0)).await;
    assert!(!scrape.mentions("topic", "three-b"), "{}", scrape.text);
}
