//! TLS of a client: whom it trusts and who it is, read from PEM, as a configuration of rustls on *ring*.
//!
//! Shared by everything that speaks TLS to a server whose name must be in its certificate; what a failed handshake means
//! is said by each of them, for each knows which flag to blame.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, Error as RustlsError, InconsistentKeys, RootCertStore};

/// What is wrong with a file of certificates or keys: an instruction to whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPem(String);

/// Whose signature makes a server's certificate good.
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
    pub fn none() -> Self {
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

/// How connections are made secret, and the server known. Clones share resumable sessions.
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
    /// TLS 1.2 and 1.3; with `identity`, the server learns from our certificate who we are.
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

    /// What rustls is given: certificates are checked, name included.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Whether we can show a certificate.
    pub fn has_identity(&self) -> bool {
        self.has_identity
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

#[cfg(test)]
mod tests {
    use super::*;

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
