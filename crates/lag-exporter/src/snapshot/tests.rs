//! What a scrape shows of a report.

use super::*;
use crate::pair::Method;
use crate::report::Margin;
use crate::sample::{Owner, PartitionReading, Reason};

const STALE_AFTER: Duration = Duration::from_secs(15);

fn shown() -> Shown {
    let compat = vec![Compat::KafkaExporter, Compat::KafkaLagExporter];
    Shown { per_partition: PerPartition::On, max_series: 10_000, compat, cluster_name: "town".to_owned() }
}

fn pair(committed: Option<i64>, lag: Result<u64, Reason>, seconds: Result<f64, Reason>) -> Pair {
    Pair { committed, lag, seconds, method: Method::Commit, beyond: 0, owner: None }
}

fn group(name: &str, pairs: Vec<Pair>) -> Arc<GroupReport> {
    Arc::new(GroupReport {
        group: name.into(),
        protocol: "classic".to_owned(),
        state: "Stable".to_owned(),
        members: Some(2),
        unread: None,
        topics: vec![GroupTopic { topic: "t".into(), pairs }],
        verdict: Verdict::Stalled,
        consumption_rate: Some(1.5),
        production_rate: None,
        drain_seconds: None,
        commit_age_seconds: Some(4.0),
        lost_to_retention: 3,
        margin: Margin::default(),
    })
}

fn report(groups: Vec<Arc<GroupReport>>) -> Report {
    let partition = PartitionReading {
        start: Some(5),
        end: Some(110),
        leader: Some(1),
        preferred: Some(2),
        replicas: 3,
        in_sync: 2,
    };
    let topic = TopicReport {
        topic: "t".into(),
        partitions: vec![partition],
        rates: vec![Some(2.0)],
        production_rate: Some(2.0),
        hottest_share: Some(1.0),
    };
    Report {
        taken_at_ms: 0,
        topics: vec![topic],
        groups,
        unread_topics: vec![("closed".into(), Reason::NotAuthorized)],
        brokers: vec![(1, "a:9092".to_owned())],
    }
}

fn text(report: &Report, shown: &Shown) -> String {
    String::from_utf8(Snapshot::new(report, shown, Instant::now()).text.to_vec()).unwrap()
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|seen| seen == *line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn each_pair_each_partition_and_each_group_has_its_series() {
    let beyond = Pair { beyond: 40, ..pair(Some(150), Err(Reason::BeyondEnd), Err(Reason::BeyondEnd)) };
    let groups = vec![group("a", vec![pair(Some(100), Ok(10), Ok(1.5))]), group("b", vec![beyond])];
    let text = text(&report(groups), &shown());
    assert_has(
        &text,
        &[
            r#"kafka_consumer_lag{topic="t",partition="0",group="a"} 10"#,
            r#"kafka_consumer_lag_seconds{topic="t",partition="0",group="a"} 1.5"#,
            r#"kafka_consumer_committed_offset{topic="t",partition="0",group="b"} 150"#,
            r#"kafka_consumer_beyond_end_records{topic="t",partition="0",group="b"} 40"#,
            r#"kafka_topic_end_offset{topic="t",partition="0"} 110"#,
            r#"kafka_topic_start_offset{topic="t",partition="0"} 5"#,
            r#"kafka_lag_exporter_unread_topic{topic="closed",reason="not_authorized"} 1"#,
            r#"kafka_consumer_group_lag{group="a"} 10"#,
            r#"kafka_consumer_group_lag_seconds_max{group="a"} 1.5"#,
            r#"kafka_consumer_group_state{group="a",state="Stable",protocol="classic"} 1"#,
            r#"kafka_consumer_group_verdict{group="a",verdict="stalled"} 1"#,
            r#"kafka_consumer_group_verdict{group="a",verdict="ok"} 0"#,
            r#"kafka_consumer_group_unknown{group="b",reason="beyond_end"} 1"#,
            r#"kafka_consumer_group_beyond_end_partitions{group="b"} 1"#,
            r#"kafka_consumer_group_time_lag_info{group="a",method="commit"} 1"#,
            r#"kafka_consumer_group_records_lost_to_retention_total{group="a"} 3"#,
        ],
    );
    assert!(!text.contains(r#"kafka_consumer_group_lag{group="b"}"#), "{text}");
    assert!(!text.contains("NaN") && !text.contains(" -1"), "{text}");
}

#[tokio::test]
async fn other_exporters_names_have_their_labels() {
    let owner = Owner { member_id: "m-1".to_owned(), client_id: "c".to_owned(), host: "10.0.0.1".to_owned() };
    let owned = Pair { owner: Some(Arc::new(owner)), ..pair(Some(100), Ok(10), Ok(1.5)) };
    let text = text(&report(vec![group("a", vec![owned])]), &shown());
    let member = r#"member_host="10.0.0.1",consumer_id="m-1",client_id="c""#;
    let of_pair = format!(r#"{{cluster_name="town",group="a",topic="t",partition="0",{member}}}"#);
    assert_has(
        &text,
        &[
            "kafka_brokers 1",
            r#"kafka_broker_info{address="a:9092",id="1"} 1"#,
            r#"kafka_topic_partitions{topic="t"} 1"#,
            r#"kafka_topic_partition_current_offset{partition="0",topic="t"} 110"#,
            r#"kafka_topic_partition_oldest_offset{partition="0",topic="t"} 5"#,
            r#"kafka_topic_partition_in_sync_replica{partition="0",topic="t"} 2"#,
            r#"kafka_topic_partition_leader{partition="0",topic="t"} 1"#,
            r#"kafka_topic_partition_leader_is_preferred{partition="0",topic="t"} 0"#,
            r#"kafka_topic_partition_replicas{partition="0",topic="t"} 3"#,
            r#"kafka_topic_partition_under_replicated_partition{partition="0",topic="t"} 1"#,
            r#"kafka_consumergroup_current_offset{consumergroup="a",partition="0",topic="t"} 100"#,
            r#"kafka_consumergroup_current_offset_sum{consumergroup="a",topic="t"} 100"#,
            r#"kafka_consumergroup_lag{consumergroup="a",partition="0",topic="t"} 10"#,
            r#"kafka_consumergroup_lag_sum{consumergroup="a",topic="t"} 10"#,
            r#"kafka_consumergroup_members{consumergroup="a"} 2"#,
            r#"kafka_partition_latest_offset{cluster_name="town",topic="t",partition="0"} 110"#,
            r#"kafka_partition_earliest_offset{cluster_name="town",topic="t",partition="0"} 5"#,
            r#"kafka_consumergroup_group_max_lag{cluster_name="town",group="a"} 10"#,
            r#"kafka_consumergroup_group_max_lag_seconds{cluster_name="town",group="a"} 1.5"#,
            r#"kafka_consumergroup_group_sum_lag{cluster_name="town",group="a"} 10"#,
            r#"kafka_consumergroup_group_topic_sum_lag{cluster_name="town",group="a",topic="t"} 10"#,
            &format!("kafka_consumergroup_group_offset{of_pair} 100"),
            &format!("kafka_consumergroup_group_lag{of_pair} 10"),
            &format!("kafka_consumergroup_group_lag_seconds{of_pair} 1.5"),
        ],
    );
}

#[tokio::test]
async fn without_partitions_only_groups_and_topics_are_shown() {
    let shown = Shown { per_partition: PerPartition::Off, ..shown() };
    let text = text(&report(vec![group("a", vec![pair(Some(100), Ok(10), Ok(1.5))])]), &shown);
    assert_has(&text, &[r#"kafka_consumer_group_lag{group="a"} 10"#, r#"kafka_topic_production_rate{topic="t"} 2"#]);
    assert!(!text.contains("partition=\""), "{text}");
}

#[tokio::test]
async fn series_are_bounded_by_whole_groups_and_what_is_cut_is_told() {
    let pairs = |count| vec![pair(Some(100), Ok(10), Ok(1.5)); count];
    let groups = vec![group("large", pairs(500)), group("small", pairs(10))];
    let shown = Shown { compat: Vec::new(), max_series: 200, ..shown() };
    let text = text(&report(groups), &shown);
    let count = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(count("kafka_consumer_lag{"), 10, "the small group whole, the large one not at all");
    assert_eq!(count("kafka_consumer_group_lag{"), 2);
    assert_has(&text, &["kafka_lag_exporter_series_cut 1500"]);
    let series =
        text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("kafka_lag_exporter_series")).count();
    assert_has(&text, &[&format!("kafka_lag_exporter_series {series}")]);
}

#[tokio::test]
async fn a_failed_collection_is_down_and_keeps_the_lag_until_it_is_stale() {
    let board = Board::new(STALE_AFTER);
    let start = Instant::now();
    assert!(board.health(start).contains("kafka_lag_exporter_up 0") && board.series(start).is_empty());
    board.publish(Snapshot::new(&report(vec![group("a", vec![])]), &shown(), start));
    assert!(board.health(start).contains("kafka_lag_exporter_up 1"));
    board.collection_failed();
    assert!(board.health(start).contains("kafka_lag_exporter_up 0"));
    assert!(!board.series(start + STALE_AFTER).is_empty());
    assert!(board.series(start + STALE_AFTER + Duration::from_millis(1)).is_empty());
}

#[tokio::test]
async fn a_collection_that_hangs_is_down_once_its_lag_is_stale() {
    let board = Board::new(STALE_AFTER);
    let start = Instant::now();
    board.publish(Snapshot::new(&Report::default(), &shown(), start));
    assert!(board.health(start + STALE_AFTER + Duration::from_secs(1)).contains("kafka_lag_exporter_up 0"));
}
