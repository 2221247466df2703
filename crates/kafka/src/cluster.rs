//! The cluster as the client sees it: brokers, leaders and a connection for each purpose.
//!
//! ```text
//!   Client ── metadata (topics → partitions → leader) ── refreshed on demand, one request at a time
//!      └───── connections by (broker, lane) ──────────── opened on demand, replaced when dead
//! ```
//!
//! A killed broker's connections end at once. One whose machine is gone, or whose time stands still, leaves them open
//! and never answers: as soon as the cluster has fenced it, whoever waits for it is told that the connection has ended,
//! instead of waiting for the request's time-out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponse, MetadataResponseTopic};
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::types::{BrokerId, PartitionId, TopicPartition};

/// Metadata 10 is the first with topic ids (KIP-516).
const METADATA_VERSION: i16 = 10;
/// A broker that has not answered for this long may have left the cluster: the others are asked.
const SILENCE: Duration = Duration::from_secs(1);
/// A question that has not been answered for this long is put to another broker too.
const SLOW_ANSWER: Duration = Duration::from_millis(500);

/// Purpose of a connection. The broker answers one request per connection at a time, so what may wait long
/// (a fetch, a join) must not stand before what may not (a heartbeat, a commit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Short requests: metadata, offsets, administration.
    Short,
    /// Produce requests.
    Produce,
    /// The fetch long poll of one consumer.
    Fetch(usize),
    /// Joining and syncing of one group member: answered when the whole group is there.
    Join(usize),
    /// Heartbeats and commits of one group member.
    Member(usize),
}

/// Handle to a cluster; clones share connections and metadata. Creating one does no I/O.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    metadata: Mutex<Metadata>,
    refreshing: tokio::sync::Mutex<()>,
    connections: Mutex<HashMap<(Target, Lane), Slot>>,
    next_bootstrap: AtomicUsize,
    next_lane: AtomicUsize,
}

/// Held while connecting, so that many callers make one connection.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Bootstrap(usize),
    Broker(BrokerId),
}

#[derive(Default)]
struct Metadata {
    brokers: HashMap<BrokerId, String>,
    topics: HashMap<Arc<str>, Arc<TopicMetadata>>,
}

/// What the cluster says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// The topic's name.
    pub name: Arc<str>,
    /// Changes when a topic is deleted and created again under the same name.
    pub topic_id: [u8; 16],
    /// The partitions, in order of their number.
    pub partitions: Vec<PartitionMetadata>,
}

impl TopicMetadata {
    /// Number of partitions.
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// Every partition of the topic.
    pub fn topic_partitions(&self) -> Vec<TopicPartition> {
        self.partitions.iter().map(|partition| TopicPartition::new(Arc::clone(&self.name), partition.id)).collect()
    }
}

/// What the cluster says of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Number of the partition.
    pub id: PartitionId,
    /// The broker that leads it, if one does at the moment.
    pub leader: Option<BrokerId>,
    /// The broker that is to lead it when all are up.
    pub preferred: Option<BrokerId>,
    /// Number of replicas that are assigned.
    pub replicas: usize,
    /// Number of replicas in sync.
    pub in_sync: usize,
}

impl Client {
    /// A handle to the cluster of `config.brokers`.
    pub fn new(config: ClientConfig) -> Self {
        let inner = Inner {
            config,
            metadata: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            connections: Mutex::default(),
            next_bootstrap: AtomicUsize::new(0),
            next_lane: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The settings that the handle was made with.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// Asks the cluster for `topic`.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] when it is not there; else what kept the cluster from answering.
    pub async fn topic(&self, topic: &str) -> Result<Arc<TopicMetadata>, Error> {
        let mut found = self.topics(&[topic]).await?;
        found.pop().ok_or_else(|| Error::UnknownTopic(topic.to_owned()))?
    }

    /// Asks the cluster for several topics in one request; the answers stand in the order of `topics`.
    ///
    /// # Errors
    /// What kept the cluster from answering; what ails one topic stands in its place in the answer.
    pub async fn topics(&self, topics: &[&str]) -> Result<Vec<Result<Arc<TopicMetadata>, Error>>, Error> {
        let names = topics.iter().map(|name| {
            let mut topic = MetadataRequestTopic::default();
            topic.name = Some(TopicName(StrBytes::from_string((*name).to_owned())));
            topic
        });
        let answer = self.ask_metadata(Some(names.collect())).await?;
        let by_name = self.learn(&answer);
        Ok(topics.iter().map(|name| by_name.get(*name).cloned().unwrap_or_else(|| unknown(name))).collect())
    }

    /// Asks the cluster for every topic that we may see.
    ///
    /// # Errors
    /// What kept the cluster from answering.
    pub async fn all_topics(&self) -> Result<Vec<Arc<TopicMetadata>>, Error> {
        let answer = self.ask_metadata(None).await?;
        Ok(self.learn(&answer).into_values().filter_map(Result::ok).collect())
    }

    /// Number of brokers that are up.
    ///
    /// # Errors
    /// What kept the cluster from answering.
    pub async fn broker_count(&self) -> Result<usize, Error> {
        let answer = self.ask_metadata(Some(Vec::new())).await?;
        self.learn(&answer);
        Ok(answer.brokers.len())
    }

    /// Asks which brokers are up.
    pub(crate) async fn broker_ids(&self) -> Result<Vec<BrokerId>, Error> {
        let answer = self.ask_metadata(Some(Vec::new())).await?;
        self.learn(&answer);
        Ok(answer.brokers.iter().map(|broker| BrokerId(*broker.node_id)).collect())
    }

    /// Whether the broker was in the last metadata.
    pub(crate) fn knows_broker(&self, broker: BrokerId) -> bool {
        self.metadata().brokers.contains_key(&broker)
    }

    /// The brokers as last learned, with the address of each, without asking.
    pub fn known_brokers(&self) -> Vec<(BrokerId, String)> {
        let mut brokers: Vec<_> = self.metadata().brokers.iter().map(|(id, address)| (*id, address.clone())).collect();
        brokers.sort();
        brokers
    }

    /// What was last learned of `topic`, without asking.
    pub fn known_topic(&self, topic: &str) -> Option<Arc<TopicMetadata>> {
        self.metadata().topics.get(topic).cloned()
    }

    /// The leader of a partition as last learned, without asking.
    pub fn known_leader(&self, partition: &TopicPartition) -> Option<BrokerId> {
        let topic = self.known_topic(&partition.topic)?;
        topic.partitions.get(usize::try_from(partition.partition.0).ok()?)?.leader
    }

    /// Asks again for the given topics; callers that wait for the same refresh share it.
    ///
    /// # Errors
    /// What kept the cluster from answering, or the first topic that is not there.
    pub(crate) async fn refresh(&self, topics: &[&str]) -> Result<(), Error> {
        let _one_at_a_time = self.inner.refreshing.lock().await;
        self.topics(topics).await?.into_iter().try_for_each(|topic| topic.map(drop))
    }

    /// Sends a request to one broker over the connection of `lane`.
    pub(crate) async fn call<R: Request>(
        &self,
        broker: BrokerId,
        lane: Lane,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Error> {
        self.call_within(broker, lane, version, request, self.inner.config.request_timeout).await
    }

    /// As [`Client::call`], with a time limit of its own (long polls).
    pub(crate) async fn call_within<R: Request>(
        &self,
        broker: BrokerId,
        lane: Lane,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, Error> {
        let connection = self.connection(Target::Broker(broker), lane).await?;
        let answer = tokio::select! {
            biased;
            answer = connection.call(version, request, limit) => answer,
            never = self.ask_others_about(broker) => match never {},
        };
        if let Err(Error::TimedOut { .. }) = &answer {
            // Later answers would queue behind the lost one: a fresh connection is the only clean start.
            self.discard(Target::Broker(broker), lane, &connection);
        }
        answer
    }

    /// Sends a request to whichever broker answers, to one after the other. When none does, what waiting does not help
    /// with is told first.
    pub(crate) async fn call_any<R: Request>(&self, version: i16, request: &R) -> Result<R::Response, Error> {
        let mut told = Told::default();
        for target in self.candidates() {
            match self.try_target(target, version, request).await {
                ControlFlow::Break(outcome) => return outcome,
                ControlFlow::Continue(error) => told.add(error),
            }
        }
        Err(told.into_error())
    }

    /// The same for a question, which more than one broker may be asked: the next one as soon as the last is slow to
    /// answer. One whose time stands still does not keep us from what the others know.
    pub(crate) async fn ask_any<R: Request>(&self, version: i16, question: &R) -> Result<R::Response, Error> {
        let mut candidates = self.candidates().into_iter();
        let mut asked = FuturesUnordered::new();
        let mut told = Told::default();
        loop {
            match candidates.next() {
                Some(target) => asked.push(self.try_target(target, version, question)),
                None if asked.is_empty() => return Err(told.into_error()),
                None => {}
            }
            tokio::select! {
                Some(outcome) = asked.next() => match outcome {
                    ControlFlow::Break(outcome) => return outcome,
                    ControlFlow::Continue(error) => told.add(error),
                },
                () = tokio::time::sleep(SLOW_ANSWER), if candidates.len() > 0 => {}
            }
        }
    }

    /// Goes on with what another broker may do better.
    async fn try_target<R: Request>(
        &self,
        target: Target,
        version: i16,
        request: &R,
    ) -> ControlFlow<Result<R::Response, Error>, Error> {
        let connection = match self.connection(target, Lane::Short).await {
            Ok(connection) => connection,
            Err(error) => return ControlFlow::Continue(error),
        };
        match connection.call(version, request, self.inner.config.request_timeout).await {
            Err(error @ (Error::TimedOut { .. } | Error::Disconnected { .. })) => {
                self.discard(target, Lane::Short, &connection);
                ControlFlow::Continue(error)
            }
            outcome => ControlFlow::Break(outcome),
        }
    }

    /// While a broker is silent, looks now and then whether the cluster still counts it in; see [`Client::learn`].
    async fn ask_others_about(&self, broker: BrokerId) -> Infallible {
        loop {
            tokio::time::sleep(SILENCE).await;
            if let Err(error) = self.broker_ids().await {
                tracing::debug!(%broker, %error, "nobody says whether the broker is up");
            }
        }
    }

    /// A number for lanes that belong to one consumer or member alone.
    pub(crate) fn unique_lane(&self) -> usize {
        self.inner.next_lane.fetch_add(1, Ordering::Relaxed)
    }

    /// Closes the connections of a lane (the consumer that used it has gone).
    pub(crate) fn close_lanes(&self, lanes: &[Lane]) {
        self.connections().retain(|(_, lane), _| !lanes.contains(lane));
    }

    /// Known brokers first, then the bootstrap addresses, each time from another start.
    fn candidates(&self) -> Vec<Target> {
        let bootstraps = self.inner.config.brokers.len();
        let turn = self.inner.next_bootstrap.fetch_add(1, Ordering::Relaxed);
        let mut known: Vec<_> = self.metadata().brokers.keys().copied().map(Target::Broker).collect();
        known.sort_by_key(|target| match target {
            Target::Broker(id) => id.0,
            Target::Bootstrap(_) => i32::MAX,
        });
        if !known.is_empty() {
            let brokers = known.len();
            known.rotate_left(turn % brokers);
        }
        known.extend((0..bootstraps).map(|index| Target::Bootstrap((turn + index) % bootstraps)));
        known
    }

    async fn connection(&self, target: Target, lane: Lane) -> Result<Arc<Connection>, Error> {
        let slot = Arc::clone(self.connections().entry((target, lane)).or_default());
        let mut slot = slot.lock().await;
        let address = self.address(target)?;
        match slot.as_ref() {
            Some(live) if is_usable(live, &address) && !live.is_stale() => Ok(Arc::clone(live)),
            previous => {
                if let Some(stale) = previous.filter(|live| is_usable(live, &address)) {
                    // What it has under way comes first: a producer's batches must arrive in order.
                    stale.idle().await;
                }
                // On the heap: what opens a connection is large, and every caller's future would be as large.
                let opened = Arc::new(Box::pin(Connection::open(&address, &self.inner.config)).await?);
                *slot = Some(Arc::clone(&opened));
                Ok(opened)
            }
        }
    }

    fn address(&self, target: Target) -> Result<String, Error> {
        match target {
            Target::Bootstrap(index) => Ok(self.inner.config.brokers[index].clone()),
            Target::Broker(id) => self.metadata().brokers.get(&id).cloned().ok_or(Error::UnknownBroker(id.0)),
        }
    }

    fn discard(&self, target: Target, lane: Lane, broken: &Arc<Connection>) {
        let slot = self.connections().get(&(target, lane)).cloned();
        if let Some(slot) = slot
            && let Ok(mut slot) = slot.try_lock()
            && slot.as_ref().is_some_and(|live| Arc::ptr_eq(live, broken))
        {
            *slot = None;
        }
    }

    async fn ask_metadata(&self, topics: Option<Vec<MetadataRequestTopic>>) -> Result<MetadataResponse, Error> {
        let mut request = MetadataRequest::default();
        request.topics = topics;
        request.allow_auto_topic_creation = false;
        self.ask_any(METADATA_VERSION, &request).await
    }

    fn learn(&self, answer: &MetadataResponse) -> HashMap<String, Result<Arc<TopicMetadata>, Error>> {
        let mut metadata = self.metadata();
        if !answer.brokers.is_empty() {
            let brokers = answer.brokers.iter();
            metadata.brokers =
                brokers.map(|broker| (BrokerId(*broker.node_id), format!("{}:{}", broker.host, broker.port))).collect();
            self.hang_up(|broker| !metadata.brokers.contains_key(&broker));
        }
        answer.topics.iter().filter_map(|topic| learn_topic(&mut metadata, topic)).collect()
    }

    /// Closes the connections to brokers that have gone; those who wait for an answer learn of it.
    fn hang_up(&self, gone: impl Fn(BrokerId) -> bool) {
        for ((target, _), slot) in self.connections().iter() {
            // A slot that is locked is being connected, which has a limit of its own.
            if let Target::Broker(broker) = target
                && gone(*broker)
                && let Ok(slot) = slot.try_lock()
                && let Some(connection) = slot.as_ref()
            {
                connection.close();
            }
        }
    }

    fn metadata(&self) -> std::sync::MutexGuard<'_, Metadata> {
        self.inner.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<(Target, Lane), Slot>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_usable(connection: &Connection, address: &str) -> bool {
    !connection.is_closed() && connection.address() == address
}

fn learn_topic(
    metadata: &mut Metadata,
    topic: &MetadataResponseTopic,
) -> Option<(String, Result<Arc<TopicMetadata>, Error>)> {
    let name = topic.name.as_ref()?.to_string();
    let learned = match topic.error_code.err() {
        None => {
            let learned = Arc::new(topic_metadata(&name, topic));
            metadata.topics.insert(Arc::clone(&learned.name), Arc::clone(&learned));
            Ok(learned)
        }
        Some(ResponseError::UnknownTopicOrPartition) => {
            metadata.topics.remove(name.as_str());
            unknown(&name)
        }
        Some(code) => Err(Error::refused("Metadata", format!("topic {name} (--topic)"), code)),
    };
    Some((name, learned))
}

fn topic_metadata(name: &str, topic: &MetadataResponseTopic) -> TopicMetadata {
    let mut partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| PartitionMetadata {
            id: PartitionId(partition.partition_index),
            leader: (*partition.leader_id >= 0).then_some(BrokerId(*partition.leader_id)),
            preferred: partition.replica_nodes.first().map(|node| BrokerId(**node)),
            replicas: partition.replica_nodes.len(),
            in_sync: partition.isr_nodes.len(),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.id);
    TopicMetadata { name: name.into(), topic_id: *topic.topic_id.as_bytes(), partitions }
}

/// What the brokers that were tried had to say: the first that waiting does not help with, else the last.
#[derive(Default)]
struct Told(Option<Error>);

impl Told {
    fn add(&mut self, error: Error) {
        if self.0.as_ref().is_none_or(|told| told.kind() == ErrorKind::Transient) {
            self.0 = Some(error);
        }
    }

    fn into_error(self) -> Error {
        self.0.unwrap_or_else(|| Error::Config("--brokers is empty".to_owned()))
    }
}

fn unknown(name: &str) -> Result<Arc<TopicMetadata>, Error> {
    Err(Error::UnknownTopic(name.to_owned()))
}
