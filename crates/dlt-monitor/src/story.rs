//! All that the headers of a letter tell, for whoever looks at it: more than what counting needs.

use kafka::Record;
use kafka::dead_letter::headers as names;
use serde_json::json;

use crate::letter::SPRING_CAUSE;
use crate::original::{Coordinates, last, original_timestamp};
use crate::scan::Found;

/// Longest detail that is kept of a letter; ours are at most this long.
const DETAIL_MAX_CHARS: usize = 1024;
const CONNECT_MESSAGE: &str = "__connect.errors.exception.message";

/// A letter's story. Nothing of it is the original's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) original: Option<Coordinates>,
    pub(crate) original_timestamp: Option<i64>,
    pub(crate) group: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) exception: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) attempts: Option<u64>,
    pub(crate) truncated: Option<String>,
    pub(crate) original_size: Option<u64>,
    pub(crate) redrive_of: Option<String>,
}

impl Story {
    pub(crate) fn of(found: &Found) -> Self {
        let (record, letter) = (&found.record, &found.letter);
        let text = |name: &str| text(record, name);
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        let original = letter.topic.clone().zip(letter.partition).zip(letter.offset);
        Self {
            original: original.map(|((topic, partition), offset)| Coordinates { topic, partition, offset }),
            original_timestamp: original_timestamp(record),
            group: letter.group.clone(),
            reason: letter.reason.clone(),
            detail: [names::DETAIL, names::EXCEPTION_MESSAGE, CONNECT_MESSAGE].iter().find_map(|name| text(name)),
            exception: [SPRING_CAUSE, names::EXCEPTION_FQCN].iter().find_map(|name| text(name)),
            service: text(names::SERVICE),
            version: text(names::VERSION),
            attempts: number(names::ATTEMPTS),
            truncated: text(names::TRUNCATED),
            original_size: number(names::ORIGINAL_SIZE),
            redrive_of: text(names::REDRIVE_OF),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let original = self.original.as_ref().map(|original| {
            json!({
                "topic": original.topic,
                "partition": original.partition.0,
                "offset": original.offset.0,
                "timestamp": self.original_timestamp,
            })
        });
        json!({
            "original": original,
            "group": self.group,
            "reason": self.reason,
            "detail": self.detail,
            "exception": self.exception,
            "service": self.service,
            "version": self.version,
            "attempts": self.attempts,
            "truncated": self.truncated,
            "original_size": self.original_size,
            "redrive_of": self.redrive_of,
        })
    }
}

fn text(record: &Record, name: &str) -> Option<String> {
    let text = std::str::from_utf8(last(record, name)?).ok()?;
    Some(text.chars().take(DETAIL_MAX_CHARS).collect())
}
