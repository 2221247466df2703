//! `import`: sends letters that somebody has repaired back to their topic, from the JSON lines of `export`.
//!
//! Every line is read and checked before the first record is sent: a mistake in one of them sends nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::Desk;
use super::ask::confirm;
use crate::courier::Courier;
use crate::error::Error;
use crate::jsonl;
use crate::moment::now_ms;
use crate::original::{Original, Policy, Stays, TimestampPolicy, restore};
use crate::pace::rate;
use crate::table::{grouped, say, tame};

/// Bytes of all lines; what is repaired by hand is small.
const INPUT_MAX_BYTES: u64 = 256 << 20;
/// Records under way at a time.
const BATCH: usize = 2_000;

/// What to read, and where to send it.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// File of JSON lines [default: standard input]
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,

    /// Check every line, say what would go where, and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Records a second at most, such as 500/s [default: as fast as Kafka takes them]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<u32>,

    /// Refuse letters whose original came back this often already, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_redrives: u32,

    /// Send everything to this topic, also originals of other topics [default: --topic]
    #[arg(long, value_name = "TOPIC", value_parser = service::topic_name)]
    pub to: Option<String>,

    /// Timestamp of the records that are sent: that of the original, or the moment of sending
    #[arg(long, value_name = "original|now", default_value = "original", hide_possible_values = true)]
    pub timestamp: TimestampPolicy,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

pub(super) async fn run(desk: &Desk, args: ImportArgs) -> Result<(), Error> {
    let policy = policy(desk, &args).await?;
    let originals = read(&args, &desk.dead_letter_topic, &policy)?;
    let (count, target) = (grouped(originals.len() as u64), policy.target());
    let invalid =
        originals.iter().filter(|one| jsonl::check(one.record.value.as_deref(), one.record.timestamp_ms).is_err());
    let invalid = invalid.count();
    if invalid > 0 {
        tracing::warn!(invalid, "lines that today's rules refuse: they would come back as letters");
    }
    if args.dry_run {
        say(&format!("{count} records would be sent to {target}; nothing was sent\n"));
        return Ok(());
    }
    // A question cannot be asked where the answer would be read from the lines.
    confirm(&format!("Send {count} records to {target}?"), args.yes).await?;
    let sent = send(desk, &args, &policy, originals).await?;
    say(&format!("{} records sent to {target}\n", grouped(sent)));
    Ok(())
}

async fn send(desk: &Desk, args: &ImportArgs, policy: &Policy, originals: Vec<Original>) -> Result<u64, Error> {
    let mut courier = Courier::new(&desk.client, policy.target(), args.rate).await?;
    let mut sent = 0;
    for original in originals {
        tokio::time::sleep_until(courier.due()).await;
        if desk.shutdown.is_cancelled() {
            courier.settle().await?;
            return Err(Error::Refused(format!("interrupted after the first {sent} lines, which were sent")));
        }
        courier.send(original.record).await?;
        sent += 1;
        if courier.under_way() >= BATCH {
            courier.settle().await?;
        }
    }
    courier.settle().await?;
    Ok(sent)
}

async fn policy(desk: &Desk, args: &ImportArgs) -> Result<Policy, Error> {
    let to: Option<Arc<str>> = args.to.as_deref().map(Arc::from);
    let target = to.clone().unwrap_or_else(|| Arc::clone(&desk.topic));
    Ok(Policy {
        topic: Arc::clone(&desk.topic),
        dead_letter_topic: Arc::clone(&desk.dead_letter_topic),
        partitions: desk.client.topic(&target).await?.partition_count(),
        to,
        max_redrives: args.max_redrives,
        timestamps: args.timestamp,
    })
}

fn read(args: &ImportArgs, dead_letter_topic: &Arc<str>, policy: &Policy) -> Result<Vec<Original>, Error> {
    let name =
        args.file.as_ref().map_or_else(|| "standard input".to_owned(), |path| format!("--file {}", path.display()));
    let failed = |error: io::Error| Error::Input(format!("{name}: cannot be read ({error})"));
    let input: Box<dyn Read> = match &args.file {
        Some(path) => Box::new(File::open(path).map_err(failed)?),
        None => Box::new(io::stdin()),
    };
    let now = now_ms();
    let (mut originals, mut lines) = (Vec::<Original>::new(), HashMap::new());
    for (number, line) in (1..).zip(BufReader::new(input.take(INPUT_MAX_BYTES)).lines()) {
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        let of_line =
            |fault: String| Error::Input(format!("{name}: line {number}: {}; nothing was sent", tame(&fault, 500)));
        let found = jsonl::import(&line, dead_letter_topic).map_err(of_line)?;
        let original = restore(&found, policy, now).map_err(|stays| of_line(explain(stays)))?;
        match lines.get(&original.was.to_string()) {
            None => {
                lines.insert(original.was.to_string(), originals.len());
                originals.push(original);
            }
            // Two groups leave two letters: one of them is enough, as long as both say the same.
            Some(first) if originals[*first].record == original.record => {}
            Some(_) => return Err(of_line(format!("another line repairs {} otherwise: keep one", original.was))),
        }
    }
    Ok(originals)
}

fn explain(stays: Stays) -> String {
    let why = match stays {
        Stays::MaxRedrives => "it came back too often already; see --max-redrives",
        Stays::Truncated => {
            "a part of it was cut off; when it is whole again, remove the header driver-location-truncated"
        }
        Stays::UndecodableBatch => "it is a record batch that could not be read, not a record",
        Stays::UnknownOriginal => "it does not tell where it was; give --to",
        Stays::OtherTopic => "its original is of another topic; give --to",
        Stays::Filtered | Stays::Duplicate => "it was not asked for",
    };
    format!("{} ({why})", stays.as_str())
}
