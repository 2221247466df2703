//! `make bench`: what the parts cost, each line a ratio against something measured in the same run.
//!
//! ```text
//! main ─▶ benches (one function each) ─▶ lines ─▶ thresholds ─▶ table, target/bench/summary.json, exit code
//!            │
//!            ├─ writers: redis-writer and timescale-writer as they are shipped, on a backlog
//!            └─ kafka: each client in a process of its own (`bench client …`, or the JVM), one after the other
//! ```
//!
//! A new bench is a module with a function from [`Setting`] to lines, an entry in [`BENCHES`], and its bounds in
//! `thresholds.rs`. The names of its lines begin with its own name.

mod child;
mod clients;
mod error;
mod job;
mod kafka;
mod lag_exporter;
mod line;
mod machine;
mod meter;
mod payload;
mod summary;
mod thresholds;
mod topic;
mod writers;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;
use crate::line::Line;

/// Usage errors, as for every binary of this workspace.
const USAGE: u8 = 64;
/// No figures: something broke.
const BROKEN: u8 = 70;
/// A line does not keep its bound.
const BEHIND: u8 = 1;

/// How the benches are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// How often each figure that is judged is taken; a bench says whether the best or the median counts, for us and for
    /// the reference alike.
    pub(crate) rounds: usize,
}

/// A bench: its name, and what measures it.
type Bench = (&'static str, fn(&Setting) -> Result<Vec<Line>, Error>);

/// All of them, in the order in which they run: the quick ones first.
const BENCHES: &[Bench] = &[
    ("redis-writer-drain", writers::redis_writer::drain),
    ("redis-writer-catchup", writers::redis_writer::catchup),
    ("timescale-writer-drain", writers::timescale_writer::drain),
    ("poison-cost", writers::poison_cost::run),
    ("time-to-fresh", writers::time_to_fresh::run),
    ("lag-exporter", lag_exporter::run),
    ("kafka", kafka::run),
];

/// Measures what the parts cost, and compares it with something else measured in the same run
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// The benches to run; all when none is named
    #[arg(value_name = "NAME", value_parser = bench_names())]
    names: Vec<String>,

    /// How often each judged figure is taken, 1 to 9; the best or the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    rounds: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One client at work, for the parent that measures it
    #[command(hide = true)]
    Client {
        /// Which one
        client: String,
        /// The job, as `name=value`
        job: Vec<String>,
    },
}

fn bench_names() -> clap::builder::PossibleValuesParser {
    BENCHES.iter().map(|(name, _)| *name).collect::<Vec<_>>().into()
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to be done about a terminal that is gone.
            let _gone = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match &args.command {
        Some(Command::Client { client, job }) => clients::run(client, job).map(|()| true),
        None => measure(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => BEHIND.into(),
        Err(error) => {
            say(format_args!("bench: {error}"));
            BROKEN.into()
        }
    }
}

/// Runs the benches; `false` when a line does not keep its bound.
fn measure(args: &Args) -> Result<bool, Error> {
    let setting = Setting { rounds: args.rounds.into() };
    let chosen = |name: &str| args.names.is_empty() || args.names.iter().any(|wanted| wanted == name);
    let benches: Vec<&Bench> = BENCHES.iter().filter(|(name, _)| chosen(name)).collect();
    say(format_args!("{}", machine::facts()));
    let mut lines = Vec::new();
    for (name, run) in &benches {
        say(format_args!("\n== {name}"));
        lines.extend(run(&setting)?);
    }
    let path = summary::write(&lines)?;
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{}\nwritten to {}", summary::table(&lines), summary::shown(&path));
    let names: Vec<&str> = benches.iter().map(|(name, _)| *name).collect();
    let missing: Vec<&str> = summary::missing(&lines, &names).collect();
    for name in &missing {
        let _gone = writeln!(out, "FAIL: {name} was not measured");
    }
    Ok(missing.is_empty() && lines.iter().all(Line::passes))
}

/// Progress, for whoever waits.
pub(crate) fn say(what: std::fmt::Arguments<'_>) {
    let _gone = writeln!(std::io::stderr().lock(), "{what}");
}
