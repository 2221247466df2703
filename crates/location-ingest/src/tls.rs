//! TLS for drivers' connections: the certificate is read again when its files change, without a connection noticing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tracing::{info, warn};

use crate::config::Args;
use crate::error::Error;

/// What a client may choose from; the first is preferred.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
pub(crate) const HTTP2: &[u8] = b"h2";

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// The present certificate.
pub(crate) struct Tls {
    files: Files,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// None without the flags.
    pub(crate) fn load(args: &Args) -> Result<Option<Self>, Error> {
        let (Some(certificate), Some(key)) = (&args.tls_certificate, &args.tls_key) else { return Ok(None) };
        let files = Files { certificate: certificate.clone(), key: key.clone(), client_ca: args.tls_client_ca.clone() };
        let config = RwLock::new(Arc::new(files.read()?));
        Ok(Some(Self { files, config }))
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// Follows the files for ever. While they do not belong together (one has been replaced, the other not yet), the
    /// certificate of before stays.
    pub(crate) async fn follow(&self) {
        let Files { certificate, key, client_ca } = self.files.clone();
        let files = [Some(certificate), Some(key), client_ca].into_iter().flatten().collect();
        crate::reload::watch(files, || match self.files.read() {
            Ok(config) => {
                info!("certificate read again");
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
            }
            Err(error) => warn!("{error}; the certificate of before stays"),
        })
        .await;
    }
}

impl Files {
    fn read(&self) -> Result<ServerConfig, Error> {
        let chain = certificates("--tls-certificate", &self.certificate)?;
        let pem = contents("--tls-key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            unusable("--tls-key", &self.key, format!("{error}; give an unencrypted private key in PEM form"))
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("--tls-certificate", &self.certificate, error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("--tls-client-ca", file)? {
                    roots.add(certificate).map_err(|error| unusable("--tls-client-ca", file, error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| unusable("--tls-client-ca", file, error.to_string()))?,
                )
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            unusable("--tls-key", &self.key, format!("{error}; give the key that belongs to the certificate"))
        })?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

fn certificates(flag: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = contents(flag, file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(flag, file, "no certificate in it; give a file in PEM form".to_owned())),
        Err(error) => Err(unusable(flag, file, format!("{error}; give certificates in PEM form"))),
    }
}

fn contents(flag: &'static str, file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file)
        .map_err(|error| unusable(flag, file, format!("cannot be read ({error}); give a file that we may read")))
}

fn unusable(flag: &'static str, file: &Path, remedy: String) -> Error {
    Error::File { flag, file: file.display().to_string(), remedy }
}
