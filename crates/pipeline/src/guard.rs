//! The sink's state as all writers of a process see it: a circuit breaker that they share.
//!
//! One writer's fault holds the others back, and one writer at a time probes whether the sink is back.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backpressure::{Admission, Breaker, BreakerState, RetryPolicy};
use tokio::sync::watch;
use tokio::time::Instant;

/// First wait after a fault; a restarted sink is found again within about this time.
const RETRY_BASE: Duration = Duration::from_millis(100);
const RETRY_FACTOR: f64 = 1.5;
/// Longest wait: what a sink's return costs at the most in freshness.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// One fault is enough: a batch is many records already.
const FAULTS_TO_OPEN: NonZeroU32 = NonZeroU32::MIN;
/// While another writer probes, look again this often.
const PROBE_CHECK: Duration = Duration::from_millis(50);

/// Shared by the writers of one pipeline.
pub(crate) struct SinkGuard {
    breaker: Mutex<Breaker>,
    /// `None` while the sink works, else what it last said.
    state: watch::Sender<Option<String>>,
}

impl SinkGuard {
    pub(crate) fn new(seed: u64) -> Result<Self, backpressure::RetryPolicyError> {
        let policy = RetryPolicy::new(RETRY_BASE, RETRY_FACTOR, RETRY_MAX)?;
        let breaker = Mutex::new(Breaker::new(FAULTS_TO_OPEN, policy, seed));
        Ok(Self { breaker, state: watch::Sender::new(None) })
    }

    /// Waits for a turn to use the sink. Report the outcome through the [`Turn`].
    pub(crate) async fn turn(&self) -> Turn<'_> {
        loop {
            let now = Instant::now();
            let admission = self.breaker().admit(now);
            match admission {
                Admission::Flow | Admission::Probe => {
                    return Turn { guard: self, is_probe: admission == Admission::Probe, reported: false };
                }
                Admission::Wait(until) => tokio::time::sleep_until(until.unwrap_or(now + PROBE_CHECK)).await,
            }
        }
    }

    /// Whether the sink works, with what it said when it last did not.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.state.subscribe()
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: BreakerState, fault: Option<String>) {
        let fault = if matches!(state, BreakerState::Closed { .. }) { None } else { fault };
        self.state.send_if_modified(|known| {
            let changed = *known != fault;
            *known = fault;
            changed
        });
    }
}

/// The right to use the sink once.
pub(crate) struct Turn<'a> {
    guard: &'a SinkGuard,
    is_probe: bool,
    reported: bool,
}

impl Turn<'_> {
    /// Whether its outcome will decide if the sink is back.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The sink answered (also: it refused a record for its content).
    pub(crate) fn answered(mut self) {
        self.reported = true;
        self.guard.breaker().success();
        self.guard.publish(BreakerState::Closed { faults: 0 }, None);
    }

    /// The sink did not.
    pub(crate) fn failed(mut self, fault: &str) {
        self.reported = true;
        let state = {
            let mut breaker = self.guard.breaker();
            breaker.fault(Instant::now());
            breaker.state()
        };
        self.guard.publish(state, Some(fault.to_owned()));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.reported {
            self.guard.breaker().abandon(Instant::now());
        }
    }
}
