//! One connection to one broker: TCP, TLS and SASL as configured, then frames, correlation ids, versions and time limits.
//!
//! A writer task and a reader task own the two halves of the socket, so that a caller that gives up never leaves half
//! a frame behind. Requests may be pipelined; the broker answers them in order, one at a time (so a long poll wants a
//! connection of its own: see [`crate::cluster::Lane`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes, VersionRange};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{ClientConfig, MAX_RESPONSE_BYTES};
use crate::error::Error;
use crate::pending::{Pending, Waiting};
use crate::{listener, sasl, tls};

/// Frames waiting for the socket; more callers than this wait for room.
const WRITE_QUEUE: usize = 64;
/// A dead peer (no FIN: a cut cable, a stopped machine) is found out within about this time also on an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// What every broker since Kafka 2.4 reads.
const API_VERSIONS_VERSION: i16 = 3;
/// What cannot be said in an older version of the request: topic ids (KIP-516), many groups at a time (KIP-699, KIP-709).
/// Kafka has them all since 3.0.
const NEEDED: [(ApiKey, &str, i16); 3] = [
    (ApiKey::Metadata, "Metadata", 10),
    (ApiKey::FindCoordinator, "FindCoordinator", 4),
    (ApiKey::OffsetFetch, "OffsetFetch", 8),
];

/// A live connection. Dropping it closes the socket and fails what is under way.
pub(crate) struct Connection {
    address: String,
    config: ClientConfig,
    client_id: StrBytes,
    frames: mpsc::Sender<Bytes>,
    pending: Arc<Pending>,
    next_id: AtomicI32,
    versions: HashMap<i16, VersionRange>,
    /// A request of the caller's has been answered: the broker takes us as we come.
    proven: AtomicBool,
    /// When the broker's trust in us is about to end.
    renew_at: Option<Instant>,
    tasks: [JoinHandle<()>; 2],
}

impl Connection {
    /// Connects, asks for the versions that the broker speaks, and makes it know us.
    pub(crate) async fn open(address: &str, config: &ClientConfig) -> Result<Self, Error> {
        let limit = config.connect_timeout;
        let connecting = async {
            let mut connection = Self::reach(address, config).await?;
            if let Some(sasl) = &config.security.sasl {
                connection.renew_at = sasl::authenticate(&connection, sasl, limit).await?;
            }
            Ok(connection)
        };
        tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
            let source = Arc::new(std::io::Error::from(std::io::ErrorKind::TimedOut));
            Err(Error::Connect { address: address.to_owned(), source })
        })
    }

    /// What comes before the broker asks who we are.
    pub(crate) async fn reach(address: &str, config: &ClientConfig) -> Result<Self, Error> {
        let stream = connect_tcp(address).await?;
        let (mut connection, end) = match &config.security.tls {
            None => {
                let (read, write) = stream.into_split();
                Self::spawn(address, config, read, write)
            }
            Some(tls) => match tls::handshake(tls, tls::server_name(address)?, stream).await {
                Ok(stream) => {
                    let (read, write) = tokio::io::split(stream);
                    Self::spawn(address, config, read, write)
                }
                Err(end) => return Err(Box::pin(listener::explain_end(address, config, end)).await),
            },
        };
        match connection.ask_versions(config.connect_timeout).await {
            Ok(versions) => connection.versions = versions,
            // In TLS 1.3 the broker says only now what it thinks of our certificate.
            Err(Error::Disconnected { .. }) => {
                let end = end.await.unwrap_or_else(|_| std::io::ErrorKind::UnexpectedEof.into());
                return Err(Box::pin(listener::explain_end(address, config, end)).await);
            }
            Err(error) => return Err(error),
        }
        Ok(connection)
    }

    /// The connection, and what its reading end will end with.
    fn spawn<R, W>(address: &str, config: &ClientConfig, read: R, write: W) -> (Self, oneshot::Receiver<std::io::Error>)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (frames, queue) = mpsc::channel(WRITE_QUEUE);
        let pending = Arc::new(Pending::default());
        let (ended, end) = oneshot::channel();
        let tasks = [
            tokio::spawn(write_frames(write, queue, Arc::clone(&pending))),
            tokio::spawn(read_frames(read, Arc::clone(&pending), address.to_owned(), ended)),
        ];
        let connection = Self {
            address: address.to_owned(),
            config: config.clone(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            frames,
            pending,
            next_id: AtomicI32::new(0),
            versions: HashMap::new(),
            proven: AtomicBool::new(false),
            renew_at: None,
            tasks,
        };
        (connection, end)
    }

    /// `host:port` of the broker.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether the socket is known to be dead.
    pub(crate) fn is_closed(&self) -> bool {
        self.pending.is_closed()
    }

    /// Whether another connection should take its place before the broker ends this one.
    pub(crate) fn is_stale(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= Instant::now())
    }

    /// Waits until every request has its answer or has been given up.
    pub(crate) async fn idle(&self) {
        self.pending.emptied().await;
    }

    /// Ends it: whoever waits for an answer is told so.
    pub(crate) fn close(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.pending.close();
    }

    /// Sends `request` in the highest version up to `version` that the broker speaks and waits for the answer.
    ///
    /// # Errors
    /// [`Error::TimedOut`] and [`Error::Disconnected`] leave open whether the broker carried it out.
    pub(crate) async fn call<R: Request>(
        &self,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, Error> {
        match self.ask(version, request, limit).await {
            // A broker that wants SASL ends the connection on the first request that is none of it.
            Err(error @ Error::Disconnected { .. }) if !self.is_proven() => {
                Err(Box::pin(listener::explain_silence(&self.address, &self.config)).await.unwrap_or(error))
            }
            Ok(answer) => {
                self.proven.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) => Err(error),
        }
    }

    fn is_proven(&self) -> bool {
        self.config.security.sasl.is_some() || self.proven.load(Ordering::Relaxed)
    }

    /// As [`Connection::call`], without asking why when there is no answer.
    pub(crate) async fn ask<R: Request>(
        &self,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, Error> {
        let version = self.negotiate::<R>(version)?;
        let mut body = self.exchange::<R>(version, request, limit).await?;
        decode_response::<R>(&mut body, version).map_err(|error| self.protocol_error(&error))
    }

    fn negotiate<R: Request>(&self, wanted: i16) -> Result<i16, Error> {
        let spoken = self.versions.get(&R::KEY);
        match spoken {
            Some(range) if range.min <= wanted => Ok(wanted.min(range.max)),
            _ => Err(self.too_old(api_name::<R>(), wanted)),
        }
    }

    async fn exchange<R: Request>(&self, version: i16, request: &R, limit: Duration) -> Result<Bytes, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = self.encode_frame(id, version, request).map_err(|error| self.protocol_error(&error))?;
        let answer = self.pending.register(id).ok_or_else(|| self.disconnected())?;
        let _waiting = Waiting::new(&self.pending, id);
        let round_trip = async {
            self.frames.send(frame).await.map_err(|_| self.disconnected())?;
            answer.await.map_err(|_| self.disconnected())
        };
        tokio::time::timeout(limit, round_trip).await.unwrap_or_else(|_| {
            Err(Error::TimedOut { address: self.address.clone(), api: api_name::<R>(), limit_ms: limit.as_millis() })
        })
    }

    fn encode_frame<R: Request>(&self, id: i32, version: i16, request: &R) -> Result<Bytes, String> {
        let mut header = RequestHeader::default();
        header.request_api_key = R::KEY;
        header.request_api_version = version;
        header.correlation_id = id;
        header.client_id = Some(self.client_id.clone());
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version)).map_err(|error| error.to_string())?;
        request.encode(&mut frame, version).map_err(|error| error.to_string())?;
        let length = i32::try_from(frame.len() - 4).map_err(|_| "the request is larger than 2 GiB".to_owned())?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame.freeze())
    }

    async fn ask_versions(&self, limit: Duration) -> Result<HashMap<i16, VersionRange>, Error> {
        let mut request = ApiVersionsRequest::default();
        request.client_software_name = StrBytes::from_static_str("driver-location");
        request.client_software_version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
        let mut body = self.exchange(API_VERSIONS_VERSION, &request, limit).await?;
        if is_refusal(&body) {
            return Err(self.too_old("ApiVersions", API_VERSIONS_VERSION));
        }
        let answer = decode_response::<ApiVersionsRequest>(&mut body, API_VERSIONS_VERSION)
            .map_err(|error| self.protocol_error(&error))?;
        let ranges = answer.api_keys.iter();
        let spoken: HashMap<_, _> =
            ranges.map(|key| (key.api_key, VersionRange { min: key.min_version, max: key.max_version })).collect();
        let lacks = |key: ApiKey, version| spoken.get(&(key as i16)).is_none_or(|range| range.max < version);
        match NEEDED.iter().find(|(key, _, version)| lacks(*key, *version)) {
            Some((_, api, version)) => Err(self.too_old(api, *version)),
            None => Ok(spoken),
        }
    }

    fn too_old(&self, api: &'static str, needed: i16) -> Error {
        Error::UnsupportedVersion { address: self.address.clone(), api, needed }
    }

    fn disconnected(&self) -> Error {
        Error::Disconnected { address: self.address.clone() }
    }

    fn protocol_error(&self, detail: &str) -> Error {
        Error::Protocol { address: self.address.clone(), detail: detail.to_owned() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

fn decode_response<R: Request>(body: &mut Bytes, version: i16) -> Result<R::Response, String> {
    ResponseHeader::decode(body, R::Response::header_version(version)).map_err(|error| error.to_string())?;
    R::Response::decode(body, version).map_err(|error| error.to_string())
}

/// Whether this is an old broker's answer to a version of ApiVersions that it does not know: version 0 (KIP-511), which
/// begins with the code, behind the correlation id.
fn is_refusal(body: &Bytes) -> bool {
    body.get(4..6) == Some(&ResponseError::UnsupportedVersion.code().to_be_bytes()[..])
}

/// The protocol's name of a request, for messages and metrics.
pub(crate) fn api_name<R: Request>() -> &'static str {
    match ApiKey::try_from(R::KEY) {
        Ok(ApiKey::Produce) => "Produce",
        Ok(ApiKey::Fetch) => "Fetch",
        Ok(ApiKey::ListOffsets) => "ListOffsets",
        Ok(ApiKey::Metadata) => "Metadata",
        Ok(ApiKey::OffsetCommit) => "OffsetCommit",
        Ok(ApiKey::OffsetFetch) => "OffsetFetch",
        Ok(ApiKey::FindCoordinator) => "FindCoordinator",
        Ok(ApiKey::JoinGroup) => "JoinGroup",
        Ok(ApiKey::Heartbeat) => "Heartbeat",
        Ok(ApiKey::LeaveGroup) => "LeaveGroup",
        Ok(ApiKey::SyncGroup) => "SyncGroup",
        Ok(ApiKey::DescribeGroups) => "DescribeGroups",
        Ok(ApiKey::ListGroups) => "ListGroups",
        Ok(ApiKey::ApiVersions) => "ApiVersions",
        Ok(ApiKey::SaslHandshake) => "SaslHandshake",
        Ok(ApiKey::SaslAuthenticate) => "SaslAuthenticate",
        Ok(ApiKey::CreateTopics) => "CreateTopics",
        Ok(ApiKey::DeleteTopics) => "DeleteTopics",
        Ok(ApiKey::InitProducerId) => "InitProducerId",
        Ok(ApiKey::DescribeConfigs) => "DescribeConfigs",
        Ok(ApiKey::CreatePartitions) => "CreatePartitions",
        _ => "a request",
    }
}

async fn connect_tcp(address: &str) -> Result<TcpStream, Error> {
    let failed = |source| Error::Connect { address: address.to_owned(), source: Arc::new(source) };
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(failed)?;
    Ok(stream)
}

async fn write_frames(mut socket: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Bytes>, pending: Arc<Pending>) {
    while let Some(frame) = queue.recv().await {
        // TLS may keep the end of a frame until it is asked to let go.
        if socket.write_all(&frame).await.is_err() || socket.flush().await.is_err() {
            break;
        }
    }
    pending.close();
}

async fn read_frames(
    mut socket: impl AsyncRead + Unpin,
    pending: Arc<Pending>,
    address: String,
    ended: oneshot::Sender<std::io::Error>,
) {
    // The callers learn of the end by their dropped channels; the reason is worth a line for whoever debugs.
    if let Err(error) = read_until_end(&mut socket, &pending).await {
        tracing::debug!(%address, %error, "connection to kafka ended");
        // Only while the connection is being made does somebody want to know.
        let _ = ended.send(error);
    }
    pending.close();
}

async fn read_until_end(socket: &mut (impl AsyncRead + Unpin), pending: &Pending) -> std::io::Result<()> {
    loop {
        let length = usize::try_from(socket.read_i32().await?).unwrap_or(usize::MAX);
        if !(4..=MAX_RESPONSE_BYTES).contains(&length) {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let mut body = BytesMut::with_capacity(length);
        while body.len() < length {
            let room = length - body.len();
            if socket.read_buf(&mut (&mut body).limit(room)).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let body = body.freeze();
        let id = (&body[..4]).get_i32();
        pending.complete(id, body);
    }
}
