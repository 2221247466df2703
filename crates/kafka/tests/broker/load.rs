//! A group that shares out by load, on a real broker with a load that drifts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka::{ClassicConfig, GroupProtocol};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use tokio::time::Instant;

use crate::member::{Member, classic, next_event, settle, topic};
use crate::support;

const TOPIC: &str = "drifting";
/// These carry nearly everything.
const HOT: [i32; 3] = [0, 1, 2];
/// Looks are 5 s apart, the first gives no rate, and three in a row must agree.
const DRIFT_DEADLINE: Duration = Duration::from_secs(90);
/// Several looks: whoever goes in circles shows it by then.
const REST: Duration = Duration::from_secs(20);

/// Puts records into the hot partitions until it is dropped.
struct Load(tokio::task::JoinHandle<()>);

impl Load {
    async fn start(bootstrap: &str) -> Self {
        let witness = rskafka::client::ClientBuilder::new(vec![bootstrap.to_owned()]).build().await.unwrap();
        let mut partitions: Vec<Arc<PartitionClient>> = Vec::new();
        for id in HOT {
            let partition = witness.partition_client(TOPIC, id, UnknownTopicHandling::Retry).await.unwrap();
            partitions.push(Arc::new(partition));
        }
        Self(tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(200));
            loop {
                pace.tick().await;
                for partition in &partitions {
                    let record = Record {
                        key: None,
                        value: Some(b"a position".to_vec()),
                        headers: Default::default(),
                        timestamp: support::now(),
                    };
                    partition.produce(vec![record; 20], Compression::NoCompression).await.unwrap();
                }
            }
        }))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn hot_of(member: &Member) -> usize {
    HOT.iter().filter(|id| member.owned.contains(id)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_load_drifts_shares_out_anew_by_itself_and_then_rests() {
    let bootstrap = support::bootstrap();
    topic(&bootstrap, TOPIC).await;
    let config = ClassicConfig { rebalance_interval: Duration::from_secs(1), ..classic() };
    let join = || Member::join_by(&bootstrap, TOPIC, GroupProtocol::Classic(config.clone()), None);
    // One after the other, so that the first one keeps its hot partitions as long as only numbers count.
    let mut members = vec![join()];
    settle(&mut members).await;
    members.extend([join(), join()]);
    settle(&mut members).await;
    assert!(!members.iter().all(|member| hot_of(member) == 1), "nothing to even out");
    let load = Load::start(&bootstrap).await;
    let deadline = Instant::now() + DRIFT_DEADLINE;
    while !members.iter().all(|member| hot_of(member) == 1) {
        assert!(Instant::now() < deadline, "never evened out: {:?}", shares(&members));
        let (index, event) = tokio::time::timeout_at(deadline, next_event(&mut members)).await.expect("it moves");
        members[index].take(event);
    }
    // What moves is released in one round and given in the next: then every partition has its owner again.
    while shares(&members).iter().flatten().count() < 12 {
        let (index, event) = tokio::time::timeout_at(deadline, next_event(&mut members)).await.expect("it settles");
        members[index].take(event);
    }
    let settled = shares(&members);
    while let Ok((index, event)) = tokio::time::timeout(REST, next_event(&mut members)).await {
        members[index].take(event);
        assert_eq!(shares(&members), settled, "it goes in circles");
    }
    drop(load);
}

fn shares(members: &[Member]) -> Vec<BTreeSet<i32>> {
    members.iter().map(|member| member.owned.clone()).collect()
}
