//! Kafka's Java client in both protocols, and its transactions.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::java::{Java, Program};
use crate::scene::{Exporter, Timeline, bootstrap, commit, create};

/// One interval, and what Kafka, Java and a busy machine need.
const SLACK: f64 = 1.0;

fn java() -> &'static Java {
    static JAVA: OnceLock<Java> = OnceLock::new();
    JAVA.get_or_init(|| {
        let dir: PathBuf = native::stack_dir("lag-exporter-java");
        std::fs::create_dir_all(&dir).unwrap();
        Java::compile(&dir)
    })
}

fn signal(program: &Program, signal: &str) {
    let status = Command::new("kill").args([signal, &program.pid().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A member that keeps up, stands still, and catches up.
async fn lags_while_it_stands_still(protocol: &str) {
    let (brokers, name) = (bootstrap(), format!("java-{protocol}"));
    create(&brokers, &name, 1).await;
    let mut timeline = Timeline::of(&brokers, &name, 0).await;
    timeline.put(20).await;
    let exporter = Exporter::start(&brokers, &name, &["--compat", "kafka-lag-exporter"]).await;
    let settings = [
        format!("bootstrap.servers={brokers}"),
        format!("group.id={name}"),
        format!("group.protocol={protocol}"),
        "client.id=reader".to_owned(),
    ];
    let member = java().member(&name, &name, &settings);
    let place = (name.as_str(), 0, name.as_str());
    let scrape = exporter.until("it keeps up", |scrape| scrape.lag(&name, 0, &name) == Some(0.0)).await;
    assert_eq!(scrape.group("kafka_consumer_group_members", &name), Some(1.0), "{}", scrape.text);
    let state = format!(r#"kafka_consumer_group_state{{group="{name}",state="Stable",protocol="{protocol}"}}"#);
    exporter.until("its state", |scrape| scrape.value(&state) == Some(1.0)).await;
    exporter.until("who owns it", |scrape| scrape.mentions("client_id", "reader")).await;

    signal(&member, "-STOP");
    timeline.put(300).await;
    exporter.shows(place, 300, Some(timeline.at_ms(20)), SLACK).await;
    exporter.until("two seconds", |scrape| scrape.seconds(&name, 0, &name) > Some(2.0)).await;
    exporter.shows(place, 300, Some(timeline.at_ms(20)), SLACK).await;
    signal(&member, "-CONT");
    exporter.shows(place, 0, None, 0.0).await;
    member.close().await;
    exporter.until("nobody", |scrape| scrape.group("kafka_consumer_group_members", &name) == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javas_client_in_the_classic_protocol_is_seen_as_it_is() {
    lags_while_it_stands_still("classic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javas_client_in_the_consumer_protocol_is_seen_as_it_is() {
    lags_while_it_stands_still("consumer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_of_a_transaction_does_not_make_a_group_late() {
    let brokers = bootstrap();
    create(&brokers, "transacted", 1).await;
    let mut producer = java().produce("transacted-producer", &brokers);
    for command in ["transactional p none", "begin p", "send p transacted 0 0 10 1 0", "commit p"] {
        producer.command(command).await;
    }
    // One that commits the offset behind the last record that it was given, as most do.
    commit(&brokers, "transacted-group", "transacted", 0, 10, String::new()).await;
    let exporter = Exporter::start(&brokers, "transacted-group", &[]).await;
    exporter.shows(("transacted", 0, "transacted-group"), 1, None, 0.0).await;
    for command in ["begin p", "send p transacted 0 10 5 1 0", "abort p"] {
        producer.command(command).await;
    }
    exporter
        .until("what was aborted waits as well", |scrape| scrape.lag("transacted", 0, "transacted-group") == Some(7.0))
        .await;
    producer.finish().await;
}
