//! What a broker's port speaks, found out when a connection to it ends without a word: a broker that is spoken to in
//! the wrong protocol just closes, as does one that goes away. Only what it shows on another connection decides.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::tls::{Authorities, Tls};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::SaslHandshakeRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::Error as RustlsError;

use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::Error;
use crate::sasl;
use crate::tls;

/// Of the time for connecting, so that the answer comes while somebody waits for it.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// No mechanism has this name: a broker that wants SASL answers with those that it takes.
const NO_MECHANISM: &str = "NONE";
const SASL_HANDSHAKE_VERSION: i16 = 1;
/// ApiVersions (18), version 0, correlation 1, no client id: what every broker without TLS answers.
const API_VERSIONS_REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
/// A Kafka broker's list of versions is far below this.
const API_VERSIONS_MAX_BYTES: u32 = 1 << 20;

/// Why a TLS handshake failed, or a connection ended before its first answer.
pub(crate) async fn explain_end(address: &str, config: &ClientConfig, end: io::Error) -> Error {
    let wrong_protocol = match &config.security.tls {
        Some(tls) => match tls::lasting_fault(tls, address, &end) {
            Some(fault) => return fault,
            None => within(speaks_kafka(address)).await.then_some("no TLS"),
        },
        None => within(speaks_tls(address)).await.then_some("TLS"),
    };
    if let Some(expects) = wrong_protocol {
        return wrong(address, expects);
    }
    match tls::rustls_error(&end) {
        Some(RustlsError::InvalidMessage(_)) => {
            let cause = "it does not speak TLS".to_owned();
            Error::Tls { address: address.to_owned(), cause, check: "--brokers and --kafka-security" }
        }
        None if end.kind() == io::ErrorKind::InvalidData => {
            Error::Protocol { address: address.to_owned(), detail: end.to_string() }
        }
        _ => Error::Connect { address: address.to_owned(), source: Arc::new(end) },
    }
}

/// Why a connection without SASL ended on its first request, if that is because the broker wants SASL.
pub(crate) async fn explain_silence(address: &str, config: &ClientConfig) -> Option<Error> {
    let asked = async {
        let connection = Connection::reach(address, config).await.ok()?;
        let request = sasl::handshake(NO_MECHANISM);
        connection.ask::<SaslHandshakeRequest>(SASL_HANDSHAKE_VERSION, &request, PROBE_LIMIT).await.ok()
    };
    let answer = tokio::time::timeout(config.connect_timeout, asked).await.ok()??;
    let wants_sasl = answer.error_code == ResponseError::UnsupportedSaslMechanism.code();
    wants_sasl.then(|| wrong(address, &format!("SASL ({})", sasl::mechanisms(&answer))))
}

fn wrong(address: &str, expects: &str) -> Error {
    Error::WrongListener { address: address.to_owned(), expects: expects.to_owned() }
}

async fn within(probe: impl Future<Output = io::Result<bool>>) -> bool {
    matches!(tokio::time::timeout(PROBE_LIMIT, probe).await, Ok(Ok(true)))
}

async fn speaks_kafka(address: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&API_VERSIONS_REQUEST).await?;
    let length = stream.read_u32().await?;
    let correlation_id = stream.read_u32().await?;
    Ok(length < API_VERSIONS_MAX_BYTES && correlation_id == 1)
}

/// It does if it shows us a certificate, or refuses us in the words of TLS.
async fn speaks_tls(address: &str) -> io::Result<bool> {
    let trusting_nobody = Tls::new(Authorities::none(), None).map_err(io::Error::other)?;
    let name = tls::server_name(address).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    Ok(match tls::handshake(&trusting_nobody, name, stream).await {
        Ok(_) => true,
        Err(error) => matches!(
            tls::rustls_error(&error),
            Some(RustlsError::InvalidCertificate(_) | RustlsError::AlertReceived(_) | RustlsError::PeerIncompatible(_))
        ),
    })
}
