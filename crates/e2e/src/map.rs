//! The map as a reader sees it: Redis, through a client of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use fred::interfaces::{ClientLike as _, KeysInterface as _};
use fred::prelude::{Builder, Client};
use fred::types::config::{Config, ReconnectPolicy};

use crate::wait::{eventually, within};

/// Waits between attempts to reach a server that is down, ms.
const RECONNECT_MS: u32 = 50;
/// So that a look at a server that hangs ends; the next one follows.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

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
        let timestamp = value.split_once("\"timestamp\":").map(|(_, rest)| rest.trim_end_matches('}'));
        timestamp.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("no timestamp in {value}"))
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
