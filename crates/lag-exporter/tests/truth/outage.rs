//! A broker that is restarted, and half a minute without any.

use crate::scene::{Exporter, Timeline, client, commit, create, start_kafka};

/// Age of the last sample that shows that it was dark for as long.
const DARK_SECONDS: f64 = 30.0;

#[tokio::test(flavor = "multi_thread")]
async fn half_a_minute_without_brokers_withdraws_the_lag_and_ages_no_record() {
    let stack = start_kafka("lag-exporter-dark");
    let brokers = stack.kafka.bootstrap();
    create(&brokers, "t", 1).await;
    let mut timeline = Timeline::of(&brokers, "t", 0).await;
    timeline.put(10).await;
    commit(&brokers, "g", "t", 0, 10, String::new()).await;
    let exporter = Exporter::start(&brokers, "g", &["--stale-after", "2s"]).await;
    exporter.until("caught up", |scrape| scrape.lag("t", 0, "g") == Some(0.0)).await;

    // A restart is over before the lag is withdrawn, or soon after.
    stack.kafka.stop();
    stack.kafka.start().unwrap();
    exporter
        .until("lag again", |scrape| {
            scrape.lag("t", 0, "g") == Some(0.0) && scrape.value("kafka_lag_exporter_up") == Some(1.0)
        })
        .await;

    stack.kafka.kill();
    let down = exporter.until("up 0", |scrape| scrape.value("kafka_lag_exporter_up") == Some(0.0)).await;
    assert_ne!(down.lag("t", 0, "g"), Some(1.0));
    let withdrawn = exporter.until("no series rather than 0", |scrape| !scrape.mentions("group", "g")).await;
    assert_eq!(withdrawn.value("kafka_lag_exporter_up"), Some(0.0));
    let age = "kafka_lag_exporter_sample_age_seconds";
    let dark = exporter.until("half a minute", |scrape| scrape.value(age) > Some(DARK_SECONDS)).await;
    assert!(!dark.mentions("group", "g"), "{}", dark.text);

    stack.kafka.start().unwrap();
    // The broker answers producers before the exporter has looked again: this record may be the first that it sees.
    let _known = client(&brokers).topic("t").await;
    let mut timeline_after = Timeline::of(&brokers, "t", 0).await;
    timeline_after.put(1).await;
    exporter.shows(("t", 0, "g"), 1, Some(timeline_after.at_ms(0)), 1.0).await;
}
