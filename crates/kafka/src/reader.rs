//! Reading stretches of a log once, without a group: from an offset to an end that is known beforehand.
//!
//! Each [`Reader::next`] asks every leader once for all of its partitions; the next answers are fetched while the caller
//! works on the last ones. A partition is done at its end, or where an open transaction hides the rest of it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::future::join_all;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::{Client, Lane};
use crate::error::{Error, ErrorKind};
use crate::fetch::{FETCH_VERSION, READ_COMMITTED};
use crate::lag::{OffsetSpec, topic_name};
use crate::record::{LogSlice, MAX_DECODED_BYTES, RawBatch};
use crate::types::{BrokerId, Offset, PartitionId, TopicPartition};

/// Bound of one answer, as a broker takes it (KIP-74: the first batch always comes whole).
pub const READ_MAX_BYTES: i32 = 8 << 20;
/// Bound of one partition in it.
const PARTITION_MAX_BYTES: i32 = 1 << 20;
/// Everything that is asked for is there already: the broker need not wait.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// How long nothing may come before the reader gives up: time for a partition to move to another broker.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A stretch of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset that is wanted.
    pub from: Offset,
    /// The one behind the last.
    pub end: Offset,
}

/// What one answer brought of one partition.
#[derive(Debug)]
pub struct Read {
    /// The partition.
    pub partition: TopicPartition,
    /// Whole batches in order of their offsets; the last one may reach beyond the end of the stretch.
    pub batches: Vec<RawBatch>,
    /// Where reading goes on.
    pub next: Offset,
}

/// Reads stretches to their ends. Dropping it stops the reading.
pub struct Reader {
    answers: mpsc::Receiver<Result<Vec<Read>, Error>>,
}

impl Reader {
    /// Begins to read; call it inside a tokio runtime. Empty stretches are left out.
    pub fn new(client: Client, stretches: Vec<Stretch>) -> Self {
        Self::bounded(client, stretches, READ_MAX_BYTES)
    }

    /// The same with another bound of each answer, for whoever wants few records.
    pub fn bounded(client: Client, stretches: Vec<Stretch>, max_bytes: i32) -> Self {
        // One answer waits while the caller works on another one.
        let (sender, answers) = mpsc::channel(1);
        tokio::spawn(Task::new(client, stretches, max_bytes).run(sender));
        Self { answers }
    }

    /// What came next; `None` when every stretch is read.
    ///
    /// # Errors
    /// What waiting does not help with, or what did not pass in time.
    pub async fn next(&mut self) -> Result<Option<Vec<Read>>, Error> {
        self.answers.recv().await.transpose()
    }
}

struct Task {
    client: Client,
    lane: Lane,
    max_bytes: i32,
    left: BTreeMap<TopicPartition, Left>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    position: Offset,
    end: Offset,
}

impl Task {
    fn new(client: Client, stretches: Vec<Stretch>, max_bytes: i32) -> Self {
        let lane = Lane::Fetch(client.unique_lane());
        let wanted = stretches.into_iter().filter(|stretch| stretch.from < stretch.end);
        let left = wanted.map(|one| (one.partition, Left { position: one.from, end: one.end })).collect();
        Self { client, lane, max_bytes, left }
    }

    async fn run(mut self, answers: mpsc::Sender<Result<Vec<Read>, Error>>) {
        let mut deadline = Instant::now() + PATIENCE;
        while !self.left.is_empty() {
            let answer = match self.round().await {
                Ok(read) if read.is_empty() => continue,
                Err(error) if error.kind() == ErrorKind::Transient && Instant::now() < deadline => {
                    tracing::debug!(%error, "reading goes on after a pause");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                answer => answer,
            };
            let failed = answer.is_err();
            // Nobody listens any more, or nothing more will come.
            if answers.send(answer).await.is_err() || failed {
                break;
            }
            deadline = Instant::now() + PATIENCE;
        }
        self.client.close_lanes(&[self.lane]);
    }

    /// Asks every leader once.
    async fn round(&mut self) -> Result<Vec<Read>, Error> {
        let partitions: Vec<_> = self.left.keys().cloned().collect();
        let (by_leader, leaderless) = self.client.by_leader(&partitions).await?;
        if let Some((partition, told)) = leaderless.into_iter().next() {
            self.client.refresh(&[&*partition.topic]).await?;
            return Err(told.err().unwrap_or_else(|| Error::NoLeader(partition.to_string())));
        }
        let asked = by_leader.iter().map(|(leader, partitions)| self.ask(*leader, partitions));
        let mut read = Vec::new();
        for answer in join_all(asked).await {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    self.forget_leaders(&partitions).await;
                    return if read.is_empty() { Err(error) } else { Ok(read) };
                }
            };
            self.take(answer, &mut read).await?;
        }
        Ok(read)
    }

    async fn forget_leaders(&self, partitions: &[TopicPartition]) {
        let topics: Vec<_> = partitions.first().map(|partition| &*partition.topic).into_iter().collect();
        if let Err(error) = self.client.refresh(&topics).await {
            tracing::debug!(%error, "metadata not refreshed");
        }
    }

    async fn ask(&self, leader: BrokerId, partitions: &[TopicPartition]) -> Result<FetchResponse, Error> {
        let mut request = FetchRequest::default();
        request.replica_id = (-1).into();
        request.min_bytes = 1;
        request.max_wait_ms = i32::try_from(MAX_WAIT.as_millis()).unwrap_or(i32::MAX);
        request.max_bytes = self.max_bytes;
        request.isolation_level = READ_COMMITTED;
        request.session_epoch = -1;
        for partition in partitions {
            let Some(left) = self.left.get(partition) else { continue };
            let wanted = FetchPartition::default()
                .with_partition(partition.partition.0)
                .with_fetch_offset(left.position.0)
                .with_partition_max_bytes(PARTITION_MAX_BYTES.min(self.max_bytes));
            match request.topics.iter_mut().find(|topic| topic.topic.as_str() == &*partition.topic) {
                Some(topic) => topic.partitions.push(wanted),
                None => {
                    let topic = FetchTopic::default().with_topic(topic_name(&partition.topic));
                    request.topics.push(topic.with_partitions(vec![wanted]));
                }
            }
        }
        let limit = MAX_WAIT + self.client.config().request_timeout;
        let answer = self.client.call_within(leader, self.lane, FETCH_VERSION, &request, limit).await?;
        match answer.error_code.err() {
            Some(code) => Err(Error::refused("Fetch", format!("broker {leader}"), code)),
            None => Ok(answer),
        }
    }

    async fn take(&mut self, answer: FetchResponse, read: &mut Vec<Read>) -> Result<(), Error> {
        for topic in answer.responses {
            for data in topic.partitions {
                let partition = TopicPartition::new(topic.topic.as_str(), PartitionId(data.partition_index));
                match data.error_code.err() {
                    None => read.extend(self.take_records(partition, data)),
                    Some(ResponseError::OffsetOutOfRange) => self.skip_what_is_gone(partition).await?,
                    Some(code) => {
                        let refused = Error::refused("Fetch", partition.to_string(), code);
                        if refused.kind() == ErrorKind::Transient {
                            self.forget_leaders(&[partition]).await;
                        }
                        return Err(refused);
                    }
                }
            }
        }
        Ok(())
    }

    fn take_records(&mut self, partition: TopicPartition, data: PartitionData) -> Option<Read> {
        let left = self.left.get_mut(&partition)?;
        let slice = LogSlice {
            bytes: data.records.unwrap_or_default(),
            position: left.position,
            end: Offset(data.last_stable_offset),
            aborted: data.aborted_transactions.unwrap_or_default(),
            max_decoded_bytes: MAX_DECODED_BYTES,
        };
        let batches = slice.into_batches();
        match batches.last() {
            Some(last) => left.position = last.next(),
            // An open transaction: what is behind it cannot be seen now.
            None if data.last_stable_offset <= left.position.0 => left.position = left.end,
            None => return None,
        }
        let next = left.position;
        if next >= left.end {
            self.left.remove(&partition);
        }
        Some(Read { partition, batches, next })
    }

    /// Retention was faster.
    async fn skip_what_is_gone(&mut self, partition: TopicPartition) -> Result<(), Error> {
        let listed = self.client.list_offsets(std::slice::from_ref(&partition), OffsetSpec::Earliest).await?;
        let first: HashMap<_, _> = listed.into_iter().collect();
        let first = first.get(&partition).ok_or_else(|| Error::NoLeader(partition.to_string()))?.clone()?.offset;
        match self.left.get_mut(&partition) {
            Some(left) if first > left.position && first < left.end => left.position = first,
            // Before its start, or behind an end that is shorter now: nothing of it is left.
            _ => drop(self.left.remove(&partition)),
        }
        Ok(())
    }
}
