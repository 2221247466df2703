//! What the headers of a dead letter say of its original, by whomever they were written. Pure.
//!
//! Spring Kafka's names, which ours take over, carry numbers in big-endian binary, Kafka Connect's carry decimal text. Of a repeated
//! header the last one counts. Header values come from strangers: what is not what it should be is unknown.

use std::fmt;

use kafka::dead_letter::headers as ours;
use kafka::{Offset, PartitionId};

/// What stands where a header says nothing that can be read.
pub const UNKNOWN: &str = "unknown";

/// Kafka's own limit on topic names.
const TOPIC_MAX_BYTES: usize = 249;
/// Group ids and reasons longer than this are cut: they become labels and log fields.
const NAME_MAX_CHARS: usize = 128;

/// Kafka Connect's `DeadLetterQueueReporter`.
mod connect {
    pub(super) const TOPIC: &str = "__connect.errors.topic";
    pub(super) const PARTITION: &str = "__connect.errors.partition";
    pub(super) const OFFSET: &str = "__connect.errors.offset";
    pub(super) const CONNECTOR: &str = "__connect.errors.connector.name";
    pub(super) const EXCEPTION: &str = "__connect.errors.exception.class.name";
}

/// Spring's class behind the one that its listener container throws; ours has none.
pub(crate) const SPRING_CAUSE: &str = "kafka_dlt-exception-cause-fqcn";

/// A dead letter, as its headers tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Letter {
    /// Topic of the original.
    pub topic: Option<String>,
    /// Partition of the original.
    pub partition: Option<PartitionId>,
    /// Offset of the original.
    pub offset: Option<Offset>,
    /// Consumer group (of Connect: the sink connector's) that could not process it.
    pub group: Option<String>,
    /// Our reason code; of others the class of the exception.
    pub reason: Option<String>,
}

impl Letter {
    /// Reads the headers of a record of a dead letter topic.
    pub fn of(record: &kafka::Record) -> Self {
        Self::read(record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())))
    }

    /// Reads the headers of a letter.
    pub fn read<'h>(headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>) -> Self {
        let headers = Headers(headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect());
        let exceptions = [ours::REASON, SPRING_CAUSE, ours::EXCEPTION_FQCN, connect::EXCEPTION];
        Self {
            topic: headers.topic(ours::ORIGINAL_TOPIC).or_else(|| headers.topic(connect::TOPIC)),
            partition: headers
                .binary(ours::ORIGINAL_PARTITION)
                .map(i32::from_be_bytes)
                .or_else(|| headers.decimal(connect::PARTITION))
                .filter(|number| *number >= 0)
                .map(PartitionId),
            offset: headers
                .binary(ours::ORIGINAL_OFFSET)
                .map(i64::from_be_bytes)
                .or_else(|| headers.decimal(connect::OFFSET))
                .filter(|number| *number >= 0)
                .map(Offset),
            group: headers
                .name(ours::ORIGINAL_CONSUMER_GROUP)
                .or_else(|| headers.name(connect::CONNECTOR).map(|name| format!("connect-{name}"))),
            reason: exceptions.iter().find_map(|name| headers.name(name)),
        }
    }
}

/// A value or the word for its absence, for log lines.
pub(crate) struct OrUnknown<'a, T>(pub(crate) &'a Option<T>);

impl<T: fmt::Display> fmt::Display for OrUnknown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(UNKNOWN),
        }
    }
}

struct Headers<'h>(Vec<(&'h str, &'h [u8])>);

impl<'h> Headers<'h> {
    fn last(&self, name: &str) -> Option<&'h [u8]> {
        self.0.iter().rev().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    fn binary<const N: usize>(&self, name: &str) -> Option<[u8; N]> {
        self.last(name)?.try_into().ok()
    }

    fn decimal<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        std::str::from_utf8(self.last(name)?).ok()?.parse().ok()
    }

    fn topic(&self, name: &str) -> Option<String> {
        let text = std::str::from_utf8(self.last(name)?).ok()?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        ((1..=TOPIC_MAX_BYTES).contains(&text.len()) && text.chars().all(legal)).then(|| text.to_owned())
    }

    /// A printable name, cut to its limit.
    fn name(&self, name: &str) -> Option<String> {
        let text = std::str::from_utf8(self.last(name)?).ok()?;
        let printable = !text.is_empty() && !text.chars().any(char::is_control);
        printable.then(|| text.chars().take(NAME_MAX_CHARS).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers as `tests/golden/regenerate.sh` wrote them: a name and the value in hex.
    fn golden(text: &str) -> Vec<(String, Vec<u8>)> {
        text.lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(name, hex)| (name.to_owned(), unhex(hex)))
            .collect()
    }

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn read(headers: &[(String, Vec<u8>)]) -> Letter {
        Letter::read(headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice()))))
    }

    fn letter(topic: &str, partition: i32, offset: i64, group: &str, reason: &str) -> Letter {
        Letter {
            topic: Some(topic.to_owned()),
            partition: Some(PartitionId(partition)),
            offset: Some(Offset(offset)),
            group: Some(group.to_owned()),
            reason: Some(reason.to_owned()),
        }
    }

    #[test]
    fn reads_what_spring_kafka_writes() {
        let expected =
            letter("driver-location-updates", 7, 4242, "driver-location-redis", "java.lang.IllegalArgumentException");
        assert_eq!(read(&golden(include_str!("../tests/golden/spring.txt"))), expected);
    }

    #[test]
    fn the_last_of_repeated_headers_wins() {
        let expected =
            letter("driver-location-updates.DLT", 3, 99, "driver-location-redis", "java.lang.IllegalArgumentException");
        assert_eq!(read(&golden(include_str!("../tests/golden/spring-twice.txt"))), expected);
    }

    #[test]
    fn reads_what_kafka_connect_writes() {
        let expected = letter(
            "driver-location-updates",
            7,
            4242,
            "connect-locations-sink",
            "org.apache.kafka.connect.errors.DataException",
        );
        assert_eq!(read(&golden(include_str!("../tests/golden/connect.txt"))), expected);
    }

    #[test]
    fn a_letter_without_headers_is_unknown() {
        assert_eq!(Letter::read([]), Letter::default());
        assert_eq!(OrUnknown(&Letter::default().topic).to_string(), "unknown");
    }

    #[test]
    fn what_is_not_what_it_should_be_is_unknown() {
        let long = "r".repeat(10_000);
        let cases: [(&str, Option<&[u8]>); 9] = [
            (ours::ORIGINAL_TOPIC, Some(b"not a\ntopic")),
            (ours::ORIGINAL_TOPIC, None),
            (ours::ORIGINAL_TOPIC, Some(b"")),
            (ours::ORIGINAL_PARTITION, Some(b"7")),
            (ours::ORIGINAL_PARTITION, Some(&[0xff, 0xff, 0xff, 0xff])),
            (ours::ORIGINAL_OFFSET, Some(&[0, 0, 0, 7])),
            (connect::OFFSET, Some(b"-3")),
            (ours::ORIGINAL_CONSUMER_GROUP, Some(&[0xff, 0xfe])),
            (ours::REASON, Some(b"two\nlines")),
        ];
        for (name, value) in cases {
            assert_eq!(Letter::read([(name, value)]), Letter::default(), "{name} {value:?}");
        }
        let cut = Letter::read([(ours::REASON, Some(long.as_bytes()))]).reason.unwrap();
        assert_eq!(cut.len(), NAME_MAX_CHARS);
    }
}
