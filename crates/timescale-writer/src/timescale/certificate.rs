//! The server's certificate: is it signed by whom we trust, and is it of the host that we meant?
//!
//! rustls's own check knows neither libpq's "any host" (verify-ca), nor a certificate that is its own root, nor names in
//! the subject alone; all three are common where PostgreSQL's documentation was followed.

use std::fmt;
use std::time::Duration;

use ::ring::digest;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// Whom we trust.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// The same as they were given: one of them may be the server's own.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Checks a server's certificate as an `sslmode` wants it.
pub(super) struct Verifier {
    roots: Option<Roots>,
    checks_name: bool,
    provider: CryptoProvider,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("checks_name", &self.checks_name).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Without roots every certificate is good: the connection is encrypted, to whomever.
    pub(super) fn new(roots: Option<Roots>, checks_name: bool, provider: CryptoProvider) -> Self {
        Self { roots, checks_name, provider }
    }

    fn check_chain(
        &self,
        roots: &Roots,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if roots.certificates.iter().any(|root| root == end_entity) {
            return check_time(end_entity, now);
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots.store, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            self.check_chain(roots, end_entity, intermediates, now)?;
        }
        if self.checks_name {
            check_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// By the alternative names; where there are none, by the subject's common name.
fn check_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let refused = match verify_server_name(&ParsedCertificate::try_from(certificate)?, name) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let Ok(parsed) = Certificate::from_der(certificate) else { return Err(refused) };
    let extensions = parsed.tbs_certificate.extensions.iter().flatten();
    let has_names = extensions.into_iter().any(|extension| extension.extn_id == ALTERNATIVE_NAMES);
    let subject = parsed.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let mut common_names = subject.filter(|part| part.oid == COMMON_NAME).map(|part| part.value.value());
    let wanted = name.to_str();
    let is_named = !has_names
        && common_names.any(|name| std::str::from_utf8(name).is_ok_and(|pattern| name_fits(pattern, &wanted)));
    if is_named { Ok(()) } else { Err(refused) }
}

/// A star stands for the first label.
fn name_fits(pattern: &str, name: &str) -> bool {
    let after_star = pattern.strip_prefix('*').filter(|rest| rest.starts_with('.') && rest.len() > 1);
    match (after_star, name.split_once('.')) {
        (Some(rest), Some((label, parent))) => !label.is_empty() && rest[1..].eq_ignore_ascii_case(parent),
        (Some(_), None) => false,
        (None, _) => pattern.eq_ignore_ascii_case(name),
    }
}

fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity =
        Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    if now < validity.not_before.to_unix_duration() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The hash of a certificate by the function of its signature, MD5 and SHA-1 replaced by SHA-256 (RFC 5929, 4.1); none
/// for signatures without such a function.
pub(super) fn end_point_hash(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let function = match parsed.signature_algorithm.oid.to_string().as_str() {
        // RSA with MD5, SHA-1 and SHA-256; ECDSA with SHA-1 and SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(function, certificate).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        for (pattern, name, fits) in [
            ("db.example", "DB.example", true),
            ("*.example", "db.example", true),
            ("*.example", "a.db.example", false),
            ("*.example", "example", false),
            ("*", "db", false),
            ("*.", "db.", false),
            ("d*.example", "db.example", false),
        ] {
            assert_eq!(name_fits(pattern, name), fits, "{pattern} {name}");
        }
    }
}
