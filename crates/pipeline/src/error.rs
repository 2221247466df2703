//! Why a pipeline ends in failure.

/// Displays as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka refuses us for good.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Settings that contradict each other.
    #[error("{0}")]
    Settings(String),
    /// The sink refuses us before anything was consumed.
    #[error("{0}")]
    Denied(String),
    /// TLS: the sink and we do not trust each other.
    #[error("{0}")]
    Untrusted(String),
}

impl service::ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Kafka(_) | Self::Untrusted(_) => service::exit::UNAVAILABLE,
            Self::Settings(_) => service::exit::USAGE,
            Self::Denied(_) => service::exit::NO_PERMISSION,
        }
    }
}
