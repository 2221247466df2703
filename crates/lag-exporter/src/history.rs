//! What earlier samples leave behind, and the report that follows from it and the newest sample.
//!
//! ```text
//!   observe(sample) ─▶ Ends (a partition), Trace (a pair), Progress (a group) ─▶ places whose record is to be read
//!   learn(place, time)                                                          ─▶ report(sample)
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use backpressure::{Progress, Sight as Seen};
use kafka::{Offset, PartitionId, TopicPartition};

use crate::ends::Ends;
use crate::pair::{Position, Read, Rules, Sight, Trace};
use crate::report::{GroupReport, GroupTopic, Margin, Pair, Report, TopicReport};
use crate::sample::{Commit, GroupReading, Owner, PartitionReading, Reason, Sample, TopicReading};

/// Places whose record is read after one sample; the rest waits for the next.
const MAX_READS: usize = 512;
/// A topic whose records we may not read is not tried again for this long.
const DENIED_FOR_MS: i64 = 60_000;

/// How samples are judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
    /// What could not be read again is given out until it is older.
    pub(crate) stale_after: Duration,
    /// What rates and verdicts speak of.
    pub(crate) window: Duration,
}

/// What earlier samples leave behind.
pub(crate) struct History {
    settings: Settings,
    topics: HashMap<Arc<str>, TopicHistory>,
    groups: HashMap<Arc<str>, GroupHistory>,
}

#[derive(Default)]
struct TopicHistory {
    id: [u8; 16],
    partitions: Vec<Ends>,
    denied_until_ms: i64,
}

struct GroupHistory {
    topics: BTreeMap<Arc<str>, GroupTopicHistory>,
    progress: Progress,
    consumed: u64,
    produced: u64,
    lost: u64,
    moved_at_ms: Option<i64>,
    /// The last report from what was read, and when.
    last: Option<(Arc<GroupReport>, i64)>,
}

#[derive(Default)]
struct GroupTopicHistory {
    id: [u8; 16],
    traces: Vec<Trace>,
}

/// A place in the log whose record is to be read for its time.
pub(crate) type Place = (TopicPartition, Offset);

impl History {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, topics: HashMap::new(), groups: HashMap::new() }
    }

    /// Tells the end that a partition had at a time before the first sample.
    pub(crate) fn seed(&mut self, place: &TopicPartition, id: [u8; 16], end: i64, at_ms: i64) {
        let topic = self.topics.entry(Arc::clone(&place.topic)).or_default();
        topic.id = id;
        let index = usize::try_from(place.partition.0).unwrap_or(0);
        topic.partitions.resize_with(topic.partitions.len().max(index + 1), Ends::default);
        topic.partitions[index].observe(end, at_ms);
    }

    /// Takes note of a sample. Groups, topics and partitions that it does not hold are forgotten. Returns the places whose
    /// record would tell a time lag that is not known otherwise.
    pub(crate) fn observe(&mut self, sample: &Sample) -> Vec<Place> {
        self.observe_topics(sample);
        self.groups.retain(|group, _| sample.groups.contains_key(group));
        let mut wanted = Wanted::default();
        for (group, reading) in &sample.groups {
            let window = self.settings.window;
            let history = self.groups.entry(Arc::clone(group)).or_insert_with(|| GroupHistory::new(window));
            history.observe(sample, reading, &self.topics, self.settings.rules, &mut wanted);
        }
        wanted.places
    }

    /// Takes note of what lies at a place that [`History::observe`] asked for, for all groups that are there.
    pub(crate) fn learn(&mut self, place: &Place, read: Read, now_ms: i64) {
        let (at, offset) = place;
        if read == Read::Denied
            && let Some(topic) = self.topics.get_mut(&at.topic)
        {
            topic.denied_until_ms = now_ms + DENIED_FOR_MS;
        }
        let index = usize::try_from(at.partition.0).unwrap_or(usize::MAX);
        for group in self.groups.values_mut() {
            let trace = group.topics.get_mut(&at.topic).and_then(|topic| topic.traces.get_mut(index));
            if let Some(trace) = trace.filter(|trace| trace.waits_for(offset.0)) {
                trace.learn(offset.0, read);
            }
        }
    }

    /// What is known at the time of `sample`, which has been observed.
    pub(crate) fn report(&mut self, sample: &Sample) -> Report {
        let topics = sample.topics.iter().filter_map(|(topic, reading)| {
            let reading = reading.as_ref().ok()?;
            Some(self.topic_report(topic, reading))
        });
        let topics = topics.collect();
        let mut groups = Vec::with_capacity(sample.groups.len());
        for (group, reading) in &sample.groups {
            if let Some(history) = self.groups.get_mut(group) {
                groups.push(history.report(group, sample, reading, &self.topics, &self.settings));
            }
        }
        let unread =
            sample.topics.iter().filter_map(|(topic, reading)| Some((Arc::clone(topic), *reading.as_ref().err()?)));
        Report {
            taken_at_ms: sample.taken_at_ms,
            topics,
            unread_topics: unread.collect(),
            groups,
            brokers: sample.brokers.clone(),
        }
    }

    fn observe_topics(&mut self, sample: &Sample) {
        // One that could not be read this time is still there.
        self.topics.retain(|topic, _| sample.topics.contains_key(topic));
        for (topic, reading) in &sample.topics {
            let Ok(reading) = reading else { continue };
            let history = self.topics.entry(Arc::clone(topic)).or_default();
            if history.id != reading.id {
                *history = TopicHistory { id: reading.id, ..TopicHistory::default() };
            }
            history.partitions.resize_with(reading.partitions.len(), Ends::default);
            for (ends, partition) in history.partitions.iter_mut().zip(&reading.partitions) {
                if let Some(end) = partition.end {
                    ends.observe(end, sample.taken_at_ms);
                }
            }
        }
    }

    fn topic_report(&self, topic: &Arc<str>, reading: &TopicReading) -> TopicReport {
        let window_ms = ms(self.settings.window);
        let partitions = self.topics.get(topic).map_or(&[][..], |history| &history.partitions);
        let rates: Vec<_> = partitions.iter().map(|ends| ends.rate(window_ms)).collect();
        let production_rate = rates.iter().copied().sum::<Option<f64>>();
        let hottest = rates.iter().copied().flatten().reduce(f64::max);
        let hottest_share =
            production_rate.zip(hottest).filter(|(sum, _)| *sum > 0.0).map(|(sum, hottest)| hottest / sum);
        TopicReport {
            topic: Arc::clone(topic),
            partitions: reading.partitions.clone(),
            rates,
            production_rate,
            hottest_share,
        }
    }
}

/// Distinct places, as many as may be read.
#[derive(Default)]
struct Wanted {
    places: Vec<Place>,
    seen: HashSet<(Arc<str>, usize, i64)>,
}

impl Wanted {
    fn add(&mut self, topic: &Arc<str>, index: usize, offset: i64) {
        if self.places.len() < MAX_READS && self.seen.insert((Arc::clone(topic), index, offset)) {
            let partition = PartitionId(i32::try_from(index).unwrap_or(i32::MAX));
            self.places.push((TopicPartition::new(Arc::clone(topic), partition), Offset(offset)));
        }
    }
}

/// What the pairs of a group have done since the last sample.
struct Moves {
    rewound: bool,
    stuck_ms: i64,
    lag: Option<u64>,
    produced: u64,
}

impl GroupHistory {
    fn new(window: Duration) -> Self {
        Self {
            topics: BTreeMap::new(),
            progress: Progress::over(window),
            consumed: 0,
            produced: 0,
            lost: 0,
            moved_at_ms: None,
            last: None,
        }
    }

    fn observe(
        &mut self,
        sample: &Sample,
        reading: &GroupReading,
        topics: &HashMap<Arc<str>, TopicHistory>,
        rules: Rules,
        wanted: &mut Wanted,
    ) {
        let Ok(consumed) = &reading.consumed else { return };
        self.topics.retain(|topic, _| consumed.contains_key(topic));
        let mut moves = Moves { rewound: false, stuck_ms: 0, lag: Some(0), produced: 0 };
        for (topic, commits) in consumed {
            let Some(Ok(log)) = sample.topics.get(topic) else {
                moves.lag = None;
                continue;
            };
            let Some(history) = topics.get(topic) else { continue };
            let mut own = self.topics.remove(topic).unwrap_or_default();
            own.follow_topic(log);
            self.observe_topic(
                sample.taken_at_ms,
                (log, commits),
                (history, &mut own),
                rules,
                &mut moves,
                |index, offset| {
                    if history.denied_until_ms <= sample.taken_at_ms {
                        wanted.add(topic, index, offset);
                    }
                },
            );
            self.topics.insert(Arc::clone(topic), own);
        }
        self.produced += moves.produced;
        self.progress.observe(Seen {
            at: Duration::from_millis(u64::try_from(sample.taken_at_ms).unwrap_or(0)),
            lag: moves.lag,
            consumed: self.consumed,
            produced: self.produced,
            stuck_for: Duration::from_millis(u64::try_from(moves.stuck_ms).unwrap_or(0)),
            members: reading.members,
            rewound: moves.rewound,
        });
    }

    fn observe_topic(
        &mut self,
        now_ms: i64,
        (log, commits): (&TopicReading, &[Option<Commit>]),
        (history, own): (&TopicHistory, &mut GroupTopicHistory),
        rules: Rules,
        moves: &mut Moves,
        mut wants: impl FnMut(usize, i64),
    ) {
        for (index, partition) in log.partitions.iter().enumerate() {
            let (trace, ends) = (&mut own.traces[index], &history.partitions[index]);
            let Some(sight) = sight(now_ms, partition, commits.get(index).copied().flatten(), ends, rules) else {
                moves.lag = None;
                continue;
            };
            let step = trace.follow(&sight);
            self.consumed += step.consumed;
            self.lost += step.lost;
            moves.rewound |= step.rewound;
            moves.produced += ends.grown();
            if step.moved {
                self.moved_at_ms = Some(now_ms);
            }
            match trace.lag(&sight) {
                Ok(lag) => {
                    moves.lag = moves.lag.map(|sum| sum + lag.records);
                    let waits = lag.records > 0 && lag.seconds != Ok(0.0);
                    moves.stuck_ms = moves.stuck_ms.max(if waits { trace.stuck_ms(&sight) } else { 0 });
                    if let Some(offset) = lag.wants {
                        wants(index, offset);
                    }
                }
                Err(_) => moves.lag = None,
            }
        }
    }

    fn report(
        &mut self,
        group: &Arc<str>,
        sample: &Sample,
        reading: &GroupReading,
        topics: &HashMap<Arc<str>, TopicHistory>,
        settings: &Settings,
    ) -> Arc<GroupReport> {
        let now_ms = sample.taken_at_ms;
        let last = self.last.take().filter(|(_, at_ms)| now_ms - at_ms <= ms(settings.stale_after));
        let consumed = match &reading.consumed {
            Ok(consumed) => consumed,
            // What was read last is given out until it is stale.
            Err(reason) => {
                let unread = Known { unread: Some(*reason), ..Known::default() };
                let report = last
                    .as_ref()
                    .map_or_else(|| Arc::new(self.build(group, reading, unread, now_ms)), |(last, _)| Arc::clone(last));
                self.last = last;
                return report;
            }
        };
        let mut known = Known::default();
        for (topic, commits) in consumed {
            let earlier = last.as_ref().and_then(|(last, _)| last.topics.iter().find(|one| one.topic == *topic));
            match (sample.topics.get(topic), topics.get(topic), self.topics.get(topic)) {
                (Some(Ok(log)), Some(history), Some(own)) => {
                    let shown = TopicView { topic, log, commits, history, own, earlier };
                    let pairs = shown.pairs(reading, now_ms, settings.rules);
                    known.add(topic, pairs, log);
                }
                (Some(Err(reason)), ..) => match earlier {
                    Some(earlier) => known.topics.push(earlier.clone()),
                    None => known.unread = Some(*reason),
                },
                _ => {}
            }
        }
        if self.progress.production_rate().is_none() {
            let read = consumed.keys().filter_map(|topic| topics.get(topic));
            let rates = read.flat_map(|topic| &topic.partitions).map(|ends| ends.rate(ms(settings.window)));
            known.produced = rates.sum();
        }
        let report = Arc::new(self.build(group, reading, known, now_ms));
        self.last = Some((Arc::clone(&report), now_ms));
        report
    }

    fn build(&self, group: &Arc<str>, reading: &GroupReading, known: Known, now_ms: i64) -> GroupReport {
        let age = |at_ms: i64| Duration::from_millis(u64::try_from(now_ms - at_ms).unwrap_or(0)).as_secs_f64();
        GroupReport {
            group: Arc::clone(group),
            protocol: reading.protocol.clone(),
            state: reading.state.clone(),
            members: reading.members,
            unread: known.unread,
            topics: known.topics,
            verdict: self.progress.verdict(),
            consumption_rate: self.progress.consumption_rate(),
            production_rate: self.progress.production_rate().or(known.produced),
            drain_seconds: self.progress.drain_seconds(),
            commit_age_seconds: self.moved_at_ms.map(age),
            lost_to_retention: self.lost,
            margin: known.margin,
        }
    }
}

/// What a report is made of.
#[derive(Default)]
struct Known {
    topics: Vec<GroupTopic>,
    margin: Margin,
    unread: Option<Reason>,
    /// Records a second, as the ends of the log tell before there are two samples.
    produced: Option<f64>,
}

impl Known {
    fn add(&mut self, topic: &Arc<str>, pairs: Vec<Pair>, log: &TopicReading) {
        for (pair, partition) in pairs.iter().zip(&log.partitions) {
            self.margin.add(pair, partition, log.retention_ms);
        }
        self.topics.push(GroupTopic { topic: Arc::clone(topic), pairs });
    }
}

/// All that is known of a group on a topic.
struct TopicView<'a> {
    topic: &'a Arc<str>,
    log: &'a TopicReading,
    commits: &'a [Option<Commit>],
    history: &'a TopicHistory,
    own: &'a GroupTopicHistory,
    earlier: Option<&'a GroupTopic>,
}

impl TopicView<'_> {
    fn pairs(&self, reading: &GroupReading, now_ms: i64, rules: Rules) -> Vec<Pair> {
        let pairs = self.log.partitions.iter().enumerate().map(|(index, partition)| {
            let commit = self.commits.get(index).copied().flatten();
            match sight(now_ms, partition, commit, &self.history.partitions[index], rules) {
                Some(sight) => Pair { owner: self.owner(reading, index), ..pair(&self.own.traces[index], &sight) },
                // What was read last is given out until it is stale.
                None => self.earlier.and_then(|topic| topic.pairs.get(index).cloned()).unwrap_or(end_unread(commit)),
            }
        });
        pairs.collect()
    }

    fn owner(&self, reading: &GroupReading, index: usize) -> Option<Arc<Owner>> {
        if reading.owners.is_empty() {
            return None;
        }
        reading.owners.get(&TopicPartition::new(Arc::clone(self.topic), number(index))).cloned()
    }
}

impl GroupTopicHistory {
    /// A topic that was deleted and created again is another one.
    fn follow_topic(&mut self, log: &TopicReading) {
        if self.id != log.id {
            self.traces.clear();
            self.id = log.id;
        }
        self.traces.resize_with(log.partitions.len(), Trace::default);
    }
}

fn sight<'a>(
    now_ms: i64,
    partition: &PartitionReading,
    commit: Option<Commit>,
    ends: &'a Ends,
    rules: Rules,
) -> Option<Sight<'a>> {
    let position = commit.map_or(Position::Never, Position::Committed);
    Some(Sight { now_ms, start: partition.start, end: partition.end?, position, ends, rules })
}

fn pair(trace: &Trace, sight: &Sight<'_>) -> Pair {
    let committed = match sight.position {
        Position::Committed(commit) => Some(commit.offset),
        Position::Never => None,
    };
    let beyond = committed.map_or(0, |offset| u64::try_from(offset - sight.end).unwrap_or(0));
    let method = crate::pair::method(sight);
    match trace.lag(sight) {
        Ok(lag) => {
            Pair { committed, lag: Ok(lag.records), seconds: lag.seconds, method: lag.method, beyond, owner: None }
        }
        Err(reason) => Pair { committed, lag: Err(reason), seconds: Err(reason), method, beyond, owner: None },
    }
}

fn end_unread(commit: Option<Commit>) -> Pair {
    let (lag, seconds) = (Err(Reason::EndUnread), Err(Reason::EndUnread));
    let committed = commit.map(|commit| commit.offset);
    Pair { committed, lag, seconds, method: crate::pair::Method::History, beyond: 0, owner: None }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn number(index: usize) -> PartitionId {
    PartitionId(i32::try_from(index).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests;
