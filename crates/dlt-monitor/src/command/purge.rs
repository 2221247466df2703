//! `purge`: removes letters for good, from the beginning of each partition up to a moment.

use kafka::OffsetSpec;

use super::Desk;
use super::ask::confirm;
use crate::error::Error;
use crate::filter::Filter;
use crate::moment::{Moment, now_ms};
use crate::scan::{Scan, offsets};
use crate::table::{grouped, say};

/// What to remove.
#[derive(Debug, Clone, clap::Args)]
pub struct PurgeArgs {
    /// Only letters from before this moment: how long ago (7d) or a time. Kafka removes from the beginning: up to the
    /// first letter of each partition that is not older
    #[arg(long, value_name = "MOMENT")]
    pub before: Option<Moment>,

    /// Partitions of the dead letter topic, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Vec<i32>,

    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

pub(super) async fn run(desk: &Desk, args: PurgeArgs) -> Result<(), Error> {
    let filter = Filter { partitions: args.partition.clone(), ..Filter::default() };
    let scan = Scan::open(&desk.client, &desk.dead_letter_topic, &filter).await?;
    let mut stretches = scan.stretches;
    if let Some(before) = &args.before {
        let partitions: Vec<_> = stretches.iter().map(|stretch| stretch.partition.clone()).collect();
        let at = offsets(&desk.client, &partitions, OffsetSpec::AtTimestamp(before.at_ms(now_ms()))).await?;
        for stretch in &mut stretches {
            stretch.end = at.get(&stretch.partition).copied().unwrap_or(stretch.from).min(stretch.end);
        }
    }
    stretches.retain(|stretch| stretch.from < stretch.end);
    let count: u64 = stretches.iter().map(|stretch| stretch.end.since(stretch.from)).sum();
    let (topic, count) = (&desk.dead_letter_topic, grouped(count));
    if args.dry_run || stretches.is_empty() {
        say(&format!("{count} letters of {topic} would be removed\n"));
        return Ok(());
    }
    confirm(&format!("Remove {count} letters of {topic} for good?"), args.yes).await?;
    for stretch in &stretches {
        desk.client.delete_records(&stretch.partition, stretch.end).await?;
    }
    say(&format!("{count} letters of {topic} removed\n"));
    Ok(())
}
