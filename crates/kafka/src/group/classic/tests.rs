//! The machine driven event by event: what it does, and what it tells.

use kafka_protocol::error::ResponseError;
use proptest::prelude::*;

use super::super::machine::Beat;
use super::*;
use crate::types::PartitionId;

const SESSION: Duration = Duration::from_secs(6);

fn partition(id: i32) -> TopicPartition {
    TopicPartition::new("t", PartitionId(id))
}

fn set(ids: &[i32]) -> BTreeSet<TopicPartition> {
    ids.iter().copied().map(partition).collect()
}

fn refused(code: ResponseError) -> Error {
    Error::refused("a test", "group g", code)
}

/// Actions in short: `join`, `sync 3`, `look-up 0,1`, `hand-back 2`, `assigned 0,1`, `lost 0`, …
fn shown(actions: &[Action]) -> Vec<String> {
    let ids = |partitions: &[TopicPartition]| {
        partitions.iter().map(|partition| partition.partition.to_string()).collect::<Vec<_>>().join(",")
    };
    let one = |action: &Action| match action {
        Action::Join => "join".to_owned(),
        Action::Sync(joined) => format!("sync {}", joined.generation),
        Action::LookUp(partitions) => format!("look-up {}", ids(partitions)),
        Action::HandBack(partitions) => format!("hand-back {}", ids(partitions)),
        Action::Pause => "pause".to_owned(),
        Action::Leave => "leave".to_owned(),
        Action::Heartbeat => "heartbeat".to_owned(),
        Action::HeartbeatSoon => "heartbeat soon".to_owned(),
        Action::Assigned(added) => {
            format!("assigned {}", ids(&added.iter().map(|added| added.partition.clone()).collect::<Vec<_>>()))
        }
        Action::Lost { partitions, .. } => format!("lost {}", ids(partitions)),
        Action::Trouble(_) => "trouble".to_owned(),
        Action::Failed(_) => "failed".to_owned(),
        Action::End => "end".to_owned(),
    };
    actions.iter().map(one).collect()
}

/// A member and its clock.
struct Bench {
    member: Classic,
    now: Instant,
    generation: i32,
}

impl Bench {
    fn new(rebalance: Rebalance) -> Self {
        let now = Instant::now();
        Self { member: Classic::new(rebalance, SESSION, false, now), now, generation: 0 }
    }

    /// In its group, with `owned`.
    fn stable(rebalance: Rebalance, owned: &[i32]) -> Self {
        let mut bench = Self::new(rebalance);
        bench.on(Input::Begin);
        bench.joined();
        bench.synced(owned);
        if !owned.is_empty() {
            bench.looked_up(owned);
        }
        assert_eq!(bench.member.phase, Phase::Stable);
        bench
    }

    fn on(&mut self, input: Input) -> Vec<String> {
        shown(&self.member.on(input, self.now))
    }

    fn joined(&mut self) -> Vec<String> {
        self.generation += 1;
        let joined =
            Joined { member_id: "m".to_owned(), generation: self.generation, protocol: String::new(), leads: None };
        self.on(Input::Joined { begun: self.now, answer: Ok(JoinAnswer::Joined(joined)) })
    }

    fn join_refused(&mut self, code: ResponseError) -> Vec<String> {
        self.on(Input::Joined { begun: self.now, answer: Err(refused(code)) })
    }

    fn synced(&mut self, assigned: &[i32]) -> Vec<String> {
        self.on(Input::Synced { begun: self.now, answer: Ok(set(assigned)) })
    }

    fn sync_refused(&mut self, code: ResponseError) -> Vec<String> {
        self.on(Input::Synced { begun: self.now, answer: Err(refused(code)) })
    }

    fn looked_up(&mut self, added: &[i32]) -> Vec<String> {
        let added = added.iter().map(|id| AssignedPartition { partition: partition(*id), committed: None });
        self.on(Input::LookedUp(Ok(added.collect())))
    }

    fn heartbeat(&mut self, answer: Result<(), ResponseError>) -> Vec<String> {
        let answer = answer.map(|()| Beat::default()).map_err(refused);
        self.on(Input::Heartbeat { begun: self.now, answer })
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn a_member_joins_takes_its_id_syncs_looks_up_and_is_stable() {
    let mut bench = Bench::new(Rebalance::Cooperative);
    assert_eq!(bench.on(Input::Begin), ["join"]);
    let answer = Ok(JoinAnswer::TakeId("m".to_owned()));
    assert_eq!(bench.on(Input::Joined { begun: bench.now, answer }), ["join"]);
    assert_eq!(bench.member.member_id(), "m");
    assert_eq!(bench.joined(), ["sync 1"]);
    assert_eq!(bench.synced(&[0, 1]), ["look-up 0,1"]);
    assert_eq!(bench.on(Input::HeartbeatDue), ["heartbeat"], "heartbeats do not wait for the look-up");
    assert_eq!(bench.looked_up(&[0, 1]), ["assigned 0,1"]);
    assert_eq!(bench.member.claim(), (&set(&[0, 1]), 1));
}

#[test]
fn a_cooperative_member_keeps_what_stays_and_hands_back_what_moves() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0, 1]);
    assert_eq!(bench.heartbeat(Err(ResponseError::RebalanceInProgress)), ["join"]);
    assert_eq!(bench.member.claim(), (&set(&[0, 1]), 1), "it claims what it owns");
    assert_eq!(bench.joined(), ["sync 2"]);
    assert_eq!(bench.synced(&[0]), ["assigned ", "hand-back 1"]);
    assert_eq!(bench.heartbeat(Err(ResponseError::RebalanceInProgress)), [""; 0], "first what is under way");
    assert_eq!(bench.on(Input::HandedBack { in_time: true }), ["join"]);
    assert_eq!(bench.member.claim(), (&set(&[0]), 2));
}

#[test]
fn an_eager_member_hands_everything_back_before_it_joins_again() {
    let mut bench = Bench::stable(Rebalance::Eager, &[0, 1]);
    assert_eq!(bench.heartbeat(Err(ResponseError::RebalanceInProgress)), ["hand-back 0,1"]);
    assert_eq!(bench.on(Input::HandedBack { in_time: true }), ["join"]);
    assert_eq!(bench.member.claim(), (&set(&[]), 1), "it claims nothing");
    bench.joined();
    assert_eq!(bench.synced(&[1]), ["look-up 1"]);
    assert_eq!(bench.looked_up(&[1]), ["assigned 1"]);
}

#[test]
fn what_is_not_handed_back_in_time_is_lost() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0, 1]);
    bench.heartbeat(Err(ResponseError::RebalanceInProgress));
    bench.joined();
    bench.synced(&[0]);
    assert_eq!(bench.on(Input::HandedBack { in_time: false }), ["lost 1", "join"]);
}

#[test]
fn a_join_that_is_lost_is_tried_again_with_what_is_owned() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0, 1]);
    bench.heartbeat(Err(ResponseError::RebalanceInProgress));
    let gone = Error::Disconnected { address: "broker:9092".to_owned() };
    assert_eq!(bench.on(Input::Joined { begun: bench.now, answer: Err(gone) }), ["trouble", "pause"]);
    assert_eq!(bench.on(Input::Begin), ["join"]);
    assert_eq!(bench.member.claim(), (&set(&[0, 1]), 1));
}

#[test]
fn a_join_that_stays_lost_for_a_session_loses_the_partitions() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0, 1]);
    bench.heartbeat(Err(ResponseError::RebalanceInProgress));
    bench.pass(SESSION);
    assert_eq!(bench.join_refused(ResponseError::CoordinatorNotAvailable), ["lost 0,1", "trouble", "pause"]);
    assert_eq!(bench.on(Input::Begin), ["join"]);
}

#[test]
fn a_sync_after_another_rebalance_joins_again() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0]);
    bench.heartbeat(Err(ResponseError::RebalanceInProgress));
    bench.joined();
    assert_eq!(bench.sync_refused(ResponseError::RebalanceInProgress), ["join"]);
    assert_eq!(bench.joined(), ["sync 3"]);
    assert_eq!(bench.synced(&[0]), ["assigned "]);
}

#[test]
fn a_coordinator_that_moves_changes_nothing_while_the_session_lasts() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0]);
    for code in [
        ResponseError::NotCoordinator,
        ResponseError::CoordinatorNotAvailable,
        ResponseError::CoordinatorLoadInProgress,
    ] {
        assert_eq!(bench.heartbeat(Err(code)), ["trouble", "heartbeat soon"]);
    }
    bench.pass(SESSION / 2);
    assert_eq!(bench.heartbeat(Ok(())), ["assigned "], "the reader hears that the trouble is over");
    assert_eq!(bench.heartbeat(Ok(())), [""; 0]);
    assert_eq!(bench.member.claim(), (&set(&[0]), 1));
}

#[test]
fn a_session_time_out_of_silence_loses_everything_and_keeps_the_id() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0, 1]);
    assert_eq!(bench.member.session_deadline(), Some(bench.now + SESSION));
    bench.pass(SESSION);
    assert_eq!(bench.on(Input::SessionOver), ["lost 0,1", "join"]);
    assert_eq!((bench.member.member_id(), bench.member.generation()), ("m", NO_GENERATION));
    assert_eq!(bench.member.session_deadline(), None, "nothing is left to lose");
}

#[test]
fn each_code_in_answer_to_a_heartbeat_has_its_consequence() {
    use ResponseError as E;
    let cases: &[(E, &[&str])] = &[
        (E::RebalanceInProgress, &["join"]),
        (E::UnknownMemberId, &["lost 0", "join"]),
        (E::IllegalGeneration, &["lost 0", "join"]),
        (E::FencedInstanceId, &["lost 0", "failed", "end"]),
        (E::GroupAuthorizationFailed, &["lost 0", "failed", "end"]),
        (E::NotCoordinator, &["trouble", "heartbeat soon"]),
        (E::CoordinatorNotAvailable, &["trouble", "heartbeat soon"]),
        (E::CoordinatorLoadInProgress, &["trouble", "heartbeat soon"]),
    ];
    for (code, expected) in cases {
        let mut bench = Bench::stable(Rebalance::Cooperative, &[0]);
        assert_eq!(bench.heartbeat(Err(*code)), *expected, "{code:?}");
        assert_eq!(bench.member.member_id().is_empty(), *code == E::UnknownMemberId, "{code:?}");
    }
}

#[test]
fn a_member_that_is_disowned_while_it_hands_back_loses_that_too() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0, 1]);
    bench.heartbeat(Err(ResponseError::RebalanceInProgress));
    bench.joined();
    bench.synced(&[0]);
    assert_eq!(bench.heartbeat(Err(ResponseError::UnknownMemberId)), ["lost 0,1", "join"]);
    assert_eq!(bench.on(Input::HandedBack { in_time: true }), [""; 0], "too late");
}

#[test]
fn an_answer_to_an_old_heartbeat_does_not_disturb_a_join() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0]);
    bench.on(Input::ShareOutAnew);
    assert_eq!(bench.heartbeat(Err(ResponseError::RebalanceInProgress)), [""; 0]);
    assert_eq!(bench.heartbeat(Err(ResponseError::UnknownMemberId)), [""; 0]);
    assert_eq!(bench.joined(), ["sync 2"]);
}

#[test]
fn a_dynamic_member_leaves_with_a_word_and_a_static_one_without() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0]);
    assert_eq!(bench.on(Input::Close), ["leave"]);
    assert_eq!(bench.on(Input::HeartbeatDue), [""; 0]);
    assert_eq!(bench.on(Input::Left), ["end"]);
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0]);
    bench.member.is_static = true;
    assert_eq!(bench.on(Input::Close), ["end"]);
    let mut bench = Bench::new(Rebalance::Cooperative);
    assert_eq!(bench.on(Input::Close), ["end"], "it never was in the group");
}

#[test]
fn the_leader_shares_out_anew_only_when_nothing_else_goes_on() {
    let mut bench = Bench::stable(Rebalance::Cooperative, &[0]);
    assert_eq!(bench.on(Input::ShareOutAnew), ["join"]);
    assert_eq!(bench.on(Input::ShareOutAnew), [""; 0]);
}

/// Any input at any time; answers carry whatever a coordinator could say.
fn inputs() -> impl Strategy<Value = Vec<(u8, Vec<i32>, u64)>> {
    prop::collection::vec((0..16_u8, prop::collection::vec(0..6, 0..4), 0..4_000_u64), 1..80)
}

proptest! {
    /// What the reader is told, summed up, is what the member claims: nothing is assigned twice, revoked or lost without
    /// being owned, or forgotten.
    #[test]
    fn what_the_reader_is_told_adds_up(inputs in inputs(), eager in any::<bool>()) {
        let mut bench = Bench::new(if eager { Rebalance::Eager } else { Rebalance::Cooperative });
        let mut told = BTreeSet::new();
        let mut looking_up: Vec<TopicPartition> = Vec::new();
        let mut handing_back: Vec<TopicPartition> = Vec::new();
        for (kind, ids, pause_ms) in inputs {
            bench.pass(Duration::from_millis(pause_ms));
            let begun = bench.now;
            let code = |number: usize| {
                use ResponseError as E;
                refused([E::RebalanceInProgress, E::UnknownMemberId, E::NotCoordinator, E::IllegalGeneration][number % 4])
            };
            let input = match (kind, &bench.member.phase) {
                (0, Phase::Paused) => Input::Begin,
                (1 | 2, Phase::Joining) => {
                    bench.generation += 1;
                    let joined = Joined {
                        member_id: "m".to_owned(), generation: bench.generation, protocol: String::new(), leads: None,
                    };
                    Input::Joined { begun, answer: Ok(JoinAnswer::Joined(joined)) }
                }
                (3, Phase::Joining) => Input::Joined { begun, answer: Err(code(ids.len())) },
                (4 | 5, Phase::Syncing) => Input::Synced { begun, answer: Ok(set(&ids)) },
                (6, Phase::Syncing) => Input::Synced { begun, answer: Err(code(ids.len())) },
                (7 | 8, Phase::LookingUp(_)) => {
                    let added = looking_up.drain(..).map(|partition| AssignedPartition { partition, committed: None });
                    Input::LookedUp(Ok(added.collect()))
                }
                (9, Phase::LookingUp(_)) => Input::LookedUp(Err(code(2))),
                (10 | 11, Phase::HandingBack(_)) => {
                    // What is answered in time was given up by the reader before.
                    if kind == 10 {
                        handing_back.drain(..).for_each(|partition| { told.remove(&partition); });
                    }
                    Input::HandedBack { in_time: kind == 10 }
                }
                (12, _) => Input::Heartbeat { begun, answer: Ok(Beat::default()) },
                (13, _) => Input::Heartbeat { begun, answer: Err(code(ids.len())) },
                (14, _) if bench.member.session_deadline().is_some() => Input::SessionOver,
                (15, _) => Input::ShareOutAnew,
                _ => continue,
            };
            for action in bench.member.on(input, bench.now) {
                match action {
                    Action::LookUp(partitions) => looking_up = partitions,
                    Action::HandBack(partitions) => {
                        prop_assert!(partitions.iter().all(|partition| told.contains(partition)));
                        handing_back = partitions;
                    }
                    Action::Assigned(added) => for added in added {
                        prop_assert!(told.insert(added.partition.clone()), "{} assigned twice", added.partition);
                    },
                    Action::Lost { partitions, .. } => for partition in partitions {
                        prop_assert!(told.remove(&partition), "{partition} lost, and never assigned");
                    },
                    _ => {}
                }
            }
            let handed_back: BTreeSet<_> = match &bench.member.phase {
                Phase::HandingBack(revoked) => revoked.iter().cloned().collect(),
                _ => BTreeSet::new(),
            };
            let held: BTreeSet<_> = bench.member.owned.union(&handed_back).cloned().collect();
            prop_assert_eq!(&held, &told, "in {:?}", bench.member.phase);
        }
    }
}
