//! Apache Kafka in KRaft mode: one broker or several, each with its controller in the same process.

mod config;
mod listener;
mod prepared;
mod probe;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use self::config::{ExtraPorts, Node};
pub use self::listener::{Listener, Protocol};
use self::prepared::{CHECKPOINT, Prepared};
use crate::ports::{Port, Wish};
use crate::process::Launch;
use crate::server::Server;
use crate::stack::Home;
use crate::tools::Tools;
use crate::{Error, random, wait};

/// The version that pom.xml pins.
const VERSION: &str = "4.1.0";
/// The port that Kafka has by default.
pub(crate) const DEFAULT_PORT: u16 = 9092;
/// A controlled shutdown takes half a second, more under load.
const GRACE: Duration = Duration::from_secs(15);
/// When all of several stop at once, the last ones wait for a quorum that is not there any more.
const GRACE_OF_SEVERAL: Duration = Duration::from_secs(8);
/// From the last broker's start until all know each other.
const CLUSTER_LIMIT: Duration = Duration::from_secs(60);
const LOG_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/log4j2.xml");

/// What Kafka's own start script gives the JVM. Measured here at 50,000 records/s: the same CPU as the parallel
/// collector, and pauses of 6–15 ms instead of up to 110 ms.
const JVM_FLAGS: [&str; 7] = [
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:+ExitOnOutOfMemoryError",
    // Its files in /tmp outlive a kill.
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
];
/// For the tools, which live for a second: no time to compile well, no heap to collect.
const TOOL_FLAGS: [&str; 4] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx128m"];

/// How many brokers, and what differs from the settings of this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// 1 for the demo and most tests, 3 for replication.
    pub brokers: usize,
    /// Broker settings, such as `("log.segment.bytes", "1048576")`; they win over the crate's.
    pub settings: Vec<(String, String)>,
    /// Ports beside the plain one; the brokers themselves, and this crate, go on using that.
    pub listeners: Vec<Listener>,
    /// Users with their passwords, known to every listener with SASL, by PLAIN and both SCRAM mechanisms.
    pub users: Vec<(String, String)>,
}

impl KafkaOptions {
    /// One broker with the settings of this crate.
    pub fn single() -> Self {
        Self { brokers: 1, settings: Vec::new(), listeners: Vec::new(), users: Vec::new() }
    }

    /// Three brokers with the settings of this crate.
    pub fn three() -> Self {
        Self { brokers: 3, ..Self::single() }
    }

    /// Adds a broker setting.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a number or a text, as it is written at the call")]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a listener to every broker.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Adds a user.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }
}

/// A cluster. Its brokers can also be stopped, killed, frozen and started one by one: see [`Kafka::broker`].
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    tools: Tools,
}

/// One broker of a cluster.
#[derive(Debug)]
pub struct Broker {
    id: usize,
    server: Server,
    /// `host:port` by the name of the listener.
    extra: Vec<(String, String)>,
    _ports: Vec<Port>,
}

impl Broker {
    /// Its node id: 1 for the first.
    pub fn id(&self) -> usize {
        self.id
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// `host:port` of one of its listeners.
    ///
    /// # Panics
    /// When it has none of that name.
    pub fn listener(&self, name: &str) -> &str {
        let found = self.extra.iter().find(|(listener, _)| listener == name);
        found.map(|(_, address)| address.as_str()).expect("a listener of the options")
    }
}

impl Deref for Broker {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Kafka {
    pub(crate) fn start_new(home: &Home, tools: &Tools, options: &KafkaOptions, wish: Wish) -> Result<Self, Error> {
        Self::start_with(home, tools, options, wish, &Prepared::ensure(tools))
    }

    /// Every broker is started before any is awaited: a quorum needs most of them.
    fn start_with(
        home: &Home,
        tools: &Tools,
        options: &KafkaOptions,
        wish: Wish,
        prepared: &Prepared,
    ) -> Result<Self, Error> {
        let nodes = lease_nodes(options.brokers, wish)?;
        let cluster_id = random::cluster_id();
        let plan: Vec<Node> = nodes.iter().map(|(node, _)| *node).collect();
        let jobs = nodes.into_iter().map(|(node, mut ports)| {
            let (plan, cluster_id) = (&plan, cluster_id.as_str());
            move || -> Result<Broker, Error> {
                let files = Files::create(home, node)?;
                let more: ExtraPorts = lease_extra(options, &mut ports)?;
                files.configure(&config::render(node, plan, &files.data, options, &more))?;
                match &prepared.checkpoint {
                    Some(checkpoint) if options.users.is_empty() => files.fill(checkpoint, node, cluster_id)?,
                    _ => files.format(tools, cluster_id, &options.users)?,
                }
                let launch = files.launch(home, tools, Size::of(options.brokers), &prepared.jvm_flags);
                let server = Server::new(launch, node.port, move || probe::is_registered(node));
                server.start_first()?;
                let address =
                    |(listener, port): (&Listener, u16)| (listener.name.clone(), format!("{}:{port}", listener.host));
                let extra = options.listeners.iter().zip(more).map(address).collect();
                Ok(Broker { id: node.id, server, extra, _ports: ports })
            }
        });
        let kafka = Self { brokers: all_at_once(jobs)?, tools: tools.clone() };
        kafka.wait_complete()?;
        Ok(kafka)
    }

    /// `127.0.0.1:PORT`, with commas between several.
    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(Broker::address).collect::<Vec<_>>().join(",")
    }

    /// `host:port` of a listener of the options, with commas between several brokers.
    ///
    /// # Panics
    /// When the brokers have none of that name.
    pub fn listener(&self, name: &str) -> String {
        self.brokers.iter().map(|broker| broker.listener(name)).collect::<Vec<_>>().join(",")
    }

    /// All brokers, in the order of their ids.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The broker with this node id (1, 2, 3).
    ///
    /// # Panics
    /// When the cluster has none with that id.
    pub fn broker(&self, id: usize) -> &Broker {
        self.brokers.iter().find(|broker| broker.id == id).expect("a broker id of this cluster")
    }

    /// Starts every broker that is down and waits until all know each other.
    ///
    /// # Errors
    /// The first broker's that does not start.
    pub fn start(&self) -> Result<(), Error> {
        all_at_once(self.brokers.iter().map(|broker| || broker.start()))?;
        self.wait_complete()
    }

    /// Stops every broker in good order.
    pub fn stop(&self) {
        self.on_each(Server::stop);
    }

    /// Kills every broker (SIGKILL).
    pub fn kill(&self) {
        self.on_each(Server::kill);
    }

    /// Stops the time for every broker (SIGSTOP).
    pub fn freeze(&self) {
        self.on_each(Server::freeze);
    }

    /// Lets the time go on for every broker (SIGCONT).
    pub fn thaw(&self) {
        self.on_each(Server::thaw);
    }

    /// The process number of the only broker, or of the first, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.brokers.first().and_then(|broker| broker.pid())
    }

    /// The log of the only broker, or of the first.
    pub fn log_path(&self) -> &Path {
        self.broker(1).log_path()
    }

    /// The version of Kafka.
    pub fn version(&self) -> &'static str {
        VERSION
    }

    /// Runs one of Kafka's own command line tools, such as `org.apache.kafka.tools.TopicCommand`, with `input` to read:
    /// what the Java client does with the same bytes. Returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn tool(&self, class: &str, args: &[&str], input: &str) -> Result<String, Error> {
        run_tool(&self.tools, class, args, input)
    }

    /// For a cluster whose data nobody wants any more: the quickest way that leaves nothing behind.
    pub(crate) fn discard(&self) {
        if self.brokers.len() == 1 { self.stop() } else { self.kill() }
    }

    fn on_each(&self, act: fn(&Server)) {
        thread::scope(|scope| {
            for broker in &self.brokers {
                scope.spawn(|| act(broker));
            }
        });
    }

    fn wait_complete(&self) -> Result<(), Error> {
        let count = self.brokers.len();
        let all_see_all = || self.brokers.iter().all(|broker| probe::brokers_seen(broker.port()) == Some(count));
        wait::wait_until(CLUSTER_LIMIT, "all brokers know each other", all_see_all)
    }
}

/// Runs every job in a thread of its own; all end before the first error is returned.
fn all_at_once<T: Send, J>(jobs: impl Iterator<Item = J>) -> Result<Vec<T>, Error>
where
    J: FnOnce() -> Result<T, Error> + Send,
{
    thread::scope(|scope| {
        let threads: Vec<_> = jobs.map(|job| scope.spawn(job)).collect();
        let outcomes: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// The first broker gets the wished port.
fn lease_nodes(count: usize, wish: Wish) -> Result<Vec<(Node, Vec<Port>)>, Error> {
    let wishes = std::iter::once(wish).chain(std::iter::repeat(Wish::Any));
    (1..=count)
        .zip(wishes)
        .map(|(id, wish)| {
            let ports = [Port::lease(wish)?, Port::lease(Wish::Any)?];
            Ok((Node { id, port: ports[0].number(), controller_port: ports[1].number() }, ports.into()))
        })
        .collect()
}

/// Adds a port for each listener of the options to those that the broker holds.
fn lease_extra(options: &KafkaOptions, held: &mut Vec<Port>) -> Result<ExtraPorts, Error> {
    let lease = |_: &Listener| {
        let port = Port::lease(Wish::Any)?;
        let number = port.number();
        held.push(port);
        Ok(number)
    };
    options.listeners.iter().map(lease).collect()
}

/// What depends on the number of brokers.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Several share the machine with everything else: their heaps are half as large.
    heap: [&'static str; 2],
    grace: Duration,
}

impl Size {
    fn of(brokers: usize) -> Self {
        match brokers {
            1 => Self { heap: ["-Xms512m", "-Xmx1g"], grace: GRACE },
            _ => Self { heap: ["-Xms256m", "-Xmx512m"], grace: GRACE_OF_SEVERAL },
        }
    }
}

/// The files of one broker.
struct Files {
    name: String,
    config: PathBuf,
    data: PathBuf,
    /// For the native libraries of the compression codecs, which would else be left in /tmp by a kill.
    temp: PathBuf,
}

impl Files {
    fn create(home: &Home, node: Node) -> Result<Self, Error> {
        let name = format!("kafka-{}", node.id);
        let dir = home.fresh_dir(&name)?;
        let temp = dir.join("tmp");
        fs::create_dir(&temp).map_err(Error::io("create", &temp))?;
        Ok(Self { name, config: dir.join("server.properties"), data: dir.join("data"), temp })
    }

    fn configure(&self, settings: &str) -> Result<(), Error> {
        fs::write(&self.config, settings).map_err(Error::io("write", &self.config))
    }

    /// Prepares the directory of the data as the storage tool would.
    fn format(&self, tools: &Tools, cluster_id: &str, users: &[(String, String)]) -> Result<(), Error> {
        let config = self.config.to_string_lossy();
        let users = listener::scram_arguments(users);
        let mut args = vec!["format", "-t", cluster_id, "-c", &config];
        args.extend(users.iter().map(String::as_str));
        run_tool(tools, "kafka.tools.StorageTool", &args, "").map(drop)
    }

    /// The same from what the tool wrote for another cluster of this version; only the names differ.
    fn fill(&self, checkpoint: &Path, node: Node, cluster_id: &str) -> Result<(), Error> {
        let directory_id = random::cluster_id();
        let names = format!("version=1\ncluster.id={cluster_id}\nnode.id={}\ndirectory.id={directory_id}\n", node.id);
        fs::create_dir(&self.data)
            .and_then(|()| fs::write(self.data.join("meta.properties"), names))
            .and_then(|()| fs::copy(checkpoint, self.data.join(CHECKPOINT)).map(drop))
            .map_err(Error::io("write", &self.data))
    }

    fn launch(&self, home: &Home, tools: &Tools, size: Size, jvm_flags: &[String]) -> Launch {
        Launch::new(&self.name, &tools.java, home.log_path(&self.name))
            .args(size.heap)
            .args(JVM_FLAGS)
            .args(jvm_flags)
            .arg(temp_dir_flag(&self.temp))
            .arg(format!("-Dlog4j2.configurationFile={LOG_CONFIG}"))
            .args(["-cp", &class_path(tools), "kafka.Kafka"])
            .arg(&self.config)
            .stopped_by(Signal::SIGTERM, size.grace)
            .server()
            .holding(home.lock())
    }
}

fn temp_dir_flag(dir: &Path) -> String {
    format!("-Djava.io.tmpdir={}", dir.display())
}

/// In a fixed order: the archive of classes is good for exactly this list.
fn class_path(tools: &Tools) -> String {
    let entries = fs::read_dir(&tools.kafka_lib).into_iter().flatten().flatten();
    let mut jars: Vec<String> = entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect();
    jars.retain(|path| path.ends_with(".jar"));
    jars.sort();
    jars.join(":")
}

fn run_tool(tools: &Tools, class: &str, args: &[&str], input: &str) -> Result<String, Error> {
    let output = tool_output(tools, class, args, input).map_err(Error::io("run", &tools.java))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let detail = format!("{}{printed}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Step { what: format!("{class} {}", args.join(" ")), detail })
}

fn tool_output(tools: &Tools, class: &str, args: &[&str], input: &str) -> std::io::Result<Output> {
    use std::io::Write;
    let mut child = Command::new(&tools.java)
        .args(TOOL_FLAGS)
        // Without a configuration file, log4j says errors only.
        .args(["-Dlog4j2.level=ERROR", &temp_dir_flag(&tools.kafka_lib), "-cp", &class_path(tools), class])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Its end tells more than a broken pipe.
        let _ended = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pom_pins_the_version_that_is_reported() {
        let pinned = format!("<kafka.version>{VERSION}</kafka.version>");
        assert!(include_str!("../pom.xml").contains(&pinned));
    }
}
