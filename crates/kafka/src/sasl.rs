//! Who we are to a broker: SASL PLAIN and SCRAM over the SaslHandshake and SaslAuthenticate requests (KIP-43, KIP-152),
//! and how long a broker lets that hold (KIP-368).

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::error::Error;
use crate::scram::{self, ClientFirst, Hash};

/// With this version the mechanism's bytes travel in SaslAuthenticate requests instead of bare.
const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSION: i16 = 2;
/// Random bytes of a nonce: as many as make guessing hopeless.
const NONCE_BYTES: usize = 18;
/// A connection is replaced after this share of the time that its session lasts.
const RENEW_AFTER_PERCENT: u32 = 80;
const CHECK_CREDENTIALS: &str = "--kafka-sasl-username and the password";

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password as it is: only inside TLS.
    Plain,
    /// RFC 7677.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Something that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from every log.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For whoever must hand it over.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// A user, and how it proves to be that user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How.
    pub mechanism: SaslMechanism,
    /// The user; not empty, without NUL.
    pub username: String,
    /// The user's password; not empty, without NUL.
    pub password: Secret,
}

/// Makes the broker know us; answers with the moment from which on another connection should be used.
pub(crate) async fn authenticate(
    connection: &Connection,
    sasl: &Sasl,
    limit: Duration,
) -> Result<Option<Instant>, Error> {
    let exchange = Exchange { connection, sasl, limit };
    exchange.agree().await?;
    match sasl.mechanism {
        SaslMechanism::Plain => exchange.plain().await,
        SaslMechanism::ScramSha256 => exchange.scram(Hash::Sha256).await,
        SaslMechanism::ScramSha512 => exchange.scram(Hash::Sha512).await,
    }
}

struct Exchange<'a> {
    connection: &'a Connection,
    sasl: &'a Sasl,
    limit: Duration,
}

impl Exchange<'_> {
    async fn agree(&self) -> Result<(), Error> {
        let answer =
            self.connection.call(HANDSHAKE_VERSION, &handshake(self.sasl.mechanism.name()), self.limit).await?;
        let Some(code) = answer.error_code.err() else { return Ok(()) };
        Err(match code {
            ResponseError::UnsupportedSaslMechanism => {
                let cause = format!("it takes {}", mechanisms(&answer));
                self.refused(&cause, "--kafka-sasl-mechanism")
            }
            ResponseError::IllegalSaslState => {
                Error::WrongListener { address: self.connection.address().to_owned(), expects: "no SASL".to_owned() }
            }
            code => self.failed("SaslHandshake", code),
        })
    }

    async fn plain(&self) -> Result<Option<Instant>, Error> {
        let Sasl { username, password, .. } = self.sasl;
        let message = format!("\0{username}\0{}", password.reveal());
        let begun = Instant::now();
        let answer = self.send(message.into_bytes()).await?;
        Ok(renew_at(begun, &answer))
    }

    async fn scram(&self, hash: Hash) -> Result<Option<Instant>, Error> {
        let nonce = BASE64.encode(rand::random::<[u8; NONCE_BYTES]>());
        let first = ClientFirst::new(hash, &self.sasl.username, &self.sasl.password, nonce);
        let challenge = self.send(first.message().into_bytes()).await?;
        let last = first.answer(&challenge.auth_bytes).map_err(|fault| self.fault(&fault))?;
        let begun = Instant::now();
        let answer = self.send(last.message().to_owned().into_bytes()).await?;
        last.verify(&answer.auth_bytes).map_err(|fault| self.fault(&fault))?;
        Ok(renew_at(begun, &answer))
    }

    async fn send(&self, message: Vec<u8>) -> Result<SaslAuthenticateResponse, Error> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
        let answer = self.connection.call(AUTHENTICATE_VERSION, &request, self.limit).await?;
        match answer.error_code.err() {
            None => Ok(answer),
            Some(ResponseError::SaslAuthenticationFailed) => {
                let cause = answer.error_message.map_or_else(|| "wrong user or password".to_owned(), |m| m.to_string());
                Err(self.refused(&cause, CHECK_CREDENTIALS))
            }
            Some(code) => Err(self.failed("SaslAuthenticate", code)),
        }
    }

    fn fault(&self, fault: &scram::Fault) -> Error {
        let check = match fault {
            scram::Fault::Refused(_) => CHECK_CREDENTIALS,
            scram::Fault::Signature => "--brokers and that nobody stands in between",
            scram::Fault::Malformed(_) | scram::Fault::Iterations(_) => "--brokers and --kafka-sasl-mechanism",
        };
        self.refused(&fault.to_string(), check)
    }

    fn refused(&self, cause: &str, check: &'static str) -> Error {
        let Sasl { username, mechanism, .. } = self.sasl;
        let cause = format!("user {username} by {}: {cause}", mechanism.name());
        Error::Authentication { address: self.connection.address().to_owned(), cause, check }
    }

    fn failed(&self, api: &'static str, code: ResponseError) -> Error {
        Error::refused(api, format!("user {} (--kafka-sasl-username)", self.sasl.username), code)
    }
}

pub(crate) fn handshake(mechanism: &'static str) -> SaslHandshakeRequest {
    SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism))
}

/// What a broker offers instead.
pub(crate) fn mechanisms(answer: &SaslHandshakeResponse) -> String {
    answer.mechanisms.iter().map(StrBytes::as_str).collect::<Vec<_>>().join(", ")
}

/// The session's time runs from when the broker answers; counting from our question is on the safe side.
fn renew_at(asked_at: Instant, answer: &SaslAuthenticateResponse) -> Option<Instant> {
    let lifetime = u64::try_from(answer.session_lifetime_ms).ok().filter(|lifetime| *lifetime > 0)?;
    Some(asked_at + Duration::from_millis(lifetime) * RENEW_AFTER_PERCENT / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let password = Secret::new("hunter2");
        let sasl = Sasl { mechanism: SaslMechanism::Plain, username: "u".to_owned(), password };
        assert!(!format!("{sasl:?} {sasl:#?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_session_is_renewed_before_it_ends_and_one_without_end_never() {
        let now = Instant::now();
        let lasting = |ms| SaslAuthenticateResponse::default().with_session_lifetime_ms(ms);
        assert_eq!(renew_at(now, &lasting(10_000)), Some(now + Duration::from_secs(8)));
        assert_eq!(renew_at(now, &lasting(0)), None);
    }
}
