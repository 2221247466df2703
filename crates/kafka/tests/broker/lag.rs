//! Offsets and commits on a real broker. The records come from rskafka, so that the counts are not our own.

use std::collections::HashMap;
use std::time::Duration;

use kafka::{
    Client, CommitMetadata, Consumer, ConsumerConfig, Error, ErrorKind, GroupEvent, GroupProtocol, GroupWatch, Offset,
    OffsetSpec, PartitionId, Peeked, TopicPartition, TopicSpec,
};
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;

use crate::support::{bootstrap, config};

/// Timestamp of the first record of each partition; the next ones follow second by second.
const START_MS: i64 = 1_795_441_000_000;

fn client() -> Client {
    Client::new(config(&bootstrap(), "lag-test"))
}

fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, PartitionId(partition))
}

/// Creates a topic with `counts[p]` records in partition p.
async fn topic(client: &Client, name: &str, counts: &[i64]) {
    let partitions = i32::try_from(counts.len()).unwrap();
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: None, settings: vec![] };
    client.create_topic(&spec).await.unwrap();
    let witness = rskafka::client::ClientBuilder::new(vec![bootstrap()]).build().await.unwrap();
    for (partition, count) in (0..).zip(counts) {
        let producer = witness.partition_client(name, partition, UnknownTopicHandling::Retry).await.unwrap();
        let records: Vec<_> = (0..*count).map(record).collect();
        if !records.is_empty() {
            producer.produce(records, Compression::NoCompression).await.unwrap();
        }
    }
}

fn record(number: i64) -> Record {
    let timestamp = DateTime::from_timestamp_millis(START_MS + 1_000 * number).unwrap();
    Record { key: None, value: Some(b"v".to_vec()), headers: Default::default(), timestamp }
}

async fn offsets(client: &Client, partitions: &[TopicPartition], spec: OffsetSpec) -> Vec<i64> {
    let listed = client.list_offsets(partitions, spec).await.unwrap();
    assert!(listed.iter().map(|(partition, _)| partition).eq(partitions), "in the order of the question");
    listed.into_iter().map(|(_, result)| result.unwrap().offset.0).collect()
}

/// Sets positions once the group's coordinator is there: a fresh cluster takes a moment to make one.
async fn commit(client: &Client, group: &str, positions: &[(TopicPartition, Offset, String)]) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match client.alter_offsets(group, positions).await {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::Transient => {
                assert!(tokio::time::Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn lists_start_end_and_time() {
    let client = client();
    topic(&client, "listed", &[10, 0, 3]).await;
    let all = [at("listed", 2), at("listed", 0), at("listed", 1)];
    assert_eq!(offsets(&client, &all, OffsetSpec::Earliest).await, [0, 0, 0]);
    assert_eq!(offsets(&client, &all, OffsetSpec::Latest).await, [3, 10, 0]);
    let second = OffsetSpec::AtTimestamp(START_MS + 1_500);
    assert_eq!(offsets(&client, &all, second).await, [2, 2, 0], "the end where nothing is that late");
    let late = OffsetSpec::AtTimestamp(START_MS + 3_600_000);
    assert_eq!(offsets(&client, &all, late).await, [3, 10, 0]);
    let listed = client.list_offsets(&[at("listed", 0)], second).await.unwrap();
    assert_eq!(listed[0].1.as_ref().unwrap().timestamp_ms, START_MS + 2_000);
}

#[tokio::test]
async fn what_ails_one_partition_stands_in_its_place() {
    let client = client();
    topic(&client, "healthy", &[1]).await;
    let asked = [at("healthy", 0), at("healthy", 7), at("nowhere", 0)];
    let listed = client.list_offsets(&asked, OffsetSpec::Latest).await.unwrap();
    assert_eq!(listed[0].1.as_ref().unwrap().offset, Offset(1));
    assert!(listed[1].1.is_err());
    assert!(matches!(&listed[2].1, Err(Error::UnknownTopic(topic)) if topic == "nowhere"), "{:?}", listed[2].1);
}

#[tokio::test]
async fn reads_back_what_was_committed_with_its_metadata() {
    let client = client();
    topic(&client, "committed", &[10, 10, 10]).await;
    let metadata = CommitMetadata { timestamp_ms: START_MS }.encode();
    let positions =
        [(at("committed", 0), Offset(4), metadata.clone()), (at("committed", 2), Offset(10), String::new())];
    commit(&client, "reader", &positions).await;
    let mut all = client.committed_offsets("reader", None).await.unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let read: Vec<_> = all.iter().map(|(p, c)| (p.clone(), c.offset, c.metadata.clone())).collect();
    assert_eq!(read, positions);
    let some = client.committed_offsets("reader", Some(&[at("committed", 0), at("committed", 1)])).await.unwrap();
    assert_eq!(some.len(), 1, "a partition without a commit is absent");
    assert_eq!(CommitMetadata::parse(&some[0].1.metadata), Some(CommitMetadata { timestamp_ms: START_MS }));
}

#[tokio::test]
async fn many_groups_are_read_at_a_time() {
    let client = client();
    topic(&client, "shared", &[100]).await;
    let groups: Vec<_> = (0..300).map(|number| format!("many-{number}")).collect();
    for (number, group) in (0..).zip(&groups).step_by(3) {
        commit(&client, group, &[(at("shared", 0), Offset(number), String::new())]).await;
    }
    let names: Vec<_> = groups.iter().map(String::as_str).collect();
    let committed = client.committed_offsets_of(&names).await.unwrap();
    assert_eq!(committed.len(), 300);
    for (number, group) in (0..).zip(&groups) {
        let offsets: Vec<_> = committed[group].as_ref().unwrap().iter().map(|(_, c)| c.offset.0).collect();
        let expected = if number % 3 == 0 { vec![number] } else { vec![] };
        assert_eq!(offsets, expected, "{group}");
    }
}

#[tokio::test]
async fn a_group_is_listed_described_and_deleted() {
    let client = client();
    topic(&client, "group-topic", &[1]).await;
    commit(&client, "short-lived", &[(at("group-topic", 0), Offset(1), String::new())]).await;
    let listed = client.list_groups().await.unwrap();
    let listed = listed.iter().find(|listing| listing.group == "short-lived").unwrap();
    assert_eq!((listed.state.as_str(), listed.kind.as_str()), ("Empty", "classic"));
    let described = client.describe_groups(&["short-lived"]).await.unwrap();
    assert_eq!((described[0].state.as_str(), described[0].members.len()), ("Empty", 0));
    client.delete_group("short-lived").await.unwrap();
    assert!(client.committed_offsets("short-lived", None).await.unwrap().is_empty());
    assert!(client.list_groups().await.unwrap().iter().all(|listing| listing.group != "short-lived"));
}

#[tokio::test]
async fn a_group_with_members_shows_them_and_keeps_its_offsets() {
    let client = client();
    topic(&client, "joined", &[5, 5]).await;
    let mut member = Consumer::join(client.clone(), ConsumerConfig::new("live", vec!["joined".into()]));
    let assigned = loop {
        match member.events.recv().await.unwrap() {
            GroupEvent::Assigned { partitions: assigned, .. } if !assigned.is_empty() => break assigned,
            GroupEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    };
    assert_eq!(assigned.len(), 2);
    let described = client.describe_groups(&["live"]).await.unwrap();
    assert_eq!(described[0].state, "Stable");
    let mut partitions = described[0].members[0].partitions.clone();
    partitions.sort();
    assert_eq!(partitions, [at("joined", 0), at("joined", 1)]);
    let refused = client.alter_offsets("live", &[(at("joined", 0), Offset(1), String::new())]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fatal);
    assert!(refused.to_string().contains("group live") && refused.to_string().contains("members"), "{refused}");
    member.handle.close().await;
    commit(&client, "live", &[(at("joined", 0), Offset(1), String::new())]).await;
}

#[tokio::test]
async fn without_a_broker_the_error_names_flag_and_address() {
    let nobody = Client::new(config("127.0.0.1:1", "lag-test"));
    let error = nobody.committed_offsets("g", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(error.to_string().contains("127.0.0.1:1") && error.to_string().contains("--brokers"), "{error}");
}

#[tokio::test]
async fn the_first_record_at_an_offset_is_found_in_the_middle_of_a_batch() {
    let client = client();
    topic(&client, "peeked", &[10, 3]).await;
    let places = [
        (at("peeked", 0), Offset(0)),
        (at("peeked", 0), Offset(7)),
        (at("peeked", 1), Offset(2)),
        (at("peeked", 1), Offset(3)),
    ];
    let peeked = client.peek(&places).await.unwrap();
    assert_eq!(peeked.len(), places.len());
    let found: HashMap<_, _> = peeked.into_iter().map(|(at, offset, found)| ((at, offset), found.unwrap())).collect();
    let record = |number: i64| Peeked::Record { timestamp_ms: START_MS + 1_000 * number };
    for (place, expected) in places.into_iter().zip([record(0), record(7), record(2), Peeked::Nothing]) {
        assert_eq!(found[&place], expected, "{place:?}");
    }
}

#[tokio::test]
async fn a_place_in_a_topic_that_is_not_there_is_told_by_itself() {
    let client = client();
    topic(&client, "peeked-beside", &[1]).await;
    let places = [(at("never-made", 0), Offset(0)), (at("peeked-beside", 0), Offset(0))];
    let peeked = client.peek(&places).await.unwrap();
    let failed = peeked.iter().filter(|(_, _, found)| found.is_err()).map(|(at, _, _)| at.topic.to_string());
    assert_eq!(failed.collect::<Vec<_>>(), ["never-made"]);
}

#[tokio::test]
async fn a_watch_reads_the_commits_and_members_of_groups_of_both_protocols() {
    let client = client();
    topic(&client, "watched", &[4, 4]).await;
    commit(&client, "watched-empty", &[(at("watched", 0), Offset(3), String::new())]).await;
    let newer = ConsumerConfig {
        protocol: GroupProtocol::Consumer { remote_assignor: None },
        ..ConsumerConfig::new("watched-newer", vec!["watched".into()])
    };
    let mut member = Consumer::join(client.clone(), newer);
    while !matches!(member.events.recv().await.unwrap(), GroupEvent::Assigned { partitions, .. } if partitions.len() == 2)
    {
    }
    let watch = GroupWatch::new(client.clone());
    let listed = watch.list().await.unwrap();
    let kind = |group: &str| listed.iter().find(|one| one.group == group).map(|one| one.kind.as_str());
    assert_eq!((kind("watched-empty"), kind("watched-newer")), (Some("classic"), Some("consumer")));
    for _ in ["asks for the coordinators", "knows them"] {
        let committed = watch.committed(&["watched-empty", "watched-newer"]).await.unwrap();
        assert_eq!(committed["watched-empty"].as_ref().unwrap()[0].1.offset, Offset(3));
        let described = watch.describe_consumer(&["watched-newer"]).await.unwrap();
        let described = described["watched-newer"].as_ref().unwrap();
        assert_eq!((described.members.len(), described.members[0].partitions.len()), (1, 2));
    }
    assert_eq!(
        watch.describe_classic(&["watched-empty"]).await.unwrap()["watched-empty"].as_ref().unwrap().state,
        "Empty"
    );
    member.handle.close().await;
}
