//! The counting at the end: every record, every row and every dead letter is read back and held against what was told.

use crate::evidence::Evidence;
use crate::generator::Told;
use crate::ledger::EventKey;
use crate::losses::{Claims, Comparison, compare};
use crate::postgres::{Postgres, PostgresError};
use crate::redis::Redis;
use crate::scrape::Buckets;
use crate::screen::Screen;
use crate::system::{PARTITIONS, System, TOPIC};
use crate::witness::{Witness, WitnessError};
use crate::{procfs, report};

/// Histogram of the writers: from the start of decoding a malformed record to the start of decoding the next.
const POISON_COST: &str = "pipeline_poison_cost_seconds";
/// The services that have it.
const WRITERS: [&str; 2] = ["redis-writer", "timescale-writer"];

/// What could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The topics could not be read.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The rows could not be read.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

/// Counts everything; `base_ms` is the start of the run on the wall.
pub async fn audit(system: &System, evidence: &mut Evidence, base_ms: i64, screen: &Screen) -> Result<(), AuditError> {
    evidence.poison_cost = poison_cost(system);
    let claims = Claims::of(evidence.surge.iter().chain(&evidence.probes).map(|told: &Told| &told.ledger));
    let witness = Witness::connect(&system.bootstrap()).await?;
    screen.line("counting: re-reading the topic and its dead letters with the independent client");
    evidence.records = Some(records(&witness, &claims, base_ms).await?);
    evidence.dead_letters = Some(witness.dead_letters(TOPIC, PARTITIONS).await?);
    screen.line("counting: comparing the rows with what the generator was told");
    evidence.rows = Some(rows(&Postgres::connect(&system.database_url()).await?, &claims, base_ms).await?);
    Ok(())
}

async fn records(witness: &Witness, claims: &Claims, base_ms: i64) -> Result<Comparison, WitnessError> {
    let mut found = Found::with_capacity(claims.len());
    witness
        .read(TOPIC, PARTITIONS, |record| {
            let identity = record.record.value.as_deref().and_then(crate::wire::identity);
            found.add(identity.and_then(|(driver_id, effective_ms)| EventKey::of(driver_id, effective_ms, base_ms)));
        })
        .await?;
    Ok(found.compare(claims))
}

async fn rows(postgres: &Postgres, claims: &Claims, base_ms: i64) -> Result<Comparison, PostgresError> {
    let mut found = Found::with_capacity(claims.len());
    postgres.rows(|driver_id, ts_ms| found.add(EventKey::of(driver_id.as_bytes(), ts_ms, base_ms))).await?;
    Ok(found.compare(claims))
}

struct Found {
    keys: Vec<EventKey>,
    strangers: u64,
}

impl Found {
    fn with_capacity(events: usize) -> Self {
        Self { keys: Vec::with_capacity(events), strangers: 0 }
    }

    fn add(&mut self, key: Option<EventKey>) {
        match key {
            Some(key) => self.keys.push(key),
            None => self.strangers += 1,
        }
    }

    fn compare(self, claims: &Claims) -> Comparison {
        compare(claims, self.keys, self.strangers)
    }
}

fn poison_cost(system: &System) -> Buckets {
    let mut cost = Buckets::default();
    for page in WRITERS.iter().filter_map(|writer| system.metrics(writer)) {
        cost.merge(&Buckets::parse(&page, POISON_COST));
    }
    cost
}

/// What the run goes on; what cannot be asked stays unknown.
pub async fn machine(system: &System) -> report::Machine {
    let redis = async { Redis::connect(system.redis()).await.ok()?.version().await.ok() };
    let postgres = async { Postgres::connect(&system.database_url()).await.ok()?.versions().await.ok() };
    let (redis, postgres) = tokio::join!(redis, postgres);
    let (postgres, timescaledb) = postgres.map_or((None, None), |(server, extension)| (Some(server), extension));
    report::Machine { kafka: Some(system.kafka_version()), redis, postgres, timescaledb, ..hardware() }
}

/// The machine without what runs on it.
#[must_use]
pub fn hardware() -> report::Machine {
    report::Machine {
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        memory_gib: procfs::memory_gib().map(|gib| report::rounded(gib, 1)),
        ..report::Machine::default()
    }
}
