//! Why a bench did not come to a figure.

use std::path::PathBuf;

/// Whatever went wrong, the figures of the run are worth nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The servers.
    #[error(transparent)]
    Native(#[from] native::Error),
    /// Our client.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A file or a process.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A client under measurement failed, or did other work than it was told to.
    #[error("{0}")]
    Client(String),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// For `map_err` of another client's errors.
    pub(crate) fn client(error: impl std::fmt::Display) -> Self {
        Self::Client(error.to_string())
    }
}
