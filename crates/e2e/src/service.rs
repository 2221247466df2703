//! One of our services as a process of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};

use native::{Launch, Port, Process, Signal, Wish};

use crate::wait::{LIMIT, eventually};

/// A running service, or one that has ended. Dropping it stops it.
#[derive(Debug)]
pub struct Service {
    process: Process,
    metrics: SocketAddr,
    _port: Port,
}

/// Resident bytes of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most so far.
    pub peak: u64,
}

/// location-ingest, and where drivers reach it.
#[derive(Debug)]
pub struct Ingest {
    /// The process.
    pub service: Service,
    /// `--listen`.
    pub address: SocketAddr,
    _port: Port,
}

impl Service {
    /// Starts `launch` with `--metrics-listen` on a free port.
    pub(crate) fn spawn(launch: Launch) -> Self {
        let (metrics, port) = free_address();
        let launch = launch.args(["--metrics-listen", &metrics.to_string()]);
        let process = Process::spawn(&launch).unwrap_or_else(|error| panic!("{error}"));
        Self { process, metrics, _port: port }
    }

    /// Waits until `/readyz` answers 200. Panics with the log when the service ends instead.
    pub async fn becomes_ready(&self) {
        eventually(&format!("{} is ready", self.name()), async || match self.readiness() {
            Ok((200, _)) => Ok(()),
            seen => {
                assert_eq!(self.process.status(), None, "{} ended:\n{}", self.name(), self.process.log_tail());
                Err(format!("{seen:?}\n{}", self.process.log_tail()))
            }
        })
        .await;
    }

    /// Waits until `/readyz` answers 503; returns its body.
    pub async fn becomes_unready(&self) -> String {
        eventually(&format!("{} is not ready", self.name()), async || match self.readiness() {
            Ok((503, body)) => Ok(body),
            seen => Err(format!("{seen:?}")),
        })
        .await
    }

    /// Status and body of `/readyz`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn readiness(&self) -> Result<(u16, String), String> {
        self.get("/readyz")
    }

    /// All of `/metrics`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn scrape(&self) -> Result<String, String> {
        self.get("/metrics").map(|(_, text)| text)
    }

    /// Where `/metrics` is, as HOST:PORT.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The value of a series of `/metrics`, labels included, if there is one.
    pub fn value(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        line.and_then(|value| value.parse().ok())
    }

    /// Its resident memory by the kernel's account: now, and the most so far.
    ///
    /// # Errors
    /// Why there is none: it has ended.
    pub fn memory(&self) -> Result<Memory, String> {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
            line.and_then(|kib| kib.trim().parse::<u64>().ok())
                .map(|kib| kib << 10)
                .ok_or(format!("no {name} in {path}"))
        };
        Ok(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.process.log_path()).unwrap_or_default()
    }

    /// Its name and number, as its log file is called.
    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Waits for its end.
    pub fn ended(&self) -> ExitStatus {
        self.process.wait(LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", self.process.log_tail()))
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process.status().is_none()
    }

    fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer = native::http::get(&format!("http://{}{path}", self.metrics)).map_err(|error| error.to_string())?;
        Ok((answer.status, answer.body))
    }
}

impl Ingest {
    /// Starts `launch` with `--listen` on a free port as well.
    pub(crate) fn spawn(launch: Launch) -> Self {
        let (address, port) = free_address();
        let service = Service::spawn(launch.args(["--listen", &address.to_string()]));
        Self { service, address, _port: port }
    }
}

/// A service that has run to its end.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// All that it printed.
    pub output: String,
}

impl Ended {
    /// Runs `service` with `flags` and `environment` until it ends by itself.
    pub fn of(service: &str, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{service}-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let binary = native::service_binary(service).unwrap_or_else(|error| panic!("{error}"));
        let log = native::target_dir().join("e2e").join(format!("{name}.log"));
        let launch = Launch::new(name, binary, &log).args(flags);
        let launch = environment.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        let process = Process::spawn(&launch).unwrap_or_else(|error| panic!("{error}"));
        let status = process.wait(LIMIT).unwrap_or_else(|error| panic!("{flags:?}: {error}\n{}", process.log_tail()));
        let output = fs::read_to_string(&log).expect("a log");
        fs::remove_file(&log).expect("a log");
        Self { code: status.code().unwrap_or_else(|| panic!("{flags:?} ended by a signal: {status}")), output }
    }

    /// The one line that says why it ended, without `error: `. Panics when there is another one, a panic or a trace.
    pub fn line(&self) -> &str {
        let lines: Vec<_> = self.output.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let is_clean = !["panicked", "stack backtrace", "RUST_BACKTRACE"].iter().any(|sign| self.output.contains(sign));
        let is_last = self.output.lines().last().is_some_and(|last| last.starts_with("error: "));
        assert!(is_clean && is_last && lines.len() == 1, "not one clear line:\n{}", self.output);
        lines[0]
    }
}

fn free_address() -> (SocketAddr, Port) {
    let port = Port::lease(Wish::Any).unwrap_or_else(|error| panic!("{error}"));
    ((Ipv4Addr::LOCALHOST, port.number()).into(), port)
}
