//! One collection: groups, their commits, the ends of their partitions. The only module that speaks to Kafka.
//!
//! The commits are read before the ends, so that a group which keeps up is never seen beyond the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kafka::{
    Client, CommitMetadata, Committed, Error, GroupDescription, GroupListing, Offset, OffsetSpec, TopicMetadata,
    TopicPartition,
};

use crate::lag::{GroupReading, Position, Reading, Sample};
use crate::metrics;
use crate::selection::Pattern;

/// Kafka's name of the protocol of consumer groups; groups that only ever committed from outside have none.
const CONSUMER_PROTOCOL: [&str; 2] = ["consumer", ""];
/// Kafka's name of groups of the newer protocol, which DescribeGroups does not know.
const NEW_PROTOCOL: &str = "consumer";
const STATE_EMPTY: &str = "Empty";

/// Reads what the lag of the chosen groups is made of.
pub(crate) struct Collector {
    client: Client,
    groups: Vec<Pattern>,
    topic: String,
}

/// What a group is known to consume: its commits, and topics that it has joined for.
#[derive(Default)]
struct Consumed {
    commits: HashMap<TopicPartition, Committed>,
    topics: BTreeSet<Arc<str>>,
}

type Groups = BTreeMap<Arc<str>, Result<Consumed, Error>>;
type Topics = HashMap<Arc<str>, Result<Arc<TopicMetadata>, Error>>;
type Offsets = HashMap<TopicPartition, Offset>;

impl Collector {
    /// `topic` is what a group lags on that is named in full and that Kafka does not know.
    pub(crate) fn new(client: Client, groups: Vec<Pattern>, topic: String) -> Self {
        Self { client, groups, topic }
    }

    /// Takes a sample. What could not be read of one group or partition is marked in it.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub(crate) async fn collect(&self) -> Result<Sample, Error> {
        let groups = self.groups().await?;
        let topics = self.topics(&groups).await?;
        let taken_at_ms = now_ms();
        let (ends, starts) = self.offsets(&groups, &topics).await?;
        let read = |(group, consumed): (Arc<str>, _)| (group, reading(consumed, &topics, &ends, &starts));
        Ok(Sample { taken_at_ms, groups: groups.into_iter().map(read).collect() })
    }

    async fn groups(&self) -> Result<Groups, Error> {
        let listings = self.client.list_groups().await?;
        let chosen: Vec<_> = listings.into_iter().filter(|listing| self.chooses(listing)).collect();
        let mut groups = self.committed(&chosen).await?;
        self.add_joined(&mut groups, &chosen).await;
        self.add_absent(&mut groups);
        Ok(groups)
    }

    fn chooses(&self, listing: &GroupListing) -> bool {
        CONSUMER_PROTOCOL.contains(&listing.protocol_type.as_str())
            && self.groups.iter().any(|pattern| pattern.matches(&listing.group))
    }

    async fn committed(&self, chosen: &[GroupListing]) -> Result<Groups, Error> {
        let names: Vec<_> = chosen.iter().map(|listing| listing.group.as_str()).collect();
        let committed = self.client.committed_offsets_of(&names).await?;
        let consumed = |commits: Vec<(TopicPartition, Committed)>| {
            let topics = commits.iter().map(|(partition, _)| Arc::clone(&partition.topic)).collect();
            Consumed { commits: commits.into_iter().collect(), topics }
        };
        Ok(committed.into_iter().map(|(group, commits)| (group.into(), commits.map(consumed))).collect())
    }

    /// A group that has yet to commit is found by what its members were assigned. Commits say the same a moment later,
    /// so a failure here is no reason to go without those of all groups.
    async fn add_joined(&self, groups: &mut Groups, chosen: &[GroupListing]) {
        let joined = chosen.iter().filter(|listing| listing.state != STATE_EMPTY && listing.kind != NEW_PROTOCOL);
        let names: Vec<_> = joined.map(|listing| listing.group.as_str()).collect();
        match self.client.describe_groups(&names).await {
            Ok(described) => described.into_iter().for_each(|group| add_assigned(groups, group)),
            Err(error) => tracing::warn!(%error, "members of groups not read"),
        }
    }

    /// A group that somebody watches by name and that never ran is as far behind as can be.
    fn add_absent(&self, groups: &mut Groups) {
        for group in self.groups.iter().filter_map(Pattern::exact) {
            let absent = || Ok(Consumed { topics: [self.topic.as_str().into()].into(), ..Consumed::default() });
            groups.entry(group.into()).or_insert_with(absent);
        }
    }

    async fn topics(&self, groups: &Groups) -> Result<Topics, Error> {
        let names: BTreeSet<_> =
            groups.values().flatten().flat_map(|consumed| consumed.topics.iter().cloned()).collect();
        let asked: Vec<_> = names.iter().map(|name| &**name).collect();
        let answers = if asked.is_empty() { Vec::new() } else { self.client.topics(&asked).await? };
        Ok(names.into_iter().zip(answers).collect())
    }

    async fn offsets(&self, groups: &Groups, topics: &Topics) -> Result<(Offsets, Offsets), Error> {
        let all: Vec<_> = topics.values().flatten().flat_map(|topic| topic.topic_partitions()).collect();
        let uncommitted: Vec<_> = uncommitted(groups, topics).into_iter().collect();
        let (ends, starts) =
            tokio::try_join!(self.list(&all, OffsetSpec::Latest), self.list(&uncommitted, OffsetSpec::Earliest))?;
        Ok((ends, starts))
    }

    async fn list(&self, partitions: &[TopicPartition], spec: OffsetSpec) -> Result<Offsets, Error> {
        let mut offsets = HashMap::with_capacity(partitions.len());
        for (partition, listed) in self.client.list_offsets(partitions, spec).await? {
            match listed {
                Ok(listed) => drop(offsets.insert(partition, listed.offset)),
                Err(error) => {
                    metrics::partition_unread();
                    tracing::warn!(%partition, %error, "offset not read");
                }
            }
        }
        Ok(offsets)
    }
}

fn add_assigned(groups: &mut Groups, described: GroupDescription) {
    if let Some(Ok(consumed)) = groups.get_mut(described.group.as_str()) {
        let assigned = described.members.into_iter().flat_map(|member| member.partitions);
        consumed.topics.extend(assigned.map(|partition| partition.topic));
    }
}

/// Partitions that some group consumes and has never committed.
fn uncommitted(groups: &Groups, topics: &Topics) -> BTreeSet<TopicPartition> {
    let mut uncommitted = BTreeSet::new();
    for consumed in groups.values().flatten() {
        let topics = consumed.topics.iter().filter_map(|topic| topics.get(topic)?.as_ref().ok());
        let partitions = topics.flat_map(|topic| topic.topic_partitions());
        uncommitted.extend(partitions.filter(|partition| !consumed.commits.contains_key(partition)));
    }
    uncommitted
}

fn reading(consumed: Result<Consumed, Error>, topics: &Topics, ends: &Offsets, starts: &Offsets) -> GroupReading {
    let consumed = match consumed {
        Ok(consumed) => consumed,
        Err(error) => return unread(&error),
    };
    let mut partitions = Vec::new();
    for topic in &consumed.topics {
        match topics.get(topic) {
            Some(Ok(topic)) => partitions.extend(topic.topic_partitions()),
            // A deleted topic has no lag.
            Some(Err(Error::UnknownTopic(_))) | None => {}
            Some(Err(error)) => return unread(error),
        }
    }
    let read = partitions.into_iter().map(|partition| {
        let position = match consumed.commits.get(&partition) {
            Some(commit) => committed_position(commit),
            None => Position::Never { start: starts.get(&partition).copied() },
        };
        let end = ends.get(&partition).copied();
        (partition, Reading { end, position })
    });
    GroupReading::Partitions(read.collect())
}

fn unread(error: &Error) -> GroupReading {
    metrics::group_unread();
    tracing::warn!(%error, "group not read");
    GroupReading::Unread
}

fn committed_position(commit: &Committed) -> Position {
    let timestamp_ms = CommitMetadata::parse(&commit.metadata).map(|metadata| metadata.timestamp_ms);
    Position::Committed { offset: commit.offset, timestamp_ms }
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
