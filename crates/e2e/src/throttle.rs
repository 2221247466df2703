//! A Redis that is slow to write, so that a drain takes long enough to be disturbed in the middle.

use std::time::Duration;

use fred::interfaces::{ClientInterface as _, ClientLike as _};
use fred::prelude::Builder;
use fred::types::client::ClientPauseKind;
use fred::types::config::{Config, ReconnectPolicy};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::wait::within;

/// Writes are let through once in this time.
const EVERY: Duration = Duration::from_millis(25);
/// Of which they are held up for so long, ms.
const PAUSE_MS: i64 = 20;

/// As long as it lives, Redis holds up all writes for most of the time.
#[derive(Debug)]
pub struct Throttle {
    _stop: DropGuard,
}

impl Throttle {
    /// Begins.
    pub async fn start(url: &str) -> Self {
        let config = Config::from_url(url).expect("a URL of Redis");
        let client = Builder::from_config(config)
            .set_policy(ReconnectPolicy::new_constant(0, 50))
            .build()
            .expect("a client of Redis");
        within("Redis answers", client.init()).await.expect("Redis answers");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
                client.client_pause(PAUSE_MS, Some(ClientPauseKind::Write)).await.expect("Redis pauses its writes");
            }
        });
        Self { _stop: stop.drop_guard() }
    }
}
