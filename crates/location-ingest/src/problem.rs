//! Everything that can be wrong with a request, as `application/problem+json` (RFC 9457). The one `match` from fault to
//! status code is here.

use event::Invalid;
use hyper::StatusCode;
use serde::Serialize;

/// Media type of every error's body.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// Label values of the problem counter; the reasons of refused positions are counted by themselves.
pub(crate) const CODES: [&str; 24] = [
    "invalid",
    "not_an_array",
    "body_incomplete",
    "not_found",
    "method_not_allowed",
    "body_too_slow",
    "body_too_large",
    "too_many_positions",
    "unsupported_media_type",
    "unsupported_content_encoding",
    "too_many_requests_in_flight",
    "too_many_bytes_in_flight",
    "kafka_unavailable",
    "kafka_timeout",
    "kafka_refused",
    "too_early",
    "too_many_items",
    "malformed_encoding",
    "wrong_format",
    "missing_token",
    "invalid_token",
    "forbidden_driver",
    HEADER_TOO_LARGE,
    HEADER_TOO_SLOW,
];

/// Answered (with 431) or ended by the HTTP server before there is a request.
pub(crate) const HEADER_TOO_LARGE: &str = "header_too_large";
pub(crate) const HEADER_TOO_SLOW: &str = "header_too_slow";

/// Problem types of the IETF draft on RateLimit header fields (draft-ietf-httpapi-ratelimit-headers).
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Named by what the sender does next: correct the request, or come back later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The position, or the body as JSON.
    Invalid(Invalid),
    /// A batch that is JSON but no array.
    NotAnArray,
    /// The connection failed in the middle of the body.
    BodyIncomplete,
    NotFound,
    MethodNotAllowed {
        allow: &'static str,
    },
    /// The body took longer than `--body-timeout`.
    BodyTooSlow,
    BodyTooLarge {
        limit: usize,
    },
    TooManyPositions {
        limit: usize,
    },
    UnsupportedMediaType,
    UnsupportedContentEncoding,
    TooManyRequestsInFlight,
    TooManyBytesInFlight,
    /// Certainly not in Kafka.
    KafkaUnavailable,
    /// May or may not be in Kafka; sending it again does no harm: readers take the newest by effective time.
    KafkaTimeout,
    /// Certainly not in Kafka, for a reason that an operator must look at.
    KafkaRefused,
    /// The body is not what its Content-Encoding says.
    MalformedEncoding,
    /// Readable, but not the format that this path takes.
    WrongFormat,
    MissingToken,
    InvalidToken,
    /// The token is not good for this driver.
    ForbiddenDriver,
    /// Sooner than told: what everyone may send is less than usual.
    TooEarly {
        next_ms: u64,
    },
    /// More positions of one driver than `--max-driver-rate`.
    TooManyItems {
        wait_ms: u64,
    },
}

impl Problem {
    /// The one mapping to HTTP.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_)
            | Self::NotAnArray
            | Self::BodyIncomplete
            | Self::MalformedEncoding
            | Self::WrongFormat => StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::ForbiddenDriver => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } | Self::TooManyPositions { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::UnsupportedContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequestsInFlight
            | Self::TooManyBytesInFlight
            | Self::KafkaUnavailable
            | Self::KafkaTimeout
            | Self::KafkaRefused => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooEarly { .. } | Self::TooManyItems { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// What kind of problem it is, as a URI; the code says which.
    fn kind(&self) -> &'static str {
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => REDUCED_CAPACITY,
            StatusCode::TOO_MANY_REQUESTS => QUOTA_EXCEEDED,
            _ => "about:blank",
        }
    }

    /// The policy of `RateLimit-Policy` that was violated.
    fn violated_policies(&self) -> Option<[&'static str; 1]> {
        match self {
            Self::TooEarly { .. } => Some(["position"]),
            Self::TooManyItems { .. } => Some(["driver"]),
            _ => None,
        }
    }

    /// How long this sender has to wait, where the problem knows it better than the interval of the moment.
    pub(crate) fn wait_ms(&self) -> Option<u64> {
        match self {
            Self::TooEarly { next_ms } => Some(*next_ms),
            Self::TooManyItems { wait_ms } => Some(*wait_ms),
            _ => None,
        }
    }

    /// The stable code of the answer.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Invalid(invalid) => invalid.reason.as_str(),
            other => other.class(),
        }
    }

    /// One of [`CODES`].
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotAnArray => "not_an_array",
            Self::BodyIncomplete => "body_incomplete",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::TooManyPositions { .. } => "too_many_positions",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnsupportedContentEncoding => "unsupported_content_encoding",
            Self::TooManyRequestsInFlight => "too_many_requests_in_flight",
            Self::TooManyBytesInFlight => "too_many_bytes_in_flight",
            Self::KafkaUnavailable => "kafka_unavailable",
            Self::KafkaTimeout => "kafka_timeout",
            Self::KafkaRefused => "kafka_refused",
            Self::TooEarly { .. } => "too_early",
            Self::MalformedEncoding => "malformed_encoding",
            Self::WrongFormat => "wrong_format",
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::ForbiddenDriver => "forbidden_driver",
            Self::TooManyItems { .. } => "too_many_items",
        }
    }

    /// The JSON field to blame.
    fn field(&self) -> Option<&'static str> {
        match self {
            Self::Invalid(invalid) => invalid.reason.field(),
            _ => None,
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Invalid(invalid) => invalid.detail.clone(),
            Self::NotAnArray => "The body must be a JSON array of positions.".to_owned(),
            Self::BodyIncomplete => "The body ended early or could not be read.".to_owned(),
            Self::NotFound => {
                "POST one position to /api/drivers/location, an array to /api/drivers/locations.".to_owned()
            }
            Self::MethodNotAllowed { allow } => format!("Only {allow} is allowed here."),
            Self::BodyTooSlow => "The body took too long to arrive.".to_owned(),
            Self::BodyTooLarge { limit } => format!("The body must not be larger than {limit} bytes."),
            Self::TooManyPositions { limit } => format!("A batch must not have more than {limit} positions."),
            Self::UnsupportedMediaType => "Content-Type is not one that this path takes.".to_owned(),
            Self::UnsupportedContentEncoding => "Content-Encoding must be gzip, deflate, zstd or absent.".to_owned(),
            Self::TooManyRequestsInFlight | Self::TooManyBytesInFlight => {
                "Too much is under way at the moment; send again after Retry-After.".to_owned()
            }
            Self::KafkaUnavailable => "The position could not be stored; send again after Retry-After.".to_owned(),
            Self::KafkaTimeout => {
                "Whether the position was stored is unknown; send again after Retry-After.".to_owned()
            }
            Self::KafkaRefused => "The position was not stored; the operator has to look at it.".to_owned(),
            Self::MalformedEncoding => "The body is not what its Content-Encoding says.".to_owned(),
            Self::WrongFormat => "The body is not of the format that this path takes.".to_owned(),
            Self::MissingToken => "A token is required: Authorization: Bearer.".to_owned(),
            Self::InvalidToken => "The token is not known.".to_owned(),
            Self::ForbiddenDriver => "The token is not good for this driver.".to_owned(),
            Self::TooEarly { .. } => "Sooner than told; send again after nextUpdateMs.".to_owned(),
            Self::TooManyItems { .. } => {
                "More positions of this driver than are taken; send again after Retry-After.".to_owned()
            }
        }
    }

    /// The answer's body.
    pub(crate) fn to_json(&self, next_update_ms: u64, server_time: i64) -> Vec<u8> {
        let status = self.status();
        let body = Body {
            kind: self.kind(),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.detail(),
            code: self.code(),
            field: self.field(),
            violated_policies: self.violated_policies(),
            next_update_ms,
            server_time,
        };
        serde_json::to_vec(&body).expect("texts and numbers can always be written as JSON")
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

#[derive(Serialize)]
struct Body {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated_policies: Option<[&'static str; 1]>,
    #[serde(rename = "nextUpdateMs")]
    next_update_ms: u64,
    #[serde(rename = "serverTime")]
    server_time: i64,
}

#[cfg(test)]
mod tests {
    use event::Reason;

    use super::*;

    #[test]
    fn a_problem_names_code_and_field() {
        let body = Problem::Invalid(Reason::MissingLatitude.into()).to_json(2_000, 7);
        let expected = r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"latitude is missing.","code":"missing_latitude","field":"latitude","nextUpdateMs":2000,"serverTime":7}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        let body = String::from_utf8(Problem::KafkaTimeout.to_json(2_000, 7)).unwrap();
        assert!(body.contains(r#""status":503"#) && !body.contains("field"), "{body}");
        assert!(body.contains("#temporary-reduced-capacity"), "{body}");
    }

    #[test]
    fn who_came_too_early_is_told_by_which_policy() {
        let body = String::from_utf8(Problem::TooEarly { next_ms: 3_100 }.to_json(3_100, 7)).unwrap();
        for part in [
            r##""type":"https://iana.org/assignments/http-problem-types#quota-exceeded""##,
            r#""violated-policies":["position"]"#,
            r#""nextUpdateMs":3100"#,
        ] {
            assert!(body.contains(part), "{body}");
        }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_a_503() {
        assert_eq!(Problem::KafkaUnavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Problem::BodyTooLarge { limit: 1 }.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(Problem::BodyTooSlow.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
