//! `native`: the stack from the command line. See `native --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    native::cli::main()
}
