//! Names of all metrics of dlt-monitor, and the bounded label sets of its counters.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{counter, describe_counter};

use crate::letter::{Letter, UNKNOWN};

const EVENTS: &str = "kafka_dlt_events_total";
const LETTERS: &str = "dlt_letters_total";

/// Topics and combinations of topic, group and reason that get series of their own. Headers come from strangers, so
/// whatever comes beyond these bounds is counted under [`OTHER`].
const MAX_TOPICS: usize = 200;
const MAX_COMBINATIONS: usize = 1_000;
const OTHER: &str = "other";

/// Counts letters.
#[derive(Debug, Default)]
pub(crate) struct LetterMetrics {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    topics: HashSet<String>,
    combinations: HashSet<[String; 3]>,
}

impl LetterMetrics {
    /// Describes the counters; that of `topic` begins at 0, so that its first letter is an increase that alerts can see.
    pub(crate) fn new(topic: &str) -> Self {
        describe_counter!(EVENTS, "Dead letters by the topic of their original; letters of two groups are two.");
        describe_counter!(LETTERS, "Dead letters by topic of the original, group that gave up, and reason.");
        let this = Self::default();
        counter!(EVENTS, "topic" => this.seen().topic(topic)).increment(0);
        this
    }

    pub(crate) fn count(&self, letter: &Letter) {
        let (topic, [of_topic, group, reason]) = self.seen().labels(letter);
        counter!(EVENTS, "topic" => topic).increment(1);
        counter!(LETTERS, "topic" => of_topic, "group" => group, "reason" => reason).increment(1);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Sets only grow: a panic elsewhere leaves nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
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
        let (topic, rest) = Seen::default().labels(&Letter::default());
        assert_eq!(topic, "unknown");
        assert_eq!(rest, ["unknown", "unknown", "unknown"]);
    }

    #[test]
    fn strangers_cannot_make_series_without_bound() {
        let mut seen = Seen::default();
        for number in 0..10_000 {
            seen.labels(&letter(&format!("t{number}"), &format!("r{number}")));
        }
        assert_eq!(seen.topics.len(), MAX_TOPICS);
        assert_eq!(seen.combinations.len(), MAX_COMBINATIONS);
        assert_eq!(seen.labels(&letter("new", "new")).0, "other");
        assert_eq!(seen.labels(&letter("t7", "r7")).0, "t7", "those that have a series keep it");
    }
}
