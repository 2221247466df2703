//! What goes back: status, body, and the headers that tell every sender when to send next.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::positions::{self, Report};
use crate::problem::{self, Problem};
use crate::routes::now_ms;

const JSON: &str = "application/json";
static NEXT_UPDATE: HeaderName = HeaderName::from_static("x-next-update-ms");
/// draft-ietf-httpapi-ratelimit-headers: the quota (one position) and its window, then what is left of it.
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// While all is calm every answer says the same, without anything to format.
const CALM_MS: u64 = 2_000;
/// `Retry-After` of a 503 is drawn from this range of seconds, so that phones refused together do not come back together.
const RETRY_AFTER_S: std::ops::RangeInclusive<u64> = 1..=4;

/// The answer to a request that was understood.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    content_type: Option<&'static str>,
    body: Bytes,
    next_ms: u64,
}

impl Answer {
    /// To one position.
    pub(crate) fn accepted(next_ms: u64) -> Self {
        let body = positions::single_json(next_ms).into();
        Self { status: StatusCode::ACCEPTED, content_type: Some(JSON), body, next_ms }
    }

    /// To a batch of our own form.
    pub(crate) fn batch(report: &Report) -> Self {
        let body = report.to_json().into();
        Self { status: StatusCode::OK, content_type: Some(JSON), body, next_ms: report.next_ms }
    }

    /// In another format's own words.
    pub(crate) fn foreign(content_type: Option<&'static str>, body: &'static str, next_ms: u64) -> Self {
        Self { status: StatusCode::OK, content_type, body: Bytes::from_static(body.as_bytes()), next_ms }
    }

    /// Nothing but the headers.
    pub(crate) fn empty(next_ms: u64) -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: None, body: Bytes::new(), next_ms }
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        tell(headers, self.next_ms);
        response
    }
}

/// The answer to a request that was not, or could not be, taken.
pub(crate) fn refusal(problem: &Problem, interval_ms: u64) -> Response<Full<Bytes>> {
    let status = problem.status();
    let retry_after_s = retry_after_s(problem);
    let waits_ms = problem.wait_ms().or(retry_after_s.map(|seconds| seconds * 1_000));
    let next_ms = waits_ms.map_or(interval_ms, |wait_ms| wait_ms.max(interval_ms.min(CALM_MS)));
    let mut response = Response::new(Full::new(Bytes::from(problem.to_json(next_ms, now_ms()))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    if let Some(seconds) = retry_after_s {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The rest of a body that was given up is still on its way: this connection has no next request.
        StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    match problem {
        Problem::MethodNotAllowed { allow } => {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        Problem::UnsupportedContentEncoding => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, zstd"));
        }
        _ => {}
    }
    tell(headers, next_ms);
    response
}

/// Who came too early is told its own slot, which is another one for each driver; a 503 is told a time drawn by lot.
fn retry_after_s(problem: &Problem) -> Option<u64> {
    match problem.status() {
        StatusCode::SERVICE_UNAVAILABLE => Some(rand::random_range(RETRY_AFTER_S)),
        _ => problem.wait_ms().map(backpressure::admission::retry_after_s),
    }
}

fn tell(headers: &mut HeaderMap, next_ms: u64) {
    if next_ms == CALM_MS {
        headers.insert(&NEXT_UPDATE, HeaderValue::from_static("2000"));
        headers.insert(&RATE_LIMIT_POLICY, HeaderValue::from_static("\"position\";q=1;w=2"));
        headers.insert(&RATE_LIMIT, HeaderValue::from_static("\"position\";r=0;t=2"));
        return;
    }
    let seconds = next_ms.div_ceil(1_000).max(1);
    headers.insert(&NEXT_UPDATE, next_ms.into());
    for (name, value) in [
        (&RATE_LIMIT_POLICY, format!("\"position\";q=1;w={seconds}")),
        (&RATE_LIMIT, format!("\"position\";r=0;t={seconds}")),
    ] {
        // Digits and quotation marks are always a right header.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(response: &'a Response<Full<Bytes>>, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn every_answer_says_when_to_send_next() {
        for (next_ms, seconds) in [(2_000, 2), (2_001, 3), (3_700, 4), (10_000, 10)] {
            let response = Answer::accepted(next_ms).into_response();
            assert_eq!(header(&response, "x-next-update-ms"), Some(next_ms.to_string().as_str()));
            assert_eq!(header(&response, "ratelimit"), Some(format!("\"position\";r=0;t={seconds}").as_str()));
            assert_eq!(header(&response, "ratelimit-policy"), Some(format!("\"position\";q=1;w={seconds}").as_str()));
        }
        let response = refusal(&Problem::NotFound, 3_000);
        assert_eq!((header(&response, "x-next-update-ms"), header(&response, "retry-after")), (Some("3000"), None));
    }

    #[test]
    fn a_429_is_told_its_slot_and_a_503_a_time_by_lot() {
        let early = refusal(&Problem::TooEarly { next_ms: 4_400 }, 6_000);
        assert_eq!((early.status(), header(&early, "retry-after")), (StatusCode::TOO_MANY_REQUESTS, Some("4")));
        assert_eq!(header(&early, "x-next-update-ms"), Some("4400"));
        let times: std::collections::HashSet<_> = (0..200)
            .map(|_| header(&refusal(&Problem::KafkaUnavailable, 2_000), "retry-after").unwrap().to_owned())
            .collect();
        assert_eq!(times.len(), 4);
    }
}
