//! `lag-exporter once`: what `kafka-consumer-groups --describe` shows, plus seconds and rates.
//!
//! One collection has no earlier one to compare with, so the ends of a window ago are asked of Kafka by time: with them
//! the rate of production is known at once, and the time lag of groups whose commits do not tell it. How fast a group
//! consumes only a second collection shows (`--watch`).

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::collect::Collector;
use crate::config::OnceArgs;
use crate::error::Error;
use crate::history::History;
use crate::report::{GroupReport, GroupTopic, Pair, Report, TopicReport};
use crate::sample::{Reason, Sample};

/// What stands for a figure that is not known, as in Kafka's own tool.
const UNKNOWN: &str = "-";
/// Clears a terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";
const COLUMNS: [&str; 11] = [
    "GROUP",
    "TOPIC",
    "PARTITION",
    "CURRENT-OFFSET",
    "LOG-END-OFFSET",
    "LAG",
    "SECONDS",
    "PRODUCED/S",
    "CONSUMER-ID",
    "HOST",
    "CLIENT-ID",
];
const GROUP_COLUMNS: [&str; 10] =
    ["GROUP", "STATE", "PROTOCOL", "MEMBERS", "LAG", "SECONDS", "CONSUMED/S", "PRODUCED/S", "DRAIN-S", "VERDICT"];

/// Form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One JSON object a collection, for programs
    Json,
}

/// Shows the lag once, or every `interval`.
pub(crate) struct OnceTask {
    pub(crate) collector: Collector,
    pub(crate) history: History,
    pub(crate) interval: Duration,
    pub(crate) window: Duration,
    pub(crate) args: OnceArgs,
}

impl OnceTask {
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            ticks.tick().await;
            let sample = self.collector.collect().await?;
            if std::mem::take(&mut is_first) {
                self.look_back(&sample).await?;
            }
            let report = crate::judge(&mut self.history, &self.collector, &sample).await;
            show(&report, &self.args).map_err(Error::Output)?;
            if !self.args.watch {
                return Ok(());
            }
        }
    }

    async fn look_back(&mut self, sample: &Sample) -> Result<(), Error> {
        let at_ms = sample.taken_at_ms - i64::try_from(self.window.as_millis()).unwrap_or(0);
        let topics = sample.topics.iter().filter_map(|(topic, reading)| Some((topic, reading.as_ref().ok()?)));
        let places: Vec<_> = topics
            .flat_map(|(topic, reading)| {
                (0..reading.partitions.len()).map(|index| {
                    let number = kafka::PartitionId(i32::try_from(index).unwrap_or(i32::MAX));
                    kafka::TopicPartition::new(std::sync::Arc::clone(topic), number)
                })
            })
            .collect();
        for (place, end) in self.collector.ends_at(&places, at_ms).await? {
            if let Some(Ok(topic)) = sample.topics.get(&place.topic) {
                self.history.seed(&place, topic.id, end, at_ms);
            }
        }
        Ok(())
    }
}

fn show(report: &Report, args: &OnceArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", as_json(report))?,
        Output::Table => {
            let clear = if args.watch && out.is_terminal() { CLEAR } else { "" };
            write!(out, "{clear}{}", as_table(report))?;
        }
    }
    out.flush()
}

fn as_table(report: &Report) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for group in &report.groups {
        for topic in &group.topics {
            let log = log_of(report, topic);
            rows.extend(topic.pairs.iter().enumerate().map(|(number, pair)| row(group, topic, number, pair, log)));
        }
    }
    let mut groups = vec![GROUP_COLUMNS.map(str::to_owned).to_vec()];
    groups.extend(report.groups.iter().map(|group| group_row(group)));
    format!("{}\n{}", aligned(&rows), aligned(&groups))
}

fn log_of<'r>(report: &'r Report, topic: &GroupTopic) -> Option<&'r TopicReport> {
    report.topics.iter().find(|log| log.topic == topic.topic)
}

fn row(group: &GroupReport, topic: &GroupTopic, number: usize, pair: &Pair, log: Option<&TopicReport>) -> Vec<String> {
    let end = log.and_then(|log| log.partitions.get(number)?.end);
    let rate = log.and_then(|log| log.rates.get(number).copied()?);
    let lag = match pair.lag {
        Ok(lag) => lag.to_string(),
        Err(reason) => reason.as_str().to_owned(),
    };
    let owner = |part: fn(&crate::sample::Owner) -> &str| text(pair.owner.as_ref().map(|owner| part(owner)));
    vec![
        group.group.to_string(),
        topic.topic.to_string(),
        number.to_string(),
        text(pair.committed),
        text(end),
        lag,
        decimal(pair.seconds.ok()),
        decimal(rate),
        owner(|owner| &owner.member_id),
        owner(|owner| &owner.host),
        owner(|owner| &owner.client_id),
    ]
}

fn group_row(group: &GroupReport) -> Vec<String> {
    vec![
        group.group.to_string(),
        group.unread.map_or_else(|| group.state.clone(), |reason| reason.as_str().to_owned()),
        if group.protocol.is_empty() { UNKNOWN.to_owned() } else { group.protocol.clone() },
        text(group.members),
        text(group.lag_sum()),
        decimal(group.seconds_max()),
        decimal(group.consumption_rate),
        decimal(group.production_rate),
        decimal(group.drain_seconds),
        group.verdict.as_str().to_owned(),
    ]
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

fn decimal(value: Option<f64>) -> String {
    text(value.map(|value| format!("{value:.1}")))
}

/// Columns as wide as what is in them.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing into a String cannot fail.
            let _ = write!(line, "{cell:width$} ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn as_json(report: &Report) -> Value {
    let groups = report.groups.iter().map(|group| {
        let partitions = group.topics.iter().flat_map(|topic| {
            let log = log_of(report, topic);
            topic.pairs.iter().enumerate().map(move |(number, pair)| partition_json(topic, number, pair, log))
        });
        json!({
            "group": &*group.group,
            "state": group.state,
            "protocol": group.protocol,
            "members": group.members,
            "unread": group.unread.map(Reason::as_str),
            "lag": group.lag_sum(),
            "lagMax": group.lag_max(),
            "lagSecondsMax": group.seconds_max(),
            "consumedPerSecond": group.consumption_rate,
            "producedPerSecond": group.production_rate,
            "drainSeconds": group.drain_seconds,
            "verdict": group.verdict.as_str(),
            "partitions": partitions.collect::<Vec<_>>(),
        })
    });
    json!({ "takenAtMs": report.taken_at_ms, "groups": groups.collect::<Vec<_>>() })
}

fn partition_json(topic: &GroupTopic, number: usize, pair: &Pair, log: Option<&TopicReport>) -> Value {
    let partition = log.and_then(|log| log.partitions.get(number));
    let unknown = pair.lag.err().or(pair.seconds.err());
    json!({
        "topic": &*topic.topic,
        "partition": number,
        "committedOffset": pair.committed,
        "startOffset": partition.and_then(|partition| partition.start),
        "endOffset": partition.and_then(|partition| partition.end),
        "lag": pair.lag.ok(),
        "lagSeconds": pair.seconds.ok(),
        "lagSecondsBy": pair.seconds.ok().map(|_| pair.method.as_str()),
        "beyondEnd": pair.beyond,
        "unknown": unknown.map(Reason::as_str),
        "producedPerSecond": log.and_then(|log| log.rates.get(number).copied().flatten()),
        "consumerId": pair.owner.as_ref().map(|owner| &owner.member_id),
        "host": pair.owner.as_ref().map(|owner| &owner.host),
        "clientId": pair.owner.as_ref().map(|owner| &owner.client_id),
    })
}
