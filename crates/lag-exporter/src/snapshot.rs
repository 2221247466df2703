//! The immutable text of one collection, and the board on which scrapes find the newest one.
//!
//! Rendered once a collection, and handed out as it is: a scrape costs no more for many series than for few. The metrics
//! recorder cannot forget a series, so lag does not go through it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backpressure::Verdict;
use bytes::Bytes;
use tokio::time::Instant;

use crate::compat::{self, Compat};
use crate::metrics::{self, Family};
use crate::report::{GroupReport, GroupTopic, Pair, Report, TopicReport};
use crate::text::{Label, LabelSets, Number, Text};

/// What of a report is shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) per_partition: PerPartition,
    pub(crate) max_series: usize,
    pub(crate) compat: Vec<Compat>,
    pub(crate) cluster_name: String,
}

/// Whether each partition has series of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PerPartition {
    /// Each partition
    On,
    /// Groups and topics only
    Off,
}

/// Text of the series of one collection.
#[derive(Debug)]
pub(crate) struct Snapshot {
    taken_at: Instant,
    text: Bytes,
}

impl Snapshot {
    pub(crate) fn new(report: &Report, shown: &Shown, taken_at: Instant) -> Self {
        let mut text = Text::bounded(shown.max_series);
        groups(&mut text, &report.groups);
        topics(&mut text, &report.topics);
        text.header(&metrics::UNREAD_TOPIC);
        for (topic, reason) in &report.unread_topics {
            let labels = format!("{{topic=\"{}\",reason=\"{}\"}}", Label(topic), reason.as_str());
            text.series(&metrics::UNREAD_TOPIC, &labels, 1_u64);
        }
        compat::summaries(&mut text, report, shown);
        if shown.per_partition == PerPartition::On {
            partitions(&mut text, report, shown);
        }
        let (written, cut) = (text.written(), text.cut());
        let mut about = Text::bounded(usize::MAX);
        for (family, value) in [(&metrics::SERIES, written), (&metrics::SERIES_CUT, cut)] {
            about.header(family);
            about.series(family, "", value);
        }
        Self { taken_at, text: (text.finish() + &about.finish()).into() }
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

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        *self.state() = State { newest: Some(Arc::new(snapshot)), last_collection: Outcome::Succeeded };
    }

    pub(crate) fn collection_failed(&self) {
        self.state().last_collection = Outcome::Failed;
    }

    /// How it goes, at `now`.
    pub(crate) fn health(&self, now: Instant) -> String {
        let (newest, outcome) = {
            let state = self.state();
            (state.newest.clone(), state.last_collection)
        };
        let age = newest.map(|snapshot| now.saturating_duration_since(snapshot.taken_at));
        let up = age.is_some_and(|age| age <= self.stale_after) && outcome == Outcome::Succeeded;
        let mut text = Text::bounded(usize::MAX);
        text.header(&metrics::UP);
        text.series(&metrics::UP, "", usize::from(up));
        if let Some(age) = age {
            text.header(&metrics::SAMPLE_AGE_SECONDS);
            text.series(&metrics::SAMPLE_AGE_SECONDS, "", age.as_secs_f64());
        }
        text.finish()
    }

    /// The series of the newest collection, as long as they are not stale at `now`.
    pub(crate) fn series(&self, now: Instant) -> Bytes {
        let newest = self.state().newest.clone();
        let fresh = newest.filter(|snapshot| now.saturating_duration_since(snapshot.taken_at) <= self.stale_after);
        fresh.map_or_else(Bytes::new, |snapshot| snapshot.text.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A family with one series a group, or none where the figure is not known.
fn per_group<V: Into<Number>>(
    text: &mut Text,
    (groups, labels): (&[Arc<GroupReport>], &LabelSets),
    family: &Family,
    value: impl Fn(&GroupReport) -> Option<V>,
) {
    text.header(family);
    for (group, labels) in groups.iter().zip(labels.iter()) {
        if let Some(value) = value(group) {
            text.series(family, labels, value);
        }
    }
}

fn groups(text: &mut Text, reports: &[Arc<GroupReport>]) {
    let mut labels = LabelSets::default();
    reports.iter().for_each(|report| labels.add(format_args!("{{group=\"{}\"}}", Label(&report.group))));
    let groups = (reports, &labels);
    per_group(text, groups, &metrics::GROUP_LAG, GroupReport::lag_sum);
    per_group(text, groups, &metrics::GROUP_LAG_MAX, GroupReport::lag_max);
    per_group(text, groups, &metrics::GROUP_LAG_SECONDS_SUM, GroupReport::seconds_sum);
    per_group(text, groups, &metrics::GROUP_LAG_SECONDS_MAX, GroupReport::seconds_max);
    per_group(text, groups, &metrics::CONSUMPTION_RATE, |group| group.consumption_rate);
    per_group(text, groups, &metrics::PRODUCTION_RATE, |group| group.production_rate);
    per_group(text, groups, &metrics::DRAIN_SECONDS, |group| group.drain_seconds);
    per_group(text, groups, &metrics::MEMBERS, |group| group.members);
    per_group(text, groups, &metrics::HOTTEST, GroupReport::hottest_share);
    per_group(text, groups, &metrics::MARGIN_RECORDS, |group| group.margin.records);
    per_group(text, groups, &metrics::MARGIN_SECONDS, |group| group.margin.seconds);
    per_group(text, groups, &metrics::MARGIN_RATIO, margin_ratio);
    per_group(text, groups, &metrics::LOST, |group| Some(group.lost_to_retention));
    per_group(text, groups, &metrics::COMMIT_AGE, |group| group.commit_age_seconds);
    per_group(text, groups, &metrics::BEYOND_END_PARTITIONS, |group| Some(group.beyond_end()));
    states(text, reports);
}

/// Without anything that waits, retention takes nothing from anybody.
fn margin_ratio(group: &GroupReport) -> Option<f64> {
    group.margin.ratio.or_else(|| group.lag_sum().filter(|lag| *lag == 0).map(|_| 1.0))
}

/// Families whose labels say what is the case.
fn states(text: &mut Text, groups: &[Arc<GroupReport>]) {
    text.header(&metrics::STATE);
    for group in groups {
        let (name, state, protocol) = (Label(&group.group), Label(&group.state), Label(&group.protocol));
        let labels = format!("{{group=\"{name}\",state=\"{state}\",protocol=\"{protocol}\"}}");
        text.series(&metrics::STATE, &labels, 1_u64);
    }
    text.header(&metrics::VERDICT);
    for group in groups {
        for verdict in Verdict::ALL {
            let labels = format!("{{group=\"{}\",verdict=\"{}\"}}", Label(&group.group), verdict.as_str());
            text.series(&metrics::VERDICT, &labels, u64::from(group.verdict == verdict));
        }
    }
    text.header(&metrics::METHOD);
    for group in groups {
        for method in group.methods() {
            let labels = format!("{{group=\"{}\",method=\"{}\"}}", Label(&group.group), method.as_str());
            text.series(&metrics::METHOD, &labels, 1_u64);
        }
    }
    text.header(&metrics::UNKNOWN);
    for group in groups {
        for (reason, count) in group.unknown() {
            let labels = format!("{{group=\"{}\",reason=\"{}\"}}", Label(&group.group), reason.as_str());
            text.series(&metrics::UNKNOWN, &labels, count);
        }
    }
}

fn topics(text: &mut Text, topics: &[TopicReport]) {
    let of = |value: fn(&TopicReport) -> Option<f64>| {
        topics.iter().filter_map(move |topic| Some((format!("{{topic=\"{}\"}}", Label(&topic.topic)), value(topic)?)))
    };
    text.header(&metrics::TOPIC_RATE);
    of(|topic| topic.production_rate).for_each(|(labels, rate)| text.series(&metrics::TOPIC_RATE, &labels, rate));
    text.header(&metrics::TOPIC_HOTTEST);
    of(|topic| topic.hottest_share).for_each(|(labels, share)| text.series(&metrics::TOPIC_HOTTEST, &labels, share));
}

/// Families of pairs and of partitions, and of the others that they are called by.
const PAIR_FAMILIES: usize = 3;
const PARTITION_FAMILIES: usize = 2;

/// A group is shown with all its partitions or with none: a part of them would add up to less lag than there is.
fn partitions(text: &mut Text, report: &Report, shown: &Shown) {
    let mut reserved = 0;
    let compat = &shown.compat;
    let pair_families = PAIR_FAMILIES + compat.iter().map(|one| one.pair_families()).sum::<usize>();
    let partition_families = PARTITION_FAMILIES + compat.iter().map(|one| one.partition_families()).sum::<usize>();
    let mut groups: Vec<&GroupReport> = report.groups.iter().map(|group| &**group).collect();
    groups.retain(|group| {
        let pairs: usize = group.topics.iter().map(|topic| topic.pairs.len()).sum();
        text.reserve(pairs * pair_families, &mut reserved)
    });
    let mut topics: Vec<&TopicReport> = report.topics.iter().collect();
    topics.retain(|topic| text.reserve(topic.partitions.len() * partition_families, &mut reserved));
    pairs(text, &groups);
    ends(text, &topics);
    compat::details(text, &groups, &topics, shown);
}

fn pairs(text: &mut Text, groups: &[&GroupReport]) {
    let mut labels = LabelSets::default();
    for (group, topic, number, _) in each_pair(groups) {
        let (topic, group) = (Label(&topic.topic), Label(&group.group));
        labels.add(format_args!("{{topic=\"{topic}\",partition=\"{number}\",group=\"{group}\"}}"));
    }
    let mut family = |family: &Family, value: fn(&Pair) -> Option<Number>| {
        text.header(family);
        for ((_, _, _, pair), labels) in each_pair(groups).zip(labels.iter()) {
            if let Some(value) = value(pair) {
                text.series(family, labels, value);
            }
        }
    };
    family(&metrics::LAG, |pair| pair.lag.ok().map(Number::Count));
    family(&metrics::LAG_SECONDS, |pair| pair.seconds.ok().map(Number::Seconds));
    family(&metrics::COMMITTED, |pair| pair.committed.map(Number::Offset));
    family(&metrics::BEYOND_END, |pair| (pair.beyond > 0).then_some(Number::Count(pair.beyond)));
}

pub(crate) fn each_pair<'a>(
    groups: &'a [&'a GroupReport],
) -> impl Iterator<Item = (&'a GroupReport, &'a GroupTopic, usize, &'a Pair)> {
    groups.iter().flat_map(|group| {
        let topics = group.topics.iter();
        topics.flat_map(move |topic| {
            topic.pairs.iter().enumerate().map(move |(number, pair)| (*group, topic, number, pair))
        })
    })
}

fn ends(text: &mut Text, topics: &[&TopicReport]) {
    for (family, value) in [
        (&metrics::END, (|partition| partition.end) as fn(&crate::sample::PartitionReading) -> Option<i64>),
        (&metrics::START, |partition| partition.start),
    ] {
        text.header(family);
        for topic in topics {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let Some(value) = value(partition) else { continue };
                let labels = format!("{{topic=\"{}\",partition=\"{number}\"}}", Label(&topic.topic));
                text.series(family, &labels, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
