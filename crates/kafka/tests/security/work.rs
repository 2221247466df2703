//! Every way in does the whole work: produce, join a group, fetch, commit.

use std::sync::Arc;
use std::time::Duration;

use kafka::{
    Claim, Client, Commit, Consumer, ConsumerConfig, Error, ErrorKind, GroupEvent, Offset, OutRecord, PartitionId,
    Producer, ProducerConfig, RawBatch, SaslMechanism, Security, TopicPartition, TopicSpec,
};
use tokio::time::Instant;

use crate::broker::{ADMIN, MECHANISMS, SHORT_SESSION_MS, broker};

/// Far more than any step takes: a bound for a condition, not a measure.
const DEADLINE: Duration = Duration::from_secs(60);
const RECORDS: u32 = 50;

pub(crate) async fn create(client: &Client, topic: &str) {
    let spec = TopicSpec { name: topic.to_owned(), partitions: 1, replication: None, settings: Vec::new() };
    client.create_topic(&spec).await.unwrap();
    eventually(async || client.topic(topic).await).await;
}

/// Tries until it works; only what passes by itself may stand in the way.
pub(crate) async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(error.kind() == ErrorKind::Transient && Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn record(topic: &str, number: u32) -> OutRecord {
    OutRecord {
        topic: Arc::from(topic),
        partition: None,
        key: None,
        value: Some(format!("record {number}").into()),
        headers: Vec::new(),
        timestamp_ms: 1_795_441_000_000,
    }
}

/// Produces, joins, fetches and commits in a topic and a group of its own.
async fn do_the_whole_work(client: &Client, name: &str) {
    create(client, name).await;
    let producer = Producer::new(client.clone(), ProducerConfig::standard());
    eventually(async || producer.warm(name).await).await;
    for number in 0..RECORDS {
        producer.send(record(name, number)).await.unwrap().await.unwrap();
    }
    producer.close(DEADLINE).await;
    let mut member = Consumer::join(client.clone(), ConsumerConfig::new(name, vec![name.into()]));
    let partition = TopicPartition::new(name, PartitionId(0));
    let claim = tokio::time::timeout(DEADLINE, assigned(&mut member)).await.unwrap();
    member.handle.start(&partition, Offset(0));
    let mut fetched = 0;
    while fetched < RECORDS {
        let some = tokio::time::timeout(DEADLINE, member.fetched.recv()).await.unwrap().unwrap();
        fetched += some.iter().flat_map(|fetched| &fetched.batches).map(RawBatch::record_count).sum::<u32>();
    }
    let end = Offset(i64::from(RECORDS));
    let commit = Commit { partition: partition.clone(), offset: end, metadata: String::new() };
    eventually(async || member.handle.commit(std::slice::from_ref(&commit), &claim).await).await;
    member.handle.close().await;
    let committed = client.committed_offsets(name, None).await.unwrap();
    assert_eq!(committed.iter().map(|(_, committed)| committed.offset).collect::<Vec<_>>(), [end]);
}

async fn assigned(member: &mut Consumer) -> Claim {
    loop {
        match member.events.recv().await.unwrap() {
            GroupEvent::Assigned { partitions, claim } if !partitions.is_empty() => return claim,
            GroupEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mechanism_works_with_and_without_tls() {
    let ways = ["SASL", "SASL_TLS"].into_iter().flat_map(|listener| MECHANISMS.map(|mechanism| (listener, mechanism)));
    let jobs = ways.map(async |(listener, mechanism)| {
        let client = broker().client(listener, broker().secured(listener, mechanism, ADMIN));
        do_the_whole_work(&client, &format!("by-{listener}-{}", mechanism.name())).await;
    });
    futures::future::join_all(jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_with_and_without_a_certificate_of_ours() {
    let one_sided = broker().client("TLS", Security { tls: Some(broker().tls()), sasl: None });
    do_the_whole_work(&one_sided, "by-tls").await;
    let mutual = Security { tls: Some(broker().mutual_tls(broker().authority())), sasl: None };
    do_the_whole_work(&broker().client("MTLS", mutual), "by-mtls").await;
}

/// A broker ends a connection on the first request after its session: each that is refused would be an error here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_is_renewed_without_a_request_lost() {
    let mechanism = SaslMechanism::ScramSha512;
    let client = broker().client("SHORT", broker().secured("SHORT", mechanism, ADMIN));
    create(&client, "short-sessions").await;
    let producer = Producer::new(client.clone(), ProducerConfig::standard());
    eventually(async || producer.warm("short-sessions").await).await;
    let end = Instant::now() + 5 * Duration::from_millis(SHORT_SESSION_MS) / 2;
    let (mut offsets, mut under_way) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        let mut next = Vec::new();
        for number in 0..20 {
            next.push(producer.send(record("short-sessions", number)).await.unwrap());
        }
        client.topic("short-sessions").await.unwrap();
        for delivery in std::mem::replace(&mut under_way, next) {
            offsets.push(delivery.await.unwrap().offset);
        }
    }
    let in_order: Vec<_> = (0..).map(|offset| Some(Offset(offset))).take(offsets.len()).collect();
    assert_eq!(offsets, in_order, "none twice, none late");
    producer.close(DEADLINE).await;
}
