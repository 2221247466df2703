//! A member that reads one partition to its end and keeps everything that it is handed.

use std::ops::Range;
use std::time::Duration;

use kafka::{
    Client, Consumer, ConsumerConfig, GroupEvent, Jump, MAX_DECODED_BYTES, Offset, RawBatch, Record, TopicPartition,
};

/// Far more than joining and reading take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// What was handed out, in order.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) batches: Vec<RawBatch>,
    pub(crate) jumps: Vec<Jump>,
}

impl Seen {
    /// The records of all batches that can be decoded, and the others.
    pub(crate) fn sorted(&self) -> (Vec<Record>, Vec<&RawBatch>) {
        let (mut records, mut undecodable) = (Vec::new(), Vec::new());
        for batch in &self.batches {
            match batch.decode() {
                Ok(more) => records.extend(more),
                Err(_) => undecodable.push(batch),
            }
        }
        (records, undecodable)
    }

    /// The numbers of the records, all of which must be such as `Produce.java` makes.
    pub(crate) fn numbers(&self) -> Vec<i64> {
        let (records, undecodable) = self.sorted();
        assert_eq!(undecodable.len(), 0, "{undecodable:?}");
        records.iter().map(number).collect()
    }
}

/// Reads from `from` until the position is `end`, as the only member of a group of its own.
pub(crate) async fn read(client: &Client, partition: &TopicPartition, from: Offset, end: Offset) -> Seen {
    read_within(client, partition, from..end, MAX_DECODED_BYTES).await
}

/// The same with a bound for each batch.
pub(crate) async fn read_within(
    client: &Client,
    partition: &TopicPartition,
    Range { start: from, end }: Range<Offset>,
    max_decoded_bytes: usize,
) -> Seen {
    let mut config = ConsumerConfig::new(format!("{}-from-{from}", partition.topic), vec![partition.topic.clone()]);
    // Several answers, not one: what is open in a transaction must be known across them.
    config.fetch.partition_max_bytes = 2_000;
    config.fetch.max_decoded_bytes = max_decoded_bytes;
    let mut consumer = Consumer::join(client.clone(), config);
    let reading = async {
        loop {
            match consumer.events.recv().await.expect("the member lives") {
                GroupEvent::Assigned { partitions, .. } if !partitions.is_empty() => break,
                GroupEvent::Failed(error) => panic!("{error}"),
                other => eprintln!("{other:?}"),
            }
        }
        consumer.handle.start(partition, from);
        let (mut seen, mut position) = (Seen::default(), from);
        while position < end {
            for fetched in consumer.fetched.recv().await.expect("the member reads") {
                if let Some(jump) = fetched.jump {
                    position = jump.to;
                    seen.jumps.push(jump);
                }
                for batch in fetched.batches {
                    assert!(batch.start() >= position && batch.next() > batch.start(), "{batch:?} at {position}");
                    position = batch.next();
                    seen.batches.push(batch);
                }
            }
        }
        assert_eq!(position, end);
        seen
    };
    let seen = tokio::time::timeout(PATIENCE, reading).await.expect("the end is reached");
    consumer.handle.close().await;
    seen
}

/// The number of a record of `Produce.java`, every part of which is checked.
pub(crate) fn number(record: &Record) -> i64 {
    let value = std::str::from_utf8(record.value.as_ref().expect("a value")).unwrap();
    let number: i64 = value.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(value, format!("record {number} on the way through town"));
    assert_eq!(record.headers, [("number".to_owned(), Some(number.to_string().into_bytes().into()))]);
    assert!(record.key.as_ref().is_some_and(|key| key.starts_with(b"k")));
    number
}
