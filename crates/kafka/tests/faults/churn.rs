//! Twenty members come and go at random for a minute, some of them killed: every record is processed, none by two
//! owners at a time, and in the end every partition has one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use kafka::ProducerConfig;
use native::KafkaOptions;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::crew::Hand;
use crate::member::MemberOptions;
use crate::paced::{Load, Shape};
use crate::{load, support, tenure, witness};

const TOPIC: &str = "churn";
const GROUP: &str = "churn-group";
const PARTITIONS: i32 = 24;
const MEMBERS: usize = 20;
/// As many of them are processes, since a task cannot be killed.
const PROCESSES: usize = 4;
const LENGTH: Duration = Duration::from_secs(60);
const STAY_MS: std::ops::Range<u64> = 500..12_000;
const AWAY_MS: std::ops::Range<u64> = 100..4_000;
/// 1,000 records a second over all partitions.
const SHAPE: Shape = Shape { keys: 240, every: Duration::from_millis(240) };
/// Plays the comings and goings of an earlier run again.
const SEED: &str = "CHURN_SEED";

#[tokio::test(flavor = "multi_thread")]
async fn twenty_members_that_come_and_go_lose_nothing_and_share_nothing() {
    let _turn = support::turn().await;
    let stack = support::start("kafka-churn", KafkaOptions::single()).await;
    let bootstrap = stack.kafka.bootstrap();
    let client = load::client(&bootstrap);
    let producer = load::producer(&client, TOPIC, PARTITIONS, ProducerConfig::standard()).await;
    let seed: u64 = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");

    let load = Load::start_as(SHAPE, &producer, TOPIC);
    let until = Instant::now() + LENGTH;
    let slots = (0..MEMBERS).map(|slot| {
        let rng = SmallRng::seed_from_u64(seed ^ slot as u64);
        let place = Slot { slot, bootstrap: bootstrap.clone(), dir: stack.dir().to_owned(), rng, hands: Vec::new() };
        tokio::spawn(place.come_and_go(until))
    });
    let played = join_all(slots.collect::<Vec<_>>()).await;
    let mut hands: Vec<Hand> = played.into_iter().flat_map(Result::unwrap).collect();
    let outcomes = load.stop().await;
    assert_eq!(outcomes.count(Result::is_err), 0);

    support::settled(&hands, PARTITIONS).await;
    let ends = support::ends(&client, TOPIC).await;
    support::processed(&hands, &ends).await;
    support::all_committed(&client, GROUP, &ends).await;
    outcomes.check(&witness::topic(&bootstrap, TOPIC, PARTITIONS).await);
    let tenures = support::tenures(&hands);
    tenure::check_one_owner(&tenures);
    let again = tenure::check_every_record(&tenures, &ends);
    assert!(tenure::owners(&tenures).values().all(|owners| *owners == 1), "settled, and so it stays");
    let (members, killed) = (hands.len(), hands.iter().filter(|hand| hand.was_killed()).count());
    let moves: usize = tenures.values().map(Vec::len).sum();
    println!(
        "{members} memberships, {killed} killed; {moves} tenures; {} records, {again} processed again",
        ends.values().sum::<i64>()
    );
    assert!(killed > 0 && members > MEMBERS * 2, "the minute was as restless as it is meant to be");
    join_all(hands.iter_mut().filter(|hand| hand.is_in()).map(Hand::leave)).await;
}

/// A place in the group that one member after the other takes.
struct Slot {
    slot: usize,
    bootstrap: String,
    dir: PathBuf,
    rng: SmallRng,
    hands: Vec<Hand>,
}

impl Slot {
    /// Returns all members, of which the last is in the group still.
    async fn come_and_go(mut self, until: Instant) -> Vec<Hand> {
        loop {
            self.pass(AWAY_MS).await;
            let options = self.options();
            let mut hand = match self.slot < PROCESSES {
                true => Hand::process(options, Path::new(&self.dir)).await,
                false => Hand::task(options),
            };
            self.pass(STAY_MS).await;
            if Instant::now() >= until {
                self.hands.push(hand);
                return self.hands;
            }
            match self.is_to_be_killed() {
                true => hand.kill().await,
                false => hand.leave().await,
            }
            self.hands.push(hand);
        }
    }

    /// A group waits for a dead member until its session is over: too many, and it would do nothing else.
    fn is_to_be_killed(&mut self) -> bool {
        self.slot == 0 || self.slot < PROCESSES && self.rng.random_bool(0.2)
    }

    fn options(&self) -> MemberOptions {
        MemberOptions::new(&self.bootstrap, TOPIC, &format!("member-{}-{}", self.slot, self.hands.len()))
    }

    /// The time that the game itself takes, not a wait for something.
    async fn pass(&mut self, range: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.random_range(range))).await;
    }
}
