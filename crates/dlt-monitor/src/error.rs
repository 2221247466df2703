//! Why dlt-monitor ends in failure.

use service::{ServiceError, exit};

/// Displays as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The consumer runtime of the service ended.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// What was asked for cannot be: a flag, a line of an import, a topic or a right that is missing. Nothing was sent.
    #[error("{0}")]
    Input(String),
    /// Kafka is away, or not as it should be.
    #[error("{0}")]
    Kafka(kafka::Error),
    /// Kafka did not take what was to be sent.
    #[error("{0}")]
    Unsent(String),
    /// Somebody else is at it, or nobody agreed.
    #[error("{0}")]
    Refused(String),
    /// A file cannot be read or written.
    #[error("{0}")]
    File(String),
    /// Something asks first, and there is nobody to be asked.
    #[error("--yes: is needed where nobody can be asked")]
    Unconfirmed,
}

impl From<kafka::Error> for Error {
    /// A missing topic or right is the operator's to mend: it is bad input, as a wrong flag is.
    fn from(error: kafka::Error) -> Self {
        match error {
            kafka::Error::UnknownTopic(topic) => {
                Self::Input(format!("topic {topic} does not exist; check --topic, --dead-letter-topic and --to"))
            }
            denied if denied.is_denied() => Self::Input(denied.to_string()),
            error => Self::Kafka(error),
        }
    }
}

impl ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Pipeline(error) => error.exit_code(),
            Self::Input(_) | Self::Unconfirmed => exit::USAGE,
            Self::Kafka(_) | Self::Unsent(_) | Self::Refused(_) | Self::File(_) => exit::UNAVAILABLE,
        }
    }
}
