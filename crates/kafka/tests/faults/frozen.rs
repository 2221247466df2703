//! A member whose time stood still (SIGSTOP, a paused virtual machine) past its session: by the time it goes on, its
//! partitions are another's. It commits nothing of them, and joins again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka::ProducerConfig;
use native::KafkaOptions;

use crate::crew::Hand;
use crate::journal::{Entry, What, now_us};
use crate::member::MemberOptions;
use crate::paced::{Load, Shape};
use crate::tenure::{self, Told};
use crate::{load, support};

const TOPIC: &str = "frozen";
const GROUP: &str = "frozen-group";
const PARTITIONS: i32 = 6;
const SESSION: Duration = Duration::from_secs(3);
/// 1,000 records a second over all partitions.
const SHAPE: Shape = Shape { keys: 60, every: Duration::from_millis(60) };

#[tokio::test(flavor = "multi_thread")]
async fn a_thawed_member_touches_nothing_that_was_given_to_others() {
    let _turn = support::turn().await;
    let brokers = KafkaOptions::single().set("group.min.session.timeout.ms", SESSION.as_millis());
    let stack = support::start("kafka-frozen", brokers).await;
    let bootstrap = stack.kafka.bootstrap();
    let client = load::client(&bootstrap);
    let producer = load::producer(&client, TOPIC, PARTITIONS, ProducerConfig::standard()).await;
    let load = Load::start_as(SHAPE, &producer, TOPIC);
    // Commits seldom enough that there is always something processed and not committed yet.
    let with = |name| MemberOptions {
        session_timeout: SESSION,
        commit_interval: Duration::from_millis(200),
        ..MemberOptions::new(&bootstrap, TOPIC, name)
    };
    let frozen = Hand::process(with("frozen"), stack.dir()).await;
    let mut hands = vec![frozen, Hand::task(with("other"))];
    support::evenly_shared(&hands, PARTITIONS).await;
    support::progress(&hands, PARTITIONS, 20).await;

    hands[0].freeze().await;
    let frozen_us = now_us();
    let had: BTreeSet<i32> = tenure_of(&hands[0].told());
    assert_eq!(had.len(), 3);
    support::progress(&hands[1..], PARTITIONS, 50).await;
    let starts = starts(&hands[1].told());
    let mut stand = support::committed(&client, GROUP).await;

    hands[0].thaw().await;
    support::eventually("it has its share again", async || {
        let now = support::committed(&client, GROUP).await;
        assert!(stand.iter().all(|(partition, offset)| now[partition] >= *offset), "{stand:?}, then {now:?}");
        stand = now;
        let back = hands[0].told().entries.iter().any(|entry| is_assignment(entry) && entry.at_us > frozen_us);
        Ok(back.then_some(()))
    })
    .await;
    support::progress(&hands, PARTITIONS, 50).await;
    let outcomes = load.stop().await;
    assert_eq!(outcomes.count(Result::is_err), 0);
    let ends = support::ends(&client, TOPIC).await;
    support::processed(&hands, &ends).await;
    for hand in &mut hands {
        hand.leave().await;
    }

    let Told { entries, .. } = hands[0].told();
    let (before, after): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.at_us <= frozen_us);
    let again = after.iter().position(is_assignment).unwrap();
    let (thawing, again) = after.split_at(again);
    check_thawing(thawing, &had, &starts);
    let told = [
        Told { member: "frozen".to_owned(), entries: before, killed_us: Some(frozen_us) },
        Told { member: "thawed".to_owned(), entries: again.to_vec(), killed_us: None },
        hands[1].told(),
    ];
    let tenures = tenure::tenures(&told);
    tenure::check_one_owner(&tenures);
    tenure::check_every_record(&tenures, &ends);
    assert_eq!(support::committed(&client, GROUP).await, ends);
}

/// Between the thaw and the next assignment: everything is lost and nothing is committed. A commit that was under way as
/// the time stopped may still be heard of; it was taken before the partition was given away.
fn check_thawing(thawing: &[Entry], had: &BTreeSet<i32>, starts: &BTreeMap<i32, i64>) {
    let mut lost = BTreeSet::new();
    let mut refused = 0;
    for entry in thawing {
        match entry.what {
            What::Lost { partition } => assert!(lost.insert(partition), "{entry}"),
            What::Processed { .. } => panic!("{entry}"),
            What::Committed { partition, next } => assert!(next <= starts[&partition], "{entry}"),
            What::NotCommitted { .. } => refused += 1,
            What::Trouble(_) => {}
            What::Assigned { .. } | What::Revoked { .. } | What::Left | What::Failed(_) => panic!("{entry}"),
        }
    }
    eprintln!("{refused} commits refused");
    assert_eq!(&lost, had);
}

fn is_assignment(entry: &Entry) -> bool {
    matches!(entry.what, What::Assigned { .. })
}

/// What a member owns.
fn tenure_of(told: &Told) -> BTreeSet<i32> {
    let tenures = tenure::tenures(std::slice::from_ref(told));
    tenures.into_values().flatten().filter(tenure::Tenure::lasts).map(|tenure| tenure.partition).collect()
}

/// Where a member last began in each partition.
fn starts(told: &Told) -> BTreeMap<i32, i64> {
    let start = |entry: &Entry| match entry.what {
        What::Assigned { partition, start } => Some((partition, start)),
        _ => None,
    };
    told.entries.iter().filter_map(start).collect()
}
