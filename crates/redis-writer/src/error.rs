//! Why redis-writer ends in failure.

use service::{ServiceError, Usage, exit};

use crate::redis::UrlError;

/// Displays as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The consumer runtime ended.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// Checked with the other flags; a caller that builds its configuration by hand may get here.
    #[error("--redis-url: {0}")]
    Url(#[from] UrlError),
    /// A file of the flags has changed since they were checked.
    #[error(transparent)]
    Flag(#[from] Usage),
}

impl ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Pipeline(error) => error.exit_code(),
            Self::Url(_) | Self::Flag(_) => exit::USAGE,
        }
    }
}
