//! Several members of one group on a real broker: who owns what, and who takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka::{
    ClassicConfig, Client, Commit, Consumer, ConsumerConfig, FetchConfig, GroupEvent, GroupProtocol, Offset,
    PartitionId, TopicPartition, TopicSpec,
};
use tokio::time::Instant;

use crate::support;

const PARTITIONS: i32 = 12;
const SESSION: Duration = Duration::from_secs(6);
/// Far more than any step takes: a bound for a condition, not a measure.
const DEADLINE: Duration = Duration::from_secs(30);

/// A member that does what a good reader does: takes what it is given, hands back when asked.
struct Member {
    consumer: Consumer,
    owned: BTreeSet<i32>,
}

impl Member {
    fn join(bootstrap: &str, topic: &str) -> Self {
        let config = ConsumerConfig {
            group: format!("{topic}-group"),
            topics: vec![Arc::from(topic)],
            instance_id: None,
            protocol: GroupProtocol::Classic(ClassicConfig {
                session_timeout: SESSION,
                heartbeat_interval: Duration::from_millis(300),
                ..ClassicConfig::default()
            }),
            rebalance_timeout: Duration::from_secs(10),
            fetch: FetchConfig {
                min_bytes: 1,
                max_wait: Duration::from_millis(20),
                max_bytes: 1 << 20,
                partition_max_bytes: 1 << 18,
                interval: Duration::from_millis(5),
            },
        };
        let client = Client::new(support::config(bootstrap, "group-test"));
        Self { consumer: Consumer::join(client, config), owned: BTreeSet::new() }
    }

    fn take(&mut self, event: GroupEvent) {
        let id = |partition: &TopicPartition| partition.partition.0;
        match event {
            GroupEvent::Assigned(assigned) => {
                for assigned in assigned {
                    let start = assigned.committed.map_or(Offset(0), |committed| committed.offset);
                    self.consumer.handle.start(&assigned.partition, start);
                    assert!(self.owned.insert(id(&assigned.partition)), "{} was ours already", assigned.partition);
                }
            }
            GroupEvent::Revoked(revocation) => {
                for partition in &revocation.partitions {
                    self.consumer.handle.stop(partition);
                    assert!(self.owned.remove(&id(partition)), "{partition} was not ours");
                }
                revocation.finish();
            }
            GroupEvent::Lost(partitions) => partitions.iter().for_each(|partition| {
                self.owned.remove(&id(partition));
            }),
            GroupEvent::Trouble(error) => eprintln!("trouble: {error}"),
            GroupEvent::Failed(error) => panic!("{error}"),
        }
    }
}

/// Serves the members' events until each partition is owned by exactly one of them and the shares are even. Fails the
/// moment two own the same.
async fn settle(members: &mut [Member]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let all: Vec<i32> = members.iter().flat_map(|member| member.owned.iter().copied()).collect();
        let distinct: BTreeSet<i32> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len(), "two members own the same partition");
        let sizes = members.iter().map(|member| member.owned.len());
        let even = sizes.clone().max().unwrap_or(0) - sizes.min().unwrap_or(0) <= 1;
        if distinct.len() == usize::try_from(PARTITIONS).unwrap() && even {
            return;
        }
        assert!(Instant::now() < deadline, "not settled: {:?}", members.iter().map(|m| &m.owned).collect::<Vec<_>>());
        let (index, event) = next_event(members).await;
        members[index].take(event);
    }
}

async fn next_event(members: &mut [Member]) -> (usize, GroupEvent) {
    let waiting = members.iter_mut().enumerate().map(|(index, member)| {
        Box::pin(async move { (index, member.consumer.events.recv().await.expect("the member lives")) })
    });
    let waiting = futures::future::select_all(waiting);
    tokio::time::timeout(DEADLINE, waiting).await.expect("an event comes").0
}

async fn topic(bootstrap: &str, name: &str) -> Client {
    let client = Client::new(support::config(bootstrap, "group-test"));
    let spec = TopicSpec { name: name.to_owned(), partitions: PARTITIONS, replication: None, settings: vec![] };
    client.create_topic(&spec).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn two_then_three_members_own_every_partition_once_and_the_rest_takes_over() {
    let bootstrap = support::bootstrap();
    topic(&bootstrap, "shared-out").await;
    let mut members = vec![Member::join(&bootstrap, "shared-out")];
    settle(&mut members).await;
    members.push(Member::join(&bootstrap, "shared-out"));
    settle(&mut members).await;
    members.push(Member::join(&bootstrap, "shared-out"));
    settle(&mut members).await;
    let leaver = members.remove(0);
    leaver.consumer.handle.close().await;
    settle(&mut members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_read_once_through_joins_and_leaves() {
    let bootstrap = support::bootstrap();
    let client = topic(&bootstrap, "read-through").await;
    let expected = support::produce_numbered(&bootstrap, "read-through", PARTITIONS, 300).await;
    let mut read = BTreeMap::<i32, Vec<i64>>::new();
    let mut members = vec![Member::join(&bootstrap, "read-through")];
    let deadline = Instant::now() + DEADLINE;
    let mut joined_late = false;
    while read.values().map(Vec::len).sum::<usize>() < expected {
        assert!(Instant::now() < deadline, "read only {:?}", read.values().map(Vec::len).collect::<Vec<_>>());
        serve_once(&mut members, &mut read).await;
        if !joined_late && read.values().map(Vec::len).sum::<usize>() > expected / 3 {
            joined_late = true;
            members.push(Member::join(&bootstrap, "read-through"));
        }
    }
    for (partition, offsets) in read {
        let once: Vec<i64> = (0..i64::try_from(offsets.len()).unwrap()).collect();
        assert_eq!(offsets, once, "partition {partition}: in order, none twice");
    }
    drop(client);
}

/// One event or one fetch of any member; what is read is committed before anything else happens.
async fn serve_once(members: &mut [Member], read: &mut BTreeMap<i32, Vec<i64>>) {
    for member in members.iter_mut() {
        tokio::select! {
            Some(event) = member.consumer.events.recv() => member.take(event),
            Some(fetched) = member.consumer.fetched.recv() => {
                for fetched in fetched {
                    let id = fetched.partition.partition.0;
                    if !member.owned.contains(&id) {
                        continue;
                    }
                    let records: Vec<_> = fetched.batches.iter().flat_map(|batch| batch.decode().unwrap()).collect();
                    read.entry(id).or_default().extend(records.iter().map(|record| record.offset.0));
                    let next = fetched.batches.last().map_or(Offset(0), kafka::RawBatch::next);
                    commit(member, fetched.partition, next).await;
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

async fn commit(member: &Member, partition: TopicPartition, offset: Offset) {
    let commit = [Commit { partition, offset, metadata: String::new() }];
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = member.consumer.handle.commit(&commit).await {
        assert!(Instant::now() < deadline, "not committed: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_falls_silent_is_replaced_and_its_commits_are_refused() {
    let bootstrap = support::bootstrap();
    let client = topic(&bootstrap, "fallen-silent").await;
    let group = "fallen-silent-group";
    let mut silent = vec![Member::join(&bootstrap, "fallen-silent")];
    settle(&mut silent).await;
    // Nobody polls its runtime's member any more: its events are left unread while another one joins.
    let mut other = vec![Member::join(&bootstrap, "fallen-silent")];
    let commit = Commit {
        partition: TopicPartition::new("fallen-silent", PartitionId(0)),
        offset: Offset(7),
        metadata: String::new(),
    };
    silent[0].consumer.handle.commit(std::slice::from_ref(&commit)).await.unwrap();
    // The silent one never answers the revocation: after the rebalance time-out its partitions are lost to it.
    let deadline = Instant::now() + DEADLINE;
    while other[0].owned.len() < 6 {
        assert!(Instant::now() < deadline, "never taken over");
        let (_, event) = next_event(&mut other).await;
        other[0].take(event);
    }
    let committed = client.committed_offsets(group, None).await.unwrap();
    assert_eq!(committed[0].1.offset, Offset(7));
}
