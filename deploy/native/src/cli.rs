//! The command line: `up` and `down` for a stack in the background, `run` for one in the foreground.

mod logs;
mod services;
mod state;
mod supervise;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::state::{Phase, State};
use crate::stack::Home;
use crate::{Error, paths, tools, wait};

/// Usage errors, as for every binary of this workspace.
const USAGE: u8 = 64;
/// Something that the machine lacks.
const UNAVAILABLE: u8 = 69;
/// Services drain, then the servers write what they hold.
const DOWN_LIMIT: Duration = Duration::from_secs(90);
/// After a SIGKILL of the supervisor, what the guards need.
const GUARDS_LIMIT: Duration = Duration::from_secs(60);

/// Real Kafka, Redis and PostgreSQL without containers, with or without the five services.
#[derive(Debug, Parser)]
#[command(name = "native", version)]
struct Cli {
    /// The directory of the stack [default: target/native/up].
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a stack in the background and print its addresses.
    Up(What),
    /// Start a stack in the foreground; Ctrl-C stops it.
    Run {
        #[command(flatten)]
        what: What,
        /// Report to `up` on standard output, and leave its terminal.
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Stop what `up` started.
    Down,
    /// Say what runs, and where.
    Status,
    /// Show the logs of the last stack.
    Logs {
        /// Go on as they grow, until Ctrl-C.
        #[arg(short, long)]
        follow: bool,
        /// One server or service; all of them by default.
        name: Option<String>,
    },
    /// Install what the stack needs: Java, Maven, Kafka, Redis, PostgreSQL.
    Install,
}

/// What a stack consists of.
#[derive(Debug, Clone, Args)]
struct What {
    /// Kafka brokers, each a node of its own.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    kafka_brokers: u8,
    /// Start the five services as well.
    #[arg(long)]
    with_services: bool,
}

impl What {
    fn to_args(&self) -> Vec<String> {
        let services = self.with_services.then(|| "--with-services".to_owned());
        [format!("--kafka-brokers={}", self.kafka_brokers)].into_iter().chain(services).collect()
    }
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Native(#[from] Error),
    #[error("{0}")]
    Said(String),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Native(Error::Missing(_)) => UNAVAILABLE,
            Self::Native(_) | Self::Said(_) | Self::Output(_) => 1,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // A closed standard output is not worth another code.
            let _closed = usage.print();
            return if usage.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        // `native logs | head` has what it wants.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to be told when standard error is closed.
            let _closed = writeln!(io::stderr(), "error: {failure}");
            failure.exit_code().into()
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let dir = cli.dir.clone().unwrap_or_else(|| paths::stack_dir("up"));
    match &cli.command {
        Verb::Up(what) => up(&dir, what),
        Verb::Run { what, detached: false } => supervise::in_foreground(&dir, what),
        Verb::Run { what, detached: true } => supervise::in_background(&dir, what),
        Verb::Down => down(&dir),
        Verb::Status => status(&dir),
        Verb::Logs { follow: false, name } => logs::show(&dir, name.as_deref()),
        Verb::Logs { follow: true, name } => logs::follow(&dir, name.as_deref()),
        Verb::Install => install(),
    }
}

fn say(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout();
    writeln!(out, "{}", text.as_ref())?;
    Ok(out.flush()?)
}

fn up(dir: &Path, what: &What) -> Result<(), Failure> {
    if Home::is_taken(dir) {
        return match State::read(dir) {
            Some(state) if state.phase == Phase::Up => say(format!("already up\n{}", state.addresses())),
            _ => Err(Failure::Said(format!("another command is starting or stopping {}: wait for it", dir.display()))),
        };
    }
    // Before the supervisor takes over: its progress belongs on the terminal.
    tools::ensure()?;
    start_supervisor(dir, what)?;
    let state = State::read(dir).ok_or_else(|| Failure::Said(format!("{}: no state was written", dir.display())))?;
    say(state.addresses())
}

/// Starts `run --detached` and waits until it says that all is up. It hangs on our pipe until then: if this process is
/// interrupted, it stops what it has started.
fn start_supervisor(dir: &Path, what: &What) -> Result<(), Failure> {
    let said = |error: io::Error| Failure::Said(format!("cannot start the supervisor: {error}"));
    let mut supervisor = Command::new(std::env::current_exe().map_err(said)?)
        .args(["run", "--detached", "--dir"])
        .arg(dir)
        .args(what.to_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Whoever reads our output must not wait for a process that stays.
        .stderr(Stdio::null())
        .spawn()
        .map_err(said)?;
    let mut pipe = supervisor.stdin.take();
    let output = supervisor.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines());
    for line in output.map_while(Result::ok) {
        if line == supervise::READY {
            return pipe.as_mut().map_or(Ok(()), |pipe| pipe.write_all(supervise::DETACH).map_err(said));
        }
        say(line)?;
    }
    // It has said why; the code is its own.
    let status = supervisor.wait().map_err(said)?;
    Err(Failure::Said(format!("nothing was started ({status})")))
}

fn down(dir: &Path) -> Result<(), Failure> {
    if !Home::is_taken(dir) {
        return say("not up");
    }
    let state = State::read(dir);
    let supervisor = state.as_ref().map(|state| state.supervisor).filter(|supervisor| supervisor.is_alive());
    let tell = |signal| supervisor.map(|supervisor| kill(Pid::from_raw(supervisor.pid), signal));
    let gone = || !Home::is_taken(dir);
    tell(Signal::SIGTERM);
    if wait::wait_until(DOWN_LIMIT, "the stack is down", gone).is_err() {
        tell(Signal::SIGKILL);
        wait::wait_until(GUARDS_LIMIT, "the stack is down", gone)?;
    }
    State::remove(dir);
    say("stopped")
}

fn status(dir: &Path) -> Result<(), Failure> {
    match State::read(dir) {
        Some(state) if Home::is_taken(dir) => say(state.status()),
        _ => say("not up"),
    }
}

fn install() -> Result<(), Failure> {
    let tools = tools::ensure()?;
    say(format!("java {} in {}", tools.java_version, tools.java.display()))?;
    say(format!("kafka in {}", tools.kafka_lib.display()))?;
    say(format!("redis {} in {}", tools.redis_version, tools.redis.display()))?;
    say(format!("postgres {} in {}", tools.postgres_version, tools.postgres.display()))
}

/// Reads one line, or nothing at the end of the stream.
fn read_line(stream: impl Read) -> Option<String> {
    BufReader::new(stream).lines().next().and_then(Result::ok)
}
