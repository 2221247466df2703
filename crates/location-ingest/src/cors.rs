//! CORS (Fetch standard): which origins' pages may post from a browser, and what they may read of the answer.

use hyper::HeaderMap;
use hyper::header::{self, HeaderValue};

/// Lets the answer be read by pages of the request's origin, if that is allowed.
pub(crate) fn allow(allowed: &[HeaderValue], origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
    let Some(origin) = origin else { return };
    let matching = allowed.iter().find(|allowed| *allowed == "*" || *allowed == origin);
    let Some(matching) = matching else { return };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, matching.clone());
    // A cache must not give one origin's answer to another.
    answer.insert(header::VARY, HeaderValue::from_static("origin"));
    let exposed = "x-next-update-ms, retry-after, ratelimit, ratelimit-policy";
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
}

/// The answer to a preflight: what the request that follows may be.
pub(crate) fn preflight(allow: &'static str, answer: &mut HeaderMap) {
    answer.insert(header::ALLOW, HeaderValue::from_static(allow));
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allow));
    let headers = "content-type, content-encoding, authorization, x-limit-u, x-limit-d";
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(headers));
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}
