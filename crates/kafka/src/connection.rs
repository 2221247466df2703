//! One TCP connection to one broker: frames, correlation ids, versions and time limits.
//!
//! A writer task and a reader task own the two halves of the socket, so that a caller that gives up never leaves half
//! a frame behind. Requests may be pipelined; the broker answers them in order, one at a time (so a long poll wants a
//! connection of its own: see [`crate::cluster::Lane`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes, VersionRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::{ClientConfig, MAX_RESPONSE_BYTES};
use crate::error::Error;

/// Frames waiting for the socket; more callers than this wait for room.
const WRITE_QUEUE: usize = 64;
/// A dead peer (no FIN: a cut cable, a stopped machine) is found out within about this time also on an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// ApiVersions 3 is what every broker since Kafka 2.4 reads; an older one answers in version 0.
const API_VERSIONS_VERSION: i16 = 3;

/// A live connection. Dropping it closes the socket and fails what is under way.
pub(crate) struct Connection {
    address: String,
    client_id: StrBytes,
    frames: mpsc::Sender<Bytes>,
    pending: Arc<Pending>,
    next_id: AtomicI32,
    versions: HashMap<i16, VersionRange>,
    tasks: [JoinHandle<()>; 2],
}

/// Requests that wait for their answer, by correlation id; `None` once the connection is over.
#[derive(Default)]
struct Pending(Mutex<PendingState>);

#[derive(Default)]
struct PendingState {
    closed: bool,
    waiting: HashMap<i32, oneshot::Sender<Bytes>>,
}

impl Pending {
    fn lock(&self) -> std::sync::MutexGuard<'_, PendingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, id: i32) -> Option<oneshot::Receiver<Bytes>> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        state.waiting.insert(id, tx);
        Some(rx)
    }

    fn complete(&self, id: i32, body: Bytes) {
        // A caller that has given up is no longer waiting: its answer is dropped here.
        if let Some(waiter) = self.lock().waiting.remove(&id) {
            let _ = waiter.send(body);
        }
    }

    fn forget(&self, id: i32) {
        self.lock().waiting.remove(&id);
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
    }
}

impl Connection {
    /// Connects and asks for the versions that the broker speaks.
    pub(crate) async fn open(address: &str, config: &ClientConfig) -> Result<Self, Error> {
        let limit = config.connect_timeout;
        let connecting = async {
            let stream = connect_tcp(address).await?;
            let mut connection = Self::spawn(address, config, stream);
            connection.versions = connection.ask_versions(limit).await?;
            Ok(connection)
        };
        tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
            let source = Arc::new(std::io::Error::from(std::io::ErrorKind::TimedOut));
            Err(Error::Connect { address: address.to_owned(), source })
        })
    }

    fn spawn(address: &str, config: &ClientConfig, stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        let (frames, queue) = mpsc::channel(WRITE_QUEUE);
        let pending = Arc::new(Pending::default());
        let tasks = [
            tokio::spawn(write_frames(write, queue, Arc::clone(&pending))),
            tokio::spawn(read_frames(read, Arc::clone(&pending), address.to_owned())),
        ];
        Self {
            address: address.to_owned(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            frames,
            pending,
            next_id: AtomicI32::new(0),
            versions: HashMap::new(),
            tasks,
        }
    }

    /// `host:port` of the broker.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether the socket is known to be dead.
    pub(crate) fn is_closed(&self) -> bool {
        self.pending.lock().closed
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
        let version = self.negotiate::<R>(version)?;
        let mut body = self.exchange::<R>(version, request, limit).await?;
        decode_response::<R>(&mut body, version).map_err(|error| self.protocol_error(&error))
    }

    fn negotiate<R: Request>(&self, wanted: i16) -> Result<i16, Error> {
        let spoken = self.versions.get(&R::KEY);
        match spoken {
            Some(range) if range.min <= wanted => Ok(wanted.min(range.max)),
            _ => Err(Error::UnsupportedVersion { address: self.address.clone(), api: api_name::<R>(), needed: wanted }),
        }
    }

    async fn exchange<R: Request>(&self, version: i16, request: &R, limit: Duration) -> Result<Bytes, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = self.encode_frame(id, version, request).map_err(|error| self.protocol_error(&error))?;
        let answer = self.pending.register(id).ok_or_else(|| self.disconnected())?;
        let round_trip = async {
            self.frames.send(frame).await.map_err(|_| self.disconnected())?;
            answer.await.map_err(|_| self.disconnected())
        };
        tokio::time::timeout(limit, round_trip).await.unwrap_or_else(|_| {
            self.pending.forget(id);
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
        let answer = decode_response::<ApiVersionsRequest>(&mut body, API_VERSIONS_VERSION)
            .map_err(|error| self.protocol_error(&error))?;
        let ranges = answer.api_keys.iter();
        Ok(ranges.map(|key| (key.api_key, VersionRange { min: key.min_version, max: key.max_version })).collect())
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
        self.tasks.iter().for_each(JoinHandle::abort);
        self.pending.close();
    }
}

fn decode_response<R: Request>(body: &mut Bytes, version: i16) -> Result<R::Response, String> {
    ResponseHeader::decode(body, R::Response::header_version(version)).map_err(|error| error.to_string())?;
    R::Response::decode(body, version).map_err(|error| error.to_string())
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

async fn write_frames(mut socket: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>, pending: Arc<Pending>) {
    while let Some(frame) = queue.recv().await {
        if socket.write_all(&frame).await.is_err() {
            break;
        }
    }
    pending.close();
}

async fn read_frames(mut socket: OwnedReadHalf, pending: Arc<Pending>, address: String) {
    // The callers learn of the end by their dropped channels; the reason is worth a line for whoever debugs.
    if let Err(error) = read_until_end(&mut socket, &pending).await {
        tracing::debug!(%address, %error, "connection to kafka ended");
    }
    pending.close();
}

async fn read_until_end(socket: &mut OwnedReadHalf, pending: &Pending) -> std::io::Result<()> {
    loop {
        let length = usize::try_from(socket.read_i32().await?).unwrap_or(usize::MAX);
        if !(4..=MAX_RESPONSE_BYTES).contains(&length) {
            return Err(std::io::Error::other(format!("a frame of {length} bytes")));
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
