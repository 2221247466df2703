//! Several members of one group on a real broker: who owns what, and who takes over.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka::{Commit, Offset, PartitionId, TopicPartition};
use tokio::time::Instant;

use crate::member::{DEADLINE, Member, PARTITIONS, next_event, settle, topic};
use crate::support;

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
                    member.commit(fetched.partition, next).await;
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
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
    silent[0].consumer.handle.commit(std::slice::from_ref(&commit), silent[0].claim()).await.unwrap();
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
