//! Drivers that post their positions at a steady pace until they are told to stop, and what became of each position.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::events::{Moment, now_ms, position};
use crate::http::{Answer, Phone};
use crate::wait::{eventually, within};

/// Time from one position of a driver to the next: no two have the same millisecond.
const PACE: Duration = Duration::from_millis(20);

/// The code of an answer that does not know the outcome itself.
const OUTCOME_OPEN: &str = "kafka_timeout";

/// Drivers under way.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    drivers: JoinSet<Posted>,
    accepted: Arc<AtomicUsize>,
}

/// Positions by what their drivers were told.
#[derive(Debug, Default)]
pub struct Posted {
    /// Answered by 202.
    pub accepted: Vec<Moment>,
    /// Answered by anything else, with the body: certainly not in Kafka.
    pub refused: Vec<(Moment, String)>,
    /// Sent, and never answered, or answered by a 503 that leaves it open whether Kafka has it.
    pub unknown: Vec<Moment>,
}

impl Posted {
    /// The newest accepted position of each driver.
    pub fn newest(&self) -> BTreeMap<String, i64> {
        let mut newest = BTreeMap::new();
        for (driver, timestamp_ms) in &self.accepted {
            let known = newest.entry(driver.clone()).or_insert(*timestamp_ms);
            *known = (*known).max(*timestamp_ms);
        }
        newest
    }
}

impl Load {
    /// `count` drivers called `PREFIX-NUMBER`, 50 positions/s and a connection each. A lost connection is made again.
    pub fn start(address: SocketAddr, prefix: &str, count: usize) -> Self {
        let (stop, accepted) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let mut drivers = JoinSet::new();
        for number in 0..count {
            let driver = Driver {
                name: format!("{prefix}-{number}"),
                address,
                phone: None,
                posted: Posted::default(),
                accepted: Arc::clone(&accepted),
            };
            drivers.spawn(driver.run(stop.clone()));
        }
        Self { stop, drivers, accepted }
    }

    /// How many positions were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until `more` further positions are accepted.
    pub async fn accept(&self, more: usize) {
        let goal = self.accepted() + more;
        eventually("the load goes on", async || {
            let accepted = self.accepted();
            if accepted >= goal { Ok(()) } else { Err(format!("{accepted} of {goal} accepted")) }
        })
        .await;
    }

    /// Ends the load and tells what became of every position.
    pub async fn stop(self) -> Posted {
        self.stop.cancel();
        let mut all = Posted::default();
        for posted in self.drivers.join_all().await {
            all.accepted.extend(posted.accepted);
            all.refused.extend(posted.refused);
            all.unknown.extend(posted.unknown);
        }
        all
    }
}

struct Driver {
    name: String,
    address: SocketAddr,
    phone: Option<Phone>,
    posted: Posted,
    accepted: Arc<AtomicUsize>,
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) -> Posted {
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = 0;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // Two ticks may share a millisecond after a stall of this machine.
            let now = now_ms();
            if now > last {
                last = now;
                self.post(now).await;
            }
        }
        self.posted
    }

    async fn post(&mut self, timestamp_ms: i64) {
        let mut phone = match self.phone.take() {
            Some(phone) => phone,
            // Nothing was sent, so there is nothing to account for.
            None => match Phone::connect(self.address).await {
                Ok(phone) => phone,
                Err(_) => return,
            },
        };
        let moment = (self.name.clone(), timestamp_ms);
        match within("an answer", phone.post(&position(&self.name, timestamp_ms))).await {
            Ok(answer) => {
                self.phone = Some(phone);
                self.answered(moment, &answer);
            }
            Err(_) => self.posted.unknown.push(moment),
        }
    }

    fn answered(&mut self, moment: Moment, answer: &Answer) {
        match answer.status {
            202 => {
                self.posted.accepted.push(moment);
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
            503 if answer.body.contains(OUTCOME_OPEN) => self.posted.unknown.push(moment),
            _ => self.posted.refused.push((moment, answer.body.clone())),
        }
    }
}
