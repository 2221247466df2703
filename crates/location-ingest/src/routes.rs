//! From a request to an answer: path, method, media type, body, handler, and what the outcome looks like in HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use event::{BatchFault, Reason, Submission};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};

use crate::admission::Admission;
use crate::answer::{self, Answer};
use crate::body::{self, Bounds};
use crate::config::Args;
use crate::kafka::Publisher;
use crate::limits::Limits;
use crate::metrics::{Metrics, Route};
use crate::positions::{self, Times};
use crate::problem::Problem;

const SINGLE_PATH: &str = "/api/drivers/location";
const BATCH_PATH: &str = "/api/drivers/locations";
const JSON: &str = "application/json";

/// What every request needs; shared by all connections.
pub(crate) struct App {
    pub(crate) args: Args,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) publisher: Publisher,
    pub(crate) admission: Admission,
}

/// Answers one request; nothing that a client sends makes it fail.
pub(crate) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let route = route(request.uri().path());
    let response = match handle(&app, route, request).await {
        Ok(answer) => answer.into_response(),
        Err(problem) => {
            app.metrics.problem(&problem);
            answer::refusal(&problem, app.admission.interval_ms())
        }
    };
    app.metrics.request(route, response.status());
    Ok(response)
}

fn route(path: &str) -> Route {
    match path {
        SINGLE_PATH => Route::Single,
        BATCH_PATH => Route::Batch,
        _ => Route::Unknown,
    }
}

async fn handle(app: &App, route: Route, request: Request<Incoming>) -> Result<Answer, Problem> {
    let bytes = match route {
        Route::Unknown => return Err(Problem::NotFound),
        Route::Single => app.args.max_body,
        Route::Batch => app.args.max_batch_body,
    };
    if request.method() != Method::POST {
        return Err(Problem::MethodNotAllowed);
    }
    check_media_type(request.headers())?;
    let date_ms = date_ms(request.headers());
    let bounds = Bounds { bytes, time: app.args.body_timeout };
    let body = body::read(request.into_body(), bounds, &app.limits).await?;
    let times = Times { received_at_ms: now_ms(), date_ms };
    match route {
        Route::Batch => batch(app, body, times).await,
        _ => positions::single(app, body, times).await.map(Answer::accepted),
    }
}

async fn batch(app: &App, body: Bytes, times: Times) -> Result<Answer, Problem> {
    let limit = app.args.max_batch_positions;
    let items = Submission::batch_from_json(&body, limit).map_err(|fault| match fault {
        BatchFault::Malformed => Problem::Invalid(Reason::MalformedJson.into()),
        BatchFault::NotAnArray => Problem::NotAnArray,
        BatchFault::TooMany => Problem::TooManyPositions { limit },
    })?;
    positions::many(app, items.into_iter(), times).await.map(|report| Answer::batch(&report))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = given.split(|byte| *byte == b';').next().unwrap_or_default();
    if !media_type.trim_ascii().eq_ignore_ascii_case(JSON.as_bytes()) {
        return Err(Problem::UnsupportedMediaType);
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::UnsupportedContentEncoding)
        }
        _ => Ok(()),
    }
}

/// When the request says that it was sent; a date that cannot be read says nothing.
fn date_ms(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// Milliseconds since the epoch by our clock.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_json_is_taken() {
        for right in ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;x"]
        {
            assert_eq!(check_media_type(&headers(&[(header::CONTENT_TYPE, right)])), Ok(()), "{right}");
        }
        for wrong in ["", "text/plain", "application/jsonl", "application/x-www-form-urlencoded", "json"] {
            let answer = check_media_type(&headers(&[(header::CONTENT_TYPE, wrong)]));
            assert_eq!(answer, Err(Problem::UnsupportedMediaType), "{wrong}");
        }
        assert_eq!(check_media_type(&HeaderMap::new()), Err(Problem::UnsupportedMediaType));
    }

    #[test]
    fn a_compressed_body_is_not_taken() {
        let with = |encoding| {
            check_media_type(&headers(&[(header::CONTENT_TYPE, JSON), (header::CONTENT_ENCODING, encoding)]))
        };
        assert_eq!(with("identity"), Ok(()));
        assert_eq!(with("gzip"), Err(Problem::UnsupportedContentEncoding));
    }

    #[test]
    fn the_date_header_is_read_in_milliseconds() {
        let date = |text| date_ms(&headers(&[(header::DATE, text)]));
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(date("yesterday"), None);
        assert_eq!(date_ms(&HeaderMap::new()), None);
    }

    #[test]
    fn paths_are_exact() {
        assert_eq!(route("/api/drivers/location"), Route::Single);
        assert_eq!(route("/api/drivers/locations"), Route::Batch);
        for other in ["/", "/api/drivers/location/", "/api/drivers/Location", "/api/drivers"] {
            assert_eq!(route(other), Route::Unknown, "{other}");
        }
    }
}
