//! The flags of dlt-monitor.

use pipeline::PipelineArgs;
use service::{CommonArgs, Config, Usage};

/// Flags of dlt-monitor as a service.
#[derive(Debug, Clone, clap::Parser)]
pub struct Flags {
    /// Consumer group that reads the dead letters
    #[arg(long, value_name = "GROUP", default_value = "driver-location-dlt-monitor", value_parser = service::group_name)]
    pub group: String,

    /// The flags of every pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,

    /// The flags that every service has; last, since their help heading would hold for what follows.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Config for Flags {
    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn check(&self) -> Result<(), Usage> {
        self.pipeline.check()
    }
}
