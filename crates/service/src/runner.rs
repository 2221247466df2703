//! The life of a binary: flags → logging → runtime → admin server → run → drain → exit code.

use std::future::Future;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{Admin, AdminError, CommonArgs, Config, Health, Info, LogFormat, Stop, exit, flags, logging, recorder};

/// What a service is given to run with; cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// Cancelled on the first SIGTERM or SIGINT: stop taking in, finish, return.
    pub shutdown: CancellationToken,
    /// Where the service's parts say whether they work.
    pub health: Health,
    /// The server of /metrics, /healthz and /readyz.
    pub admin: Admin,
}

/// Why a service ended in failure: displays as one line that says what to do.
pub trait ServiceError: std::error::Error + Send + 'static {
    /// The exit code, never 0; see [`exit`].
    fn exit_code(&self) -> u8;
}

/// Why the process ends in failure, and its exit code.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: u8,
    line: String,
}

impl Failure {
    fn new(code: u8, line: impl Into<String>) -> Self {
        Self { code, line: line.into() }
    }
}

/// A binary's `main`: parses the flags, runs the service until it returns, a signal's drain ends or its limit passes.
///
/// Exit codes: 0 after a complete drain or `--help`, 64 wrong flags, else what [`ServiceError::exit_code`] and [`exit`] say.
pub fn main<C, E, F, Fut>(info: Info, run: F) -> ExitCode
where
    C: Config,
    E: ServiceError,
    F: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
{
    let config = match flags::parse::<C>(&info, std::env::args_os()) {
        Ok(config) => config,
        Err(Stop::Text(text)) => return print(&text),
        Err(Stop::Usage(usage)) => return fail(LogFormat::Text, &Failure::new(exit::USAGE, usage.to_string())),
    };
    let mut common = config.common().clone();
    if config.is_task() {
        // Any free port: the service's own belongs to the service, which may be running.
        common.metrics_listen = (Ipv4Addr::LOCALHOST, 0).into();
    }
    let port_taken = config.port_taken();
    match start(info, &common, port_taken, |context| run(config, context)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(common.log_format, &failure),
    }
}

fn start<E, F, Fut>(info: Info, common: &CommonArgs, port_taken: u8, run: F) -> Result<(), Failure>
where
    E: ServiceError,
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
{
    logging::start(common).map_err(|usage| Failure::new(exit::USAGE, usage.to_string()))?;
    log_panics();
    let runtime = Runtime::new().map_err(|error| Failure::new(exit::SOFTWARE, format!("no runtime: {error}")))?;
    let result = runtime.block_on(supervise(info, common, port_taken, run));
    // Whatever still runs after a drain that was cut short must not hold the exit up.
    runtime.shutdown_background();
    result
}

async fn supervise<E, F, Fut>(info: Info, common: &CommonArgs, port_taken: u8, run: F) -> Result<(), Failure>
where
    E: ServiceError,
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
{
    let mut signals = Signals::new()?;
    let opened = context(info, common.metrics_listen).await;
    let context = opened.map_err(|error| {
        let code = if error.is_taken() { port_taken } else { error.exit_code() };
        Failure::new(code, error.to_string())
    })?;
    let shutdown = context.shutdown.clone();
    info!(service = info.name, version = info.version, metrics = %context.admin.local_addr(), "started");
    // A task of its own: signals and the limit hold even if the service never yields.
    let _admin = context.admin.clone();
    let mut service = tokio::spawn(run(context));
    let first = tokio::select! {
        ended = &mut service => return ended_as(ended),
        signal = signals.next() => signal,
    };
    info!(signal = first.name, limit = ?common.shutdown_timeout, "draining");
    shutdown.cancel();
    tokio::select! {
        ended = &mut service => ended_as(ended),
        again = signals.next() => Err(Failure::new(exit::SIGNAL_BASE + again.number, format!("second signal ({}): drain cut short", again.name))),
        () = tokio::time::sleep(common.shutdown_timeout) => Err(drain_timed_out(common.shutdown_timeout)),
    }
}

fn drain_timed_out(limit: Duration) -> Failure {
    let limit = crate::format_duration(limit);
    Failure::new(
        exit::DRAIN_TIMED_OUT,
        format!("--shutdown-timeout {limit}: the drain did not end within it; give more time"),
    )
}

fn ended_as<E: ServiceError>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(Ok(())) => {
            info!("stopped");
            Ok(())
        }
        Ok(Err(error)) => Err(Failure::new(error.exit_code().max(1), error.to_string())),
        // The panic hook has said where.
        Err(_) => Err(Failure::new(exit::SOFTWARE, "the service ended by a fault of its own; see the line above")),
    }
}

async fn context(info: Info, metrics_listen: SocketAddr) -> Result<Context, AdminError> {
    let recorder = recorder::install(&info);
    metrics::gauge!("build_info", "service" => info.name, "version" => info.version).set(1.0);
    metrics::counter!("service_panics_total").increment(0);
    let shutdown = CancellationToken::new();
    let health = Health::new(shutdown.clone());
    let admin = Admin::bind(metrics_listen, health.clone(), recorder).await?;
    Ok(Context { shutdown, health, admin })
}

/// A context for tests that run a service inside their own process; the admin server is on a free port.
///
/// # Panics
/// Where the machine has no free port.
pub async fn test_context() -> Context {
    let info = Info { name: "test", version: "0", about: "", metrics_listen: "127.0.0.1:0", buckets: &[] };
    context(info, (Ipv4Addr::LOCALHOST, 0).into()).await.expect("a test machine has a free port")
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

struct Received {
    name: &'static str,
    number: u8,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(exit::SOFTWARE, format!("no signal handler: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received { name: "SIGTERM", number: 15 },
            _ = self.interrupt.recv() => Received { name: "SIGINT", number: 2 },
        }
    }
}

/// A panic becomes one log line with its place, without a stack trace, and a count that alerts can watch.
fn log_panics() {
    metrics::describe_counter!("service_panics_total", "Faults of the program itself; each is a bug.");
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("unknown");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        metrics::counter!("service_panics_total").increment(1);
        tracing::error!(place, message, "panicked");
    }));
}

fn print(text: &str) -> ExitCode {
    // A reader that closed early (`--help | head -1`) is no fault.
    let _ = write!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn fail(format: LogFormat, failure: &Failure) -> ExitCode {
    let line = failure.line.lines().collect::<Vec<_>>().join(" ");
    let _ = match format {
        LogFormat::Text => writeln!(io::stderr(), "error: {line}"),
        LogFormat::Json => writeln!(io::stderr(), "{}", serde_json::json!({ "level": "ERROR", "message": line })),
    };
    ExitCode::from(failure.code)
}
