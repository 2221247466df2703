//! The lag-exporter binary: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::main(lag_exporter::INFO, lag_exporter::run)
}
