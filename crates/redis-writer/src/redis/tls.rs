//! TLS and credentials of the connections to Redis, and what a failed handshake means.
//!
//! A server's certificate is always checked, name included: it must be for the host by which the server is addressed, in
//! `--redis-url`, or as its cluster or Sentinel names it.

use fred::error::Error;
use fred::types::config::{Config, TlsConfig, TlsHostMapping};
use service::Usage;

use crate::security::Security;

const PLAIN: &str = "redis";
const SECURED: &str = "rediss";
const HIDDEN: &str = "***";
/// Parameter of a Sentinel URL, in lower case: the password that the Sentinels themselves want.
const SENTINEL_PASSWORD: &str = "sentinelpassword";

/// Whether a URL asks for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UrlScheme {
    Plain,
    Tls,
}

/// What the flags beside a URL must know of it.
#[derive(Debug, Clone)]
pub(crate) struct UrlFacts {
    pub(crate) scheme: UrlScheme,
    pub(crate) has_username: bool,
    pub(crate) has_password: bool,
    /// As logs and terminals may show it.
    pub(crate) shown: String,
}

impl UrlFacts {
    /// Of a URL that was checked.
    ///
    /// # Errors
    /// It was not.
    pub(crate) fn of(url: &str) -> Result<Self, Usage> {
        let shown = without_credentials(url);
        match parse(url) {
            Ok((config, scheme)) => Ok(Self {
                scheme,
                has_username: config.username.is_some(),
                has_password: config.password.is_some(),
                shown,
            }),
            Err(error) => Err(Usage::new("--redis-url", shown, error.details())),
        }
    }
}

/// The client's configuration. It never sees the scheme of TLS, for which it would read the system's certificates.
pub(super) fn parse(url: &str) -> Result<(Config, UrlScheme), Error> {
    match url.strip_prefix(SECURED) {
        Some(rest) => Ok((Config::from_url(&format!("{PLAIN}{rest}"))?, UrlScheme::Tls)),
        None => Ok((Config::from_url(url)?, UrlScheme::Plain)),
    }
}

/// Adds what the URL leaves open.
pub(super) fn secure(config: &mut Config, security: &Security) {
    config.username = security.username.clone().or(config.username.take());
    config.password = security.password.as_ref().map(|secret| secret.reveal().to_owned()).or(config.password.take());
    config.tls = security.tls.as_ref().map(|tls| TlsConfig {
        connector: tls.config().as_ref().clone().into(),
        // Any other mapping would take one server's certificate for another's.
        hostnames: TlsHostMapping::None,
    });
}

/// A URL without its secrets. One that cannot be parsed may have them anywhere before its path.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (userinfo, rest) = match rest.rfind('@') {
        Some(at) => (HIDDEN, &rest[at..]),
        None => ("", rest),
    };
    let (place, parameters) = rest.split_once('?').map_or((rest, None), |(place, rest)| (place, Some(rest)));
    let shown: Option<Vec<_>> = parameters.map(|parameters| parameters.split('&').map(shown_parameter).collect());
    let query = shown.map_or_else(String::new, |shown| format!("?{}", shown.join("&")));
    format!("{scheme}://{userinfo}{}{query}", shown_place(place))
}

/// `user:password` without its host looks like a host with a strange port.
fn shown_place(place: &str) -> String {
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.bytes().all(|byte| byte.is_ascii_digit()) && !port.ends_with(']') => {
            format!("{host}:{HIDDEN}{path}")
        }
        _ => place.to_owned(),
    }
}

fn shown_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase() == SENTINEL_PASSWORD => format!("{name}={HIDDEN}"),
        _ => parameter.to_owned(),
    }
}

/// What a handshake failed of, if that stays so until somebody changes something. The client hands rustls's errors on
/// as `Debug` writes them.
pub(super) fn lasting_fault(details: &str) -> Option<String> {
    let certificate = |cause: &str, check: &str| Some(format!("its certificate {cause}; check {check}"));
    let has = |word: &str| details.contains(word);
    if has("AlertReceived(") {
        return refusal(details);
    }
    if !has("InvalidCertificate(") {
        return None;
    }
    if has("UnknownIssuer") || has("CaUsedAsEndEntity") {
        certificate("is of no CA that we trust", "--redis-tls-ca")
    } else if has("BadSignature") {
        certificate("is not signed by the CA that it names", "--redis-tls-ca")
    } else if has("NotValidForName") {
        certificate(&wrong_name(details), "the host in --redis-url, and the names that the certificate holds")
    } else if has("Expired") {
        certificate("has expired", "it and this machine's clock")
    } else if has("NotValidYet") {
        certificate("is not valid yet", "it and this machine's clock")
    } else {
        certificate(&format!("is no good ({details})"), "it")
    }
}

/// What else to look at where somebody listens, and ends the connection without a word or does not answer.
pub(super) fn hint(details: &str) -> &'static str {
    const WORDLESS: [&str; 5] = ["ConnectionReset", "BrokenPipe", "UnexpectedEof", "timed out", "InvalidMessage("];
    let is_wordless = WORDLESS.iter().any(|sign| details.contains(sign));
    if is_wordless { ", with TLS for rediss:// and without for redis://" } else { "" }
}

/// `NotValidForNameContext { expected: DnsName("a"), presented: ["DnsName(\"b\")"] }`.
fn wrong_name(details: &str) -> String {
    let between = |start: &str, end: &str| {
        let rest = details.split_once(start)?.1;
        Some(rest.split_once(end)?.0.replace(['"', '\\'], ""))
    };
    match (between("expected: ", ", presented"), between("presented: [", "]")) {
        (Some(expected), Some(names)) if names.is_empty() => format!("is for no name, not for {expected}"),
        (Some(expected), Some(names)) => format!("is for {names}, not for {expected}"),
        _ => "is for another host".to_owned(),
    }
}

/// The server's word on our certificate, or on our way to speak TLS. That it has trouble of its own passes.
fn refusal(details: &str) -> Option<String> {
    const OF_CERTIFICATES: [&str; 9] = [
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "CertificateRequired",
        "UnknownCA",
        "AccessDenied",
        "DecryptError",
    ];
    const PASSING: [&str; 3] = ["InternalError", "UserCanceled", "CloseNotify"];
    let alert = details.split_once("AlertReceived(")?.1.split(')').next()?;
    if PASSING.contains(&alert) {
        None
    } else if OF_CERTIFICATES.contains(&alert) {
        Some(format!(
            "it wants a certificate, or another than ours ({alert}); check --redis-tls-certificate and --redis-tls-key"
        ))
    } else {
        Some(format!("it refuses the handshake ({alert}); check its tls-protocols and tls-ciphers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        for (url, shown) in [
            ("redis://user:se@cret@host:1/2", "redis://***@host:1/2"),
            ("rediss://:se#c?r/et@host", "rediss://***@host"),
            ("redis://host", "redis://host"),
            ("redis://[::1]:7000/1", "redis://[::1]:7000/1"),
            ("redis://[::1]", "redis://[::1]"),
            ("redis://user:secret", "redis://user:***"),
            (
                "redis-sentinel://u:p@a:1?sentinelServiceName=main&sentinelPassword=secret&node=b:2",
                "redis-sentinel://***@a:1?sentinelServiceName=main&sentinelPassword=***&node=b:2",
            ),
            ("host@x", "host@x"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn a_certificate_for_another_name_is_told_with_both_names() {
        let details = "Custom { kind: InvalidData, error: InvalidCertificate(NotValidForNameContext { expected: \
                       DnsName(\"cache\"), presented: [\"DnsName(\\\"a\\\")\", \"DnsName(\\\"b\\\")\"] }) }";
        let said = lasting_fault(details).unwrap();
        assert!(said.starts_with("its certificate is for DnsName(a), DnsName(b), not for DnsName(cache); "), "{said}");
    }

    #[test]
    fn what_passes_by_itself_is_no_lasting_fault() {
        for passing in ["Request timed out.", "AlertReceived(InternalError)", "Kind(UnexpectedEof)"] {
            assert_eq!(lasting_fault(passing), None);
        }
    }
}
