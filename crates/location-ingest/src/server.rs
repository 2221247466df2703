//! Sockets: HTTP/1.1 and HTTP/2, with TLS or without; a bounded number of connections, time limits for slow clients, and a drain that finishes what was accepted.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use service::AdminError;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::config::Args;
use crate::error::Error;
use crate::problem;
use crate::routes::{self, App};
use crate::tls::{self, Tls};

/// Connections that the system completes before we accept them.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory: trying again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The first bytes of a connection that speaks HTTP/2 without having asked (RFC 9113, prior knowledge).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A preface that comes byte by byte is looked at again after so long.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// Requests at once on one HTTP/2 connection, and the bytes it may send before we have read them.
const STREAMS_MAX: u32 = 128;
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// File descriptors beside the connections: brokers, admin server, logs.
const SPARE_DESCRIPTORS: u64 = 64;

/// The listening socket and its limits.
pub(crate) struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    places: Arc<Semaphore>,
    max_connections: usize,
    protocols: Arc<Protocols>,
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
            protocols: Arc::new(Protocols::new(args)?),
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

    /// Follows the certificate's files for ever, if there are any.
    pub(crate) fn follow(&self) -> impl Future<Output = ()> + Send + 'static {
        let protocols = Arc::clone(&self.protocols);
        async move {
            if let Some(tls) = &protocols.tls {
                tls.follow().await;
            }
        }
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
        // A client that does not take its answers loses its connection, instead of keeping a place for ever.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.protocols.client_timeout));
        let connection = Connection {
            protocols: Arc::clone(&self.protocols),
            app: Arc::clone(app),
            shutdown: self.shutdown.clone(),
        };
        connections.spawn(async move {
            let _place = place;
            connection.serve(stream).await;
        });
    }
}

/// How connections are spoken to.
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Tls>,
    client_timeout: Duration,
}

impl Protocols {
    fn new(args: &Args) -> Result<Self, Error> {
        Ok(Self { http1: http1(args), http2: http2(args), tls: Tls::load(args)?, client_timeout: args.header_timeout })
    }
}

/// One connection. What a client does wrong on it ends it and concerns nobody else.
struct Connection {
    protocols: Arc<Protocols>,
    app: Arc<App>,
    shutdown: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let limit = self.protocols.client_timeout;
        let Some(tls) = &self.protocols.tls else {
            let is_http2 = tokio::select! {
                () = self.shutdown.cancelled() => false,
                first = tokio::time::timeout(limit, speaks_http2(&stream)) => match first {
                    Ok(is_http2) => is_http2,
                    Err(_) => return,
                },
            };
            return self.drive(stream, is_http2).await;
        };
        let handshake = tokio::time::timeout(limit, tls.acceptor().accept(stream));
        let Ok(Ok(stream)) = handshake.await else { return };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
        self.drive(stream, is_http2).await;
    }

    async fn drive<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, is_http2: bool) {
        let stream = TokioIo::new(stream);
        if is_http2 {
            // Larger than all that an HTTP/1.1 connection holds, and seldom: it must not make every task as large.
            Box::pin(self.drive_http2(stream)).await;
        } else {
            self.drive_http1(stream).await;
        }
    }

    async fn drive_http1<S: Read + Write + Unpin>(self, stream: S) {
        let Self { protocols, app, shutdown } = self;
        let answering = Arc::clone(&app);
        let service = service_fn(move |request| routes::answer(Arc::clone(&answering), request));
        let mut connection = pin!(protocols.http1.serve_connection(stream, service));
        let mut stopping = pin!(shutdown.cancelled());
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            () = &mut stopping => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        match ended {
            Err(error) if error.is_parse_too_large() => app.metrics.problem_of(problem::HEADER_TOO_LARGE),
            Err(error) if error.is_timeout() => app.metrics.problem_of(problem::HEADER_TOO_SLOW),
            _ => {}
        }
    }

    async fn drive_http2<S: Read + Write + Unpin>(self, stream: S) {
        let Self { protocols, app, shutdown } = self;
        let service = service_fn(move |request| routes::answer(Arc::clone(&app), request));
        let mut connection = pin!(protocols.http2.serve_connection(stream, service));
        let mut stopping = pin!(shutdown.cancelled());
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = &mut stopping => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// Whether the connection begins with HTTP/2's preface; nothing is taken from it.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut first = [0; PREFACE.len()];
    loop {
        let Ok(count) = stream.peek(&mut first).await else { return false };
        let begun = first.get(..count).unwrap_or_default();
        if begun.len() == PREFACE.len() || begun.is_empty() || !PREFACE.starts_with(begun) {
            return begun == PREFACE;
        }
        // Peeking does not wait for more than there is.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

fn http1(args: &Args) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(args.header_timeout)
        .max_buf_size(args.max_header)
        // Head and body of an answer fit into one small buffer: one plain write.
        .writev(false);
    http
}

fn http2(args: &Args) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(args.header_timeout)
        .keep_alive_timeout(args.header_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(args.max_header).unwrap_or(u32::MAX));
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
