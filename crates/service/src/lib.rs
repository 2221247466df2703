//! What every binary shares: flags, logging, metrics and health endpoints, shutdown.
//!
//! [`main`] is a binary's whole `main.rs`: it parses and checks the flags, starts logging, the metrics recorder and the
//! admin server, turns SIGTERM and SIGINT into a cancelled token, runs the service and chooses the exit code.

mod admin;
pub mod exit;
mod files;
mod flags;
mod health;
mod logging;
mod process;
mod recorder;
mod runner;
mod security;
mod units;

pub use admin::{Admin, AdminError};
pub use files::{FileFlag, TlsFiles, password_in_first_line};
pub use flags::{CommonArgs, Config, Stop, Usage, parse};
pub use health::{Component, Health};
pub use logging::{LogFormat, LogId, hash_id, log_id};
pub use runner::{Context, ServiceError, main, test_context};
pub use units::{
    broker, bytes, duration, format_bytes, format_duration, group_name, listen_address, number, topic_name,
};

/// Bucket bounds of one histogram, by its full metric name.
pub type Buckets = (&'static str, &'static [f64]);

/// What a binary says about itself.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// The one name of the service: crate, binary, image.
    pub name: &'static str,
    /// Its version, `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// Default of `--metrics-listen`.
    pub metrics_listen: &'static str,
    /// Histograms that need other bounds than those of their unit (see `docs/metrics.md`).
    pub buckets: &'static [Buckets],
}
