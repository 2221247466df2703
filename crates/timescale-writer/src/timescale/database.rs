//! Connections to the database: opened on demand, bounded in number and in every wait, dropped after any error.

use std::future::poll_fn;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, NoTls, Socket, Statement};
use tokio_util::task::AbortOnDropHandle;

use super::fault::Fault;
use super::offsets::FENCE;
use crate::INFO;
use crate::copy;

/// TCP connect to one address, within the wait for the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word is noticed after idle + retries × interval.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// While a statement runs or waits for a lock, the server looks this often whether we are still there.
const CLIENT_CHECK: Duration = Duration::from_secs(1);
const DEFAULT_PORT: u16 = 5432;
const URL_FORM: &str = "give postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE";

/// Where the database is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `postgres://…`, or libpq's `key=value` form.
    pub url: String,
    /// The longest wait for a connection, a statement or a transaction.
    pub timeout: Duration,
    /// Connections at a time.
    pub connections: usize,
}

/// Why a URL cannot be used; says what would be right and never shows the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

/// Checks a URL without connecting.
///
/// # Errors
/// What is wrong and what would be right.
pub fn check_url(url: &str) -> Result<(), UrlError> {
    parse(url).map(drop)
}

fn parse(url: &str) -> Result<Config, UrlError> {
    // The parser's own message is not repeated: it may quote a part of the password.
    let config = Config::from_str(url).map_err(|_| UrlError(URL_FORM.to_owned()))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(UrlError(format!("there is no host; {URL_FORM}")));
    }
    if config.get_dbname().is_none() {
        return Err(UrlError(format!("there is no database; {URL_FORM}")));
    }
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Ok(config),
        _ => Err(UrlError("TLS is not built in; leave sslmode out, or give disable or prefer".to_owned())),
    }
}

/// A small pool of connections.
pub struct Database {
    config: Config,
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
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn new(config: &DatabaseConfig) -> Result<Self, UrlError> {
        let mut server = parse(&config.url)?;
        server
            .application_name(INFO.name)
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .tcp_user_timeout(config.timeout)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        Ok(Self {
            address: address(&server),
            config: server,
            timeout: config.timeout,
            idle: Mutex::default(),
            permits: Semaphore::new(config.connections.max(1)),
            opened: crate::metrics::connections(),
        })
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
            let (client, connection) = self.config.connect(NoTls).await?;
            let driver = tokio::spawn(drive(connection));
            let driver = AbortOnDropHandle::new(driver);
            client.batch_execute(&session_settings(self.timeout)).await?;
            Ok::<_, Fault>(Session { client, driver })
        };
        let session = self.limited(opening).await?;
        self.opened.increment(1);
        Ok(session)
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

/// Drives a connection to its end. Notices are dropped: a trigger's may quote rows, and the library would log them.
async fn drive(mut connection: tokio_postgres::Connection<Socket, NoTlsStream>) {
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

fn address(config: &Config) -> String {
    let named = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let numbered = config.get_hostaddrs().iter().map(ToString::to_string);
    let hosts: Vec<String> = if config.get_hosts().is_empty() { numbered.collect() } else { named.collect() };
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    let servers: Vec<_> = hosts.iter().enumerate().map(|(index, host)| format!("{host}:{}", port(index))).collect();
    format!("postgres {}/{}", servers.join(","), config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_has_no_credentials() {
        let address = |url| address(&parse(url).unwrap());
        assert_eq!(address("postgres://user:secret@db.example:6543/locations"), "postgres db.example:6543/locations");
        assert_eq!(address("postgres://user@[::1]/l?password=secret"), "postgres ::1:5432/l");
        assert_eq!(address("host=a,b port=1,2 user=u password=secret dbname=d"), "postgres a:1,b:2/d");
    }

    #[test]
    fn a_wrong_url_is_refused_without_showing_it() {
        for wrong in [
            "",
            "mysql://u:secret@h/d",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@/d",
            "postgres://u:secret@h",
            "postgres://u:secret@h/d?sslmode=require",
            "host=h password=secret secret",
        ] {
            let error = check_url(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains('\n'), "{wrong}: {error}");
        }
    }
}
