//! Static membership (KIP-345), the consumer protocol (KIP-848) and eager members on a real broker.

use std::collections::BTreeSet;

use kafka::{Assignor, ClassicConfig, Commit, GroupEvent, GroupProtocol, Offset, PartitionId, TopicPartition};
use tokio::time::Instant;

use crate::member::{DEADLINE, Member, classic, next_event, settle, topic};
use crate::support;

fn consumer() -> GroupProtocol {
    GroupProtocol::Consumer { remote_assignor: Some("uniform".to_owned()) }
}

fn owned(members: &[Member]) -> Vec<BTreeSet<i32>> {
    members.iter().map(|member| member.owned.clone()).collect()
}

async fn commit_first_of(member: &Member, topic: &str, offset: i64) -> i32 {
    let id = *member.owned.first().expect("it owns something");
    let partition = TopicPartition::new(topic, PartitionId(id));
    member.commit(partition, Offset(offset)).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_shares_out_among_members_of_the_consumer_protocol() {
    let bootstrap = support::bootstrap();
    let client = topic(&bootstrap, "by-the-broker").await;
    let join = || Member::join_by(&bootstrap, "by-the-broker", consumer(), None);
    let mut members = vec![join(), join()];
    settle(&mut members).await;
    let id = commit_first_of(&members[0], "by-the-broker", 7).await;
    members.push(join());
    settle(&mut members).await;
    members.remove(0).consumer.handle.close().await;
    settle(&mut members).await;
    let committed = client.committed_offsets("by-the-broker-group", None).await.unwrap();
    assert_eq!(committed.len(), 1);
    assert_eq!((committed[0].0.partition, committed[0].1.offset), (PartitionId(id), Offset(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignor_that_the_broker_does_not_have_is_an_error_that_says_so() {
    let bootstrap = support::bootstrap();
    topic(&bootstrap, "strange-assignor").await;
    let protocol = GroupProtocol::Consumer { remote_assignor: Some("load-aware".to_owned()) };
    let mut member = Member::join_by(&bootstrap, "strange-assignor", protocol, None);
    let event = tokio::time::timeout(DEADLINE, member.consumer.events.recv()).await.unwrap();
    let Some(GroupEvent::Failed(error)) = event else { panic!("{event:?}") };
    assert!(error.to_string().contains("--remote-assignor"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_offer_nothing_in_common_are_told_what_to_check() {
    let bootstrap = support::bootstrap();
    topic(&bootstrap, "nothing-in-common").await;
    let mut members = vec![Member::join(&bootstrap, "nothing-in-common")];
    settle(&mut members).await;
    let range = ClassicConfig { assignors: vec![Assignor::Range], ..classic() };
    let mut other = Member::join_by(&bootstrap, "nothing-in-common", GroupProtocol::Classic(range), None);
    let event = tokio::time::timeout(DEADLINE, other.consumer.events.recv()).await.unwrap();
    let Some(GroupEvent::Failed(error)) = event else { panic!("{event:?}") };
    assert!(error.to_string().contains("--assignor"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eager_members_share_out_by_range_and_never_own_anything_twice() {
    let bootstrap = support::bootstrap();
    topic(&bootstrap, "eager").await;
    let eager = || ClassicConfig { assignors: vec![Assignor::Range, Assignor::CooperativeSticky], ..classic() };
    let join = || Member::join_by(&bootstrap, "eager", GroupProtocol::Classic(eager()), None);
    let mut members = vec![join()];
    settle(&mut members).await;
    members.push(join());
    settle(&mut members).await;
    members.push(join());
    settle(&mut members).await;
    let mut shares = owned(&members);
    shares.sort();
    let ranges: Vec<BTreeSet<i32>> = [0..4, 4..8, 8..12].map(Iterator::collect).into();
    assert_eq!(shares, ranges, "neighbours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_is_back_in_time_has_its_partitions_again_and_nobody_else_notices() {
    for (topic_name, protocol) in [("back-classic", GroupProtocol::Classic(classic())), ("back-consumer", consumer())] {
        let bootstrap = support::bootstrap();
        topic(&bootstrap, topic_name).await;
        let join = |name| Member::join_by(&bootstrap, topic_name, protocol.clone(), Some(name));
        let mut members = vec![join("one"), join("two")];
        settle(&mut members).await;
        let before = owned(&members);
        members.remove(0).consumer.handle.close().await;
        let mut back = join("one");
        let deadline = Instant::now() + DEADLINE;
        while back.owned != before[0] {
            assert!(Instant::now() < deadline, "{topic_name}: {:?} instead of {:?}", back.owned, before[0]);
            let event = next_event(std::slice::from_mut(&mut back)).await.1;
            back.take(event);
        }
        let noticed = members[0].consumer.events.try_recv();
        assert!(noticed.is_err(), "{topic_name}: the other one was told {noticed:?}");
        assert_eq!(members[0].owned, before[1]);
        commit_first_of(&back, topic_name, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_members_with_one_static_identity_the_older_is_fenced() {
    let bootstrap = support::bootstrap();
    let join = || Member::join_by(&bootstrap, "twice-the-same", GroupProtocol::Classic(classic()), Some("one"));
    let client = topic(&bootstrap, "twice-the-same").await;
    let mut older = vec![join()];
    settle(&mut older).await;
    let id = commit_first_of(&older[0], "twice-the-same", 100).await;
    let mut newer = vec![join()];
    settle(&mut newer).await;
    let mut lost = 0;
    loop {
        let event = tokio::time::timeout(DEADLINE, older[0].consumer.events.recv()).await.unwrap();
        match event.expect("it says why it ends") {
            GroupEvent::Lost(partitions) => lost += partitions.len(),
            GroupEvent::Failed(error) => {
                assert!(error.to_string().contains("group.instance.id"), "{error}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, 12, "it is told that nothing is its own any more");
    // And what it still had in hand sets nobody back, also once the group is empty and takes commits of anybody.
    newer.remove(0).consumer.handle.close().await;
    let partition = TopicPartition::new("twice-the-same", PartitionId(id));
    let stale = [Commit { partition: partition.clone(), offset: Offset(7), metadata: String::new() }];
    older[0].consumer.handle.commit(&stale, older[0].claim()).await.unwrap_err();
    let committed = client.committed_offsets("twice-the-same-group", None).await.unwrap();
    assert_eq!(
        committed.iter().map(|(at, committed)| (at, committed.offset)).collect::<Vec<_>>(),
        [(&partition, Offset(100))]
    );
}
