//! The arithmetic of one group on one partition: from offsets and times to records and seconds. Pure.
//!
//! The oldest record that waits came after everything in `since`, so that its age is now − the latest of:
//! the timestamp of the last processed record (our commits carry it), the last sample at which the group had caught up,
//! and the last sample at which the log did not reach the record. Where these leave more than an interval open, the
//! record itself is read, once.

use crate::ends::Ends;
use crate::sample::{Commit, Reason};

/// The history of a partition's end is trusted to this part of a record's age.
const HISTORY_PRECISION: i64 = 10;

/// How far a group has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    Committed(Commit),
    Never,
}

/// What a group that has never committed lags by, as its `auto.offset.reset` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Uncommitted {
    /// All that the partition holds
    Earliest,
    /// Nothing: it will begin behind the last record
    Latest,
}

/// What the judgement depends on besides the offsets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) uncommitted: Uncommitted,
    /// How much the time of a record may be left open, ms: what one interval leaves.
    pub(crate) tolerance_ms: i64,
}

/// What is seen of the pair at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) now_ms: i64,
    pub(crate) start: Option<i64>,
    pub(crate) end: i64,
    pub(crate) position: Position,
    pub(crate) ends: &'a Ends,
    pub(crate) rules: Rules,
}

/// By what the time lag was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    /// The timestamp in the commit's metadata.
    Commit,
    /// The history of the partition's end.
    History,
    /// The record at the committed offset was read.
    Record,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::History => "history",
            Self::Record => "record",
        }
    }
}

/// Lag of a group on a partition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lag {
    pub(crate) records: u64,
    pub(crate) seconds: Result<f64, Reason>,
    pub(crate) method: Method,
    /// Offset at which a record should be read, for its time.
    pub(crate) wants: Option<i64>,
}

/// What came of reading the record at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Its timestamp.
    At(i64),
    /// There is none up to the end: markers of transactions, compacted away.
    Nothing,
    /// We may not read the topic.
    Denied,
}

/// What is remembered of the pair.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trace {
    /// The committed offset that was seen last.
    committed: Option<i64>,
    /// Whether it has been looked at before.
    is_known: bool,
    /// Whether the commit moved with the last sight.
    moved: bool,
    /// When the commit moved last, or nothing waited, or it was first seen.
    idle_since_ms: i64,
    caught_up: Option<CaughtUp>,
    /// The first offset that waits.
    next: i64,
    read: Option<(i64, Read)>,
    /// Up to where records that retention took before they were processed have been counted.
    lost_up_to: i64,
}

/// The last sample at which the group had processed all there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CaughtUp {
    at_ms: i64,
    end: i64,
}

/// What has changed since the last sight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Records that the commit moved on by.
    pub(crate) consumed: u64,
    /// Whether it moved back.
    pub(crate) rewound: bool,
    /// Records that retention took before they were processed.
    pub(crate) lost: u64,
    /// Whether the commit moved at all.
    pub(crate) moved: bool,
}

impl Trace {
    /// Takes note of what is seen.
    pub(crate) fn follow(&mut self, sight: &Sight<'_>) -> Step {
        let committed = match sight.position {
            Position::Committed(commit) => Some(commit.offset),
            Position::Never => None,
        };
        let from = if self.is_known { self.committed.or(sight.start) } else { committed };
        let (from, to) = (from.unwrap_or(0), committed.or(from).unwrap_or(0));
        let moved = self.is_known && committed.is_some() && self.committed != committed;
        let lost = committed.map_or(0, |offset| self.lose(offset, sight.start));
        self.caught_up = self.mark(sight);
        if moved || !self.is_known || self.caught_up.is_some_and(|mark| mark.at_ms == sight.now_ms) {
            self.idle_since_ms = sight.now_ms;
        }
        (self.committed, self.moved, self.is_known) = (committed, moved, true);
        self.next = committed.unwrap_or(0).max(sight.start.unwrap_or(0));
        Step {
            // Nobody consumes what is not there.
            consumed: if moved { u64::try_from(to.min(sight.end) - from).unwrap_or(0) } else { 0 },
            rewound: moved && to < from,
            lost,
            moved,
        }
    }

    /// The lag that follows from what is seen and remembered.
    ///
    /// # Errors
    /// Why it is not known.
    pub(crate) fn lag(&self, sight: &Sight<'_>) -> Result<Lag, Reason> {
        let (first, next) = match sight.position {
            Position::Committed(commit) if commit.offset > sight.end => return Err(Reason::BeyondEnd),
            Position::Committed(commit) => (commit.offset, commit.offset.max(sight.start.unwrap_or(0))),
            Position::Never if sight.rules.uncommitted == Uncommitted::Latest => (sight.end, sight.end),
            Position::Never => {
                let start = sight.start.ok_or(Reason::StartUnread)?;
                (start, start)
            }
        };
        let records = u64::try_from(sight.end - first).unwrap_or(0);
        let (seconds, method) = if next >= sight.end { (Ok(0.0), method(sight)) } else { self.seconds(sight, next) };
        let wants = seconds.is_err() && self.read_at(next).is_none();
        Ok(Lag { records, seconds, method, wants: wants.then_some(next) })
    }

    /// Takes note of the record at `offset`.
    pub(crate) fn learn(&mut self, offset: i64, read: Read) {
        self.read = Some((offset, read));
    }

    /// For how long something has waited without the commit moving, in ms.
    pub(crate) fn stuck_ms(&self, sight: &Sight<'_>) -> i64 {
        (sight.now_ms - self.idle_since_ms).max(0)
    }

    /// Whether the group's next record is at `offset`, and has not been read yet.
    pub(crate) fn waits_for(&self, offset: i64) -> bool {
        self.is_known && self.next == offset
    }

    fn read_at(&self, offset: i64) -> Option<Read> {
        self.read.filter(|(at, _)| *at == offset).map(|(_, read)| read)
    }

    fn seconds(&self, sight: &Sight<'_>, next: i64) -> (Result<f64, Reason>, Method) {
        let caught_up = self.caught_up.filter(|mark| next >= mark.end).map(|mark| mark.at_ms);
        let age =
            |since_ms: i64| Ok(seconds_between(caught_up.map_or(since_ms, |mark| mark.max(since_ms)), sight.now_ms));
        let read = self.read_at(next);
        match read {
            Some(Read::At(timestamp_ms)) => return (age(timestamp_ms), Method::Record),
            Some(Read::Nothing) => return (Ok(0.0), Method::Record),
            Some(Read::Denied) | None => {}
        }
        let appended = sight.ends.appended(next);
        match sight.position {
            Position::Committed(Commit { timestamp_ms: Some(processed_ms), .. }) => {
                let bounds = [Some(processed_ms), caught_up, appended.and_then(|at| at.not_before_ms)];
                let since_ms = bounds.into_iter().flatten().max().unwrap_or(processed_ms);
                let until_ms = appended.map_or(sight.now_ms, |at| at.not_after_ms);
                // A commit that has just moved is as fresh as its timestamp says.
                let is_open = !self.moved && until_ms - since_ms > sight.rules.tolerance_ms;
                if is_open && read.is_none() {
                    return (Err(Reason::NotReadYet), Method::Commit);
                }
                (age(since_ms), Method::Commit)
            }
            _ => match appended.and_then(|at| Some((at.about_ms?, at.not_after_ms - at.not_before_ms?))) {
                // What is long ago is known less exactly; what fell into a time without samples is not known at all.
                Some((about_ms, open_ms)) => {
                    let allowed_ms = sight.rules.tolerance_ms.max((sight.now_ms - about_ms) / HISTORY_PRECISION);
                    if open_ms > allowed_ms && read.is_none() {
                        return (Err(Reason::NotReadYet), Method::History);
                    }
                    (age(about_ms), Method::History)
                }
                None => (Err(Reason::NoHistory), Method::History),
            },
        }
    }

    /// A mark holds as long as the group stays at or behind it; a group that was set back before it is behind on records
    /// that are older than the mark.
    fn mark(&self, sight: &Sight<'_>) -> Option<CaughtUp> {
        match sight.position {
            Position::Committed(commit) if commit.offset == sight.end => {
                Some(CaughtUp { at_ms: sight.now_ms, end: sight.end })
            }
            Position::Committed(commit) => self.caught_up.filter(|mark| commit.offset >= mark.end),
            // An empty log has been processed by everybody.
            Position::Never if sight.start == Some(sight.end) => Some(CaughtUp { at_ms: sight.now_ms, end: sight.end }),
            Position::Never => self.caught_up.filter(|mark| sight.start.is_some_and(|start| start >= mark.end)),
        }
    }

    fn lose(&mut self, committed: i64, start: Option<i64>) -> u64 {
        let Some(start) = start else { return 0 };
        let lost = start - committed.max(self.lost_up_to);
        self.lost_up_to = self.lost_up_to.max(start);
        u64::try_from(lost).unwrap_or(0)
    }
}

/// How the time lag of a group with such commits is told.
pub(crate) fn method(sight: &Sight<'_>) -> Method {
    match sight.position {
        Position::Committed(Commit { timestamp_ms: Some(_), .. }) => Method::Commit,
        _ => Method::History,
    }
}

fn seconds_between(from_ms: i64, to_ms: i64) -> f64 {
    let ms = u64::try_from(to_ms - from_ms).unwrap_or(0);
    std::time::Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests;
