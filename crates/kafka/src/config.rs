//! What a connection to a cluster needs; every limit has a name and a value of ours.

use std::time::Duration;

use ::tls::Tls;

use crate::sasl::Sasl;

/// How long a TCP connection and its handshake may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a broker may take to answer, beyond the time that the request itself lets it wait.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read: a fetch of `fetch_max_bytes` may grow by one batch of the topic's `max.message.bytes`.
pub(crate) const MAX_RESPONSE_BYTES: usize = 128 * 1024 * 1024;

/// How connections are secured; by default not at all.
///
/// TLS hides what is sent and tells the broker's identity, SASL (or a certificate of ours in TLS) tells ours.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Kafka's protocols SSL and SASL_SSL.
    pub tls: Option<Tls>,
    /// Kafka's protocols SASL_PLAINTEXT and SASL_SSL.
    pub sasl: Option<Sasl>,
}

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port` of some brokers; the others are learned from them.
    pub brokers: Vec<String>,
    /// Name under which the broker logs and meters us (`client.id`).
    pub client_id: String,
    /// How every connection is secured.
    pub security: Security,
    /// Limit for connecting, handshake included.
    pub connect_timeout: Duration,
    /// Limit for one answer.
    pub request_timeout: Duration,
}

impl ClientConfig {
    /// The named limits of this module, for `client_id` on `brokers`, without security.
    pub fn new(brokers: Vec<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers,
            client_id: client_id.into(),
            security: Security::default(),
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
        }
    }

    /// The same over connections that are secured.
    #[must_use]
    pub fn secured(mut self, security: Security) -> Self {
        self.security = security;
        self
    }
}
