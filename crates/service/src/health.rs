//! Readiness: each part of a service says whether it works; the whole is ready when all are and no shutdown has begun.
//! Transitions are logged here, repeated failures at a bounded rate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A part that stays not ready says so in the log at most this often.
const REPEAT_EVERY: Duration = Duration::from_secs(10);

/// The readiness of one service; cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<&'static str, Part>>>,
    shutdown: CancellationToken,
}

#[derive(Debug)]
enum Part {
    /// Registered, has not spoken yet.
    Starting,
    Ready,
    NotReady {
        reason: String,
        /// When it was last said as a warning.
        warned_at: Option<Instant>,
    },
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready(String),
    NotReady(String),
}

impl Health {
    /// Not ready until a component is registered and every component is ready; not ready for good once `shutdown` is
    /// cancelled.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { parts: Arc::default(), shutdown }
    }

    /// Registers a part, not ready at first. `name` is a key of the `/readyz` answer.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        self.parts().insert(name, Part::Starting);
        Component { health: self.clone(), name }
    }

    /// Whether `/readyz` answers 200.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let parts = self.parts();
        !self.shutdown.is_cancelled() && !parts.is_empty() && parts.values().all(|part| matches!(part, Part::Ready))
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let ready = self.is_ready();
        let components: BTreeMap<_, _> = self.parts().iter().map(|(name, part)| (*name, part.text())).collect();
        let mut body = serde_json::json!({ "ready": ready, "components": components });
        if self.shutdown.is_cancelled() {
            body["reason"] = "shutting down".into();
        }
        if ready { Readiness::Ready(body.to_string()) } else { Readiness::NotReady(body.to_string()) }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Part>> {
        // A part is replaced whole, so a panic elsewhere leaves nothing half done.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Starting => "starting".to_owned(),
            Self::Ready => "ready".to_owned(),
            Self::NotReady { reason, .. } => reason.clone(),
        }
    }
}

/// One part's say in the readiness of its service.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    name: &'static str,
}

impl Component {
    /// The part works. Logged when it did not before.
    pub fn ready(&self) {
        let before = self.health.parts().insert(self.name, Part::Ready);
        if !matches!(before, Some(Part::Ready)) {
            info!(component = self.name, "ready");
        }
    }

    /// The part does not work, and why: name the server, its address and what to check. What is said first, before the
    /// part ever worked ("connecting to …"), is no warning yet.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let (reason, now) = (reason.into(), Instant::now());
        let mut parts = self.health.parts();
        let warned_at = match parts.get(self.name) {
            Some(Part::Starting) => {
                info!(component = self.name, reason, "starting");
                None
            }
            Some(Part::NotReady { warned_at: Some(at), .. }) if now.duration_since(*at) < REPEAT_EVERY => Some(*at),
            _ => {
                warn!(component = self.name, reason, "not ready");
                Some(now)
            }
        };
        parts.insert(self.name, Part::NotReady { reason, warned_at });
    }

    /// Whether the part last said that it works.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.health.parts().get(self.name), Some(Part::Ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> (Health, CancellationToken) {
        let shutdown = CancellationToken::new();
        (Health::new(shutdown.clone()), shutdown)
    }

    #[test]
    fn a_service_without_components_is_not_ready() {
        assert!(!health().0.is_ready());
    }

    #[tokio::test]
    async fn ready_only_when_every_component_is() {
        let (health, _shutdown) = health();
        let (kafka, redis) = (health.component("kafka"), health.component("redis"));
        assert!(!health.is_ready());
        kafka.ready();
        assert!(!health.is_ready());
        redis.ready();
        assert!(health.is_ready());
        kafka.not_ready("connecting to 127.0.0.1:9092");
        assert!(!health.is_ready() && !kafka.is_ready() && redis.is_ready());
        let expected = r#"{"components":{"kafka":"connecting to 127.0.0.1:9092","redis":"ready"},"ready":false}"#;
        assert_eq!(health.readiness(), Readiness::NotReady(expected.to_owned()));
        kafka.ready();
        assert!(health.is_ready());
    }

    #[test]
    fn shutdown_makes_it_not_ready_for_good() {
        let (health, shutdown) = health();
        let kafka = health.component("kafka");
        kafka.ready();
        shutdown.cancel();
        kafka.ready();
        assert!(!health.is_ready());
        let Readiness::NotReady(body) = health.readiness() else { panic!("ready during shutdown") };
        assert!(body.contains("shutting down"), "{body}");
    }
}
