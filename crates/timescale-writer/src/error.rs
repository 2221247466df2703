//! Why timescale-writer ends in failure.

use service::{ServiceError, exit};

use crate::timescale::UrlError;

/// Displays as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The consumer runtime ended.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// Checked with the other flags; a caller that builds its configuration by hand may get here.
    #[error("--database-url: {0}")]
    Url(#[from] UrlError),
    /// User or password are wrong, or a right is missing.
    #[error("{0}")]
    Forbidden(String),
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
            Self::Url(_) => exit::USAGE,
            Self::Forbidden(_) => exit::NO_PERMISSION,
            Self::NoDatabase(_) | Self::Schema(_) => exit::UNAVAILABLE,
        }
    }
}
