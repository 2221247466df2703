//! Sockets: a bounded number of connections, time limits for slow clients, and a drain that finishes what was accepted.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use service::AdminError;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::config::Args;
use crate::error::Error;
use crate::routes::{self, App};

/// Connections that the system completes before we accept them.
const BACKLOG: u32 = 1024;
/// Largest header of a request, and so the smallest read buffer that hyper allows.
const HEADER_MAX_BYTES: usize = 16 << 10;
/// Pause after an accept that failed for want of descriptors or memory: trying again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// File descriptors beside the connections: brokers, admin server, logs.
const SPARE_DESCRIPTORS: u64 = 64;

/// The listening socket and its limits.
pub(crate) struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    places: Arc<Semaphore>,
    max_connections: usize,
    http: http1::Builder,
    shutdown: CancellationToken,
}

impl Server {
    pub(crate) async fn bind(args: &Args, shutdown: CancellationToken) -> Result<Self, Error> {
        let failed = |source| AdminError::new("--listen", args.listen, source);
        let listener = listen(args.listen).map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        raise_descriptors(args.max_connections);
        Ok(Self {
            listener,
            local_addr,
            places: Arc::new(Semaphore::new(args.max_connections)),
            max_connections: args.max_connections,
            http: http(args),
            shutdown,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A reading of how many connections are open.
    pub(crate) fn connections(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let (places, max) = (Arc::clone(&self.places), self.max_connections);
        move || max.saturating_sub(places.available_permits())
    }

    /// Accepts until shutdown or until `watched` ends in failure, then waits for the requests under way.
    pub(crate) async fn run(self, app: Arc<App>, mut watched: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
        let connections = TaskTracker::new();
        let result = tokio::select! {
            () = self.accept(&app, &connections) => Ok(()),
            ended = &mut watched => ended.unwrap_or(Err(Error::Task("kafka"))),
        };
        // From here on a new connection is refused by the system itself.
        drop(self.listener);
        self.shutdown.cancel();
        connections.close();
        connections.wait().await;
        watched.abort();
        result
    }

    async fn accept(&self, app: &Arc<App>, connections: &TaskTracker) {
        loop {
            let next = async {
                let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = self.shutdown.cancelled() => return,
                next = next => next,
            };
            match accepted {
                Ok((stream, _)) => self.spawn(stream, place, app, connections),
                Err(error) if is_connections_own(&error) => {}
                Err(error) => {
                    warn!(%error, "cannot accept connections; check the limit of open files (ulimit -n)");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, place: OwnedSemaphorePermit, app: &Arc<App>, connections: &TaskTracker) {
        // Answers are one small write each; waiting for more to send along would only delay them.
        let _ = stream.set_nodelay(true);
        let (app, shutdown) = (Arc::clone(app), self.shutdown.clone());
        let service = service_fn(move |request| routes::answer(Arc::clone(&app), request));
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            let _place = place;
            let mut connection = pin!(connection);
            let mut stopping = pin!(shutdown.cancelled());
            // What a client does wrong on its connection ends that connection and concerns nobody else.
            tokio::select! {
                biased;
                _ = &mut connection => return,
                () = &mut stopping => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
}

fn http(args: &Args) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(args.header_timeout)
        .max_buf_size(HEADER_MAX_BYTES)
        // Head and body of an answer fit into one small buffer: one plain write.
        .writev(false);
    http
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for old connections of the same port to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Errors of the connection that was just accepted; the next one may be fine.
fn is_connections_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Raises the soft limit of open files as far as allowed, and says so when that is too little for the connections.
fn raise_descriptors(max_connections: usize) {
    let needed = max_connections as u64 + SPARE_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < needed && setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).is_err() || hard < needed {
        let limit = soft.max(hard);
        warn!(
            "--max-connections {max_connections}: only {limit} files may be open; raise the limit (ulimit -n) to {needed} or \
             give fewer connections"
        );
    }
}
