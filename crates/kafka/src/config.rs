//! What a connection to a cluster needs; every limit has a name and a value of ours.

use std::time::Duration;

/// How long a TCP connection and its handshake may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a broker may take to answer, beyond the time that the request itself lets it wait.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read: a fetch of `fetch_max_bytes` may grow by one batch of the topic's `max.message.bytes`.
pub(crate) const MAX_RESPONSE_BYTES: usize = 128 * 1024 * 1024;

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port` of some brokers; the others are learned from them.
    pub brokers: Vec<String>,
    /// Name under which the broker logs and meters us (`client.id`).
    pub client_id: String,
    /// Limit for connecting, handshake included.
    pub connect_timeout: Duration,
    /// Limit for one answer.
    pub request_timeout: Duration,
}

impl ClientConfig {
    /// The named limits of this module, for `client_id` on `brokers`.
    pub fn new(brokers: Vec<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers,
            client_id: client_id.into(),
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}
