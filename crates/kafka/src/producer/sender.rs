//! The one task of a producer: it sends what is due, and asks the cluster for leaders and producer ids.
//!
//! It sleeps until a record, an answer or the clock wakes it; with nothing to do it costs nothing. Whichever way it
//! ends – closed, aborted with its runtime, a panic – every caller gets an answer first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accumulator::{Accumulator, Finished, Needs, Outgoing, Parcel, Reply, Turn};
use super::answer::Answer;
use super::batch::Compression;
use super::delivery::ProduceError;
use super::pace::{Jitter, backoff};
use super::partition::Effects;
use super::sequence::Identity;
use crate::cluster::{Client, Lane};
use crate::error::{Error, ErrorKind};
use crate::types::BrokerId;

/// The last version that names topics by name; later ones go by topic id.
const PRODUCE_VERSION: i16 = 9;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
/// All in-sync replicas.
const ACKS_ALL: i16 = -1;
/// A producer without transactions has none to time out.
const NO_TRANSACTION_TIMEOUT_MS: i32 = i32::MAX;
const NO_PRODUCER_ID: i64 = -1;
/// A producer in use looks for new partitions and leaders this often: well within the 10 s in which it must notice.
const METADATA_INTERVAL: Duration = Duration::from_secs(5);

/// What a producer's handles and its task have in common.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Free bytes of the buffer.
    pub(super) room: Semaphore,
    wake: Notify,
    ended: CancellationToken,
}

pub(super) struct State {
    pub(super) accumulator: Accumulator,
    pub(super) phase: Phase,
}

/// A producer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Records are welcome.
    Open,
    /// What is there is still sent, until this moment.
    Closing { until: Instant },
    /// The task is gone.
    Ended,
}

impl Shared {
    pub(super) fn new(accumulator: Accumulator, buffer_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State { accumulator, phase: Phase::Open }),
            room: Semaphore::new(buffer_bytes.min(Semaphore::MAX_PERMITS)),
            wake: Notify::new(),
            ended: CancellationToken::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the task look at once.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes no more records; the task ends when it has nothing left, at the latest at `until`.
    pub(super) fn close(&self, until: Instant) {
        let mut state = self.lock();
        state.phase = match state.phase {
            Phase::Open => Phase::Closing { until },
            Phase::Closing { until: before } => Phase::Closing { until: until.min(before) },
            Phase::Ended => Phase::Ended,
        };
        state.accumulator.skip_linger();
        drop(state);
        // Whoever waits for room learns that there will be none.
        self.room.close();
        self.wake();
    }

    /// Returns when the task has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Gives room back and tells the callers. Never under the lock: it wakes them.
    fn apply(&self, mut effects: Effects) {
        if effects.freed > 0 {
            self.room.add_permits(effects.freed);
        }
        effects.tell();
    }

    fn end(&self) {
        let mut state = self.lock();
        state.phase = Phase::Ended;
        let effects = state.accumulator.give_up(ProduceError::Closed);
        drop(state);
        self.apply(effects);
        self.room.close();
        self.ended.cancel();
    }
}

/// Something that the task was waiting for.
enum Event {
    Produced(Finished, Option<Error>),
    Metadata(Result<(), Error>),
    Identity(Result<Identity, Error>),
}

/// A question to the cluster, one at a time, repeated with growing pauses while it is open.
#[derive(Default)]
struct Question {
    under_way: bool,
    asked: u32,
    not_before: Option<Instant>,
}

impl Question {
    fn may_ask(&self, now: Instant) -> bool {
        !self.under_way && self.not_before.is_none_or(|at| at <= now)
    }

    fn ask(&mut self) {
        self.under_way = true;
        self.asked = self.asked.saturating_add(1);
    }

    fn answered(&mut self, now: Instant) {
        self.under_way = false;
        self.not_before = Some(now + backoff(self.asked, jitter()));
    }

    /// The answer was good enough.
    fn settle(&mut self) {
        if !self.under_way {
            self.asked = 0;
        }
    }

    fn retry_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.under_way)
    }
}

/// Runs until its producer is closed or dropped.
pub(super) struct SenderTask {
    client: Client,
    shared: Arc<Shared>,
    compression: Compression,
    work: FuturesUnordered<BoxFuture<'static, Event>>,
    metadata: Question,
    identity: Question,
    refreshed_at: Instant,
}

impl SenderTask {
    pub(super) fn new(client: Client, shared: Arc<Shared>, compression: Compression) -> Self {
        Self {
            client,
            shared,
            compression,
            work: FuturesUnordered::new(),
            metadata: Question::default(),
            identity: Question::default(),
            refreshed_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while let Next::LookAgain(at) = self.look() {
            tokio::select! {
                Some(event) = self.work.next() => self.handle_all(event),
                () = shared.wake.notified() => {}
                () = sleep_until(at) => {}
            }
        }
    }

    /// Does what is due.
    fn look(&mut self) -> Next {
        let now = Instant::now();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if is_over(&state, now) {
            return Next::End;
        }
        self.adopt_metadata(&mut state.accumulator);
        let step = state.accumulator.step(now);
        let questions_at = self.ask(&mut state.accumulator, step.needs, now);
        let close_at = match state.phase {
            Phase::Closing { until } => Some(until),
            Phase::Open | Phase::Ended => None,
        };
        drop(state);
        shared.apply(step.effects);
        for outgoing in step.requests {
            self.work.push(self.produce(outgoing));
        }
        Next::LookAgain([step.wake_at, questions_at, close_at].into_iter().flatten().min())
    }

    /// Others that use the same client learn of leaders and partitions too.
    fn adopt_metadata(&self, accumulator: &mut Accumulator) {
        for topic in accumulator.topic_names() {
            if let Some(known) = self.client.known_topic(&topic)
                && !accumulator.goes_by(&known)
            {
                accumulator.learn_topic(known);
            }
        }
    }

    /// Puts the questions that are open; answers with the moment to put one again.
    fn ask(&mut self, accumulator: &mut Accumulator, needs: Needs, now: Instant) -> Option<Instant> {
        let metadata_at = self.ask_metadata(accumulator, needs, now);
        let identity_at = self.ask_identity(accumulator, needs, now);
        [metadata_at, identity_at].into_iter().flatten().min()
    }

    fn ask_metadata(&mut self, accumulator: &mut Accumulator, needs: Needs, now: Instant) -> Option<Instant> {
        let routine_at = self.refreshed_at + METADATA_INTERVAL;
        if !needs.metadata {
            self.metadata.settle();
        }
        let routine = accumulator.used_since_refresh() && routine_at <= now;
        if (needs.metadata || routine) && self.metadata.may_ask(now) {
            self.metadata.ask();
            self.refreshed_at = now;
            accumulator.metadata_refreshed();
            self.work.push(refresh(self.client.clone(), accumulator.topic_names()));
            return None;
        }
        let routine_at = accumulator.used_since_refresh().then_some(routine_at.max(now));
        let retry_at = self.metadata.retry_at().filter(|_| needs.metadata);
        match self.metadata.under_way {
            true => None,
            false => [routine_at, retry_at].into_iter().flatten().min(),
        }
    }

    /// The first one is fetched ahead, so that the first record need not wait for it.
    fn ask_identity(&mut self, accumulator: &Accumulator, needs: Needs, now: Instant) -> Option<Instant> {
        if accumulator.has_identity() {
            self.identity.settle();
            return None;
        }
        let ahead = self.identity.asked == 0 && accumulator.knows_topics();
        if (needs.identity || ahead) && self.identity.may_ask(now) {
            self.identity.ask();
            self.work.push(init_producer_id(self.client.clone()));
            return None;
        }
        self.identity.retry_at().filter(|_| needs.identity)
    }

    fn handle_all(&mut self, first: Event) {
        self.handle(first);
        // Answers that came together are worked off together.
        while let Some(Some(event)) = self.work.next().now_or_never() {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Produced(finished, error) => self.produced(finished, error.as_ref(), now),
            Event::Metadata(outcome) => {
                self.metadata.answered(now);
                if let Err(error) = outcome {
                    tracing::debug!(%error, "leaders cannot be learned");
                    // A topic that is gone is told by whoever leads its partitions, for as long as there are records.
                    if !matches!(error, Error::UnknownTopic(_)) {
                        self.shared.lock().accumulator.mark_stale();
                    }
                }
            }
            Event::Identity(outcome) => self.identified(outcome, now),
        }
    }

    fn produced(&self, finished: Finished, error: Option<&Error>, now: Instant) {
        let broker = finished.broker;
        let (effects, turn) = self.shared.lock().accumulator.complete(finished, now, jitter());
        self.shared.apply(effects);
        match (turn, error) {
            (Turn::Worse, Some(error)) => tracing::warn!(%broker, %error, "kafka broker takes no records"),
            (Turn::Better, _) => tracing::info!(%broker, "kafka broker takes records again"),
            _ => {}
        }
    }

    fn identified(&mut self, outcome: Result<Identity, Error>, now: Instant) {
        self.identity.answered(now);
        match outcome {
            Ok(identity) => self.shared.lock().accumulator.learn_identity(identity),
            Err(error) => {
                let code = error.code().filter(|_| error.kind() == ErrorKind::Fatal);
                match code {
                    None => tracing::debug!(%error, "no producer id yet"),
                    Some(code) => {
                        tracing::error!(%error, "kafka gives us no producer id");
                        let effects = self.shared.lock().accumulator.refuse_unidentified(code);
                        self.shared.apply(effects);
                    }
                }
            }
        }
    }

    fn produce(&self, outgoing: Outgoing) -> BoxFuture<'static, Event> {
        produce(self.client.clone(), outgoing, self.compression).boxed()
    }
}

impl Drop for SenderTask {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// What the task does after a look.
enum Next {
    LookAgain(Option<Instant>),
    End,
}

fn is_over(state: &State, now: Instant) -> bool {
    match state.phase {
        Phase::Open => false,
        Phase::Closing { until } => until <= now || state.accumulator.is_empty(),
        Phase::Ended => true,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn jitter() -> Jitter {
    Jitter(rand::random())
}

fn refresh(client: Client, topics: Vec<Arc<str>>) -> BoxFuture<'static, Event> {
    async move {
        let names: Vec<_> = topics.iter().map(|topic| &**topic).collect();
        Event::Metadata(client.refresh(&names).await)
    }
    .boxed()
}

fn init_producer_id(client: Client) -> BoxFuture<'static, Event> {
    async move {
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = None;
        request.transaction_timeout_ms = NO_TRANSACTION_TIMEOUT_MS;
        request.producer_id = ProducerId(NO_PRODUCER_ID);
        request.producer_epoch = -1;
        let answer = client.call_any(INIT_PRODUCER_ID_VERSION, &request).await;
        Event::Identity(answer.and_then(|answer| read_identity(&answer)))
    }
    .boxed()
}

fn read_identity(answer: &InitProducerIdResponse) -> Result<Identity, Error> {
    match ResponseError::try_from_code(answer.error_code) {
        None => Ok(Identity { producer_id: answer.producer_id.0, epoch: answer.producer_epoch }),
        Some(code) => Err(Error::refused("InitProducerId", "an idempotent producer", code)),
    }
}

async fn produce(client: Client, outgoing: Outgoing, compression: Compression) -> Event {
    let Outgoing { broker, parcels } = outgoing;
    let request = produce_request(&parcels, compression, client.config().request_timeout);
    let answer = client.call(broker, Lane::Produce, PRODUCE_VERSION, &request).await;
    match answer {
        Ok(response) => Event::Produced(read_answers(broker, parcels, &response), None),
        Err(error) => {
            let verdict = Answer::from_error(&error);
            let answers = parcels.into_iter().map(|parcel| (parcel, verdict)).collect();
            Event::Produced(Finished { broker, reply: Reply::None, answers }, Some(error))
        }
    }
}

fn produce_request(parcels: &[Parcel], compression: Compression, request_timeout: Duration) -> ProduceRequest {
    let mut request = ProduceRequest::default();
    request.transactional_id = None;
    request.acks = ACKS_ALL;
    // The broker gives up waiting for its replicas before we give up waiting for it: then we know what it knows.
    request.timeout_ms = i32::try_from((request_timeout / 2).as_millis()).unwrap_or(i32::MAX);
    for of_topic in parcels.chunk_by(|a, b| Arc::ptr_eq(&a.topic, &b.topic)) {
        let mut topic = TopicProduceData::default();
        topic.name = TopicName(StrBytes::from_string(of_topic[0].topic.to_string()));
        topic.partition_data = of_topic.iter().map(|parcel| partition_data(parcel, compression)).collect();
        request.topic_data.push(topic);
    }
    request
}

fn partition_data(parcel: &Parcel, compression: Compression) -> PartitionProduceData {
    let mut data = PartitionProduceData::default();
    data.index = parcel.partition.0;
    data.records = Some(parcel.batch.records.wire(parcel.stamp, compression));
    data
}

fn read_answers(broker: BrokerId, parcels: Vec<Parcel>, response: &ProduceResponse) -> Finished {
    let mut given = HashMap::with_capacity(parcels.len());
    for topic in &response.responses {
        for partition in &topic.partition_responses {
            given.insert((topic.name.as_str(), partition.index), partition);
        }
    }
    let answer_to = |parcel: &Parcel| match given.get(&(&*parcel.topic, parcel.partition.0)) {
        Some(partition) => Answer::from_code(partition.error_code, partition.base_offset),
        // A partition that the response does not mention may have been appended to.
        None => Answer::InDoubt,
    };
    let answers = parcels.into_iter().map(|parcel| (answer_to(&parcel), parcel)).map(|(a, b)| (b, a)).collect();
    report_trouble(broker, response);
    Finished { broker, reply: Reply::Answered, answers }
}

/// One line a response, since trouble mostly befalls all partitions alike.
fn report_trouble(broker: BrokerId, response: &ProduceResponse) {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| topic.partition_responses.iter().map(|partition| (topic.name.as_str(), partition)));
    let mut troubled = partitions.filter(|(_, partition)| partition.error_code != 0);
    let Some((topic, partition)) = troubled.next() else { return };
    let code = ResponseError::try_from_code(partition.error_code);
    let message = partition.error_message.as_deref().unwrap_or_default();
    let (partition_id, partitions) = (partition.index, 1 + troubled.count());
    match Answer::from_code(partition.error_code, partition.base_offset) {
        Answer::Appended(_) | Answer::NotAppended | Answer::InDoubt => {
            tracing::debug!(%broker, topic, partition_id, partitions, ?code, message, "records not appended yet");
        }
        Answer::Refused(_) | Answer::RefusedForContent(_) => {
            tracing::warn!(%broker, topic, partition_id, partitions, ?code, message, "kafka refuses records");
        }
        Answer::OutOfSequence | Answer::IdentityLost => {
            tracing::warn!(%broker, topic, partition_id, partitions, ?code, message, "kafka has lost track of our sequence");
        }
    }
}
