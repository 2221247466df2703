//! Which letters a command is about. Pure.

use std::fmt::Write as _;
use std::str::FromStr;

use event::Reason;
use kafka::Record;

use crate::letter::{Letter, UNKNOWN};
use crate::moment::Moment;
use crate::scan::Found;

/// Flags that select letters; several of one kind mean any of them, several kinds mean all.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which letters")]
pub struct FilterArgs {
    /// Letters from this moment on: how long ago (2h) or a time (2026-11-23T21:00:00Z); a letter's time is that of its
    /// publication
    #[arg(long, value_name = "MOMENT")]
    pub since: Option<Moment>,

    /// Letters up to this moment
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<Moment>,

    /// Reason codes such as missing_latitude, separated by commas; of others' letters the class of the exception; unknown
    #[arg(long, value_name = "REASON,…", value_delimiter = ',')]
    pub reason: Vec<ReasonName>,

    /// Consumer groups that gave up, separated by commas; unknown for letters that name none
    #[arg(long, value_name = "GROUP,…", value_delimiter = ',')]
    pub group: Vec<String>,

    /// Partitions of the dead letter topic, separated by commas; they are the originals' as long as it has as many
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Vec<i32>,

    /// Keys of the originals (driver ids), or their hashes as `list` shows them (#af63…), separated by commas
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    pub key: Vec<String>,
}

impl FilterArgs {
    /// Checks the flags against each other.
    ///
    /// # Errors
    /// The flag to blame.
    pub fn check(&self, now_ms: i64) -> Result<(), service::Usage> {
        match (&self.since, &self.until) {
            (Some(since), Some(until)) if since.at_ms(now_ms) > until.at_ms(now_ms) => {
                Err(service::Usage::new("--since", since, format!("must not be later than --until ({until})")))
            }
            _ => Ok(()),
        }
    }

    /// The filter, as seen at `now_ms`.
    pub fn filter(&self, now_ms: i64) -> Filter {
        Filter {
            since_ms: self.since.as_ref().map(|since| since.at_ms(now_ms)),
            until_ms: self.until.as_ref().map(|until| until.at_ms(now_ms)),
            reasons: self.reason.iter().map(|reason| reason.0.clone()).collect(),
            groups: self.group.clone(),
            partitions: self.partition.clone(),
            keys: self.key.clone(),
        }
    }

    /// The flags in one order, however they were given; empty without any.
    pub fn words(&self) -> String {
        let sorted = |words: Vec<String>| {
            let mut words = words;
            words.sort();
            words.join(",")
        };
        let one = |moment: &Option<Moment>| moment.as_ref().map(ToString::to_string).unwrap_or_default();
        let flags = [
            ("since", one(&self.since)),
            ("until", one(&self.until)),
            ("reason", sorted(self.reason.iter().map(|reason| reason.0.clone()).collect())),
            ("group", sorted(self.group.clone())),
            ("partition", sorted(self.partition.iter().map(ToString::to_string).collect())),
            ("key", sorted(self.key.iter().map(|key| service::hash_id(key)).collect())),
        ];
        flags.iter().filter(|(_, value)| !value.is_empty()).fold(String::new(), |mut words, (flag, value)| {
            let space = if words.is_empty() { "" } else { " " };
            let _ = write!(words, "{space}--{flag} {value}");
            words
        })
    }
}

/// A reason that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonName(String);

impl FromStr for ReasonName {
    type Err = String;

    /// Ours are a closed set; those of others are names of Java's classes.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_class = text.contains('.') && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '$'));
        if text.parse::<Reason>().is_ok() || text == UNKNOWN || is_class {
            return Ok(Self(text.to_owned()));
        }
        let codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        Err(format!("no such reason; give {}, {UNKNOWN}, or the full name of an exception's class", codes.join(", ")))
    }
}

/// A predicate over letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Earliest time of publication, ms since the epoch.
    pub since_ms: Option<i64>,
    /// Latest time of publication.
    pub until_ms: Option<i64>,
    /// Reasons, if not all.
    pub reasons: Vec<String>,
    /// Groups, if not all.
    pub groups: Vec<String>,
    /// Partitions of the dead letter topic, if not all.
    pub partitions: Vec<i32>,
    /// Keys or their hashes, if not all.
    pub keys: Vec<String>,
}

impl Filter {
    /// Whether it lets everything pass.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn wants_partition(&self, partition: i32) -> bool {
        self.partitions.is_empty() || self.partitions.contains(&partition)
    }

    pub(crate) fn matches(&self, found: &Found) -> bool {
        let time = found.record.timestamp_ms;
        self.since_ms.is_none_or(|since| time >= since)
            && self.until_ms.is_none_or(|until| time <= until)
            && self.wants_partition(found.place.partition.partition.0)
            && is_one_of(&self.reasons, &found.letter, |letter| letter.reason.as_deref())
            && is_one_of(&self.groups, &found.letter, |letter| letter.group.as_deref())
            && self.wants_key(&found.record)
    }

    fn wants_key(&self, record: &Record) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        let Some(key) = &record.key else { return false };
        self.keys.iter().any(|wanted| wanted.as_bytes() == key || *wanted == service::hash_id(&key_text(key)))
    }
}

/// A key as text; one that is no UTF-8 as its hex digits.
pub(crate) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => key.iter().fold("0x".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

fn is_one_of<'l>(wanted: &[String], letter: &'l Letter, part: impl Fn(&'l Letter) -> Option<&'l str>) -> bool {
    wanted.is_empty() || wanted.iter().any(|one| one == part(letter).unwrap_or(UNKNOWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::samples::found;

    fn matches(change: impl FnOnce(&mut Filter)) -> bool {
        let mut filter = Filter::default();
        change(&mut filter);
        filter.matches(&found(3, 17, 1_000, b"driver-1", "g", "missing_latitude"))
    }

    #[test]
    fn every_condition_must_hold_and_any_value_of_it_may() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(matches(|_| ()));
        assert!(matches(|filter| filter.since_ms = Some(1_000)) && !matches(|filter| filter.since_ms = Some(1_001)));
        assert!(matches(|filter| filter.until_ms = Some(1_000)) && !matches(|filter| filter.until_ms = Some(999)));
        assert!(matches(|filter| filter.reasons = words(&["undecodable", "missing_latitude"])));
        assert!(!matches(|filter| filter.reasons = words(&["undecodable"])));
        assert!(matches(|filter| filter.groups = words(&["g"])) && !matches(|filter| filter.groups = words(&["h"])));
        assert!(matches(|filter| filter.partitions = vec![1, 3]) && !matches(|filter| filter.partitions = vec![1]));
        assert!(matches(|filter| filter.keys = words(&["driver-1"])) && !matches(|filter| filter.keys = words(&["d"])));
        assert!(matches(|filter| filter.keys = vec![service::hash_id("driver-1")]), "as list shows it");
        let both = |filter: &mut Filter| {
            filter.reasons = words(&["missing_latitude"]);
            filter.groups = words(&["h"]);
        };
        assert!(!matches(both));
    }

    #[test]
    fn a_letter_that_names_no_reason_or_group_is_unknown() {
        let mut bare = found(0, 0, 0, b"", "g", "r");
        bare.letter = Letter::default();
        let filter = |reason: &str| Filter { reasons: vec![reason.to_owned()], ..Filter::default() };
        assert!(filter("unknown").matches(&bare) && !filter("undecodable").matches(&bare));
    }

    #[test]
    fn reasons_are_ours_or_classes() {
        for right in ["missing_latitude", "undecodable_batch", "unknown", "java.lang.IllegalArgumentException"] {
            assert!(right.parse::<ReasonName>().is_ok(), "{right}");
        }
        for wrong in ["", "mising_latitude", "Missing_latitude", "a b.c", "*"] {
            let line = wrong.parse::<ReasonName>().unwrap_err();
            assert!(line.contains("missing_latitude") && line.contains("no such reason"), "{line}");
        }
    }

    #[test]
    fn the_same_flags_are_the_same_words_in_any_order() {
        let args = |reasons: [&str; 2]| FilterArgs {
            reason: reasons.map(|reason| reason.parse().unwrap()).into(),
            since: Some("2h".parse().unwrap()),
            key: vec!["driver-1".to_owned()],
            ..FilterArgs::default()
        };
        let words = args(["undecodable", "missing_latitude"]).words();
        assert_eq!(words, args(["missing_latitude", "undecodable"]).words());
        assert!(words.starts_with("--since 2h --reason missing_latitude,undecodable --key #"), "{words}");
        assert!(!words.contains("driver-1") && FilterArgs::default().words().is_empty());
    }
}
