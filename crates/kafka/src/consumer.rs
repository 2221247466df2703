//! A consumer: one member of a group, what it is given and what it reads.
//!
//! ```text
//!   coordinator ◀── join, sync, heartbeat, leave ── MemberTask ──▶ events  (assigned, revoked, lost, trouble)
//!                                                        │
//!        leaders ◀── one fetch for all partitions ── FetchTask ──▶ fetched (batches, still encoded)
//!                                                        ▲
//!   coordinator ◀── commit ─────────────────────────── Handle ◀── start, pause, resume, seek, stop, commit, close
//! ```
//!
//! A partition is read only after [`Handle::start`]: whoever consumes decides where (a sink may keep offsets of its
//! own). Neither channel is unbounded: a reader that does not keep up holds the fetches back, never the heartbeats.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{Client, Lane};
use crate::error::Error;
use crate::fetch::{Board, FetchConfig, FetchTask, Fetched, Incarnation};
use crate::group::assignor::Assignor;
use crate::group::claim::Claim;
use crate::group::member::MemberTask;
use crate::group::wire::Wire;
use crate::lag::Committed;
use crate::types::{Offset, TopicPartition};

/// Group events that may wait; a member has seldom more than one.
const EVENT_QUEUE: usize = 16;
/// Fetch responses that may wait for the reader, besides the one that it works on.
const FETCHED_QUEUE: usize = 1;

/// Long enough to finish what is in flight, short enough for the others to wait.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(15);

/// How a member joins and reads.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// The group.
    pub group: String,
    /// The topics that it reads.
    pub topics: Vec<Arc<str>>,
    /// A name of the member that outlives the process (`group.instance.id`): it leaves without a word and finds its
    /// partitions again when it is back within the session time-out (KIP-345). No two members may have the same.
    pub instance_id: Option<Arc<str>>,
    /// By which protocol it is a member.
    pub protocol: GroupProtocol,
    /// How long a rebalance waits for a member, and how long a revoked partition may take to be handed back.
    pub rebalance_timeout: Duration,
    /// How records are fetched.
    pub fetch: FetchConfig,
}

impl ConsumerConfig {
    /// A member of `group` that reads `topics` with the settings of [`ClassicConfig`] and [`FetchConfig`] by default.
    pub fn new(group: impl Into<String>, topics: Vec<Arc<str>>) -> Self {
        Self {
            group: group.into(),
            topics,
            instance_id: None,
            protocol: GroupProtocol::Classic(ClassicConfig::default()),
            rebalance_timeout: REBALANCE_TIMEOUT,
            fetch: FetchConfig::default(),
        }
    }
}

/// Kafka's two group protocols.
#[derive(Debug, Clone)]
pub enum GroupProtocol {
    /// A member of the group shares the partitions out, by an assignor that all members offer.
    Classic(ClassicConfig),
    /// The coordinator shares them out (KIP-848), and sets session time-out and heartbeat interval. Kafka 4.0 or newer.
    Consumer {
        /// The broker's assignor (`uniform`, `range`); its default when `None`.
        remote_assignor: Option<String>,
    },
}

/// How a member takes part in the classic protocol.
#[derive(Debug, Clone)]
pub struct ClassicConfig {
    /// The assignors that it offers, the preferred one first; with `range` among them it is an eager member.
    pub assignors: Vec<Assignor>,
    /// Silence after which the coordinator gives our partitions to others.
    pub session_timeout: Duration,
    /// Interval of the heartbeats; at most a third of the session time-out.
    pub heartbeat_interval: Duration,
    /// As leader with [`Assignor::LoadAware`]: least time between sharing out and sharing out anew because the load has
    /// drifted.
    pub rebalance_interval: Duration,
}

impl Default for ClassicConfig {
    /// Load-aware, a session of 6 s, a heartbeat every 2 s, at most one drift a minute.
    fn default() -> Self {
        Self {
            assignors: vec![Assignor::LoadAware],
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_secs(2),
            rebalance_interval: Duration::from_secs(60),
        }
    }
}

/// What happens to the member.
#[derive(Debug)]
pub enum GroupEvent {
    /// These are ours from now on; may be none (more members than partitions, or nothing new, or trouble is over).
    Assigned {
        /// The partitions.
        partitions: Vec<AssignedPartition>,
        /// To be asked before each write: a process that was frozen learns by it that its time is over.
        claim: Claim,
    },
    /// These are to be handed back: finish or drop what is in flight, commit, then drop the [`Revocation`].
    Revoked(Revocation),
    /// These are no longer ours, and may already be somebody else's: write and commit nothing more of them.
    Lost(Vec<TopicPartition>),
    /// The member cannot reach its group at the moment and goes on trying.
    Trouble(Error),
    /// The member has given up: waiting does not help.
    Failed(Error),
}

/// A partition that came to us, and where the group stands in it.
#[derive(Debug, Clone)]
pub struct AssignedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The group's committed offset, if it has one.
    pub committed: Option<Committed>,
}

/// Partitions to hand back; the group goes on once this is dropped (or the rebalance time-out has passed).
#[derive(Debug)]
pub struct Revocation {
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
    /// Dropped with the revocation: that is the answer to the member.
    pub(crate) done: oneshot::Sender<()>,
}

impl Revocation {
    /// Says that everything of the partitions is committed or dropped.
    pub fn finish(self) {
        // The member may have stopped waiting: the partitions are lost then, and it says so itself.
        let _ = self.done.send(());
    }
}

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: TopicPartition,
    /// Position after the last record that was processed.
    pub offset: Offset,
    /// Stored beside it.
    pub metadata: String,
}

/// A member of a group.
pub struct Consumer {
    /// What happens to the member.
    pub events: mpsc::Receiver<GroupEvent>,
    /// What was read.
    pub fetched: mpsc::Receiver<Vec<Fetched>>,
    /// How to steer it.
    pub handle: Handle,
}

/// Steers a [`Consumer`]; clones steer the same one.
#[derive(Clone)]
pub struct Handle {
    wire: Wire,
    board: Arc<Board>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Consumer {
    /// Starts to join. Never fails: what is in the way comes as [`GroupEvent::Trouble`] or [`GroupEvent::Failed`].
    pub fn join(client: Client, config: ConsumerConfig) -> Self {
        let (events_in, events) = mpsc::channel(EVENT_QUEUE);
        let (fetched_in, fetched) = mpsc::channel(FETCHED_QUEUE);
        let wire = Wire {
            group: Arc::from(config.group.as_str()),
            instance_id: config.instance_id.clone(),
            lane: client.unique_lane(),
            membership: Arc::default(),
            client,
        };
        let handle = Handle {
            wire: wire.clone(),
            board: Arc::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let fetch = FetchTask {
            client: wire.client.clone(),
            config: config.fetch.clone(),
            board: Arc::clone(&handle.board),
            fetched: fetched_in,
            lane: Lane::Fetch(wire.lane),
        };
        let member = MemberTask::new(wire, config, events_in, handle.closing.clone());
        let closing = handle.closing.clone();
        handle.tasks.spawn(async move { closing.run_until_cancelled_owned(fetch.run()).await });
        handle.tasks.spawn(member.run());
        handle.tasks.close();
        Self { events, fetched, handle }
    }
}

impl Handle {
    /// Begins to read a partition at `offset`. What was fetched of it before is of another incarnation.
    pub fn start(&self, partition: &TopicPartition, offset: Offset) -> Incarnation {
        self.board.start(partition, offset)
    }

    /// Stops fetching a partition until [`Handle::resume`]; what is under way still comes.
    pub fn pause(&self, partition: &TopicPartition) {
        self.board.pause(partition);
    }

    /// Goes on fetching a partition.
    pub fn resume(&self, partition: &TopicPartition) {
        self.board.resume(partition);
    }

    /// Forgets a partition.
    pub fn stop(&self, partition: &TopicPartition) {
        self.board.stop(partition);
    }

    /// Commits offsets in one request, as the member that we are at the moment.
    ///
    /// # Errors
    /// [`Error`] of the first partition that was refused. While the group rebalances a commit is refused for a moment:
    /// commit again later. When `claim`, by which the partitions came, holds no more, it is refused for good: positions
    /// of an earlier life of the member would set the group back.
    pub async fn commit(&self, commits: &[Commit], claim: &Claim) -> Result<(), Error> {
        self.wire.commit(commits, claim).await
    }

    /// Stops fetching, leaves the group and waits until both have happened. Commit before.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
        let lane = self.wire.lane;
        self.wire.client.close_lanes(&[Lane::Fetch(lane), Lane::Member(lane), Lane::Join(lane)]);
    }
}
