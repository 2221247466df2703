//! Why a run could not be played to its end.

use crate::audit::AuditError;
use crate::witness::WitnessError;

/// The end of a run before its time. The messages name what to look at.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The servers or services did not start.
    #[error(transparent)]
    Start(#[from] native::Error),
    /// A thread or a socket was refused.
    #[error("the load could not be started: {0}")]
    Load(#[from] std::io::Error),
    /// The topic is not what the run is made for.
    #[error("the topic cannot be used: {0}")]
    Topic(String),
    /// A service ended that should run.
    #[error("{0}")]
    Fallen(String),
    /// The independent client failed.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The counting failed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A part of this program panicked; it has said why.
    #[error("{0} ended unexpectedly")]
    Panicked(&'static str),
}

impl RunError {
    /// The error on one line, as a report lists it.
    #[must_use]
    pub fn line(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
    }
}
