//! What a body becomes: events in Kafka, and the answer to the phone.

use std::collections::{HashMap, HashSet};

use backpressure::admission::DriverHash;
use bytes::Bytes;
use event::{DriverLocation, Invalid, Submission};
use tokio::time::Instant;

use crate::auth::Grant;
use crate::kafka::{Acknowledgement, Unpublished};
use crate::problem::Problem;
use crate::routes::App;

/// Room for an answer without rejected positions.
const ANSWER_BYTES: usize = 64;

/// One position: in Kafka when this returns Ok. Answers with when to send next, in milliseconds.
pub(crate) async fn single(app: &App, body: Bytes, times: Times<'_>) -> Result<u64, Problem> {
    let event = app.accept(Submission::from_json(&body), times)?;
    drop(body);
    if !times.allows(&event) {
        return Err(Problem::ForbiddenDriver);
    }
    let decision = app.admission.decide_one(&event.driver_id, times.received_at_ms);
    let next_ms = decision.inspect_err(|_| app.metrics.refused.increment(1))?;
    let _place = app.limits.request()?;
    let started = Instant::now();
    let outcome = match app.publisher.publish(&event) {
        Ok(acknowledgement) => acknowledgement.await,
        Err(unpublished) => Err(unpublished),
    };
    app.count(outcome)?;
    app.acknowledged(started);
    Ok(next_ms)
}

/// Many positions, each with an outcome of its own.
pub(crate) async fn many(
    app: &App,
    items: impl Iterator<Item = Result<Submission<'_>, Invalid>>,
    times: Times<'_>,
) -> Result<Report, Problem> {
    let mut turns = Turns::new(app, times);
    let events: Vec<_> = items.map(|item| turns.admit(app.accept(item, times)?)).collect();
    let mut report = Report { next_ms: turns.next_ms(), ..Report::default() };
    if events.iter().any(Result::is_ok) {
        let _place = app.limits.request()?;
        publish(app, events, &mut report).await;
    } else {
        events.into_iter().enumerate().for_each(|(index, item)| report.add(index, item.map(drop)));
    }
    report.check()
}

async fn publish(app: &App, events: Vec<Result<DriverLocation, Rejection>>, report: &mut Report) {
    let started = Instant::now();
    // All are handed over before the first is waited for: they share requests to Kafka.
    let sent: Vec<_> = events.into_iter().map(|event| event.map(|event| app.publisher.publish(&event))).collect();
    for (index, item) in sent.into_iter().enumerate() {
        report.add(index, settle(app, item).await);
    }
    if report.accepted > 0 {
        app.acknowledged(started);
    }
}

async fn settle(app: &App, item: Result<Result<Acknowledgement, Unpublished>, Rejection>) -> Result<(), Rejection> {
    let outcome = match item? {
        Ok(acknowledgement) => acknowledgement.await,
        Err(unpublished) => Err(unpublished),
    };
    app.count(outcome).map_err(Rejection::Unpublished)
}

/// What a request says of itself: the moments that decide a position's effective time, and for whom it may speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times<'a> {
    /// Our clock when the body was there.
    pub(crate) received_at_ms: i64,
    /// The request's `Date` header.
    pub(crate) date_ms: Option<i64>,
    /// What the sender's token is good for; None while none is asked for.
    pub(crate) grant: Option<&'a Grant>,
}

impl Times<'_> {
    fn allows(&self, event: &DriverLocation) -> bool {
        self.grant.is_none_or(|grant| grant.covers(event.driver_id.as_str()))
    }
}

impl App {
    /// Checks a position and counts what was found.
    fn accept(&self, position: Result<Submission<'_>, Invalid>, times: Times<'_>) -> Result<DriverLocation, Invalid> {
        let accepted = position.and_then(|position| position.accept(times.received_at_ms, times.date_ms));
        let (event, note) = accepted.inspect_err(|invalid| self.metrics.rejected(invalid.reason))?;
        for (happened, counter) in [
            (note.corrected, &self.metrics.corrected),
            (note.clamped, &self.metrics.clamped),
            (event.is_late(), &self.metrics.late),
        ] {
            if happened {
                counter.increment(1);
            }
        }
        Ok(event)
    }

    fn count(&self, outcome: Result<(), Unpublished>) -> Result<(), Unpublished> {
        match outcome {
            Ok(()) => self.metrics.accepted.increment(1),
            Err(_) => self.metrics.unacknowledged.increment(1),
        }
        outcome
    }

    fn acknowledged(&self, started: Instant) {
        let after = started.elapsed();
        self.metrics.ack_seconds.record(after);
        self.admission.acknowledged(after);
    }
}

/// The drivers of one request: each has one turn for all of its positions here, and each moment only once.
struct Turns<'a> {
    app: &'a App,
    times: Times<'a>,
    now_ms: u64,
    /// Nothing is asked of admission while it would say yes to everyone.
    is_open: bool,
    seen: HashSet<(u64, i64)>,
    decided: HashMap<u64, Result<u64, Problem>>,
}

impl<'a> Turns<'a> {
    fn new(app: &'a App, times: Times<'a>) -> Self {
        Self {
            app,
            times,
            now_ms: u64::try_from(times.received_at_ms).unwrap_or_default(),
            is_open: app.admission.is_open(),
            seen: HashSet::new(),
            decided: HashMap::new(),
        }
    }

    fn admit(&mut self, event: DriverLocation) -> Result<DriverLocation, Rejection> {
        if !self.times.allows(&event) {
            return Err(Rejection::Forbidden);
        }
        let driver = DriverHash::of(event.driver_id.as_str().as_bytes());
        if !self.seen.insert((driver.bits(), event.timestamp_ms)) {
            self.app.metrics.duplicates.increment(1);
            return Err(Rejection::Duplicate);
        }
        if self.is_open {
            return Ok(event);
        }
        self.decide(driver).map(|()| event).inspect_err(|_| self.app.metrics.refused.increment(1))
    }

    fn decide(&mut self, driver: DriverHash) -> Result<(), Rejection> {
        let (admission, now_ms) = (&self.app.admission, self.now_ms);
        // The limit of a driver counts positions, its turn counts requests.
        admission.take_item(driver, now_ms).map_err(Rejection::Refused)?;
        let turn = self.decided.entry(driver.bits()).or_insert_with(|| admission.turn(driver, now_ms));
        turn.as_ref().map(|_| ()).map_err(|problem| Rejection::Refused(problem.clone()))
    }

    /// A phone's own interval, or the mean one for a sender of many drivers.
    fn next_ms(&self) -> u64 {
        match self.decided.values().next() {
            Some(only) if self.decided.len() == 1 => match only {
                Ok(next_ms) => *next_ms,
                Err(problem) => problem.wait_ms().unwrap_or_else(|| self.app.admission.interval_ms()),
            },
            _ => self.app.admission.interval_ms(),
        }
    }
}

/// Why one item of a batch is not in Kafka.
#[derive(Debug)]
enum Rejection {
    /// Sending it again cannot help.
    Invalid(Invalid),
    /// The sender may not speak for this driver.
    Forbidden,
    /// Another item of the batch has the same driver and timestamp.
    Duplicate,
    /// Its driver came too early, or sends too much.
    Refused(Problem),
    /// Sending it again may help.
    Unpublished(Unpublished),
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// The outcomes of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) accepted: usize,
    pub(crate) next_ms: u64,
    /// The sender may not speak for one of the drivers.
    pub(crate) is_forbidden: bool,
    /// The first item that is wrong in itself.
    pub(crate) invalid: Option<Invalid>,
    /// The last reason for which an item is to be sent again.
    pub(crate) again: Option<Problem>,
    /// Elements of `rejected`, separated by commas.
    rejected: Vec<u8>,
}

impl Report {
    fn add(&mut self, index: usize, outcome: Result<(), Rejection>) {
        match outcome {
            Ok(()) => self.accepted += 1,
            Err(Rejection::Invalid(invalid)) => {
                self.reject(index, invalid.reason.as_str(), invalid.reason.field(), b"false");
                self.invalid.get_or_insert(invalid);
            }
            Err(Rejection::Forbidden) => {
                self.is_forbidden = true;
                self.reject(index, Problem::ForbiddenDriver.code(), Some("driverId"), b"false");
            }
            Err(Rejection::Duplicate) => self.reject(index, "duplicate", None, b"false"),
            Err(Rejection::Refused(problem)) => self.later(index, problem),
            Err(Rejection::Unpublished(unpublished)) => self.later(index, unpublished.into()),
        }
    }

    fn later(&mut self, index: usize, problem: Problem) {
        self.reject(index, problem.code(), None, b"true");
        self.again = Some(problem);
    }

    fn reject(&mut self, index: usize, code: &'static str, field: Option<&'static str>, retry: &'static [u8]) {
        let out = &mut self.rejected;
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"index\":");
        out.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
        // Codes and field names are constants without anything to escape.
        out.extend_from_slice(b",\"code\":\"");
        out.extend_from_slice(code.as_bytes());
        out.push(b'"');
        if let Some(field) = field {
            out.extend_from_slice(b",\"field\":\"");
            out.extend_from_slice(field.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b",\"retry\":");
        out.extend_from_slice(retry);
        out.push(b'}');
    }

    /// A refusal of the whole when nothing was taken and something is to be sent again.
    fn check(self) -> Result<Self, Problem> {
        match self.again {
            Some(problem) if self.accepted == 0 => Err(problem),
            _ => Ok(self),
        }
    }

    /// The answer to a batch of our own form.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut answer = Vec::with_capacity(ANSWER_BYTES + self.rejected.len());
        answer.extend_from_slice(b"{\"accepted\":");
        answer.extend_from_slice(itoa::Buffer::new().format(self.accepted).as_bytes());
        answer.extend_from_slice(b",\"rejected\":[");
        answer.extend_from_slice(&self.rejected);
        answer.extend_from_slice(b"],");
        finish(&mut answer, self.next_ms);
        answer
    }
}

/// The answer to one position.
pub(crate) fn single_json(next_ms: u64) -> Vec<u8> {
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    answer.push(b'{');
    finish(&mut answer, next_ms);
    answer
}

/// The fields that every answer ends with.
fn finish(answer: &mut Vec<u8>, next_ms: u64) {
    let mut number = itoa::Buffer::new();
    answer.extend_from_slice(b"\"nextUpdateMs\":");
    answer.extend_from_slice(number.format(next_ms).as_bytes());
    answer.extend_from_slice(b",\"serverTime\":");
    answer.extend_from_slice(number.format(crate::routes::now_ms()).as_bytes());
    answer.push(b'}');
}

#[cfg(test)]
mod tests {
    use event::Reason;

    use super::*;

    fn json(report: Report) -> serde_json::Value {
        serde_json::from_slice(&report.check().unwrap().to_json()).unwrap()
    }

    #[test]
    fn a_batch_is_answered_item_by_item() {
        let mut report = Report { next_ms: 2_000, ..Report::default() };
        report.add(0, Ok(()));
        report.add(1, Err(Rejection::Invalid(Reason::MissingLatitude.into())));
        report.add(2, Err(Rejection::Unpublished(Unpublished::TimedOut)));
        report.add(3, Err(Rejection::Invalid(Reason::NotAnObject.into())));
        report.add(4, Err(Rejection::Duplicate));
        report.add(5, Err(Rejection::Refused(Problem::TooEarly { next_ms: 3_000 })));
        let answer = json(report);
        assert_eq!(answer["accepted"], 1);
        assert_eq!(answer["nextUpdateMs"], 2_000);
        assert!(answer["serverTime"].as_i64().unwrap() > event::EARLIEST_MS);
        let rejected = serde_json::json!([
            {"index": 1, "code": "missing_latitude", "field": "latitude", "retry": false},
            {"index": 2, "code": "kafka_timeout", "retry": true},
            {"index": 3, "code": "not_an_object", "retry": false},
            {"index": 4, "code": "duplicate", "retry": false},
            {"index": 5, "code": "too_early", "retry": true},
        ]);
        assert_eq!(answer["rejected"], rejected);
    }

    #[test]
    fn a_batch_of_which_kafka_took_nothing_is_a_503() {
        let mut report = Report::default();
        report.add(0, Err(Rejection::Invalid(Reason::MissingLatitude.into())));
        report.add(1, Err(Rejection::Unpublished(Unpublished::Unavailable)));
        assert_eq!(report.check(), Err(Problem::KafkaUnavailable));
    }

    #[test]
    fn a_batch_of_bad_items_only_is_an_answer() {
        let mut report = Report::default();
        report.add(0, Err(Rejection::Invalid(Reason::InvalidSpeed.into())));
        assert_eq!(json(report)["accepted"], 0);
        assert_eq!(json(Report::default())["rejected"], serde_json::json!([]));
    }
}
