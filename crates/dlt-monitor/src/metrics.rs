//! Names of all metrics of dlt-monitor, and the bounded label sets of its counters.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{counter, describe_counter};

use crate::letter::{Letter, UNKNOWN};
use crate::once::Once;

const EVENTS: &str = "kafka_dlt_events_total";
const LETTERS: &str = "dlt_letters_total";
const ORIGINALS: &str = "dlt_originals_total";

/// Topics and combinations of topic, group and reason that get series of their own. Headers come from strangers, so
/// whatever comes beyond these bounds is counted under [`OTHER`].
const MAX_TOPICS: usize = 200;
const MAX_COMBINATIONS: usize = 1_000;
const OTHER: &str = "other";
/// Distinct originals are told apart within the last so many of this process; about 5 MB.
const ORIGINALS_WINDOW: usize = 100_000;

/// Counts letters.
#[derive(Debug)]
pub(crate) struct LetterMetrics {
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    topics: HashSet<String>,
    combinations: HashSet<[String; 3]>,
    originals: Once,
}

impl LetterMetrics {
    /// Describes the counters; that of `topic` begins at 0, so that its first letter is an increase that alerts can see.
    pub(crate) fn new(topic: &str) -> Self {
        describe_counter!(EVENTS, "Dead letters by the topic of their original; letters of two groups are two.");
        describe_counter!(LETTERS, "Dead letters by topic of the original, group that gave up, and reason.");
        describe_counter!(
            ORIGINALS,
            "Distinct originals of dead letters, by their topic, within the last 100,000 of this process."
        );
        let this = Self { seen: Mutex::new(Seen::new()) };
        counter!(EVENTS, "topic" => this.seen().topic(topic)).increment(0);
        counter!(ORIGINALS, "topic" => this.seen().topic(topic)).increment(0);
        this
    }

    pub(crate) fn count(&self, letter: &Letter) {
        let (topic, [of_topic, group, reason]) = self.seen().labels(letter);
        if self.seen().is_first(letter) {
            counter!(ORIGINALS, "topic" => topic.clone()).increment(1);
        }
        counter!(EVENTS, "topic" => topic).increment(1);
        counter!(LETTERS, "topic" => of_topic, "group" => group, "reason" => reason).increment(1);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Sets only grow: a panic elsewhere leaves nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn new() -> Self {
        Self { topics: HashSet::new(), combinations: HashSet::new(), originals: Once::new(ORIGINALS_WINDOW) }
    }

    /// A letter that does not tell where its original was is taken for one of its own.
    fn is_first(&mut self, letter: &Letter) -> bool {
        match (&letter.topic, letter.partition, letter.offset) {
            (Some(topic), Some(partition), Some(offset)) => self.originals.is_first(topic, partition, offset),
            _ => true,
        }
    }

    fn labels(&mut self, letter: &Letter) -> (String, [String; 3]) {
        let or_unknown = |name: &Option<String>| name.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        let topic = self.topic(&or_unknown(&letter.topic));
        let combination = [topic.clone(), or_unknown(&letter.group), or_unknown(&letter.reason)];
        (topic, self.combination(combination))
    }

    fn topic(&mut self, topic: &str) -> String {
        if !self.topics.contains(topic) {
            if self.topics.len() >= MAX_TOPICS {
                return OTHER.to_owned();
            }
            self.topics.insert(topic.to_owned());
        }
        topic.to_owned()
    }

    fn combination(&mut self, combination: [String; 3]) -> [String; 3] {
        if !self.combinations.contains(&combination) {
            if self.combinations.len() >= MAX_COMBINATIONS {
                let [topic, _, _] = combination;
                return [topic, OTHER.to_owned(), OTHER.to_owned()];
            }
            self.combinations.insert(combination.clone());
        }
        combination
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(topic: &str, reason: &str) -> Letter {
        Letter { topic: Some(topic.to_owned()), reason: Some(reason.to_owned()), ..Letter::default() }
    }

    #[test]
    fn what_is_missing_is_counted_as_unknown() {
        let (topic, rest) = Seen::new().labels(&Letter::default());
        assert_eq!(topic, "unknown");
        assert_eq!(rest, ["unknown", "unknown", "unknown"]);
    }

    #[test]
    fn two_letters_about_one_original_are_one_original() {
        let mut seen = Seen::new();
        let about = |offset| Letter {
            partition: Some(kafka::PartitionId(1)),
            offset: Some(kafka::Offset(offset)),
            ..letter("t", "r")
        };
        assert!(seen.is_first(&about(1)) && seen.is_first(&about(2)));
        assert!(!seen.is_first(&about(1)));
        assert!(seen.is_first(&Letter::default()) && seen.is_first(&Letter::default()), "who knows");
    }

    #[test]
    fn strangers_cannot_make_series_without_bound() {
        let mut seen = Seen::new();
        for number in 0..10_000 {
            seen.labels(&letter(&format!("t{number}"), &format!("r{number}")));
        }
        assert_eq!(seen.topics.len(), MAX_TOPICS);
        assert_eq!(seen.combinations.len(), MAX_COMBINATIONS);
        assert_eq!(seen.labels(&letter("new", "new")).0, "other");
        assert_eq!(seen.labels(&letter("t7", "r7")).0, "t7", "those that have a series keep it");
    }
}
