//! `stats`: how many letters there are, by reason, group, hour and partition.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::pin;

use futures::StreamExt;
use serde_json::json;

use super::{Desk, Output};
use crate::error::Error;
use crate::filter::FilterArgs;
use crate::letter::UNKNOWN;
use crate::moment::{hour, now_ms, show_ms};
use crate::scan::{Found, Scan};
use crate::table::{grouped, say, tame};

/// Reasons, groups and hours that are counted apart: names come from strangers, so what comes beyond is `other`.
const MAX_ENTRIES: usize = 1_000;
const OTHER: &str = "other";
/// Width of the longest bar.
const BAR: u64 = 40;
const NAME_CHARS: usize = 80;

/// What to count.
#[derive(Debug, Clone, clap::Args)]
pub struct StatsArgs {
    /// Which letters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Form of the histograms
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// Letters by one property.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Histogram(BTreeMap<String, u64>);

/// All histograms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counts {
    letters: u64,
    value_bytes: u64,
    oldest_ms: Option<i64>,
    newest_ms: Option<i64>,
    reasons: Histogram,
    groups: Histogram,
    hours: Histogram,
    partitions: BTreeMap<i32, u64>,
}

pub(super) async fn run(desk: &Desk, args: StatsArgs) -> Result<(), Error> {
    let filter = args.filter.filter(now_ms());
    let scan = Scan::open(&desk.client, &desk.dead_letter_topic, &filter).await?;
    let parts = scan.parts(move |letters| {
        let mut counts = Counts::default();
        letters.filter(|found| filter.matches(found)).for_each(|found| counts.count(&found));
        counts
    });
    let (mut parts, mut counts) = (pin!(parts), Counts::default());
    while let Some(part) = parts.next().await {
        counts.add(part?.made);
    }
    say(&match args.output {
        Output::Table => counts.table(),
        Output::Json => format!("{:#}\n", counts.json()),
    });
    Ok(())
}

impl Histogram {
    fn count(&mut self, name: &str, number: u64) {
        if let Some(count) = self.0.get_mut(name) {
            *count += number;
            return;
        }
        let name = if self.0.len() < MAX_ENTRIES { name } else { OTHER };
        *self.0.entry(name.to_owned()).or_default() += number;
    }

    fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, number)| self.count(name, *number));
    }

    /// The most frequent first.
    fn by_count(&self) -> Vec<(&str, u64)> {
        let mut entries: Vec<_> = self.0.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        entries.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        entries
    }

    fn in_order(&self) -> Vec<(&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count)).collect()
    }
}

impl Counts {
    fn count(&mut self, found: &Found) {
        let time = found.record.timestamp_ms;
        self.letters += 1;
        self.value_bytes += found.record.value.as_ref().map_or(0, bytes::Bytes::len) as u64;
        self.oldest_ms = Some(self.oldest_ms.map_or(time, |oldest| oldest.min(time)));
        self.newest_ms = Some(self.newest_ms.map_or(time, |newest| newest.max(time)));
        self.reasons.count(found.letter.reason.as_deref().unwrap_or(UNKNOWN), 1);
        self.groups.count(found.letter.group.as_deref().unwrap_or(UNKNOWN), 1);
        self.hours.count(&hour(time), 1);
        *self.partitions.entry(found.place.partition.partition.0).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.letters += other.letters;
        self.value_bytes += other.value_bytes;
        self.oldest_ms = [self.oldest_ms, other.oldest_ms].into_iter().flatten().min();
        self.newest_ms = [self.newest_ms, other.newest_ms].into_iter().flatten().max();
        self.reasons.add(&other.reasons);
        self.groups.add(&other.groups);
        self.hours.add(&other.hours);
        for (partition, number) in other.partitions {
            *self.partitions.entry(partition).or_default() += number;
        }
    }

    fn table(&self) -> String {
        let mut text = format!("{} letters, {} bytes of values", grouped(self.letters), grouped(self.value_bytes));
        if let (Some(oldest), Some(newest)) = (self.oldest_ms, self.newest_ms) {
            let _ = write!(text, ", from {} to {}", show_ms(oldest), show_ms(newest));
        }
        text.push('\n');
        let partitions: Vec<_> = self.partitions.iter().map(|(number, count)| (number.to_string(), *count)).collect();
        let partitions = partitions.iter().map(|(number, count)| (number.as_str(), *count)).collect();
        let histograms = [
            ("reason", self.reasons.by_count()),
            ("group", self.groups.by_count()),
            ("hour (UTC)", self.hours.in_order()),
            ("partition", partitions),
        ];
        histograms.iter().for_each(|(title, entries)| text.push_str(&bars(title, entries)));
        text
    }

    fn json(&self) -> serde_json::Value {
        let partitions: BTreeMap<_, _> = self.partitions.iter().map(|(number, n)| (number.to_string(), n)).collect();
        json!({
            "letters": self.letters,
            "value_bytes": self.value_bytes,
            "oldest": self.oldest_ms,
            "newest": self.newest_ms,
            "by_reason": self.reasons.0,
            "by_group": self.groups.0,
            "by_hour": self.hours.0,
            "by_partition": partitions,
        })
    }
}

fn bars(title: &str, entries: &[(&str, u64)]) -> String {
    let most = entries.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let names: Vec<_> = entries.iter().map(|(name, _)| tame(name, NAME_CHARS)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let digits = grouped(most).len();
    let mut text = format!("\n{title}\n");
    for (name, (_, count)) in names.iter().zip(entries) {
        let bar = "█".repeat(usize::try_from((count * BAR).div_ceil(most)).unwrap_or(0));
        let _ = writeln!(text, "  {name:<width$}  {:>digits$}  {bar}", grouped(*count));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::samples::found;

    fn counts(letters: &[Found]) -> Counts {
        let mut counts = Counts::default();
        letters.iter().for_each(|found| counts.count(found));
        counts
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let letters: Vec<_> = (0..50_u16)
            .map(|n| {
                let reason = if n % 3 == 0 { "undecodable" } else { "missing_latitude" };
                found(i32::from(n % 4), i64::from(n), i64::from(n) * 600_000, b"k", "g", reason)
            })
            .collect();
        let whole = counts(&letters);
        let mut sum = counts(&letters[..17]);
        sum.add(counts(&letters[17..]));
        assert_eq!(sum, whole);
        assert_eq!(whole.json()["by_reason"], json!({"undecodable": 17, "missing_latitude": 33}));
        assert_eq!(whole.hours.0.len(), 9);
        assert_eq!(whole.partitions[&0], 13);
    }

    #[test]
    fn strangers_cannot_make_entries_without_bound() {
        let mut histogram = Histogram::default();
        (0..10_000).for_each(|number| histogram.count(&number.to_string(), 1));
        assert_eq!(histogram.0.len(), MAX_ENTRIES + 1);
        assert_eq!(histogram.0.values().sum::<u64>(), 10_000);
    }

    #[test]
    fn an_empty_topic_is_no_fault() {
        assert!(Counts::default().table().starts_with("0 letters, 0 bytes of values\n"));
    }
}
