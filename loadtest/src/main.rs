//! The command: parse, check, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtest::main(std::env::args_os())
}
