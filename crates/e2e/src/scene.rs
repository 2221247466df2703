//! One test's own pipeline on servers that it may share with others: topic, groups, keys and database of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kafka::{Client, ClientConfig, TopicSpec};
use native::{Launch, Stack};

use crate::events::Moment;
use crate::history::History;
use crate::load::Posted;
use crate::map::Map;
use crate::service::{Ended, Ingest, Service};
use crate::wait::eventually;
use crate::witness::{Found, Witness};

/// Silence after which a group gives up a member: short, as tests kill members; long enough for a busy machine.
const SESSION: [(&str, &str); 2] = [("--session-timeout", "3s"), ("--heartbeat-interval", "500ms")];
/// So that a change of the lag is soon seen.
const LAG_INTERVAL: &str = "250ms";
const INGEST: &str = "location-ingest";

/// The names of one test, and how its services are started.
#[derive(Debug, Clone)]
pub struct Scene<'a> {
    stack: &'a Stack,
    name: String,
    partitions: i32,
    started: Arc<AtomicUsize>,
    bootstrap: String,
}

impl<'a> Scene<'a> {
    /// A scene called `name`; its topics are made by the first service, or by [`Scene::create_topics`].
    pub async fn set(stack: &'a Stack, name: &str, partitions: i32) -> Self {
        let scene = Self {
            stack,
            name: name.to_owned(),
            partitions,
            started: Arc::default(),
            bootstrap: stack.kafka.bootstrap(),
        };
        History::at(&stack.postgres.url()).execute(&format!("CREATE DATABASE \"{name}\"")).await;
        scene
    }

    /// The topic of the events, called like the scene.
    pub fn topic(&self) -> &str {
        &self.name
    }

    /// The topic of their dead letters.
    pub fn dead_letter_topic(&self) -> String {
        format!("{}.DLT", self.name)
    }

    /// The group of the redis-writers.
    pub fn redis_group(&self) -> String {
        format!("{}-redis", self.name)
    }

    /// The group of the timescale-writers.
    pub fn analytics_group(&self) -> String {
        format!("{}-analytics", self.name)
    }

    /// What stands before the driver in the keys of the map.
    pub fn key_prefix(&self) -> String {
        format!("{}:", self.name)
    }

    /// The scene's own database.
    pub fn database_url(&self) -> String {
        let url = self.stack.postgres.url();
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{}", self.name)
    }

    /// Our client: for groups and offsets, which rskafka does not know.
    pub fn client(&self) -> Client {
        Client::new(ClientConfig::new(vec![self.bootstrap.clone()], "e2e"))
    }

    /// The independent witness.
    pub async fn witness(&self) -> Witness {
        Witness::connect(&self.bootstrap).await
    }

    /// The map.
    pub async fn map(&self) -> Map {
        Map::open(&self.stack.redis.url(), &self.key_prefix()).await
    }

    /// The history.
    pub fn history(&self) -> History {
        History::at(&self.database_url())
    }

    /// Makes both topics before any service does.
    pub async fn create_topics(&self) {
        for name in [self.name.clone(), self.dead_letter_topic()] {
            let spec = TopicSpec { name, partitions: self.partitions, replication: None, settings: Vec::new() };
            self.client().create_topic(&spec).await.expect("a topic");
        }
    }

    /// The same scene as it looks to services that are told other brokers.
    #[must_use]
    pub fn on_brokers(&self, bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned(), ..self.clone() }
    }

    /// The same scene as it looks to services that expect another number of partitions.
    #[must_use]
    pub fn expecting(&self, partitions: i32) -> Self {
        Self { partitions, ..self.clone() }
    }

    /// Starts location-ingest with further `flags`.
    pub fn ingest(&self, flags: &[&str]) -> Ingest {
        // These scenes offer a load and count all of it; what admission does with one has tests of its own.
        let is_given = flags.iter().any(|flag| flag.starts_with("--admission-groups"));
        let default = if is_given { &[][..] } else { &["--admission-groups=none"] };
        Ingest::spawn(self.launch(INGEST).args(default.iter().copied()).args(flags))
    }

    /// Starts a redis-writer.
    pub fn redis_writer(&self, flags: &[&str]) -> Service {
        self.start("redis-writer", flags)
    }

    /// Starts a timescale-writer.
    pub fn timescale_writer(&self, flags: &[&str]) -> Service {
        self.start("timescale-writer", flags)
    }

    /// Starts a dlt-monitor.
    pub fn dlt_monitor(&self, flags: &[&str]) -> Service {
        self.start("dlt-monitor", flags)
    }

    /// Starts a lag-exporter for both groups of writers.
    pub fn lag_exporter(&self, flags: &[&str]) -> Service {
        self.start("lag-exporter", flags)
    }

    /// Starts any of the services by its name.
    pub fn start(&self, service: &str, flags: &[&str]) -> Service {
        match service {
            INGEST => self.ingest(flags).service,
            _ => Service::spawn(self.launch(service).args(flags)),
        }
    }

    /// Runs any of the services that is to end by itself.
    pub fn run(&self, service: &str, flags: &[&str]) -> Ended {
        let own = self.flags(service);
        let mut all: Vec<_> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        all.push("--metrics-listen=127.0.0.1:0");
        if service == INGEST {
            all.push("--listen=127.0.0.1:0");
        }
        Ended::of(service, &all, &[("DATABASE_URL", &self.database_url())])
    }

    /// All dead letters, as the witness reads them.
    pub async fn letters(&self) -> Vec<Found> {
        self.witness().await.read(&self.dead_letter_topic(), self.partitions).await
    }

    /// Every event in Kafka, as the witness reads it. Panics when one that was accepted is missing, when one is there
    /// twice, and when one is there that was refused.
    pub async fn in_kafka(&self, posted: &Posted) -> Vec<Moment> {
        let found = self.witness().await.read(&self.name, self.partitions).await;
        let all: Vec<_> = found.iter().filter_map(Found::moment).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "events that are in Kafka twice");
        let lost: Vec<_> = posted.accepted.iter().filter(|moment| !distinct.contains(moment)).take(5).collect();
        assert!(lost.is_empty(), "acknowledged, and not in Kafka: {lost:?}");
        let told: BTreeSet<_> = posted.accepted.iter().chain(&posted.unknown).collect();
        let refused: Vec<_> = all.iter().filter(|moment| !told.contains(moment)).take(5).collect();
        assert!(refused.is_empty(), "in Kafka, though refused: {refused:?}");
        all
    }

    /// The ends of all partitions of the topic.
    pub async fn ends(&self) -> BTreeMap<i32, i64> {
        self.witness().await.ends(self.topic(), self.partitions).await
    }

    /// Waits until both groups of writers have committed everything that is in the topic now.
    pub async fn drains(&self) {
        let ends = self.ends().await;
        for group in [self.redis_group(), self.analytics_group()] {
            self.reaches(&group, &ends).await;
        }
    }

    /// Waits until a group has committed `positions`. A partition that is still empty needs no commit.
    pub async fn reaches(&self, group: &str, positions: &BTreeMap<i32, i64>) {
        let wanted = positions.iter().filter(|(_, offset)| **offset > 0);
        let wanted: BTreeMap<_, _> = wanted.map(|(partition, offset)| (*partition, *offset)).collect();
        eventually("the group has committed everything", async || {
            let mut committed = self.committed(group).await?;
            committed.retain(|_, offset| *offset > 0);
            if committed == wanted { Ok(()) } else { Err(format!("{committed:?} of {wanted:?}")) }
        })
        .await;
    }

    /// Committed positions of a group by partition.
    ///
    /// # Errors
    /// Why Kafka does not say.
    pub async fn committed(&self, group: &str) -> Result<BTreeMap<i32, i64>, String> {
        let committed = self.client().committed_offsets(group, None).await.map_err(|error| error.to_string())?;
        Ok(committed.into_iter().map(|(place, committed)| (place.partition.0, committed.offset.0)).collect())
    }

    fn launch(&self, service: &str) -> Launch {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}-{service}", self.name);
        let binary = native::service_binary(service).unwrap_or_else(|error| panic!("{error}"));
        Launch::new(&name, binary, self.stack.log_path(&name))
            .args(self.flags(service))
            // Arguments are for everybody to see; the URL holds a password.
            .env("DATABASE_URL", self.database_url())
    }

    /// What tells a service where it is.
    fn flags(&self, service: &str) -> Vec<String> {
        let common = [("--brokers", self.bootstrap.clone()), ("--topic", self.name.clone())];
        let partitions = ("--topic-partitions", self.partitions.to_string());
        let own = match service {
            "redis-writer" => vec![
                partitions,
                ("--group", self.redis_group()),
                ("--redis-url", self.stack.redis.url()),
                ("--key-prefix", self.key_prefix()),
            ],
            "timescale-writer" => vec![partitions, ("--group", self.analytics_group())],
            "dlt-monitor" => vec![partitions, ("--group", format!("{}-letters", self.name))],
            "lag-exporter" => {
                let groups = format!("{},{}", self.redis_group(), self.analytics_group());
                vec![("--groups", groups), ("--interval", LAG_INTERVAL.to_owned())]
            }
            _ => vec![partitions],
        };
        let session = own.iter().any(|(flag, _)| *flag == "--group").then_some(SESSION).into_iter().flatten();
        let session = session.map(|(flag, value)| (flag, value.to_owned()));
        common.into_iter().chain(own).chain(session).map(|(flag, value)| format!("{flag}={value}")).collect()
    }
}
