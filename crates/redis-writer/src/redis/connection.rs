//! The link to one server: a client of fred that stays connected by itself, calls over it that fail at once while it is
//! down, and the end of both with the value.

use std::fmt::{self, Display, Formatter};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fred::bytes_utils::Str;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, LuaInterface};
use fred::prelude::{Builder, Client};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, Server, ServerConfig, TcpConfig,
    UnresponsiveConfig,
};
use fred::types::{ClientState, ClusterHash, CustomCommand, Key, Value};
use fred::util::sha1_hash;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{Class, class, explain};
use crate::order::Call;

/// Calls waiting inside the client; on a cluster all calls of a batch for one master count as one.
const CALLS_WAITING: usize = 16_384;
/// TCP connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits between connection attempts grow from the first to the second.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 1_000;
const RECONNECT_JITTER_MS: u32 = 50;
const RECONNECT_BASE: u32 = 2;
/// 0 = for ever: whether to give up is the operator's decision.
const RECONNECT_ATTEMPTS: u32 = 0;
/// A connection that leaves a call unanswered for this many time-outs is replaced.
const UNRESPONSIVE_TIMEOUTS: u32 = 2;
/// Checks for such a connection, per time-out.
const UNRESPONSIVE_CHECKS: u32 = 4;
/// Calls written before the socket is flushed, when more are waiting.
const CALLS_PER_FLUSH: u64 = 200;
/// Events of the connection that a slow listener may fall behind.
const EVENTS_WAITING: usize = 32;
/// Unused, but to be named: redirections are followed by us and not by the client, which knows one server only.
const REDIRECTIONS: u32 = 1;

/// What every connection has in common: credentials, encryption, time-outs.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// As made from the URL; its servers are replaced by the one that a link is for.
    pub(super) config: Config,
    /// The longest wait for an answer.
    pub(super) timeout: Duration,
}

impl Template {
    /// A client of one server, not yet connected. Every connection, to whatever kind of server, is made from this.
    fn client(&self, server: &Server) -> Result<Client, Error> {
        let config = Config { server: ServerConfig::Centralized { server: server.clone() }, ..self.config.clone() };
        let mut policy =
            ReconnectPolicy::new_exponential(RECONNECT_ATTEMPTS, RECONNECT_MIN_MS, RECONNECT_MAX_MS, RECONNECT_BASE);
        policy.set_jitter(RECONNECT_JITTER_MS);
        Builder::from_config(config)
            .set_policy(policy)
            .set_connection_config(connection_config(self.timeout))
            .set_performance_config(PerformanceConfig {
                default_command_timeout: self.timeout,
                max_feed_count: CALLS_PER_FLUSH,
                broadcast_channel_capacity: EVENTS_WAITING,
            })
            .build()
    }
}

fn connection_config(timeout: Duration) -> ConnectionConfig {
    ConnectionConfig {
        connection_timeout: CONNECT_TIMEOUT,
        internal_command_timeout: timeout,
        cluster_cache_update_delay: Duration::ZERO,
        // The pipeline repeats whole batches, with waits of its own.
        max_command_attempts: 1,
        max_redirections: REDIRECTIONS,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(timeout * UNRESPONSIVE_TIMEOUTS),
            interval: timeout / UNRESPONSIVE_CHECKS,
        },
        reconnect_on_auth_error: true,
        auto_client_setname: false,
        max_command_buffer_len: CALLS_WAITING,
        disable_cluster_health_check: false,
        // The check for unresponsive connections stands in for keep-alive.
        tcp: TcpConfig { nodelay: Some(true), linger: None, ttl: None, keepalive: None },
        // A server that became a replica keeps its connections: behind a name that moves only a new one finds its
        // successor.
        reconnect_errors: vec![ReconnectError::ReadOnly],
    }
}

/// A script of ours, and how it is named in calls.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    /// `None`: sent by its text each time.
    sha: Option<Str>,
}

impl Script {
    /// One that is called often.
    pub(super) fn known_by_sha(text: &'static str) -> Self {
        Self { text, sha: Some(sha1_hash(text).into()) }
    }

    /// One that is called now and then.
    pub(super) fn sent_as_text(text: &'static str) -> Self {
        Self { text, sha: None }
    }
}

/// Why a call has no reply.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) server: Arc<str>,
    pub(super) reason: Reason,
}

#[derive(Debug, Clone)]
pub(super) enum Reason {
    /// There is no connection, or it was lost during the call.
    Link(Down),
    /// What Redis or the client says of the call.
    Call(Error),
}

impl Display for Reason {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(down) => out.write_str(&down.what),
            Self::Call(error) => out.write_str(&explain(error)),
        }
    }
}

/// What a connection last failed of.
#[derive(Debug, Clone)]
pub(super) struct Down {
    pub(super) what: String,
    pub(super) class: Class,
    is_first_attempt: bool,
}

impl Down {
    /// What is said before the first attempt to connect has ended.
    fn connecting() -> Self {
        Self { what: "connecting".to_owned(), class: Class::Sink, is_first_attempt: true }
    }

    fn of(error: &Error) -> Self {
        Self { what: explain(error), class: class(error), is_first_attempt: false }
    }
}

impl Fault {
    /// Before anything is known of `server`.
    pub(super) fn connecting(server: impl Into<Arc<str>>) -> Self {
        Self { server: server.into(), reason: Reason::Link(Down::connecting()) }
    }

    /// What came of looking for the masters. However a server put it, it is not about what is to be written.
    pub(super) fn of_link(self) -> Self {
        match self.reason {
            Reason::Link(_) => self,
            Reason::Call(error) => Self { reason: Reason::Link(Down::of(&error)), ..self },
        }
    }

    /// Whether Redis is there and refuses us.
    pub(super) fn is_denied(&self) -> bool {
        match &self.reason {
            Reason::Link(down) => down.class == Class::Denied,
            Reason::Call(error) => class(error) == Class::Denied,
        }
    }
}

/// One call among those that are sent together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) call: &'a Call,
    /// The server has said that it does not know the script.
    pub(super) by_text: bool,
    /// The server is taking over the slot and serves it to those who say that they were sent.
    pub(super) asking: bool,
}

/// A connection to one server. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Link {
    name: Arc<str>,
    client: Client,
    /// What the connection last failed of; changes with each failure.
    link_fault: watch::Receiver<Down>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Link {
    /// One that connects, and stays connected, by itself.
    pub(super) fn start(template: &Template, server: &Server) -> Result<Self, Error> {
        let client = template.client(server)?;
        let (fault, link_fault) = watch::channel(Down::connecting());
        let noting = tokio::spawn(note_faults(client.error_rx(), fault));
        let connecting = tokio::spawn(keep_connected(client.clone()));
        let tasks = [noting, connecting].map(AbortOnDropHandle::new);
        Ok(Self { name: server.to_string().into(), client, link_fault, _tasks: tasks })
    }

    /// What this server answered, as a fault.
    pub(super) fn fault(&self, error: Error) -> Fault {
        Fault { server: Arc::clone(&self.name), reason: Reason::Call(error) }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.state() == ClientState::Connected
    }

    /// Waits for the end of the first attempt to connect, if it is still under way.
    pub(super) async fn settled(&self) {
        if self.is_connected() || !self.link_fault.borrow().is_first_attempt {
            return;
        }
        let mut fault = self.link_fault.clone();
        tokio::select! {
            _ = self.client.wait_for_connect() => {}
            _ = fault.wait_for(|down| !down.is_first_attempt) => {}
            () = tokio::time::sleep(CONNECT_TIMEOUT) => {}
        }
    }

    /// The outcome of one call of `script`.
    pub(super) async fn run(&self, script: &Script, call: &Call) -> Result<Vec<i64>, Fault> {
        let by_text = || {
            let (keys, args) = fred_arguments(call);
            self.client.eval(Str::from_static(script.text), keys, args)
        };
        let Some(sha) = &script.sha else {
            return self.linked(by_text()).await;
        };
        let (keys, args) = fred_arguments(call);
        match self.linked(self.client.evalsha(sha.clone(), keys, args)).await {
            // A server that was restarted, or a replica that took over, does not know the script.
            Err(Fault { reason: Reason::Call(error), .. }) if is_unknown_script(&error) => self.linked(by_text()).await,
            other => other,
        }
    }

    /// The outcomes of several calls of `script`, sent and answered in one go and in their order.
    pub(super) async fn run_all(
        &self,
        script: &Script,
        sendings: &[Sending<'_>],
    ) -> Result<Vec<Result<Vec<i64>, Error>>, Fault> {
        self.linked(async {
            let pipeline = self.client.pipeline();
            for sending in sendings {
                if sending.asking {
                    () = pipeline.custom(command("ASKING"), Vec::<Value>::new()).await?;
                }
                // The client's own methods for scripts do not reach pipelines.
                let (name, script) = match &script.sha {
                    Some(sha) if !sending.by_text => ("EVALSHA", sha.clone()),
                    _ => ("EVAL", Str::from_static(script.text)),
                };
                () = pipeline.custom(command(name), script_arguments(script, sending.call)).await?;
            }
            replies(sendings, pipeline.try_all::<Value>().await)
        })
        .await
    }

    /// The outcome of `call`, at once when there is no connection or it is lost meanwhile. The client itself would hold
    /// the call back until there is one, up to the time-out (and its option against that does not reach scripts).
    pub(super) async fn linked<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
        let mut link_fault = self.link_fault.clone();
        link_fault.mark_unchanged();
        let fault = |reason| Fault { server: Arc::clone(&self.name), reason };
        if !self.is_connected() {
            return Err(fault(Reason::Link(link_fault.borrow().clone())));
        }
        tokio::select! {
            biased;
            outcome = call => outcome.map_err(|error| fault(Reason::Call(error))),
            Ok(()) = link_fault.changed() => Err(fault(Reason::Link(link_fault.borrow().clone()))),
        }
    }

    /// A plain command, with the words behind its name.
    pub(super) async fn command(&self, name: &'static str, words: &[&str]) -> Result<Value, Fault> {
        self.linked(self.client.custom(command(name), words.to_vec())).await
    }
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Random, false)
}

/// One reply for each call. Of a lost connection and of a time-out the client says one word for all.
fn replies(
    sendings: &[Sending<'_>],
    answers: Vec<Result<Value, Error>>,
) -> Result<Vec<Result<Vec<i64>, Error>>, Error> {
    let expected = sendings.iter().map(|sending| 1 + usize::from(sending.asking)).sum::<usize>();
    if answers.len() != expected {
        let nothing = || Error::new(fred::error::ErrorKind::Protocol, "no answer to some calls");
        return Err(answers.into_iter().find_map(Result::err).unwrap_or_else(nothing));
    }
    let mut answers = answers.into_iter();
    let mut next = |sending: &Sending<'_>| answers.nth(usize::from(sending.asking));
    Ok(sendings.iter().filter_map(|sending| Some(next(sending)?.and_then(Value::convert))).collect())
}

/// Whether a server answered that it does not have the script.
pub(super) fn is_unknown_script(error: &Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}

/// Drives the connection for as long as the link lives. Only a fault of configuration that the server itself reports
/// ends the client's own loop; an operator may mend it while we wait.
async fn keep_connected(client: Client) {
    loop {
        // The client runs in a task that would survive this one.
        if let Ok(Err(error)) = AbortOnDropHandle::new(client.connect()).await {
            warn!(%error, "the connection to Redis ended");
        }
        tokio::time::sleep(Duration::from_millis(RECONNECT_MAX_MS.into())).await;
    }
}

async fn note_faults(mut faults: Receiver<(Error, Option<Server>)>, link_fault: watch::Sender<Down>) {
    loop {
        match faults.recv().await {
            Ok((error, _)) => {
                link_fault.send_replace(Down::of(&error));
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn script_arguments(script: Str, call: &Call) -> Vec<Value> {
    let mut values = Vec::with_capacity(2 + call.keys.len() + call.args.len());
    values.push(Value::String(script));
    values.push(call.keys.len().to_string().into());
    values.extend(call.keys.iter().chain(&call.args).cloned().map(Value::Bytes));
    values
}

fn fred_arguments(call: &Call) -> (Vec<Key>, Vec<Value>) {
    let keys = call.keys.iter().cloned().map(Key::from).collect();
    let args = call.args.iter().cloned().map(Value::Bytes).collect();
    (keys, args)
}
