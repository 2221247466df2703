//! Who may send now, and when next: readings go into the controller, requests ask the valve. See docs/backpressure.md.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backpressure::admission::{Controller, Decision, DriverHash, DriverRate, GroupLag, Signals, Valve};
use event::DriverId;
use tracing::{info, warn};

use crate::config::Args;
use crate::kafka::lag::{Reader, Verdict};
use crate::problem::Problem;
use crate::routes::now_ms;

/// How often the groups' lag is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// A reading that takes longer is none.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How often the stretch is decided: what is full in the process must be noticed within a slot.
const STEP_EVERY: Duration = Duration::from_millis(250);

/// Admission of one process.
pub(crate) struct Admission {
    valve: Valve,
    rate: Option<DriverRate>,
    group: Mutex<Option<GroupLag>>,
    verdict: AtomicU8,
    lag_ms: AtomicI64,
    acks: Acks,
}

/// What metrics show of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// None while it is unknown.
    pub(crate) time_lag_s: Option<f64>,
    pub(crate) verdict: Verdict,
    pub(crate) interval_ms: u64,
    /// Stretch in steps of 1/32 above 1.
    pub(crate) steps: u8,
}

impl Admission {
    pub(crate) fn new(args: &Args) -> Self {
        let burst = u32::try_from(args.max_batch_positions).unwrap_or(u32::MAX);
        let rate = |per_second| DriverRate::new(per_second, burst, args.admission_drivers, clock_ms());
        Self {
            valve: Valve::new(args.admission_drivers),
            rate: (args.max_driver_rate > 0).then(|| rate(args.max_driver_rate)),
            group: Mutex::new(None),
            verdict: AtomicU8::new(Verdict::Unknown as u8),
            lag_ms: AtomicI64::new(-1),
            acks: Acks::default(),
        }
    }

    /// Takes one of the positions that a driver may send.
    pub(crate) fn take_item(&self, driver: DriverHash, now_ms: u64) -> Result<(), Problem> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.take(driver, now_ms).map_err(|wait_ms| Problem::TooManyItems { wait_ms })
    }

    /// Whether it is this driver's turn, and when the next one is.
    pub(crate) fn turn(&self, driver: DriverHash, now_ms: u64) -> Result<u64, Problem> {
        match self.valve.decide(driver, now_ms) {
            Decision::Take { next_ms } => Ok(next_ms),
            Decision::Early { next_ms } => Err(Problem::TooEarly { next_ms }),
        }
    }

    /// Both for one position: calm, and without a limit for drivers, not even a hash is needed.
    pub(crate) fn decide_one(&self, driver: &DriverId, now_ms: i64) -> Result<u64, Problem> {
        if self.is_open() {
            return Ok(self.valve.interval_ms());
        }
        let (driver, now_ms) = (DriverHash::of(driver.as_str().as_bytes()), u64::try_from(now_ms).unwrap_or_default());
        self.take_item(driver, now_ms)?;
        self.turn(driver, now_ms)
    }

    /// Whether every driver may send anything at any time.
    pub(crate) fn is_open(&self) -> bool {
        self.rate.is_none() && self.valve.is_calm()
    }

    /// The interval of the moment, for senders of whom no driver is known.
    pub(crate) fn interval_ms(&self) -> u64 {
        self.valve.interval_ms()
    }

    /// Takes note of how long Kafka took to acknowledge.
    pub(crate) fn acknowledged(&self, after: Duration) {
        self.acks.add(after);
    }

    pub(crate) fn shown(&self) -> Shown {
        let lag_ms = self.lag_ms.load(Ordering::Relaxed);
        Shown {
            time_lag_s: (lag_ms >= 0).then_some(lag_ms as f64 / 1_000.0),
            verdict: Verdict::ALL
                .into_iter()
                .find(|verdict| *verdict as u8 == self.verdict.load(Ordering::Relaxed))
                .unwrap_or(Verdict::Unknown),
            interval_ms: self.valve.interval_ms(),
            steps: self.valve.steps(),
        }
    }

    /// Reads the groups' lag for ever.
    pub(crate) async fn follow(&self, mut reader: Reader) {
        if !reader.has_groups() {
            return;
        }
        let mut every = tokio::time::interval(READ_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            // What could not be read leaves the last reading to grow old; it is never taken for "no lag".
            if let Ok(Some(reading)) = tokio::time::timeout(READ_LIMIT, reader.read(clock_ms())).await {
                *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading.group);
                self.verdict.store(reading.verdict as u8, Ordering::Relaxed);
            }
        }
    }

    /// Decides the stretch for ever; `fullness` tells how full the fullest of the process's places is.
    pub(crate) async fn regulate(&self, fullness: impl Fn() -> f64) {
        let mut controller = Controller::new();
        let mut every = tokio::time::interval(STEP_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_calm = true;
        loop {
            every.tick().await;
            let now = clock_ms();
            let group = *self.group.lock().unwrap_or_else(PoisonError::into_inner);
            let group = group.filter(|group| group.is_fresh(now));
            let steps = controller.step(now, &Signals { group, ack_s: self.acks.mean_s(), fullness: fullness() });
            self.valve.set(now, steps);
            self.show(group);
            if is_calm != (steps.told == 0) {
                is_calm = steps.told == 0;
                say(is_calm, group);
            }
        }
    }

    fn show(&self, group: Option<GroupLag>) {
        let lag_ms = group.map_or(-1, |group| (group.time_lag_s * 1_000.0) as i64);
        self.lag_ms.store(lag_ms, Ordering::Relaxed);
        if group.is_none() {
            self.verdict.store(Verdict::Unknown as u8, Ordering::Relaxed);
        }
    }
}

fn say(is_calm: bool, group: Option<GroupLag>) {
    let time_lag_s = group.map(|group| group.time_lag_s);
    if is_calm {
        info!(time_lag_s, "drivers send every 2 s again");
    } else {
        warn!(time_lag_s, "drivers are told to send less often");
    }
}

fn clock_ms() -> u64 {
    u64::try_from(now_ms()).unwrap_or_default()
}

/// Kafka's acknowledgement time: summed up by requests, averaged when it is asked for.
#[derive(Debug, Default)]
struct Acks {
    count: AtomicU64,
    micros: AtomicU64,
}

impl Acks {
    fn add(&self, after: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(after.as_micros()).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Of those since the last call; None when there were none.
    fn mean_s(&self) -> Option<f64> {
        let (count, micros) = (self.count.swap(0, Ordering::Relaxed), self.micros.swap(0, Ordering::Relaxed));
        (count > 0).then(|| micros as f64 / count as f64 / 1e6)
    }
}
