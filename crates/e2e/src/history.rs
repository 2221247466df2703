//! The history as a reader sees it: rows in PostgreSQL.

use std::collections::BTreeMap;

use tokio_postgres::{Client, NoTls};

use crate::events::Moment;
use crate::wait::{eventually, within};

/// One row as a test compares it; `heading` and `speed` are null where the driver did not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Degrees from north.
    pub heading: Option<f32>,
    /// Metres per second.
    pub speed: Option<f32>,
    /// The effective time, ms since the epoch.
    pub timestamp_ms: i64,
}

/// The rows of one driver, counted where they are: for tests with more of them than one would carry about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// How many.
    pub count: i64,
    /// How many different times they have.
    pub distinct: i64,
    /// The earliest time, ms since the epoch.
    pub first_ms: i64,
    /// The latest.
    pub last_ms: i64,
}

/// A database with the table `driver_locations`.
#[derive(Debug)]
pub struct History {
    url: String,
}

const MILLISECONDS: &str = "(extract(epoch from ts) * 1000)::bigint";

impl History {
    /// The database at `url`; each look connects anew, since tests stop the server.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    /// All rows of a driver, oldest first.
    ///
    /// # Errors
    /// Why there are none: no server, no table.
    pub async fn of(&self, driver: &str) -> Result<Vec<Row>, String> {
        let text = format!(
            "SELECT lat, lng, heading, speed, {MILLISECONDS} FROM driver_locations WHERE driver_id = $1 ORDER BY ts"
        );
        let rows = self.connect().await?.query(&text, &[&driver]).await.map_err(|error| error.to_string())?;
        let row = |row: &tokio_postgres::Row| Row {
            latitude: row.get(0),
            longitude: row.get(1),
            heading: row.get(2),
            speed: row.get(3),
            timestamp_ms: row.get(4),
        };
        Ok(rows.iter().map(row).collect())
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// Why they cannot be counted.
    pub async fn count(&self) -> Result<usize, String> {
        let client = self.connect().await?;
        let row = client.query_one("SELECT count(*) FROM driver_locations", &[]).await;
        let count: i64 = row.map_err(|error| error.to_string())?.get(0);
        usize::try_from(count).map_err(|error| error.to_string())
    }

    /// Every row by driver and time, with how often it is there.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn rows(&self) -> Result<BTreeMap<Moment, usize>, String> {
        let client = self.connect().await?;
        let text = format!("SELECT driver_id, {MILLISECONDS} FROM driver_locations");
        let mut rows = BTreeMap::new();
        for row in client.query(&text, &[]).await.map_err(|error| error.to_string())? {
            *rows.entry((row.get(0), row.get(1))).or_default() += 1;
        }
        Ok(rows)
    }

    /// The rows of each driver, counted.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn by_driver(&self) -> Result<BTreeMap<String, Rows>, String> {
        let client = self.connect().await?;
        let text = format!(
            "SELECT driver_id, count(*), count(DISTINCT ts), min({MILLISECONDS}), max({MILLISECONDS})
             FROM driver_locations GROUP BY driver_id"
        );
        let rows = client.query(&text, &[]).await.map_err(|error| error.to_string())?;
        let counted = |row: &tokio_postgres::Row| Rows {
            count: row.get(1),
            distinct: row.get(2),
            first_ms: row.get(3),
            last_ms: row.get(4),
        };
        Ok(rows.iter().map(|row| (row.get(0), counted(row))).collect())
    }

    /// Waits until there are as many rows as `expected`, then insists that they are exactly these, each once.
    pub async fn becomes(&self, expected: &[Moment]) {
        eventually("all records are rows", async || {
            let count = self.count().await?;
            if count >= expected.len() { Ok(()) } else { Err(format!("{count} of {} rows", expected.len())) }
        })
        .await;
        let rows = self.rows().await.expect("PostgreSQL answers");
        let twice: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).take(5).collect();
        let missing: Vec<_> = expected.iter().filter(|moment| !rows.contains_key(*moment)).take(5).collect();
        assert!(twice.is_empty() && missing.is_empty(), "rows that are there twice: {twice:?}; missing: {missing:?}");
        assert_eq!(rows.len(), expected.len(), "rows that nobody wrote");
    }

    /// Runs statements, for tests that set a table up themselves.
    pub async fn execute(&self, statements: &str) {
        let client = self.connect().await.expect("PostgreSQL answers");
        let done = within(statements, client.batch_execute(statements)).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    async fn connect(&self) -> Result<Client, String> {
        let connecting = within("PostgreSQL answers", tokio_postgres::connect(&self.url, NoTls));
        let (client, connection) = connecting.await.map_err(|error| error.to_string())?;
        // Ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }
}
