//! The admin server: /metrics, /healthz and /readyz on `--metrics-listen`, alive from before the service runs until after its drain.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::health::{Health, Readiness};
use crate::{exit, process, recorder};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Render = Arc<dyn Fn() -> Bytes + Send + Sync>;

/// The admin server of a service; it stops when the last clone is dropped.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    _tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

struct Shared {
    health: Health,
    recorder: PrometheusHandle,
    extra: Mutex<Vec<Render>>,
}

/// The address cannot be listened on. Displays as one line with flag, address and remedy.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: {}", remedy(.source))]
pub struct AdminError {
    flag: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl AdminError {
    /// A listening address that failed, of `--metrics-listen` or of a service's own flag.
    #[must_use]
    pub fn new(flag: &'static str, address: SocketAddr, source: io::Error) -> Self {
        Self { flag, address, source }
    }

    /// Whether somebody else listens there.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// 77 where the system forbids it, 69 else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => exit::NO_PERMISSION,
            _ => exit::UNAVAILABLE,
        }
    }
}

fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop the other process or give another port (0 takes any free one)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; give one of its own, 127.0.0.1 or 0.0.0.0".to_owned()
        }
        io::ErrorKind::PermissionDenied => "not permitted; give a port from 1024 up".to_owned(),
        _ => format!("cannot listen: {error}; give another address"),
    }
}

impl Admin {
    /// Binds `--metrics-listen` and serves from now on.
    ///
    /// # Errors
    /// The address is taken, forbidden or not this machine's.
    pub async fn bind(address: SocketAddr, health: Health, recorder: PrometheusHandle) -> Result<Self, AdminError> {
        let failed = |source| AdminError::new("--metrics-listen", address, source);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared { health, recorder, extra: Mutex::default() });
        let tasks = [serve(listener, Arc::clone(&shared)), upkeep(shared.recorder.clone())].map(AbortOnDropHandle::new);
        Ok(Self { shared, local_addr, _tasks: Arc::new(tasks) })
    }

    /// The address in use, also when port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Appends text to every /metrics answer: for families whose label sets come and go, which the recorder cannot forget.
    /// `Bytes` are handed out without a copy.
    pub fn add_metrics<T: Into<Bytes>>(&self, render: impl Fn() -> T + Send + Sync + 'static) {
        let render: Render = Arc::new(move || render().into());
        self.shared.extra.lock().unwrap_or_else(PoisonError::into_inner).push(render);
    }

    /// What /metrics answers.
    #[must_use]
    pub fn render(&self) -> String {
        self.shared.render().iter().map(|part| String::from_utf8_lossy(part)).collect()
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Admin").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Shared {
    /// The answer in parts: what is large is not copied into one text.
    fn render(&self) -> Vec<Bytes> {
        let extra = self.extra.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let own = self.recorder.render() + &process::render();
        std::iter::once(own.into()).chain(extra.iter().map(|render| render())).collect()
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(shared);
    tokio::spawn(async move {
        // axum's serve never returns: it retries a failing accept by itself.
        let _ = axum::serve(listener, routes).await;
    })
}

fn upkeep(handle: PrometheusHandle) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(recorder::UPKEEP_EVERY);
        loop {
            ticks.tick().await;
            handle.run_upkeep();
        }
    })
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let parts = shared.render();
    let length = parts.iter().map(Bytes::len).sum::<usize>();
    let body = Body::from_stream(futures::stream::iter(parts.into_iter().map(Ok::<_, Infallible>)));
    ([(header::CONTENT_TYPE, METRICS_TYPE.to_owned()), (header::CONTENT_LENGTH, length.to_string())], body)
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let (status, body) = match shared.health.readiness() {
        Readiness::Ready(body) => (StatusCode::OK, body),
        Readiness::NotReady(body) => (StatusCode::SERVICE_UNAVAILABLE, body),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::{Context, test_context};

    async fn get(context: &Context, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(context.admin.local_addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn readyz_follows_the_components_and_healthz_does_not() {
        let context = test_context().await;
        assert_eq!(get(&context, "/readyz").await.0, 503);
        let kafka = context.health.component("kafka");
        let (status, body) = get(&context, "/readyz").await;
        assert_eq!((status, body.as_str()), (503, r#"{"components":{"kafka":"starting"},"ready":false}"#));
        kafka.ready();
        assert_eq!(get(&context, "/readyz").await.0, 200);
        context.shutdown.cancel();
        assert_eq!(get(&context, "/readyz").await.0, 503);
        assert_eq!(get(&context, "/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(get(&context, "/nothing").await.0, 404);
    }

    #[tokio::test]
    async fn metrics_show_counters_histograms_process_and_extra_text() {
        let context = test_context().await;
        metrics::counter!("sample_events_total", "reason" => "x").increment(3);
        metrics::histogram!("sample_wait_seconds").record(0.003);
        context.admin.add_metrics(|| "sample_extra 7\n".to_owned());
        let (status, text) = get(&context, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "sample_events_total{reason=\"x\"} 3",
            "sample_wait_seconds_bucket{le=\"0.005\"} 1",
            "sample_wait_seconds_bucket{le=\"0.002\"} 0",
            "build_info{service=\"test\",version=\"0\"} 1",
            "# TYPE process_cpu_seconds_total counter",
            "process_resident_memory_bytes ",
            "sample_extra 7",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_one_line_with_flag_address_and_remedy() {
        let context = test_context().await;
        let address = context.admin.local_addr();
        let recorder = context.admin.shared.recorder.clone();
        let error = Admin::bind(address, context.health, recorder).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("--metrics-listen {address}: the port is in use;")), "{error}");
        assert_eq!(error.exit_code(), exit::UNAVAILABLE);
    }

    #[tokio::test]
    async fn the_server_ends_with_its_last_handle() {
        let context = test_context().await;
        let address = context.admin.local_addr();
        drop(context);
        // The aborted task lets go of the port at its next turn.
        while TcpListener::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
