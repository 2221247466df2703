//! Why lag-exporter ends in failure.

use std::io;

use service::ServiceError;

/// Displays as one line that says what to do. A cluster that is away is waited for, and once there was lag to export,
/// nothing ends the service: what is wrong then is told by readiness and metrics. The subcommand ends with what it meets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka refuses us from the start, and for good; or it does not answer the subcommand.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The subcommand's answer cannot be written.
    #[error("the answer cannot be written: {0}")]
    Output(io::Error),
}

impl ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Kafka(_) | Self::Output(_) => service::exit::UNAVAILABLE,
        }
    }
}
