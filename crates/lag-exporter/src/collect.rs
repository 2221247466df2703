//! One collection: groups, their commits and members, the starts and ends of their partitions. The only module that
//! speaks to Kafka.
//!
//! The commits are read before the ends, so that a group which keeps up is never seen beyond the end. Each broker gets one
//! request for all that it knows; coordinators and settings of topics are remembered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kafka::{
    Client, CommitMetadata, CommittedOffsets, Error, GroupDescription, GroupListing, GroupWatch, OfGroups, Offset,
    OffsetSpec, PartitionMetadata, Peeked, TopicMetadata, TopicPartition,
};
use tokio::time::Instant;

use crate::history::Place;
use crate::metrics;
use crate::pair::Read;
use crate::sample::{Commit, GroupReading, Owner, PartitionReading, Reason, Sample, TopicReading};
use crate::selection::{Pattern, chooses};

/// Kafka's name of the protocol of consumer groups; groups that only ever committed from outside have none.
const CONSUMER_PROTOCOL: [&str; 2] = ["consumer", ""];
/// Kafka's name of groups of the newer protocol (KIP-848), which have a request of their own.
const NEW_PROTOCOL: &str = "consumer";
const STATE_EMPTY: &str = "Empty";
/// Kafka's name of the state of a group that is not there.
const STATE_DEAD: &str = "Dead";
/// Settings of topics change seldom.
const SETTINGS_EVERY: Duration = Duration::from_mins(1);
const CLEANUP_POLICY: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";

/// What to collect.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) groups: Vec<Pattern>,
    pub(crate) topics: Vec<Pattern>,
    /// What a group lags on that is named in full and that Kafka does not know.
    pub(crate) topic: String,
    pub(crate) owners: Owners,
}

/// Whether it matters who owns which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    Read,
    Skip,
}

/// Reads what the lag of the chosen groups is made of.
pub(crate) struct Collector {
    client: Client,
    watch: GroupWatch,
    selection: Selection,
    retention: HashMap<Arc<str>, Option<i64>>,
    settings_read_at: Option<Instant>,
}

type Topics = BTreeMap<Arc<str>, Result<Arc<TopicMetadata>, Error>>;
type Offsets = HashMap<TopicPartition, Offset>;

impl Collector {
    pub(crate) fn new(client: Client, selection: Selection) -> Self {
        let watch = GroupWatch::new(client.clone());
        Self { client, watch, selection, retention: HashMap::new(), settings_read_at: None }
    }

    /// Takes a sample. What could not be read of one group, topic or partition is marked in it.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub(crate) async fn collect(&mut self) -> Result<Sample, Error> {
        let groups = self.groups().await?;
        let topics = self.topics(&groups).await?;
        self.read_retention(&topics).await;
        let taken_at_ms = now_ms();
        let all: Vec<_> = topics.values().flatten().flat_map(|topic| topic.topic_partitions()).collect();
        let (ends, starts) =
            tokio::try_join!(self.list(&all, OffsetSpec::Latest), self.list(&all, OffsetSpec::Earliest))?;
        let read = |(topic, found): (Arc<str>, Result<Arc<TopicMetadata>, Error>)| match found {
            Ok(found) => Some((Arc::clone(&topic), Ok(self.topic_reading(&found, &starts, &ends)))),
            // A deleted topic has no lag.
            Err(Error::UnknownTopic(_)) => None,
            Err(error) => Some((topic, Err(unread(&error, Reason::TopicUnread)))),
        };
        let topics: BTreeMap<_, _> = topics.into_iter().filter_map(read).collect();
        let brokers = self.client.known_brokers().into_iter().map(|(id, address)| (id.0, address)).collect();
        let groups = without_deleted(groups, &topics);
        Ok(Sample { taken_at_ms, topics, groups, brokers })
    }

    /// Reads the records at `places`, for their time. What failed is left out, and asked for again.
    pub(crate) async fn read(&self, places: &[Place]) -> Vec<(Place, Read)> {
        if places.is_empty() {
            return Vec::new();
        }
        let peeked = match self.client.peek(places).await {
            Ok(peeked) => peeked,
            Err(error) => {
                metrics::error(&error);
                return Vec::new();
            }
        };
        let read = peeked.into_iter().filter_map(|(at, offset, peeked)| match peeked {
            Ok(Peeked::Record { timestamp_ms }) => Some(((at, offset), Read::At(timestamp_ms))),
            Ok(Peeked::Nothing) => Some(((at, offset), Read::Nothing)),
            Ok(Peeked::NotYet) => None,
            Err(error) => {
                metrics::error(&error);
                error.is_denied().then_some(((at, offset), Read::Denied))
            }
        });
        read.collect()
    }

    /// The ends that partitions had at a time, by the timestamps of their records.
    pub(crate) async fn ends_at(
        &self,
        partitions: &[TopicPartition],
        at_ms: i64,
    ) -> Result<Vec<(TopicPartition, i64)>, Error> {
        let ends = self.list(partitions, OffsetSpec::AtTimestamp(at_ms)).await?;
        Ok(ends.into_iter().map(|(place, offset)| (place, offset.0)).collect())
    }

    async fn groups(&self) -> Result<BTreeMap<Arc<str>, GroupReading>, Error> {
        let listings = self.watch.list().await?;
        let mut chosen: Vec<_> = listings.into_iter().filter(|listing| self.chooses(listing)).collect();
        chosen.extend(self.named(&chosen));
        let all = names(&chosen, |_| true);
        let classic = names(&chosen, |listing| has_members(listing) && listing.kind != NEW_PROTOCOL);
        let newer = names(&chosen, |listing| has_members(listing) && listing.kind == NEW_PROTOCOL);
        let (mut committed, classic, newer) = tokio::try_join!(
            self.watch.committed(&all),
            self.watch.describe_classic(&classic),
            self.watch.describe_consumer(&newer)
        )?;
        let mut described: OfGroups<GroupDescription> = classic;
        described.extend(newer);
        let mut interned = Names::default();
        let read = chosen.iter().map(|listing| {
            let committed = committed.remove(&listing.group).unwrap_or_else(|| Ok(Vec::new()));
            let reading = self.reading(listing, committed, described.remove(&listing.group), &mut interned);
            (Arc::from(listing.group.as_str()), reading)
        });
        Ok(read.collect())
    }

    fn chooses(&self, listing: &GroupListing) -> bool {
        CONSUMER_PROTOCOL.contains(&listing.protocol_type.as_str()) && chooses(&self.selection.groups, &listing.group)
    }

    /// Groups that somebody watches by name and that are not listed: they never ran, or we may not see them.
    fn named(&self, listed: &[GroupListing]) -> Vec<GroupListing> {
        let patterns = &self.selection.groups;
        let names: BTreeSet<_> =
            patterns.iter().filter_map(Pattern::exact).filter(|name| chooses(patterns, name)).collect();
        let missing = names.into_iter().filter(|name| listed.iter().all(|listing| listing.group != **name));
        let listing = |name: &str| GroupListing {
            group: name.to_owned(),
            protocol_type: String::new(),
            state: STATE_DEAD.to_owned(),
            kind: String::new(),
        };
        missing.map(listing).collect()
    }

    fn reading(
        &self,
        listing: &GroupListing,
        committed: Result<CommittedOffsets, Error>,
        described: Option<Result<GroupDescription, Error>>,
        names: &mut Names,
    ) -> GroupReading {
        let is_named_only = listing.state == STATE_DEAD;
        let described = match described {
            Some(Ok(described)) => Some(described),
            Some(Err(error)) => {
                metrics::error(&error);
                tracing::warn!(%error, "members of a group not read");
                None
            }
            None => None,
        };
        let members = match (&described, listing.state.as_str()) {
            (Some(described), _) => Some(described.members.len()),
            (None, STATE_EMPTY | STATE_DEAD) => Some(0),
            (None, _) => None,
        };
        let consumed = committed.map_err(|error| {
            metrics::group_unread();
            unread(&error, Reason::GroupUnread)
        });
        let consumed = consumed.map(|committed| {
            let mut consumed = by_topic(committed, &self.selection.topics, names);
            // A group that has yet to commit is found by what its members were assigned.
            let assigned =
                described.iter().flat_map(|described| &described.members).flat_map(|member| &member.partitions);
            for topic in
                assigned.map(|partition| &partition.topic).filter(|topic| chooses(&self.selection.topics, topic))
            {
                consumed.entry(names.get(topic)).or_default();
            }
            if is_named_only && consumed.is_empty() {
                consumed.insert(names.get(&self.selection.topic), Vec::new());
            }
            consumed
        });
        let owners = match self.selection.owners {
            Owners::Read => described.map(owners).unwrap_or_default(),
            Owners::Skip => HashMap::new(),
        };
        GroupReading { protocol: listing.kind.clone(), state: listing.state.clone(), members, owners, consumed }
    }

    async fn topics(&self, groups: &BTreeMap<Arc<str>, GroupReading>) -> Result<Topics, Error> {
        let consumed = groups.values().filter_map(|group| group.consumed.as_ref().ok());
        let mut names: BTreeSet<Arc<str>> = consumed.flat_map(|topics| topics.keys().cloned()).collect();
        names.extend(self.selection.topics.iter().filter_map(Pattern::exact).map(Arc::from));
        let asked: Vec<_> = names.iter().map(|name| &**name).collect();
        let answers = if asked.is_empty() { Vec::new() } else { self.client.topics(&asked).await? };
        Ok(names.into_iter().zip(answers).collect())
    }

    fn topic_reading(&self, topic: &TopicMetadata, starts: &Offsets, ends: &Offsets) -> TopicReading {
        let read = |(at, partition): (TopicPartition, &PartitionMetadata)| PartitionReading {
            start: starts.get(&at).map(|offset| offset.0),
            end: ends.get(&at).map(|offset| offset.0),
            leader: partition.leader.map(|broker| broker.0),
            preferred: partition.preferred.map(|broker| broker.0),
            replicas: partition.replicas,
            in_sync: partition.in_sync,
        };
        TopicReading {
            id: topic.topic_id,
            partitions: topic.topic_partitions().into_iter().zip(&topic.partitions).map(read).collect(),
            retention_ms: self.retention.get(&topic.name).copied().flatten(),
        }
    }

    /// How long records are kept, of topics not asked for yet, and now and then of all. Without the right to see it, the
    /// margin to retention is not known, and nothing else is lost.
    async fn read_retention(&mut self, topics: &Topics) {
        let is_due = self.settings_read_at.is_none_or(|at| at.elapsed() >= SETTINGS_EVERY);
        let names =
            topics.iter().filter(|(topic, found)| found.is_ok() && (is_due || !self.retention.contains_key(*topic)));
        let names: Vec<_> = names.map(|(topic, _)| Arc::clone(topic)).collect();
        if names.is_empty() {
            return;
        }
        if is_due {
            self.retention.clear();
            self.settings_read_at = Some(Instant::now());
        }
        let asked: Vec<_> = names.iter().map(|name| &**name).collect();
        let settings = self.client.settings_of(&asked, &[CLEANUP_POLICY, RETENTION]).await;
        let settings = settings.unwrap_or_else(|error| {
            metrics::error(&error);
            BTreeMap::new()
        });
        for name in names {
            let retention = settings.get(&*name).and_then(retention_ms);
            self.retention.insert(name, retention);
        }
    }

    async fn list(&self, partitions: &[TopicPartition], spec: OffsetSpec) -> Result<Offsets, Error> {
        let mut offsets = HashMap::with_capacity(partitions.len());
        for (partition, listed) in self.client.list_offsets(partitions, spec).await? {
            match listed {
                Ok(listed) => drop(offsets.insert(partition, listed.offset)),
                Err(error) => {
                    metrics::partition_unread();
                    metrics::error(&error);
                    tracing::warn!(%partition, %error, "offset not read");
                }
            }
        }
        Ok(offsets)
    }
}

fn names(listings: &[GroupListing], of: impl Fn(&GroupListing) -> bool) -> Vec<&str> {
    listings.iter().filter(|listing| of(listing)).map(|listing| listing.group.as_str()).collect()
}

fn has_members(listing: &GroupListing) -> bool {
    ![STATE_EMPTY, STATE_DEAD].contains(&listing.state.as_str())
}

/// One `Arc` for each name, however many groups bring it.
#[derive(Default)]
struct Names(BTreeSet<Arc<str>>);

impl Names {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// Groups do not consume what is no longer there.
fn without_deleted(
    mut groups: BTreeMap<Arc<str>, GroupReading>,
    topics: &BTreeMap<Arc<str>, Result<TopicReading, Reason>>,
) -> BTreeMap<Arc<str>, GroupReading> {
    for group in groups.values_mut() {
        if let Ok(consumed) = &mut group.consumed {
            consumed.retain(|topic, _| topics.contains_key(topic));
        }
    }
    groups
}

fn by_topic(
    committed: CommittedOffsets,
    chosen: &[Pattern],
    names: &mut Names,
) -> BTreeMap<Arc<str>, Vec<Option<Commit>>> {
    let mut topics: BTreeMap<Arc<str>, Vec<Option<Commit>>> = BTreeMap::new();
    let mut current: Option<(Arc<str>, bool)> = None;
    for (at, committed) in committed {
        // They come topic by topic.
        if current.as_ref().is_none_or(|(topic, _)| *topic != at.topic) {
            current = Some((names.get(&at.topic), chooses(chosen, &at.topic)));
        }
        let Some((topic, true)) = &current else { continue };
        let commits = match topics.get_mut(topic) {
            Some(commits) => commits,
            None => topics.entry(Arc::clone(topic)).or_default(),
        };
        let index = usize::try_from(at.partition.0).unwrap_or(0);
        if commits.len() <= index {
            commits.resize(index + 1, None);
        }
        let timestamp_ms = CommitMetadata::parse(&committed.metadata).map(|metadata| metadata.timestamp_ms);
        commits[index] = Some(Commit { offset: committed.offset.0, timestamp_ms });
    }
    topics
}

fn owners(described: GroupDescription) -> HashMap<TopicPartition, Arc<Owner>> {
    let mut owners = HashMap::new();
    for member in described.members {
        let (member_id, client_id) = (member.member_id, member.client_id);
        // Java shows the address behind a slash, since it has no name.
        let host = member.client_host.trim_start_matches('/').to_owned();
        let owner = Arc::new(Owner { member_id, client_id, host });
        owners.extend(member.partitions.into_iter().map(|partition| (partition, Arc::clone(&owner))));
    }
    owners
}

/// `None` where nothing is deleted for its age.
fn retention_ms(settings: &BTreeMap<String, String>) -> Option<i64> {
    let deletes = settings.get(CLEANUP_POLICY).is_some_and(|policy| policy.contains("delete"));
    let retention = settings.get(RETENTION)?.parse().ok().filter(|ms| *ms >= 0);
    retention.filter(|_| deletes)
}

fn unread(error: &Error, reason: Reason) -> Reason {
    metrics::error(error);
    tracing::warn!(%error, "not read");
    if error.is_denied() { Reason::NotAuthorized } else { reason }
}

pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
