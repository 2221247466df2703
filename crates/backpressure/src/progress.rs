//! Whether a consumer keeps up, judged over a window of samples: rates, time to drain, and a verdict.
//!
//! | verdict | when, over the whole window |
//! |---|---|
//! | rewound | a position was set back |
//! | stopped | something waits and nothing was processed, and nobody is there to do it |
//! | stalled | something waits in a part that has not moved, though somebody is there (or it is not known who is) |
//! | falling behind | the lag was never 0 and has grown, from the first third of the window to the last |
//! | ok | none of these |
//! | unknown | the samples do not cover the window yet, or the lag of the newest is not known |
//!
//! The first that holds is the verdict. "Rewound", and "ok" for a consumer without lag, need no full window.

use std::collections::VecDeque;
use std::time::Duration;

/// Samples that a window is made of, at most: more often than that they stand for each other.
const MAX_SAMPLES: u32 = 128;
/// Growth of the lag that is the rise and fall of batches and no trend: this part of what was produced meanwhile.
const NOISE_SHARE: u64 = 20;
/// Of the window that samples must cover to speak for all of it: their clock is not exact.
const COVERED_PERCENT: u32 = 95;

/// How a consumer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It keeps up, or gains on what it is behind.
    Ok,
    /// It works, and what waits grows.
    FallingBehind,
    /// Something waits and does not move, though somebody is there.
    Stalled,
    /// Something waits and nobody is there.
    Stopped,
    /// A position was set back: the lag is somebody's decision.
    Rewound,
    /// Not enough is known.
    Unknown,
}

impl Verdict {
    /// All of them, in the order of their names' use in metrics.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::FallingBehind, Self::Stalled, Self::Stopped, Self::Rewound, Self::Unknown];

    /// Its name as a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FallingBehind => "falling_behind",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
            Self::Rewound => "rewound",
            Self::Unknown => "unknown",
        }
    }
}

/// What is seen of a consumer at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// When, since any fixed moment.
    pub at: Duration,
    /// What waits; `None` when it is not known.
    pub lag: Option<u64>,
    /// All that it has processed so far, counted from any start.
    pub consumed: u64,
    /// All that was put before it so far, counted from any start.
    pub produced: u64,
    /// For how long the part that has waited longest has not moved; zero when no part waits.
    pub stuck_for: Duration,
    /// Who is there to process; `None` when it is not known.
    pub members: Option<usize>,
    /// Whether a position was set back since the last sight.
    pub rewound: bool,
}

/// A window over what is seen of a consumer.
#[derive(Debug, Clone)]
pub struct Progress {
    window: Duration,
    sights: VecDeque<Sight>,
}

impl Progress {
    /// Judges over `window`.
    #[must_use]
    pub fn over(window: Duration) -> Self {
        Self { window, sights: VecDeque::new() }
    }

    /// Takes note of what is seen. Times must not go back; one that does starts the window anew.
    pub fn observe(&mut self, sight: Sight) {
        if self.sights.back().is_some_and(|last| last.at > sight.at) {
            self.sights.clear();
        }
        // The one before the window's beginning stays: with it the samples cover all of it.
        let begins = sight.at.saturating_sub(self.window);
        while self.sights.get(1).is_some_and(|second| second.at <= begins) {
            self.sights.pop_front();
        }
        match self.sights.len() {
            0 | 1 => self.sights.push_back(sight),
            len => {
                let spacing = self.window / MAX_SAMPLES;
                let before_last = self.sights[len - 2].at;
                if sight.at - before_last < spacing {
                    let rewound = self.sights.pop_back().is_some_and(|replaced| replaced.rewound);
                    self.sights.push_back(Sight { rewound: rewound || sight.rewound, ..sight });
                } else {
                    self.sights.push_back(sight);
                }
            }
        }
    }

    /// How the consumer is doing; see the module for the rules.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Some(newest) = self.sights.back() else { return Verdict::Unknown };
        if self.sights.iter().any(|sight| sight.rewound) {
            return Verdict::Rewound;
        }
        match newest.lag {
            None => Verdict::Unknown,
            Some(0) => Verdict::Ok,
            Some(_) if !self.is_covered() => Verdict::Unknown,
            Some(_) => self.verdict_with_lag(newest),
        }
    }

    fn verdict_with_lag(&self, newest: &Sight) -> Verdict {
        let is_stuck = newest.stuck_for >= self.window * COVERED_PERCENT / 100;
        let nothing_moved = self.consumed() == 0;
        match newest.members {
            Some(0) if is_stuck && nothing_moved => Verdict::Stopped,
            _ if is_stuck => Verdict::Stalled,
            _ if self.falls_behind() => Verdict::FallingBehind,
            _ => Verdict::Ok,
        }
    }

    /// The least lag of a third is what batches and commits leave of it at their best: noise does not move that.
    fn falls_behind(&self) -> bool {
        let Some((first, last)) = self.ends() else { return false };
        let third = (last.at - first.at) / 3;
        let least = |from: Duration, to: Duration| {
            let within = self.sights.iter().filter(|sight| sight.at >= from && sight.at <= to);
            within.filter_map(|sight| sight.lag).min()
        };
        let (Some(early), Some(late)) = (least(first.at, first.at + third), least(last.at - third, last.at)) else {
            return false;
        };
        let was_never_done = self.sights.iter().all(|sight| sight.lag != Some(0));
        was_never_done && late > early && late - early > self.produced() / NOISE_SHARE
    }

    /// Processed a second over the window; `None` without two samples.
    #[must_use]
    pub fn consumption_rate(&self) -> Option<f64> {
        self.rate(self.consumed())
    }

    /// Put before the consumer a second over the window; `None` without two samples.
    #[must_use]
    pub fn production_rate(&self) -> Option<f64> {
        self.rate(self.produced())
    }

    /// Seconds until nothing waits, should both rates stay; `None` while the lag does not shrink or is not known.
    #[must_use]
    pub fn drain_seconds(&self) -> Option<f64> {
        let lag = self.sights.back()?.lag?;
        if lag == 0 {
            return Some(0.0);
        }
        let gain = self.consumption_rate()? - self.production_rate()?;
        #[expect(clippy::cast_precision_loss, reason = "a lag of 2^53 records is no more")]
        (gain > 0.0).then(|| lag as f64 / gain)
    }

    fn is_covered(&self) -> bool {
        self.ends().is_some_and(|(first, last)| last.at - first.at >= self.window * COVERED_PERCENT / 100)
    }

    fn ends(&self) -> Option<(&Sight, &Sight)> {
        self.sights.front().zip(self.sights.back())
    }

    fn consumed(&self) -> u64 {
        self.ends().map_or(0, |(first, last)| last.consumed.saturating_sub(first.consumed))
    }

    fn produced(&self) -> u64 {
        self.ends().map_or(0, |(first, last)| last.produced.saturating_sub(first.produced))
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 records a window are no more")]
    fn rate(&self, count: u64) -> Option<f64> {
        let (first, last) = self.ends()?;
        let seconds = (last.at - first.at).as_secs_f64();
        (seconds > 0.0).then(|| count as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    /// A consumer seen every five seconds for `seconds`, by what `sight` makes of the second.
    fn seen(seconds: u64, sight: impl Fn(u64) -> Sight) -> Progress {
        let mut progress = Progress::over(WINDOW);
        (0..=seconds).step_by(5).for_each(|second| progress.observe(sight(second)));
        progress
    }

    fn sight(second: u64, lag: u64, consumed: u64) -> Sight {
        Sight {
            at: Duration::from_secs(second),
            lag: Some(lag),
            consumed,
            produced: lag + consumed,
            stuck_for: Duration::ZERO,
            members: Some(3),
            rewound: false,
        }
    }

    fn stuck(second: u64, members: Option<usize>) -> Sight {
        Sight { stuck_for: Duration::from_secs(second), members, ..sight(second, 10 + second, 500) }
    }

    #[test]
    fn each_verdict_has_its_rule() {
        type Rule = fn(u64) -> Sight;
        let cases: [(&str, u64, Rule, Verdict); 16] = [
            ("no lag, at once", 0, |s| sight(s, 0, 0), Verdict::Ok),
            ("lag, first sample", 0, |s| sight(s, 9, 0), Verdict::Unknown),
            ("lag, half a window", 30, |s| sight(s, 9, s), Verdict::Unknown),
            ("steady lag of a busy group", 120, |s| sight(s, 900, 1_000 * s), Verdict::Ok),
            ("the lag of batches rises and falls", 120, |s| sight(s, 500 + 400 * (s % 2), 1_000 * s), Verdict::Ok),
            ("catching up", 120, |s| sight(s, 100_000 - 100 * s, 1_000 * s), Verdict::Ok),
            ("ever more waits", 120, |s| sight(s, 1_000 + 200 * s, 1_000 * s), Verdict::FallingBehind),
            (
                "ever more, and it was done in between",
                120,
                |s| sight(s, if s == 90 { 0 } else { 200 * s }, 99 * s),
                Verdict::Ok,
            ),
            ("a little more, within noise", 120, |s| sight(s, 1_000 + s, 1_000 * s), Verdict::Ok),
            ("nothing moves, somebody is there", 120, |s| stuck(s, Some(2)), Verdict::Stalled),
            ("nothing moves, it is not known who is there", 120, |s| stuck(s, None), Verdict::Stalled),
            ("nothing moves, nobody is there", 120, |s| stuck(s, Some(0)), Verdict::Stopped),
            ("nobody is there, and somebody commits", 120, |s| sight(s, 9, 10 * s), Verdict::Ok),
            (
                "one part does not move, the others do",
                120,
                |s| Sight { consumed: 7 * s, ..stuck(s, Some(2)) },
                Verdict::Stalled,
            ),
            ("set back", 30, |s| Sight { rewound: s == 10, ..sight(s, 9, 0) }, Verdict::Rewound),
            ("the lag is not known", 120, |s| Sight { lag: None, ..sight(s, 0, 0) }, Verdict::Unknown),
        ];
        for (name, seconds, rule, expected) in cases {
            assert_eq!(seen(seconds, rule).verdict(), expected, "{name}");
        }
    }

    #[test]
    fn a_verdict_ends_with_the_window_that_it_was_made_of() {
        let rewound = |second| Sight { rewound: second == 10, ..sight(second, 9, second) };
        assert_eq!(seen(65, rewound).verdict(), Verdict::Rewound);
        assert_eq!(seen(80, rewound).verdict(), Verdict::Ok);
        let behind = |second: u64| sight(second, if second < 100 { 100 * (second + 1) } else { 0 }, second);
        assert_eq!(seen(95, behind).verdict(), Verdict::FallingBehind);
        assert_eq!(seen(100, behind).verdict(), Verdict::Ok);
    }

    #[test]
    fn rates_are_those_of_the_window() {
        // 10 a second for a minute, then 30 a second.
        let consumed = |second: u64| if second <= 60 { 10 * second } else { 600 + 30 * (second - 60) };
        let progress = seen(120, |second| sight(second, 0, consumed(second)));
        assert_eq!(progress.consumption_rate(), Some(30.0));
        assert_eq!(seen(0, |second| sight(second, 0, 0)).consumption_rate(), None);
    }

    #[test]
    fn the_time_to_drain_is_the_lag_over_the_gain() {
        let gains = seen(60, |second| sight(second, 10_000 - 100 * second, 150 * second));
        assert_eq!((gains.consumption_rate(), gains.production_rate()), (Some(150.0), Some(50.0)));
        assert_eq!(gains.drain_seconds(), Some(40.0));
        assert_eq!(seen(60, |second| sight(second, 10 + second, 0)).drain_seconds(), None, "it does not shrink");
        assert_eq!(seen(0, |second| sight(second, 0, 0)).drain_seconds(), Some(0.0));
    }

    #[test]
    fn samples_are_bounded_however_often_it_is_looked() {
        let mut progress = Progress::over(WINDOW);
        for tick in 0..100_000_u64 {
            progress.observe(Sight { at: Duration::from_millis(10 * tick), ..sight(0, 9, tick) });
        }
        assert!(progress.sights.len() <= 2 * usize::try_from(MAX_SAMPLES).unwrap(), "{}", progress.sights.len());
        assert_eq!(progress.consumption_rate().unwrap().round(), 100.0);
    }

    #[test]
    fn a_clock_that_goes_back_starts_the_window_anew() {
        let mut progress = seen(120, |second| stuck(second, Some(1)));
        progress.observe(sight(3, 9, 0));
        assert_eq!(progress.verdict(), Verdict::Unknown);
    }
}
