//! Members of a group in this process, which do what a good reader does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka::{
    Claim, ClassicConfig, Client, Commit, Consumer, ConsumerConfig, GroupEvent, GroupProtocol, Offset, TopicPartition,
    TopicSpec,
};
use tokio::time::Instant;

use crate::support;

pub(crate) const PARTITIONS: i32 = 12;
const SESSION: Duration = Duration::from_secs(6);
/// Far more than any step takes: a bound for a condition, not a measure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Short heartbeats, so that a rebalance is heard of soon.
pub(crate) fn classic() -> ClassicConfig {
    ClassicConfig {
        session_timeout: SESSION,
        heartbeat_interval: Duration::from_millis(300),
        ..ClassicConfig::default()
    }
}

/// A member that does what a good reader does: takes what it is given, hands back when asked.
pub(crate) struct Member {
    pub(crate) consumer: Consumer,
    pub(crate) owned: BTreeSet<i32>,
    claim: Option<Claim>,
}

impl Member {
    /// A member of the group `<topic>-group` by the classic protocol.
    pub(crate) fn join(bootstrap: &str, topic: &str) -> Self {
        Self::join_by(bootstrap, topic, GroupProtocol::Classic(classic()), None)
    }

    pub(crate) fn join_by(bootstrap: &str, topic: &str, protocol: GroupProtocol, instance_id: Option<&str>) -> Self {
        let config = ConsumerConfig {
            instance_id: instance_id.map(Arc::from),
            protocol,
            ..ConsumerConfig::new(format!("{topic}-group"), vec![Arc::from(topic)])
        };
        let client = Client::new(support::config(bootstrap, "group-test"));
        Self { consumer: Consumer::join(client, config), owned: BTreeSet::new(), claim: None }
    }

    pub(crate) fn claim(&self) -> &Claim {
        self.claim.as_ref().expect("it was assigned something")
    }

    /// Commits as soon as the group takes it.
    pub(crate) async fn commit(&self, partition: TopicPartition, offset: Offset) {
        let commit = [Commit { partition, offset, metadata: String::new() }];
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = self.consumer.handle.commit(&commit, self.claim()).await {
            assert!(Instant::now() < deadline, "not committed: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn take(&mut self, event: GroupEvent) {
        let id = |partition: &TopicPartition| partition.partition.0;
        match event {
            GroupEvent::Assigned { partitions: assigned, claim } => {
                self.claim = Some(claim);
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
pub(crate) async fn settle(members: &mut [Member]) {
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

pub(crate) async fn next_event(members: &mut [Member]) -> (usize, GroupEvent) {
    let waiting = members.iter_mut().enumerate().map(|(index, member)| {
        Box::pin(async move { (index, member.consumer.events.recv().await.expect("the member lives")) })
    });
    let waiting = futures::future::select_all(waiting);
    tokio::time::timeout(DEADLINE, waiting).await.expect("an event comes").0
}

pub(crate) async fn topic(bootstrap: &str, name: &str) -> Client {
    let client = Client::new(support::config(bootstrap, "group-test"));
    let spec = TopicSpec { name: name.to_owned(), partitions: PARTITIONS, replication: None, settings: vec![] };
    client.create_topic(&spec).await.unwrap();
    client
}
