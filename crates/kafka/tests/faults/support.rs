//! Stacks, and waiting for what all members together have done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka::{Client, ErrorKind, OffsetSpec};
use native::{KafkaOptions, Stack, StackOptions};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::crew::Hand;
use crate::tenure::{self, Tenure, Told};

/// Nothing that a test waits for takes a third of this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// One test at a time: what is tested is what happens to the group, not to a machine with six brokers on it.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Brokers of this test's own.
pub(crate) async fn start(name: &'static str, kafka: KafkaOptions) -> Arc<Stack> {
    let start = move || {
        let dir = native::stack_dir(name);
        Stack::start(StackOptions { dir, kafka: Some(kafka), redis: false, postgres: false }).unwrap()
    };
    Arc::new(tokio::task::spawn_blocking(start).await.unwrap())
}

/// Does to the brokers what blocks.
pub(crate) async fn on<T: Send + 'static>(stack: &Arc<Stack>, act: impl FnOnce(&Stack) -> T + Send + 'static) -> T {
    let stack = Arc::clone(stack);
    tokio::task::spawn_blocking(move || act(&stack)).await.unwrap()
}

/// Looks until there is an answer; only what passes by itself may stand in the way.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>, kafka::Error>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let obstacle = match look().await {
            Ok(Some(found)) => return found,
            Ok(None) => "not yet".to_owned(),
            Err(error) if error.kind() == ErrorKind::Transient => error.to_string(),
            Err(error) => panic!("{what}: {error}"),
        };
        assert!(Instant::now() < deadline, "{what}: {obstacle}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The end of each partition's log.
pub(crate) async fn ends(client: &Client, topic: &str) -> BTreeMap<i32, i64> {
    eventually("the ends of the log", async || {
        let partitions = client.topic(topic).await?.topic_partitions();
        let listed = client.list_offsets(&partitions, OffsetSpec::Latest).await?;
        let end = |(partition, end): (kafka::TopicPartition, Result<kafka::ListedOffset, kafka::Error>)| {
            end.map(|end| (partition.partition.0, end.offset.0))
        };
        listed.into_iter().map(end).collect::<Result<BTreeMap<_, _>, _>>().map(Some)
    })
    .await
}

/// Where the group stands in each partition.
pub(crate) async fn committed(client: &Client, group: &str) -> BTreeMap<i32, i64> {
    eventually("the committed offsets", async || {
        let committed = client.committed_offsets(group, None).await?;
        Ok(Some(committed.into_iter().map(|(partition, at)| (partition.partition.0, at.offset.0)).collect()))
    })
    .await
}

/// All that the members wrote down, as tenures.
pub(crate) fn tenures(hands: &[Hand]) -> BTreeMap<i32, Vec<Tenure>> {
    tenure::tenures(&told(hands))
}

pub(crate) fn told(hands: &[Hand]) -> Vec<Told> {
    hands.iter().map(Hand::told).collect()
}

/// Returns once every partition is owned by exactly one member.
pub(crate) async fn settled(hands: &[Hand], partitions: i32) {
    let count = usize::try_from(partitions).unwrap();
    eventually("every partition has one owner", async || {
        let owners = tenure::owners(&tenures(hands));
        Ok((owners.len() == count && owners.values().all(|owners| *owners == 1)).then_some(()))
    })
    .await;
}

/// Returns once every partition has one owner and no member has two more than another.
pub(crate) async fn evenly_shared(hands: &[Hand], partitions: i32) {
    settled(hands, partitions).await;
    eventually("even shares", async || {
        let mut shares = BTreeMap::<String, usize>::new();
        for tenure in tenures(hands).into_values().flatten().filter(Tenure::lasts) {
            *shares.entry(tenure.member).or_default() += 1;
        }
        let (most, least) = (shares.values().max(), shares.values().min());
        let even = shares.len() == hands.len() && most.zip(least).is_some_and(|(most, least)| most - least <= 1);
        Ok(even.then_some(()))
    })
    .await;
}

/// Returns once the group stands at `ends`.
pub(crate) async fn all_committed(client: &Client, group: &str, ends: &BTreeMap<i32, i64>) {
    eventually("the group has committed everything", async || {
        Ok((committed(client, group).await == *ends).then_some(()))
    })
    .await;
}

/// Returns once the members have processed everything up to `goals`.
pub(crate) async fn processed(hands: &[Hand], goals: &BTreeMap<i32, i64>) {
    eventually("the members process everything", async || {
        let positions = tenure::positions(&tenures(hands));
        let there = |(partition, goal): (&i32, &i64)| positions.get(partition).unwrap_or(&0) >= goal;
        Ok(goals.iter().all(there).then_some(()))
    })
    .await;
}

/// Returns once `records` more of each partition were processed than now.
pub(crate) async fn progress(hands: &[Hand], partitions: i32, records: i64) {
    let now = tenure::positions(&tenures(hands));
    let goal = |partition: i32| (partition, now.get(&partition).unwrap_or(&0) + records);
    processed(hands, &(0..partitions).map(goal).collect()).await;
}
