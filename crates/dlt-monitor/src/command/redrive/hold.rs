//! One redrive of a name at a time: its process is the one member of the group that keeps its progress.
//!
//! The membership is a lock that a killed process loses when its session runs out, and the right to commit. Of two that
//! start at the same moment the one that began first keeps the name; whoever finds a member there refuses.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kafka::{
    Claim, Client, ClientConfig, Commit, Consumer, ConsumerConfig, ErrorKind, GroupEvent, GroupMember, Handle, Offset,
    TopicPartition,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::command::Desk;
use crate::error::Error;
use crate::moment::now_ms;

/// How long a killed redrive may still look alive: its session of 6 s, and time for the broker to notice.
const SESSION_LEFT: Duration = Duration::from_secs(12);
/// How long joining, or becoming the only member, may take.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How long a commit may be refused while the group rebalances.
const COMMIT_LIMIT: Duration = Duration::from_secs(15);
/// How long what passes by itself may take.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);
const CLIENT_PREFIX: &str = "dlt-monitor-redrive";

/// The membership.
pub(super) struct Hold {
    handle: Handle,
    standing: watch::Receiver<Standing>,
}

/// How we stand in the group.
#[derive(Debug, Clone)]
enum Standing {
    Joining,
    Member(Claim),
    Over(String),
}

impl Hold {
    /// Becomes the one member of `group`.
    ///
    /// # Errors
    /// Another redrive of this name lives, or Kafka is away or unwilling.
    pub(super) async fn take(desk: &Desk, group: &str) -> Result<Self, Error> {
        let who = Identity::of_this_process();
        wait_for_vacancy(&desk.client, group, &who).await?;
        let config = ClientConfig { client_id: who.to_string(), ..desk.client.config().clone() };
        let topics = vec![std::sync::Arc::clone(&desk.dead_letter_topic)];
        let consumer = Consumer::join(Client::new(config), ConsumerConfig::new(group, topics));
        let (standing_in, standing) = watch::channel(Standing::Joining);
        let mut hold = Self { handle: consumer.handle.clone(), standing };
        tokio::spawn(follow(consumer.events, standing_in));
        let alone = async {
            hold.joined().await?;
            hold.until_alone(&desk.client, group, &who).await
        };
        let outcome = tokio::time::timeout(JOIN_LIMIT, alone).await;
        match outcome
            .unwrap_or_else(|_| Err(Error::Refused(format!("group {group} cannot be joined in {JOIN_LIMIT:?}"))))
        {
            Ok(()) => Ok(hold),
            Err(error) => {
                hold.release().await;
                Err(error)
            }
        }
    }

    /// Whether the name is still ours.
    ///
    /// # Errors
    /// It is not: nothing more may be sent.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &*self.standing.borrow() {
            Standing::Over(why) => Err(Error::Refused(format!(
                "the membership of this redrive's group ended ({why}); start again with the same --name"
            ))),
            Standing::Joining | Standing::Member(_) => Ok(()),
        }
    }

    /// Commits positions, through a rebalance as well.
    ///
    /// # Errors
    /// The name is no longer ours, or Kafka is away for too long.
    pub(super) async fn commit(
        &self,
        positions: BTreeMap<TopicPartition, Offset>,
        metadata: &str,
    ) -> Result<(), Error> {
        self.check()?;
        if positions.is_empty() {
            return Ok(());
        }
        let commit = |(partition, offset)| Commit { partition, offset, metadata: metadata.to_owned() };
        let commits: Vec<_> = positions.into_iter().map(commit).collect();
        let deadline = Instant::now() + COMMIT_LIMIT;
        loop {
            self.check()?;
            let Standing::Member(claim) = self.standing.borrow().clone() else {
                return Err(Error::Refused("this redrive is not a member of its group".to_owned()));
            };
            match self.handle.commit(&commits, &claim).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Transient && Instant::now() < deadline => {
                    tracing::debug!(%error, "commit refused, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Leaves the group, so that the next redrive of this name need not wait.
    pub(super) async fn release(self) {
        self.handle.close().await;
    }

    async fn joined(&mut self) -> Result<(), Error> {
        let joined = self.standing.wait_for(|standing| !matches!(standing, Standing::Joining)).await;
        joined.map(drop).map_err(|_| Error::Refused("the group membership ended".to_owned()))?;
        self.check()
    }

    /// Two may have found the group empty at the same moment.
    async fn until_alone(&self, client: &Client, group: &str, who: &Identity) -> Result<(), Error> {
        loop {
            self.check()?;
            let members = members(client, group).await?;
            let others = members.iter().filter(|member| member.client_id != who.to_string());
            let others: Vec<_> = others.collect();
            let Some(other) = others.first() else { return Ok(()) };
            if others.iter().any(|other| Identity::parse(&other.client_id).is_none_or(|other| other < *who)) {
                return Err(occupied(group, other));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Answers the group; the partitions that it hands out mean nothing to us.
async fn follow(mut events: mpsc::Receiver<GroupEvent>, standing: watch::Sender<Standing>) {
    let mut has_joined = false;
    while let Some(event) = events.recv().await {
        match event {
            GroupEvent::Assigned { claim, .. } => {
                has_joined = true;
                standing.send_replace(Standing::Member(claim));
            }
            GroupEvent::Revoked(revocation) => revocation.finish(),
            GroupEvent::Trouble(error) => tracing::debug!(%error, "the group cannot be reached"),
            GroupEvent::Lost(_) if !has_joined => {}
            GroupEvent::Lost(_) => {
                standing.send_replace(Standing::Over("its session ran out".to_owned()));
                return;
            }
            GroupEvent::Failed(error) => {
                standing.send_replace(Standing::Over(error.to_string()));
                return;
            }
        }
    }
}

/// Waits for the session of a killed one to run out; one that surely lives is not waited for.
async fn wait_for_vacancy(client: &Client, group: &str, who: &Identity) -> Result<(), Error> {
    let deadline = Instant::now() + SESSION_LEFT;
    let mut is_told = false;
    loop {
        let members = members(client, group).await?;
        let Some(other) = members.first() else { return Ok(()) };
        let lives = Identity::parse(&other.client_id).is_some_and(|other| other.surely_lives_beside(who));
        if lives || Instant::now() >= deadline {
            return Err(occupied(group, other));
        }
        if !is_told {
            tracing::info!(member = other.client_id, "waiting for the session of an earlier run to end");
            is_told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn members(client: &Client, group: &str) -> Result<Vec<GroupMember>, Error> {
    let described = patiently(|| async { client.describe_groups(&[group]).await }).await?;
    Ok(described.into_iter().flat_map(|group| group.members).collect())
}

fn occupied(group: &str, other: &GroupMember) -> Error {
    let (id, host) = (&other.client_id, &other.client_host);
    Error::Refused(format!(
        "--name: a redrive of this name is running (group {group}, member {id} at {host}); stop it, or give another name"
    ))
}

/// Tries for a while what passes by itself: a coordinator that moves, or is still being made.
///
/// # Errors
/// What did not pass, or never will.
pub(super) async fn patiently<T, F>(attempt: impl Fn() -> F) -> Result<T, kafka::Error>
where
    F: Future<Output = Result<T, kafka::Error>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(error) if error.kind() == ErrorKind::Transient && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Which process a member is, in its client id: ordered by when it began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    begun_ms: i64,
    pid: u32,
    host: String,
}

impl Identity {
    fn of_this_process() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { begun_ms: now_ms(), pid: std::process::id(), host: host.trim().to_owned() }
    }

    fn parse(client_id: &str) -> Option<Self> {
        let mut parts = client_id.strip_prefix(CLIENT_PREFIX)?.strip_prefix('/')?.splitn(3, '/');
        Some(Self {
            begun_ms: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            host: parts.next()?.to_owned(),
        })
    }

    /// On another machine nobody can tell.
    fn surely_lives_beside(&self, who: &Self) -> bool {
        self.host == who.host && Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{CLIENT_PREFIX}/{}/{}/{}", self.begun_ms, self.pid, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_began_first_comes_first() {
        let identity = |begun_ms, pid| Identity { begun_ms, pid, host: "h/x".to_owned() };
        assert_eq!(Identity::parse(&identity(17, 4).to_string()), Some(identity(17, 4)));
        assert!(identity(9, 9) < identity(17, 4));
        assert_eq!(Identity::parse("redis-writer"), None);
    }

    #[test]
    fn only_a_process_of_this_machine_surely_lives() {
        let own = Identity::of_this_process();
        let elsewhere = Identity { host: "elsewhere".to_owned(), ..own.clone() };
        let gone = Identity { pid: u32::MAX, ..own.clone() };
        assert!(own.surely_lives_beside(&own));
        assert!(!elsewhere.surely_lives_beside(&own) && !gone.surely_lives_beside(&own));
    }
}
