//! Why the service ends in failure. What a single request gets is a [`crate::problem::Problem`].

use service::{AdminError, ServiceError, exit};

/// Named by what the operator does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address to listen on.
    #[error(transparent)]
    Listen(#[from] AdminError),
    /// A file that a flag names cannot be used.
    #[error("{flag} {file}: {remedy}")]
    File {
        /// The flag, with its dashes.
        flag: &'static str,
        /// The file.
        file: String,
        /// What is wrong with it, and what to give.
        remedy: String,
    },
    /// Kafka's topics contradict the flags.
    #[error("{0}")]
    Topics(String),
    /// A task of the service ended that never should.
    #[error("the {0} task ended by a fault of its own; see the line above")]
    Task(&'static str),
}

impl ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(error) => error.exit_code(),
            Self::File { .. } => exit::USAGE,
            Self::Topics(_) => exit::UNAVAILABLE,
            Self::Task(_) => exit::SOFTWARE,
        }
    }
}
