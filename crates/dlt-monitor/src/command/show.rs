//! `show`: everything about one letter, for an operator who asks for this one record. It holds personal data: the
//! driver's id and position, as far as they can be read.

use std::fmt::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use kafka::dead_letter::headers as names;
use serde_json::json;

use super::{Desk, Output};
use crate::anatomy::{Anatomy, DUMP_BYTES, dissect, hex_dump};
use crate::error::Error;
use crate::filter::key_text;
use crate::jsonl;
use crate::letter::UNKNOWN;
use crate::moment::show_ms;
use crate::scan::{Found, letter_at};
use crate::story::Story;
use crate::table::{Side, columns, grouped, say, tame};

/// Headers that are shown: a header bomb has thousands.
const MAX_HEADERS: usize = 60;
const HEADER_CHARS: usize = 160;
const KEY_CHARS: usize = 200;

/// Which letter.
#[derive(Debug, Clone, clap::Args)]
pub struct ShowArgs {
    /// The letter, as `list` names it
    #[arg(value_name = "PARTITION:OFFSET")]
    pub at: At,

    /// Form of what is shown
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// A place in the dead letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
        let numbers = numbers.filter(|(partition, offset): &(i32, i64)| *partition >= 0 && *offset >= 0);
        let (partition, offset) = numbers.ok_or("give PARTITION:OFFSET, such as 3:17")?;
        Ok(Self { partition, offset })
    }
}

pub(super) async fn run(desk: &Desk, args: ShowArgs) -> Result<(), Error> {
    let found = letter_at(&desk.client, &desk.dead_letter_topic, args.at.partition, args.at.offset).await?;
    say(&match args.output {
        Output::Table => table(&found),
        Output::Json => format!("{:#}\n", in_json(&found)),
    });
    Ok(())
}

fn table(found: &Found) -> String {
    let mut text = columns(&[("letter", Side::Left), (&found.place.partition.to_string(), Side::Left)], &facts(found));
    text.push_str(&headers(found));
    text.push_str(&value(found));
    text
}

fn facts(found: &Found) -> Vec<Vec<String>> {
    let (record, story) = (&found.record, Story::of(found));
    let or_unknown = |text: Option<String>| text.map_or_else(|| UNKNOWN.to_owned(), |text| tame(&text, 1_000));
    let time = |ms: i64| format!("{} ({ms})", show_ms(ms));
    let facts = [
        ("offset", Some(found.place.offset.to_string())),
        ("published", Some(time(record.timestamp_ms))),
        ("original", Some(or_unknown(story.original.map(|original| original.to_string())))),
        ("original time", story.original_timestamp.map(time)),
        ("group", Some(or_unknown(story.group))),
        ("reason", Some(or_unknown(story.reason))),
        ("detail", story.detail.map(|detail| tame(&detail, 1_000))),
        ("exception", story.exception.map(|class| tame(&class, 1_000))),
        ("service", story.service.map(|name| tame(&name, 100))),
        ("version", story.version.map(|version| tame(&version, 100))),
        ("attempts", story.attempts.map(|attempts| attempts.to_string())),
        ("truncated", story.truncated.map(|parts| tame(&parts, 100))),
        ("original size", story.original_size.map(|bytes| format!("{} bytes", grouped(bytes)))),
        ("redrive of", story.redrive_of.map(|of| tame(&of, 300))),
        ("key", Some(record.key.as_ref().map_or("null".to_owned(), |key| tame(&key_text(key), KEY_CHARS)))),
    ];
    facts.into_iter().filter_map(|(name, fact)| Some(vec![name.to_owned(), fact?])).collect()
}

fn headers(found: &Found) -> String {
    let all = &found.record.headers;
    let rows = all.iter().take(MAX_HEADERS).map(|(name, value)| vec![tame(name, 80), header(name, value.as_ref())]);
    let rows: Vec<_> = rows.collect();
    let mut text = format!("\n{}", columns(&[("header", Side::Left), ("value", Side::Left)], &rows));
    if all.len() > MAX_HEADERS {
        let _ = writeln!(text, "… {} headers more; `export` has them all", all.len() - MAX_HEADERS);
    }
    text
}

/// A header's value as what it stands for.
fn header(name: &str, value: Option<&Bytes>) -> String {
    let Some(value) = value else { return "null".to_owned() };
    match name {
        names::ORIGINAL_PARTITION if value.len() == 4 => i32::from_be_bytes(array(value)).to_string(),
        names::ORIGINAL_OFFSET if value.len() == 8 => i64::from_be_bytes(array(value)).to_string(),
        names::ORIGINAL_TIMESTAMP if value.len() == 8 => {
            let ms = i64::from_be_bytes(array(value));
            format!("{ms} ({})", show_ms(ms))
        }
        _ => tame(&key_text(&value[..value.len().min(4 * HEADER_CHARS)]), HEADER_CHARS),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn value(found: &Found) -> String {
    let Some(value) = &found.record.value else { return "\nvalue  null\n".to_owned() };
    let mut text = format!("\nvalue  {} bytes\n", grouped(value.len() as u64));
    if found.is_undecodable {
        let _ = writeln!(text, "a record batch that cannot be read");
    } else {
        let Anatomy { fields, broke } = dissect(value);
        let rows: Vec<_> = fields
            .iter()
            .map(|field| {
                vec![field.at.to_string(), field.number.to_string(), field.name.to_owned(), field.value.show()]
            })
            .collect();
        let heads = [("at", Side::Right), ("field", Side::Right), ("name", Side::Left), ("value", Side::Left)];
        text.push_str(&columns(&heads, &rows));
        if let Some(broke) = broke {
            let _ = writeln!(text, "broke at byte {}: {}", broke.at, broke.why);
        }
        let _ = writeln!(text, "today's rules: {}", verdict(found));
    }
    let _ = write!(text, "\n{}", hex_dump(value));
    text
}

/// What the writers of this version would say.
fn verdict(found: &Found) -> String {
    match jsonl::check(found.record.value.as_deref(), found.record.timestamp_ms) {
        Ok(()) => "a valid position: a redrive would be taken".to_owned(),
        Err(fault) => tame(&fault, 300),
    }
}

fn in_json(found: &Found) -> serde_json::Value {
    let value = found.record.value.as_deref().unwrap_or_default();
    let anatomy = dissect(value);
    let mut json = jsonl::export(found);
    if let Some(json) = json.as_object_mut() {
        let fields = anatomy.fields.iter().map(
            |field| json!({"at": field.at, "field": field.number, "name": field.name, "value": field.value.json()}),
        );
        json.insert("fields".to_owned(), fields.collect());
        json.insert(
            "broke".to_owned(),
            anatomy.broke.map_or(serde_json::Value::Null, |broke| json!({"at": broke.at, "why": broke.why})),
        );
        json.insert("today".to_owned(), verdict(found).into());
        json.insert("hex".to_owned(), hex_dump(&value[..value.len().min(DUMP_BYTES)]).into());
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::samples::found;

    #[test]
    fn places_are_a_partition_and_an_offset() {
        assert_eq!("3:17".parse(), Ok(At { partition: 3, offset: 17 }));
        for wrong in ["", "3", "3:", ":17", "3:x", "-1:5", "3:-1", "3:17:2", "99999999999:1"] {
            assert!(wrong.parse::<At>().is_err_and(|line| line.contains("PARTITION:OFFSET")), "{wrong}");
        }
    }

    #[test]
    fn a_bomb_of_a_letter_is_shown_bounded() {
        let mut bomb = found(0, 0, 0, b"driver-1", "g", "undecodable");
        bomb.record.value = Some(Bytes::from(vec![0xff; 900_000]));
        let header = |n: i32| (format!("h{n}\u{1b}[2J"), Some(Bytes::from(vec![b'x'; 10_000])));
        bomb.record.headers = (0..5_000).map(header).collect();
        let text = table(&bomb);
        assert!(text.len() < 40_000 && !text.contains('\u{1b}'), "{}", text.len());
        assert!(text.contains("4940 headers more") && text.contains("broke at byte 0"), "{text}");
    }

    #[test]
    fn binary_headers_are_shown_as_numbers() {
        let shown = |name, value: &[u8]| super::header(name, Some(&Bytes::copy_from_slice(value)));
        assert_eq!(shown(names::ORIGINAL_PARTITION, &7_i32.to_be_bytes()), "7");
        assert_eq!(shown(names::ORIGINAL_OFFSET, &4242_i64.to_be_bytes()), "4242");
        assert!(shown(names::ORIGINAL_TIMESTAMP, &0_i64.to_be_bytes()).starts_with("0 (1970-01-01T"));
        assert_eq!(shown(names::ORIGINAL_OFFSET, &[0xff, 1]), "0xff01", "not what it should be");
        assert_eq!(shown("trace", b"abc"), "abc");
    }
}
