//! A writer's process, watched through /proc and its own /metrics.

use std::net::{Ipv4Addr, SocketAddr};

use native::{Launch, Port, Process, Wish};

use crate::error::Error;
use crate::meter;

/// A running writer. Dropping it stops it.
pub(super) struct Writer {
    process: Process,
    metrics: SocketAddr,
    _port: Port,
}

/// What a writer used since it was started, the start included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) cpu_s: f64,
    pub(super) peak_rss_mib: f64,
}

impl Writer {
    /// Starts `launch` with `--metrics-listen` on a free port.
    pub(super) fn start(launch: Launch) -> Result<Self, Error> {
        let port = Port::lease(Wish::Any)?;
        let metrics: SocketAddr = (Ipv4Addr::LOCALHOST, port.number()).into();
        let process = Process::spawn(&launch.args(["--metrics-listen", &metrics.to_string()]))?;
        Ok(Self { process, metrics, _port: port })
    }

    pub(super) fn used(&self) -> Result<Used, Error> {
        let pid = self.process.pid();
        Ok(Used { cpu_s: meter::cpu_s(pid)?, peak_rss_mib: meter::peak_rss_mib(&pid.to_string()) })
    }

    /// Records that are settled, by outcome where one is given.
    pub(super) fn settled(&self, outcome: Option<&str>) -> Result<u64, Error> {
        let is_asked = |labels: &str| outcome.is_none_or(|name| labels.contains(&format!("outcome=\"{name}\"")));
        let series = self.series("pipeline_records_total")?;
        Ok(series.iter().filter(|(labels, _)| is_asked(labels)).map(|(_, value)| *value as u64).sum())
    }

    /// Labels and value of each series of a metric. A writer that has ended says why.
    pub(super) fn series(&self, metric: &str) -> Result<Vec<(String, f64)>, Error> {
        let url = format!("http://{}/metrics", self.metrics);
        let Ok(answer) = native::http::get(&url) else {
            return match self.process.status() {
                Some(status) => Err(Error::Client(format!("the writer ended: {status}\n{}", self.process.log_tail()))),
                None => Ok(Vec::new()),
            };
        };
        let read = |line: &str| {
            let (labels, value) = line.strip_prefix(metric)?.strip_prefix('{')?.split_once("} ")?;
            Some((labels.to_owned(), value.parse().ok()?))
        };
        Ok(answer.body.lines().filter_map(read).collect())
    }

    /// An error when it has ended.
    pub(super) fn is_running(&self) -> Result<(), Error> {
        match self.process.status() {
            None => Ok(()),
            Some(status) => Err(Error::Client(format!("the writer ended: {status}\n{}", self.process.log_tail()))),
        }
    }

    /// Waits until it can work.
    pub(super) fn becomes_ready(&self) -> Result<(), Error> {
        Ok(self.process.wait_ready(&format!("http://{}/readyz", self.metrics), super::DRAIN_LIMIT)?)
    }

    /// Stops it in good order.
    pub(super) fn stop(self) {
        self.process.stop();
    }
}
