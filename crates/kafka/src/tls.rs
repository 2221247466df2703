//! TLS to a broker: the handshake, and what a failed one means.
//!
//! The broker's certificate is always checked, name included: it must be for the host by which the broker is addressed.

use std::io;
use std::sync::Arc;

use ::tls::Tls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as RustlsError};

use crate::error::Error;

const CHECK_CA: &str = "--kafka-tls-ca";
const CHECK_IDENTITY: &str = "--kafka-tls-certificate and --kafka-tls-key";
const CHECK_NAME: &str = "--brokers and the broker's advertised.listeners";
const CHECK_VALIDITY: &str = "the broker's certificate and this machine's clock";
const CHECK_CERTIFICATE: &str = "the broker's certificate";
const CHECK_SUITES: &str = "the broker's ssl.enabled.protocols and ssl.cipher.suites";

pub(crate) async fn handshake(
    tls: &Tls,
    name: ServerName<'static>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    // The connector's future is large, and this is done once a connection.
    Box::pin(TlsConnector::from(Arc::clone(tls.config())).connect(name, stream)).await
}

/// What a handshake, or the first answer after it, failed of, if that stays so until somebody changes something.
pub(crate) fn lasting_fault(tls: &Tls, address: &str, error: &io::Error) -> Option<Error> {
    let (cause, check) = match rustls_error(error)? {
        RustlsError::InvalidCertificate(error) => of_certificate(address, error),
        RustlsError::AlertReceived(alert) => of_alert(tls, *alert)?,
        RustlsError::InvalidMessage(_) => return None,
        other => (other.to_string(), CHECK_SUITES),
    };
    Some(Error::Tls { address: address.to_owned(), cause, check })
}

fn of_alert(tls: &Tls, alert: AlertDescription) -> Option<(String, &'static str)> {
    use AlertDescription as A;
    match alert {
        // The broker's own trouble, or its end.
        A::InternalError | A::UserCanceled | A::CloseNotify => None,
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::CertificateRequired
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => {
            let cause = if tls.has_identity() { "it does not take our certificate" } else { "it wants a certificate" };
            Some((format!("{cause} ({alert:?})"), CHECK_IDENTITY))
        }
        alert => Some((format!("it refuses the handshake ({alert:?})"), CHECK_SUITES)),
    }
}

/// The name that the broker's certificate must have: the host of its address.
pub(crate) fn server_name(address: &str) -> Result<ServerName<'static>, Error> {
    let host = host(address);
    ServerName::try_from(host.to_owned()).map_err(|error| Error::Tls {
        address: address.to_owned(),
        cause: format!("{host} is no host name or IP address ({error})"),
        check: CHECK_NAME,
    })
}

/// `[::1]:9092` and `::1:9092` as `::1`.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

pub(crate) fn rustls_error(error: &io::Error) -> Option<&RustlsError> {
    error.get_ref()?.downcast_ref()
}

fn of_certificate(address: &str, error: &CertificateError) -> (String, &'static str) {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => ("its certificate is of no CA that we trust".to_owned(), CHECK_CA),
        E::BadSignature => ("its certificate is not signed by the CA that it names".to_owned(), CHECK_CA),
        E::NotValidForName => (format!("its certificate is not for {}", host(address)), CHECK_NAME),
        E::NotValidForNameContext { presented, .. } => {
            (format!("its certificate is for {}, not for {}", list(presented), host(address)), CHECK_NAME)
        }
        E::Expired | E::ExpiredContext { .. } => ("its certificate has expired".to_owned(), CHECK_VALIDITY),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            ("its certificate is not valid yet".to_owned(), CHECK_VALIDITY)
        }
        other => (format!("its certificate is no good ({other})"), CHECK_CERTIFICATE),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_what_a_certificate_must_name() {
        for (address, expected) in [
            ("kafka-0.kafka:9092", "kafka-0.kafka"),
            ("10.0.0.1:9092", "10.0.0.1"),
            ("[::1]:9092", "::1"),
            ("::1:9092", "::1"),
        ] {
            assert_eq!(host(address), expected);
            assert_eq!(server_name(address).unwrap().to_str(), expected);
        }
        let error = server_name("a b:9092").unwrap_err();
        assert!(error.to_string().contains("a b") && error.to_string().contains("--brokers"), "{error}");
    }
}
