//! Topics on a real broker: created as specified, by many services at once, grown and checked.

use std::time::Duration;

use kafka::topics::{self, Mode, Outcome, Plan};
use kafka::{Client, Error, ErrorKind, TopicSpec};
use tokio::time::Instant;

use crate::support::{bootstrap, config};

/// The controller forgets or changes a topic at once, its brokers a moment later.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(20);

fn client() -> Client {
    Client::new(config(&bootstrap(), "admin-test"))
}

fn plan(topic: &str, partitions: i32) -> Plan {
    Plan { topic: topic.to_owned(), partitions, dead_letter_topic: Some(topics::dead_letter_topic(topic)) }
}

fn partitions(outcome: &Outcome) -> (i32, Option<i32>) {
    (outcome.partitions, outcome.dead_letter_partitions)
}

async fn create(client: &Client, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: Some(1), settings };
    client.create_topic(&spec).await.unwrap();
    topics::ensure(client, Mode::Auto, &Plan { topic: name.to_owned(), partitions, dead_letter_topic: None })
        .await
        .unwrap();
}

#[tokio::test]
async fn auto_creates_both_topics_as_specified() {
    let client = client();
    let outcome = topics::ensure(&client, Mode::Auto, &plan("made", 6)).await.unwrap();
    assert_eq!(partitions(&outcome), (6, Some(6)));
    let source = client.topic_settings("made").await.unwrap();
    let letters = client.topic_settings("made.DLT").await.unwrap();
    for (settings, retention) in [(&source, "604800000"), (&letters, "2592000000")] {
        assert_eq!(settings["retention.ms"], retention);
        assert_eq!(settings["message.timestamp.type"], "CreateTime");
        assert_eq!(settings["min.insync.replicas"], "1");
    }
    let largest: u64 = source["max.message.bytes"].parse().unwrap();
    assert_eq!(letters["max.message.bytes"], (largest + 65_536).to_string());
    assert_eq!(outcome.warnings.len(), 2, "one replica each: {:?}", outcome.warnings);
    assert!(outcome.warnings.iter().all(|warning| warning.contains("1 replica")));
}

#[tokio::test]
async fn a_second_time_changes_nothing() {
    let client = client();
    let first = topics::ensure(&client, Mode::Auto, &plan("twice", 3)).await.unwrap();
    let before = client.topic("twice").await.unwrap();
    let second = topics::ensure(&client, Mode::Auto, &plan("twice", 3)).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(client.topic("twice").await.unwrap().topic_id, before.topic_id);
    topics::ensure(&client, Mode::Check, &plan("twice", 3)).await.unwrap();
}

#[tokio::test]
async fn services_that_start_at_once_all_get_their_topics() {
    let racing = (0..8).map(|_| async { topics::ensure(&client(), Mode::Auto, &plan("raced", 12)).await });
    for outcome in futures::future::join_all(racing).await {
        assert_eq!(partitions(&outcome.unwrap()), (12, Some(12)));
    }
}

#[tokio::test]
async fn the_dead_letter_topic_grows_with_its_source() {
    let client = client();
    topics::ensure(&client, Mode::Auto, &plan("grown", 2)).await.unwrap();
    client.create_partitions("grown", 5).await.unwrap();
    until_it_has(&client, "grown", 5).await;
    let check = topics::ensure(&client, Mode::Check, &plan("grown", 2)).await.unwrap_err();
    assert!(check.to_string().contains("--partitions 5"), "{check}");
    let off = topics::ensure(&client, Mode::Off, &plan("grown", 2)).await.unwrap();
    assert_eq!(partitions(&off), (5, Some(2)));
    let plan = plan("grown", 2);
    let racing = (0..4).map(|_| topics::ensure(&client, Mode::Auto, &plan));
    for auto in futures::future::join_all(racing).await {
        assert_eq!(partitions(&auto.unwrap()), (5, Some(5)));
    }
}

/// The controller answers before every broker has heard of the change.
async fn until_it_has(client: &Client, topic: &str, partitions: i32) {
    let deadline = Instant::now() + FORGOTTEN_WITHIN;
    while client.topic(topic).await.unwrap().partition_count() != partitions {
        assert!(Instant::now() < deadline, "{topic} never got {partitions} partitions");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_source_with_too_few_partitions_is_named_and_never_grown() {
    let client = client();
    create(&client, "narrow", 12, &[]).await;
    for mode in [Mode::Auto, Mode::Off] {
        let outcome = topics::ensure(&client, mode, &plan("narrow", 48)).await.unwrap();
        assert_eq!(outcome.partitions, 12);
        let warning = outcome.warnings.iter().find(|warning| warning.contains("--topic-partitions 48")).unwrap();
        assert!(warning.contains("has 12 partitions") && warning.contains("set --topic-partitions 12"), "{warning}");
    }
    let error = topics::ensure(&client, Mode::Check, &plan("narrow", 48)).await.unwrap_err();
    assert!(error.to_string().starts_with("--topic-partitions 48: topic narrow has 12 partitions"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Fatal);
}

#[tokio::test]
async fn a_missing_topic_ends_check_and_is_waited_for_by_off() {
    let client = client();
    let check = topics::ensure(&client, Mode::Check, &plan("missing", 48)).await.unwrap_err();
    assert_eq!(check.kind(), ErrorKind::Fatal);
    assert!(check.to_string().starts_with("--topic missing: the topic does not exist; create it with 48"), "{check}");
    let off = topics::ensure(&client, Mode::Off, &plan("missing", 48)).await.unwrap_err();
    assert_eq!(off.kind(), ErrorKind::Transient);
    assert!(matches!(off, Error::UnknownTopic(topic) if topic == "missing"));
    assert!(client.topic("missing").await.is_err(), "nothing was created");
}

#[tokio::test]
async fn a_dead_letter_topic_without_room_for_the_headers_is_named() {
    let client = client();
    create(&client, "roomy", 1, &[("max.message.bytes", "2000000")]).await;
    create(&client, "roomy.DLT", 1, &[]).await;
    let outcome = topics::ensure(&client, Mode::Auto, &plan("roomy", 1)).await.unwrap();
    assert!(outcome.warnings.iter().any(|warning| warning.contains("max.message.bytes=2065536")), "{outcome:?}");
}

#[tokio::test]
async fn a_deleted_topic_is_gone() {
    let client = client();
    create(&client, "deleted", 1, &[]).await;
    client.delete_topic("deleted").await.unwrap();
    let again = client.delete_topic("deleted").await.unwrap_err();
    assert!(matches!(again, Error::UnknownTopic(_)), "{again}");
    let deadline = Instant::now() + FORGOTTEN_WITHIN;
    while !matches!(client.topic_settings("deleted").await, Err(Error::UnknownTopic(_))) {
        assert!(Instant::now() < deadline, "the broker still knows the topic");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_broker_said() {
    let spec = TopicSpec {
        name: "refused".to_owned(),
        partitions: 1,
        replication: Some(1),
        settings: vec![("retention.ms".to_owned(), "soon".to_owned())],
    };
    let error = client().create_topic(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("topic refused") && error.to_string().contains("retention.ms"), "{error}");
}
