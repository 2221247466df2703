//! The broker, its counters, and what was measured on it so far.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use kafka::ClientConfig;
use native::{Stack, Tools};

use super::{Client, PARTITIONS, RATE};
use crate::child::{Child, Cost, RequestCounter};
use crate::error::Error;
use crate::job::{Job, Role};
use crate::summary::figure;
use crate::{machine, meter, say, topic};

/// See the module.
pub(super) struct Rig {
    tools: Tools,
    temp: PathBuf,
    bootstrap: String,
    broker_pid: i32,
    counter: RequestCounter,
    runtime: tokio::runtime::Runtime,
    rows: Vec<Row>,
}

/// One run of one client.
struct Row {
    work: String,
    client: Client,
    cost: Cost,
    load: f64,
}

impl Rig {
    pub(super) fn new(stack: &Stack) -> Result<Self, Error> {
        let tools = native::ensure_tools()?;
        let broker_pid = stack.kafka.pid().ok_or_else(|| Error::client("the broker does not run"))?;
        let temp = stack.dir().to_owned();
        Ok(Self {
            counter: RequestCounter::attach(&tools, &temp, broker_pid)?,
            bootstrap: stack.kafka.bootstrap(),
            runtime: tokio::runtime::Runtime::new().map_err(Error::io("start", "the runtime"))?,
            rows: Vec::new(),
            tools,
            temp,
            broker_pid,
        })
    }

    /// A job on a topic.
    pub(super) fn job(&self, role: Role, topic: &str, linger: Duration) -> Job {
        Job {
            role,
            bootstrap: self.bootstrap.clone(),
            topic: topic.to_owned(),
            partitions: PARTITIONS,
            records: 0,
            rate: RATE,
            warm: Duration::from_secs(4),
            measured: Duration::from_secs(20),
            linger,
        }
    }

    /// Creates a topic and waits until it can be used.
    pub(super) fn create_topic(&self, name: &str) -> Result<(), Error> {
        let config = ClientConfig::new(vec![self.bootstrap.clone()], "bench");
        self.runtime.block_on(async { topic::create(&kafka::Client::new(config), name, PARTITIONS).await })
    }

    /// Starts a client on its work.
    pub(super) fn start(&self, client: Client, job: &Job) -> Result<Child, Error> {
        match client {
            Client::Java => Child::java(&self.tools, &self.temp, &job.args()),
            _ => Child::rust(client.name(), job),
        }
    }

    /// Lets a client work, once it is warm, and takes what that cost on both sides.
    pub(super) fn measure(&mut self, work: &str, client: Client, job: &Job) -> Result<Cost, Error> {
        let mut child = self.start(client, job)?;
        child.await_begin()?;
        let requests = self.counter.read()?;
        let broker_cpu_s = meter::cpu_s(self.broker_pid)?;
        child.go()?;
        let report = child.await_report()?;
        let broker_cpu_s = meter::cpu_s(self.broker_pid)? - broker_cpu_s;
        let requests = self.counter.read()?.since(requests);
        let cost = Cost { report, broker_cpu_s, requests };
        let row = Row { work: work.to_owned(), client, cost, load: machine::load() };
        say(format_args!("{}", row.line()));
        self.rows.push(row);
        Ok(cost)
    }

    /// All runs, for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("\n{}", Row::HEADER);
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _fine = write!(text, "\n{}", row.line());
        }
        text
    }
}

impl Row {
    const HEADER: &str = "work            client                      records/s  client µs/record  broker µs/record  requests/s  peak MiB  load";

    fn line(&self) -> String {
        let report = self.cost.report;
        format!(
            "{:<14}  {:<26}  {:>9}  {:>16}  {:>16}  {:>10}  {:>8}  {:>4.1}",
            self.work,
            self.client.title(),
            figure(report.records / report.seconds),
            figure(self.cost.client_us()),
            figure(self.cost.broker_us()),
            figure(self.cost.requests_per_s()),
            figure(report.peak_rss_mib),
            self.load,
        )
    }
}

impl Cost {
    /// CPU of the client for a record, in µs.
    pub(super) fn client_us(&self) -> f64 {
        self.report.cpu_s / self.report.records * 1e6
    }

    /// CPU of the broker for a record, in µs.
    pub(super) fn broker_us(&self) -> f64 {
        self.broker_cpu_s / self.report.records * 1e6
    }

    /// Requests to the broker, of every kind.
    pub(super) fn requests_per_s(&self) -> f64 {
        self.requests.all() / self.report.seconds
    }
}

/// The best of several runs in one respect.
pub(super) fn least(costs: &[Cost], figure: impl Fn(&Cost) -> f64) -> f64 {
    costs.iter().map(figure).fold(f64::INFINITY, f64::min)
}

/// Ours and Java's, several runs of each by turns. Who begins changes with the round: the broker's own compiler is
/// still at work when a bench begins, so that whoever comes later finds a faster one.
pub(super) struct Pairs {
    pub(super) ours: Vec<Cost>,
    pub(super) java: Vec<Cost>,
}

impl Pairs {
    pub(super) fn take(
        rounds: usize,
        mut measure: impl FnMut(Client, usize) -> Result<Cost, Error>,
    ) -> Result<Self, Error> {
        let mut pairs = Self { ours: Vec::new(), java: Vec::new() };
        for round in 0..rounds {
            if round % 2 == 0 {
                pairs.java.push(measure(Client::Java, round)?);
            }
            pairs.ours.push(measure(Client::Ours, round)?);
            if round % 2 == 1 {
                pairs.java.push(measure(Client::Java, round)?);
            }
        }
        Ok(pairs)
    }

    /// A figure of ours, and the reference's name and figure: the best of each.
    pub(super) fn least(&self, figure: fn(&Cost) -> f64) -> (f64, (String, f64)) {
        (least(&self.ours, figure), (Client::Java.title(), least(&self.java, figure)))
    }
}
