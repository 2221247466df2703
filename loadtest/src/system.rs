//! The system under test: real Kafka, Redis and PostgreSQL, and the five services as processes of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use native::{Error, KafkaOptions, Port, Process, Stack, StackOptions, Wish};

use crate::generator::Target;
use crate::sampler::Watched;

/// Limit for a service to become ready; the first one creates the topics.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Names of stacks that are tried: several runs may go on side by side.
const STACKS: [&str; 4] = ["demo", "demo-2", "demo-3", "demo-4"];
/// The topic of the events.
pub const TOPIC: &str = "driver-location-updates";
/// Its partitions.
pub const PARTITIONS: u32 = 48;
/// The groups that write to Redis and to the history.
pub const GROUPS: [&str; 2] = ["driver-location-redis", "driver-location-analytics"];

/// The services by what they need beside Kafka.
const SERVICES: [(&str, Needs); 5] = [
    ("location-ingest", Needs::Listen),
    ("redis-writer", Needs::Redis),
    ("timescale-writer", Needs::Postgres),
    ("dlt-monitor", Needs::Nothing),
    ("lag-exporter", Needs::Nothing),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Listen,
    Redis,
    Postgres,
}

/// Everything that runs. Dropping it stops the services, then the servers.
#[derive(Debug)]
pub struct System {
    services: Vec<Service>,
    ingest: Port,
    stack: Stack,
}

/// A running service.
#[derive(Debug)]
struct Service {
    name: &'static str,
    process: Process,
    metrics: Port,
}

impl System {
    /// Starts the servers, then the services, and waits until each is ready. Blocks.
    pub fn start() -> Result<Self, Error> {
        let stack = start_stack()?;
        let ingest = Port::lease(Wish::Any)?;
        let services = SERVICES.iter().map(|(name, needs)| Service::spawn(name, *needs, &stack, &ingest));
        let services = services.collect::<Result<Vec<_>, _>>()?;
        let system = Self { services, ingest, stack };
        for service in &system.services {
            service.process.wait_ready(&service.url("readyz"), READY_WITHIN)?;
        }
        Ok(system)
    }

    /// Addresses of the brokers.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.stack.kafka.bootstrap()
    }

    /// Where positions are posted.
    #[must_use]
    pub fn target(&self) -> Target {
        let address = local(&self.ingest);
        Target { address, host: address.to_string() }
    }

    /// Where Redis listens.
    #[must_use]
    pub fn redis(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.stack.redis.port()))
    }

    /// URL of the database.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.stack.postgres.url()
    }

    /// Version of Kafka.
    #[must_use]
    pub fn kafka_version(&self) -> String {
        self.stack.kafka.version().to_owned()
    }

    /// Directory of the logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.stack.dir().join("logs")
    }

    /// Tells the sampler which processes there are.
    pub fn watch(&self, watched: &Watched) {
        let servers = [
            ("kafka", self.stack.kafka.pid()),
            ("redis", self.stack.redis.pid()),
            ("postgres", self.stack.postgres.pid()),
        ];
        let services = self.services.iter().map(|service| (service.name, Some(service.process.pid())));
        for (name, pid) in servers.into_iter().chain(services) {
            if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
                watched.watch(name, pid);
            }
        }
    }

    /// The first service that has ended although nobody asked it to, and how.
    #[must_use]
    pub fn fallen(&self) -> Option<String> {
        self.services.iter().find_map(|service| {
            let status = service.process.status()?;
            Some(format!(
                "{} ended in the middle of the run ({status}); see {}",
                service.name,
                service.process.log_path().display()
            ))
        })
    }

    /// Stops Redis in good order. Blocks.
    pub fn stop_redis(&self) {
        self.stack.redis.stop();
    }

    /// Starts Redis again, and waits until it answers. Blocks.
    pub fn start_redis(&self) -> Result<(), Error> {
        self.stack.redis.start()
    }

    /// The page of metrics of a service; `None` when it serves none. Blocks.
    #[must_use]
    pub fn metrics(&self, name: &str) -> Option<String> {
        let service = self.services.iter().find(|service| service.name == name)?;
        native::http::get(&service.url("metrics")).ok().map(|answer| answer.body)
    }

    /// Stops the services, ingest first so that nothing new comes in, then the servers. Returns what did not end as it should. Blocks.
    #[must_use]
    pub fn stop(&self) -> Vec<String> {
        let ends = self.services.iter().map(|service| (service.name, service.process.stop()));
        let bad = ends.filter(|(_, status)| !status.success());
        let troubles =
            bad.map(|(name, status)| format!("{name} did not end in good order after SIGTERM ({status})")).collect();
        self.stack.stop();
        troubles
    }
}

impl Service {
    fn spawn(name: &'static str, needs: Needs, stack: &Stack, ingest: &Port) -> Result<Self, Error> {
        let metrics = Port::lease(Wish::Any)?;
        let launch = stack.service(name)?.args(["--brokers", &stack.kafka.bootstrap()]);
        let launch = launch.args(["--metrics-listen", &local(&metrics).to_string()]);
        let launch = match needs {
            Needs::Nothing => launch,
            // The surge is offered whatever it is told: what is to be proven is that the writers keep up with all of it.
            Needs::Listen => launch.args(["--listen", &local(ingest).to_string(), "--admission-groups", "none"]),
            Needs::Redis => launch.args(["--redis-url", &stack.redis.url()]),
            // It holds a password, and arguments can be read by every user of the machine.
            Needs::Postgres => launch.env("DATABASE_URL", stack.postgres.url()),
        };
        Ok(Self { name, process: Process::spawn(&launch)?, metrics })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", local(&self.metrics))
    }
}

fn local(port: &Port) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()))
}

fn start_stack() -> Result<Stack, Error> {
    let mut outcome = None;
    for name in STACKS {
        let options = StackOptions { kafka: Some(KafkaOptions::single()), ..StackOptions::all(name) };
        match Stack::start(options) {
            Err(error @ Error::DirInUse { .. }) => outcome = Some(error),
            started => return started,
        }
    }
    Err(outcome.expect("there is at least one name"))
}
