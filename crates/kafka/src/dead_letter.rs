//! Dead letters: a record that can never succeed, published with where it came from and why it failed.
//!
//! A letter keeps the original's key, value and headers (a null stays null) and its partition number; the coordinates
//! and the fault follow as headers, in Spring Kafka's names and encodings, then ours. Letters are pipelined: commit an
//! offset only when the deliveries of all letters before it have succeeded.
//!
//! A letter's own timestamp is the moment of its publication, as Spring's and Connect's are: with the original's, the
//! retention of the dead letter topic would eat letters of a backlog at once, a wild timestamp could make the letter
//! itself unacceptable, and "what failed in the last two hours" could not be asked. The original's is in a header.

pub mod headers;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use crate::error::Error;
use crate::producer::{Delivered, Delivery, Header, OutRecord, ProduceError, Producer, RejectReason};
use crate::record::Record;
use crate::types::{PartitionId, TopicPartition};

/// What stands for an exception's class: tools group letters by it.
const FAULT_CLASS: &str = "driverlocation.RecordFault";
/// Longest detail; the rest is cut off.
const DETAIL_BYTES: usize = 1024;
/// What is kept of each part of a letter that the topic does not take whole.
const TRUNCATED_PART_BYTES: usize = 64 * 1024;

/// Where letters go, and in whose name.
#[derive(Debug, Clone)]
pub struct DeadLetterConfig {
    /// The dead letter topic.
    pub topic: Arc<str>,
    /// The consumer group that could not take the records.
    pub group: String,
    /// The service that publishes.
    pub service: String,
    /// The service's version.
    pub version: String,
}

/// A record that can never succeed.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where the record was read.
    pub source: TopicPartition,
    /// The record. What could not even be decoded goes as the value of one.
    pub record: Record,
    /// Stable code of the reason.
    pub reason: &'static str,
    /// One line for people; without personal data.
    pub detail: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// Publishes the dead letters of one consumer group.
#[derive(Clone)]
pub struct DeadLetterPublisher {
    producer: Producer,
    config: Arc<DeadLetterConfig>,
}

impl DeadLetterPublisher {
    /// A publisher that shares `producer` with whoever else uses it.
    pub fn new(producer: Producer, config: DeadLetterConfig) -> Self {
        Self { producer, config: Arc::new(config) }
    }

    /// Learns the partitions of the dead letter topic, so that letters can be published.
    ///
    /// # Errors
    /// What kept the cluster from answering, or that the topic is not there.
    pub async fn warm(&self) -> Result<(), Error> {
        self.producer.warm(&self.config.topic).await
    }

    /// Takes a letter on without waiting. A letter that the topic refuses as too large goes out once more, truncated.
    ///
    /// # Errors
    /// The letter was not taken and is not in Kafka; on [`RejectReason::BufferFull`] and [`RejectReason::NoMetadata`]
    /// (see [`DeadLetterPublisher::warm`]) try again later.
    pub fn publish(&self, letter: &DeadLetter) -> Result<LetterDelivery, RejectReason> {
        let partitions = self.producer.partition_count(&self.config.topic).ok_or(RejectReason::NoMetadata)?;
        let partition = PartitionId(letter.source.partition.0.rem_euclid(partitions.max(1)));
        let whole = out_record(&self.config, letter, partition);
        match self.producer.enqueue(whole.clone()) {
            Ok(delivery) => Ok(self.delivery(delivery, Some(whole))),
            Err(rejected) if rejected.reason == RejectReason::TooLarge => {
                let shorter = self.producer.enqueue(truncated(whole)).map_err(|rejected| rejected.reason)?;
                Ok(self.delivery(shorter, None))
            }
            Err(rejected) => Err(rejected.reason),
        }
    }

    fn delivery(&self, delivery: Delivery, whole: Option<OutRecord>) -> LetterDelivery {
        LetterDelivery { delivery, whole: whole.map(|whole| Box::new((self.producer.clone(), whole))) }
    }
}

/// The outcome of one letter, some time later.
#[must_use = "an offset may be committed only when its letter is in Kafka"]
pub struct LetterDelivery {
    delivery: Delivery,
    /// What to truncate if it turns out to be too large.
    whole: Option<Box<(Producer, OutRecord)>>,
}

impl Future for LetterDelivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let outcome = ready!(Pin::new(&mut self.delivery).poll(cx));
            match (outcome, self.whole.take()) {
                (Err(ProduceError::Refused { code }), Some(whole)) if is_too_large(code) => {
                    let (producer, record) = *whole;
                    match producer.enqueue(truncated(record)) {
                        Ok(delivery) => self.delivery = delivery,
                        Err(rejected) => return Poll::Ready(Err(not_taken(rejected.reason))),
                    }
                }
                (outcome, _) => return Poll::Ready(outcome),
            }
        }
    }
}

fn is_too_large(code: ResponseError) -> bool {
    matches!(code, ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge)
}

fn not_taken(reason: RejectReason) -> ProduceError {
    match reason {
        RejectReason::Closed => ProduceError::Closed,
        RejectReason::BufferFull
        | RejectReason::NoMetadata
        | RejectReason::NoSuchPartition
        | RejectReason::TooLarge => ProduceError::Unavailable,
    }
}

fn out_record(config: &DeadLetterConfig, letter: &DeadLetter, partition: PartitionId) -> OutRecord {
    OutRecord {
        topic: Arc::clone(&config.topic),
        partition: Some(partition),
        key: letter.record.key.clone(),
        value: letter.record.value.clone(),
        headers: letter_headers(config, letter),
        timestamp_ms: now_ms(),
    }
}

/// The original's headers, then Spring's, then ours.
///
/// A record that is a letter already carries the headers of that letter; they are replaced, for two layers of
/// coordinates leave every reader guessing which one is meant.
fn letter_headers(config: &DeadLetterConfig, letter: &DeadLetter) -> Vec<Header> {
    let original = letter.record.headers.iter().filter(|(name, _)| !headers::is_letter_header(name));
    let mut all: Vec<Header> = original.map(|(name, value)| (Bytes::from(name.clone()), value.clone())).collect();
    let detail = one_line(&letter.detail);
    let record = &letter.record;
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let big_endian = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let added = [
        (headers::ORIGINAL_TOPIC, text(&letter.source.topic)),
        (headers::ORIGINAL_PARTITION, big_endian(&letter.source.partition.0.to_be_bytes())),
        (headers::ORIGINAL_OFFSET, big_endian(&record.offset.0.to_be_bytes())),
        (headers::ORIGINAL_TIMESTAMP, big_endian(&record.timestamp_ms.to_be_bytes())),
        (headers::ORIGINAL_TIMESTAMP_TYPE, text(record.timestamp_type.as_str())),
        (headers::ORIGINAL_CONSUMER_GROUP, text(&config.group)),
        (headers::EXCEPTION_FQCN, text(FAULT_CLASS)),
        (headers::EXCEPTION_MESSAGE, text(&detail)),
        (headers::EXCEPTION_STACKTRACE, text(&format!("{FAULT_CLASS}: {}: {detail}", letter.reason))),
        (headers::GROUP, text(&config.group)),
        (headers::SERVICE, text(&config.service)),
        (headers::VERSION, text(&config.version)),
        (headers::REASON, text(letter.reason)),
        (headers::DETAIL, text(&detail)),
        (headers::ATTEMPTS, text(&letter.attempts.to_string())),
    ];
    all.extend(added.map(|(name, value)| (Bytes::from_static(name.as_bytes()), Some(value))));
    all
}

/// What the topic does take: the first bytes of the large parts, and headers that say so.
fn truncated(mut record: OutRecord) -> OutRecord {
    let (ours, original): (Vec<_>, Vec<_>) = record
        .headers
        .into_iter()
        .partition(|(name, _)| std::str::from_utf8(name).is_ok_and(headers::is_letter_header));
    let original_headers: usize = original.iter().map(|(name, value)| name.len() + len(value.as_ref())).sum();
    let size = len(record.key.as_ref()) + len(record.value.as_ref()) + original_headers;
    let mut cut = Vec::new();
    record.headers = if original_headers > TRUNCATED_PART_BYTES {
        cut.push("headers");
        Vec::new()
    } else {
        original
    };
    record.headers.extend(ours);
    for (name, part) in [("key", &mut record.key), ("value", &mut record.value)] {
        if let Some(long) = part.as_mut().filter(|part| part.len() > TRUNCATED_PART_BYTES) {
            long.truncate(TRUNCATED_PART_BYTES);
            cut.push(name);
        }
    }
    let added = [(headers::TRUNCATED, cut.join(",")), (headers::ORIGINAL_SIZE, size.to_string())];
    record.headers.extend(added.map(|(name, value)| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value)))));
    record
}

fn len(part: Option<&Bytes>) -> usize {
    part.map_or(0, Bytes::len)
}

/// Without line breaks and other control characters, and bounded.
fn one_line(detail: &str) -> String {
    let mut line: String = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(DETAIL_BYTES));
    line
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TimestampType;
    use crate::types::Offset;

    fn config() -> DeadLetterConfig {
        DeadLetterConfig {
            topic: "t.DLT".into(),
            group: "driver-location-redis".into(),
            service: "redis-writer".into(),
            version: "0.1.0".into(),
        }
    }

    fn letter() -> DeadLetter {
        DeadLetter {
            source: TopicPartition::new("t", PartitionId(17)),
            record: Record {
                offset: Offset(4_711),
                timestamp_ms: 1_795_441_689_633,
                timestamp_type: TimestampType::CreateTime,
                key: Some(Bytes::from_static(b"driver-1")),
                value: None,
                headers: vec![("trace".into(), Some(Bytes::from_static(b"abc"))), ("trace".into(), None)],
            },
            reason: "missing_latitude",
            detail: "no latitude\nat all".into(),
            attempts: 1,
        }
    }

    fn header<'a>(record: &'a OutRecord, name: &str) -> Vec<Option<&'a [u8]>> {
        let of_name = record.headers.iter().filter(|(other, _)| other == name.as_bytes());
        of_name.map(|(_, value)| value.as_deref()).collect()
    }

    #[test]
    fn a_letter_is_the_original_with_its_coordinates_and_fault() {
        let record = out_record(&config(), &letter(), PartitionId(17));
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"driver-1"[..]), None));
        assert_eq!(record.headers[0], (Bytes::from_static(b"trace"), Some(Bytes::from_static(b"abc"))));
        assert_eq!(record.headers[1], (Bytes::from_static(b"trace"), None));
        let expected: [(&str, &[u8]); 15] = [
            ("kafka_dlt-original-topic", b"t"),
            ("kafka_dlt-original-partition", &[0, 0, 0, 17]),
            ("kafka_dlt-original-offset", &[0, 0, 0, 0, 0, 0, 0x12, 0x67]),
            ("kafka_dlt-original-timestamp", &[0, 0, 1, 0xa2, 0x08, 0xaa, 0x04, 0x21]),
            ("kafka_dlt-original-timestamp-type", b"CreateTime"),
            ("kafka_dlt-original-consumer-group", b"driver-location-redis"),
            ("kafka_dlt-exception-fqcn", b"driverlocation.RecordFault"),
            ("kafka_dlt-exception-message", b"no latitude at all"),
            ("kafka_dlt-exception-stacktrace", b"driverlocation.RecordFault: missing_latitude: no latitude at all"),
            ("driver-location-group", b"driver-location-redis"),
            ("driver-location-service", b"redis-writer"),
            ("driver-location-version", b"0.1.0"),
            ("driver-location-reason", b"missing_latitude"),
            ("driver-location-detail", b"no latitude at all"),
            ("driver-location-attempts", b"1"),
        ];
        for (name, value) in expected {
            assert_eq!(header(&record, name), [Some(value)], "{name}");
        }
        assert_eq!(record.headers.len(), 2 + expected.len());
    }

    /// What Spring Kafka's own `DeadLetterPublishingRecoverer` writes about the same record (regenerate.sh beside it).
    #[test]
    fn coordinates_are_encoded_as_spring_encodes_them() {
        let mut letter = letter();
        letter.source = TopicPartition::new("driver-location-updates", PartitionId(7));
        letter.record.offset = Offset(4242);
        let record = out_record(&config(), &letter, PartitionId(7));
        let golden = include_str!("../../dlt-monitor/tests/golden/spring.txt").lines();
        let coordinates =
            golden.filter_map(|line| line.split_once(' ').filter(|(name, _)| name.contains("-original-")));
        let mut compared = 0;
        for (name, hex) in coordinates {
            let written = header(&record, name)[0].unwrap();
            let written: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written, hex, "{name}");
            compared += 1;
        }
        assert_eq!(compared, 6, "topic, partition, offset, timestamp, its type, group");
    }

    #[test]
    fn a_letter_of_a_letter_has_one_layer_of_headers() {
        let first = out_record(&config(), &letter(), PartitionId(17));
        let name = |name: &Bytes| String::from_utf8(name.to_vec()).unwrap();
        let again = DeadLetter {
            source: TopicPartition::new("t.DLT", PartitionId(3)),
            record: Record {
                headers: first.headers.iter().map(|(n, value)| (name(n), value.clone())).collect(),
                ..letter().record
            },
            ..letter()
        };
        let second = out_record(&config(), &again, PartitionId(3));
        assert_eq!(second.headers.len(), first.headers.len());
        assert_eq!(header(&second, headers::ORIGINAL_TOPIC), [Some(&b"t.DLT"[..])]);
    }

    #[test]
    fn what_others_made_a_letter_of_has_one_layer_too_and_keeps_how_often_it_was_sent_back() {
        let mut again = letter();
        let before =
            ["__connect.errors.topic", "kafka_dlt-exception-cause-fqcn", headers::REDRIVE_COUNT, headers::REDRIVE_OF];
        again.record.headers = before.map(|name| (name.to_owned(), Some(Bytes::from_static(b"2")))).into();
        let record = out_record(&config(), &again, PartitionId(3));
        for (name, kept) in before.into_iter().zip([0, 0, 1, 1]) {
            assert_eq!(header(&record, name).len(), kept, "{name}");
        }
    }

    #[test]
    fn details_are_one_bounded_line() {
        let line = one_line(&format!("a\r\n\tb{}", "ä".repeat(DETAIL_BYTES)));
        assert!(line.starts_with("a   b") && line.len() <= DETAIL_BYTES && line.len() >= DETAIL_BYTES - 1);
    }

    #[test]
    fn an_oversized_letter_says_what_was_cut_and_how_large_it_was() {
        let mut large = letter();
        large.record.value = Some(Bytes::from(vec![7; 900_000]));
        large.record.headers.push(("bomb".into(), Some(Bytes::from(vec![8; 100_000]))));
        let record = truncated(out_record(&config(), &large, PartitionId(0)));
        assert_eq!(record.value.as_ref().map(Bytes::len), Some(TRUNCATED_PART_BYTES));
        assert_eq!(record.key.as_deref(), Some(&b"driver-1"[..]));
        assert_eq!(header(&record, headers::TRUNCATED), [Some(&b"headers,value"[..])]);
        let size = 8 + 900_000 + 2 * 5 + 3 + 4 + 100_000;
        assert_eq!(header(&record, headers::ORIGINAL_SIZE), [Some(size.to_string().as_bytes())]);
        assert_eq!(header(&record, headers::REASON), [Some(&b"missing_latitude"[..])]);
        assert_eq!(header(&record, "bomb"), [] as [Option<&[u8]>; 0]);
    }
}
