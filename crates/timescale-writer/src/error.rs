//! Why timescale-writer ends in failure.

use service::{ServiceError, exit};

use crate::timescale::SettingError;

/// Displays as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The consumer runtime ended.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// Checked with the other flags; a caller that builds its configuration by hand may get here.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// User or password are wrong, or a right is missing.
    #[error("{0}")]
    Forbidden(String),
    /// The two sides cannot agree on TLS.
    #[error("{0}")]
    Untrusted(String),
    /// A task found Kafka away or unwilling.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A task found the database away.
    #[error("{0}")]
    Away(String),
    /// A task that would do harm, or that nobody confirmed.
    #[error("{0}")]
    Refused(String),
    /// A task that removes rows, where nobody can be asked.
    #[error("--yes: is needed where nobody can be asked")]
    Unconfirmed,
    /// There is no such database.
    #[error("{0}")]
    NoDatabase(String),
    /// The tables are not there, are of another shape, or cannot be made.
    #[error("{0}")]
    Schema(String),
}

impl ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Pipeline(error) => error.exit_code(),
            Self::Setting(_) | Self::Unconfirmed => exit::USAGE,
            Self::Forbidden(_) => exit::NO_PERMISSION,
            Self::Untrusted(_)
            | Self::Kafka(_)
            | Self::Away(_)
            | Self::Refused(_)
            | Self::NoDatabase(_)
            | Self::Schema(_) => exit::UNAVAILABLE,
        }
    }
}
