//! The subcommands: single tasks on the history, for its operator.

use std::fmt;
use std::str::FromStr;

use event::DriverId;
use kafka::Offset;

use crate::timestamp::Timestamp;

/// What to do instead of running the service.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Look at the offsets that the database keeps, or set them to read records again
    #[command(subcommand, arg_required_else_help = false)]
    Offsets(OffsetsCommand),
    /// Remove a driver from the history. Records of the driver that Kafka still keeps come back when they are read again
    Erase(EraseArgs),
}

/// What to do with the offsets.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum OffsetsCommand {
    /// Show the offsets of --group and --topic beside Kafka's, partition by partition
    Show,
    /// Set the offsets of --group and --topic; refused while members of the group live
    Set(SetArgs),
}

/// How to set offsets.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Where to go on: earliest, latest, an offset, or a time such as 2026-11-23T21:00:00Z (the first record that Kafka
    /// got then or later). Rows of records that are read again are there twice, unless --truncate-from removes them
    #[arg(long, value_name = "WHERE", required_unless_present = "truncate_from")]
    pub to: Option<Target>,

    /// Only these partitions, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "truncate_from")]
    pub partitions: Vec<i32>,

    /// In the same transaction remove the rows with this ts or a later one. Without --to, reading goes on with the first
    /// record that Kafka got at that time or later; either way each record is stored once in the end
    #[arg(long, value_name = "TIME")]
    pub truncate_from: Option<Timestamp>,

    /// Do not ask before rows are removed
    #[arg(long)]
    pub yes: bool,
}

/// Whom to erase.
#[derive(Debug, Clone, clap::Args)]
pub struct EraseArgs {
    /// The driver's id
    #[arg(long, value_name = "ID", value_parser = driver_id)]
    pub driver: DriverId,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Where to go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The first record that Kafka still keeps.
    Earliest,
    /// Behind the last record.
    Latest,
    /// An offset.
    At(Offset),
    /// The first record that Kafka got at this time or later.
    Time(Timestamp),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => match text.parse::<i64>() {
                Ok(offset) if offset >= 0 => Ok(Self::At(Offset(offset))),
                _ => text
                    .parse()
                    .map(Self::Time)
                    .map_err(|error: String| format!("give earliest, latest, an offset or a time; for a time {error}")),
            },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::At(offset) => offset.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

fn driver_id(text: &str) -> Result<DriverId, String> {
    DriverId::try_from(text).map_err(|reason| reason.explanation().to_owned())
}
