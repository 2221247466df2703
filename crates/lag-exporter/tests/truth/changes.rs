//! Topics, groups and partitions that come, go, shrink and come again.

use kafka::{Offset, PartitionId, TopicPartition};

use crate::scene::{Exporter, Timeline, bootstrap, client, commit, create};

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_is_told_apart_from_no_lag() {
    let brokers = bootstrap();
    create(&brokers, "again", 1).await;
    Timeline::of(&brokers, "again", 0).await.put(100).await;
    commit(&brokers, "again-group", "again", 0, 100, String::new()).await;
    let exporter = Exporter::start(&brokers, "again-group", &[]).await;
    exporter.until("caught up", |scrape| scrape.lag("again", 0, "again-group") == Some(0.0)).await;
    client(&brokers).delete_topic("again").await.unwrap();
    exporter.until("no topic", |scrape| !scrape.mentions("topic", "again")).await;
    create(&brokers, "again", 1).await;
    Timeline::of(&brokers, "again", 0).await.put(5).await;
    // Kafka forgets the commits of a deleted topic; a consumer that has not noticed commits its old position.
    commit(&brokers, "again-group", "again", 0, 101, String::new()).await;
    let scrape = exporter
        .until("beyond", |scrape| {
            scrape.pair("kafka_consumer_beyond_end_records", "again", 0, "again-group") == Some(96.0)
        })
        .await;
    assert_eq!(scrape.lag("again", 0, "again-group"), None);
    assert_eq!(scrape.group("kafka_consumer_group_lag", "again-group"), None);
    let reason = r#"kafka_consumer_group_unknown{group="again-group",reason="beyond_end"}"#;
    assert_eq!(scrape.value(reason), Some(1.0));
    assert!(!scrape.text.contains("NaN") && !scrape.text.contains("} -"), "{}", scrape.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_takes_from_a_slow_group_are_counted() {
    let brokers = bootstrap();
    create(&brokers, "slow", 1).await;
    Timeline::of(&brokers, "slow", 0).await.put(100).await;
    commit(&brokers, "slow-group", "slow", 0, 10, String::new()).await;
    let exporter = Exporter::start(&brokers, "slow-group", &[]).await;
    let lost = "kafka_consumer_group_records_lost_to_retention_total";
    exporter.until("nothing lost", |scrape| scrape.group(lost, "slow-group") == Some(0.0)).await;
    let at = TopicPartition::new("slow", PartitionId(0));
    client(&brokers).delete_records(&at, Offset(5)).await.unwrap();
    let margin = "kafka_consumer_group_retention_margin_records";
    exporter.until("near", |scrape| scrape.group(margin, "slow-group") == Some(5.0)).await;
    client(&brokers).delete_records(&at, Offset(40)).await.unwrap();
    let scrape = exporter.until("30 lost", |scrape| scrape.group(lost, "slow-group") == Some(30.0)).await;
    assert_eq!(scrape.lag("slow", 0, "slow-group"), Some(90.0), "end minus commit");
    assert_eq!(scrape.group("kafka_consumer_group_retention_margin_ratio", "slow-group"), Some(0.0));
    commit(&brokers, "slow-group", "slow", 0, 100, String::new()).await;
    exporter
        .until("all is well", |scrape| {
            scrape.group("kafka_consumer_group_retention_margin_ratio", "slow-group") == Some(1.0)
        })
        .await;
    assert_eq!(exporter.scrape().group(lost, "slow-group"), Some(30.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_set_back_is_rewound() {
    let brokers = bootstrap();
    create(&brokers, "rewound", 1).await;
    Timeline::of(&brokers, "rewound", 0).await.put(100).await;
    commit(&brokers, "rewound-group", "rewound", 0, 100, String::new()).await;
    let exporter = Exporter::start(&brokers, "rewound-group", &["--window", "5s"]).await;
    exporter.until("ok", |scrape| scrape.verdict("rewound-group", "ok")).await;
    commit(&brokers, "rewound-group", "rewound", 0, 20, String::new()).await;
    let scrape = exporter.until("rewound", |scrape| scrape.verdict("rewound-group", "rewound")).await;
    assert_eq!(scrape.lag("rewound", 0, "rewound-group"), Some(80.0));
    exporter.until("a window later", |scrape| scrape.verdict("rewound-group", "stopped")).await;
}
