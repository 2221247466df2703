//! A member of a group by the consumer protocol (KIP-848), as a state machine. Pure.
//!
//! The coordinator assigns, and every exchange is a heartbeat: it says what the member owns, its answer what the member
//! is to own. The member brings the two together, one step at a time, and reports each step at once.
//!
//! ```text
//!                  ┌──────────────── reported: heartbeat at once ────────────────┐
//!                  ▼                                                             │
//!   Joining ──▶ Idle ── owned, but not to be ──▶ HandingBack ── done ────────────┤
//!     ▲            └─── to be owned, and not yet ──▶ LookingUp ── assigned ──────┘
//!     │
//!     └── anywhere: fenced or unknown: all is lost, join anew in epoch 0      closed: epoch −1 (static: −2) ──▶ Ended
//! ```
//!
//! Session time-out and heartbeat interval are the broker's: a member that was silent for longer learns of it by its
//! next heartbeat, and its commits are refused until then, since they carry its epoch.

use std::collections::BTreeSet;

use super::claim::Standing;
use super::machine::{Action, Beat, Consequence, Input, consequence};
use crate::consumer::AssignedPartition;
use crate::error::Error;
use crate::types::TopicPartition;

const JOINING_EPOCH: i32 = 0;
const LEAVING_EPOCH: i32 = -1;
/// A static member goes, and keeps its partitions until it is back or its session is over.
const STATIC_LEAVING_EPOCH: i32 = -2;

/// The machine.
#[derive(Debug)]
pub(crate) struct ConsumerProtocol {
    is_static: bool,
    step: Step,
    epoch: i32,
    owned: BTreeSet<TopicPartition>,
    /// What the coordinator wants the member to own, once it has said so.
    target: Option<BTreeSet<TopicPartition>>,
    /// The next heartbeat says everything: after a join, and after one whose answer was lost.
    tells_all: bool,
    /// What is owned has changed since a heartbeat said so.
    has_news: bool,
    /// How often everything was lost.
    losses: u64,
    /// The reader was told of trouble, and not yet of its end.
    in_trouble: bool,
}

#[derive(Debug, PartialEq)]
enum Step {
    Idle,
    LookingUp,
    /// The partitions that are being handed back; the coordinator still counts them as ours.
    HandingBack(Vec<TopicPartition>),
    Paused,
    Ended,
}

/// What a heartbeat says.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) epoch: i32,
    /// Subscription, time limits and identity are said too.
    pub(crate) tells_all: bool,
    /// What the member owns, when that is to be said.
    pub(crate) owned: Option<BTreeSet<TopicPartition>>,
}

impl ConsumerProtocol {
    pub(crate) fn new(is_static: bool) -> Self {
        Self {
            is_static,
            step: Step::Paused,
            epoch: JOINING_EPOCH,
            owned: BTreeSet::new(),
            target: None,
            tells_all: true,
            has_news: false,
            losses: 0,
            in_trouble: false,
        }
    }

    /// The epoch in which commits are made.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Only the broker knows its session time-out: no clock of ours ends a claim.
    pub(crate) fn standing(&self) -> Standing {
        Standing { losses: self.losses, until: None }
    }

    /// What the heartbeat that is sent now says; what it says counts as said.
    pub(crate) fn report(&mut self) -> Report {
        if self.step == Step::Ended {
            let epoch = if self.is_static { STATIC_LEAVING_EPOCH } else { LEAVING_EPOCH };
            return Report { epoch, tells_all: false, owned: None };
        }
        let tells_all = self.tells_all || self.epoch == JOINING_EPOCH;
        let says_owned = tells_all || std::mem::take(&mut self.has_news);
        self.tells_all = false;
        Report { epoch: self.epoch, tells_all, owned: says_owned.then(|| self.held()) }
    }

    /// What is owned and what is being handed back: ours as long as we have not said otherwise.
    fn held(&self) -> BTreeSet<TopicPartition> {
        let handing_back = match &self.step {
            Step::HandingBack(revoked) => revoked.as_slice(),
            _ => &[],
        };
        self.owned.iter().chain(handing_back).cloned().collect()
    }

    pub(crate) fn on(&mut self, input: Input) -> Vec<Action> {
        match input {
            Input::Close => self.close(),
            Input::Left => self.end(),
            _ if self.step == Step::Ended => Vec::new(),
            Input::Begin => {
                self.step = Step::Idle;
                vec![Action::Heartbeat]
            }
            Input::HeartbeatDue if self.step != Step::Paused => vec![Action::Heartbeat],
            Input::Heartbeat { answer: Ok(beat), .. } => self.heard(beat),
            Input::Heartbeat { answer: Err(error), .. } => self.heartbeat_failed(error),
            Input::LookedUp(Ok(added)) => self.looked_up(added),
            Input::LookedUp(Err(error)) => self.look_up_failed(error),
            Input::HandedBack { in_time } => self.handed_back(in_time),
            Input::HeartbeatDue
            | Input::Joined { .. }
            | Input::Synced { .. }
            | Input::SessionOver
            | Input::ShareOutAnew => Vec::new(),
        }
    }

    fn heard(&mut self, beat: Beat) -> Vec<Action> {
        self.epoch = beat.epoch;
        let mut actions = Vec::new();
        if let Some(assigned) = beat.assigned {
            self.target = Some(assigned);
        }
        if std::mem::take(&mut self.in_trouble) {
            actions.push(Action::Assigned(Vec::new()));
        }
        actions.extend(self.reconcile());
        actions
    }

    /// The next step towards what the coordinator wants, if none is under way.
    fn reconcile(&mut self) -> Vec<Action> {
        let (Step::Idle, Some(target)) = (&self.step, &self.target) else { return Vec::new() };
        let revoked: Vec<_> = self.owned.difference(target).cloned().collect();
        if !revoked.is_empty() {
            self.owned.retain(|partition| target.contains(partition));
            self.step = Step::HandingBack(revoked.clone());
            return vec![Action::HandBack(revoked)];
        }
        let added: Vec<_> = target.difference(&self.owned).cloned().collect();
        if added.is_empty() {
            return Vec::new();
        }
        self.step = Step::LookingUp;
        vec![Action::LookUp(added)]
    }

    fn looked_up(&mut self, mut added: Vec<AssignedPartition>) -> Vec<Action> {
        if self.step != Step::LookingUp {
            return Vec::new();
        }
        self.step = Step::Idle;
        // The coordinator may have thought better of it meanwhile.
        added.retain(|added| self.target.as_ref().is_some_and(|target| target.contains(&added.partition)));
        self.owned.extend(added.iter().map(|added| added.partition.clone()));
        self.has_news = true;
        let mut actions = vec![Action::Assigned(added), Action::Heartbeat];
        actions.extend(self.reconcile());
        actions
    }

    fn look_up_failed(&mut self, error: Error) -> Vec<Action> {
        self.step = Step::Idle;
        match consequence(&error) {
            Consequence::GiveUp => self.give_up(error),
            // The next heartbeat's answer begins it again.
            _ => {
                self.in_trouble = true;
                vec![Action::Trouble(error), Action::HeartbeatSoon]
            }
        }
    }

    fn handed_back(&mut self, in_time: bool) -> Vec<Action> {
        let Step::HandingBack(revoked) = &mut self.step else { return Vec::new() };
        let revoked = std::mem::take(revoked);
        self.step = Step::Idle;
        self.has_news = true;
        let mut actions = Vec::new();
        if !in_time {
            actions.push(Action::Lost { partitions: revoked, cause: "not handed back in time".to_owned() });
        }
        actions.push(Action::Heartbeat);
        actions.extend(self.reconcile());
        actions
    }

    fn heartbeat_failed(&mut self, error: Error) -> Vec<Action> {
        // What the lost heartbeat said may not have been heard, and its answer may have held an assignment.
        self.tells_all = true;
        match consequence(&error) {
            Consequence::Retry | Consequence::Rejoin => {
                self.in_trouble = true;
                vec![Action::Trouble(error), Action::HeartbeatSoon]
            }
            Consequence::LoseAll | Consequence::LoseAllAndId => {
                let mut actions = self.drop_all(error.to_string());
                self.step = Step::Paused;
                actions.push(Action::Pause);
                actions
            }
            Consequence::GiveUp => self.give_up(error),
        }
    }

    fn give_up(&mut self, error: Error) -> Vec<Action> {
        let mut actions = self.drop_all(error.to_string());
        actions.push(Action::Failed(error));
        actions.extend(self.end());
        actions
    }

    fn drop_all(&mut self, cause: String) -> Vec<Action> {
        let partitions: Vec<_> = self.held().into_iter().collect();
        self.losses += 1;
        self.owned.clear();
        self.target = None;
        self.epoch = JOINING_EPOCH;
        if partitions.is_empty() { Vec::new() } else { vec![Action::Lost { partitions, cause }] }
    }

    fn close(&mut self) -> Vec<Action> {
        let is_in_group = self.step != Step::Ended && self.epoch != JOINING_EPOCH;
        self.step = Step::Ended;
        if is_in_group { vec![Action::Leave] } else { vec![Action::End] }
    }

    fn end(&mut self) -> Vec<Action> {
        self.step = Step::Ended;
        vec![Action::End]
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError;
    use tokio::time::Instant;

    use super::*;
    use crate::types::PartitionId;

    fn set(ids: &[i32]) -> BTreeSet<TopicPartition> {
        ids.iter().map(|id| TopicPartition::new("t", PartitionId(*id))).collect()
    }

    fn list(partitions: &[TopicPartition]) -> Vec<i32> {
        partitions.iter().map(|partition| partition.partition.0).collect()
    }

    fn beat(member: &mut ConsumerProtocol, epoch: i32, assigned: Option<&[i32]>) -> Vec<Action> {
        let beat = Beat { epoch, assigned: assigned.map(set), interval: None };
        member.on(Input::Heartbeat { begun: Instant::now(), answer: Ok(beat) })
    }

    fn refused(member: &mut ConsumerProtocol, code: ResponseError) -> Vec<Action> {
        let answer = Err(Error::refused("ConsumerGroupHeartbeat", "group g", code));
        member.on(Input::Heartbeat { begun: Instant::now(), answer })
    }

    fn looked_up(member: &mut ConsumerProtocol, ids: &[i32]) -> Vec<Action> {
        let added = set(ids).into_iter().map(|partition| AssignedPartition { partition, committed: None });
        member.on(Input::LookedUp(Ok(added.collect())))
    }

    fn owner_of(ids: &[i32]) -> ConsumerProtocol {
        let mut member = ConsumerProtocol::new(false);
        member.on(Input::Begin);
        member.report();
        beat(&mut member, 3, Some(ids));
        looked_up(&mut member, ids);
        assert_eq!(member.report(), Report { epoch: 3, tells_all: false, owned: Some(set(ids)) });
        member
    }

    #[test]
    fn a_join_says_everything_and_what_is_assigned_is_looked_up_taken_and_reported() {
        let mut member = ConsumerProtocol::new(false);
        assert!(matches!(member.on(Input::Begin)[..], [Action::Heartbeat]));
        assert_eq!(member.report(), Report { epoch: 0, tells_all: true, owned: Some(set(&[])) });
        let actions = beat(&mut member, 1, Some(&[0, 1]));
        assert!(matches!(&actions[..], [Action::LookUp(added)] if list(added) == [0, 1]), "{actions:?}");
        assert_eq!(member.report(), Report { epoch: 1, tells_all: false, owned: None }, "not ours before it is taken");
        let actions = looked_up(&mut member, &[0, 1]);
        assert!(matches!(&actions[..], [Action::Assigned(_), Action::Heartbeat]), "{actions:?}");
        assert_eq!(member.report(), Report { epoch: 1, tells_all: false, owned: Some(set(&[0, 1])) });
        assert!(beat(&mut member, 1, None).is_empty());
        assert_eq!(member.report().owned, None, "nothing new to say");
    }

    #[test]
    fn what_is_taken_away_counts_as_ours_until_it_is_handed_back() {
        let mut member = owner_of(&[0, 1]);
        let actions = beat(&mut member, 4, Some(&[1, 2]));
        assert!(matches!(&actions[..], [Action::HandBack(revoked)] if list(revoked) == [0]), "{actions:?}");
        member.tells_all = true;
        assert_eq!(member.report().owned, Some(set(&[0, 1])));
        let actions = member.on(Input::HandedBack { in_time: true });
        assert!(
            matches!(&actions[..], [Action::Heartbeat, Action::LookUp(added)] if list(added) == [2]),
            "{actions:?}"
        );
        assert_eq!(member.report().owned, Some(set(&[1])));
    }

    #[test]
    fn what_the_coordinator_takes_back_during_the_look_up_is_not_taken() {
        let mut member = owner_of(&[0]);
        beat(&mut member, 4, Some(&[0, 1]));
        beat(&mut member, 5, Some(&[0]));
        let actions = looked_up(&mut member, &[1]);
        assert!(
            matches!(&actions[..], [Action::Assigned(added), Action::Heartbeat] if added.is_empty()),
            "{actions:?}"
        );
    }

    #[test]
    fn after_a_lost_answer_everything_is_said_again() {
        let mut member = owner_of(&[0]);
        let actions = refused(&mut member, ResponseError::NotCoordinator);
        assert!(matches!(&actions[..], [Action::Trouble(_), Action::HeartbeatSoon]), "{actions:?}");
        assert_eq!(member.report(), Report { epoch: 3, tells_all: true, owned: Some(set(&[0])) });
        let actions = beat(&mut member, 3, Some(&[0]));
        assert!(matches!(&actions[..], [Action::Assigned(added)] if added.is_empty()), "{actions:?}");
    }

    #[test]
    fn a_fenced_member_loses_everything_and_joins_anew() {
        for code in [ResponseError::FencedMemberEpoch, ResponseError::UnknownMemberId] {
            let mut member = owner_of(&[0, 1]);
            beat(&mut member, 4, Some(&[1]));
            let actions = refused(&mut member, code);
            let lost =
                matches!(&actions[..], [Action::Lost { partitions, .. }, Action::Pause] if list(partitions) == [0, 1]);
            assert!(lost, "{actions:?}");
            assert!(member.on(Input::HandedBack { in_time: true }).is_empty(), "too late");
            assert!(matches!(member.on(Input::Begin)[..], [Action::Heartbeat]));
            assert_eq!(member.report(), Report { epoch: 0, tells_all: true, owned: Some(set(&[])) });
        }
    }

    #[test]
    fn a_refusal_that_waiting_does_not_help_ends_it() {
        let mut member = owner_of(&[0]);
        let actions = refused(&mut member, ResponseError::UnsupportedAssignor);
        assert!(matches!(&actions[..], [Action::Lost { .. }, Action::Failed(_), Action::End]), "{actions:?}");
    }

    #[test]
    fn leaving_is_said_by_the_epoch() {
        for (is_static, epoch) in [(false, LEAVING_EPOCH), (true, STATIC_LEAVING_EPOCH)] {
            let mut member = owner_of(&[0]);
            member.is_static = is_static;
            assert!(matches!(member.on(Input::Close)[..], [Action::Leave]));
            assert_eq!(member.report(), Report { epoch, tells_all: false, owned: None });
        }
        assert!(matches!(ConsumerProtocol::new(false).on(Input::Close)[..], [Action::End]));
    }
}
