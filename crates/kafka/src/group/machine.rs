//! What the machines of both group protocols speak in: what happens to a member, and what is done about it. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::time::Instant;

use super::assignor::{Assignor, Members};
use crate::consumer::AssignedPartition;
use crate::error::{Error, ErrorKind};
use crate::types::TopicPartition;

/// What happens to a member.
#[derive(Debug)]
pub(crate) enum Input {
    /// It is to join; or the pause that it asked for is over.
    Begin,
    /// JoinGroup was answered; `begun` is when it was sent.
    Joined { begun: Instant, answer: Result<JoinAnswer, Error> },
    /// SyncGroup was answered: what the member is assigned.
    Synced { begun: Instant, answer: Result<BTreeSet<TopicPartition>, Error> },
    /// It is time for a heartbeat.
    HeartbeatDue,
    /// A heartbeat was answered.
    Heartbeat { begun: Instant, answer: Result<Beat, Error> },
    /// The committed offsets of added partitions were looked up.
    LookedUp(Result<Vec<AssignedPartition>, Error>),
    /// The reader has handed revoked partitions back, or its time for that is over.
    HandedBack { in_time: bool },
    /// Nothing was heard from the coordinator for a session time-out.
    SessionOver,
    /// As leader: the group's partitions should be shared out anew.
    ShareOutAnew,
    /// The member is to leave.
    Close,
    /// It has left, or could not say so.
    Left,
}

/// The answer to a JoinGroup.
#[derive(Debug)]
pub(crate) enum JoinAnswer {
    /// The coordinator gave the member an id, with which it joins again (KIP-394).
    TakeId(String),
    /// The member is in the group's new generation.
    Joined(Joined),
}

/// A generation that the member is in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Joined {
    pub(crate) member_id: String,
    pub(crate) generation: i32,
    /// The assignor's name.
    pub(crate) protocol: String,
    /// Set for the leader: who is to be shared out to, and by which assignor.
    pub(crate) leads: Option<Leads>,
}

/// What the leader of a generation is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leads {
    pub(crate) assignor: Assignor,
    pub(crate) members: Members,
    /// A static member came back: the coordinator keeps the assignment and wants no other (KIP-814).
    pub(crate) keeps_assignment: bool,
}

/// The answer to a heartbeat. The classic protocol's says no more than that the session lives.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Beat {
    /// The member's epoch (consumer protocol).
    pub(crate) epoch: i32,
    /// What the member is assigned from now on, when that has changed (consumer protocol).
    pub(crate) assigned: Option<BTreeSet<TopicPartition>>,
    /// When the coordinator wants to hear from the member again (consumer protocol).
    pub(crate) interval: Option<Duration>,
}

/// What is done about an [`Input`]. Join, sync, look-up, hand-back, pause and leave are the member's one slow step: a
/// new one takes the place of the one under way. Heartbeats go on beside it.
#[derive(Debug)]
pub(crate) enum Action {
    Join,
    Sync(Joined),
    LookUp(Vec<TopicPartition>),
    HandBack(Vec<TopicPartition>),
    Pause,
    Leave,
    /// Send a heartbeat now.
    Heartbeat,
    /// Send the next heartbeat sooner than usual: the last one failed.
    HeartbeatSoon,
    /// Tell the reader.
    Assigned(Vec<AssignedPartition>),
    Lost {
        partitions: Vec<TopicPartition>,
        cause: String,
    },
    Trouble(Error),
    Failed(Error),
    /// The membership is over.
    End,
}

/// What a failed exchange with the coordinator means for a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The group rebalances: join again, with what is owned.
    Rejoin,
    /// The coordinator has given the member's partitions away; it joins anew under its id.
    LoseAll,
    /// The same, and the coordinator does not know the id any more either.
    LoseAllAndId,
    /// The coordinator is away, has moved or is busy.
    Retry,
    /// Waiting does not help.
    GiveUp,
}

/// What `error` means.
pub(crate) fn consequence(error: &Error) -> Consequence {
    match (error.code(), error.kind()) {
        (Some(code), _) => consequence_of_code(code),
        (None, ErrorKind::Transient) => Consequence::Retry,
        (None, ErrorKind::Fatal) => Consequence::GiveUp,
    }
}

fn consequence_of_code(code: ResponseError) -> Consequence {
    use ResponseError as E;
    match code {
        E::RebalanceInProgress => Consequence::Rejoin,
        E::IllegalGeneration | E::FencedMemberEpoch => Consequence::LoseAll,
        E::UnknownMemberId => Consequence::LoseAllAndId,
        E::FencedInstanceId => Consequence::GiveUp,
        // The last holder of our static identity is still there: its session has to end first.
        E::UnreleasedInstanceId => Consequence::Retry,
        code if crate::error::is_transient(code) => Consequence::Retry,
        _ => Consequence::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_consequence() {
        use Consequence as C;
        use ResponseError as E;
        let cases = [
            (E::RebalanceInProgress, C::Rejoin),
            (E::UnknownMemberId, C::LoseAllAndId),
            (E::IllegalGeneration, C::LoseAll),
            (E::FencedMemberEpoch, C::LoseAll),
            (E::NotCoordinator, C::Retry),
            (E::CoordinatorNotAvailable, C::Retry),
            (E::CoordinatorLoadInProgress, C::Retry),
            (E::UnreleasedInstanceId, C::Retry),
            (E::FencedInstanceId, C::GiveUp),
            (E::GroupAuthorizationFailed, C::GiveUp),
            (E::TopicAuthorizationFailed, C::GiveUp),
            (E::InconsistentGroupProtocol, C::GiveUp),
            (E::InvalidSessionTimeout, C::GiveUp),
            (E::InvalidGroupId, C::GiveUp),
            (E::UnsupportedAssignor, C::GiveUp),
            (E::GroupMaxSizeReached, C::GiveUp),
        ];
        for (code, expected) in cases {
            assert_eq!(consequence_of_code(code), expected, "{code:?}");
        }
    }
}
