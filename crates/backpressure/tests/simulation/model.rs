//! The whole loop in small: phones, replicas with their own clocks, Kafka as a queue, and a sink that is too slow.
//!
//! What is real here is the admission itself; the rest is as simple as it can be and still be late in the right places:
//! lag is read once a second, an interval is heard of one interval later, the network takes its time.

use std::collections::VecDeque;

use backpressure::admission::{Controller, Decision, DriverHash, GroupLag, Signals, Valve};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) const PHONES: usize = 50_000;
/// Positions a second that all phones together send when nothing stretches them.
pub(crate) const NEEDED_PER_S: f64 = PHONES as f64 / 2.0;
const TICK_MS: u64 = 50;
const CALM_MS: u64 = 2_000;
/// When the sink becomes slow.
pub(crate) const SLOW_FROM_S: usize = 30;
/// How long a full stop lasts.
pub(crate) const STOP_S: usize = 60;
/// The network's round trip, in milliseconds.
const ROUND_TRIP_MS: std::ops::RangeInclusive<u64> = 20..=200;
/// The clocks of four replicas, half a second apart at most.
const SKEW_MS: [u64; 4] = [0, 500, 170, 330];
/// The writer leaps over what is older than a position's life on the map.
const LIFE_MS: u64 = 30_000;
/// A position is on the map for as long as it is younger than this.
pub(crate) const SEEN_WITHIN_MS: u64 = 15_000;
/// Most records that the writer takes at a time; of a driver's it writes the newest.
const BATCH_MAX: usize = 12_500;
const START_MS: u64 = 1_795_441_680_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phones {
    /// Send when they are told to.
    Obedient,
    /// Send every two seconds, whatever they are told.
    Stubborn,
    /// Every other one.
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sink {
    /// Takes this share of what is needed, from [`SLOW_FROM_S`] on.
    Share(f64),
    /// Takes nothing for [`STOP_S`], then everything again.
    Stop,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) phones: Phones,
    pub(crate) sink: Sink,
    /// 0 for none: everything is accepted.
    pub(crate) replicas: usize,
}

/// What one second looked like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Second {
    /// At its end.
    pub(crate) time_lag_s: f64,
    /// Mean of the replicas, 1 to 5.
    pub(crate) stretch: f64,
    /// Accepted, as a share of what is needed.
    pub(crate) accepted: f64,
    /// Refused as early, as a share of what is needed.
    pub(crate) refused: f64,
    /// Share of drivers whose position on the map is younger than [`SEEN_WITHIN_MS`].
    pub(crate) seen: f64,
    /// The same of the obedient ones alone.
    pub(crate) obedient_seen: f64,
}

struct Replica {
    valve: Valve,
    controller: Controller,
    skew_ms: u64,
    /// Within each second, when it reads the lag.
    reads_at_ms: u64,
}

/// Kafka and the sink: what waits, what the writer has taken, and what readers see.
struct Queue {
    waiting: VecDeque<(u64, u32)>,
    batch: VecDeque<(u64, u32)>,
    /// The last place of each phone in the batch that is put together.
    last_in_batch: Vec<u32>,
    on_map: Vec<u64>,
    credit: f64,
    processed: u64,
}

impl Queue {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            batch: VecDeque::new(),
            last_in_batch: vec![0; PHONES],
            on_map: vec![0; PHONES],
            credit: 0.0,
            processed: 0,
        }
    }

    fn put(&mut self, phone: u32, now: u64) {
        self.waiting.push_back((now, phone));
    }

    fn drain(&mut self, now: u64, capacity: f64) {
        // What a tick did not use is lost; what it overdrew is owed.
        self.credit = self.credit.min(0.0) + capacity;
        while self.credit > 0.0 {
            if self.batch.is_empty() {
                self.take(now);
            }
            let Some((at, phone)) = self.batch.pop_front() else { break };
            self.credit -= 1.0;
            self.processed += 1;
            self.on_map[phone as usize] = at;
        }
    }

    fn take(&mut self, now: u64) {
        while self.waiting.front().is_some_and(|(at, _)| now - at > LIFE_MS) {
            self.waiting.pop_front();
            self.processed += 1;
        }
        let taken: Vec<_> = self.waiting.drain(..self.waiting.len().min(BATCH_MAX)).collect();
        for (place, (_, phone)) in taken.iter().enumerate() {
            self.last_in_batch[*phone as usize] = place as u32;
        }
        for (place, (at, phone)) in taken.into_iter().enumerate() {
            match self.last_in_batch[phone as usize] as usize == place {
                true => self.batch.push_back((at, phone)),
                false => self.processed += 1,
            }
        }
    }

    fn waiting(&self) -> u64 {
        (self.waiting.len() + self.batch.len()) as u64
    }

    fn time_lag_s(&self, now: u64) -> f64 {
        let oldest = self.batch.front().or(self.waiting.front());
        oldest.map_or(0.0, |(at, _)| (now - at) as f64 / 1_000.0)
    }
}

/// Plays a case, second by second.
pub(crate) fn play(case: Case, seconds: usize) -> Vec<Second> {
    let mut rng = SmallRng::seed_from_u64(17);
    let hashes: Vec<_> = (0..PHONES).map(|phone| DriverHash::of(format!("driver-{phone}").as_bytes())).collect();
    let mut replicas: Vec<_> = (0..case.replicas).map(replica).collect();
    let mut queue = Queue::new();
    // A calendar: who sends in which tick. Nobody waits longer than ten seconds and a round trip.
    let mut calendar: Vec<Vec<u32>> = vec![Vec::new(); 512];
    for phone in 0..PHONES as u32 {
        calendar[rng.random_range(0..CALM_MS / TICK_MS) as usize].push(phone);
    }
    let mut report = Vec::with_capacity(seconds);
    for second in 0..seconds {
        let (mut accepted, mut refused) = (0_u64, 0_u64);
        for tick in 0..1_000 / TICK_MS {
            let index = second as u64 * 1_000 / TICK_MS + tick;
            let now = START_MS + index * TICK_MS;
            for replica in &mut replicas {
                if now % 1_000 == replica.reads_at_ms {
                    replica.read(now, &queue);
                }
            }
            for phone in std::mem::take(&mut calendar[index as usize % 512]) {
                let decision = match replicas.len() {
                    0 => Decision::Take { next_ms: CALM_MS },
                    // A load balancer knows nothing of phones.
                    count => replicas[rng.random_range(0..count)].decide(hashes[phone as usize], now),
                };
                match decision {
                    Decision::Take { .. } => {
                        accepted += 1;
                        queue.put(phone, now);
                    }
                    Decision::Early { .. } => refused += 1,
                }
                let wait = if is_obedient(case.phones, phone) {
                    decision.next_ms() + rng.random_range(ROUND_TRIP_MS)
                } else {
                    CALM_MS
                };
                calendar[(index + wait / TICK_MS) as usize % 512].push(phone);
            }
            queue.drain(now, capacity(case.sink, second) * NEEDED_PER_S * TICK_MS as f64 / 1_000.0);
        }
        let now = START_MS + (second as u64 + 1) * 1_000;
        let steps: f64 = replicas.iter().map(|replica| f64::from(replica.valve.steps())).sum();
        report.push(Second {
            time_lag_s: queue.time_lag_s(now),
            stretch: 1.0 + steps / 32.0 / replicas.len().max(1) as f64,
            accepted: accepted as f64 / NEEDED_PER_S,
            refused: refused as f64 / NEEDED_PER_S,
            seen: seen(&queue, now, |_| true),
            obedient_seen: seen(&queue, now, |phone| is_obedient(case.phones, phone)),
        });
    }
    report
}

fn replica(number: usize) -> Replica {
    let reads_at_ms = number as u64 * 250;
    Replica { valve: Valve::new(PHONES * 2), controller: Controller::new(), skew_ms: SKEW_MS[number], reads_at_ms }
}

impl Replica {
    fn decide(&self, driver: DriverHash, now: u64) -> Decision {
        self.valve.decide(driver, now + self.skew_ms)
    }

    fn read(&mut self, now: u64, queue: &Queue) {
        let (time_lag_s, waiting) = (queue.time_lag_s(now), queue.waiting());
        let now = now + self.skew_ms;
        let group = GroupLag { time_lag_s, waiting, processed: queue.processed, read_at_ms: now };
        let steps = self.controller.step(now, &Signals { group: Some(group), ..Signals::default() });
        self.valve.set(now, steps);
    }
}

fn is_obedient(phones: Phones, phone: u32) -> bool {
    match phones {
        Phones::Obedient => true,
        Phones::Stubborn => false,
        Phones::Mixed => phone.is_multiple_of(2),
    }
}

fn capacity(sink: Sink, second: usize) -> f64 {
    match sink {
        _ if second < SLOW_FROM_S => 1.05,
        Sink::Share(share) => share,
        Sink::Stop if second < SLOW_FROM_S + STOP_S => 0.0,
        Sink::Stop => 1.0,
    }
}

fn seen(queue: &Queue, now: u64, of: impl Fn(u32) -> bool) -> f64 {
    let (mut seen, mut all) = (0_u32, 0_u32);
    for (phone, at) in queue.on_map.iter().enumerate() {
        if of(phone as u32) {
            all += 1;
            seen += u32::from(now.saturating_sub(*at) <= SEEN_WITHIN_MS);
        }
    }
    if all == 0 { 1.0 } else { f64::from(seen) / f64::from(all) }
}
