//! The subcommands: look at dead letters, send them back, repair them, remove them.

mod ask;
mod export;
mod import;
mod list;
mod purge;
mod redrive;
mod show;
mod stats;

use std::sync::Arc;

use kafka::{Client, ClientConfig};
use service::Usage;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::moment::now_ms;

pub use export::ExportArgs;
pub use import::ImportArgs;
pub use list::ListArgs;
pub use purge::PurgeArgs;
pub use redrive::{DEFAULT_NAME, RedriveArgs, progress_group};
pub use show::{At, ShowArgs};
pub use stats::StatsArgs;

/// What to do instead of running the service.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// List letters, the newest last; without coordinates, and driver ids only as hashes
    List(ListArgs),
    /// Count letters by reason, group, hour and partition
    Stats(StatsArgs),
    /// Show everything about one letter, personal data included
    Show(ShowArgs),
    /// Send originals back to their topic, each once
    Redrive(RedriveArgs),
    /// Write letters as JSON lines, personal data included, for repair by hand
    Export(ExportArgs),
    /// Send repaired letters back, from the JSON lines of export
    Import(ImportArgs),
    /// Remove letters for good; asks first
    Purge(PurgeArgs),
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one JSON document.
    Json,
}

impl Command {
    /// Checks the flags against each other, before the first socket is opened.
    ///
    /// # Errors
    /// The flag to blame.
    pub fn check(&self, dead_letter_topic: &str) -> Result<(), Usage> {
        let filter = match self {
            Self::List(args) => &args.filter,
            Self::Stats(args) => &args.filter,
            Self::Redrive(args) => {
                refuse_circle(args.to.as_deref(), dead_letter_topic)?;
                &args.filter
            }
            Self::Export(args) => &args.filter,
            Self::Import(args) => return refuse_circle(args.to.as_deref(), dead_letter_topic),
            Self::Show(_) | Self::Purge(_) => return Ok(()),
        };
        filter.check(now_ms())
    }
}

fn refuse_circle(to: Option<&str>, dead_letter_topic: &str) -> Result<(), Usage> {
    match to {
        Some(to) if to == dead_letter_topic => Err(Usage::new(
            "--to",
            to,
            "is the dead letter topic itself: what is sent there would come back as letters",
        )),
        _ => Ok(()),
    }
}

/// What a command works on.
pub(crate) struct Desk {
    pub(crate) client: Client,
    /// The topic that the originals are of.
    pub(crate) topic: Arc<str>,
    pub(crate) dead_letter_topic: Arc<str>,
    pub(crate) shutdown: CancellationToken,
}

impl Desk {
    pub(crate) fn new(config: ClientConfig, topic: &str, dead_letter_topic: &str, shutdown: CancellationToken) -> Self {
        Self { client: Client::new(config), topic: topic.into(), dead_letter_topic: dead_letter_topic.into(), shutdown }
    }

    /// Carries out a command. One that sends ends by itself after a signal; any other is dropped where it is.
    pub(crate) async fn run(self, command: Command) -> Result<(), Error> {
        match command {
            Command::Redrive(args) => Box::pin(redrive::run(&self, args)).await,
            Command::Import(args) => Box::pin(import::run(&self, args)).await,
            Command::List(args) => self.until_interrupted(list::run(&self, args)).await,
            Command::Stats(args) => self.until_interrupted(stats::run(&self, args)).await,
            Command::Show(args) => self.until_interrupted(show::run(&self, args)).await,
            Command::Export(args) => self.until_interrupted(export::run(&self, args)).await,
            Command::Purge(args) => self.until_interrupted(purge::run(&self, args)).await,
        }
    }

    async fn until_interrupted(&self, work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        let done = self.shutdown.run_until_cancelled(work).await;
        done.unwrap_or_else(|| Err(Error::Refused("interrupted".to_owned())))
    }
}
