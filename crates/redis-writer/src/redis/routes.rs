//! Who owns which slot, and a link to each who does: kept true by one task, which looks again when it is asked to.
//!
//! ```text
//! a call fails or is sent elsewhere ──refresh()──▶ RefreshTask ──CLUSTER SLOTS, or SENTINEL MASTER──▶ map, links
//!                                    (any number)   (one at a time, not too often)
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::types::Value;
use fred::types::config::Server;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::connection::{Fault, Link, Reason, Template};
use super::sentinel::Sentinels;
use super::slots::SlotMap;

/// Looks at the map are at least this far apart, however many calls ask for one.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// The map of a cluster is looked at this often even if nobody asks: who has lost a slot says so by himself.
const CLUSTER_INTERVAL: Duration = Duration::from_mins(2);
/// And that of sentinels: a master that they have replaced goes on taking writes until they demote it, ten seconds later.
const SENTINEL_INTERVAL: Duration = Duration::from_secs(2);
/// As long as no look has succeeded.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// A link to a server that is not in the map is kept for this long after its last use: one that takes over its first
/// slot owns none yet.
const GUEST_LIFE: Duration = Duration::from_secs(60);

/// Where the map comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// `CLUSTER SLOTS` of any server of the cluster.
    Cluster,
    /// The sentinels of a master, which owns everything.
    Sentinels(Sentinels),
}

impl Source {
    fn interval(&self) -> Duration {
        match self {
            Self::Cluster => CLUSTER_INTERVAL,
            Self::Sentinels(_) => SENTINEL_INTERVAL,
        }
    }
}

/// The map and the links. Dropping it closes all connections.
#[derive(Debug)]
pub(super) struct Routes {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    template: Template,
    state: Mutex<State>,
    refresh: Notify,
}

#[derive(Debug)]
struct State {
    map: Arc<SlotMap>,
    links: HashMap<Server, Held>,
    /// Why the last look at the map failed, if it did.
    fault: Option<Fault>,
}

#[derive(Debug)]
struct Held {
    link: Arc<Link>,
    /// When it was last used, if the server is in no map yet.
    guest_since: Option<Instant>,
}

impl Held {
    fn is_welcome(&self) -> bool {
        self.guest_since.is_some_and(|since| since.elapsed() < GUEST_LIFE)
    }
}

impl Routes {
    /// Begins to look for the servers, from those that `template` names.
    pub(super) fn start(template: Template, source: Source) -> Self {
        let seeds = template.config.server.hosts();
        let name: Vec<_> = seeds.iter().map(ToString::to_string).collect();
        let fault = Fault::connecting(name.join(","));
        let state = State { map: Arc::new(SlotMap::empty()), links: HashMap::new(), fault: Some(fault) };
        let shared = Arc::new(Shared { template, state: Mutex::new(state), refresh: Notify::new() });
        let task = RefreshTask { shared: Arc::clone(&shared), source, known: seeds.clone(), seeds, turn: 0 };
        Self { shared, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
    }

    /// The map as it was last read.
    pub(super) fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.shared.state().map)
    }

    /// Asks for another look at the map, without waiting for it.
    pub(super) fn refresh(&self) {
        self.shared.refresh.notify_one();
    }

    /// The link to a server, begun now if there is none.
    pub(super) fn link(&self, server: &Server) -> Result<Arc<Link>, Fault> {
        self.shared.state().link(&self.shared.template, server)
    }

    /// The master of a slot. Of one that nobody owns another server may know more, or say in its own words that the
    /// cluster is down.
    pub(super) fn owner(&self, map: &SlotMap, slot: u16) -> Result<Server, Fault> {
        if let Some(owner) = map.owner(slot).or_else(|| map.masters().first()) {
            return Ok(owner.clone());
        }
        match &self.shared.state().fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(self.shared.template.config.server.hosts().swap_remove(0)),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn link(&mut self, template: &Template, server: &Server) -> Result<Arc<Link>, Fault> {
        let now = Instant::now();
        if let Some(held) = self.links.get_mut(server) {
            held.guest_since = held.guest_since.map(|_| now);
            return Ok(Arc::clone(&held.link));
        }
        let link = Arc::new(Link::start(template, server).map_err(|error| failed(server, error))?);
        self.links.insert(server.clone(), Held { link: Arc::clone(&link), guest_since: Some(now) });
        Ok(link)
    }

    /// Takes over a map that was read: a link to each of its masters, and none any more to those who are gone.
    fn adopt(&mut self, template: &Template, map: SlotMap) {
        if *self.map != map {
            let masters: Vec<_> = map.masters().iter().map(ToString::to_string).collect();
            info!(masters = masters.join(","), slots = map.covered(), "masters of Redis");
        }
        self.links.retain(|server, held| map.masters().contains(server) || held.is_welcome());
        for master in map.masters() {
            // A link that cannot even be begun says why to the call that needs it.
            self.link(template, master).ok();
            if let Some(held) = self.links.get_mut(master) {
                held.guest_since = None;
            }
        }
        self.map = Arc::new(map);
        self.fault = None;
    }

    /// The map stays as it was: calls find out by themselves what is no longer true.
    fn lament(&mut self, fault: Fault) {
        if self.fault.is_none() {
            warn!(server = %fault.server, fault = %fault.reason, "the masters of Redis cannot be asked for");
        }
        self.fault = Some(fault);
    }
}

/// Keeps the map true.
struct RefreshTask {
    shared: Arc<Shared>,
    source: Source,
    seeds: Vec<Server>,
    /// All servers of the last map, or all sentinels, and the seeds.
    known: Vec<Server>,
    /// Whose turn it is to be asked first: one may be cut off from the rest without knowing it.
    turn: usize,
}

impl RefreshTask {
    async fn run(mut self) {
        loop {
            let wait = match self.look().await {
                Ok(map) => {
                    self.shared.state().adopt(&self.shared.template, map);
                    self.source.interval()
                }
                Err(fault) => {
                    self.shared.state().lament(fault.of_link());
                    RETRY_INTERVAL
                }
            };
            tokio::time::sleep(REFRESH_PAUSE).await;
            tokio::time::timeout(wait, self.shared.refresh.notified()).await.ok();
        }
    }

    async fn look(&mut self) -> Result<SlotMap, Fault> {
        match &self.source {
            Source::Cluster => self.look_at_cluster().await,
            Source::Sentinels(sentinels) => {
                let told = sentinels.ask(&self.known).await?;
                self.remember(&told.sentinels);
                Ok(SlotMap::whole(told.master))
            }
        }
    }

    /// The first complete map, else that with the most slots: a server that was reset knows of itself only.
    async fn look_at_cluster(&mut self) -> Result<SlotMap, Fault> {
        let mut best: Option<SlotMap> = None;
        let mut fault = None;
        for server in self.candidates() {
            match self.slots_of(&server).await {
                Ok(map) if best.as_ref().is_none_or(|best| best.covered() < map.covered()) => best = Some(map),
                Ok(_) => {}
                Err(failed) => fault = Some(failed),
            }
            if best.as_ref().is_some_and(SlotMap::is_complete) {
                break;
            }
        }
        let map = best.ok_or_else(|| fault.unwrap_or_else(|| Fault::connecting("")))?;
        self.remember(&map.servers().cloned().collect::<Vec<_>>());
        Ok(map)
    }

    /// Everybody who may be asked: first those to whom there is a connection.
    fn candidates(&mut self) -> Vec<Server> {
        self.turn = self.turn.wrapping_add(1);
        let mut servers = self.known.clone();
        let turn = self.turn % servers.len().max(1);
        servers.rotate_left(turn);
        let state = self.shared.state();
        let is_connected = |server: &Server| state.links.get(server).is_some_and(|held| held.link.is_connected());
        servers.sort_by_key(|server| !is_connected(server));
        servers
    }

    async fn slots_of(&self, server: &Server) -> Result<SlotMap, Fault> {
        let held = self.shared.state().links.get(server).map(|held| Arc::clone(&held.link));
        let link = match held {
            Some(link) => link,
            None => Arc::new(Link::start(&self.shared.template, server).map_err(|error| failed(server, error))?),
        };
        link.settled().await;
        let answer: Value = link.command("CLUSTER", &["SLOTS"]).await?;
        let unreadable = || failed(server, Error::new(ErrorKind::Parse, "the slots of the cluster are not readable"));
        SlotMap::read(&answer, server).ok_or_else(unreadable)
    }

    /// The seeds stay: a name among them may by now stand for another address.
    fn remember(&mut self, servers: &[Server]) {
        self.known.clear();
        for server in servers.iter().chain(&self.seeds) {
            if !self.known.contains(server) {
                self.known.push(server.clone());
            }
        }
    }
}

fn failed(server: &Server, error: Error) -> Fault {
    Fault { server: server.to_string().into(), reason: Reason::Call(error) }
}
