//! The map as a reader sees it: Redis, through a client of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use fred::interfaces::{ClientLike as _, KeysInterface as _};
use fred::prelude::{Builder, Client};
use fred::types::config::{Config, ReconnectPolicy};
use fred::types::{ClusterHash, CustomCommand};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::wait::{eventually, within};

/// Waits between attempts to reach a server that is down, ms.
const RECONNECT_MS: u32 = 50;
/// So that a look at a server that hangs ends; the next one follows.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Keys of one question, so that no other client waits for its answer.
const KEYS_AT_ONCE: usize = 1_000;

/// The live positions under one prefix.
#[derive(Debug)]
pub struct Map {
    client: Client,
    prefix: String,
}

impl Map {
    /// Connects to `url`.
    pub async fn open(url: &str, prefix: &str) -> Self {
        let config = Config::from_url(url).expect("a URL of Redis");
        let client = Builder::from_config(config)
            // 0 attempts: for ever. Tests stop the server and look again.
            .set_policy(ReconnectPolicy::new_constant(0, RECONNECT_MS))
            .with_performance_config(|config| config.default_command_timeout = COMMAND_TIMEOUT)
            .build()
            .expect("a client of Redis");
        within("Redis answers", client.init()).await.expect("Redis answers");
        Self { client, prefix: prefix.to_owned() }
    }

    /// The value under a driver's key.
    ///
    /// # Errors
    /// Why there is none: no such key, or no server.
    pub async fn value(&self, driver: &str) -> Result<String, String> {
        let value: Option<String> = self.client.get(self.key(driver)).await.map_err(|error| error.to_string())?;
        value.ok_or_else(|| format!("{driver} is not on the map"))
    }

    /// The time in a driver's value, ms since the epoch.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn timestamp(&self, driver: &str) -> Result<i64, String> {
        let value = self.value(driver).await?;
        timestamp_in(&value).ok_or_else(|| format!("no timestamp in {value}"))
    }

    /// The times in the values of `drivers`, in their order; none where there is no value.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn timestamps(&self, drivers: &[String]) -> Result<Vec<Option<i64>>, String> {
        let mut timestamps = Vec::with_capacity(drivers.len());
        for some in drivers.chunks(KEYS_AT_ONCE) {
            let keys: Vec<_> = some.iter().map(|driver| self.key(driver)).collect();
            let values: Vec<Option<String>> = self.client.mget(keys).await.map_err(|error| error.to_string())?;
            timestamps.extend(values.iter().map(|value| timestamp_in(value.as_deref()?)));
        }
        Ok(timestamps)
    }

    /// How many keys are under the prefix.
    pub async fn keys(&self) -> usize {
        let command = CustomCommand::new_static("KEYS", ClusterHash::FirstKey, false);
        let keys = self.client.custom::<Vec<String>, _>(command, vec![format!("{}*", self.prefix)]);
        keys.await.expect("Redis answers").len()
    }

    /// When the keys of `drivers` expire, in their order, in ms since the epoch; negative when one is not there or lives
    /// for ever.
    pub async fn expiries(&self, drivers: &[String]) -> Vec<i64> {
        let mut expiries = Vec::with_capacity(drivers.len());
        for driver in drivers {
            expiries.push(self.client.pexpire_time(self.key(driver)).await.expect("Redis answers"));
        }
        expiries
    }

    /// How long a driver's key still lives, in ms; negative when it is not there or lives for ever.
    pub async fn remaining_life_ms(&self, driver: &str) -> i64 {
        self.client.pttl(self.key(driver)).await.expect("Redis answers")
    }

    /// Waits until each driver's position is the one taken at the given time.
    pub async fn shows(&self, newest: &BTreeMap<String, i64>) {
        for (driver, expected) in newest {
            eventually("the newest position is on the map", async || match self.timestamp(driver).await? {
                timestamp_ms if timestamp_ms == *expected => Ok(()),
                other => Err(format!("{driver} at {other}, not {expected}")),
            })
            .await;
        }
    }

    fn key(&self, driver: &str) -> String {
        format!("{}{driver}", self.prefix)
    }
}

fn timestamp_in(value: &str) -> Option<i64> {
    value.split_once("\"timestamp\":")?.1.trim_end_matches('}').parse().ok()
}

/// A reader that looks at the same drivers over and over, as long as it lives, and notes each step back in time.
#[derive(Debug)]
pub struct Watch {
    stop: CancellationToken,
    task: JoinHandle<Seen>,
}

/// What a [`Watch`] saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Looks at all drivers.
    pub looks: usize,
    /// Driver, time seen first and earlier time seen afterwards; 0: none at all.
    pub steps_back: Vec<(String, i64, i64)>,
}

impl Watch {
    /// Looks from now on. While Redis does not answer there is nothing to see.
    pub fn start(map: Map, drivers: Vec<String>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(watch(map, drivers, stop.clone()));
        Self { stop, task }
    }

    /// Looks no more.
    pub async fn stop(self) -> Seen {
        self.stop.cancel();
        within("the reader ends", self.task).await.expect("the reader goes on")
    }
}

async fn watch(map: Map, drivers: Vec<String>, stop: CancellationToken) -> Seen {
    let (mut seen, mut newest) = (Seen::default(), vec![0; drivers.len()]);
    while let Some(look) = stop.run_until_cancelled(map.timestamps(&drivers)).await {
        let Ok(timestamps) = look else { continue };
        seen.looks += 1;
        for ((driver, known), found) in drivers.iter().zip(&mut newest).zip(timestamps) {
            let found = found.unwrap_or(0);
            if found < *known {
                seen.steps_back.push((driver.clone(), *known, found));
            }
            *known = found;
        }
    }
    seen
}
