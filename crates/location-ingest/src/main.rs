//! The binary: flags, logging, signals and exit code are `service::main`'s; the rest is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::main(location_ingest::INFO, location_ingest::run)
}
