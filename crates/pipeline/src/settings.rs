//! How a pipeline runs: the flags that the writers share, and the settings made from them.

use std::sync::Arc;
use std::time::Duration;

use kafka::ClientConfig;
use kafka::topics::{Mode, Plan};

use crate::flood::FloodArgs;
use crate::freshness::Freshness;
use crate::membership::{Membership, MembershipArgs};

const DEFAULT_PARTITIONS: i32 = 48;
const COMMIT_MIN: Duration = Duration::from_millis(5);
const COMMIT_MAX: Duration = Duration::from_secs(10);
const BUFFER_MIN: u64 = 1 << 20;
const BUFFER_MAX: u64 = 8 << 30;

/// Flags of every writer.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pipeline options")]
pub struct PipelineArgs {
    /// Topic for records that can never succeed [default: <topic>.DLT]
    #[arg(long, value_name = "TOPIC", value_parser = service::topic_name)]
    pub dead_letter_topic: Option<String>,

    /// What to do about missing topics: auto creates them, check ends with an error, off leaves them alone
    #[arg(long, value_name = "auto|check|off", default_value = "auto")]
    pub topic_create: Mode,

    /// Partitions of the topic when it is created; fewer than this in an existing one is a warning (check: an error)
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PARTITIONS, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub topic_partitions: i32,

    /// Records fetched and not yet written, over the process, above which fetching pauses
    #[arg(long, value_name = "RECORDS", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub pause_above: u64,

    /// Records fetched and not yet written below which fetching goes on; below --pause-above
    #[arg(long, value_name = "RECORDS", default_value_t = 10_000)]
    pub resume_below: u64,

    /// Bytes fetched and not yet written, over the process, above which fetching pauses
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = service::bytes(BUFFER_MIN..=BUFFER_MAX))]
    pub buffer_bytes: usize,

    /// Interval of offset commits, while there is something new
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = service::duration(COMMIT_MIN..=COMMIT_MAX))]
    pub commit_interval: Duration,

    /// When so many records become letters that it cannot be their fault.
    #[command(flatten)]
    pub flood: FloodArgs,

    /// How it is a member of its group.
    #[command(flatten)]
    pub membership: MembershipArgs,
}

impl PipelineArgs {
    /// Checks the flags against each other.
    ///
    /// # Errors
    /// The flag to blame.
    pub fn check(&self) -> Result<(), service::Usage> {
        if self.resume_below >= self.pause_above {
            let remedy = format!("must be below --pause-above ({})", self.pause_above);
            return Err(service::Usage::new("--resume-below", self.resume_below, remedy));
        }
        self.membership.check()
    }

    /// The name of the dead letter topic of `topic`.
    pub fn dead_letter_topic(&self, topic: &str) -> String {
        self.dead_letter_topic.clone().unwrap_or_else(|| format!("{topic}{}", kafka::topics::DEAD_LETTER_SUFFIX))
    }
}

/// What differs from writer to writer.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The consumer group.
    pub group: String,
    /// Records of one batch; a batch holds whole fetched batches, so it may be larger by one of those.
    pub batch_max: u64,
    /// Bytes of one batch, as Kafka holds them; the same holds.
    pub batch_bytes: u64,
    /// How long records may wait for others to share their batch, while records are coming in.
    pub linger_max: Duration,
    /// Batches written at a time.
    pub writers: usize,
    /// Bytes that the broker gathers for one answer, while records are coming in.
    pub fetch_min_bytes: i32,
    /// Set where what is too old need not be written.
    pub freshness: Option<Freshness>,
}

/// Everything that a pipeline needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who runs it: for dead letters and as the client's name.
    pub service: &'static str,
    /// Version of it: for dead letters.
    pub version: &'static str,
    /// How to reach Kafka.
    pub kafka: ClientConfig,
    /// The topic that is read.
    pub topic: Arc<str>,
    /// Where records go that can never succeed; `None`: they are counted and left behind (a reader of dead letters).
    pub dead_letter_topic: Option<String>,
    /// What to do about missing topics.
    pub topic_create: Mode,
    /// The topics that are made sure of before the first record; for a writer, what it reads and its dead letters.
    pub topics: Plan,
    /// Bounds of what is fetched and not yet written.
    pub pause_above: u64,
    /// See [`PipelineArgs::resume_below`].
    pub resume_below: u64,
    /// See [`PipelineArgs::buffer_bytes`].
    pub buffer_bytes: u64,
    /// How it is a member of its group.
    pub membership: Membership,
    /// See [`PipelineArgs::commit_interval`].
    pub commit_interval: Duration,
    /// See [`FloodArgs::dead_letter_max_share`].
    pub dead_letter_max_share: Option<f64>,
    /// What differs from writer to writer.
    pub policy: Policy,
}

impl Settings {
    /// Puts a writer's settings together.
    pub fn new(
        service: &'static str,
        version: &'static str,
        common: &service::CommonArgs,
        args: &PipelineArgs,
        policy: Policy,
    ) -> Self {
        Self {
            service,
            version,
            kafka: common.client_config(service),
            topic: Arc::from(common.topic.as_str()),
            dead_letter_topic: Some(args.dead_letter_topic(&common.topic)),
            topic_create: args.topic_create,
            topics: Plan {
                topic: common.topic.clone(),
                dead_letter_topic: Some(args.dead_letter_topic(&common.topic)),
                partitions: args.topic_partitions,
            },
            pause_above: args.pause_above,
            resume_below: args.resume_below,
            buffer_bytes: args.buffer_bytes as u64,
            membership: args.membership.membership(),
            commit_interval: args.commit_interval,
            dead_letter_max_share: args.flood.dead_letter_max_share,
            policy,
        }
    }
}
