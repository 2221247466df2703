//! What the generator was told, by event and by stage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::pool::{Flight, Heard};
use crate::ledger::{Ledger, Outcome};
use crate::plan::{Plan, Post};
use crate::request::Shape;
use crate::response::BatchAnswer;

/// Longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 120_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// Everything that a generator knows when it has ended.
#[derive(Debug)]
pub struct Told {
    /// Each event and what became of it.
    pub ledger: Ledger,
    /// One entry for each stage of the plan, and a last one for what was answered after its end.
    pub stages: Vec<StageTold>,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    pub(super) totals: Counts,
    plan: Arc<Plan>,
    shape: Shape,
}

/// One stage. Counts go by the moment of the answer, so that they are rates that the server kept up;
/// latencies go by the intended moment of the event.
#[derive(Debug)]
pub struct StageTold {
    /// Events answered while the stage lasted.
    pub counts: Counts,
    /// Microseconds from an event's intended moment to its acceptance.
    pub ack_us: Histogram<u64>,
}

/// Events by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered with success.
    pub accepted: u64,
    /// Answered with a refusal.
    pub refused: u64,
    /// Not answered: in Kafka or not.
    pub unknown: u64,
    /// Not sent in time.
    pub never_sent: u64,
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Accepted => self.accepted += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Unknown => self.unknown += 1,
            Outcome::NeverSent => self.never_sent += 1,
            Outcome::Pending => {}
        }
    }
}

impl Told {
    pub(super) fn new(plan: Arc<Plan>, shape: Shape) -> Self {
        let stage = || StageTold {
            counts: Counts::default(),
            ack_us: Histogram::new_with_max(LATENCY_MAX_US, LATENCY_DIGITS).expect("bounds are in order"),
        };
        let stages = (0..=plan.stages().len()).map(|_| stage()).collect();
        Self {
            ledger: Ledger::with_capacity(usize::try_from(plan.events()).unwrap_or(usize::MAX)),
            stages,
            statuses: BTreeMap::new(),
            totals: Counts::default(),
            plan,
            shape,
        }
    }

    /// Notes the end of a flight.
    pub(super) fn hear(&mut self, flight: &Flight, heard: &Heard<'_>, now: Duration) {
        let Heard::Answer { status, body } = heard else {
            return self.settle_all(flight, Outcome::Unknown, now);
        };
        *self.statuses.entry(*status).or_default() += 1;
        match status {
            // The answer to an array comes item by item; one that cannot be read says nothing about them.
            200..=299 if self.shape == Shape::Batch => match BatchAnswer::parse(body, flight.post.events) {
                Some(answer) => self.settle_items(flight, &answer, now),
                None => self.settle_all(flight, Outcome::Unknown, now),
            },
            200..=299 => self.settle_all(flight, Outcome::Accepted, now),
            _ => self.settle_all(flight, Outcome::Refused, now),
        }
    }

    fn settle_items(&mut self, flight: &Flight, answer: &BatchAnswer, now: Duration) {
        let mut refused = answer.rejected.iter().map(|item| item.index).collect::<Vec<_>>();
        refused.sort_unstable();
        for item in 0..flight.post.events {
            let accepted = refused.binary_search(&(item as usize)).is_err();
            let outcome = if accepted { Outcome::Accepted } else { Outcome::Refused };
            self.settle(flight.first, &flight.post, item, outcome, now);
        }
    }

    fn settle_all(&mut self, flight: &Flight, outcome: Outcome, now: Duration) {
        for item in 0..flight.post.events {
            self.settle(flight.first, &flight.post, item, outcome, now);
        }
    }

    /// Notes that the events of `post`, entered from number `first`, were not sent in time.
    pub(super) fn never_sent(&mut self, first: usize, post: &Post, now: Duration) {
        for item in 0..post.events {
            self.settle(first, post, item, Outcome::NeverSent, now);
        }
    }

    fn settle(&mut self, first: usize, post: &Post, item: u32, outcome: Outcome, now: Duration) {
        self.ledger.settle(first + item as usize, outcome);
        self.totals.add(outcome);
        self.stages[self.plan.stage_at(now)].counts.add(outcome);
        if outcome == Outcome::Accepted {
            let latency = now.saturating_sub(self.plan.moment(post.stage, post.index + u64::from(item)));
            let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US);
            self.stages[post.stage].ack_us.saturating_record(micros);
        }
    }
}
