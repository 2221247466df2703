//! The five services beside a stack, each a process of its own, told where the servers are.

use std::time::Duration;

use super::state::Member;
use crate::ports::{Port, Wish};
use crate::process::{Launch, Process};
use crate::{Error, Stack};

/// A service creates topics or its schema before it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
const INGEST_PORT: u16 = 8080;
/// Every service, with the port of its metrics and health by default.
const SERVICES: [(&str, u16); 5] = [
    ("location-ingest", 9101),
    ("redis-writer", 9102),
    ("timescale-writer", 9103),
    ("dlt-monitor", 9104),
    ("lag-exporter", 9105),
];

/// A service that runs.
#[derive(Debug)]
pub(super) struct Service {
    process: Process,
    address: String,
    metrics_port: u16,
    _ports: Vec<Port>,
}

impl Service {
    pub(super) fn member(&self) -> Member {
        Member {
            name: self.process.name().to_owned(),
            address: self.address.clone(),
            metrics: Some(format!("http://127.0.0.1:{}/metrics", self.metrics_port)),
            process: Some(self.process.identity()),
        }
    }

    fn wait_ready(&self) -> Result<(), Error> {
        self.process.wait_ready(&format!("http://127.0.0.1:{}/readyz", self.metrics_port), READY_LIMIT)
    }
}

/// Starts all five and waits until each is ready.
pub(super) fn start(stack: &Stack) -> Result<Vec<Service>, Error> {
    let services: Vec<Service> =
        SERVICES.iter().map(|(name, metrics_port)| spawn(stack, name, *metrics_port)).collect::<Result<_, _>>()?;
    services.iter().try_for_each(Service::wait_ready)?;
    Ok(services)
}

fn spawn(stack: &Stack, name: &str, metrics_port: u16) -> Result<Service, Error> {
    let metrics = Port::lease(Wish::Rather(metrics_port))?;
    let metrics_port = metrics.number();
    let common = stack
        .service(name)?
        .args(["--brokers", &stack.kafka.bootstrap()])
        .args(["--metrics-listen", &format!("127.0.0.1:{metrics_port}")]);
    let (launch, address, own_port) = with_own_arguments(stack, name, common)?;
    let ports = std::iter::once(metrics).chain(own_port).collect();
    Ok(Service { process: Process::spawn(&launch)?, address, metrics_port, _ports: ports })
}

/// What only this service takes, where its users find it, and the port for that.
fn with_own_arguments(stack: &Stack, name: &str, launch: Launch) -> Result<(Launch, String, Option<Port>), Error> {
    Ok(match name {
        "location-ingest" => {
            let port = Port::lease(Wish::Rather(INGEST_PORT))?;
            let address = format!("127.0.0.1:{}", port.number());
            (launch.args(["--listen", &address]), format!("http://{address}/api/drivers/location"), Some(port))
        }
        "redis-writer" => (launch.args(["--redis-url", &stack.redis.url()]), String::new(), None),
        // Arguments are for everybody to see; the URL holds a password.
        "timescale-writer" => (launch.env("DATABASE_URL", stack.postgres.url()), String::new(), None),
        _ => (launch, String::new(), None),
    })
}
