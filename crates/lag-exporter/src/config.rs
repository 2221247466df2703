//! The flags of lag-exporter.

use std::time::Duration;

use service::{CommonArgs, Config, Usage, duration, format_duration, number};

use crate::collect::{Owners, Selection};
use crate::compat::Compat;
use crate::history::Settings;
use crate::once::Output;
use crate::pair::{Rules, Uncommitted};
use crate::selection::Pattern;
use crate::snapshot::{PerPartition, Shown};

const INTERVAL_MIN: Duration = Duration::from_millis(250);
const INTERVAL_MAX: Duration = Duration::from_mins(5);
const STALE_AFTER_MAX: Duration = Duration::from_hours(1);
const WINDOW_MIN: Duration = Duration::from_secs(5);
const WINDOW_MAX: Duration = Duration::from_hours(1);
/// Of the interval: one failed collection is no gap in the graphs.
const STALE_AFTER_FACTOR: u32 = 3;
/// Of the interval: a window of fewer samples shows no trend.
const WINDOW_FACTOR: u32 = 3;
const MAX_SERIES: std::ops::RangeInclusive<usize> = 100..=10_000_000;
/// How far a clock and a collection may shift a sample, beside the interval.
const TOLERANCE: Duration = Duration::from_millis(100);

/// Flags of lag-exporter.
#[derive(Debug, Clone, clap::Parser)]
#[command(subcommand_negates_reqs = true)]
pub struct Flags {
    /// What to do instead of exporting.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Groups to export, separated by commas; * stands for any characters, ! before a name leaves it out. A group that is
    /// named in full and has never been seen lags by all that --topic holds
    #[arg(long, value_name = "GROUP,…", default_value = "*", value_delimiter = ',', value_parser = crate::selection::pattern)]
    pub groups: Vec<Pattern>,

    /// Topics to export, in the same way; those that are named in full also when no group consumes them
    #[arg(long, value_name = "TOPIC,…", default_value = "*", value_delimiter = ',', value_parser = crate::selection::pattern)]
    pub topics: Vec<Pattern>,

    /// Time from one collection to the next, 250ms to 5m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration(INTERVAL_MIN..=INTERVAL_MAX))]
    pub interval: Duration,

    /// Age at which lag that cannot be read again is withdrawn, --interval to 1h [default: 3 × --interval]
    #[arg(long, value_name = "DURATION", value_parser = duration(INTERVAL_MIN..=STALE_AFTER_MAX))]
    pub stale_after: Option<Duration>,

    /// What rates and verdicts are taken over, 3 × --interval to 1h
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration(WINDOW_MIN..=WINDOW_MAX))]
    pub window: Duration,

    /// What a group lags by on a partition that it has never committed; the group's auto.offset.reset decides what it will do
    #[arg(long, value_name = "RESET", default_value = "earliest")]
    pub uncommitted: Uncommitted,

    /// Whether each partition has series of its own
    #[arg(long, value_name = "SWITCH", default_value = "on")]
    pub per_partition: PerPartition,

    /// Most series of groups and topics, 100 to 10000000; what is beyond is left out, whole groups at a time, and counted
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = number(MAX_SERIES))]
    pub max_series: usize,

    /// Exporters whose metrics are exported as well, under their names and labels, separated by commas
    #[arg(long, value_name = "EXPORTER,…", value_delimiter = ',')]
    pub compat: Vec<Compat>,

    /// Label cluster_name of the metrics of --compat kafka-lag-exporter
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub cluster_name: String,

    /// The flags that every service has; last, since their help heading would hold for what follows.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What to do instead of exporting.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Show the lag of --groups once, as kafka-consumer-groups --describe does, with seconds and rates
    Once(OnceArgs),
}

/// How to show it.
#[derive(Debug, Clone, clap::Args)]
pub struct OnceArgs {
    /// Form of the answer
    #[arg(long, value_name = "FORM", default_value = "table")]
    pub output: Output,

    /// Show it again every --interval, until interrupted
    #[arg(long)]
    pub watch: bool,
}

impl Flags {
    /// `--stale-after`, or what stands for it.
    pub(crate) fn stale_after(&self) -> Duration {
        self.stale_after.unwrap_or(self.interval * STALE_AFTER_FACTOR)
    }

    pub(crate) fn settings(&self) -> Settings {
        let tolerance = self.interval + TOLERANCE;
        let tolerance_ms = i64::try_from(tolerance.as_millis()).unwrap_or(i64::MAX);
        let rules = Rules { uncommitted: self.uncommitted, tolerance_ms };
        Settings { rules, stale_after: self.stale_after(), window: self.window }
    }

    pub(crate) fn selection(&self) -> Selection {
        let matters = self.command.is_some() || self.compat.contains(&Compat::KafkaLagExporter);
        Selection {
            groups: self.groups.clone(),
            topics: self.topics.clone(),
            topic: self.common.topic.clone(),
            owners: if matters { Owners::Read } else { Owners::Skip },
        }
    }

    pub(crate) fn shown(&self) -> Shown {
        let mut compat = self.compat.clone();
        compat.dedup();
        Shown {
            per_partition: self.per_partition,
            max_series: self.max_series,
            compat,
            cluster_name: self.cluster_name.clone(),
        }
    }
}

impl Config for Flags {
    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn is_task(&self) -> bool {
        self.command.is_some()
    }

    fn port_taken(&self) -> u8 {
        service::exit::USAGE
    }

    fn check(&self) -> Result<(), Usage> {
        let interval = format_duration(self.interval);
        if let Some(age) = self.stale_after.filter(|age| *age < self.interval) {
            let remedy = format!("give at least the --interval ({interval}), or the lag vanishes between collections");
            return Err(Usage::new("--stale-after", format_duration(age), remedy));
        }
        if self.window < self.interval * WINDOW_FACTOR {
            let remedy = format!("give at least three times the --interval ({interval}), or it shows no trend");
            return Err(Usage::new("--window", format_duration(self.window), remedy));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use service::{Stop, parse};

    use super::{Command, Flags};
    use crate::INFO;
    use crate::compat::Compat;

    fn parsed(args: &[&str]) -> Result<Flags, Stop> {
        parse(&INFO, std::iter::once("lag-exporter").chain(args.iter().copied()))
    }

    #[test]
    fn defaults_work_against_localhost() {
        let flags = parsed(&[]).unwrap();
        assert_eq!(flags.interval, Duration::from_secs(5));
        assert_eq!(flags.stale_after(), Duration::from_secs(15));
        assert_eq!(flags.common.brokers, ["127.0.0.1:9092"]);
        assert_eq!(flags.common.metrics_listen.port(), 9105);
        assert!(flags.compat.is_empty() && flags.command.is_none());
    }

    #[test]
    fn flags_may_stand_before_the_subcommand_or_behind_it() {
        for args in [&["--groups", "g", "once", "--watch"][..], &["once", "--watch", "--groups", "g"]] {
            let flags = parsed(args).unwrap();
            assert!(matches!(flags.command, Some(Command::Once(ref once)) if once.watch), "{args:?}");
            assert_eq!(flags.groups[0].exact(), Some("g"), "{args:?}");
        }
    }

    #[test]
    fn exporters_are_told_by_name() {
        let flags = parsed(&["--compat", "kafka-exporter,kafka-lag-exporter"]).unwrap();
        assert_eq!(flags.compat, [Compat::KafkaExporter, Compat::KafkaLagExporter]);
    }

    #[test]
    fn a_bad_value_names_flag_value_and_remedy() {
        let cases = [
            (vec!["--interval", "100ms"], "--interval 100ms: give 250ms to 5m"),
            (vec!["--interval", "6m"], "--interval 6m: give 250ms to 5m"),
            (vec!["--interval", "5"], "--interval 5: give 250ms to 5m"),
            (vec!["--stale-after", "1s"], "--stale-after 1s: give at least the --interval (5s)"),
            (vec!["--window", "10s"], "--window 10s: give at least three times the --interval (5s)"),
            (vec!["--groups", ""], "--groups '': give names, separated by commas"),
            (vec!["--groups", "a,^b.+$"], "--groups ^b.+$: ^ has no meaning here: only * is special"),
            (vec!["--topics", "!*"], "--topics !*: leaves nothing"),
            (vec!["--compat", "burrow"], "--compat burrow: allowed: kafka-exporter, kafka-lag-exporter"),
            (vec!["--max-series", "1"], "--max-series 1: give 100 to 10000000"),
            (vec!["--per-partition", "yes"], "--per-partition yes: allowed: on, off"),
            (vec!["once", "--output", "xml"], "--output xml: allowed: table, json"),
        ];
        for (args, expected) in cases {
            let Err(Stop::Usage(usage)) = parsed(&args) else { panic!("{args:?} was taken") };
            assert!(usage.to_string().starts_with(expected), "{usage}");
        }
    }
}
