//! Logging to stderr, and the form in which a driver id may appear in it.

use std::fmt;
use std::io;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use crate::{CommonArgs, Usage};

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DriverIds {
    Hashed,
    Plain,
}

static DRIVER_IDS: OnceLock<DriverIds> = OnceLock::new();

/// Starts the process's logging; a second call (tests run several services in one process) keeps the first.
///
/// # Errors
/// `--log` is not a filter.
pub(crate) fn start(args: &CommonArgs) -> Result<(), Usage> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
        let remedy =
            format!("{error}; give a level (error, warn, info, debug, trace) or directives such as info,kafka=debug");
        Usage::new("--log", &args.log, remedy)
    })?;
    let _ = DRIVER_IDS.set(if args.log_driver_ids { DriverIds::Plain } else { DriverIds::Hashed });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        // A log that cannot be written (its reader is gone) must not end the service by a panic.
        .log_internal_errors(false);
    let _ = match args.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// A driver id as logs may hold it: a hash, unless `--log-driver-ids` was given.
///
/// The hash ties the lines of one driver together; it is short and unkeyed, so it is a pseudonym and no secret.
#[derive(Debug, Clone, Copy)]
pub struct LogId<'a>(&'a str);

/// Wraps a driver id for a log field: `info!(driver = %log_id(id), …)`.
#[must_use]
pub fn log_id(driver_id: &str) -> LogId<'_> {
    LogId(driver_id)
}

/// The hash that stands for a driver id in logs.
#[must_use]
pub fn hash_id(driver_id: &str) -> String {
    format!("#{:016x}", fnv1a(driver_id.as_bytes()))
}

impl fmt::Display for LogId<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DRIVER_IDS.get() {
            Some(DriverIds::Plain) => out.write_str(self.0),
            Some(DriverIds::Hashed) | None => out.write_str(&hash_id(self.0)),
        }
    }
}

/// FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/): the same in every service and release.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_equals_the_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_driver_id_is_hashed_unless_asked_for() {
        assert!(!log_id("driver-17").to_string().contains("17-driver"));
        assert_eq!(log_id("a").to_string(), "#af63dc4c8601ec8c");
    }
}
