//! From readings to the share of the full load that is asked for.
//!
//! Time lag rises by (load / capacity − 1) seconds a second. Working on the logarithm of the share makes that the same
//! for every capacity. Two things make up for delays: the slope of the lag, since phones hear of a new interval only with
//! their next answer, and the wait that a record arriving now has before it, since time lag itself tells of arrivals that
//! are as long ago as it is high.

use super::slot::STRETCH_MAX;

/// A reading older than this says nothing any more.
const READING_LIFE_MS: u64 = 10_000;
/// Lag below this is the everyday one of commits and readings; so much is never stretched for.
const LAG_FREE_S: f64 = 1.0;
/// Where a stretch that has begun ends again: hysteresis, or phones would hear of every ripple.
const LAG_CALM_S: f64 = 0.6;
/// Share lost for each second of lag, as a logarithm.
const GAIN: f64 = 0.2;
/// How far ahead the slope of the lag is looked.
const LOOK_AHEAD_S: f64 = 4.0;
/// A slope is held to this: a writer that leaps over what has expired is not a trend.
const SLOPE_MAX: f64 = 1.0;
/// Weight of the newest slope, and of the newest rate of processing.
const SLOPE_WEIGHT: f64 = 0.4;
const RATE_WEIGHT: f64 = 0.6;
/// How far ahead the wait is looked, as a share of itself: the longer it is, the longer are the intervals in which phones
/// hear of a change.
const WAIT_AHEAD_SHARE: f64 = 0.3;
const WAIT_AHEAD_MAX_S: f64 = 5.0;
/// The wait may call for less than the time lag does, but time lag keeps this share of its say: a rate is a guess.
const LAG_SAY: f64 = 0.3;
/// The stretch changes by no more than this a second, so that a single reading cannot move everyone.
const RISE_PER_S: f64 = 1.0;
const FALL_PER_S: f64 = 0.35;
/// The smallest share that intervals alone can reach.
const SHARE_STRETCHED: f64 = 1.0 / STRETCH_MAX as f64;
/// The smallest share of all: at the longest interval two turns in five are shed as well.
const SHARE_MIN: f64 = SHARE_STRETCHED * 0.6;
/// The stretch beyond the longest interval that stands for shedding every turn.
const SHED_ALL: f64 = 2.0;
/// Buffers and places: from here on they stretch, and at this fullness all the way.
const FULLNESS_FREE: f64 = 0.5;
const FULLNESS_MAX: f64 = 0.9;
/// Kafka's acknowledgement time, in seconds: the same.
const ACK_FREE_S: f64 = 1.0;
const ACK_MAX_S: f64 = 4.0;
/// Stretch in steps of 1/32: what is published, so that replicas agree about nearly every driver.
const STEPS: f64 = 32.0;

/// One reading of the groups that count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupLag {
    /// Age of the oldest record that the worst of the groups has not processed, in seconds.
    pub time_lag_s: f64,
    /// Records that wait to be processed.
    pub waiting: u64,
    /// Records processed since some fixed moment; only differences count.
    pub processed: u64,
    /// When this was read, in milliseconds of the caller's clock.
    pub read_at_ms: u64,
}

impl GroupLag {
    /// Whether it still says anything: a reading older than 10 s does not.
    #[must_use]
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.read_at_ms) <= READING_LIFE_MS
    }
}

/// Everything that is known at a moment. What is not known stays out of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signals {
    /// None until a reading has succeeded.
    pub group: Option<GroupLag>,
    /// Kafka's acknowledgement time of late, in seconds; None while nothing was sent.
    pub ack_s: Option<f64>,
    /// The fullest of this process's bounded places, 0 to 1.
    pub fullness: f64,
}

/// How far drivers are stretched, in steps of 1/32 above 1: to 128 it is an interval, from there to 154 turns are shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steps {
    /// What drivers are told.
    pub told: u8,
    /// What they are held to, never more than they are told: the lag of the groups alone. What is full in the process itself is
    /// refused by its own limits, and is over at once when Kafka is back.
    pub held: u8,
}

/// Decides the stretch from readings; one for each process.
#[derive(Debug, Clone)]
pub struct Controller {
    held: Slew,
    told: Slew,
    last: Option<GroupLag>,
    slope: f64,
    rate: Option<f64>,
    wait_slope: f64,
    is_calm: bool,
}

impl Default for Controller {
    fn default() -> Self {
        Self::new()
    }
}

impl Controller {
    /// Calm.
    #[must_use]
    pub fn new() -> Self {
        Self {
            held: Slew::default(),
            told: Slew::default(),
            last: None,
            slope: 0.0,
            rate: None,
            wait_slope: 0.0,
            is_calm: true,
        }
    }

    /// Takes note of the present signals and answers with the stretch.
    pub fn step(&mut self, now_ms: u64, signals: &Signals) -> Steps {
        let group = signals.group.filter(|group| group.is_fresh(now_ms));
        let (lag, process) = (self.share_for_lag(group), share_for_process(signals));
        if group.is_none() {
            // Blind: nobody is refused for what was known before.
            self.held.stretch = 1.0;
        }
        if group.is_none() && process >= 1.0 {
            self.told.stretch = 1.0;
        }
        self.held.approach(now_ms, stretch_of(lag));
        self.told.approach(now_ms, stretch_of(lag.min(process)));
        let (held, told) = (steps(self.held.stretch), steps(self.told.stretch));
        Steps { told: told.max(held), held }
    }

    /// Unknown is never a reason: what is missing or old asks for the full load.
    fn share_for_lag(&mut self, group: Option<GroupLag>) -> f64 {
        let Some(group) = group else {
            (self.last, self.slope, self.rate, self.is_calm) = (None, 0.0, None, true);
            return 1.0;
        };
        self.learn(group);
        let ahead_s = group.time_lag_s + LOOK_AHEAD_S * self.slope;
        let excess = ahead_s.min(self.wait_ahead_s(group)).max(LAG_SAY * group.time_lag_s);
        // Calm → stretched and back, at two marks.
        self.is_calm = excess < if self.is_calm { LAG_FREE_S } else { LAG_CALM_S };
        if self.is_calm { 1.0 } else { (-GAIN * (excess - LAG_CALM_S)).exp().clamp(SHARE_MIN, 1.0) }
    }

    /// How long a record that arrives now will wait; for ever while nothing is processed.
    fn wait_s(&self, group: GroupLag) -> f64 {
        self.rate.map_or(f64::INFINITY, |rate| group.waiting as f64 / rate)
    }

    /// The same, looked ahead: it rises by what comes in beyond what is processed.
    fn wait_ahead_s(&self, group: GroupLag) -> f64 {
        let wait_s = self.wait_s(group);
        if wait_s.is_finite() {
            wait_s + (WAIT_AHEAD_SHARE * wait_s).min(WAIT_AHEAD_MAX_S) * self.wait_slope
        } else {
            wait_s
        }
    }

    fn learn(&mut self, group: GroupLag) {
        let Some(last) = self.last.replace(group) else { return };
        if group.read_at_ms <= last.read_at_ms {
            return;
        }
        let seconds = (group.read_at_ms - last.read_at_ms) as f64 / 1_000.0;
        let slope = ((group.time_lag_s - last.time_lag_s) / seconds).clamp(-SLOPE_MAX, SLOPE_MAX);
        self.slope += SLOPE_WEIGHT * (slope - self.slope);
        let grown = (group.waiting as f64 - last.waiting as f64) / seconds;
        let rate = group.processed.saturating_sub(last.processed) as f64 / seconds;
        self.rate = Some(self.rate.map_or(rate, |before| before + RATE_WEIGHT * (rate - before)));
        let wait_slope = self.rate.map_or(0.0, |rate| grown / rate);
        if wait_slope.is_finite() {
            self.wait_slope += SLOPE_WEIGHT * (wait_slope.clamp(-SLOPE_MAX, SLOPE_MAX) - self.wait_slope);
        }
    }
}

/// A stretch that follows its target no faster than phones and readings do.
#[derive(Debug, Clone)]
struct Slew {
    stretch: f64,
    stepped_at_ms: Option<u64>,
}

impl Default for Slew {
    fn default() -> Self {
        Self { stretch: 1.0, stepped_at_ms: None }
    }
}

impl Slew {
    fn approach(&mut self, now_ms: u64, target: f64) {
        let since = self.stepped_at_ms.replace(now_ms).map_or(1_000, |before| now_ms.saturating_sub(before));
        let seconds = since.min(5_000) as f64 / 1_000.0;
        self.stretch +=
            (target - self.stretch).clamp(-FALL_PER_S * self.stretch * seconds, RISE_PER_S * self.stretch * seconds);
    }
}

fn share_for_process(signals: &Signals) -> f64 {
    let fullness = ramp(signals.fullness, FULLNESS_FREE, FULLNESS_MAX);
    let ack = signals.ack_s.map_or(1.0, |seconds| ramp(seconds, ACK_FREE_S, ACK_MAX_S));
    fullness.min(ack)
}

/// The full share up to `free`, the smallest from `max` on.
fn ramp(value: f64, free: f64, max: f64) -> f64 {
    1.0 - ((value - free) / (max - free)).clamp(0.0, 1.0) * (1.0 - SHARE_STRETCHED)
}

/// The stretch by which drivers together send this share: between two whole stretches some have one, some the other.
fn stretch_of(share: f64) -> f64 {
    if share < SHARE_STRETCHED {
        return STRETCH_MAX as f64 + SHED_ALL * (1.0 - share / SHARE_STRETCHED);
    }
    let whole = (1.0 / share).floor().clamp(1.0, STRETCH_MAX as f64);
    let longer = (1.0 / whole - share) * whole * (whole + 1.0);
    (whole + longer).clamp(1.0, STRETCH_MAX as f64)
}

fn steps(stretch: f64) -> u8 {
    ((stretch - 1.0) * STEPS).round().clamp(0.0, f64::from(u8::MAX)) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lag(time_lag_s: f64, read_at_ms: u64) -> Signals {
        let group = GroupLag { time_lag_s, waiting: 1_000, processed: 0, read_at_ms };
        Signals { group: Some(group), ..Signals::default() }
    }

    /// The steps after so many seconds of the same lag.
    fn settled(time_lag_s: f64) -> u8 {
        let mut controller = Controller::new();
        (0..60).map(|second| controller.step(second * 1_000, &lag(time_lag_s, second * 1_000)).held).last().unwrap()
    }

    #[test]
    fn more_lag_stretches_more_and_never_beyond_ten_seconds() {
        assert_eq!((settled(0.0), settled(0.9)), (0, 0));
        let stretches: Vec<_> = [1.5, 3.0, 5.0, 8.0, 12.0].map(settled).to_vec();
        assert!(stretches.is_sorted() && stretches[0] > 0, "{stretches:?}");
        assert_eq!((settled(60.0), settled(1e9)), (154, 154));
    }

    #[test]
    fn a_share_and_its_stretch_are_the_same_load() {
        for (share, stretch) in [(1.0, 1.0), (0.75, 1.5), (0.5, 2.0), (1.0 / 3.0, 3.0), (0.2, 5.0), (0.12, 5.8)] {
            assert!((stretch_of(share) - stretch).abs() < 1e-9, "{share}: {}", stretch_of(share));
        }
    }

    #[test]
    fn an_unknown_or_old_reading_asks_for_nothing() {
        let mut controller = Controller::new();
        for second in 0..30 {
            controller.step(second * 1_000, &lag(20.0, second * 1_000));
        }
        let old = lag(20.0, 29_000);
        assert!(controller.step(39_000, &old).held > 0);
        assert_eq!(controller.step(39_001, &old), Steps::default());
        assert_eq!(Controller::new().step(0, &Signals::default()), Steps::default());
    }

    #[test]
    fn a_full_process_stretches_even_when_blind() {
        let settled = |signals: Signals| {
            let mut controller = Controller::new();
            let steps = (0..60).map(|second| controller.step(second * 1_000, &signals)).last().unwrap();
            assert_eq!(steps.held, 0, "told, and refused by the limits themselves");
            steps.told
        };
        let full = |fullness| settled(Signals { fullness, ..Signals::default() });
        assert_eq!((full(0.0), full(0.5), full(0.9), full(1.0)), (0, 0, 128, 128));
        assert!(full(0.7) > 0 && full(0.7) < 128);
        let slow = |ack| settled(Signals { ack_s: Some(ack), ..Signals::default() });
        assert_eq!((slow(0.02), slow(1.0), slow(4.0)), (0, 0, 128));
    }

    #[test]
    fn a_lag_between_the_marks_leaves_things_as_they_are() {
        assert_eq!(settled(0.8), 0);
        let mut controller = Controller::new();
        let mut now = 0;
        let mut go = |from: f64, to: f64, seconds: u64| {
            let mut steps = 0;
            for second in 0..seconds {
                now += 1_000;
                steps = controller.step(now, &lag(from + (to - from) * second as f64 / seconds as f64, now)).held;
            }
            steps
        };
        assert!(go(3.0, 0.8, 120) > 0, "between the marks a stretch stays");
        assert!(go(0.8, 0.8, 30) > 0, "and stays");
        assert_eq!(go(0.5, 0.5, 30), 0);
    }

    proptest! {
        #[test]
        fn any_readings_keep_it_within_its_bounds(readings in prop::collection::vec((any::<f64>(), 0..20_000_u64, 0..3_000_u64), 0..100)) {
            let mut controller = Controller::new();
            let mut now = 0;
            for (lag_s, age, passed) in readings {
                now += passed;
                let lag_s = if lag_s.is_finite() { lag_s } else { 0.0 };
                let steps = controller.step(now, &lag(lag_s, now.saturating_sub(age)));
                prop_assert!(steps.held <= steps.told && steps.told <= 154);
            }
        }
    }
}
