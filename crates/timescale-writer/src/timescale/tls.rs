//! TLS to the database with libpq's `sslmode`s, on rustls.
//!
//! ```text
//! sslmode      first try   second try, if the first is refused     certificate
//! disable      plain
//! allow        plain       TLS                                     checked if there are roots
//! prefer       TLS         plain                                   checked if there are roots
//! require      TLS                                                 checked if there are roots
//! verify-ca    TLS                                                 checked
//! verify-full  TLS                                                 checked, and its name
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::certificate::{self, Roots, Verifier};

/// What PostgreSQL 17 and its direct negotiation want to hear; older servers do not listen.
const ALPN: &[u8] = b"postgresql";
/// Value of `sslrootcert` for the roots of the operating system.
const SYSTEM: &str = "system";
const ROOT: u32 = 0;
/// Rights of others that a key's file must not give: all, or where it is root's, all but the group's reading.
const OPEN_TO_OTHERS: u32 = 0o077;
const OPEN_TO_OTHERS_OF_ROOT: u32 = 0o037;

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

pub(super) const MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

/// Where certificates and key are.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsFiles {
    pub(super) roots: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// How to connect: what to try in turn, and with which certificates.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) tries: &'static [SslMode],
    pub(super) connector: Connector,
}

/// The keyword to blame, and what would be right.
pub(super) type TlsError = (&'static str, String);

impl Tls {
    /// No TLS at all.
    pub(super) fn off() -> Self {
        Self { tries: &[SslMode::Disable], connector: Connector { config: None } }
    }

    /// Reads the files.
    pub(super) fn new(mode: Option<TlsMode>, files: &TlsFiles) -> Result<Self, TlsError> {
        let from_system = files.roots.as_deref() == Some(Path::new(SYSTEM));
        let mode = mode.unwrap_or(if from_system { TlsMode::VerifyFull } else { TlsMode::Prefer });
        if from_system && mode != TlsMode::VerifyFull {
            return Err((
                "sslrootcert",
                "the system's roots certify anybody; use them with sslmode=verify-full".into(),
            ));
        }
        let roots = match &files.roots {
            Some(_) if from_system => Some(system_roots()?),
            Some(path) => Some(read_roots(path)?),
            None if matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull) => {
                let remedy =
                    "needs sslrootcert: the file of the authority that signed the server's certificate, or system";
                return Err(("sslmode", remedy.to_owned()));
            }
            None => None,
        };
        let verifier = Verifier::new(roots, mode == TlsMode::VerifyFull, ring::default_provider());
        let config = client_config(verifier, files)?;
        Ok(Self { tries: tries(mode), connector: Connector { config: Some(Arc::new(config)) } })
    }
}

fn tries(mode: TlsMode) -> &'static [SslMode] {
    match mode {
        TlsMode::Disable => &[SslMode::Disable],
        TlsMode::Allow => &[SslMode::Disable, SslMode::Require],
        TlsMode::Prefer => &[SslMode::Prefer, SslMode::Disable],
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => &[SslMode::Require],
    }
}

fn client_config(verifier: Verifier, files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ("sslmode", error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &files.certificate {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let key = read_key(files.key.as_deref().ok_or(("sslcert", "needs sslkey as well".to_owned()))?)?;
            let chain = read_certificates("sslcert", path)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| ("sslcert", error.to_string()))?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn read_roots(path: &Path) -> Result<Roots, TlsError> {
    let certificates = read_certificates("sslrootcert", path)?;
    let mut store = RootCertStore::empty();
    let (taken, _) = store.add_parsable_certificates(certificates.iter().cloned());
    if taken == 0 {
        return Err(("sslrootcert", format!("{}: holds no X.509 v3 certificate", path.display())));
    }
    Ok(Roots { store, certificates })
}

fn system_roots() -> Result<Roots, TlsError> {
    let found = rustls_native_certs::load_native_certs().certs;
    let mut store = RootCertStore::empty();
    match store.add_parsable_certificates(found) {
        (0, _) => Err(("sslrootcert", "this system has no trusted roots; install its ca-certificates".to_owned())),
        _ => Ok(Roots { store, certificates: Vec::new() }),
    }
}

fn read_certificates(keyword: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why: String| (keyword, format!("{}: {why}", path.display()));
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(wrong("holds no certificate in PEM form".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// The key of our certificate. As with libpq, a file that others may read is refused.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong = |why: String| ("sslkey", format!("{}: {why}", path.display()));
    let about = fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    let forbidden = if about.uid() == ROOT { OPEN_TO_OTHERS_OF_ROOT } else { OPEN_TO_OTHERS };
    if about.mode() & forbidden != 0 {
        return Err(wrong("others may read it; set its mode to 0600".to_owned()));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(error.to_string()))
}

/// Makes TLS connections for tokio-postgres.
#[derive(Clone)]
pub(super) struct Connector {
    config: Option<Arc<ClientConfig>>,
}

/// One connection to be made. Made for plain connections too, so a name that TLS cannot use is no error yet.
pub(super) struct Handshake {
    config: Option<Arc<ClientConfig>>,
    name: Result<ServerName<'static>, InvalidDnsNameError>,
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, io::Error> {
        Ok(Handshake { config: self.config.clone(), name: ServerName::try_from(domain.to_owned()) })
    }
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Stream, io::Error>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let config = self.config.ok_or_else(|| io::Error::other("TLS is off"))?;
            let name = self.name.map_err(io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, socket).await?;
            Ok(Stream(Box::new(stream)))
        })
    }
}

/// An encrypted connection.
pub(super) struct Stream(Box<tokio_rustls::client::TlsStream<Socket>>);

impl TlsStream for Stream {
    /// RFC 5929, tls-server-end-point: the password's exchange is bound to this server's certificate.
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let end_entity = session.peer_certificates().and_then(<[_]>::first);
        end_entity
            .and_then(certificate::end_point_hash)
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
