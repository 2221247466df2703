//! Positions into Redis through fred, and fred's errors into faults. No file but this one and those in `redis/` imports
//! fred.
//!
//! One connection to each server: the calls of all writers are pipelined on it, and a second one gained nothing when
//! measured (Redis works on one core, and fred's side of a call costs a fifth of Redis's).

mod cluster;
mod connection;
mod routes;
mod sentinel;
mod slots;
mod tls;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::DriverLocation;
use fred::error::{Error, ErrorKind};
use fred::types::RespVersion;
use fred::types::config::{Blocking, ServerConfig};
use fred::util::redis_keyslot;
use futures::future::try_join_all;
use kafka::{Offset, TopicPartition};
use pipeline::{Batch, Sink, WriteError, Written};
use tracing::warn;

use self::cluster::Cluster;
use self::connection::{Down, Fault, Link, Reason, Script, Template};
use self::routes::Source;
use self::sentinel::Sentinels;
use crate::ValueFormat;
use crate::metrics::SinkMetrics;
use crate::order::{Call, Form, SCRIPT, Verdict};
use crate::place::Placed;
use crate::plan::{Conflate, Plan, Rules};
use crate::security::Security;

pub(crate) use self::tls::{UrlFacts, UrlScheme, without_credentials};

/// Positions in one script call at most: it holds up every other client of Redis for about 3 ms.
const POSITIONS_PER_CALL: usize = 1_000;
/// Says whether a write would be taken: a script that may write, but does not, passes Redis's own checks for loading,
/// read-only, full memory, failed persistence and missing replicas.
///
/// It also asks for the right to write under the prefix, which no write would be refused for before the first record.
const PROBE: &str = "#!lua
if redis.acl_check_cmd('SET', KEYS[1], '', 'GET') then return 0 end
return redis.error_reply('NOPERM no right to SET the keys under the prefix')";

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
    servers: Servers,
    rules: Rules,
    form: Form,
    order: Script,
    probe: Script,
    timeout: Duration,
    address: String,
    metrics: SinkMetrics,
    foreign_key_seen: AtomicBool,
}

/// Who is written to, and which keys one call may hold.
enum Servers {
    /// This one; any keys.
    One(Link),
    /// The master that Sentinel names; any keys.
    Sentinel(Cluster),
    /// The masters of a cluster; keys of one hash slot.
    Cluster(Cluster),
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
        let template = template(&config).map_err(|error| UrlError(error.details().to_owned()))?;
        Ok(Self {
            address: address(&template),
            servers: Servers::start(template).map_err(|error| UrlError(error.details().to_owned()))?,
            rules: Rules::new(config.position_ttl, config.conflate, config.steady_batch),
            form: Form { key_prefix: config.key_prefix, value_format: config.value_format, life: config.position_ttl },
            order: Script::known_by_sha(SCRIPT),
            probe: Script::sent_as_text(PROBE),
            timeout: config.timeout,
            metrics: SinkMetrics::new(),
            foreign_key_seen: AtomicBool::new(false),
        })
    }

    /// Servers as configured, without credentials.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Positions cut into what one call may hold, in their order.
    fn shares<'a>(&self, positions: Vec<Placed<'a>>) -> Vec<Vec<Placed<'a>>> {
        let groups = match self.servers {
            Servers::One(_) | Servers::Sentinel(_) => vec![positions],
            Servers::Cluster(_) => self.by_slot(positions),
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

    /// Writes the shares. A call may be repeated: Redis decides the order, so a repetition changes nothing.
    async fn send(&self, shares: &[Vec<Placed<'_>>]) -> Result<Vec<Verdict>, WriteError> {
        let calls: Vec<_> = shares.iter().map(|share| self.form.call(share)).collect();
        let replies = match &self.servers {
            Servers::One(link) => try_join_all(calls.iter().map(|call| link.run(&self.order, call))).await,
            Servers::Sentinel(cluster) | Servers::Cluster(cluster) => cluster.run(&self.order, calls).await,
        };
        let replies = replies.map_err(|fault| self.write_error(fault))?;
        let verdicts = replies.iter().zip(shares).map(|(reply, share)| Verdict::read(reply, share.len()));
        let unexpected = || WriteError::Unknown(format!("redis {}: unexpected reply of the script", self.address));
        verdicts.map(|verdict| verdict.ok_or_else(unexpected)).collect()
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
        let text = |what: &str| format!("redis {}: {what}", fault.server);
        match fault.reason {
            Reason::Link(Down { what, class: Class::Denied, .. }) => WriteError::Denied(text(&what)),
            Reason::Link(Down { what, class: Class::Untrusted, .. }) => WriteError::Untrusted(text(&what)),
            Reason::Link(Down { what, class: Class::Sink | Class::Unknown, .. }) => WriteError::SinkFault(text(&what)),
            Reason::Call(error) => match (class(&error), error.kind()) {
                (Class::Sink, ErrorKind::Timeout) => {
                    let timeout = service::format_duration(self.timeout);
                    WriteError::SinkFault(text(&format!("no answer within --redis-timeout {timeout}")))
                }
                (Class::Sink, _) => WriteError::SinkFault(text(&explain(&error))),
                (Class::Denied, _) => WriteError::Denied(text(&explain(&error))),
                (Class::Untrusted, _) => WriteError::Untrusted(text(&explain(&error))),
                (Class::Unknown, _) => WriteError::Unknown(text(&explain(&error))),
            },
        }
    }
}

impl Servers {
    fn start(template: Template) -> Result<Self, Error> {
        Ok(match (&template.config.server, Sentinels::new(&template)) {
            (_, Some(sentinels)) => Self::Sentinel(Cluster::start(template, Source::Sentinels(sentinels))),
            (ServerConfig::Clustered { .. }, None) => Self::Cluster(Cluster::start(template, Source::Cluster)),
            (server, None) => Self::One(Link::start(&template, &server.hosts().swap_remove(0))?),
        })
    }
}

impl Sink for RedisSink {
    type Event = DriverLocation;
    const KEEPS_OFFSETS: bool = false;

    async fn write(&self, batch: &Batch<DriverLocation>) -> Result<Written, WriteError> {
        let mut plan = self.rules.plan(batch.len(), Placed::all(batch), now_ms());
        if plan.writes.is_empty() && !batch.is_empty() {
            // All of it has expired, as it does while Redis is away: that is no sign that Redis is back.
            self.probe().await?;
        }
        let shares = self.shares(std::mem::take(&mut plan.writes));
        let verdicts = self.send(&shares).await?;
        let shares: Vec<_> = shares.into_iter().zip(verdicts).collect();
        Ok(self.account(&plan, &shares))
    }

    async fn positions(&self, _: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, WriteError> {
        Ok(HashMap::new())
    }

    async fn probe(&self) -> Result<(), WriteError> {
        let key = |number: u32| format!("{}{number}", self.form.key_prefix).into_bytes();
        let probed = match &self.servers {
            Servers::One(link) => {
                let call = Call { keys: vec![key(0).into()], args: Vec::new() };
                link.run(&self.probe, &call).await.map(drop)
            }
            Servers::Sentinel(cluster) | Servers::Cluster(cluster) => cluster.run_everywhere(&self.probe, key).await,
        };
        probed.map_err(|fault| self.write_error(fault))
    }
}

/// What all connections have in common.
fn template(config: &SinkConfig) -> Result<Template, Error> {
    let (mut server, scheme) = tls::parse(&config.url)?;
    tls::secure(&mut server, &config.security);
    if (scheme == UrlScheme::Tls) != server.uses_tls() {
        return Err(Error::new(ErrorKind::Config, "TLS is for rediss:// and its kin, and they need it"));
    }
    // Without a server at the start the client goes on trying, as it does later.
    server.fail_fast = false;
    server.blocking = Blocking::Block;
    server.version = RespVersion::RESP2;
    Ok(Template { config: server, timeout: config.timeout })
}

fn address(template: &Template) -> String {
    let hosts: Vec<_> = template.config.server.hosts().iter().map(ToString::to_string).collect();
    hosts.join(",")
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

fn explain(error: &Error) -> String {
    let details = error.details();
    if is_from_server(error) {
        return match first_word(details) {
            "NOAUTH" | "WRONGPASS" => format!(
                "{details}; check user and password in --redis-url, or --redis-username and --redis-password-file"
            ),
            "NOPERM" => {
                let rights =
                    "+eval +evalsha +set on the keys of --key-prefix, on a cluster +cluster|slots +asking as well";
                format!("{details}; the user (of --redis-url or --redis-username) needs {rights}")
            }
            _ => details.to_owned(),
        };
    }
    if let Some(fault) = tls::lasting_fault(details) {
        return fault;
    }
    // The client formats operating system errors with `Debug`; their own words are in quotes.
    let text = details.split('"').nth(1).unwrap_or(details);
    let hint = tls::hint(details);
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
