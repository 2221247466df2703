//! What the writers put beside a committed offset, so that time lag can be told without fetching a record.
//!
//! `v1;ts=1795441689633`: the version, then `key=value` pairs in any order. Readers ignore keys that they do not know;
//! a version that they do not know says nothing to them.

use std::fmt;

const VERSION: &str = "v1";
const TIMESTAMP: &str = "ts";

/// The metadata of one committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitMetadata {
    /// Kafka's timestamp of the last record before the committed offset, in milliseconds since the epoch.
    pub timestamp_ms: i64,
}

impl CommitMetadata {
    /// The text to commit.
    pub fn encode(self) -> String {
        self.to_string()
    }

    /// Reads what [`CommitMetadata::encode`] wrote; `None` for metadata of others, of another version, or damaged.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        if parts.next() != Some(VERSION) {
            return None;
        }
        let timestamp = parts.filter_map(|part| part.split_once('=')).find(|(key, _)| *key == TIMESTAMP)?.1;
        let timestamp_ms = timestamp.parse().ok().filter(|ms| *ms >= 0)?;
        Some(Self { timestamp_ms })
    }
}

impl fmt::Display for CommitMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION};{TIMESTAMP}={}", self.timestamp_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::CommitMetadata;

    #[test]
    fn reads_what_it_writes() {
        let metadata = CommitMetadata { timestamp_ms: 1_795_441_689_633 };
        assert_eq!(metadata.encode(), "v1;ts=1795441689633");
        assert_eq!(CommitMetadata::parse(&metadata.encode()), Some(metadata));
    }

    #[test]
    fn knows_only_its_own_version_and_ignores_further_keys() {
        let known = Some(CommitMetadata { timestamp_ms: 7 });
        let cases = [
            ("v1;ts=7", known),
            ("v1;ts=7;host=a", known),
            ("v1;host=a;ts=7", known),
            ("v2;ts=7", None),
            ("v10;ts=7", None),
            ("ts=7", None),
            ("v1", None),
            ("v1;", None),
            ("v1;ts=", None),
            ("v1;ts=-1", None),
            ("v1;ts=7.5", None),
            ("v1;ts=99999999999999999999", None),
            ("", None),
            ("leader=3 v1;ts=7", None),
        ];
        for (text, expected) in cases {
            assert_eq!(CommitMetadata::parse(text), expected, "{text:?}");
        }
    }
}
