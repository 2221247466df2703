//! How batches are made: flags that every writer has, each writer with defaults, limits and words of its own.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::freshness::Freshness;
use crate::settings::Policy;

const BATCH_BYTES_MIN: u64 = 16 << 10;
const BATCH_BYTES_MAX: u64 = 64 << 20;
const FETCH_LIMIT: u64 = 1 << 20;

/// A flag's default, as one would type it, and what `--help` says of it.
#[derive(Debug, Clone, Copy)]
pub struct FlagText {
    /// What the flag is when it is not given.
    pub default: &'static str,
    /// One line, with the limits.
    pub help: &'static str,
}

/// What a writer says of its [`BatchArgs`].
pub trait BatchProfile: fmt::Debug + Clone + 'static {
    /// `--group`
    const GROUP: FlagText;
    /// `--batch-max`, in records.
    const BATCH_MAX: FlagText;
    /// The most that `--batch-max` may be.
    const BATCH_LIMIT: u64;
    /// `--linger-max`
    const LINGER_MAX: FlagText;
    /// The most that `--linger-max` may be.
    const LINGER_LIMIT: Duration;
    /// `--writers`
    const WRITERS: FlagText;
    /// The default of `--fetch-min-bytes`.
    const FETCH_MIN_BYTES: &'static str;
}

/// How batches are made.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pipeline options")]
pub struct BatchArgs<P: BatchProfile> {
    /// The consumer group.
    #[arg(long, value_name = "GROUP", help = P::GROUP.help, default_value = P::GROUP.default, value_parser = service::group_name)]
    pub group: String,

    /// Records of one batch.
    #[arg(long, value_name = "RECORDS", help = P::BATCH_MAX.help, default_value = P::BATCH_MAX.default,
          value_parser = clap::value_parser!(u64).range(1..=P::BATCH_LIMIT))]
    pub batch_max: u64,

    /// Bytes of one batch, as Kafka holds them, 16KiB to 64MiB; it is full with these or with --batch-max records. Batches
    /// of the producer stay whole, so it may be larger by one of those
    #[arg(long, value_name = "BYTES", default_value = "4MiB", value_parser = service::bytes(BATCH_BYTES_MIN..=BATCH_BYTES_MAX))]
    pub batch_bytes: usize,

    /// How long records may wait for others to share their batch, while records are coming in.
    #[arg(long, value_name = "DURATION", help = P::LINGER_MAX.help, default_value = P::LINGER_MAX.default,
          value_parser = service::duration(Duration::ZERO..=P::LINGER_LIMIT))]
    pub linger_max: Duration,

    /// Batches written at a time.
    #[arg(long, value_name = "N", help = P::WRITERS.help, default_value = P::WRITERS.default,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub writers: u8,

    /// Bytes that a broker gathers for one answer while records are coming in, 1B to 1MiB
    #[arg(long, value_name = "BYTES", default_value = P::FETCH_MIN_BYTES, value_parser = service::bytes(1..=FETCH_LIMIT))]
    pub fetch_min_bytes: usize,

    #[arg(skip)]
    profile: PhantomData<P>,
}

impl<P: BatchProfile> BatchArgs<P> {
    /// The policy that these flags ask for.
    pub fn policy(&self, freshness: Option<Freshness>) -> Policy {
        Policy {
            group: self.group.clone(),
            batch_max: self.batch_max,
            batch_bytes: self.batch_bytes as u64,
            linger_max: self.linger_max,
            writers: self.writers.into(),
            fetch_min_bytes: i32::try_from(self.fetch_min_bytes).unwrap_or(i32::MAX),
            freshness,
        }
    }
}
