//! Records at a steady rate, and the count of their outcomes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::Measurement;
use crate::error::Error;
use crate::job::Job;
use crate::payload::{Payload, pool};

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(1);

/// Sends at the job's rate while it warms up, then for the time that is measured, until everything is acknowledged.
///
/// `send` hands a record to the client, with its number and its timestamp in ms, and answers with what waits for its
/// outcome: true for an acknowledgement.
pub(super) async fn produce<F, W>(job: &Job, mut send: F) -> Result<(), Error>
where
    F: FnMut(&Payload, usize, i64) -> W,
    W: Future<Output = bool> + Send + 'static,
{
    let pool = pool();
    paced(job.rate, job.warm, &pool, &mut send).await?;
    let measurement = Measurement::begin()?;
    let sent = paced(job.rate, job.measured, &pool, &mut send).await?;
    measurement.report(sent)
}

async fn paced<F, W>(rate: u64, time: Duration, pool: &[Payload], send: &mut F) -> Result<u64, Error>
where
    F: FnMut(&Payload, usize, i64) -> W,
    W: Future<Output = bool> + Send + 'static,
{
    let goal = rate * u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 1_000;
    let tally = Arc::new(Tally { goal, ended: AtomicU64::new(0), failed: AtomicU64::new(0), reached: Notify::new() });
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = Instant::now();
    let mut sent = 0;
    while sent < goal {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        let now = now_ms();
        while sent < due.min(goal) {
            let index = sent as usize % pool.len();
            let outcome = send(&pool[index], index, now);
            let tally = Arc::clone(&tally);
            tokio::spawn(async move { tally.end(outcome.await) });
            sent += 1;
        }
    }
    tally.settled().await;
    match tally.failed.load(Ordering::Relaxed) {
        0 => Ok(sent),
        failed => Err(Error::Client(format!("{failed} of {sent} records were not acknowledged"))),
    }
}

/// Outcomes so far.
struct Tally {
    goal: u64,
    ended: AtomicU64,
    failed: AtomicU64,
    reached: Notify,
}

impl Tally {
    fn end(&self, acknowledged: bool) {
        if !acknowledged {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if self.ended.fetch_add(1, Ordering::AcqRel) + 1 == self.goal {
            self.reached.notify_one();
        }
    }

    async fn settled(&self) {
        if self.goal > 0 {
            self.reached.notified().await;
        }
    }
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
