//! Metrics of location-ingest: names, labels from closed sets, and handles looked up once.

use std::fmt::Write as _;

use event::Reason;
use hyper::StatusCode;
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

use crate::admission::Shown;
use crate::kafka::lag::Verdict;
use crate::problem::{self, Problem};

const REQUESTS: &str = "ingest_requests_total";
const PROBLEMS: &str = "ingest_problems_total";
const ACCEPTED: &str = "ingest_events_accepted_total";
const REJECTED: &str = "ingest_events_rejected_total";
const UNSENT: &str = "ingest_events_unacknowledged_total";
const CORRECTED: &str = "ingest_clocks_corrected_total";
const CLAMPED: &str = "ingest_clocks_clamped_total";
const LATE: &str = "ingest_events_late_total";
const ACK: &str = "ingest_ack_seconds";
const CONNECTIONS: &str = "ingest_connections";
const REQUESTS_IN_FLIGHT: &str = "ingest_requests_in_flight";
const BODY_BYTES: &str = "ingest_body_in_flight_bytes";
const PRODUCER_BYTES: &str = "ingest_producer_buffered_bytes";
const PRODUCER_REQUESTS: &str = "ingest_producer_requests_total";
const PRODUCER_RETRIES: &str = "ingest_producer_retries_total";
const INTERVAL: &str = "ingest_admission_interval_seconds";
const SHED: &str = "ingest_admission_shed_ratio";
const TIME_LAG: &str = "ingest_admission_time_lag_seconds";
const VERDICT: &str = "ingest_admission_verdict";
const DUPLICATES: &str = "ingest_events_duplicate_total";
const REFUSED: &str = "ingest_events_refused_total";

/// Acknowledgements take milliseconds; the upper end is the time limit.
pub(crate) const BUCKETS: &[service::Buckets] = &[(
    ACK,
    &[
        0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
        30.0,
    ],
)];

/// Where a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// One position.
    Single,
    /// An array of positions.
    Batch,
    /// Overland's GeoJSON.
    Overland,
    /// OwnTracks over HTTP.
    OwnTracks,
    /// OsmAnd's query or form.
    OsmAnd,
    /// JSON of Traccar's client.
    Traccar,
    /// The description of all this.
    OpenApi,
    /// Anything else: 404.
    Unknown,
}

impl Route {
    const ALL: [Self; 8] = [
        Self::Single,
        Self::Batch,
        Self::Overland,
        Self::OwnTracks,
        Self::OsmAnd,
        Self::Traccar,
        Self::OpenApi,
        Self::Unknown,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Batch => "batch",
            Self::Overland => "overland",
            Self::OwnTracks => "owntracks",
            Self::OsmAnd => "osmand",
            Self::Traccar => "traccar",
            Self::OpenApi => "openapi",
            Self::Unknown => "unknown",
        }
    }
}

/// Steps of the stretch beyond which turns are shed, and how many would shed all of them.
const STEPS_BEYOND: u8 = 128;
const STEPS_OF_ALL: f64 = 64.0;

const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

/// Handles of every metric that a request touches.
pub(crate) struct Metrics {
    requests: [[Counter; CLASSES.len()]; Route::ALL.len()],
    problems: [Counter; problem::CODES.len()],
    rejected: Vec<Counter>,
    pub(crate) accepted: Counter,
    pub(crate) unacknowledged: Counter,
    pub(crate) corrected: Counter,
    pub(crate) clamped: Counter,
    pub(crate) late: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) refused: Counter,
    pub(crate) ack_seconds: Histogram,
}

impl Metrics {
    /// Registers everything, so that each series is there from the start with 0.
    pub(crate) fn new() -> Self {
        describe();
        let request =
            |route: Route| CLASSES.map(|class| counter!(REQUESTS, "route" => route.label(), "status" => class));
        Self {
            requests: Route::ALL.map(request),
            problems: problem::CODES.map(|code| counter!(PROBLEMS, "code" => code)),
            rejected: Reason::ALL.iter().map(|reason| counter!(REJECTED, "reason" => reason.as_str())).collect(),
            accepted: counter!(ACCEPTED),
            unacknowledged: counter!(UNSENT),
            corrected: counter!(CORRECTED),
            clamped: counter!(CLAMPED),
            late: counter!(LATE),
            duplicates: counter!(DUPLICATES),
            refused: counter!(REFUSED),
            ack_seconds: histogram!(ACK),
        }
    }

    pub(crate) fn request(&self, route: Route, status: StatusCode) {
        let class = match status.as_u16() {
            ..400 => 0,
            400..500 => 1,
            500.. => 2,
        };
        self.requests[route as usize][class].increment(1);
    }

    pub(crate) fn problem(&self, problem: &Problem) {
        self.problem_of(problem.class());
    }

    /// By its code alone, one of [`problem::CODES`].
    pub(crate) fn problem_of(&self, class: &str) {
        if let Some(at) = problem::CODES.iter().position(|code| *code == class) {
            self.problems[at].increment(1);
        }
    }

    pub(crate) fn rejected(&self, reason: Reason) {
        if let Some(counter) = self.rejected.get(reason as usize) {
            counter.increment(1);
        }
    }
}

fn describe() {
    describe_counter!(REQUESTS, "Answered requests, by route and class of status.");
    describe_counter!(
        PROBLEMS,
        "Requests answered with a problem, by its code; invalid for any fault of the position."
    );
    describe_counter!(ACCEPTED, "Events acknowledged by Kafka.");
    describe_counter!(REJECTED, "Positions refused for their content, by reason.");
    describe_counter!(UNSENT, "Valid positions that Kafka did not acknowledge.");
    describe_counter!(CORRECTED, "Valid positions whose time was corrected by the phone's sending time.");
    describe_counter!(CLAMPED, "Valid positions whose time was ahead of ours and was clamped to the receipt.");
    describe_counter!(LATE, "Valid positions that were late: older than 30 s on arrival, history only.");
    describe_counter!(DUPLICATES, "Positions of a batch whose driver and timestamp another of the same batch had.");
    describe_counter!(REFUSED, "Valid positions that came sooner than told, or of a driver who sends too many: 429.");
    describe_histogram!(ACK, "Time from a request's events being handed to the producer to Kafka's acknowledgement.");
}

/// Figures that are read where they live, at each scrape, at no cost in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Levels {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    pub(crate) body_bytes: usize,
    pub(crate) producer_bytes: usize,
    pub(crate) producer_requests: u64,
    pub(crate) producer_retries: u64,
    pub(crate) admission: Shown,
}

impl Levels {
    /// As Prometheus text.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        for (name, kind, help, value) in [
            (CONNECTIONS, "gauge", "Open connections.", self.connections as u64),
            (REQUESTS_IN_FLIGHT, "gauge", "Requests waiting for Kafka.", self.requests as u64),
            (BODY_BYTES, "gauge", "Memory held by bodies that arrive in pieces.", self.body_bytes as u64),
            (
                PRODUCER_BYTES,
                "gauge",
                "Memory of events that Kafka has not acknowledged yet.",
                self.producer_bytes as u64,
            ),
            (PRODUCER_REQUESTS, "counter", "Produce requests sent to Kafka.", self.producer_requests),
            (PRODUCER_RETRIES, "counter", "Record batches sent to Kafka again.", self.producer_retries),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        self.render_admission(&mut out);
        out
    }

    fn render_admission(&self, out: &mut String) {
        let shown = &self.admission;
        let interval = shown.interval_ms as f64 / 1_000.0;
        let shed = f64::from(shown.steps.saturating_sub(STEPS_BEYOND)) / STEPS_OF_ALL;
        for (name, help, value) in [
            (INTERVAL, "Interval at which drivers are told to send, on average.", interval),
            (SHED, "Share of turns that are shed beyond the longest interval.", shed),
            // Unknown is not 0: a graph has a gap there, and an alert on a high value stays silent.
            (
                TIME_LAG,
                "Time lag of the worst of --admission-groups; NaN while it is unknown.",
                shown.time_lag_s.unwrap_or(f64::NAN),
            ),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
        }
        let _ = writeln!(
            out,
            "# HELP {VERDICT} 1 for how the worst of --admission-groups is doing.\n# TYPE {VERDICT} gauge"
        );
        for verdict in Verdict::ALL {
            let is_it = u8::from(verdict == shown.verdict);
            let _ = writeln!(out, "{VERDICT}{{verdict=\"{}\"}} {is_it}", verdict.label());
        }
        out.push('\n');
    }
}
