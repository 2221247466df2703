//! The clients written in Rust, each in the cheapest form that its interface offers for the work.
//!
//! All run on the same runtime (tokio's, one worker a core, as our services do) and send and read the same records.
//! Where records are produced, each one's outcome is awaited by a task of its own, as requests of an HTTP server would.

mod krafka;
mod ours;
mod paced;
mod rdkafka;
mod rskafka;

use std::io::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::job::{Job, Report, Role};
use crate::meter;
use crate::payload::VALUE_BYTES;

/// A run that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(180);

/// Does what the parent says, as the client called `name`.
pub(crate) fn run(name: &str, job: &[String]) -> Result<(), Error> {
    let job = Job::parse(job)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Error::io("start", "the runtime"))?;
    let work = async {
        let limited = tokio::time::timeout(LIMIT, dispatch(name, &job)).await;
        limited.unwrap_or_else(|_| Err(Error::Client(format!("client {name} was not done after {LIMIT:?}"))))
    };
    let outcome = runtime.block_on(work);
    // What a client leaves running is of no interest any more.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(name: &str, job: &Job) -> Result<(), Error> {
    match (name, job.role) {
        ("ours", Role::Fetch) => ours::fetch(job).await,
        ("ours", Role::Produce) => ours::produce(job).await,
        ("ours", Role::Consume) => ours::consume(job).await,
        ("rskafka", Role::Fetch) => rskafka::fetch(job).await,
        ("rskafka", Role::Produce) => rskafka::produce(job).await,
        ("rdkafka", Role::Fetch) => tokio::task::block_in_place(|| rdkafka::fetch(job)),
        ("rdkafka", Role::Produce) => rdkafka::produce(job).await,
        ("krafka", Role::Fetch) => krafka::fetch(job).await,
        ("krafka", Role::Produce) => krafka::produce(job).await,
        (_, role) => Err(Error::Client(format!("client {name} cannot do {role:?}"))),
    }
}

/// The work that is measured, from here to [`Measurement::report`].
struct Measurement {
    started_at: Instant,
    cpu_s: f64,
}

impl Measurement {
    /// Tells the parent that everything is warm, and waits until it has read its counters.
    fn begin() -> Result<Self, Error> {
        tell("begin")?;
        let heard = std::io::stdin().read_line(&mut String::new()).map_err(Error::io("read from", "the parent"))?;
        if heard == 0 {
            return Err(Error::Client("the parent is gone".to_owned()));
        }
        Ok(Self { started_at: Instant::now(), cpu_s: meter::own_cpu_s() })
    }

    /// Tells what it took.
    fn report(&self, records: u64) -> Result<(), Error> {
        let report = Report {
            records: records as f64,
            seconds: self.started_at.elapsed().as_secs_f64(),
            cpu_s: meter::own_cpu_s() - self.cpu_s,
            peak_rss_mib: meter::own_peak_rss_mib(),
        };
        tell(&report.line())
    }
}

fn tell(line: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::io("write to", "the parent"))
}

/// Records that were read: each one's key, value and timestamp is looked at.
#[derive(Default)]
struct Seen {
    records: u64,
    touched: u64,
}

impl Seen {
    fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms: i64) {
        let length = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        self.touched += length as u64 + (timestamp_ms & 1).cast_unsigned();
        self.records += 1;
    }

    /// The number of records, if they were whole.
    fn count(&self) -> Result<u64, Error> {
        match self.touched >= self.records * VALUE_BYTES as u64 {
            true => Ok(self.records),
            false => Err(Error::Client("values are missing".to_owned())),
        }
    }
}
