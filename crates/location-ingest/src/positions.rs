//! What a body becomes: events in Kafka, and the answer to the phone.

use bytes::Bytes;
use event::{BatchFault, DriverLocation, Invalid, Reason, Submission};
use tokio::time::Instant;

use crate::kafka::{Acknowledgement, Unpublished};
use crate::problem::Problem;
use crate::routes::App;

/// When a phone should send next. (Every answer says so; what decides it is to come.)
const NEXT_UPDATE_MS: u64 = 2_000;
/// Room for an answer without rejected positions.
const ANSWER_BYTES: usize = 64;

/// One position: in Kafka when this returns Ok.
pub(crate) async fn single(app: &App, body: Bytes, times: Times) -> Result<Vec<u8>, Problem> {
    let event = app.accept(Submission::from_json(&body), times)?;
    drop(body);
    let _place = app.limits.request()?;
    let started = Instant::now();
    let outcome = match app.publisher.publish(&event) {
        Ok(acknowledgement) => acknowledgement.await,
        Err(unpublished) => Err(unpublished),
    };
    app.count(outcome)?;
    app.metrics.ack_seconds.record(started.elapsed());
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    answer.push(b'{');
    finish(&mut answer);
    Ok(answer)
}

/// Many positions, answered item by item.
pub(crate) async fn batch(app: &App, body: Bytes, times: Times) -> Result<Vec<u8>, Problem> {
    let limit = app.args.max_batch_positions;
    let items = Submission::batch_from_json(&body, limit).map_err(|fault| match fault {
        BatchFault::Malformed => Problem::Invalid(Reason::MalformedJson.into()),
        BatchFault::NotAnArray => Problem::NotAnArray,
        BatchFault::TooMany => Problem::TooManyPositions { limit },
    })?;
    let events: Vec<_> = items.into_iter().map(|item| app.accept(item, times)).collect();
    drop(body);
    let _place = app.limits.request()?;
    let started = Instant::now();
    let sent: Vec<_> = events.into_iter().map(|event| event.map(|event| app.publisher.publish(&event))).collect();
    let mut report = Report::default();
    for (index, item) in sent.into_iter().enumerate() {
        report.add(index, settle(app, item).await);
    }
    if report.accepted > 0 {
        app.metrics.ack_seconds.record(started.elapsed());
    }
    report.into_answer()
}

async fn settle(app: &App, item: Result<Result<Acknowledgement, Unpublished>, Invalid>) -> Result<(), Rejection> {
    let outcome = match item? {
        Ok(acknowledgement) => acknowledgement.await,
        Err(unpublished) => Err(unpublished),
    };
    app.count(outcome).map_err(Rejection::Unpublished)
}

/// The moments that decide a position's effective time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Our clock when the body was there.
    pub(crate) received_at_ms: i64,
    /// The request's `Date` header.
    pub(crate) date_ms: Option<i64>,
}

impl App {
    /// Checks a position and counts what was found.
    fn accept(&self, position: Result<Submission<'_>, Invalid>, times: Times) -> Result<DriverLocation, Invalid> {
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
}

/// Why one item of a batch is not in Kafka.
#[derive(Debug)]
enum Rejection {
    /// Sending it again cannot help.
    Invalid(Invalid),
    /// Sending it again may.
    Unpublished(Unpublished),
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// The answer to a batch while it is put together.
#[derive(Debug, Default)]
struct Report {
    accepted: usize,
    /// The last reason for which Kafka did not take an item.
    unpublished: Option<Unpublished>,
    /// Elements of `rejected`, separated by commas.
    rejected: Vec<u8>,
}

impl Report {
    fn add(&mut self, index: usize, outcome: Result<(), Rejection>) {
        match outcome {
            Ok(()) => self.accepted += 1,
            Err(Rejection::Invalid(invalid)) => {
                self.reject(index, invalid.reason.as_str(), invalid.reason.field(), b"false");
            }
            Err(Rejection::Unpublished(unpublished)) => {
                self.unpublished = Some(unpublished);
                self.reject(index, Problem::from(unpublished).code(), None, b"true");
            }
        }
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

    /// A 503 when Kafka took nothing of what was valid: then the whole is to be sent again.
    fn into_answer(self) -> Result<Vec<u8>, Problem> {
        if let (0, Some(unpublished)) = (self.accepted, self.unpublished) {
            return Err(unpublished.into());
        }
        let mut answer = Vec::with_capacity(ANSWER_BYTES + self.rejected.len());
        answer.extend_from_slice(b"{\"accepted\":");
        answer.extend_from_slice(itoa::Buffer::new().format(self.accepted).as_bytes());
        answer.extend_from_slice(b",\"rejected\":[");
        answer.extend_from_slice(&self.rejected);
        answer.extend_from_slice(b"],");
        finish(&mut answer);
        Ok(answer)
    }
}

/// The fields that every answer ends with.
fn finish(answer: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    answer.extend_from_slice(b"\"nextUpdateMs\":");
    answer.extend_from_slice(number.format(NEXT_UPDATE_MS).as_bytes());
    answer.extend_from_slice(b",\"serverTime\":");
    answer.extend_from_slice(number.format(crate::routes::now_ms()).as_bytes());
    answer.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(report: Report) -> serde_json::Value {
        serde_json::from_slice(&report.into_answer().unwrap()).unwrap()
    }

    #[test]
    fn a_batch_is_answered_item_by_item() {
        let mut report = Report::default();
        report.add(0, Ok(()));
        report.add(1, Err(Rejection::Invalid(Reason::MissingLatitude.into())));
        report.add(2, Err(Rejection::Unpublished(Unpublished::TimedOut)));
        report.add(3, Err(Rejection::Invalid(Reason::NotAnObject.into())));
        let answer = json(report);
        assert_eq!(answer["accepted"], 1);
        assert_eq!(answer["nextUpdateMs"], 2_000);
        assert!(answer["serverTime"].as_i64().unwrap() > event::EARLIEST_MS);
        let rejected = serde_json::json!([
            {"index": 1, "code": "missing_latitude", "field": "latitude", "retry": false},
            {"index": 2, "code": "kafka_timeout", "retry": true},
            {"index": 3, "code": "not_an_object", "retry": false},
        ]);
        assert_eq!(answer["rejected"], rejected);
    }

    #[test]
    fn a_batch_of_which_kafka_took_nothing_is_a_503() {
        let mut report = Report::default();
        report.add(0, Err(Rejection::Invalid(Reason::MissingLatitude.into())));
        report.add(1, Err(Rejection::Unpublished(Unpublished::Unavailable)));
        assert_eq!(report.into_answer(), Err(Problem::KafkaUnavailable));
    }

    #[test]
    fn a_batch_of_bad_items_only_is_an_answer() {
        let mut report = Report::default();
        report.add(0, Err(Rejection::Invalid(Reason::InvalidSpeed.into())));
        assert_eq!(json(report)["accepted"], 0);
        assert_eq!(json(Report::default())["rejected"], serde_json::json!([]));
    }
}
