//! TLS to a broker: whom we trust, who we are, and what a failed handshake means.
//!
//! The broker's certificate is always checked, name included: it must be for the host by which the broker is addressed.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as RustlsError, InconsistentKeys, RootCertStore,
};

use crate::error::Error;

const CHECK_CA: &str = "--kafka-tls-ca";
const CHECK_IDENTITY: &str = "--kafka-tls-certificate and --kafka-tls-key";
const CHECK_NAME: &str = "--brokers and the broker's advertised.listeners";
const CHECK_VALIDITY: &str = "the broker's certificate and this machine's clock";
const CHECK_CERTIFICATE: &str = "the broker's certificate";
const CHECK_SUITES: &str = "the broker's ssl.enabled.protocols and ssl.cipher.suites";

/// What is wrong with a file of certificates or keys: an instruction to whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPem(String);

/// Whose signature makes a broker's certificate good.
#[derive(Debug, Clone)]
pub struct Authorities(RootCertStore);

impl Authorities {
    /// Those that this system trusts.
    ///
    /// # Errors
    /// It has none.
    pub fn of_system() -> Result<Self, BadPem> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (added, _unreadable) = store.add_parsable_certificates(found.certs);
        if added > 0 {
            return Ok(Self(store));
        }
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        Err(BadPem(format!("this system has no CA certificates{why}; install them (ca-certificates) or give your own")))
    }

    /// None: every certificate is bad.
    pub(crate) fn none() -> Self {
        Self(RootCertStore::empty())
    }

    /// Those of a PEM file, and no others.
    ///
    /// # Errors
    /// There is none in it, or one cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadPem> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(pem)? {
            store.add(certificate).map_err(|error| BadPem(format!("a certificate in it cannot be read ({error})")))?;
        }
        Ok(Self(store))
    }
}

/// Our certificate and those that lead from it to its authority.
#[derive(Debug, Clone)]
pub struct CertificateChain(Vec<CertificateDer<'static>>);

impl CertificateChain {
    /// Our own certificate comes first.
    ///
    /// # Errors
    /// There is none in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadPem> {
        certificates(pem).map(Self)
    }
}

/// The key of our certificate; never printed.
#[derive(Debug)]
pub struct PrivateKey(PrivateKeyDer<'static>);

impl PrivateKey {
    /// PKCS#8, PKCS#1 or SEC1, without a password.
    ///
    /// # Errors
    /// There is none in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadPem> {
        let wanted = "give an unencrypted private key in PEM form (PKCS#8, PKCS#1 or SEC1)";
        PrivateKeyDer::from_pem_slice(pem).map(Self).map_err(|error| BadPem(format!("{error}; {wanted}")))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadPem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(BadPem("no certificate in it; give a file in PEM form (-----BEGIN CERTIFICATE-----)".to_owned()))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(BadPem(format!("no certificates in PEM form ({error})"))),
    }
}

/// How connections are made secret, and the broker known. Clones share resumable sessions.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    has_identity: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tls").field("has_identity", &self.has_identity).finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS 1.2 and 1.3; with `identity`, the broker learns from our certificate who we are.
    ///
    /// # Errors
    /// The key is not that of the certificate, or of a kind that is not known.
    pub fn new(trusted: Authorities, identity: Option<(CertificateChain, PrivateKey)>) -> Result<Self, BadPem> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| BadPem(error.to_string()))?
            .with_root_certificates(trusted.0);
        let has_identity = identity.is_some();
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain.0, key.0).map_err(|error| unfit(&error))?,
        };
        Ok(Self { config: Arc::new(config), has_identity })
    }

    pub(crate) async fn handshake(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        // The connector's future is large, and this is done once a connection.
        Box::pin(TlsConnector::from(Arc::clone(&self.config)).connect(name, stream)).await
    }

    /// What a handshake, or the first answer after it, failed of, if that stays so until somebody changes something.
    pub(crate) fn lasting_fault(&self, address: &str, error: &io::Error) -> Option<Error> {
        let (cause, check) = match rustls_error(error)? {
            RustlsError::InvalidCertificate(error) => of_certificate(address, error),
            RustlsError::AlertReceived(alert) => self.of_alert(*alert)?,
            RustlsError::InvalidMessage(_) => return None,
            other => (other.to_string(), CHECK_SUITES),
        };
        Some(Error::Tls { address: address.to_owned(), cause, check })
    }

    fn of_alert(&self, alert: AlertDescription) -> Option<(String, &'static str)> {
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
                let cause =
                    if self.has_identity { "it does not take our certificate" } else { "it wants a certificate" };
                Some((format!("{cause} ({alert:?})"), CHECK_IDENTITY))
            }
            alert => Some((format!("it refuses the handshake ({alert:?})"), CHECK_SUITES)),
        }
    }
}

fn unfit(error: &RustlsError) -> BadPem {
    match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            BadPem("this is not the key of the certificate; give the one that belongs to it".to_owned())
        }
        other => BadPem(format!("it cannot be used ({other})")),
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

    #[test]
    fn files_without_what_is_looked_for_say_so() {
        for nothing in [&b""[..], b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let error = Authorities::from_pem(nothing).unwrap_err();
            assert!(error.to_string().contains("no certificate in it"), "{error}");
        }
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(CertificateChain::from_pem(cut).unwrap_err().to_string().contains("PEM"));
        let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Authorities::from_pem(no_certificate).unwrap_err().to_string().contains("cannot be read"));
        assert!(PrivateKey::from_pem(b"").unwrap_err().to_string().contains("private key"));
    }
}
