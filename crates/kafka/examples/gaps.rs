//! Measures how long each partition goes without progress when members come, go and die and when brokers do, on three
//! real brokers: `cargo run --release -p kafka --example gaps`. A table of milliseconds comes out; see
//! docs/kafka-client.md.
//!
//! ```text
//! one record a partition each 10 ms ──▶ three brokers ──▶ members, each a process with a journal
//!            │                             ▲ the event                      │
//!            └── times of the acknowledgements ──▶ longest gaps ◀── times of processing
//! ```
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

#[path = "../tests/support/crew.rs"]
mod crew;
#[path = "../tests/support/journal.rs"]
mod journal;
#[path = "../tests/support/member.rs"]
mod member;
#[path = "../tests/support/tenure.rs"]
mod tenure;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use kafka::{Client, ClientConfig, OutRecord, PartitionId, Producer, ProducerConfig, TopicSpec};
use native::{KafkaOptions, Stack, StackOptions};
use tokio::time::{Instant, sleep};

use crate::crew::Hand;
use crate::journal::now_us;
use crate::member::MemberOptions;

const TOPIC: &str = "gaps";
const GROUP: &str = "gaps-group";
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const PARTITIONS: i32 = 12;
const PACE: Duration = Duration::from_millis(10);
/// What is watched before an event and after everything goes again.
const MARGIN: Duration = Duration::from_secs(2);
/// Nothing that is measured takes a third of this.
const DEADLINE: Duration = Duration::from_secs(90);
const QUORUM_TOOL: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
const ELECTION_TOOL: &str = "org.apache.kafka.tools.LeaderElectionCommand";

/// Time without progress of each partition, when members and brokers come and go.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// How often each event is played.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The members' session time-out.
    #[arg(long, default_value_t = 6_000)]
    session_ms: u64,
    /// The members' heartbeat interval.
    #[arg(long, default_value_t = 2_000)]
    heartbeat_ms: u64,
    /// Silence after which the controller fences a broker (`broker.session.timeout.ms`).
    #[arg(long, default_value_t = 3_000)]
    broker_session_ms: u64,
    /// `broker.heartbeat.interval.ms`.
    #[arg(long, default_value_t = 500)]
    broker_heartbeat_ms: u64,
    /// Only what happens to members.
    #[arg(long)]
    members_only: bool,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    println!("{options:?}");
    let mut lab = Lab::start(options.clone()).await;
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        lab.play_members().await;
        if !options.members_only {
            lab.play_brokers().await;
        }
        lab.print();
    }
    lab.end().await;
}

/// The cluster, the load on it, the group, and what was measured.
struct Lab {
    options: Options,
    stack: Arc<Stack>,
    client: Client,
    acknowledged: Times,
    /// Those who are in the group, then those who were.
    present: Vec<Hand>,
    past: Vec<Hand>,
    started: usize,
    table: Table,
}

/// Times by partition, in µs.
type Times = Arc<Mutex<BTreeMap<i32, Vec<i64>>>>;

/// Gaps in µs by event and kind of partition.
type Table = BTreeMap<(usize, &'static str, &'static str), Vec<i64>>;

/// A stretch of time.
#[derive(Clone, Copy)]
struct Window {
    from_us: i64,
    to_us: i64,
}

impl Lab {
    async fn start(options: Options) -> Self {
        let brokers = KafkaOptions::three()
            .set("broker.session.timeout.ms", options.broker_session_ms)
            .set("broker.heartbeat.interval.ms", options.broker_heartbeat_ms);
        let start = move || {
            let dir = native::stack_dir("kafka-gaps");
            Stack::start(StackOptions { dir, kafka: Some(brokers), redis: false, postgres: false }).expect("brokers")
        };
        let stack = Arc::new(tokio::task::spawn_blocking(start).await.expect("no panic"));
        let brokers = stack.kafka.bootstrap().split(',').map(str::to_owned).collect();
        let client = Client::new(ClientConfig::new(brokers, "gaps"));
        let settings = vec![("min.insync.replicas".to_owned(), "2".to_owned())];
        let spec = TopicSpec { name: TOPIC.to_owned(), partitions: PARTITIONS, replication: Some(3), settings };
        client.create_topic(&spec).await.expect("a topic");
        let acknowledged = Times::default();
        let lab = Self {
            options,
            stack,
            client,
            acknowledged,
            present: Vec::new(),
            past: Vec::new(),
            started: 0,
            table: Table::new(),
        };
        lab.produce().await;
        lab
    }

    /// One record a partition at each tick, for as long as we live.
    async fn produce(&self) {
        let config = ProducerConfig { delivery_timeout: DEADLINE, ..ProducerConfig::standard() };
        let producer = Producer::new(self.client.clone(), config);
        until("the topic is known", async || producer.warm(TOPIC).await.is_ok()).await;
        let acknowledged = Arc::clone(&self.acknowledged);
        tokio::spawn(async move {
            let topic: Arc<str> = TOPIC.into();
            let mut tick = tokio::time::interval(PACE);
            loop {
                tick.tick().await;
                for partition in 0..PARTITIONS {
                    let delivery = producer.enqueue(record(&topic, partition)).expect("room for a minute and a half");
                    let acknowledged = Arc::clone(&acknowledged);
                    tokio::spawn(async move {
                        delivery.await.expect("acknowledged");
                        let mut times = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                        times.entry(partition).or_default().push(now_us());
                    });
                }
            }
        });
    }

    async fn play_members(&mut self) {
        while self.present.len() < 2 {
            self.join().await;
        }
        self.goes_on().await;
        let quiet = self.watch(async |_| sleep(MARGIN).await).await;
        self.note(0, "nothing happens", "all", &all(), quiet);

        let window = self.watch(async |lab| lab.join().await).await;
        self.note_moves(1, "a member joins", window);
        let window = self.watch(async |lab| lab.remove(End::Leave).await).await;
        self.note_moves(2, "a member leaves", window);
        self.join().await;
        self.goes_on().await;
        let window = self.watch(async |lab| lab.remove(End::Kill).await).await;
        self.note_moves(3, "a member is killed", window);
    }

    /// The brokers are controllers too: a dead controller has to be replaced before the dead broker can be fenced.
    async fn play_brokers(&mut self) {
        let (coordinator, controller) = (self.coordinator().await, self.controller().await);
        let plain = (1..=3).find(|id| *id != coordinator && *id != controller).expect("three brokers");
        self.play_broker(4, "a broker is killed", plain, Fault::Kill).await;
        self.play_broker(5, "a broker is stopped", plain, Fault::Stop).await;
        self.play_broker(6, "a broker is frozen", plain, Fault::Freeze).await;
        let (coordinator, controller) = (self.coordinator().await, self.controller().await);
        let (number, event) = match coordinator == controller {
            false => (7, "the group's coordinator is killed"),
            true => (8, "the group's coordinator, controller too, is killed"),
        };
        self.play_broker(number, event, coordinator, Fault::Kill).await;
        let (coordinator, controller) = (self.coordinator().await, self.controller().await);
        if coordinator != controller {
            self.play_broker(9, "the active controller is killed", controller, Fault::Kill).await;
        }
    }

    async fn play_broker(&mut self, number: usize, event: &'static str, broker: i32, fault: Fault) {
        let led = self.led_by(broker).await;
        let others: BTreeSet<i32> = all().difference(&led).copied().collect();
        eprintln!("{event}: broker {broker}, which leads {led:?}");
        let window = self.watch(async |lab| lab.on_broker(broker, fault.inflict()).await).await;
        self.note(number, event, "led by it", &led, window);
        self.note(number, event, "others", &others, window);
        self.note_acks(number, event, "led by it (acks)", &led, window);
        self.note_acks(number, event, "others (acks)", &others, window);
        self.on_broker(broker, fault.repair()).await;
        self.in_sync().await;
        self.elect_preferred().await;
        self.goes_on().await;
    }

    /// Plays an event; the window ends some time after every partition goes on.
    async fn watch(&mut self, event: impl AsyncFnOnce(&mut Self)) -> Window {
        sleep(MARGIN).await;
        let from_us = now_us();
        event(self).await;
        self.goes_on().await;
        sleep(MARGIN).await;
        Window { from_us, to_us: now_us() }
    }

    async fn join(&mut self) {
        self.started += 1;
        let name = format!("member-{}", self.started);
        let options = MemberOptions {
            session_timeout: Duration::from_millis(self.options.session_ms),
            heartbeat_interval: Duration::from_millis(self.options.heartbeat_ms),
            ..MemberOptions::new(&self.stack.kafka.bootstrap(), TOPIC, &name)
        };
        self.present.push(Hand::process(options, self.stack.dir()).await);
        self.all_own().await;
    }

    /// The member that joined last goes.
    async fn remove(&mut self, end: End) {
        let mut hand = self.present.pop().expect("a member");
        match end {
            End::Leave => hand.leave().await,
            End::Kill => hand.kill().await,
        }
        self.past.push(hand);
    }

    /// Returns once each member owns a fair share.
    async fn all_own(&self) {
        let fair = usize::try_from(PARTITIONS).expect("few") / self.present.len();
        let share = |hand: &Hand| {
            let tenures = tenure::tenures(&[hand.told()]);
            tenures.values().flatten().filter(|tenure| tenure.lasts()).count()
        };
        until("each member owns its share", async || self.present.iter().all(|hand| share(hand) == fair)).await;
    }

    /// Returns once some records of each partition, enqueued after the call, were processed.
    async fn goes_on(&self) {
        let records = 50;
        let position = || tenure::positions(&self.tenures());
        let now = position();
        until("every partition goes on", async || {
            let then = position();
            all().iter().all(|id| then.get(id).unwrap_or(&0) >= &(now.get(id).unwrap_or(&0) + records))
        })
        .await;
    }

    fn tenures(&self) -> BTreeMap<i32, Vec<tenure::Tenure>> {
        let told: Vec<_> = self.present.iter().chain(&self.past).map(Hand::told).collect();
        tenure::tenures(&told)
    }

    fn note_moves(&mut self, number: usize, event: &'static str, window: Window) {
        let tenures = self.tenures();
        let inside = |tenure: &tenure::Tenure| tenure.from_us >= window.from_us && tenure.from_us <= window.to_us;
        let moved: BTreeSet<i32> =
            tenures.iter().filter(|(_, of)| of.iter().any(inside)).map(|(partition, _)| *partition).collect();
        let stayed: BTreeSet<i32> = all().difference(&moved).copied().collect();
        self.note(number, event, "stay", &stayed, window);
        self.note(number, event, "move", &moved, window);
    }

    fn note(&mut self, number: usize, event: &'static str, kind: &'static str, partitions: &BTreeSet<i32>, w: Window) {
        let tenures = self.tenures();
        let gaps = partitions.iter().map(|partition| {
            let work = tenure::in_order(&tenures, *partition);
            longest(&work.iter().map(|work| work.done_us).collect::<Vec<_>>(), w)
        });
        let gaps: Vec<_> = gaps.collect();
        self.table.entry((number, event, kind)).or_default().extend(gaps);
    }

    fn note_acks(&mut self, number: usize, event: &'static str, kind: &'static str, of: &BTreeSet<i32>, w: Window) {
        let times = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps: Vec<_> = of.iter().map(|partition| longest(&times[partition], w)).collect();
        drop(times);
        self.table.entry((number, event, kind)).or_default().extend(gaps);
    }

    fn print(&self) {
        println!("| event | partitions | measured | median ms | longest ms |");
        println!("|---|---|---|---|---|");
        for ((_, event, kind), gaps) in &self.table {
            let mut gaps = gaps.clone();
            gaps.sort_unstable();
            let (Some(longest), Some(median)) = (gaps.last(), gaps.get(gaps.len() / 2)) else { continue };
            println!("| {event} | {kind} | {} | {} | {} |", gaps.len(), median / 1_000, longest / 1_000);
        }
    }

    async fn led_by(&self, broker: i32) -> BTreeSet<i32> {
        let topic = self.client.topic(TOPIC).await.expect("the topic");
        let led = topic.partitions.iter().filter(|partition| partition.leader.is_some_and(|id| id.0 == broker));
        led.map(|partition| partition.id.0).collect()
    }

    /// The broker that leads the group's partition of the offsets topic: `hashCode` of the group, as Kafka has it.
    async fn coordinator(&self) -> i32 {
        let topic = self.client.topic(OFFSETS_TOPIC).await.expect("the offsets");
        let hash = GROUP.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
        let partition = hash.checked_abs().unwrap_or(0) % topic.partition_count();
        let partition = topic.partitions.iter().find(|found| found.id == PartitionId(partition));
        partition.and_then(|partition| partition.leader).expect("a coordinator").0
    }

    async fn controller(&self) -> i32 {
        let said = self.tool(QUORUM_TOOL, &["describe", "--status"]).await;
        let line = said.lines().find_map(|line| line.strip_prefix("LeaderId:")).expect("a controller");
        line.trim().parse().expect("its id")
    }

    async fn elect_preferred(&self) {
        self.tool(ELECTION_TOOL, &["--election-type", "preferred", "--all-topic-partitions"]).await;
    }

    async fn tool(&self, class: &'static str, args: &'static [&'static str]) -> String {
        let stack = Arc::clone(&self.stack);
        let run = move || {
            let bootstrap = stack.kafka.bootstrap();
            stack.kafka.tool(class, &[&["--bootstrap-server", &bootstrap], args].concat(), "").expect("an answer")
        };
        tokio::task::spawn_blocking(run).await.expect("no panic")
    }

    async fn in_sync(&self) {
        until("all replicas are in sync", async || {
            let Ok(topics) = self.client.topics(&[TOPIC, OFFSETS_TOPIC]).await else { return false };
            let partitions = topics.iter().flatten().flat_map(|topic| &topic.partitions);
            topics.iter().all(Result::is_ok) && partitions.clone().all(|partition| partition.in_sync == 3)
        })
        .await;
    }

    async fn on_broker(&self, broker: i32, act: fn(&native::Broker)) {
        let (stack, id) = (Arc::clone(&self.stack), usize::try_from(broker).expect("an id"));
        tokio::task::spawn_blocking(move || act(stack.kafka.broker(id))).await.expect("no panic");
    }

    async fn end(mut self) {
        while !self.present.is_empty() {
            self.remove(End::Leave).await;
        }
    }
}

#[derive(Clone, Copy)]
enum End {
    Leave,
    Kill,
}

/// What befalls a broker.
#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Stop,
    Freeze,
}

impl Fault {
    fn inflict(self) -> fn(&native::Broker) {
        match self {
            Self::Kill => |broker| broker.kill(),
            Self::Stop => |broker| broker.stop(),
            Self::Freeze => |broker| broker.freeze(),
        }
    }

    fn repair(self) -> fn(&native::Broker) {
        match self {
            Self::Kill | Self::Stop => |broker| broker.start().expect("the broker again"),
            Self::Freeze => |broker| broker.thaw(),
        }
    }
}

fn all() -> BTreeSet<i32> {
    (0..PARTITIONS).collect()
}

fn record(topic: &Arc<str>, partition: i32) -> OutRecord {
    OutRecord {
        topic: Arc::clone(topic),
        partition: Some(PartitionId(partition)),
        key: None,
        value: Some(Bytes::from_static(b"somewhere on the way through town, at some speed, in some direction")),
        headers: Vec::new(),
        timestamp_ms: now_us() / 1_000,
    }
}

/// The longest time between two that follow each other within the window, the last before it included.
fn longest(times: &[i64], window: Window) -> i64 {
    let before = times.iter().copied().filter(|at| *at < window.from_us).max().unwrap_or(window.from_us);
    let inside = times.iter().copied().filter(|at| (window.from_us..window.to_us).contains(at));
    let (longest, last) = inside.fold((0, before), |(longest, last), at| (longest.max(at - last), at));
    longest.max(window.to_us - last)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(50)).await;
    }
}
