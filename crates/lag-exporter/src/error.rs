//! Why lag-exporter ends in failure.

use service::ServiceError;

/// Displays as one line that says what to do. A cluster that is away is waited for, and once there was lag to export,
/// nothing ends it: what is wrong then is told by readiness and metrics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka refuses us from the start, and for good.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
}

impl ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Kafka(_) => service::exit::UNAVAILABLE,
        }
    }
}
