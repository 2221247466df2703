//! The flags of dlt-monitor.

use pipeline::PipelineArgs;
use service::{CommonArgs, Config, Usage};

use crate::command::{Command, DEFAULT_NAME};

/// Flags of dlt-monitor.
#[derive(Debug, Clone, clap::Parser)]
pub struct Flags {
    /// Consumer group that reads the dead letters
    #[arg(long, value_name = "GROUP", default_value = "driver-location-dlt-monitor", value_parser = service::group_name)]
    pub group: String,

    /// Name of the redrive whose progress says which letters still wait (dlt_letters_waiting)
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    pub redrive_name: String,

    /// The flags of every pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,

    /// The flags that every service has; last, since their help heading would hold for what follows.
    #[command(flatten)]
    pub common: CommonArgs,

    /// A command instead of the service.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Config for Flags {
    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn is_task(&self) -> bool {
        self.command.is_some()
    }

    fn check(&self) -> Result<(), Usage> {
        if let Some(command) = &self.command {
            command.check(&self.pipeline.dead_letter_topic(&self.common.topic))?;
        }
        if let Some(share) = self.pipeline.flood.dead_letter_max_share {
            return Err(Usage::new(
                "--dead-letter-max-share",
                share,
                "is for the writers: nothing becomes a letter here",
            ));
        }
        self.pipeline.check()
    }
}
