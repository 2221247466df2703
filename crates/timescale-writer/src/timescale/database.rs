//! Connections to the database: opened on demand, bounded in number and in every wait, dropped after any error.

use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Socket, Statement};
use tokio_util::task::AbortOnDropHandle;

use super::fault::Fault;
use super::offsets::FENCE;
use super::settings::ServerSettings;
use super::tls::{Connector, Stream};
use crate::copy;

/// TCP connect to one address, within the wait for the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// While a statement runs or waits for a lock, the server looks this often whether we are still there.
const CLIENT_CHECK: Duration = Duration::from_secs(1);
/// The server's word for "not this way": an entry of pg_hba.conf that wants the connection encrypted, or not.
const NOT_THIS_WAY: &str = "28000";

/// Where the database is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// How to reach it.
    pub server: ServerSettings,
    /// The longest wait for a connection, a statement or a transaction.
    pub timeout: Duration,
    /// Connections at a time.
    pub connections: usize,
}

/// A small pool of connections.
pub struct Database {
    /// One for each try that `sslmode` allows.
    tries: Vec<Config>,
    connector: Connector,
    address: String,
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    opened: Counter,
}

/// One connection with its prepared statements.
pub(crate) struct Connection {
    client: Client,
    fence: Statement,
    copy: Statement,
    /// Ends with the connection: an answer that nobody waits for must not keep the socket open.
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn fence(&self) -> &Statement {
        &self.fence
    }

    pub(crate) fn copy(&self) -> &Statement {
        &self.copy
    }
}

/// The right to use a connection. Unless it is kept, the connection is dropped with it: the one way to roll back that
/// needs no answer.
pub(crate) struct Lease<'a> {
    database: &'a Database,
    connection: Connection,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Lease<'_> {
    /// All went well: the connection may be used again.
    pub(crate) fn keep(self) {
        self.database.idle().push(self.connection);
    }
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// A connection for statements of any kind, before the tables are known to be there.
pub(crate) struct Session {
    pub(crate) client: Client,
    driver: AbortOnDropHandle<()>,
}

impl Database {
    /// A pool without connections yet.
    pub fn new(config: DatabaseConfig) -> Self {
        let DatabaseConfig { server, timeout, connections } = config;
        let address = server.address().to_owned();
        let ServerSettings { config, tls, .. } = server;
        Self {
            tries: tls.tries.iter().map(|mode| bounded(config.clone(), *mode, timeout)).collect(),
            connector: tls.connector,
            address,
            timeout,
            idle: Mutex::default(),
            permits: Semaphore::new(connections.max(1)),
            opened: crate::metrics::connections(),
        }
    }

    /// `postgres HOST:PORT/DATABASE`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A fault as one line that names the database.
    pub(crate) fn explain(&self, fault: &Fault) -> String {
        format!("{}: {}", self.address, fault.text())
    }

    /// Waits for a free place, then takes an idle connection or opens one.
    pub(crate) async fn lease(&self) -> Result<Lease<'_>, Fault> {
        // The semaphore is never closed, so a permit is all that can come; who holds one keeps to the limits.
        let permit = self.permits.acquire().await.ok();
        let connection = self.limited(self.take()).await?;
        Ok(Lease { database: self, connection, _permit: permit })
    }

    /// Bounds work on the database. Work that runs out of time is dropped, and with it the connection that it leased.
    pub(crate) async fn limited<T, E: From<Fault>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| Err(Fault::TimedOut(self.timeout).into()))
    }

    /// Opens a connection of its own, outside the pool.
    pub(crate) async fn session(&self) -> Result<Session, Fault> {
        let opening = async {
            let (client, connection) = self.connect().await?;
            let driver = AbortOnDropHandle::new(tokio::spawn(drive(connection)));
            client.batch_execute(&session_settings(self.timeout)).await?;
            Ok::<_, Fault>(Session { client, driver })
        };
        let session = self.limited(opening).await?;
        self.opened.increment(1);
        Ok(session)
    }

    /// Tries one way after the other, as long as the server or the handshake refuses the way and nothing else.
    async fn connect(&self) -> Result<(Client, Driven), Fault> {
        let mut refused = None;
        for config in &self.tries {
            match config.connect(self.connector.clone()).await.map_err(Fault::from) {
                Ok(connected) => return Ok(connected),
                Err(fault) if fault.sqlstate() == Some(NOT_THIS_WAY) || fault.is_about_tls() => refused = Some(fault),
                // What the second way says of a server that refused the first is the better answer.
                Err(fault) => return Err(fault),
            }
        }
        Err(refused.unwrap_or(Fault::TimedOut(self.timeout)))
    }

    async fn take(&self) -> Result<Connection, Fault> {
        loop {
            // Taken out in a statement of its own, so that the lock is free again before anything is awaited.
            let idle = self.idle().pop();
            match idle {
                Some(connection) if connection.client.is_closed() => {}
                Some(connection) => return Ok(connection),
                None => return self.open().await,
            }
        }
    }

    async fn open(&self) -> Result<Connection, Fault> {
        let Session { client, driver } = self.session().await?;
        let fence = client.prepare(FENCE).await?;
        let copy = client.prepare(copy::STATEMENT).await?;
        Ok(Connection { client, fence, copy, _driver: driver })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Driven = tokio_postgres::Connection<Socket, Stream>;

/// What was given, kept within our own limits.
fn bounded(mut config: Config, mode: SslMode, timeout: Duration) -> Config {
    let connect = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT).min(timeout);
    let unheard = config.get_tcp_user_timeout().copied().unwrap_or(timeout).min(timeout);
    config.ssl_mode(mode).connect_timeout(connect).tcp_user_timeout(unheard);
    config
}

/// Drives a connection to its end. Notices are dropped: a trigger's may quote rows, and the library would log them.
async fn drive(mut connection: Driven) {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return tracing::debug!(%error, "a connection to the database ended"),
            None => return,
        }
    }
}

/// Limits on the server's side: work for a client that is gone must end, and with it its locks.
fn session_settings(timeout: Duration) -> String {
    let (timeout_ms, check_ms) = (timeout.as_millis(), CLIENT_CHECK.as_millis());
    format!(
        "SET statement_timeout = {timeout_ms}; \
         SET idle_in_transaction_session_timeout = {timeout_ms}; \
         SET client_connection_check_interval = {check_ms}"
    )
}
