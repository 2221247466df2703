//! A load whose every record can be told apart: key, number within the key, and what became of it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use kafka::{
    Client, ClientConfig, Delivered, Error, Offset, OutRecord, PartitionId, ProduceError, Producer, ProducerConfig,
    TopicSpec,
};

use crate::witness::Found;

/// Some millisecond of the year 2026.
pub(crate) const TIMESTAMP_MS: i64 = 1_795_441_000_000;

pub(crate) fn client(bootstrap: &str) -> Client {
    Client::new(ClientConfig::new(bootstrap.split(',').map(str::to_owned).collect(), "producer-test"))
}

/// A producer for a new topic.
pub(crate) async fn producer(client: &Client, topic: &str, partitions: i32, config: ProducerConfig) -> Producer {
    create(client, topic, partitions, &[]).await;
    let producer = Producer::new(client.clone(), config);
    warm(&producer, topic).await;
    producer
}

pub(crate) async fn create(client: &Client, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: topic.to_owned(), partitions, replication: None, settings };
    client.create_topic(&spec).await.expect("a topic");
}

/// A topic is known to every broker some moments after it was created.
pub(crate) async fn warm(producer: &Producer, topic: &str) {
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = producer.warm(topic).await {
        assert!(tokio::time::Instant::now() < limit && matches!(error, Error::UnknownTopic(_)), "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Record `number` of `key`.
pub(crate) fn record(topic: &Arc<str>, key: &str, number: u32) -> OutRecord {
    OutRecord {
        topic: Arc::clone(topic),
        partition: None,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::from(format!("{key} {number:08} on the way through town"))),
        headers: Vec::new(),
        timestamp_ms: TIMESTAMP_MS + i64::from(number),
    }
}

/// What became of each (key, number).
#[derive(Default)]
pub(crate) struct Outcomes(pub(crate) HashMap<(String, u32), Result<Delivered, ProduceError>>);

impl Outcomes {
    pub(crate) fn count(&self, matching: impl Fn(&Result<Delivered, ProduceError>) -> bool) -> usize {
        self.0.values().filter(|outcome| matching(outcome)).count()
    }

    /// The log against what the callers were told: acknowledged records are there once, at their offset; records that
    /// are certainly not there are not; each key's records are in order and none is there twice.
    pub(crate) fn check(&self, log: &BTreeMap<i32, Vec<Found>>) {
        let mut in_log = HashMap::new();
        let mut last = HashMap::<String, u32>::new();
        for (partition, records) in log {
            for (offset, record) in records {
                let (key, number) = parse(record.value.as_deref().expect("a value"));
                if let Some(before) = last.insert(key.clone(), number) {
                    assert!(before < number, "{key}: {number} follows {before} in partition {partition}");
                }
                in_log.insert((key, number), (PartitionId(*partition), Offset(*offset)));
            }
        }
        for (record, outcome) in &self.0 {
            let found = in_log.get(record);
            match outcome {
                Ok(Delivered { partition, offset: Some(offset) }) => {
                    assert_eq!(found, Some(&(*partition, *offset)), "acknowledged {record:?}");
                }
                Ok(Delivered { offset: None, .. }) => assert!(found.is_some(), "acknowledged {record:?}"),
                Err(ProduceError::TimedOut) => {}
                Err(certain) => assert_eq!(found, None, "{record:?}: {certain}"),
            }
        }
        assert!(in_log.keys().all(|record| self.0.contains_key(record)), "nothing else is in the log");
    }
}

fn parse(value: &[u8]) -> (String, u32) {
    let text = std::str::from_utf8(value).expect("text");
    let mut words = text.split(' ');
    let (key, number) = (words.next().expect("a key"), words.next().expect("a number"));
    (key.to_owned(), number.parse().expect("a number"))
}
