//! A member of a group as a service would write it on the crate's public surface: reads what it is given, "processes"
//! it, commits, hands back when asked, drops what is lost; and keeps a journal of all that.
//!
//! It runs as a task of a test, or alone in a process (`examples/member.rs`) that can be killed and frozen.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka::{
    AssignedPartition, Assignor, Claim, ClassicConfig, Client, ClientConfig, Commit, Consumer, ConsumerConfig, Fetched,
    GroupEvent, GroupProtocol, Incarnation, Offset, PartitionId, Revocation, TopicPartition,
};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::journal::{Entry, What, now_us};

/// Pause before a commit is tried again that the group did not take.
const COMMIT_PAUSE: Duration = Duration::from_millis(50);

/// Who joins what, and how.
#[derive(Debug, Clone)]
pub(crate) struct MemberOptions {
    pub(crate) bootstrap: String,
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) client_id: String,
    pub(crate) assignors: Vec<Assignor>,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) commit_interval: Duration,
    /// How long a broker may take to answer.
    pub(crate) request_timeout: Duration,
}

impl MemberOptions {
    /// The session that the services have by default, and heartbeats quick enough for a test.
    pub(crate) fn new(bootstrap: &str, topic: &str, client_id: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            group: format!("{topic}-group"),
            topic: topic.to_owned(),
            client_id: client_id.to_owned(),
            assignors: ClassicConfig::default().assignors,
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_millis(500),
            rebalance_timeout: Duration::from_secs(20),
            commit_interval: Duration::from_millis(50),
            request_timeout: Duration::from_secs(10),
        }
    }

    /// For the command line of a member in a process of its own.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let texts = [&self.bootstrap, &self.group, &self.topic, &self.client_id].into_iter().cloned();
        let group_times = [self.session_timeout, self.heartbeat_interval, self.rebalance_timeout];
        let times = group_times.into_iter().chain([self.commit_interval, self.request_timeout]);
        texts.chain(times.map(|time| time.as_millis().to_string())).collect()
    }

    /// The inverse of [`MemberOptions::to_args`].
    pub(crate) fn from_args(args: &[String]) -> Option<Self> {
        let [bootstrap, group, topic, client_id, session, heartbeat, rebalance, commit, request] = args else {
            return None;
        };
        let time = |text: &String| text.parse().ok().map(Duration::from_millis);
        Some(Self {
            bootstrap: bootstrap.clone(),
            group: group.clone(),
            topic: topic.clone(),
            client_id: client_id.clone(),
            assignors: ClassicConfig::default().assignors,
            session_timeout: time(session)?,
            heartbeat_interval: time(heartbeat)?,
            rebalance_timeout: time(rebalance)?,
            commit_interval: time(commit)?,
            request_timeout: time(request)?,
        })
    }

    pub(crate) fn client(&self) -> Client {
        let brokers = self.bootstrap.split(',').map(str::to_owned).collect();
        let config = ClientConfig::new(brokers, self.client_id.as_str());
        Client::new(ClientConfig { request_timeout: self.request_timeout, ..config })
    }

    pub(crate) fn consumer_config(&self) -> ConsumerConfig {
        ConsumerConfig {
            protocol: GroupProtocol::Classic(ClassicConfig {
                assignors: self.assignors.clone(),
                session_timeout: self.session_timeout,
                heartbeat_interval: self.heartbeat_interval,
                ..ClassicConfig::default()
            }),
            rebalance_timeout: self.rebalance_timeout,
            ..ConsumerConfig::new(self.group.clone(), vec![Arc::from(self.topic.as_str())])
        }
    }
}

/// Where a member writes down what happens to it.
#[derive(Debug, Clone)]
pub(crate) enum Journal {
    /// For the test that it is a task of.
    Memory(Arc<Mutex<Vec<Entry>>>),
    /// One line for each entry, for whoever started the process.
    StandardOutput,
}

impl Journal {
    fn write(&self, what: What) {
        let entry = Entry { at_us: now_us(), what };
        match self {
            Self::Memory(entries) => entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry),
            Self::StandardOutput => writeln!(std::io::stdout(), "{entry}").expect("whoever started us reads"),
        }
    }
}

/// Runs a member until it is told to stop; then it leaves in good order.
pub(crate) async fn run(options: MemberOptions, journal: Journal, stop: CancellationToken) {
    let mut member = Member {
        consumer: Consumer::join(options.client(), options.consumer_config()),
        topic: Arc::from(options.topic.as_str()),
        patience: options.rebalance_timeout / 2,
        journal,
        owned: BTreeMap::new(),
    };
    let mut commit_tick = tokio::time::interval(options.commit_interval);
    commit_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = commit_tick.tick() => member.commit_once().await,
            Some(event) = member.consumer.events.recv() => member.take(event).await,
            Some(fetched) = member.consumer.fetched.recv() => member.process(fetched),
        }
    }
    member.leave().await;
}

struct Member {
    consumer: Consumer,
    topic: Arc<str>,
    /// How long a commit is tried that must be done before something else.
    patience: Duration,
    journal: Journal,
    owned: BTreeMap<i32, Owned>,
}

struct Owned {
    claim: Claim,
    incarnation: Incarnation,
    /// Position after the last record processed.
    next: Offset,
    committed: Offset,
}

impl Member {
    async fn take(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned { partitions, claim } => {
                partitions.into_iter().for_each(|assigned| self.start(assigned, &claim));
            }
            GroupEvent::Revoked(revocation) => self.hand_back(revocation).await,
            GroupEvent::Lost(partitions) => {
                for TopicPartition { partition, .. } in partitions {
                    self.owned.remove(&partition.0);
                    self.journal.write(What::Lost { partition: partition.0 });
                }
            }
            GroupEvent::Trouble(error) => self.journal.write(What::Trouble(error.to_string())),
            GroupEvent::Failed(error) => self.journal.write(What::Failed(error.to_string())),
        }
    }

    fn start(&mut self, assigned: AssignedPartition, claim: &Claim) {
        let start = assigned.committed.map_or(Offset(0), |committed| committed.offset);
        let partition = assigned.partition.partition.0;
        self.journal.write(What::Assigned { partition, start: start.0 });
        let incarnation = self.consumer.handle.start(&assigned.partition, start);
        self.owned.insert(partition, Owned { claim: claim.clone(), incarnation, next: start, committed: start });
    }

    fn process(&mut self, fetched: Vec<Fetched>) {
        for fetched in fetched {
            let partition = fetched.partition.partition.0;
            if let Some(owned) = self.owned.get_mut(&partition)
                && owned.incarnation == fetched.incarnation
                && owned.claim.holds()
            {
                match process(&fetched) {
                    Ok(entry) => self.journal.write(entry),
                    Err(text) => self.journal.write(What::Failed(text)),
                }
                owned.next = fetched.batches.last().map_or(owned.next, kafka::RawBatch::next);
            }
        }
    }

    /// Commits before it answers: whoever comes next begins where we have ended.
    async fn hand_back(&mut self, revocation: Revocation) {
        revocation.partitions.iter().for_each(|partition| self.consumer.handle.stop(partition));
        let revoked: Vec<i32> = revocation.partitions.iter().map(|partition| partition.partition.0).collect();
        self.commit_until_taken(&revoked).await;
        for partition in revoked {
            self.owned.remove(&partition);
            self.journal.write(What::Revoked { partition });
        }
        revocation.finish();
    }

    async fn leave(mut self) {
        let owned: Vec<i32> = self.owned.keys().copied().collect();
        self.commit_until_taken(&owned).await;
        self.journal.write(What::Left);
        self.consumer.handle.close().await;
    }

    async fn commit_once(&mut self) {
        let owned: Vec<i32> = self.owned.keys().copied().collect();
        self.commit(&owned).await;
    }

    async fn commit_until_taken(&mut self, partitions: &[i32]) {
        let deadline = Instant::now() + self.patience;
        while !self.commit(partitions).await && Instant::now() < deadline {
            tokio::time::sleep(COMMIT_PAUSE).await;
        }
    }

    /// Whether nothing of `partitions` is left to commit.
    async fn commit(&mut self, partitions: &[i32]) -> bool {
        let behind = |id: &&i32| self.owned.get(*id).is_some_and(|owned| owned.committed < owned.next);
        let commits: Vec<Commit> = partitions.iter().filter(behind).map(|id| self.position(*id)).collect();
        if commits.is_empty() {
            return true;
        }
        // All that is owned came by claims that end together: see `Claim`.
        let Some(claim) = partitions.iter().find_map(|id| self.owned.get(id)).map(|owned| owned.claim.clone()) else {
            return true;
        };
        let outcome = self.consumer.handle.commit(&commits, &claim).await;
        for Commit { partition, offset, .. } in &commits {
            let (partition, next) = (partition.partition.0, offset.0);
            match (&outcome, self.owned.get_mut(&partition)) {
                (Ok(()), Some(owned)) => {
                    owned.committed = *offset;
                    self.journal.write(What::Committed { partition, next });
                }
                _ => self.journal.write(What::NotCommitted { partition, next }),
            }
        }
        outcome.is_ok()
    }

    fn position(&self, partition: i32) -> Commit {
        let offset = self.owned.get(&partition).map_or(Offset(0), |owned| owned.next);
        let partition = TopicPartition::new(Arc::clone(&self.topic), PartitionId(partition));
        Commit { partition, offset, metadata: String::new() }
    }
}

/// Decodes what came, and says what it was; a jump or bytes that are no batch are nothing that these tests cause.
fn process(fetched: &Fetched) -> Result<What, String> {
    let begun_us = now_us();
    if let Some(jump) = fetched.jump {
        return Err(format!("{} jumped from {} to {}", fetched.partition, jump.from, jump.to));
    }
    let mut range = None::<(i64, i64)>;
    for batch in &fetched.batches {
        for record in batch.decode().map_err(|error| format!("{}: {error}", fetched.partition))? {
            let first = range.map_or(record.offset.0, |(first, _)| first);
            range = Some((first, record.offset.0));
        }
    }
    let (first, last) = range.ok_or_else(|| format!("{}: a fetch without a record", fetched.partition))?;
    Ok(What::Processed { partition: fetched.partition.partition.0, first, last, begun_us })
}
