//! What can go wrong between us and a cluster, named by what the caller does next.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Waiting may help: a broker is away, moves or is busy. Retry with a back-off.
    Transient,
    /// Waiting does not help: something must be changed by a person.
    Fatal,
}

/// A failed exchange with a cluster.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No TCP connection.
    #[error("cannot connect to Kafka at {address}: {source}; check --brokers and that the broker runs")]
    Connect {
        /// `host:port` that was tried.
        address: String,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The connection ended while a request was under way: whether the broker carried it out is unknown.
    #[error("the connection to Kafka at {address} ended")]
    Disconnected {
        /// `host:port` of the broker.
        address: String,
    },
    /// No answer in time: whether the broker carried the request out is unknown.
    #[error("Kafka at {address} did not answer {api} within {limit_ms} ms")]
    TimedOut {
        /// `host:port` of the broker.
        address: String,
        /// Name of the request.
        api: &'static str,
        /// The limit that passed.
        limit_ms: u128,
    },
    /// The TLS handshake failed, and will again.
    #[error("no TLS connection to Kafka at {address}: {cause}; check {check}")]
    Tls {
        /// `host:port` of the broker.
        address: String,
        /// What is wrong with whom.
        cause: String,
        /// The flag or setting that decides it.
        check: &'static str,
    },
    /// The broker's port is for another security protocol.
    #[error("Kafka at {address} expects {expects} on that port; check --kafka-security and the port in --brokers")]
    WrongListener {
        /// `host:port` of the broker.
        address: String,
        /// What the port is for: `TLS`, `no TLS`, `SASL (its mechanisms)`, `no SASL`.
        expects: String,
    },
    /// The broker does not believe that we are who we say.
    #[error("Kafka at {address} does not let us in: {cause}; check {check}")]
    Authentication {
        /// `host:port` of the broker.
        address: String,
        /// The user and the mechanism, and what the broker said, or what is wrong with what it said.
        cause: String,
        /// The flag or setting that decides it.
        check: &'static str,
    },
    /// The broker answered with an error code.
    #[error("Kafka refused {api} for {what}: {code:?}{}", hint(*code))]
    Refused {
        /// Name of the request.
        api: &'static str,
        /// The group, topic or partition that it was about.
        what: String,
        /// The broker's code.
        code: ResponseError,
    },
    /// The topic is not there (or not to be seen with our rights).
    #[error("topic {0} does not exist; create it, or use --topic-create auto")]
    UnknownTopic(String),
    /// The broker is known by number only: the cluster has not told us its address, or has lost it.
    #[error("broker {0} is not in the cluster's metadata")]
    UnknownBroker(i32),
    /// A partition has no leader at the moment.
    #[error("{0} has no leader at the moment")]
    NoLeader(String),
    /// The broker does not speak the version of a request that we need.
    #[error("Kafka at {address} does not support {api} version {needed}; Kafka 3.0 or newer is needed")]
    UnsupportedVersion {
        /// `host:port` of the broker.
        address: String,
        /// Name of the request.
        api: &'static str,
        /// The version that we need.
        needed: i16,
    },
    /// An answer that does not follow the protocol.
    #[error(
        "an answer of Kafka at {address} cannot be read ({detail}); check that --brokers names a Kafka broker's port"
    )]
    Protocol {
        /// `host:port` of the peer.
        address: String,
        /// What does not fit.
        detail: String,
    },
    /// Our own settings contradict what the cluster has.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// Whether waiting may help.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::UnknownTopic(_)
            | Self::UnknownBroker(_)
            | Self::NoLeader(_) => ErrorKind::Transient,
            Self::Refused { code, .. } if is_transient(*code) => ErrorKind::Transient,
            Self::Refused { .. }
            | Self::Tls { .. }
            | Self::WrongListener { .. }
            | Self::Authentication { .. }
            | Self::UnsupportedVersion { .. }
            | Self::Protocol { .. }
            | Self::Config(_) => ErrorKind::Fatal,
        }
    }

    /// The broker's code, where it gave one.
    pub fn code(&self) -> Option<ResponseError> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the broker knows us and does not allow it: a right is missing.
    pub fn is_denied(&self) -> bool {
        self.code().is_some_and(is_denial)
    }

    /// The request that failed, where one did.
    pub fn api(&self) -> Option<&'static str> {
        match self {
            Self::Refused { api, .. } | Self::TimedOut { api, .. } | Self::UnsupportedVersion { api, .. } => Some(api),
            _ => None,
        }
    }

    pub(crate) fn refused(api: &'static str, what: impl Into<String>, code: ResponseError) -> Self {
        Self::Refused { api, what: what.into(), code }
    }
}

pub(crate) fn is_denial(code: ResponseError) -> bool {
    matches!(
        code,
        ResponseError::TopicAuthorizationFailed
            | ResponseError::GroupAuthorizationFailed
            | ResponseError::ClusterAuthorizationFailed
    )
}

/// Codes that pass by themselves; beyond the codec's own list, what a moving cluster answers for a while.
pub(crate) fn is_transient(code: ResponseError) -> bool {
    code.is_retriable()
        || matches!(
            code,
            ResponseError::BrokerNotAvailable
                | ResponseError::RebalanceInProgress
                | ResponseError::UnknownServerError
                | ResponseError::IllegalGeneration
                | ResponseError::UnknownMemberId
                | ResponseError::StaleMemberEpoch
                | ResponseError::FencedMemberEpoch
        )
}

fn hint(code: ResponseError) -> &'static str {
    match code {
        ResponseError::TopicAuthorizationFailed => "; grant this user the right on the topic (kafka-acls.sh)",
        ResponseError::GroupAuthorizationFailed => "; grant this user the right on the group (kafka-acls.sh)",
        ResponseError::ClusterAuthorizationFailed => "; grant this user the right on the cluster (kafka-acls.sh)",
        ResponseError::InvalidGroupId => "; check --group",
        ResponseError::InvalidSessionTimeout => {
            "; the broker's group.min/max.session.timeout.ms do not allow --session-timeout"
        }
        ResponseError::InconsistentGroupProtocol => {
            "; the other members of the group offer none of our assignors: check --assignor and --group-protocol"
        }
        ResponseError::UnsupportedAssignor => "; the broker's group.consumer.assignors do not have --remote-assignor",
        ResponseError::FencedInstanceId => "; another member uses the same group.instance.id",
        _ => "",
    }
}
