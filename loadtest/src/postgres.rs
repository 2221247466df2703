//! The rows as PostgreSQL has them, streamed: the table of a full run does not fit anywhere twice.

use std::time::{Duration, UNIX_EPOCH};

use futures::TryStreamExt;
use tokio::time::timeout;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, NoTls};

/// Limit for connecting and for a short query.
const QUERY_WITHIN: Duration = Duration::from_secs(10);
/// Every row that timescale-writer has written.
const ROWS: &str = "COPY (SELECT driver_id, ts FROM driver_locations) TO STDOUT (FORMAT binary)";

/// What the database could not do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// It refused, or could not be reached.
    #[error("PostgreSQL failed to {what}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: Error,
    },
    /// No answer in time.
    #[error("PostgreSQL did not {what} within {} s", QUERY_WITHIN.as_secs())]
    TimedOut {
        /// What was tried.
        what: &'static str,
    },
}

/// One connection.
pub struct Postgres {
    client: Client,
}

impl Postgres {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self, PostgresError> {
        let (client, connection) = limited("connect", tokio_postgres::connect(url, NoTls)).await?;
        // Ends with the client; what ails it shows in the client's own calls.
        tokio::spawn(connection);
        Ok(Self { client })
    }

    /// Gives driver id and effective time in milliseconds of every row to `look`.
    pub async fn rows(&self, mut look: impl FnMut(&str, i64)) -> Result<u64, PostgresError> {
        let failed = |source| PostgresError::Failed { what: "read driver_locations", source };
        let stream = self.client.copy_out(ROWS).await.map_err(failed)?;
        let mut rows = std::pin::pin!(BinaryCopyOutStream::new(stream, &[Type::TEXT, Type::TIMESTAMPTZ]));
        let mut count = 0;
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let ts: std::time::SystemTime = row.try_get(1).map_err(failed)?;
            look(row.try_get(0).map_err(failed)?, millis(ts));
            count += 1;
        }
        Ok(count)
    }

    /// Version of the server, and of TimescaleDB where the extension is.
    pub async fn versions(&self) -> Result<(String, Option<String>), PostgresError> {
        let server = limited("tell its version", self.client.query_one("SHOW server_version", &[])).await?;
        let extension = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";
        let timescale = limited("list its extensions", self.client.query_opt(extension, &[])).await?;
        // Packagers add their own version in parentheses.
        let server = server.get::<_, &str>(0).split_whitespace().next().unwrap_or_default().to_owned();
        Ok((server, timescale.map(|row| row.get(0))))
    }
}

fn millis(ts: std::time::SystemTime) -> i64 {
    match ts.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => i64::MIN,
    }
}

async fn limited<T>(what: &'static str, call: impl Future<Output = Result<T, Error>>) -> Result<T, PostgresError> {
    let answered = timeout(QUERY_WITHIN, call).await.map_err(|_| PostgresError::TimedOut { what })?;
    answered.map_err(|source| PostgresError::Failed { what, source })
}
