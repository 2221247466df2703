//! Positions into Redis through fred, and fred's errors into faults. No other file imports fred.
//!
//! One connection: the calls of all writers are pipelined on it, and a second one gained nothing when measured (Redis
//! works on one core, and fred's side of a call costs a fifth of Redis's).

mod tls;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::DriverLocation;
use fred::bytes_utils::Str;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, LuaInterface};
use fred::prelude::{Builder, Client};
use fred::types::config::{
    Blocking, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, TcpConfig, UnresponsiveConfig,
};
use fred::types::{ClientState, Key, RespVersion, Value};
use fred::util::{redis_keyslot, sha1_hash};
use futures::future::try_join_all;
use kafka::{Offset, TopicPartition};
use pipeline::{Batch, Sink, WriteError, Written};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::ValueFormat;
use crate::metrics::SinkMetrics;
use crate::order::{Call, Form, SCRIPT, Verdict};
use crate::place::Placed;
use crate::plan::{Conflate, Plan, Rules};
use crate::security::Security;

pub(crate) use self::tls::{UrlFacts, UrlScheme, without_credentials};

/// Positions in one script call at most: it holds up every other client of Redis for about 3 ms.
const POSITIONS_PER_CALL: usize = 1_000;
/// Calls waiting inside the client; on a cluster a batch is one call per slot, so up to one per position.
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
/// Redirections followed on a cluster before the call fails.
const REDIRECTIONS: u32 = 5;

/// Says whether a write would be taken: a script that may write, but does not, passes Redis's own checks for loading,
/// read-only, full memory, failed persistence and missing replicas.
///
/// It also asks for the right to write under the prefix, which no write would be refused for before the first record.
const PROBE: &str = "#!lua
if redis.acl_check_cmd('SET', KEYS[1], '', 'GET') then return 0 end
return redis.error_reply('NOPERM no right to SET the keys under the prefix')";

/// What is said before the first attempt to connect has ended.
const CONNECTING: &str = "connecting";

/// What a [`RedisSink`] is made from.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// `redis://`, `redis-cluster://` or `redis-sentinel://`, or with TLS `rediss://` and so on.
    pub url: String,
    /// What the URL leaves open.
    pub security: Security,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// How long a position may be seen, from its effective time on.
    pub position_ttl: Duration,
    /// Put before the driver id.
    pub key_prefix: String,
    /// Form of the value.
    pub value_format: ValueFormat,
    /// Whether a driver's older positions within a batch are left out.
    pub conflate: Conflate,
    /// Positions of the largest batch that is none of a catch-up.
    pub steady_batch: u64,
}

/// Why a URL cannot be used; says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

/// The live map.
pub struct RedisSink {
    client: Client,
    topology: Topology,
    scheme: UrlScheme,
    rules: Rules,
    form: Form,
    script_sha: Str,
    timeout: Duration,
    address: String,
    metrics: SinkMetrics,
    /// What the connection last failed of; changes with each failure.
    link_fault: watch::Receiver<Down>,
    foreign_key_seen: AtomicBool,
    _tasks: JoinSet<()>,
}

/// Which keys one call may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    /// Any.
    OneServer,
    /// Those of one hash slot.
    Cluster,
}

/// Checks a URL without connecting.
///
/// # Errors
/// What is wrong and what would be right; never holds the password.
pub fn check_url(url: &str) -> Result<(), UrlError> {
    let scheme = url.split("://").next().unwrap_or_default();
    match scheme {
        "redis" | "redis-cluster" | "redis-sentinel" | "rediss" | "rediss-cluster" | "rediss-sentinel" => {}
        _ => {
            let forms = "redis://[USER:PASSWORD@]HOST[:PORT][/DB], redis-cluster://HOST:PORT or \
                         redis-sentinel://HOST:PORT?sentinelServiceName=NAME, each with rediss for TLS";
            return Err(UrlError(format!("give {forms}")));
        }
    }
    tls::parse(url).map(drop).map_err(|error| UrlError(error.details().to_owned()))
}

impl RedisSink {
    /// A sink that connects, and stays connected, by itself. Dropping it closes the connection.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn start(config: SinkConfig) -> Result<Self, UrlError> {
        check_url(&config.url)?;
        let client = client(&config).map_err(|error| UrlError(error.details().to_owned()))?;
        let scheme = if client.client_config().uses_tls() { UrlScheme::Tls } else { UrlScheme::Plain };
        let topology = if client.is_clustered() { Topology::Cluster } else { Topology::OneServer };
        let (fault, link_fault) = watch::channel(Down { what: CONNECTING.to_owned(), class: Class::Sink });
        let mut tasks = JoinSet::new();
        tasks.spawn(note_faults(client.clone(), scheme, fault));
        tasks.spawn(keep_connected(client.clone()));
        Ok(Self {
            address: address(&client),
            client,
            topology,
            scheme,
            rules: Rules::new(config.position_ttl, config.conflate, config.steady_batch),
            form: Form { key_prefix: config.key_prefix, value_format: config.value_format, life: config.position_ttl },
            script_sha: sha1_hash(SCRIPT).into(),
            timeout: config.timeout,
            metrics: SinkMetrics::new(),
            link_fault,
            foreign_key_seen: AtomicBool::new(false),
            _tasks: tasks,
        })
    }

    /// Servers as configured, without credentials.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Positions cut into what one call may hold, in their order.
    fn shares<'a>(&self, positions: Vec<Placed<'a>>) -> Vec<Vec<Placed<'a>>> {
        let groups = match self.topology {
            Topology::OneServer => vec![positions],
            Topology::Cluster => self.by_slot(positions),
        };
        groups.iter().flat_map(|group| group.chunks(POSITIONS_PER_CALL)).map(<[_]>::to_vec).collect()
    }

    fn by_slot<'a>(&self, positions: Vec<Placed<'a>>) -> Vec<Vec<Placed<'a>>> {
        let mut slots: HashMap<u16, Vec<Placed<'_>>> = HashMap::new();
        let mut key = Vec::new();
        for placed in positions {
            key.clear();
            self.form.key(placed.position, &mut key);
            slots.entry(redis_keyslot(&key)).or_default().push(placed);
        }
        slots.into_values().collect()
    }

    /// Writes one share. The call may be repeated: Redis decides the order, so a repetition changes nothing.
    async fn send(&self, share: &[Placed<'_>]) -> Result<Verdict, WriteError> {
        let call = self.form.call(share);
        let by_sha = || {
            let (keys, args) = fred_arguments(&call);
            self.client.evalsha(self.script_sha.clone(), keys, args)
        };
        let by_text = || {
            let (keys, args) = fred_arguments(&call);
            self.client.eval(Str::from_static(SCRIPT), keys, args)
        };
        let reply: Vec<i64> = match self.linked(by_sha()).await {
            // A server that was restarted, or a replica that took over, does not know the script.
            Err(Fault::Call(error)) if error.details().starts_with("NOSCRIPT") => self.linked(by_text()).await,
            other => other,
        }
        .map_err(|fault| self.write_error(fault))?;
        Verdict::read(&reply, share.len())
            .ok_or_else(|| WriteError::Unknown(format!("redis {}: unexpected reply of the script", self.address)))
    }

    /// The outcome of `call`, at once when there is no connection or it is lost meanwhile. The client itself would hold
    /// the call back until there is one, up to the time-out (and its option against that does not reach scripts).
    async fn linked<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
        let mut fault = self.link_fault.clone();
        fault.mark_unchanged();
        if self.client.state() != ClientState::Connected {
            return Err(Fault::Link(fault.borrow().clone()));
        }
        tokio::select! {
            biased;
            outcome = call => outcome.map_err(Fault::Call),
            Ok(()) = fault.changed() => Err(Fault::Link(fault.borrow().clone())),
        }
    }

    fn account(&self, plan: &Plan<'_>, shares: &[(Vec<Placed<'_>>, Verdict)]) -> Written {
        let now_ms = now_ms();
        let mut superseded = plan.superseded;
        let mut written = 0;
        for (positions, verdict) in shares {
            superseded += verdict.superseded.len() as u64;
            written += (positions.len() - verdict.superseded.len()) as u64;
            self.count_foreign_keys(verdict.foreign_keys);
            self.record_staleness(positions, verdict, now_ms);
        }
        let outcomes =
            vec![("written", written), ("superseded", superseded), ("expired", plan.expired), ("late", plan.late)];
        Written { outcomes }
    }

    fn record_staleness(&self, positions: &[Placed<'_>], verdict: &Verdict, now_ms: i64) {
        let mut superseded = verdict.superseded.iter().peekable();
        for (index, placed) in positions.iter().enumerate() {
            if superseded.next_if_eq(&&index).is_none() {
                self.metrics.staleness.record(seconds(now_ms - placed.position.effective_at_ms));
            }
        }
    }

    fn count_foreign_keys(&self, count: u64) {
        if count == 0 {
            return;
        }
        self.metrics.foreign_keys.increment(count);
        if !self.foreign_key_seen.swap(true, Ordering::Relaxed) {
            let prefix = &self.form.key_prefix;
            warn!(
                count,
                prefix, "keys under --key-prefix held another type and were overwritten; further ones are only counted"
            );
        }
    }

    fn write_error(&self, fault: Fault) -> WriteError {
        let text = |what: &str| format!("redis {}: {what}", self.address);
        match fault {
            Fault::Link(Down { what, class: Class::Denied }) => WriteError::Denied(text(&what)),
            Fault::Link(Down { what, class: Class::Untrusted }) => WriteError::Untrusted(text(&what)),
            Fault::Link(Down { what, class: Class::Sink | Class::Unknown }) => WriteError::SinkFault(text(&what)),
            Fault::Call(error) => match (class(&error), error.kind()) {
                (Class::Sink, ErrorKind::Timeout) => {
                    let timeout = service::format_duration(self.timeout);
                    WriteError::SinkFault(text(&format!("no answer within --redis-timeout {timeout}")))
                }
                (Class::Sink, _) => WriteError::SinkFault(text(&explain(&error, self.scheme))),
                (Class::Denied, _) => WriteError::Denied(text(&explain(&error, self.scheme))),
                (Class::Untrusted, _) => WriteError::Untrusted(text(&explain(&error, self.scheme))),
                (Class::Unknown, _) => WriteError::Unknown(text(&explain(&error, self.scheme))),
            },
        }
    }
}

/// What the connection last failed of.
#[derive(Debug, Clone)]
struct Down {
    what: String,
    class: Class,
}

/// Why a call has no reply.
enum Fault {
    /// There is no connection, or it was lost during the call.
    Link(Down),
    /// What Redis or the client says of the call.
    Call(Error),
}

impl Sink for RedisSink {
    type Event = DriverLocation;
    const KEEPS_OFFSETS: bool = false;

    async fn write(&self, batch: &Batch<DriverLocation>) -> Result<Written, WriteError> {
        let mut plan = self.rules.plan(batch.len(), Placed::all(batch), now_ms());
        let shares = self.shares(std::mem::take(&mut plan.writes));
        let verdicts = try_join_all(shares.iter().map(|share| self.send(share))).await?;
        let shares: Vec<_> = shares.into_iter().zip(verdicts).collect();
        Ok(self.account(&plan, &shares))
    }

    async fn positions(&self, _: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, WriteError> {
        Ok(HashMap::new())
    }

    async fn probe(&self) -> Result<(), WriteError> {
        let probe =
            self.client.eval(Str::from_static(PROBE), Key::from(self.form.key_prefix.as_str()), Vec::<Value>::new());
        let probed: Result<i64, Fault> = self.linked(probe).await;
        probed.map(drop).map_err(|fault| self.write_error(fault))
    }
}

fn client(config: &SinkConfig) -> Result<Client, Error> {
    let (mut server, scheme) = tls::parse(&config.url)?;
    tls::secure(&mut server, &config.security);
    if (scheme == UrlScheme::Tls) != server.uses_tls() {
        return Err(Error::new(ErrorKind::Config, "TLS is for rediss:// and its kin, and they need it"));
    }
    // Without a server at the start the client goes on trying, as it does later.
    server.fail_fast = false;
    server.blocking = Blocking::Block;
    server.version = RespVersion::RESP2;
    let mut policy =
        ReconnectPolicy::new_exponential(RECONNECT_ATTEMPTS, RECONNECT_MIN_MS, RECONNECT_MAX_MS, RECONNECT_BASE);
    policy.set_jitter(RECONNECT_JITTER_MS);
    Builder::from_config(server)
        .set_policy(policy)
        .set_connection_config(connection_config(config.timeout))
        .set_performance_config(PerformanceConfig {
            default_command_timeout: config.timeout,
            max_feed_count: CALLS_PER_FLUSH,
            broadcast_channel_capacity: EVENTS_WAITING,
        })
        .build()
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
        // A server that became a replica keeps its connections: only a new one finds its successor.
        reconnect_errors: vec![ReconnectError::ReadOnly],
    }
}

fn address(client: &Client) -> String {
    let hosts: Vec<_> = client.client_config().server.hosts().iter().map(ToString::to_string).collect();
    hosts.join(",")
}

/// Drives the connection for as long as the sink lives. Only a fault of configuration that the server itself reports
/// (a cluster URL for a server that is none) ends the client's own loop; an operator may mend it while we wait.
async fn keep_connected(client: Client) {
    loop {
        if let Ok(Err(error)) = client.connect().await {
            warn!(%error, "the connection to Redis ended");
        }
        tokio::time::sleep(Duration::from_millis(RECONNECT_MAX_MS.into())).await;
    }
}

async fn note_faults(client: Client, scheme: UrlScheme, link_fault: watch::Sender<Down>) {
    let mut faults = client.error_rx();
    loop {
        match faults.recv().await {
            Ok((error, _)) => {
                link_fault.send_replace(Down { what: explain(&error, scheme), class: class(&error) });
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn fred_arguments(call: &Call) -> (Vec<Key>, Vec<Value>) {
    let keys = call.keys.iter().cloned().map(Key::from).collect();
    let args = call.args.iter().cloned().map(Value::Bytes).collect();
    (keys, args)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Sink,
    Denied,
    Untrusted,
    Unknown,
}

/// First words of answers that are about the server and not about what was written.
const SINK_FAULTS: [&str; 13] = [
    "BUSY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "ASK",
    "TRYAGAIN",
    "UNKILLABLE",
];

/// First words of answers by which Redis refuses us. One of them never is about a single record: a right that covers only
/// some keys is a wrong right.
const DENIALS: [&str; 3] = ["NOAUTH", "NOPERM", "WRONGPASS"];
/// The same in words: a password for a server that has none, and a command that a script may not use.
const DENIALS_IN_WORDS: [&str; 2] = ["called without any password", "can't run this command"];

fn class(error: &Error) -> Class {
    let details = error.details();
    if DENIALS.contains(&first_word(details)) || DENIALS_IN_WORDS.iter().any(|words| details.contains(words)) {
        return Class::Denied;
    }
    if !is_from_server(error) && tls::lasting_fault(details).is_some() {
        return Class::Untrusted;
    }
    if !is_from_server(error) || SINK_FAULTS.contains(&first_word(error.details())) {
        return Class::Sink;
    }
    Class::Unknown
}

/// Redis's answers begin with a word in capitals; what the client says of itself (no connection, no answer) does not.
fn is_from_server(error: &Error) -> bool {
    let word = first_word(error.details());
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

fn explain(error: &Error, scheme: UrlScheme) -> String {
    let details = error.details();
    if is_from_server(error) {
        return match first_word(details) {
            "NOAUTH" | "WRONGPASS" => format!(
                "{details}; check user and password in --redis-url, or --redis-username and --redis-password-file"
            ),
            "NOPERM" => {
                format!("{details}; the user of --redis-url needs +eval +evalsha +set on the keys of --key-prefix")
            }
            _ => details.to_owned(),
        };
    }
    if let Some(fault) = tls::lasting_fault(details) {
        return fault;
    }
    // The client formats operating system errors with `Debug`; their own words are in quotes.
    let text = details.split('"').nth(1).unwrap_or(details);
    let hint = tls::hint(details, scheme);
    format!("not connected: {}; is Redis running at --redis-url{hint}?", text.trim_end_matches('.'))
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "ages of positions are far below 2^52 ms")]
fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Error {
        Error::new(ErrorKind::Unknown, text.to_owned())
    }

    #[test]
    fn answers_about_the_server_are_sink_faults() {
        let table = [
            ("LOADING Redis is loading the dataset in memory", Class::Sink),
            ("READONLY You can't write against a read only replica.", Class::Sink),
            ("OOM command not allowed when used memory > 'maxmemory'.", Class::Sink),
            ("CLUSTERDOWN Hash slot not served", Class::Sink),
            ("MASTERDOWN Link with MASTER is down", Class::Sink),
            ("MISCONF Redis is configured to save RDB snapshots", Class::Sink),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Class::Sink),
            ("BUSY Redis is busy running a script.", Class::Sink),
            ("NOAUTH Authentication required.", Class::Denied),
            ("Connection closed unexpectedly.", Class::Sink),
            ("Request timed out.", Class::Sink),
            ("Client is not initialized.", Class::Sink),
            ("ERR value is not an integer or out of range", Class::Unknown),
            ("NOPERM this user has no permissions", Class::Denied),
            ("WRONGPASS invalid username-password pair or user is disabled.", Class::Denied),
            ("ERR AUTH <password> called without any password configured for the default user.", Class::Denied),
            ("WRONGTYPE Operation against a key", Class::Unknown),
        ];
        for (text, expected) in table {
            assert_eq!(class(&answer(text)), expected, "{text}");
        }
    }

    #[test]
    fn urls_are_checked_without_showing_the_password() {
        for right in [
            "redis://127.0.0.1:6379",
            "redis://user:secret@cache/3",
            "redis-cluster://a:7000?node=b:7001",
            "redis-sentinel://a:26379?sentinelServiceName=main",
            "rediss://user:secret@cache:6380/3",
            "rediss-cluster://a:7000?node=b:7001",
            "rediss-sentinel://a:26379?sentinelServiceName=main",
        ] {
            assert_eq!(check_url(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "127.0.0.1:6379",
            "http://a",
            "rediss+unix://:secret@a",
            "redis://:secret@a:99999",
            "redis-sentinel://:secret@a",
        ] {
            let error = check_url(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{wrong}: {error}");
        }
    }
}
