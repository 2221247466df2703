//! Calls to the masters who own their keys: those of a Redis Cluster, or the one that Sentinel names.
//!
//! ```text
//! calls ──by master──▶ one pipeline each ──▶ answered
//!   ▲                                    ├──▶ MOVED, ASK, NOSCRIPT: once more, elsewhere or otherwise
//!   └────────────────────────────────────┴──▶ TRYAGAIN: once more, key by key
//! ```
//!
//! A call may be sent twice, or to a server that has it already: Redis decides the order of positions.

use std::collections::HashMap;

use fred::error::Error;
use fred::types::config::Server;
use fred::util::redis_keyslot;
use futures::future::join_all;

use super::connection::{Fault, Link, Script, Sending, Template, is_unknown_script};
use super::routes::{Routes, Source};
use super::slots::Redirection;
use crate::order::{self, Call};

/// How often a call is sent at most. The longest ordinary way has six: to one who has lost the slot, to its owner, who is
/// giving it away and wants it key by key, by key to both of them again, to the new owner, and there with the script.
const ROUNDS: usize = 8;
/// Keys tried to find one of each master: enough to find one even of a single slot, nearly always.
const KEYS_TRIED: u32 = 1 << 17;

/// Calls to masters who may change.
#[derive(Debug)]
pub(super) struct Cluster {
    routes: Routes,
}

/// A call on its way.
struct Errand {
    call: Call,
    /// Which call of the caller's it is, or is a part of, and where in it this part begins.
    of: usize,
    first: usize,
    to: Target,
    by_text: bool,
}

enum Target {
    /// Whoever owns the slot by our map.
    Owner,
    /// The server that another one sent us to.
    Sent(Redirection),
}

/// What became of an errand.
enum Outcome {
    Answered { of: usize, first: usize, reply: Vec<i64> },
    Again(Vec<Errand>),
    Failed(Fault),
}

impl Cluster {
    pub(super) fn start(template: Template, source: Source) -> Self {
        Self { routes: Routes::start(template, source) }
    }

    /// One reply for each call, in their order; the keys of a call share a slot. All are sent even if some fail, so that
    /// a master who is away holds up the positions of no other.
    pub(super) async fn run(&self, script: &Script, calls: Vec<Call>) -> Result<Vec<Vec<i64>>, Fault> {
        let mut replies = vec![Vec::new(); calls.len()];
        let mut errands: Vec<_> = calls.into_iter().enumerate().map(|(of, call)| Errand::new(of, call)).collect();
        for rounds_left in (0..ROUNDS).rev() {
            let mut fault = None;
            let mut again = Vec::new();
            for outcome in self.round(script, errands, rounds_left).await? {
                match outcome {
                    Outcome::Answered { of, first, reply } => order::merge_reply(&mut replies[of], first, &reply),
                    Outcome::Again(errands) => again.extend(errands),
                    Outcome::Failed(failed) => fault = fault.or(Some(failed)),
                }
            }
            if let Some(fault) = fault {
                self.routes.refresh();
                return Err(fault);
            }
            errands = again;
            if errands.is_empty() {
                break;
            }
        }
        Ok(replies)
    }

    /// Calls every master, with a key of its own among those that `key` makes of numbers. One whose slots no key falls
    /// into is not called: nor will it be for a position.
    pub(super) async fn run_everywhere(&self, script: &Script, key: impl Fn(u32) -> Vec<u8>) -> Result<(), Fault> {
        let map = self.routes.map();
        let mut keys: HashMap<&Server, Vec<u8>> = HashMap::new();
        for key in (0..KEYS_TRIED).map(&key) {
            if keys.len() == map.masters().len() {
                break;
            }
            if let Some(owner) = map.owner(redis_keyslot(&key)) {
                keys.entry(owner).or_insert(key);
            }
        }
        // Without any owner the answer, or the reason why there is none, says why.
        let keys = if keys.is_empty() { vec![key(0)] } else { keys.into_values().collect() };
        let calls = keys.into_iter().map(|key| Call { keys: vec![key.into()], args: Vec::new() });
        self.run(script, calls.collect()).await.map(drop)
    }

    async fn round(&self, script: &Script, errands: Vec<Errand>, rounds_left: usize) -> Result<Vec<Outcome>, Fault> {
        let map = self.routes.map();
        let mut by_server: HashMap<Server, Vec<Errand>> = HashMap::new();
        for errand in errands {
            let server = match &errand.to {
                Target::Owner => self.routes.owner(&map, redis_keyslot(&errand.call.keys[0]))?,
                Target::Sent(Redirection::Moved(server) | Redirection::Ask(server)) => server.clone(),
            };
            by_server.entry(server).or_default().push(errand);
        }
        let rounds = by_server.into_iter().map(|(server, errands)| self.send(script, server, errands, rounds_left));
        Ok(join_all(rounds).await.into_iter().flatten().collect())
    }

    async fn send(&self, script: &Script, server: Server, errands: Vec<Errand>, rounds_left: usize) -> Vec<Outcome> {
        let link = match self.routes.link(&server) {
            Ok(link) => link,
            Err(fault) => return vec![Outcome::Failed(fault)],
        };
        link.settled().await;
        let sendings: Vec<_> = errands.iter().map(Errand::sending).collect();
        let answers = match link.run_all(script, &sendings).await {
            Ok(answers) => answers,
            Err(fault) => return vec![Outcome::Failed(fault)],
        };
        let mut outcomes = Vec::with_capacity(errands.len());
        for (errand, answer) in errands.into_iter().zip(answers) {
            outcomes.push(match answer {
                Ok(reply) => Outcome::Answered { of: errand.of, first: errand.first, reply },
                Err(error) if rounds_left == 0 => Outcome::Failed(link.fault(error)),
                Err(error) => self.after(errand, error, &server, &link),
            });
        }
        outcomes
    }

    /// What is to be done about an errand that was answered with an error.
    fn after(&self, errand: Errand, error: Error, server: &Server, link: &Link) -> Outcome {
        if let Some(redirection) = Redirection::read(error.details(), server) {
            if matches!(redirection, Redirection::Moved(_)) {
                self.routes.refresh();
            }
            return Outcome::Again(vec![Errand { to: Target::Sent(redirection), ..errand }]);
        }
        if is_unknown_script(&error) && !errand.by_text {
            return Outcome::Again(vec![Errand { by_text: true, ..errand }]);
        }
        // Some of its keys have moved on with their slot and some have not: one by one they can be followed.
        if error.details().starts_with("TRYAGAIN") && errand.call.keys.len() > 1 {
            return Outcome::Again(errand.by_key());
        }
        Outcome::Failed(link.fault(error))
    }
}

impl Errand {
    fn new(of: usize, call: Call) -> Self {
        Self { call, of, first: 0, to: Target::Owner, by_text: false }
    }

    fn sending(&self) -> Sending<'_> {
        let asking = matches!(self.to, Target::Sent(Redirection::Ask(_)));
        Sending { call: &self.call, by_text: self.by_text, asking }
    }

    fn by_key(self) -> Vec<Self> {
        let part = |(index, call)| Self { first: self.first + index, ..Self::new(self.of, call) };
        self.call.by_position().into_iter().enumerate().map(part).collect()
    }
}
