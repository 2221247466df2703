//! One group of our members and Java's: a group is replaced member by member without a stop, and back.
//!
//! Every member tells what it owns and when; at the end nobody may have owned a partition that another one had, and no
//! record may have been passed over. docs/kafka-client.md describes the rolls that are played here.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "support/crew.rs"]
mod crew;
#[path = "support/java.rs"]
mod java;
#[path = "support/journal.rs"]
mod journal;
#[path = "support/load.rs"]
mod load;
#[path = "support/member.rs"]
mod member;
#[path = "support/paced.rs"]
mod paced;
#[path = "support/tenure.rs"]
mod tenure;
#[path = "support/witness.rs"]
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use crew::Hand;
use java::{Java, Line, Program};
use journal::{Entry, What};
use kafka::{Assignor, Client, OffsetSpec, ProducerConfig};
use member::MemberOptions;
use native::{KafkaOptions, Stack, StackOptions};
use tenure::{Told, check_every_record, check_one_owner, tenures};
use tokio::time::Instant;

const PARTITIONS: i32 = 6;
/// Members of the group between two steps.
const MEMBERS: usize = 2;
/// Far more than a rebalance takes, with a JVM that starts on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
const RANGE: &str = "partition.assignment.strategy=range";
const STICKY: &str = "partition.assignment.strategy=cooperative-sticky";

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| {
        let dir = native::stack_dir("kafka-living-with-java");
        Stack::start(StackOptions { dir, kafka: Some(KafkaOptions::single()), redis: false, postgres: false }).unwrap()
    })
}

fn programs() -> &'static Java {
    static JAVA: OnceLock<Java> = OnceLock::new();
    JAVA.get_or_init(|| Java::compile(&native::stack_dir("kafka-living-with-java")))
}

/// A member of either kind, while it is in the group.
enum One {
    Ours(Hand),
    Java { name: String, program: Program },
}

/// The group: who is in it, and what those told who have left.
struct Group {
    topic: &'static str,
    count: usize,
    members: Vec<One>,
    gone: Vec<Told>,
}

impl Group {
    fn new(topic: &'static str) -> Self {
        Self { topic, count: 0, members: Vec::new(), gone: Vec::new() }
    }

    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{}-{kind}-{}", self.topic, self.count)
    }

    fn join_ours(&mut self, assignors: &[Assignor]) {
        let name = self.name("ours");
        let mut options = MemberOptions::new(&stack().kafka.bootstrap(), self.topic, &name);
        options.assignors = assignors.to_vec();
        self.members.push(One::Ours(Hand::task(options)));
    }

    fn join_java(&mut self, assignor: &str) {
        let name = self.name("java");
        let bootstrap = format!("bootstrap.servers={}", stack().kafka.bootstrap());
        let group = format!("group.id={}-group", self.topic);
        let settings =
            [bootstrap.as_str(), group.as_str(), assignor, "heartbeat.interval.ms=500", "session.timeout.ms=6000"];
        let program = programs().member(&name, self.topic, &settings);
        self.members.push(One::Java { name, program });
    }

    /// The member that has been in it longest leaves.
    async fn oldest_leaves(&mut self) {
        match self.members.remove(0) {
            One::Ours(mut hand) => {
                hand.leave().await;
                self.gone.push(hand.told());
            }
            One::Java { name, program } => {
                let lines = program.close().await;
                self.gone.push(told_by_java(name, &lines));
            }
        }
    }

    /// What everybody has told, of those who have left too.
    fn told(&self) -> Vec<Told> {
        let present = self.members.iter().map(|one| match one {
            One::Ours(hand) => hand.told(),
            One::Java { name, program } => told_by_java(name.clone(), &program.lines()),
        });
        self.gone.iter().cloned().chain(present).collect()
    }

    /// Waits until every partition has an owner and every member a share; checks on the way that none has two.
    async fn settle(&self, step: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let tenures = tenures(&self.told());
            check_one_owner(&tenures);
            let last = tenures.values().flatten().filter(|tenure| tenure.lasts());
            let owned: Vec<_> = last.map(|tenure| (tenure.member.clone(), tenure.partition)).collect();
            let owners: BTreeSet<_> = owned.iter().map(|(member, _)| member).collect();
            if owned.len() == usize::try_from(PARTITIONS).unwrap() && owners.len() == self.members.len() {
                return;
            }
            assert!(Instant::now() < deadline, "{step}: not settled: {owned:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Replaces every member by one that `join` adds, one after the other.
    async fn roll(&mut self, step: &str, join: impl Fn(&mut Self)) {
        for _ in 0..MEMBERS {
            join(self);
            self.settle(&format!("{step}, one more")).await;
            self.oldest_leaves().await;
            self.settle(&format!("{step}, one less")).await;
        }
    }
}

/// Java's own words as a journal. It writes down when a callback begins, in whole milliseconds: an assignment counts from
/// the end of its millisecond, a revocation from the beginning, so that rounding makes no overlap.
fn told_by_java(name: String, lines: &[Line]) -> Told {
    let mut entries = Vec::new();
    let mut owned = BTreeSet::new();
    for line in lines {
        let mut push = |at_us, what| entries.push(Entry { at_us, what });
        let began_us = line.at_ms * 1_000;
        match line.word.as_str() {
            "assigned" => line.partitions().into_iter().for_each(|partition| {
                owned.insert(partition.partition.0);
                push(began_us + 999, What::Assigned { partition: partition.partition.0, start: 0 });
            }),
            "revoked" => line.partitions().into_iter().for_each(|partition| {
                owned.remove(&partition.partition.0);
                push(began_us, What::Revoked { partition: partition.partition.0 });
            }),
            "lost" => line.partitions().into_iter().for_each(|partition| {
                owned.remove(&partition.partition.0);
                push(began_us, What::Lost { partition: partition.partition.0 });
            }),
            "read" => {
                let (partition, offsets) = line.offsets();
                let partition = partition.partition.0;
                assert!(owned.contains(&partition), "{name} read {partition}, which it did not own");
                let (first, last) = (offsets[0], offsets[1]);
                push(began_us + 999, What::Processed { partition, first, last, begun_us: began_us });
            }
            "closed" => push(began_us, What::Left),
            _ => {}
        }
    }
    Told { member: name, entries, killed_us: None }
}

fn led_others(lines: &[Line]) -> bool {
    lines.iter().any(|line| line.word == "leads" && line.details.parse::<usize>().is_ok_and(|members| members > 1))
}

async fn ends(client: &Client, topic: &str) -> BTreeMap<i32, i64> {
    let partitions = client.topic(topic).await.unwrap().topic_partitions();
    let listed = client.list_offsets(&partitions, OffsetSpec::Latest).await.unwrap();
    listed.into_iter().map(|(partition, end)| (partition.partition.0, end.unwrap().offset.0)).collect()
}

/// Plays `steps` under a steady load; at the end everything that was acknowledged has been read by somebody, in order.
async fn under_load(topic: &'static str, steps: impl AsyncFnOnce(&mut Group)) {
    let bootstrap = stack().kafka.bootstrap();
    let client = load::client(&bootstrap);
    let producer = load::producer(&client, topic, PARTITIONS, ProducerConfig::standard()).await;
    let stream = paced::Load::start(&producer, topic);
    let mut group = Group::new(topic);
    steps(&mut group).await;
    stream.stop().await;
    let ends = ends(&client, topic).await;
    let deadline = Instant::now() + DEADLINE;
    while tenure::positions(&tenures(&group.told())) != ends {
        assert!(Instant::now() < deadline, "{:?} of {ends:?}", tenure::positions(&tenures(&group.told())));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let tenures = tenures(&group.told());
    check_one_owner(&tenures);
    check_every_record(&tenures, &ends);
    while !group.members.is_empty() {
        group.oldest_leaves().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_group_is_replaced_member_by_member_and_back() {
    use Assignor::{CooperativeSticky, LoadAware, Range};
    under_load("rolled", async |group| {
        for _ in 0..MEMBERS {
            group.join_java(RANGE);
        }
        group.settle("Java alone").await;
        group.roll("to [range, cooperative-sticky]", |group| group.join_ours(&[Range, CooperativeSticky])).await;
        group.roll("to [cooperative-sticky]", |group| group.join_ours(&[CooperativeSticky])).await;
        group
            .roll("to [cooperative-sticky, load-aware]", |group| group.join_ours(&[CooperativeSticky, LoadAware]))
            .await;
        group.roll("to [load-aware]", |group| group.join_ours(&[LoadAware])).await;
        group
            .roll("back to [cooperative-sticky, load-aware]", |group| group.join_ours(&[CooperativeSticky, LoadAware]))
            .await;
        group.roll("back to [cooperative-sticky]", |group| group.join_ours(&[CooperativeSticky])).await;
        group.roll("back to Java", |group| group.join_java(STICKY)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_leads_our_members_and_ours_lead_java() {
    under_load("led-by-java", async |group| {
        group.join_java(STICKY);
        group.settle("Java alone").await;
        group.join_ours(&[Assignor::CooperativeSticky]);
        group.settle("ours follows").await;
        let One::Java { program, .. } = &group.members[0] else { panic!("the first is Java's") };
        assert!(led_others(&program.lines()), "Java shared out: {:?}", program.lines());
    })
    .await;
    under_load("led-by-ours", async |group| {
        group.join_ours(&[Assignor::CooperativeSticky]);
        group.settle("ours alone").await;
        group.join_java(STICKY);
        group.settle("Java follows").await;
        let One::Java { program, .. } = &group.members[1] else { panic!("the second is Java's") };
        assert!(!led_others(&program.lines()), "ours shared out: {:?}", program.lines());
    })
    .await;
}
