//! The surge, the faults and the proof.
//!
//! ```text
//! generator ──POST──▶ location-ingest ─▶ Kafka ─▶ redis-writer ─▶ Redis ◀──MGET── prober (posts as well)
//!     │                                    │  └──▶ timescale-writer ─▶ PostgreSQL
//!     │ what it was told                   │ lag, dead letters,               │ rows
//!     ▼                                    ▼ records (witness)                ▼
//!  ledger ───────────────────────▶ evidence ◀── sampler (CPU, memory, lag each second)
//!                                      │
//!                                   verdict ─▶ report.json, tables
//! ```

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use config::{Cli, Command};

pub mod audit;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod error;
pub mod evidence;
pub mod exit;
pub mod fleet;
pub mod generator;
pub mod ledger;
pub mod losses;
pub mod plan;
pub mod poison;
pub mod postgres;
pub mod prober;
pub mod procfs;
pub mod quantile;
pub mod recovery;
pub mod redis;
pub mod report;
pub mod request;
pub mod response;
pub mod roster;
pub mod run;
pub mod sampler;
pub mod scenario;
pub mod scrape;
pub mod screen;
pub mod show;
pub mod signals;
pub mod specification;
pub mod staleness;
pub mod standalone;
pub mod system;
pub mod table;
pub mod thresholds;
pub mod tuning;
pub mod verdict;
pub mod wire;
pub mod witness;

/// The whole program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match config::parse(arguments) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help and version were asked for; whoever closes the pipe has read enough.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return complain(&config::usage(&error), exit::USAGE),
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(dispatch(cli));
            // Work that blocks has been told to end; what does not listen must not hold up the exit.
            runtime.shutdown_background();
            code
        }
        Err(error) => complain(&format!("error: no event loop: {error}"), exit::BROKEN),
    }
}

async fn dispatch(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Demo(args) => demo::demo(&args).await,
        Command::Generate(args) => match args.check() {
            Ok(()) => standalone::generate(&args).await,
            Err(usage) => complain(&usage, exit::USAGE),
        },
    }
}

fn complain(what: &impl std::fmt::Display, code: u8) -> ExitCode {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "{what}");
    ExitCode::from(code)
}
