//! `redrive --dry-run`: what would go where, a line each, and nothing is sent, joined or committed.

use std::pin::pin;

use futures::StreamExt;
use serde_json::json;

use super::plan::{Plan, Step, shown_key};
use super::report::Report;
use super::{RedriveArgs, first_of};
use crate::command::{Desk, Output};
use crate::error::Error;
use crate::original::Original;
use crate::scan::Place;
use crate::table::say;

pub(super) async fn run(_desk: &Desk, args: &RedriveArgs, plan: Plan) -> Result<(), Error> {
    let mut report = Report::new(&plan);
    let mut once = plan.sent_before().await?;
    let mut parts = pin!(plan.steps());
    'all: while let Some(part) = parts.next().await {
        let part = part?;
        report.read(part.read, part.made.filtered);
        let mut lines = String::new();
        for Step { place, outcome } in part.made.steps {
            match outcome.and_then(|original| first_of(&mut once, original)) {
                Ok(original) => {
                    report.sent();
                    lines.push_str(&line(&place, &original, args.output));
                }
                Err(stays) => report.stays(stays),
            }
            if args.max.is_some_and(|max| report.sent >= max) {
                say(&lines);
                break 'all;
            }
        }
        if !say(&lines) {
            return Ok(());
        }
    }
    report.end();
    if args.output == Output::Table {
        say(&report.would());
    }
    Ok(())
}

fn line(place: &Place, Original { was, record }: &Original, output: Output) -> String {
    let letter = format!("{}:{}", place.partition.partition, place.offset);
    let partition = record.partition.map(|partition| partition.0);
    let key = shown_key(record.key.as_ref());
    match output {
        Output::Table => {
            let to = partition.map(|partition| format!("-{partition}")).unwrap_or_default();
            format!("{letter}  {was}  ->  {}{to}  key {key}\n", record.topic)
        }
        Output::Json => {
            let to = json!({"topic": &*record.topic, "partition": partition, "timestamp": record.timestamp_ms});
            format!("{}\n", json!({"letter": letter, "original": was.to_string(), "to": to, "key": key}))
        }
    }
}
