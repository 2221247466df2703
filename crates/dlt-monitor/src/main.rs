//! The dlt-monitor binary: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::main(dlt_monitor::INFO, dlt_monitor::run)
}
