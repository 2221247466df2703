//! A client at work in a process of its own, so that its CPU and its memory are its own.
//!
//! ```text
//! client:  connect, warm up ── "begin" ──▶ … ◀── "go" ── work ── report ──▶ end
//! parent:                        └─ reads the broker's counters ─┘       └─ reads them again
//! ```

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use native::Tools;

use crate::error::Error;
use crate::job::{Fields, Job, Report};

const JAVA_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/java/Client.java");
/// The JVM's own choices, but for a heap that fits beside a broker and no files that outlive a kill.
const JVM_FLAGS: [&str; 3] = ["-Xmx512m", "-XX:-UsePerfData", "-Dlog4j2.level=ERROR"];

/// What a client's work cost, on both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// The client's account.
    pub(crate) report: Report,
    /// CPU of the broker meanwhile.
    pub(crate) broker_cpu_s: f64,
    /// Requests that the broker counted meanwhile.
    pub(crate) requests: Requests,
}

/// Requests by kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Requests {
    /// Produce.
    pub(crate) produce: f64,
    /// All others that clients send: fetches, commits, heartbeats, metadata …
    pub(crate) others: f64,
}

/// A client process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// One of the clients that are written in Rust: this program once more.
    pub(crate) fn rust(client: &str, job: &Job) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::io("find", "the program itself"))?;
        let mut command = Command::new(program);
        command.args(["client", client]).args(job.args());
        Self::start(client, command)
    }

    /// The Java client, compiled as it is started.
    pub(crate) fn java(tools: &Tools, temp: &Path, args: &[String]) -> Result<Self, Error> {
        let mut command = Command::new(&tools.java);
        command
            .args(JVM_FLAGS)
            .arg(format!("-Djava.io.tmpdir={}", temp.display()))
            .arg("-cp")
            .arg(tools.kafka_lib.join("*"))
            .arg(JAVA_SOURCE)
            .args(args);
        Self::start("java", command)
    }

    fn start(name: &str, mut command: Command) -> Result<Self, Error> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("start", command.get_program()))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Error::Client(format!("client {name} has no pipes")));
        };
        Ok(Self { name: name.to_owned(), process, input, output: BufReader::new(output) })
    }

    /// Waits until it is warm.
    pub(crate) fn await_begin(&mut self) -> Result<(), Error> {
        match self.line()?.as_str() {
            "begin" => Ok(()),
            other => Err(Error::Client(format!("client {} said {other:?} before it began", self.name))),
        }
    }

    /// Lets it work.
    pub(crate) fn go(&mut self) -> Result<(), Error> {
        self.input.write_all(b"go\n").map_err(Error::io("write to", &self.name))
    }

    /// Waits for its account.
    pub(crate) fn await_report(&mut self) -> Result<Report, Error> {
        Report::parse(&self.line()?)
    }

    /// Its next line; its end is an error.
    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        match self.output.read_line(&mut line).map_err(Error::io("read from", &self.name))? {
            0 => Err(Error::Client(format!("client {} ended before it was done; its reason stands above", self.name))),
            _ => Ok(line.trim().to_owned()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended by itself needs no signal; either way it is reaped.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The broker's own count of its requests, read through its management beans by a JVM that attaches to it.
#[derive(Debug)]
pub(crate) struct RequestCounter(Child);

impl RequestCounter {
    /// Attaches to the broker with this process number.
    pub(crate) fn attach(tools: &Tools, temp: &Path, broker_pid: i32) -> Result<Self, Error> {
        let args = ["role=requests".to_owned(), format!("pid={broker_pid}")];
        let mut child = Child::java(tools, temp, &args)?;
        child.await_begin()?;
        Ok(Self(child))
    }

    /// Requests since the broker was started.
    pub(crate) fn read(&mut self) -> Result<Requests, Error> {
        self.0.go()?;
        let line = self.0.line()?;
        let mut requests = Requests { produce: 0.0, others: 0.0 };
        for (kind, count) in Fields::parse(line.split_ascii_whitespace()).iter() {
            let count: f64 = count.parse().map_err(|_| Error::Client(format!("{kind}={count} is no number")))?;
            if kind == "Produce" {
                requests.produce += count;
            } else {
                requests.others += count;
            }
        }
        Ok(requests)
    }
}

impl Requests {
    /// Those after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { produce: self.produce - earlier.produce, others: self.others - earlier.others }
    }

    /// All of them.
    pub(crate) fn all(self) -> f64 {
        self.produce + self.others
    }
}
