//! The immutable text of one collection, and the board on which scrapes find the newest one.
//!
//! Rendered once a collection: a scrape copies it, however many series there are. The metrics recorder cannot forget a
//! series, so lag does not go through it.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lag::GroupLag;
use crate::metrics::{
    Family, GROUP_LAG, GROUP_LAG_MAX, GROUP_LAG_SECONDS_MAX, LAG, LAG_SECONDS, SAMPLE_AGE_SECONDS, UP,
};

/// Text of the series of one collection.
#[derive(Debug)]
pub(crate) struct Snapshot {
    taken_at: Instant,
    text: String,
}

impl Snapshot {
    pub(crate) fn new(groups: &[GroupLag], taken_at: Instant) -> Self {
        let mut text = String::new();
        partition_family(&mut text, &LAG, groups, |lag| Some(lag.records));
        partition_family(&mut text, &LAG_SECONDS, groups, |lag| lag.seconds);
        group_family(&mut text, &GROUP_LAG, groups, GroupLag::sum);
        group_family(&mut text, &GROUP_LAG_MAX, groups, GroupLag::max);
        group_family(&mut text, &GROUP_LAG_SECONDS_MAX, groups, GroupLag::max_seconds);
        Self { taken_at, text }
    }
}

/// Where the collection pins its newest snapshot and scrapes read it.
#[derive(Debug)]
pub(crate) struct Board {
    stale_after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Arc<Snapshot>>,
    last_collection: Outcome,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    Failed,
    Succeeded,
}

impl Board {
    pub(crate) fn new(stale_after: Duration) -> Self {
        Self { stale_after, state: Mutex::default() }
    }

    pub(crate) fn stale_after(&self) -> Duration {
        self.stale_after
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        *self.state() = State { newest: Some(Arc::new(snapshot)), last_collection: Outcome::Succeeded };
    }

    pub(crate) fn collection_failed(&self) {
        self.state().last_collection = Outcome::Failed;
    }

    /// What a scrape at `now` adds to the answer.
    pub(crate) fn render(&self, now: Instant) -> String {
        let (newest, outcome) = {
            let state = self.state();
            (state.newest.clone(), state.last_collection)
        };
        let age = newest.as_ref().map(|snapshot| now.saturating_duration_since(snapshot.taken_at));
        let fresh = newest.filter(|_| age.is_some_and(|age| age <= self.stale_after));
        let up = fresh.is_some() && outcome == Outcome::Succeeded;
        let mut text = String::with_capacity(fresh.as_ref().map_or(0, |snapshot| snapshot.text.len()) + 512);
        header(&mut text, &UP);
        line(&mut text, format_args!("{} {}", UP.name, u8::from(up)));
        if let Some(age) = age {
            header(&mut text, &SAMPLE_AGE_SECONDS);
            line(&mut text, format_args!("{} {}", SAMPLE_AGE_SECONDS.name, age.as_secs_f64()));
        }
        if let Some(snapshot) = fresh {
            text.push_str(&snapshot.text);
        }
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn partition_family<V: fmt::Display>(
    text: &mut String,
    family: &Family,
    groups: &[GroupLag],
    value: impl Fn(crate::lag::Lag) -> Option<V>,
) {
    header(text, family);
    for group in groups {
        let name = Label(&group.group);
        for (place, lag) in &group.partitions {
            let Some(value) = lag.and_then(&value) else { continue };
            let (topic, partition) = (Label(&place.topic), place.partition);
            line(
                text,
                format_args!("{}{{topic=\"{topic}\",partition=\"{partition}\",group=\"{name}\"}} {value}", family.name),
            );
        }
    }
}

fn group_family<V: fmt::Display>(
    text: &mut String,
    family: &Family,
    groups: &[GroupLag],
    value: impl Fn(&GroupLag) -> Option<V>,
) {
    header(text, family);
    for group in groups {
        let Some(value) = value(group) else { continue };
        line(text, format_args!("{}{{group=\"{}\"}} {value}", family.name, Label(&group.group)));
    }
}

fn header(text: &mut String, family: &Family) {
    line(text, format_args!("# HELP {} {}", family.name, family.help));
    line(text, format_args!("# TYPE {} gauge", family.name));
}

fn line(text: &mut String, arguments: fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// A label value, escaped as Prometheus' text format wants it.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lag::Lag;
    use kafka::{PartitionId, TopicPartition};

    const STALE_AFTER: Duration = Duration::from_secs(15);

    fn group(name: &str, lags: &[Option<Lag>]) -> GroupLag {
        let partitions = (0..).zip(lags).map(|(number, lag)| (TopicPartition::new("t", PartitionId(number)), *lag));
        GroupLag { group: name.into(), partitions: partitions.collect() }
    }

    fn lag(records: u64, seconds: Option<f64>) -> Option<Lag> {
        Some(Lag { records, seconds })
    }

    fn series(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[tokio::test]
    async fn each_partition_and_each_group_has_its_series() {
        let groups = [group("a", &[lag(10, Some(1.5)), lag(0, Some(0.0))]), group("b", &[lag(7, None), None])];
        let snapshot = Snapshot::new(&groups, Instant::now());
        let expected = [
            r#"kafka_consumer_lag{topic="t",partition="0",group="a"} 10"#,
            r#"kafka_consumer_lag{topic="t",partition="1",group="a"} 0"#,
            r#"kafka_consumer_lag{topic="t",partition="0",group="b"} 7"#,
            r#"kafka_consumer_lag_seconds{topic="t",partition="0",group="a"} 1.5"#,
            r#"kafka_consumer_lag_seconds{topic="t",partition="1",group="a"} 0"#,
            r#"kafka_consumer_group_lag{group="a"} 10"#,
            r#"kafka_consumer_group_lag_max{group="a"} 10"#,
            r#"kafka_consumer_group_lag_seconds_max{group="a"} 1.5"#,
        ];
        assert_eq!(series(&snapshot.text), expected);
    }

    #[tokio::test]
    async fn label_values_are_escaped() {
        let snapshot = Snapshot::new(&[group("a\"b\\c\nd", &[lag(1, None)])], Instant::now());
        assert!(snapshot.text.contains(r#"group="a\"b\\c\nd"} 1"#), "{}", snapshot.text);
    }

    #[tokio::test]
    async fn a_failed_collection_is_down_and_keeps_the_lag_until_it_is_stale() {
        let board = Board::new(STALE_AFTER);
        let start = Instant::now();
        assert_eq!(series(&board.render(start)), ["kafka_lag_exporter_up 0"]);
        board.publish(Snapshot::new(&[group("a", &[lag(10, None)])], start));
        assert!(board.render(start).contains("kafka_lag_exporter_up 1"));
        board.collection_failed();
        let kept = board.render(start + STALE_AFTER);
        assert!(kept.contains("kafka_lag_exporter_up 0") && kept.contains("kafka_consumer_lag{"), "{kept}");
        let dropped = board.render(start + STALE_AFTER + Duration::from_millis(1));
        assert!(dropped.contains("kafka_lag_exporter_up 0") && !dropped.contains("kafka_consumer_lag"), "{dropped}");
    }

    #[tokio::test]
    async fn a_collection_that_hangs_is_down_once_its_lag_is_stale() {
        let board = Board::new(STALE_AFTER);
        let start = Instant::now();
        board.publish(Snapshot::new(&[], start));
        assert!(board.render(start + STALE_AFTER + Duration::from_secs(1)).contains("kafka_lag_exporter_up 0"));
    }
}
