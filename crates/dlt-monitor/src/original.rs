//! From a letter back to its original: what would be sent where, or why the letter stays. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use kafka::dead_letter::headers as names;
use kafka::{Header, Offset, OutRecord, PartitionId, Record, partition_for_key};

use crate::scan::Found;

/// What a redriven record has as its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TimestampPolicy {
    /// The original's, where the letter tells it.
    Original,
    /// The moment at which it is sent.
    Now,
}

/// What may be sent, and how.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// The topic whose originals go back.
    pub(crate) topic: Arc<str>,
    /// The topic that the letters are in.
    pub(crate) dead_letter_topic: Arc<str>,
    /// Another topic that takes everything, also what came from elsewhere.
    pub(crate) to: Option<Arc<str>>,
    /// Number of partitions of the topic that takes it.
    pub(crate) partitions: i32,
    pub(crate) max_redrives: u32,
    pub(crate) timestamps: TimestampPolicy,
}

impl Policy {
    pub(crate) fn target(&self) -> &Arc<str> {
        self.to.as_ref().unwrap_or(&self.topic)
    }
}

/// Why a letter is left where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stays {
    /// It is not among those that were asked for.
    Filtered,
    /// Another letter about the same original was sent, of another group mostly.
    Duplicate,
    /// It came back often enough.
    MaxRedrives,
    /// A part of the original was cut off when the letter was published.
    Truncated,
    /// It is no record but a batch that could not be read.
    UndecodableBatch,
    /// Its headers do not tell where the original was, and no `--to` says where it should go.
    UnknownOriginal,
    /// Its original is of another topic.
    OtherTopic,
}

impl Stays {
    /// As reports name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Duplicate => "duplicate",
            Self::MaxRedrives => "max_redrives",
            Self::Truncated => "truncated",
            Self::UndecodableBatch => "undecodable_batch",
            Self::UnknownOriginal => "unknown_original",
            Self::OtherTopic => "other_topic",
        }
    }
}

/// Where a record is or was; shown as `TOPIC-PARTITION@OFFSET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coordinates {
    pub(crate) topic: String,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Coordinates {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (place, offset) = text.rsplit_once('@').ok_or(())?;
        let (topic, partition) = place.rsplit_once('-').ok_or(())?;
        let partition = partition.parse().map_err(drop)?;
        let offset = offset.parse().map_err(drop)?;
        Ok(Self { topic: topic.to_owned(), partition: PartitionId(partition), offset: Offset(offset) })
    }
}

/// An original on its way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Original {
    /// Where it was; of a letter that does not tell, where the letter is.
    pub(crate) was: Coordinates,
    pub(crate) record: OutRecord,
}

/// Decides about one letter, whichever others there are.
///
/// # Errors
/// Why it stays.
pub(crate) fn restore(found: &Found, policy: &Policy, now_ms: i64) -> Result<Original, Stays> {
    let was = coordinates(found, policy)?;
    let record = &found.record;
    if last(record, names::TRUNCATED).is_some() {
        return Err(Stays::Truncated);
    }
    if found.is_undecodable || found.letter.reason.as_deref() == Some("undecodable_batch") {
        return Err(Stays::UndecodableBatch);
    }
    let before = redrives(record);
    if before >= policy.max_redrives {
        return Err(Stays::MaxRedrives);
    }
    let first =
        last(record, names::REDRIVE_OF).and_then(|of| std::str::from_utf8(of).ok()?.parse::<Coordinates>().ok());
    let of = first.as_ref().unwrap_or(&was).to_string();
    let out = OutRecord {
        topic: Arc::clone(policy.target()),
        partition: partition(record.key.as_deref(), was.partition, policy.partitions),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: headers(record, before.saturating_add(1), &of),
        timestamp_ms: timestamp(record, policy.timestamps, now_ms),
    };
    Ok(Original { was, record: out })
}

/// How often a record was sent back before. Of a number that nobody can read it is safe to think that it is large.
pub(crate) fn redrives(record: &Record) -> u32 {
    match last(record, names::REDRIVE_COUNT) {
        None => 0,
        Some(count) => std::str::from_utf8(count).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX),
    }
}

/// The last of the headers of a name that has a value.
pub(crate) fn last<'r>(record: &'r Record, name: &str) -> Option<&'r [u8]> {
    record.headers.iter().rev().find(|(other, _)| other == name).and_then(|(_, value)| value.as_deref())
}

fn coordinates(found: &Found, policy: &Policy) -> Result<Coordinates, Stays> {
    let letter = &found.letter;
    match (&letter.topic, letter.partition, letter.offset) {
        (Some(topic), _, _) if policy.to.is_none() && **topic != *policy.topic => Err(Stays::OtherTopic),
        (Some(topic), Some(partition), Some(offset)) => Ok(Coordinates { topic: topic.clone(), partition, offset }),
        _ if policy.to.is_some() => Ok(Coordinates {
            topic: policy.dead_letter_topic.to_string(),
            partition: found.place.partition.partition,
            offset: found.place.offset,
        }),
        _ => Err(Stays::UnknownOriginal),
    }
}

/// The key decides, as for every producer of the topic, and rightly so when the topic has grown. Without one the record
/// goes where it was.
pub(crate) fn partition(key: Option<&[u8]>, was: PartitionId, partitions: i32) -> Option<PartitionId> {
    Some(match key {
        Some(key) => partition_for_key(key, partitions),
        None => PartitionId(was.0.rem_euclid(partitions.max(1))),
    })
}

/// Those of the original, without what made it a letter.
pub(crate) fn headers(record: &Record, count: u32, of: &str) -> Vec<Header> {
    let is_ours = |name: &str| name == names::REDRIVE_COUNT || name == names::REDRIVE_OF;
    let kept = record.headers.iter().filter(|(name, _)| !names::is_letter_header(name) && !is_ours(name));
    let kept = kept.map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), value.clone()));
    let added = [(names::REDRIVE_COUNT, count.to_string()), (names::REDRIVE_OF, of.to_owned())];
    let added = added.map(|(name, value)| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value))));
    kept.chain(added).collect()
}

/// The original's timestamp, where a letter tells one that a broker can take.
pub(crate) fn original_timestamp(record: &Record) -> Option<i64> {
    let bytes: [u8; 8] = last(record, names::ORIGINAL_TIMESTAMP)?.try_into().ok()?;
    Some(i64::from_be_bytes(bytes)).filter(|ms| *ms >= 0)
}

fn timestamp(record: &Record, policy: TimestampPolicy, now_ms: i64) -> i64 {
    match policy {
        TimestampPolicy::Original => original_timestamp(record).unwrap_or(now_ms),
        TimestampPolicy::Now => now_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letter::Letter;
    use crate::scan::samples::found;

    const NOW: i64 = 2_000_000;

    fn policy() -> Policy {
        Policy {
            topic: "t".into(),
            dead_letter_topic: "t.DLT".into(),
            to: None,
            partitions: 4,
            max_redrives: 3,
            timestamps: TimestampPolicy::Original,
        }
    }

    /// The letter of group g about t-3@4711, with further headers.
    fn letter(headers: &[(&str, &[u8])]) -> Found {
        let mut found = found(3, 17, 1_000, b"driver-1", "g", "missing_latitude");
        let all: [(&str, &[u8]); 4] = [
            (names::ORIGINAL_TOPIC, b"t"),
            (names::ORIGINAL_PARTITION, &3_i32.to_be_bytes()),
            (names::ORIGINAL_OFFSET, &4_711_i64.to_be_bytes()),
            (names::ORIGINAL_TIMESTAMP, &900_i64.to_be_bytes()),
        ];
        let header = |(name, value): &(&str, &[u8])| ((*name).to_owned(), Some(Bytes::copy_from_slice(value)));
        found.record.headers = all.iter().chain(headers).map(header).collect();
        found.letter = Letter::of(&found.record);
        found
    }

    fn texts(record: &OutRecord) -> Vec<(String, String)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        record.headers.iter().map(|(name, value)| (text(name), value.as_ref().map(text).unwrap_or_default())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_original_comes_back_without_what_made_it_a_letter() {
        let found = letter(&[
            ("trace", b"abc"),
            ("kafka_dlt-exception-fqcn", b"E"),
            ("kafka_dlt-exception-cause-fqcn", b"E"),
            ("__connect.errors.topic", b"t"),
            (names::REASON, b"missing_latitude"),
            (names::DETAIL, b"d"),
            ("trace", b""),
        ]);
        let Original { was, record } = restore(&found, &policy(), NOW).unwrap();
        assert_eq!(was.to_string(), "t-3@4711");
        assert_eq!((record.key, record.value), (found.record.key, found.record.value));
        let mut again = restore(&letter(&[("trace", b"abc"), ("trace", b"")]), &policy(), NOW).unwrap().record;
        again.key = None;
        let expected = [("trace", "abc"), ("trace", ""), ("redrive-count", "1"), ("redrive-of", "t-3@4711")];
        assert_eq!(texts(&again), pairs(&expected));
        assert_eq!((&*record.topic, record.timestamp_ms), ("t", 900));
        assert_eq!(record.partition, Some(partition_for_key(b"driver-1", 4)), "the key decides");
    }

    #[test]
    fn what_was_sent_back_before_is_counted_on_and_names_the_first_original() {
        let found = letter(&[(names::REDRIVE_COUNT, b"2"), (names::REDRIVE_OF, b"t-3@99")]);
        let record = restore(&found, &policy(), NOW).unwrap().record;
        assert_eq!(texts(&record), pairs(&[("redrive-count", "3"), ("redrive-of", "t-3@99")]));
    }

    #[test]
    fn letters_that_cannot_go_back_say_why() {
        let count = |text: &'static [u8]| letter(&[(names::REDRIVE_COUNT, text)]);
        let mut elsewhere = letter(&[]);
        elsewhere.letter.topic = Some("u".to_owned());
        let mut bare = letter(&[]);
        bare.letter = Letter::default();
        let mut batch = letter(&[]);
        batch.is_undecodable = true;
        for (found, stays) in [
            (count(b"3"), Stays::MaxRedrives),
            (count(b"4"), Stays::MaxRedrives),
            (count(b"many"), Stays::MaxRedrives),
            (letter(&[(names::TRUNCATED, b"value")]), Stays::Truncated),
            (letter(&[(names::REASON, b"undecodable_batch")]), Stays::UndecodableBatch),
            (batch, Stays::UndecodableBatch),
            (elsewhere.clone(), Stays::OtherTopic),
            (bare.clone(), Stays::UnknownOriginal),
        ] {
            assert_eq!(restore(&found, &policy(), NOW).unwrap_err(), stays, "{:?}", found.record.headers);
        }
        let to = Policy { to: Some("repair".into()), ..policy() };
        assert_eq!(&*restore(&elsewhere, &to, NOW).unwrap().record.topic, "repair");
        assert_eq!(restore(&bare, &to, NOW).unwrap().was.to_string(), "t.DLT-3@17", "the letter stands in");
    }

    #[test]
    fn without_a_key_the_partition_is_kept_as_far_as_there_is_one() {
        assert_eq!(partition(None, PartitionId(3), 4), Some(PartitionId(3)));
        assert_eq!(partition(None, PartitionId(5), 4), Some(PartitionId(1)));
    }

    #[test]
    fn the_timestamp_follows_the_policy() {
        let stamped = |found: &Found, timestamps| {
            restore(found, &Policy { timestamps, ..policy() }, NOW).unwrap().record.timestamp_ms
        };
        let unset = letter(&[(names::ORIGINAL_TIMESTAMP, &(-1_i64).to_be_bytes())]);
        assert_eq!(stamped(&letter(&[]), TimestampPolicy::Now), NOW);
        assert_eq!(stamped(&unset, TimestampPolicy::Original), NOW, "there was none");
    }

    #[test]
    fn coordinates_read_as_they_are_written() {
        let text = "driver-location-updates-7@4242";
        assert_eq!(text.parse::<Coordinates>().unwrap().to_string(), text);
        assert!(["", "t", "t-1", "t@1", "t-x@1", "t-1@x"].iter().all(|text| text.parse::<Coordinates>().is_err()));
    }
}
