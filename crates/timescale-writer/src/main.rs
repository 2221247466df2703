//! timescale-writer: Kafka to TimescaleDB, the history.

use std::process::ExitCode;

use timescale_writer::{Config, INFO, run};

fn main() -> ExitCode {
    service::main::<Config, _, _, _>(INFO, run)
}
