//! From a request to an answer: path, method, media type, token, body, handler, and what the outcome looks like in HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use event::{BatchFault, Reason, Submission};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use crate::admission::Admission;
use crate::answer::{self, Answer};
use crate::auth::Tokens;
use crate::body::{self, Bounds};
use crate::config::Args;
use crate::formats::{self, Positions};
use crate::kafka::Publisher;
use crate::limits::Limits;
use crate::metrics::{Metrics, Route};
use crate::positions::{self, Report, Times};
use crate::problem::Problem;
use crate::{cors, inflate};

const SINGLE_PATH: &str = "/api/drivers/location";
const BATCH_PATH: &str = "/api/drivers/locations";
const OVERLAND_PATH: &str = "/api/drivers/overland";
const OWNTRACKS_PATH: &str = "/api/drivers/owntracks";
const OSMAND_PATH: &str = "/api/drivers/osmand";
const TRACCAR_PATH: &str = "/api/drivers/traccar";
const OPENAPI_PATH: &str = "/openapi.json";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// One position a line, by any of the names that are in use.
const LINES: [&str; 4] = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];
const OPENAPI: &str = include_str!("openapi.json");

/// What every request needs; shared by all connections.
pub(crate) struct App {
    pub(crate) args: Args,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) publisher: Publisher,
    pub(crate) admission: Admission,
    pub(crate) tokens: Option<Tokens>,
}

/// Answers one request; nothing that a client sends makes it fail.
pub(crate) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let route = route(request.uri().path());
    let origin = if app.args.cors_origins.is_empty() { None } else { request.headers().get(header::ORIGIN).cloned() };
    if request.method() == Method::OPTIONS && origin.is_some() && route != Route::Unknown {
        let mut response = Answer::empty(app.admission.interval_ms()).into_response();
        cors::preflight(methods(route), response.headers_mut());
        cors::allow(&app.args.cors_origins, origin.as_ref(), response.headers_mut());
        return Ok(response);
    }
    let mut response = match handle(&app, route, request).await {
        Ok(answer) => answer.into_response(),
        Err(problem) => {
            app.metrics.problem(&problem);
            answer::refusal(&problem, app.admission.interval_ms())
        }
    };
    if origin.is_some() {
        cors::allow(&app.args.cors_origins, origin.as_ref(), response.headers_mut());
    }
    app.metrics.request(route, response.status());
    Ok(response)
}

fn route(path: &str) -> Route {
    match path {
        SINGLE_PATH => Route::Single,
        BATCH_PATH => Route::Batch,
        OVERLAND_PATH => Route::Overland,
        OWNTRACKS_PATH => Route::OwnTracks,
        OSMAND_PATH => Route::OsmAnd,
        TRACCAR_PATH => Route::Traccar,
        OPENAPI_PATH => Route::OpenApi,
        _ => Route::Unknown,
    }
}

fn methods(route: Route) -> &'static str {
    match route {
        Route::OsmAnd => "GET, POST",
        Route::OpenApi => "GET, HEAD",
        _ => "POST",
    }
}

async fn handle(app: &App, route: Route, request: Request<Incoming>) -> Result<Answer, Problem> {
    let (parts, body) = request.into_parts();
    if route == Route::Unknown {
        return Err(Problem::NotFound);
    }
    let allow = methods(route);
    if !allow.split(", ").any(|method| parts.method == method) {
        return Err(Problem::MethodNotAllowed { allow });
    }
    if route == Route::OpenApi {
        return Ok(Answer::foreign(Some(JSON), OPENAPI, app.admission.interval_ms()));
    }
    check_media_type(route, &parts.headers)?;
    let grant = match &app.tokens {
        Some(tokens) => Some(tokens.check(&parts.headers, parts.uri.query())?),
        None => None,
    };
    let body = whole(app, route, &parts.headers, body).await?;
    let times = Times { received_at_ms: now_ms(), date_ms: date_ms(&parts.headers), grant: grant.as_deref() };
    match route {
        Route::Single => positions::single(app, body, times).await.map(Answer::accepted),
        Route::Batch => batch(app, &parts.headers, body, times).await,
        _ => foreign(app, route, &parts, body, times).await,
    }
}

/// The body, inflated if it came compressed.
async fn whole(app: &App, route: Route, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Problem> {
    let limit = match route {
        Route::Batch | Route::Overland | Route::Traccar => app.args.max_batch_body,
        _ => app.args.max_body,
    };
    let coding = inflate::coding(headers)?;
    let bounds = Bounds { bytes: limit, time: app.args.body_timeout };
    let body = body::read(body, bounds, &app.limits).await?;
    match coding {
        None => Ok(body),
        Some(coding) => inflate::inflate(coding, &body, limit, &app.limits).await,
    }
}

async fn batch(app: &App, headers: &HeaderMap, body: Bytes, times: Times<'_>) -> Result<Answer, Problem> {
    let limit = app.args.max_batch_positions;
    let items = if LINES.contains(&media_type(headers).as_str()) {
        lines(&body, limit)?
    } else {
        Submission::batch_from_json(&body, limit).map_err(|fault| match fault {
            BatchFault::Malformed => Problem::Invalid(Reason::MalformedJson.into()),
            BatchFault::NotAnArray => Problem::NotAnArray,
            BatchFault::TooMany => Problem::TooManyPositions { limit },
        })?
    };
    positions::many(app, items.into_iter(), times).await.map(|report| Answer::batch(&report))
}

/// One position a line; empty lines are none.
fn lines(body: &[u8], limit: usize) -> Result<Vec<Result<Submission<'_>, event::Invalid>>, Problem> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let items: Vec<_> = lines.take(limit + 1).map(Submission::from_json).collect();
    if items.len() > limit { Err(Problem::TooManyPositions { limit }) } else { Ok(items) }
}

/// The formats of others: read into ours, answered in theirs.
async fn foreign(app: &App, route: Route, parts: &Parts, body: Bytes, times: Times<'_>) -> Result<Answer, Problem> {
    let positions = read_foreign(route, parts, &body, times.received_at_ms)?;
    drop(body);
    let limit = app.args.max_batch_positions;
    if positions.len() > limit {
        return Err(Problem::TooManyPositions { limit });
    }
    let count = positions.len();
    let report = positions::many(app, positions.into_iter(), times).await?;
    answer_foreign(route, count, report)
}

fn read_foreign(route: Route, parts: &Parts, body: &[u8], now_ms: i64) -> Result<Positions, Problem> {
    let mut parameters = formats::parameters(parts.uri.query().unwrap_or_default().as_bytes());
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let header = |name: &str| Some(parts.headers.get(name)?.to_str().ok()?.to_owned());
    let device = get("device_id").or_else(|| get("driver")).filter(|device| !device.is_empty());
    match route {
        Route::Overland => formats::overland(body, device.as_deref()),
        Route::Traccar => formats::traccar(body, device.as_deref()),
        Route::OwnTracks => {
            let user = header("x-limit-u").or_else(|| get("u"));
            let device = header("x-limit-d").or_else(|| get("d"));
            formats::owntracks(body, &formats::Sender { user, device })
        }
        _ => {
            parameters.extend(formats::parameters(body));
            formats::osmand(&parameters, now_ms)
        }
    }
}

/// These senders know no answer item by item: anything but a success keeps the whole in their queue. So it is one unless
/// something is worth sending again, or the only position was wrong and somebody should hear of it.
fn answer_foreign(route: Route, count: usize, report: Report) -> Result<Answer, Problem> {
    if let Some(problem) = report.again {
        return Err(problem);
    }
    if report.is_forbidden && report.accepted == 0 {
        return Err(Problem::ForbiddenDriver);
    }
    match (route, report.invalid.clone()) {
        (Route::Overland, _) => Ok(Answer::foreign(Some(JSON), r#"{"result":"ok"}"#, report.next_ms)),
        (_, Some(invalid)) if count == 1 => Err(Problem::Invalid(invalid)),
        (Route::Traccar, _) => Ok(Answer::batch(&report)),
        (Route::OwnTracks, _) => Ok(Answer::foreign(Some(JSON), "[]", report.next_ms)),
        _ => Ok(Answer::foreign(None, "", report.next_ms)),
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    String::from_utf8_lossy(media_type).to_ascii_lowercase()
}

fn check_media_type(route: Route, headers: &HeaderMap) -> Result<(), Problem> {
    // What nearly everyone sends, without a copy.
    if route != Route::OsmAnd && headers.get(header::CONTENT_TYPE).is_some_and(|given| given == JSON) {
        return Ok(());
    }
    let given = media_type(headers);
    let is_right = match route {
        Route::Batch => given == JSON || LINES.contains(&given.as_str()),
        Route::OwnTracks => given == JSON || given.is_empty(),
        Route::OsmAnd => given == FORM || given.is_empty(),
        _ => given == JSON,
    };
    if is_right { Ok(()) } else { Err(Problem::UnsupportedMediaType) }
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
    fn each_path_takes_its_media_types() {
        let check = |route, given| check_media_type(route, &headers(&[(header::CONTENT_TYPE, given)]));
        for right in ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;x"]
        {
            assert_eq!(check(Route::Single, right), Ok(()), "{right}");
        }
        for wrong in ["", "text/plain", "application/jsonl", "application/x-www-form-urlencoded", "json"] {
            assert_eq!(check(Route::Single, wrong), Err(Problem::UnsupportedMediaType), "{wrong}");
        }
        assert_eq!(check_media_type(Route::Single, &HeaderMap::new()), Err(Problem::UnsupportedMediaType));
        assert_eq!((check(Route::Batch, "application/x-ndjson"), check(Route::OsmAnd, FORM)), (Ok(()), Ok(())));
        assert_eq!(check(Route::OsmAnd, JSON), Err(Problem::UnsupportedMediaType));
        assert_eq!(check_media_type(Route::OwnTracks, &HeaderMap::new()), Ok(()));
    }

    #[test]
    fn lines_are_positions() {
        let count = |text: &str, limit| {
            lines(text.as_bytes(), limit).map(|items| items.iter().filter(|item| item.is_ok()).count())
        };
        assert_eq!(count("{}\r\n\n{}\nx\n", 3), Ok(2));
        assert_eq!(count("{}\n{}\n{}", 2), Err(Problem::TooManyPositions { limit: 2 }));
        assert_eq!(count("", 1), Ok(0));
    }

    #[test]
    fn the_description_is_json_and_has_every_path() {
        let description: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        for path in [SINGLE_PATH, BATCH_PATH, OVERLAND_PATH, OWNTRACKS_PATH, OSMAND_PATH, TRACCAR_PATH] {
            assert!(description["paths"][path].is_object(), "{path}");
        }
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
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
