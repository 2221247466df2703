//! The flags of redis-writer.

use std::time::Duration;

use pipeline::{BatchArgs, BatchProfile, FlagText, Freshness, PipelineArgs, Policy};
use service::{CommonArgs, Usage};

use crate::redis::{SinkConfig, UrlFacts, check_url, without_credentials};
use crate::security::{Security, SecurityArgs};
use crate::{Conflate, ValueFormat};

/// The consumer group of the map.
pub const DEFAULT_GROUP: &str = "driver-location-redis";

const TIMEOUT_MIN: Duration = Duration::from_millis(50);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_hours(24);
const KEY_PREFIX_MAX_BYTES: usize = 128;

/// Everything that redis-writer can be told.
#[derive(Debug, Clone, clap::Parser)]
pub struct Config {
    /// Flags that every service has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Flags of the consumer runtime.
    #[command(flatten)]
    pub pipeline: PipelineArgs,

    /// How batches are made for Redis.
    #[command(flatten)]
    pub batch: BatchArgs<MapBatches>,

    /// Flags of the map.
    #[command(flatten)]
    pub redis: RedisArgs,
}

/// What --help says of how batches are made for Redis.
#[derive(Debug, Clone)]
pub struct MapBatches;

impl BatchProfile for MapBatches {
    const GROUP: FlagText = FlagText { default: DEFAULT_GROUP, help: "Consumer group" };
    const BATCH_MAX: FlagText = FlagText {
        default: "1000",
        help: "Records of one batch, 1 to 10000; in catch-up --conflate auto and on take more: --pause-above / --writers",
    };
    const BATCH_LIMIT: u64 = 10_000;
    const LINGER_MAX: FlagText = FlagText {
        default: "5ms",
        help: "How long records may wait for others to share their batch while records are coming in, 0ms to 1s",
    };
    const LINGER_LIMIT: Duration = Duration::from_secs(1);
    const WRITERS: FlagText = FlagText { default: "4", help: "Batches written to Redis at a time, 1 to 64" };
    const FETCH_MIN_BYTES: &'static str = "10KiB";
}

/// Flags of the map.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Redis options")]
pub struct RedisArgs {
    /// Where Redis is: redis://[USER:PASSWORD@]HOST[:PORT][/DB], redis-cluster://HOST:PORT[?node=HOST:PORT…] or
    /// redis-sentinel://HOST:PORT?sentinelServiceName=NAME; with TLS rediss://, rediss-cluster://, rediss-sentinel://
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: String,

    /// The longest wait for an answer of Redis, 50ms to 30s
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = service::duration(TIMEOUT_MIN..=TIMEOUT_MAX))]
    pub redis_timeout: Duration,

    /// How long a position may be seen, from its effective time on, 1s to 24h
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = service::duration(TTL_MIN..=TTL_MAX))]
    pub position_ttl: Duration,

    /// Put before the driver id to make the key of a position
    #[arg(long, value_name = "TEXT", default_value = "driver:loc:")]
    pub key_prefix: String,

    /// Form of the value under a driver's key
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub value_format: ValueFormat,

    /// Whether only the newest position of each driver is written, of all that one batch takes
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub conflate: Conflate,

    /// Who we are to Redis, and whom we trust.
    #[command(flatten)]
    pub security: SecurityArgs,
}

impl service::Config for Config {
    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn check(&self) -> Result<(), Usage> {
        self.pipeline.check()?;
        let url = &self.redis.redis_url;
        check_url(url).map_err(|error| Usage::new("--redis-url", without_credentials(url), error.to_string()))?;
        let prefix = &self.redis.key_prefix;
        if prefix.len() > KEY_PREFIX_MAX_BYTES || prefix.chars().any(char::is_control) {
            let remedy = format!("give at most {KEY_PREFIX_MAX_BYTES} bytes without control characters");
            return Err(Usage::new("--key-prefix", prefix, remedy));
        }
        self.security().map(drop)
    }
}

impl Config {
    pub(crate) fn policy(&self) -> Policy {
        let freshness = Freshness { life: self.redis.position_ttl };
        Policy { batch_max: self.largest_batch(), ..self.batch.policy(Some(freshness)) }
    }
}

impl Config {
    /// Where conflation is to be had, a batch takes whatever is waiting: a backlog holds dozens of positions of each
    /// driver, few batches of the usual size hold two. The writers share what may be held, so that none waits for all.
    fn largest_batch(&self) -> u64 {
        match self.redis.conflate {
            Conflate::Off => self.batch.batch_max,
            Conflate::Auto | Conflate::On => {
                self.batch.batch_max.max(self.pipeline.pause_above / u64::from(self.batch.writers))
            }
        }
    }

    fn security(&self) -> Result<Security, Usage> {
        self.redis.security.load(&UrlFacts::of(&self.redis.redis_url)?)
    }

    /// Reads the files of the flags once more.
    pub(crate) fn sink_config(&self) -> Result<SinkConfig, Usage> {
        Ok(SinkConfig {
            url: self.redis.redis_url.clone(),
            security: self.security()?,
            timeout: self.redis.redis_timeout,
            position_ttl: self.redis.position_ttl,
            key_prefix: self.redis.key_prefix.clone(),
            value_format: self.redis.value_format,
            conflate: self.redis.conflate,
            steady_batch: self.batch.batch_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(flags: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("redis-writer").chain(flags.iter().copied());
        service::parse::<Config>(&crate::INFO, args).map_err(|stop| match stop {
            service::Stop::Usage(usage) => usage.to_string(),
            service::Stop::Text(text) => text,
        })
    }

    #[test]
    fn defaults_fit_a_local_redis_and_the_group_of_the_map() {
        let config = parsed(&[]).unwrap();
        assert_eq!(config.redis.redis_url, "redis://127.0.0.1:6379");
        assert_eq!(config.redis.position_ttl, Duration::from_millis(event::POSITION_LIFE_MS.unsigned_abs()));
        let policy = config.policy();
        assert_eq!((policy.group.as_str(), policy.batch_max), ("driver-location-redis", 12_500));
        let off = parsed(&["--conflate", "off"]).unwrap();
        assert_eq!((off.policy().batch_max, off.sink_config().unwrap().steady_batch), (1_000, 1_000));
        assert_eq!(policy.freshness.map(|freshness| freshness.life), Some(config.redis.position_ttl));
    }

    #[test]
    fn wrong_flags_are_named_with_value_and_remedy() {
        let table = [
            (["--position-ttl", "0s"], "--position-ttl 0s: give 1s to 24h"),
            (["--redis-url", "localhost"], "--redis-url localhost: give redis://"),
            (["--resume-below", "50000"], "--resume-below 50000: must be below --pause-above"),
            (["--batch-max", "0"], "--batch-max 0: "),
            (["--key-prefix", "a\u{7}b"], "--key-prefix a\\u{7}b: give at most"),
            (["--value-format", "xml"], "--value-format xml: allowed: json, protobuf"),
        ];
        for (flags, expected) in table {
            let said = parsed(&flags).unwrap_err();
            assert!(said.starts_with(expected) && !said.contains("secret"), "{said}");
        }
    }
}
