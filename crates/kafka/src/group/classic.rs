//! A member of a group by the classic protocol, as a state machine. Pure: it is told what happened and says what to do.
//!
//! ```text
//!                       ┌───────────────── rejoin: the group rebalances, or shares out anew ────────────┐
//!            eager: hand back all first                                                                 │
//!                       ▼                                                                               │
//!   Paused ──▶ Joining ──▶ Syncing ──▶ LookingUp ──────────────────────────────────────────────────▶ Stable
//!     ▲           ▲                    (offsets of what is new) ──▶ HandingBack (what moves away)      │  ▲
//!     │           └───────────────────────────────────────────────────── done: rejoin ──┘              └──┘
//!     │                                                                                          heartbeats
//!     └── join, sync or look-up failed, and waiting may help
//!
//!   anywhere: the coordinator disowns us, or a session time-out of silence: all is lost ──▶ Joining
//!             waiting does not help: all is lost, failed ──▶ Ended          closed: leave ──▶ Ended
//! ```
//!
//! What stays assigned through a rebalance goes on without a pause. Partitions are *revoked* while the coordinator
//! still counts us in (finish, commit, answer), and *lost* when it does not, or when it has not heard from us for a
//! session time-out: somebody else may own them already. Heartbeats go on in LookingUp, HandingBack and Stable; one that
//! fails because the coordinator is away or has moved changes nothing until the session is over.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::assignor::Rebalance;
use super::claim::Standing;
use super::machine::{Action, Consequence, Input, JoinAnswer, Joined, consequence};
use crate::consumer::AssignedPartition;
use crate::error::Error;
use crate::types::TopicPartition;

/// Generation of a member that is in none.
pub(crate) const NO_GENERATION: i32 = -1;

/// The machine.
#[derive(Debug)]
pub(crate) struct Classic {
    rebalance: Rebalance,
    session_timeout: Duration,
    /// A static member goes without a word, so that it finds its partitions again when it comes back (KIP-345).
    is_static: bool,
    phase: Phase,
    member_id: String,
    generation: i32,
    owned: BTreeSet<TopicPartition>,
    /// Generation in which `owned` was confirmed.
    owned_generation: i32,
    /// When the last exchange that the coordinator answered was begun.
    last_contact: Instant,
    /// How often everything was lost.
    losses: u64,
    /// The reader was told of trouble, and not yet of its end.
    in_trouble: bool,
}

#[derive(Debug, PartialEq)]
enum Phase {
    Paused,
    Joining,
    Syncing,
    /// The partitions that are to be handed back afterwards.
    LookingUp(Vec<TopicPartition>),
    /// The partitions that are being handed back.
    HandingBack(Vec<TopicPartition>),
    Stable,
    Ended,
}

impl Classic {
    pub(crate) fn new(rebalance: Rebalance, session_timeout: Duration, is_static: bool, now: Instant) -> Self {
        Self {
            rebalance,
            session_timeout,
            is_static,
            phase: Phase::Paused,
            member_id: String::new(),
            generation: NO_GENERATION,
            owned: BTreeSet::new(),
            owned_generation: NO_GENERATION,
            last_contact: now,
            losses: 0,
            in_trouble: false,
        }
    }

    pub(crate) fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The generation in which commits are made.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// What the next join claims, and the generation in which it was given.
    pub(crate) fn claim(&self) -> (&BTreeSet<TopicPartition>, i32) {
        (&self.owned, self.owned_generation)
    }

    /// When the coordinator may have given our partitions to others, unless it answers before. While a join or a sync is
    /// under way it counts us in for as long as it lets us wait.
    pub(crate) fn standing(&self) -> Standing {
        let is_waited_for = matches!(self.phase, Phase::Joining | Phase::Syncing);
        let until = (!is_waited_for).then(|| self.last_contact + self.session_timeout);
        Standing { losses: self.losses, until }
    }

    /// The same, where there is something to lose.
    pub(crate) fn session_deadline(&self) -> Option<Instant> {
        (self.is_kept_alive() && !self.owned.is_empty()).then(|| self.last_contact + self.session_timeout)
    }

    pub(crate) fn on(&mut self, input: Input, now: Instant) -> Vec<Action> {
        match input {
            Input::Close => self.close(),
            Input::Left => self.end(),
            _ if self.phase == Phase::Ended => Vec::new(),
            Input::Begin => self.join(),
            Input::Joined { begun, answer } => match answer {
                Ok(JoinAnswer::TakeId(member_id)) => {
                    self.member_id = member_id;
                    vec![Action::Join]
                }
                Ok(JoinAnswer::Joined(joined)) => self.joined(joined, begun),
                Err(error) => self.step_failed(error, now),
            },
            Input::Synced { begun, answer } => match answer {
                Ok(assigned) => self.synced(&assigned, begun),
                Err(error) => self.step_failed(error, now),
            },
            Input::LookedUp(Ok(added)) => self.looked_up(added),
            Input::LookedUp(Err(error)) => self.step_failed(error, now),
            Input::HandedBack { in_time } => self.handed_back(in_time),
            Input::HeartbeatDue if self.is_kept_alive() => vec![Action::Heartbeat],
            Input::Heartbeat { begun, answer: Ok(_) } => self.heard(begun),
            Input::Heartbeat { answer: Err(error), .. } => self.heartbeat_failed(error, now),
            Input::SessionOver => self.lose_all("the session is over".to_owned()),
            Input::ShareOutAnew if self.phase == Phase::Stable => self.join(),
            Input::HeartbeatDue | Input::ShareOutAnew => Vec::new(),
        }
    }

    fn is_kept_alive(&self) -> bool {
        matches!(self.phase, Phase::Stable | Phase::LookingUp(_) | Phase::HandingBack(_))
    }

    fn join(&mut self) -> Vec<Action> {
        if self.rebalance == Rebalance::Eager && !self.owned.is_empty() {
            return self.hand_back(self.owned.iter().cloned().collect());
        }
        self.phase = Phase::Joining;
        vec![Action::Join]
    }

    fn joined(&mut self, joined: Joined, begun: Instant) -> Vec<Action> {
        self.last_contact = begun;
        self.member_id.clone_from(&joined.member_id);
        self.generation = joined.generation;
        self.phase = Phase::Syncing;
        vec![Action::Sync(joined)]
    }

    fn synced(&mut self, assigned: &BTreeSet<TopicPartition>, begun: Instant) -> Vec<Action> {
        self.last_contact = begun;
        self.owned_generation = self.generation;
        let revoked = self.owned.difference(assigned).cloned().collect();
        let added: Vec<_> = assigned.difference(&self.owned).cloned().collect();
        self.phase = Phase::LookingUp(revoked);
        if added.is_empty() { self.looked_up(Vec::new()) } else { vec![Action::LookUp(added)] }
    }

    fn looked_up(&mut self, added: Vec<AssignedPartition>) -> Vec<Action> {
        let Phase::LookingUp(revoked) = &mut self.phase else { return Vec::new() };
        let revoked = std::mem::take(revoked);
        self.owned.extend(added.iter().map(|added| added.partition.clone()));
        self.in_trouble = false;
        let mut actions = vec![Action::Assigned(added)];
        if revoked.is_empty() {
            self.phase = Phase::Stable;
        } else {
            actions.extend(self.hand_back(revoked));
        }
        actions
    }

    fn hand_back(&mut self, revoked: Vec<TopicPartition>) -> Vec<Action> {
        // From here on we do not claim them, whatever happens meanwhile: claimed but dropped, nobody would read them.
        self.owned.retain(|partition| !revoked.contains(partition));
        self.phase = Phase::HandingBack(revoked.clone());
        vec![Action::HandBack(revoked)]
    }

    fn handed_back(&mut self, in_time: bool) -> Vec<Action> {
        let Phase::HandingBack(revoked) = &mut self.phase else { return Vec::new() };
        let revoked = std::mem::take(revoked);
        let mut actions = Vec::new();
        if !in_time {
            actions.push(Action::Lost { partitions: revoked, cause: "not handed back in time".to_owned() });
        }
        self.phase = Phase::Joining;
        actions.push(Action::Join);
        actions
    }

    fn heard(&mut self, begun: Instant) -> Vec<Action> {
        self.last_contact = self.last_contact.max(begun);
        let was_in_trouble = std::mem::take(&mut self.in_trouble);
        if was_in_trouble && self.phase == Phase::Stable { vec![Action::Assigned(Vec::new())] } else { Vec::new() }
    }

    /// A join, sync or look-up failed.
    fn step_failed(&mut self, error: Error, now: Instant) -> Vec<Action> {
        match consequence(&error) {
            Consequence::Rejoin => self.join(),
            Consequence::Retry => {
                let mut actions = Vec::new();
                if now >= self.last_contact + self.session_timeout {
                    actions.extend(self.drop_all(error.to_string()));
                }
                self.phase = Phase::Paused;
                self.in_trouble = true;
                actions.extend([Action::Trouble(error), Action::Pause]);
                actions
            }
            other => self.disowned(other, error),
        }
    }

    fn heartbeat_failed(&mut self, error: Error, now: Instant) -> Vec<Action> {
        if !self.is_kept_alive() {
            // An answer that was under way when the member went to join: the join tells what counts.
            return Vec::new();
        }
        match consequence(&error) {
            Consequence::Rejoin if self.phase == Phase::Stable => self.join(),
            // The next heartbeat reports it again, once the step under way is done.
            Consequence::Rejoin => Vec::new(),
            Consequence::Retry if self.session_deadline().is_some_and(|deadline| deadline <= now) => {
                self.lose_all(error.to_string())
            }
            Consequence::Retry => {
                self.in_trouble = true;
                vec![Action::Trouble(error), Action::HeartbeatSoon]
            }
            other => self.disowned(other, error),
        }
    }

    fn disowned(&mut self, consequence: Consequence, error: Error) -> Vec<Action> {
        match consequence {
            Consequence::GiveUp => {
                let mut actions = self.drop_all(error.to_string());
                actions.push(Action::Failed(error));
                actions.extend(self.end());
                actions
            }
            Consequence::LoseAllAndId => {
                self.member_id.clear();
                self.lose_all(error.to_string())
            }
            _ => self.lose_all(error.to_string()),
        }
    }

    fn lose_all(&mut self, cause: String) -> Vec<Action> {
        let mut actions = self.drop_all(cause);
        self.phase = Phase::Joining;
        actions.push(Action::Join);
        actions
    }

    /// What is owned, and what was being handed back, is somebody else's.
    fn drop_all(&mut self, cause: String) -> Vec<Action> {
        self.losses += 1;
        self.generation = NO_GENERATION;
        self.owned_generation = NO_GENERATION;
        let mut partitions: Vec<_> = std::mem::take(&mut self.owned).into_iter().collect();
        if let Phase::HandingBack(revoked) = &mut self.phase {
            partitions.append(revoked);
        }
        if partitions.is_empty() { Vec::new() } else { vec![Action::Lost { partitions, cause }] }
    }

    fn close(&mut self) -> Vec<Action> {
        let says_so = !self.is_static && !self.member_id.is_empty() && self.phase != Phase::Ended;
        self.phase = Phase::Ended;
        if says_so { vec![Action::Leave] } else { vec![Action::End] }
    }

    fn end(&mut self) -> Vec<Action> {
        self.phase = Phase::Ended;
        vec![Action::End]
    }
}

#[cfg(test)]
mod tests;
