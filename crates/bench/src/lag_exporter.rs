//! lag-exporter as it is shipped, on many groups: what a collection costs it and the broker, how long a scrape takes, and
//! how much memory it needs; beside Kafka's own tool on the same groups.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use kafka::{Client, ClientConfig, CommitMetadata, ErrorKind, Offset, PartitionId, TopicPartition, TopicSpec};
use native::{KafkaOptions, Launch, Port, Process, Stack, StackOptions, Wish};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::error::Error;
use crate::line::Line;
use crate::{Setting, meter, say};

const TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const TOOL_NAME: &str = "kafka-consumer-groups --describe --all-groups";
const INTERVAL: &str = "1s";
/// Not counted: connections, coordinators and buffers are new.
const WARM_UP: Duration = Duration::from_secs(5);
/// Ten collections and more; the two scrapes that count them are in the figure.
const MEASURED: Duration = Duration::from_secs(15);
const SCRAPES: usize = 9;
/// A topic of 2,000 partitions takes a while to be made.
const LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);
/// Partitions that one request may create without holding the controller up.
const PARTITIONS_A_TOPIC: i32 = 500;

/// Groups, each of which has committed on every partition.
#[derive(Debug, Clone, Copy)]
struct Size {
    name: &'static str,
    groups: usize,
    partitions: i32,
    flags: &'static [&'static str],
    /// What it may take in memory.
    memory_mib: f64,
}

const DETAILED: Size = Size { name: "lag-exporter", groups: 300, partitions: 48, flags: &[], memory_mib: 48.0 };
const LARGE: Size = Size {
    name: "lag-exporter-large",
    groups: 200,
    partitions: 2_000,
    flags: &["--per-partition", "off"],
    memory_mib: 256.0,
};

impl Size {
    fn pairs(self) -> f64 {
        self.groups as f64 * f64::from(self.partitions)
    }
}

/// What was seen of one size.
#[derive(Debug, Clone, Copy)]
struct Seen {
    collection_s: f64,
    broker_s: f64,
    scrape_ms: f64,
    peak_mib: f64,
    tool_s: f64,
}

/// 300 groups of 48 partitions with all series, and 200 of 2,000 with those of groups only.
pub(crate) fn run(_: &Setting) -> Result<Vec<Line>, Error> {
    let detailed = measure(DETAILED)?;
    let large = measure(LARGE)?;
    let per_pair = |seen: Seen, size: Size| seen.collection_s / size.pairs() * 1e6;
    let mut lines = lines(DETAILED, detailed);
    lines.extend(self::lines(LARGE, large));
    lines.push(Line::new(
        "lag-exporter-linear",
        per_pair(large, LARGE),
        ("a pair of 300 × 48", per_pair(detailed, DETAILED)),
        "µs",
    ));
    Ok(lines)
}

fn lines(size: Size, seen: Seen) -> Vec<Line> {
    let line = |what: &str, ours, unit| {
        Line::new(
            format!("{}-{what}", size.name),
            ours,
            (TOOL_NAME, if unit == "ms" { seen.tool_s * 1e3 } else { seen.tool_s }),
            unit,
        )
    };
    vec![
        line("collection-cpu", seen.collection_s, "s"),
        line("collection-broker", seen.broker_s, "s"),
        line("scrape", seen.scrape_ms, "ms"),
        Line::new(format!("{}-memory", size.name), seen.peak_mib, ("what it may take", size.memory_mib), "MiB"),
    ]
}

fn measure(size: Size) -> Result<Seen, Error> {
    let dir = native::stack_dir(&format!("bench-{}", size.name));
    let stack = Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false })?;
    let runtime = Runtime::new().map_err(Error::io("start", "the runtime"))?;
    let bootstrap = stack.kafka.bootstrap();
    runtime.block_on(fill(&bootstrap, size))?;
    let tool_s = {
        let started = Instant::now();
        stack.kafka.tool(TOOL, &["--bootstrap-server", &bootstrap, "--describe", "--all-groups"], "")?;
        started.elapsed().as_secs_f64()
    };
    let broker = stack.kafka.pid().ok_or_else(|| Error::Client("the broker has ended".to_owned()))?;
    let idle_s = per_second(broker)?;
    let exporter = Exporter::start(&stack, size)?;
    thread::park_timeout(WARM_UP);
    let (own, others, before, started) =
        (exporter.cpu_s()?, meter::cpu_s(broker)?, exporter.collections()?, Instant::now());
    thread::park_timeout(MEASURED);
    let collections = exporter.collections()? - before;
    let collection_s = (exporter.cpu_s()? - own) / collections;
    let broker_s = (meter::cpu_s(broker)? - others - idle_s * started.elapsed().as_secs_f64()) / collections;
    let mut scrapes = (0..SCRAPES).map(|_| exporter.scrape()).collect::<Result<Vec<_>, _>>()?;
    scrapes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (scrape_ms, bytes) = (scrapes[SCRAPES / 2].0, scrapes[0].1.len());
    let seen = Seen { collection_s, broker_s: broker_s.max(0.0), scrape_ms, peak_mib: exporter.peak_mib(), tool_s };
    say(format_args!("{} groups × {} partitions: {seen:?}, {bytes} bytes a scrape", size.groups, size.partitions));
    Ok(seen)
}

/// CPU of a process a second while nobody wants anything of it.
fn per_second(pid: i32) -> Result<f64, Error> {
    let (before, started) = (meter::cpu_s(pid)?, Instant::now());
    thread::park_timeout(Duration::from_secs(5));
    Ok((meter::cpu_s(pid)? - before) / started.elapsed().as_secs_f64())
}

async fn fill(bootstrap: &str, size: Size) -> Result<(), Error> {
    let client = Client::new(ClientConfig::new(vec![bootstrap.to_owned()], "bench"));
    let mut places = Vec::new();
    let mut left = size.partitions;
    for number in 0.. {
        let partitions = left.min(PARTITIONS_A_TOPIC);
        let name = format!("topic-{number}");
        client.create_topic(&TopicSpec { name: name.clone(), partitions, replication: None, settings: vec![] }).await?;
        places.extend((0..partitions).map(|partition| TopicPartition::new(name.as_str(), PartitionId(partition))));
        left -= partitions;
        if left == 0 {
            break;
        }
    }
    let metadata = CommitMetadata { timestamp_ms: 1_795_441_689_633 }.encode();
    let positions: Vec<_> = places.into_iter().map(|place| (place, Offset(0), metadata.clone())).collect();
    let deadline = Instant::now() + LIMIT;
    for group in 0..size.groups {
        // Topics and coordinators of a fresh cluster take a moment.
        while let Err(error) = client.alter_offsets(&format!("group-{group}"), &positions).await {
            if error.kind() == ErrorKind::Fatal || Instant::now() > deadline {
                return Err(error.into());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

struct Exporter {
    process: Process,
    metrics: SocketAddr,
    _port: Port,
}

impl Exporter {
    fn start(stack: &Stack, size: Size) -> Result<Self, Error> {
        let port = Port::lease(Wish::Any)?;
        let metrics: SocketAddr = (Ipv4Addr::LOCALHOST, port.number()).into();
        let binary = native::service_binary("lag-exporter")?;
        let launch = Launch::new("lag-exporter", binary, stack.log_path("lag-exporter"))
            .args(["--brokers", &stack.kafka.bootstrap(), "--interval", INTERVAL])
            .args(["--metrics-listen", &metrics.to_string()])
            .args(size.flags.iter().copied());
        let process = Process::spawn(&launch)?;
        process.wait_ready(&format!("http://{metrics}/readyz"), LIMIT)?;
        Ok(Self { process, metrics, _port: port })
    }

    fn cpu_s(&self) -> Result<f64, Error> {
        meter::cpu_s(self.process.pid())
    }

    fn peak_mib(&self) -> f64 {
        meter::peak_rss_mib(&self.process.pid().to_string())
    }

    /// Collections so far.
    fn collections(&self) -> Result<f64, Error> {
        let (_, answer) = self.scrape()?;
        let text = String::from_utf8_lossy(&answer);
        let count = text.lines().find_map(|line| line.strip_prefix("kafka_lag_exporter_collections_total "));
        let count = count.and_then(|count| count.parse().ok());
        count.ok_or_else(|| Error::Client(format!("no collections are told of\n{}", self.process.log_tail())))
    }

    /// Time in ms, and the answer.
    fn scrape(&self) -> Result<(f64, Vec<u8>), Error> {
        let started = Instant::now();
        let mut answer = Vec::new();
        self.ask()?.read_to_end(&mut answer).map_err(Error::io("scrape", "lag-exporter"))?;
        Ok((started.elapsed().as_secs_f64() * 1e3, answer))
    }

    fn ask(&self) -> Result<TcpStream, Error> {
        let failed = |error| Error::io("scrape", "lag-exporter")(error);
        let mut stream = TcpStream::connect(self.metrics).map_err(failed)?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n").map_err(failed)?;
        Ok(stream)
    }
}
