//! `redrive`: sends originals back to their topic, each once.
//!
//! ```text
//!   letters after the committed position ──filter──▶ restore ──first letter of its original?──▶ Courier ──▶ topic
//!                                                       │ stays, with a reason                    │ acknowledged
//!                                                       └───────────────▶ position of the group ◀─┘ commit
//! ```
//!
//! Progress is a consumer group named after the redrive. Everything before its position is settled: sent and
//! acknowledged, or left where it is for a reason that is counted. After a stop of any kind the letters before the
//! position are read again (not sent) to learn which originals went back already; so only what was sent after the last
//! commit, a batch at most, can go twice.

mod dry_run;
mod hold;
mod plan;
mod report;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kafka::{Offset, TopicPartition};
use tokio::time::Instant;

use super::ask::confirm;
use super::{Desk, Output};
use crate::courier::Courier;
use crate::error::Error;
use crate::filter::FilterArgs;
use crate::original::{Original, Stays, TimestampPolicy};
use crate::pace::rate;
use crate::table::{grouped, say};

use hold::Hold;
use plan::{Plan, Step};
use report::{Progress, Report};

pub use plan::{DEFAULT_NAME, progress_group};

/// Letters of one batch at most: what may go twice after kill −9.
const BATCH: usize = 5_000;
/// Age of a batch at most, so that a slow redrive commits as well.
const BATCH_AGE: Duration = Duration::from_millis(200);
/// A wait for the rate that is longer than this is used to settle what is under way.
const IDLE: Duration = Duration::from_millis(20);

/// What to send back, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct RedriveArgs {
    /// Which letters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Print what would go where, and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Records a second at most, such as 500/s [default: as fast as Kafka takes them]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<u32>,

    /// Records to send at most; the next run with the same --name goes on behind them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max: Option<u64>,

    /// Leave letters whose original came back this often already, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_redrives: u32,

    /// Send everything to this topic, also originals of other topics [default: --topic]
    #[arg(long, value_name = "TOPIC", value_parser = service::topic_name)]
    pub to: Option<String>,

    /// Name of this redrive, under which its progress is kept: after a stop, start it again with the same one [default:
    /// all, or one that is made from the filter and --to]
    #[arg(long, value_name = "NAME", value_parser = plan::name)]
    pub name: Option<String>,

    /// Timestamp of the records that are sent: that of the original, or the moment of sending
    #[arg(long, value_name = "original|now", default_value = "original", hide_possible_values = true)]
    pub timestamp: TimestampPolicy,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Form of the end report
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

pub(super) async fn run(desk: &Desk, args: RedriveArgs) -> Result<(), Error> {
    let plan = Plan::make(desk, &args).await?;
    if args.dry_run {
        return dry_run::run(desk, &args, plan).await;
    }
    let question = format!(
        "Read {} letters of {} and send their originals to {} (redrive {})?",
        grouped(plan.scan.total()),
        desk.dead_letter_topic,
        plan.policy.target(),
        plan.name,
    );
    confirm(&question, args.yes).await?;
    let hold = Hold::take(desk, &plan.group).await?;
    // Between the question and the hold another redrive of this name may have ended.
    let plan = Plan::make(desk, &args).await?;
    let courier = Courier::new(&desk.client, plan.policy.target(), args.rate).await?;
    let mut redrive = Redrive { hold, courier, positions: BTreeMap::new(), metadata: plan.metadata(), begun: None };
    let (report, result) = redrive.all(desk, plan, &args).await;
    redrive.hold.release().await;
    say(&match args.output {
        Output::Table => report.table(),
        Output::Json => format!("{:#}\n", report.json()),
    });
    result
}

/// A redrive under way.
struct Redrive {
    hold: Hold,
    courier: Courier,
    /// What may be committed once everything under way is acknowledged.
    positions: BTreeMap<TopicPartition, Offset>,
    metadata: String,
    /// When the first record of this batch was sent.
    begun: Option<Instant>,
}

/// Whether to go on.
enum Flow {
    On,
    Enough,
}

impl Redrive {
    /// Sends everything; what was sent is committed however it ends.
    async fn all(&mut self, desk: &Desk, plan: Plan, args: &RedriveArgs) -> (Report, Result<(), Error>) {
        let mut report = Report::new(&plan);
        let mut result = self.send_all(desk, plan, args, &mut report).await;
        if result.is_ok() {
            result = self.settle().await;
        }
        report.end();
        (report, result)
    }

    async fn send_all(
        &mut self,
        desk: &Desk,
        plan: Plan,
        args: &RedriveArgs,
        report: &mut Report,
    ) -> Result<(), Error> {
        let progress = Progress::begin(plan.scan.total());
        let mut once = plan.sent_before().await?;
        let mut parts = pin!(plan.steps());
        while let Some(part) = parts.next().await {
            let part = part?;
            report.read(part.read, part.made.filtered);
            for Step { place, outcome } in part.made.steps {
                let outcome = outcome.and_then(|original| first_of(&mut once, original));
                match outcome {
                    Ok(original) => {
                        if let Flow::Enough = self.send(desk, original).await? {
                            return self.interrupted();
                        }
                        report.sent();
                    }
                    Err(stays) => report.stays(stays),
                }
                self.positions.insert(place.partition, place.offset.next());
                self.settle_if_due().await?;
                if args.max.is_some_and(|max| report.sent >= max) {
                    return Ok(());
                }
            }
            self.positions.extend(part.positions);
            progress.show(report);
        }
        Ok(())
    }

    /// Sends a record at its moment; a signal is answered instead.
    async fn send(&mut self, desk: &Desk, original: Original) -> Result<Flow, Error> {
        let due = self.courier.due();
        if due.saturating_duration_since(Instant::now()) > IDLE {
            self.settle().await?;
        }
        tokio::select! {
            biased;
            () = desk.shutdown.cancelled() => return Ok(Flow::Enough),
            () = tokio::time::sleep_until(due), if due > Instant::now() => {}
            () = std::future::ready(()), if due <= Instant::now() => {}
        }
        self.begun.get_or_insert_with(Instant::now);
        self.courier.send(original.record).await?;
        Ok(Flow::On)
    }

    fn interrupted(&self) -> Result<(), Error> {
        tracing::info!("interrupted: what was sent is committed; start again with the same --name to go on");
        self.hold.check()
    }

    async fn settle_if_due(&mut self) -> Result<(), Error> {
        let is_old = self.begun.is_some_and(|begun| begun.elapsed() >= BATCH_AGE);
        if is_old || self.courier.under_way() >= BATCH { self.settle().await } else { Ok(()) }
    }

    /// Waits for what is under way, then commits: in this order, so that nothing is skipped.
    async fn settle(&mut self) -> Result<(), Error> {
        self.begun = None;
        self.courier.settle().await?;
        let positions = std::mem::take(&mut self.positions);
        self.hold.commit(positions, &self.metadata).await
    }
}

/// Two groups leave two letters: the first one that is read is sent.
fn first_of(once: &mut crate::once::Once, original: Original) -> Result<Original, Stays> {
    let was = &original.was;
    if once.is_first(&was.topic, was.partition, was.offset) { Ok(original) } else { Err(Stays::Duplicate) }
}
