//! What a member of a group did, and when: one entry for each thing, told apart to the microsecond on the one clock
//! that all processes of a machine share. The text form is one line for an entry.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fmt;
use std::str::{FromStr, SplitWhitespace};
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the epoch.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    i64::try_from(since.as_micros()).expect("a clock before the year 294000")
}

/// One thing that happened to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at_us: i64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The partition is ours; it is read from `start` on.
    Assigned { partition: i32, start: i64 },
    /// The records `first` to `last` were processed, from `begun_us` on.
    Processed { partition: i32, first: i64, last: i64, begun_us: i64 },
    /// The group stands at `next`.
    Committed { partition: i32, next: i64 },
    /// The group did not take `next`.
    NotCommitted { partition: i32, next: i64 },
    /// Handed back: from here on nothing of it is processed. Written before the group is told.
    Revoked { partition: i32 },
    /// Somebody else's, as we were told.
    Lost { partition: i32 },
    /// Nothing is processed any more. Written before the group is told.
    Left,
    /// Something is in the way; the member goes on.
    Trouble(String),
    /// The member has given up, or met what must not be.
    Failed(String),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.at_us)?;
        match &self.what {
            What::Assigned { partition, start } => write!(f, "assigned {partition} {start}"),
            What::Processed { partition, first, last, begun_us } => {
                write!(f, "processed {partition} {first} {last} {begun_us}")
            }
            What::Committed { partition, next } => write!(f, "committed {partition} {next}"),
            What::NotCommitted { partition, next } => write!(f, "not-committed {partition} {next}"),
            What::Revoked { partition } => write!(f, "revoked {partition}"),
            What::Lost { partition } => write!(f, "lost {partition}"),
            What::Left => write!(f, "left"),
            What::Trouble(text) => write!(f, "trouble {}", one_line(text)),
            What::Failed(text) => write!(f, "failed {}", one_line(text)),
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " / ")
}

/// A line that no member writes, such as a panic's.
#[derive(Debug)]
pub(crate) struct NoEntry;

impl FromStr for Entry {
    type Err = NoEntry;

    fn from_str(line: &str) -> Result<Self, NoEntry> {
        let mut words = line.split_whitespace();
        let at_us = number(&mut words)?;
        let what = match words.next().ok_or(NoEntry)? {
            "assigned" => What::Assigned { partition: number(&mut words)?, start: number(&mut words)? },
            "processed" => What::Processed {
                partition: number(&mut words)?,
                first: number(&mut words)?,
                last: number(&mut words)?,
                begun_us: number(&mut words)?,
            },
            "committed" => What::Committed { partition: number(&mut words)?, next: number(&mut words)? },
            "not-committed" => What::NotCommitted { partition: number(&mut words)?, next: number(&mut words)? },
            "revoked" => What::Revoked { partition: number(&mut words)? },
            "lost" => What::Lost { partition: number(&mut words)? },
            "left" => What::Left,
            "trouble" => What::Trouble(words.collect::<Vec<_>>().join(" ")),
            "failed" => What::Failed(words.collect::<Vec<_>>().join(" ")),
            _ => return Err(NoEntry),
        };
        Ok(Self { at_us, what })
    }
}

fn number<T: FromStr>(words: &mut SplitWhitespace<'_>) -> Result<T, NoEntry> {
    words.next().ok_or(NoEntry)?.parse().map_err(|_| NoEntry)
}
