//! What a person sees while it runs: a line each second, and under them a progress bar where there is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::generator::LiveCounts;
use crate::sampler::Sample;
use crate::table::{grouped, grouped_or_dash, measured};

/// A rate over less than this says nothing: the first sample comes with the start.
const SHORTEST_S: f64 = 0.5;
/// Refreshes of the bar per second: it shares the machine with what is measured.
const REFRESH_HZ: u8 = 4;

/// Where lines go.
#[derive(Debug, Clone)]
pub enum Screen {
    /// A terminal: lines above a bar.
    Terminal(ProgressBar),
    /// A file or a pipe: lines alone.
    Plain,
}

impl Screen {
    /// The screen that standard output is.
    #[must_use]
    pub fn open() -> Self {
        if !io::stdout().is_terminal() {
            return Self::Plain;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout_with_hz(REFRESH_HZ));
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self::Terminal(bar)
    }

    /// Shows a line for good.
    pub fn line(&self, text: &str) {
        match self {
            Self::Terminal(bar) => bar.println(text),
            // Whoever closes the pipe does not want to read on; the run and its report go on.
            Self::Plain => drop(writeln!(io::stdout(), "{text}")),
        }
    }

    /// Shows how far the run is, and what it does at the moment.
    pub fn progress(&self, done: Duration, whole: Duration, doing: &str) {
        if let Self::Terminal(bar) = self {
            bar.set_length(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX));
            bar.set_position(u64::try_from(done.as_millis()).unwrap_or(u64::MAX));
            bar.set_message(doing.to_owned());
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Self::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// The line of one second: rates are of the time since the sample before.
#[must_use]
pub fn second(sample: &Sample, before: &Sample, doing: &str) -> String {
    let seconds = sample.at.saturating_sub(before.at).as_secs_f64();
    let rate = |counter: fn(&LiveCounts) -> u64| {
        let count = counter(&sample.load).saturating_sub(counter(&before.load));
        if seconds >= SHORTEST_S { grouped((count as f64 / seconds).round() as u64) } else { "0".to_owned() }
    };
    format!(
        "{:>4} s  {doing:<12}  offered {:>6}/s  accepted {:>6}/s{}  lag redis {:>6}  analytics {:>7}  staleness p99 {:>6} ms  dead letters {}",
        sample.at.as_secs(),
        rate(|load| load.offered),
        rate(|load| load.accepted),
        troubles(&sample.load),
        grouped_or_dash(sample.lags.redis),
        grouped_or_dash(sample.lags.analytics),
        measured(sample.staleness_p99_ms, 0),
        grouped_or_dash(sample.lags.dead_letters),
    )
}

fn troubles(load: &LiveCounts) -> String {
    match (load.refused, load.failed) {
        (0, 0) => String::new(),
        (refused, failed) => format!("  refused {} failed {}", grouped(refused), grouped(failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Lags;

    #[test]
    fn a_second_shows_rates_and_says_what_is_unknown() {
        let before = Sample { at: Duration::from_secs(11), ..Sample::default() };
        let sample = Sample {
            at: Duration::from_secs(12),
            load: LiveCounts { offered: 5_000, accepted: 4_990, ..LiveCounts::default() },
            lags: Lags { redis: Some(1_200), analytics: None, dead_letters: Some(94) },
            staleness_p99_ms: Some(63.7),
            ..Sample::default()
        };
        let line = second(&sample, &before, "base-5000");
        for part in [
            "12 s",
            "offered  5,000/s",
            "accepted  4,990/s",
            "lag redis  1,200",
            "analytics       -",
            "p99     64 ms",
            "letters 94",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("refused"));
    }
}
