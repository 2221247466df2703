//! Real Kafka, Redis and PostgreSQL without containers, for the demo, the tests and developers.
//!
//! ```text
//! Stack::start ─▶ tools (install what is missing) ─▶ ports ─▶ kafka │ redis │ postgres ─▶ server ─▶ process + guard
//! ```
//!
//! Everything is synchronous. Nothing that is started outlives this process: see [`Process`].

mod account;
mod binaries;
#[cfg(feature = "certificates")]
mod certificates;
pub mod cli;
mod error;
pub mod http;
mod kafka;
mod paths;
mod ports;
mod postgres;
mod process;
mod random;
mod redis;
mod server;
mod stack;
mod tools;
mod wait;

pub use nix::sys::signal::Signal;

pub use self::binaries::{example_binary, service_binary};
#[cfg(feature = "certificates")]
pub use self::certificates::{Authority, Issued, Validity};
pub use self::error::Error;
pub use self::kafka::{Broker, Kafka, KafkaOptions, Listener, Protocol};
pub use self::paths::{native_dir, root_dir, stack_dir, target_dir};
pub use self::ports::{Port, Wish};
pub use self::postgres::Postgres;
pub use self::process::{Identity, Launch, Process, stop_everything};
pub use self::redis::Redis;
pub use self::server::Server;
pub use self::stack::{Part, Ports, Stack, StackOptions};
pub use self::tools::{PrometheusTools, Tools, ensure as ensure_tools, ensure_prometheus};
pub use self::wait::wait_until;
