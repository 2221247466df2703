//! `list`: the newest letters, a line each. Neither coordinates nor driver ids are in it.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::StreamExt;
use serde_json::json;

use super::{Desk, Output};
use crate::error::Error;
use crate::filter::{FilterArgs, key_text};
use crate::letter::UNKNOWN;
use crate::moment::{now_ms, show_ms};
use crate::original::redrives;
use crate::scan::{Found, Place, Scan};
use crate::story::Story;
use crate::table::{Side, columns, grouped, say, tame};

const DETAIL_CHARS: usize = 60;
const NAME_CHARS: usize = 60;

/// What to list.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Which letters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Letters to list at most, the newest ones, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,

    /// Form of the list
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// The newest so many of what was seen: no more than that is ever held.
struct Newest {
    limit: usize,
    rows: BTreeMap<(i64, Place), Row>,
}

#[derive(Debug, Clone)]
struct Row {
    story: Story,
    key: Option<String>,
    value_bytes: Option<usize>,
    redrives: u32,
}

pub(super) async fn run(desk: &Desk, args: ListArgs) -> Result<(), Error> {
    let filter = args.filter.filter(now_ms());
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut scan = Scan::open(&desk.client, &desk.dead_letter_topic, &filter).await?;
    if filter.until_ms.is_none() && filter.reasons.is_empty() && filter.groups.is_empty() && filter.keys.is_empty() {
        // Whatever is read is listed, and later offsets are later letters: the ends of the partitions are enough.
        scan = scan.tail(u64::from(args.limit));
    }
    let parts = scan.parts(move |letters| {
        let mut newest = Newest { limit, rows: BTreeMap::new() };
        letters.filter(|found| filter.matches(found)).for_each(|found| newest.offer(&found));
        newest.rows
    });
    let (mut parts, mut newest) = (pin!(parts), Newest { limit, rows: BTreeMap::new() });
    while let Some(part) = parts.next().await {
        newest.rows.extend(part?.made);
        newest.cut();
    }
    say(&match args.output {
        Output::Table => newest.table(),
        Output::Json => newest.json(),
    });
    Ok(())
}

impl Newest {
    fn offer(&mut self, found: &Found) {
        let at = (found.record.timestamp_ms, found.place.clone());
        let full = self.rows.len() >= self.limit;
        if full && self.rows.first_key_value().is_some_and(|(oldest, _)| at < *oldest) {
            return;
        }
        self.rows.insert(at, Row::of(found));
        self.cut();
    }

    fn cut(&mut self) {
        while self.rows.len() > self.limit {
            self.rows.pop_first();
        }
    }

    fn table(&self) -> String {
        let heads = [
            ("LETTER", Side::Left),
            ("TIME", Side::Left),
            ("REASON", Side::Left),
            ("GROUP", Side::Left),
            ("ORIGINAL", Side::Left),
            ("KEY", Side::Left),
            ("BYTES", Side::Right),
            ("REDRIVES", Side::Right),
            ("DETAIL", Side::Left),
        ];
        let rows: Vec<_> = self.rows.iter().map(|((time, place), row)| row.cells(*time, place)).collect();
        format!("{}{} letters\n", columns(&heads, &rows), grouped(rows.len() as u64))
    }

    fn json(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(|((time, place), row)| row.json(*time, place)).collect();
        format!("{:#}\n", serde_json::Value::Array(rows))
    }
}

impl Row {
    fn of(found: &Found) -> Self {
        let record = &found.record;
        Self {
            story: Story::of(found),
            key: record.key.as_ref().map(|key| service::log_id(&key_text(key)).to_string()),
            value_bytes: record.value.as_ref().map(bytes::Bytes::len),
            redrives: redrives(record),
        }
    }

    fn cells(&self, time: i64, place: &Place) -> Vec<String> {
        let name = |name: &Option<String>| tame(name.as_deref().unwrap_or(UNKNOWN), NAME_CHARS);
        let story = &self.story;
        vec![
            format!("{}:{}", place.partition.partition, place.offset),
            show_ms(time),
            name(&story.reason),
            name(&story.group),
            story.original.as_ref().map_or_else(|| UNKNOWN.to_owned(), ToString::to_string),
            self.key.as_deref().map_or_else(|| "-".to_owned(), |key| tame(key, NAME_CHARS)),
            self.value_bytes.map_or_else(|| "null".to_owned(), |bytes| grouped(bytes as u64)),
            self.redrives.to_string(),
            story.detail.as_deref().map(|detail| tame(detail, DETAIL_CHARS)).unwrap_or_default(),
        ]
    }

    fn json(&self, time: i64, place: &Place) -> serde_json::Value {
        let mut json = self.story.json();
        let more = json!({
            "partition": place.partition.partition.0,
            "offset": place.offset.0,
            "timestamp": time,
            "time": show_ms(time),
            "key": self.key,
            "value_bytes": self.value_bytes,
            "redrive_count": self.redrives,
        });
        if let (Some(json), Some(more)) = (json.as_object_mut(), more.as_object()) {
            json.extend(more.clone());
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::samples::found;

    #[test]
    fn only_the_newest_are_held() {
        let mut newest = Newest { limit: 3, rows: BTreeMap::new() };
        for offset in [5, 1, 9, 3, 7, 8, 2] {
            newest.offer(&found(0, offset, offset * 10, b"k", "g", "r"));
            assert!(newest.rows.len() <= 3);
        }
        let offsets: Vec<_> = newest.rows.keys().map(|(_, place)| place.offset.0).collect();
        assert_eq!(offsets, [7, 8, 9]);
    }

    #[test]
    fn a_line_holds_the_hash_of_the_key_alone() {
        let mut newest = Newest { limit: 3, rows: BTreeMap::new() };
        newest.offer(&found(3, 17, 1_795_441_689_633, b"driver-1", "g", "missing_latitude"));
        for text in [newest.table(), newest.json()] {
            assert!(!text.contains("driver-1") && text.contains(&service::hash_id("driver-1")), "{text}");
            assert!(text.contains("missing_latitude"), "{text}");
        }
        assert!(newest.table().contains("3:17"), "{}", newest.table());
    }
}
