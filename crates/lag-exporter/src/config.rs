//! The flags of lag-exporter.

use std::time::Duration;

use service::{CommonArgs, Config, Usage, duration, format_duration};

use crate::selection::Pattern;

const INTERVAL_MIN: Duration = Duration::from_millis(250);
const INTERVAL_MAX: Duration = Duration::from_mins(5);
const STALE_AFTER_MAX: Duration = Duration::from_hours(1);
/// Of the interval: one failed collection is no gap in the graphs.
const STALE_AFTER_FACTOR: u32 = 3;

/// Flags of lag-exporter.
#[derive(Debug, Clone, clap::Parser)]
pub struct Flags {
    /// Groups to export, separated by commas; * stands for any characters. A group that is named in full and has never
    /// been seen lags by all that --topic holds
    #[arg(long, value_name = "GROUP,…", default_value = "*", value_delimiter = ',', value_parser = crate::selection::pattern)]
    pub groups: Vec<Pattern>,

    /// Time from one collection to the next, 250ms to 5m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration(INTERVAL_MIN..=INTERVAL_MAX))]
    pub interval: Duration,

    /// Age at which lag that cannot be read again is withdrawn, --interval to 1h [default: 3 × --interval]
    #[arg(long, value_name = "DURATION", value_parser = duration(INTERVAL_MIN..=STALE_AFTER_MAX))]
    pub stale_after: Option<Duration>,

    /// The flags that every service has; last, since their help heading would hold for what follows.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Flags {
    /// `--stale-after`, or what stands for it.
    pub(crate) fn stale_after(&self) -> Duration {
        self.stale_after.unwrap_or(self.interval * STALE_AFTER_FACTOR)
    }
}

impl Config for Flags {
    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn check(&self) -> Result<(), Usage> {
        match self.stale_after {
            Some(age) if age < self.interval => {
                let interval = format_duration(self.interval);
                let remedy =
                    format!("give at least the --interval ({interval}), or the lag vanishes between collections");
                Err(Usage::new("--stale-after", format_duration(age), remedy))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use service::{Stop, parse};

    use super::Flags;
    use crate::INFO;

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
    }

    #[test]
    fn a_bad_value_names_flag_value_and_remedy() {
        let cases = [
            (vec!["--interval", "100ms"], "--interval 100ms: give 250ms to 5m"),
            (vec!["--interval", "6m"], "--interval 6m: give 250ms to 5m"),
            (vec!["--stale-after", "1s"], "--stale-after 1s: give at least the --interval (5s)"),
            (vec!["--groups", ""], "--groups '': give names of groups"),
        ];
        for (args, expected) in cases {
            let Err(Stop::Usage(usage)) = parsed(&args) else { panic!("{args:?} was taken") };
            assert!(usage.to_string().starts_with(expected), "{usage}");
        }
    }
}
