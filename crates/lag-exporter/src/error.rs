//! Why lag-exporter ends in failure.

use service::ServiceError;

/// Nothing ends it once its flags are checked and its port is open: a cluster that is away or refuses is retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

impl ServiceError for Error {
    fn exit_code(&self) -> u8 {
        match *self {}
    }
}
