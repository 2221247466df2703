//! What can go wrong between a bare machine and a running stack, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// A failure of the stack or of a process of ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that the machine lacks and that could not be installed; the text is one line with the remedy.
    #[error("{0}")]
    Missing(String),
    /// A file, a directory or a pipe refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "create", "write".
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program of a set-up step failed.
    #[error("{what} failed: {detail}")]
    Step {
        /// The step.
        what: String,
        /// What it said.
        detail: String,
    },
    /// A process ended while something was awaited of it.
    #[error("{name} ended ({status}) before it was ready; the end of {}:\n{tail}", log.display())]
    Ended {
        /// Its name.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of that file since this start.
        tail: String,
    },
    /// A server ended at once because somebody else has its port, or, after a kill, still has its memory.
    #[error("{name} cannot start, its port or its memory is taken; the end of {}:\n{tail}", log.display())]
    Taken {
        /// Its name.
        name: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of that file since this start.
        tail: String,
    },
    /// A process did not become ready in time.
    #[error("{name} was not ready within {limit:?} ({last}); the end of {}:\n{tail}", log.display())]
    NotReady {
        /// Its name.
        name: String,
        /// The limit.
        limit: Duration,
        /// What the last question got for an answer.
        last: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of that file since this start.
        tail: String,
    },
    /// Something awaited did not come true in time.
    #[error("{what}: not within {limit:?}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// Two stacks cannot share a directory.
    #[error("{} is in use by another stack (process {holder}): stop that one or choose another directory", dir.display())]
    DirInUse {
        /// The directory.
        dir: PathBuf,
        /// The process number that its lock file names.
        holder: String,
    },
    /// The directory holds files that no stack put there; they are not ours to remove.
    #[error("{} holds other files: choose a directory that is empty or was a stack's before", dir.display())]
    ForeignDir {
        /// The directory.
        dir: PathBuf,
    },
    /// Every port that was tried is taken.
    #[error("no free port of 127.0.0.1 between {from} and {to}: stop what listens there")]
    NoFreePort {
        /// The first port of the range.
        from: u16,
        /// The port after its last.
        to: u16,
    },
    /// The process is being stopped as a whole, nothing new is started.
    #[error("everything is being stopped")]
    Stopping,
}

impl Error {
    /// For `map_err`: what was tried, on which path.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether another try may succeed.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }
}
