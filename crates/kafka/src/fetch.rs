//! Reading: one fetch request for all partitions that a broker leads, one request per broker at a time.
//!
//! Pace. A request with a high `min_bytes` keeps a lone record waiting; one with a low `min_bytes` under load costs the
//! broker a request per record. So the next request to a broker leaves no sooner than `interval` after the last one
//! unless that one brought much (there is a backlog), and asks the broker to wait for `min_bytes` only while records
//! are coming in; after an empty answer it asks for the first record that comes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::cluster::{Client, Lane};
use crate::error::{Error, is_transient};
use crate::lag::OffsetSpec;
use crate::record::{LogSlice, MAX_DECODED_BYTES, RawBatch};
use crate::types::{BrokerId, Offset, PartitionId, TopicPartition};

/// Fetch 12 is the last version before topic ids took the place of names.
pub(crate) const FETCH_VERSION: i16 = 12;
/// Records of open and aborted transactions are not shown.
pub(crate) const READ_COMMITTED: i8 = 1;
/// How long the broker may wait for the first record when nothing comes in.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// After a failure, a broker or partition is left alone for this long.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// An answer of at least this part of `max_bytes` is a backlog: ask for more at once.
const BACKLOG_SHARE: usize = 8;

/// How records are fetched.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// Bytes that the broker gathers before it answers, while records are coming in.
    pub min_bytes: i32,
    /// How long it may wait for them.
    pub max_wait: Duration,
    /// Bound of one answer.
    pub max_bytes: i32,
    /// Bound of one partition in it.
    pub partition_max_bytes: i32,
    /// Least time between two requests to a broker that has no backlog for us.
    pub interval: Duration,
    /// What one batch may take in memory once it is decoded; one that would take more is undecodable.
    pub max_decoded_bytes: usize,
}

impl Default for FetchConfig {
    /// A lone record comes at once, a stream of them in answers of 10 kB or every 20 ms.
    fn default() -> Self {
        Self {
            min_bytes: 10_000,
            max_wait: Duration::from_millis(20),
            max_bytes: 8 << 20,
            partition_max_bytes: 1 << 20,
            interval: Duration::from_millis(5),
            max_decoded_bytes: MAX_DECODED_BYTES,
        }
    }
}

/// Which life of a partition a fetch belongs to: it changes with every start, so that late answers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

/// What one fetch brought of one partition.
#[derive(Debug)]
pub struct Fetched {
    /// The partition.
    pub partition: TopicPartition,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Whole batches in order of their offsets.
    pub batches: Vec<RawBatch>,
    /// The position after the newest record that readers may see.
    pub end: Offset,
    /// Set when the position was not in the log any more and reading went on elsewhere.
    pub jump: Option<Jump>,
}

/// The log did not hold the position that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// What was asked for.
    pub from: Offset,
    /// Where reading went on: the earliest offset that exists, or the end where the log has become shorter.
    pub to: Offset,
}

impl Jump {
    /// Records between the two: lost to retention. 0 when the log has become shorter.
    pub fn lost(&self) -> u64 {
        self.to.since(self.from)
    }
}

/// Tells a topic from a later one of the same name.
type TopicId = [u8; 16];

/// Positions of the partitions that are read.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<BoardState>,
    changed: Notify,
    /// The leaders are being asked for.
    refreshing: AtomicBool,
}

#[derive(Default)]
struct BoardState {
    partitions: BTreeMap<TopicPartition, Reading>,
    incarnations: u64,
}

struct Reading {
    position: Offset,
    incarnation: Incarnation,
    /// Of the topic that the position is in, once it is known.
    topic_id: Option<TopicId>,
    paused: bool,
    not_before: Option<Instant>,
}

/// One partition in a fetch request.
#[derive(Debug, Clone)]
struct Wanted {
    partition: TopicPartition,
    position: Offset,
    incarnation: Incarnation,
    topic_id: Option<TopicId>,
}

impl Reading {
    /// A topic that was deleted and created again is another one: it is read from its beginning.
    fn follow(&mut self, topic_id: Option<TopicId>) {
        if self.topic_id.is_some_and(|before| topic_id.is_some_and(|now| now != before)) {
            self.position = Offset(0);
        }
        self.topic_id = topic_id.or(self.topic_id);
    }
}

impl Board {
    pub(crate) fn start(&self, partition: &TopicPartition, position: Offset) -> Incarnation {
        let mut state = self.lock();
        state.incarnations += 1;
        let incarnation = Incarnation(state.incarnations);
        let reading = Reading { position, incarnation, topic_id: None, paused: false, not_before: None };
        state.partitions.insert(partition.clone(), reading);
        drop(state);
        self.changed.notify_one();
        incarnation
    }

    pub(crate) fn pause(&self, partition: &TopicPartition) {
        if let Some(reading) = self.lock().partitions.get_mut(partition) {
            reading.paused = true;
        }
    }

    pub(crate) fn resume(&self, partition: &TopicPartition) {
        if let Some(reading) = self.lock().partitions.get_mut(partition) {
            reading.paused = false;
        }
        self.changed.notify_one();
    }

    pub(crate) fn stop(&self, partition: &TopicPartition) {
        self.lock().partitions.remove(partition);
    }

    /// What may be fetched now, by leader; partitions without a known leader under `None`.
    fn wanted(&self, client: &Client, now: Instant) -> BTreeMap<Option<BrokerId>, Vec<Wanted>> {
        let mut by_leader = BTreeMap::<_, Vec<_>>::new();
        for (partition, reading) in &mut self.lock().partitions {
            reading.follow(client.known_topic(&partition.topic).map(|topic| topic.topic_id));
            if !reading.paused && reading.not_before.is_none_or(|time| time <= now) {
                let wanted = Wanted {
                    partition: partition.clone(),
                    position: reading.position,
                    incarnation: reading.incarnation,
                    topic_id: reading.topic_id,
                };
                by_leader.entry(client.known_leader(partition)).or_default().push(wanted);
            }
        }
        by_leader
    }

    /// Moves a partition on, unless it has been started anew or stopped meanwhile.
    fn advance(&self, wanted: &Wanted, position: Offset) -> bool {
        self.update(wanted, |reading| reading.position = position)
    }

    fn defer(&self, wanted: &Wanted, until: Instant) {
        self.update(wanted, |reading| reading.not_before = Some(until));
    }

    fn update(&self, wanted: &Wanted, change: impl FnOnce(&mut Reading)) -> bool {
        match self.lock().partitions.get_mut(&wanted.partition) {
            Some(reading) if reading.incarnation == wanted.incarnation => {
                change(reading);
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches for one consumer until it is dropped.
pub(crate) struct FetchTask {
    pub(crate) client: Client,
    pub(crate) config: FetchConfig,
    pub(crate) board: Arc<Board>,
    pub(crate) fetched: mpsc::Sender<Vec<Fetched>>,
    pub(crate) lane: Lane,
}

/// What a request asks the broker to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// The first record that comes.
    FirstRecord,
    /// Enough bytes to be worth an answer.
    Fill,
}

/// When and how a broker is asked next.
struct Pace {
    not_before: Instant,
    patience: Patience,
}

struct Answer {
    broker: BrokerId,
    sent_at: Instant,
    wanted: Vec<Wanted>,
    response: Result<FetchResponse, Error>,
}

impl FetchTask {
    pub(crate) async fn run(self) {
        let mut paces = HashMap::<BrokerId, Pace>::new();
        let mut under_way = FuturesUnordered::<BoxFuture<'static, Answer>>::new();
        let mut busy = HashSet::new();
        loop {
            let wake_at = self.send_requests(&paces, &mut busy, &mut under_way).await;
            tokio::select! {
                Some(answer) = under_way.next() => {
                    busy.remove(&answer.broker);
                    let pace = self.take_answer(answer).await;
                    if let Some((broker, pace)) = pace {
                        paces.insert(broker, pace);
                    } else {
                        return;
                    }
                }
                () = self.board.changed.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Sends what may be sent now; returns when to look again.
    async fn send_requests(
        &self,
        paces: &HashMap<BrokerId, Pace>,
        busy: &mut HashSet<BrokerId>,
        under_way: &mut FuturesUnordered<BoxFuture<'static, Answer>>,
    ) -> Instant {
        let now = Instant::now();
        let mut wake_at = now + IDLE_WAIT;
        for (leader, wanted) in self.board.wanted(&self.client, now) {
            let Some(broker) = leader else {
                self.refresh(&wanted);
                wake_at = wake_at.min(now + RETRY_PAUSE);
                continue;
            };
            let pace = paces.get(&broker);
            let not_before = pace.map_or(now, |pace| pace.not_before);
            if busy.contains(&broker) {
                continue;
            }
            if not_before > now {
                wake_at = wake_at.min(not_before);
                continue;
            }
            busy.insert(broker);
            let patience = pace.map_or(Patience::FirstRecord, |pace| pace.patience);
            under_way.push(self.fetch(broker, wanted, patience));
        }
        wake_at
    }

    fn fetch(&self, broker: BrokerId, wanted: Vec<Wanted>, patience: Patience) -> BoxFuture<'static, Answer> {
        let request = self.request(&wanted, patience);
        let (client, lane) = (self.client.clone(), self.lane);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        Box::pin(async move {
            let limit = wait + client.config().request_timeout;
            let sent_at = Instant::now();
            let response = client.call_within(broker, lane, FETCH_VERSION, &request, limit).await;
            Answer { broker, sent_at, wanted, response }
        })
    }

    fn request(&self, wanted: &[Wanted], patience: Patience) -> FetchRequest {
        let mut request = FetchRequest::default();
        let (min_bytes, max_wait) = match patience {
            Patience::FirstRecord => (1, IDLE_WAIT),
            Patience::Fill => (self.config.min_bytes, self.config.max_wait),
        };
        request.replica_id = (-1).into();
        request.min_bytes = min_bytes;
        request.max_wait_ms = i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX);
        request.max_bytes = self.config.max_bytes;
        request.isolation_level = READ_COMMITTED;
        // No fetch session (KIP-227). For 48 partitions a request is 1.7 kB and 1 µs, an answer without records 1.8 kB, and
        // the broker looks at every partition with a session as well. Under load (one request in 5 ms at most, 0.3 MB/s
        // beside the records) half the partitions have moved and would be named all the same; idle, it is 4 requests/s.
        // What is left to save is not worth a state at the broker that can be evicted and must be agreed upon again.
        request.session_epoch = -1;
        for wanted in wanted {
            let name = &*wanted.partition.topic;
            if request.topics.last().is_none_or(|topic| topic.topic.as_str() != name) {
                let mut topic = FetchTopic::default();
                topic.topic = TopicName(StrBytes::from_string(name.to_owned()));
                request.topics.push(topic);
            }
            let mut partition = FetchPartition::default();
            partition.partition = wanted.partition.partition.0;
            partition.fetch_offset = wanted.position.0;
            partition.partition_max_bytes = self.config.partition_max_bytes;
            if let Some(topic) = request.topics.last_mut() {
                topic.partitions.push(partition);
            }
        }
        request
    }

    /// Hands out what came; `None` when nobody listens any more.
    async fn take_answer(&self, answer: Answer) -> Option<(BrokerId, Pace)> {
        let Answer { broker, sent_at, wanted, response } = answer;
        let response = match response {
            Ok(response) if response.error_code == 0 => response,
            Ok(response) => {
                tracing::warn!(%broker, code = response.error_code, "fetch refused");
                return Some((broker, self.after_failure(&wanted)));
            }
            Err(error) => {
                tracing::warn!(%broker, %error, "fetch failed");
                return Some((broker, self.after_failure(&wanted)));
            }
        };
        let mut fetched = Vec::new();
        let mut bytes = 0;
        let mut wanted: HashMap<TopicPartition, Wanted> =
            wanted.into_iter().map(|wanted| (wanted.partition.clone(), wanted)).collect();
        for topic in response.responses {
            let name: Arc<str> = Arc::from(topic.topic.as_str());
            for data in topic.partitions {
                let key = TopicPartition::new(Arc::clone(&name), PartitionId(data.partition_index));
                if let Some(wanted) = wanted.remove(&key) {
                    bytes += data.records.as_ref().map_or(0, bytes::Bytes::len);
                    fetched.extend(self.take_partition(wanted, data).await);
                }
            }
        }
        if !fetched.is_empty() {
            self.fetched.send(fetched).await.ok()?;
        }
        Some((broker, self.pace(sent_at, bytes)))
    }

    fn pace(&self, sent_at: Instant, bytes: usize) -> Pace {
        let backlog = bytes * BACKLOG_SHARE >= usize::try_from(self.config.max_bytes).unwrap_or(usize::MAX);
        let not_before = if backlog { sent_at } else { sent_at + self.config.interval };
        let patience = if bytes == 0 { Patience::FirstRecord } else { Patience::Fill };
        Pace { not_before, patience }
    }

    fn after_failure(&self, wanted: &[Wanted]) -> Pace {
        self.refresh(wanted);
        Pace { not_before: Instant::now() + RETRY_PAUSE, patience: Patience::FirstRecord }
    }

    async fn take_partition(&self, wanted: Wanted, data: PartitionData) -> Option<Fetched> {
        match data.error_code.err() {
            None => self.take_records(&wanted, data),
            Some(ResponseError::OffsetOutOfRange) => self.jump(wanted).await,
            Some(code) => {
                self.board.defer(&wanted, Instant::now() + RETRY_PAUSE);
                // Corrupt is what the broker finds on its own disk: new metadata does not mend that, people must know.
                if is_transient(code) && code != ResponseError::CorruptMessage {
                    tracing::debug!(partition = %wanted.partition, ?code, "fetch refused, asking for the leader again");
                } else {
                    tracing::error!(partition = %wanted.partition, ?code, "fetch refused");
                }
                self.refresh(&[wanted]);
                None
            }
        }
    }

    fn take_records(&self, wanted: &Wanted, data: PartitionData) -> Option<Fetched> {
        let slice = LogSlice {
            bytes: data.records.filter(|records| !records.is_empty())?,
            position: wanted.position,
            end: Offset(data.last_stable_offset),
            aborted: data.aborted_transactions.unwrap_or_default(),
            max_decoded_bytes: self.config.max_decoded_bytes,
        };
        let batches = slice.into_batches();
        let next = batches.last()?.next();
        let Wanted { partition, incarnation, .. } = wanted;
        let end = Offset(data.last_stable_offset.max(next.0));
        let fetched = Fetched { partition: partition.clone(), incarnation: *incarnation, batches, end, jump: None };
        self.board.advance(wanted, next).then_some(fetched)
    }

    /// The position is not in the log: before its start (retention has passed us) or behind its end (it was cut).
    async fn jump(&self, wanted: Wanted) -> Option<Fetched> {
        let to = match self.nearest(&wanted).await {
            Ok(to) => to,
            Err(error) => {
                tracing::warn!(partition = %wanted.partition, %error, "cannot find where the log begins");
                self.board.defer(&wanted, Instant::now() + RETRY_PAUSE);
                return None;
            }
        };
        let jump = Jump { from: wanted.position, to };
        let Wanted { partition, incarnation, .. } = &wanted;
        let fetched = Fetched {
            partition: partition.clone(),
            incarnation: *incarnation,
            batches: Vec::new(),
            end: to,
            jump: Some(jump),
        };
        self.board.advance(&wanted, to).then_some(fetched)
    }

    async fn nearest(&self, wanted: &Wanted) -> Result<Offset, Error> {
        let earliest = self.list_offset(&wanted.partition, OffsetSpec::Earliest).await?;
        let latest = self.list_offset(&wanted.partition, OffsetSpec::Latest).await?;
        let topic = self.client.topic(&wanted.partition.topic).await?;
        let is_another = wanted.topic_id.is_some_and(|before| before != topic.topic_id);
        Ok(if is_another { earliest } else { wanted.position.min(latest).max(earliest) })
    }

    async fn list_offset(&self, partition: &TopicPartition, spec: OffsetSpec) -> Result<Offset, Error> {
        let listed = self.client.list_offsets(std::slice::from_ref(partition), spec).await?;
        let (_, found) = listed.into_iter().next().ok_or_else(|| Error::NoLeader(partition.to_string()))?;
        found.map(|found| found.offset)
    }

    /// Asks for the leaders again, beside the fetches: an answer may be long in coming when a broker is gone, and the
    /// partitions of the others must not wait for it.
    fn refresh(&self, wanted: &[Wanted]) {
        if self.board.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let topics: HashSet<Arc<str>> = wanted.iter().map(|wanted| Arc::clone(&wanted.partition.topic)).collect();
        let (client, board) = (self.client.clone(), Arc::clone(&self.board));
        tokio::spawn(async move {
            let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            if let Err(error) = client.refresh(&topics).await {
                tracing::debug!(%error, "metadata not refreshed");
            }
            board.changed.notify_one();
            // A partition that still has no leader must not make us ask without a pause.
            tokio::time::sleep(RETRY_PAUSE).await;
            board.refreshing.store(false, Ordering::Release);
        });
    }
}
