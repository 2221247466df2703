//! Which offsets to set so that nothing is lost and nothing is there twice. Pure.
//!
//! Rows with a ts from T on are removed, and reading goes on with the first record that Kafka got at T or later. No
//! effective time is later than that, so no row that was removed belongs to an earlier record. A record that comes again
//! and is older than T (a late upload) kept its row: the window `kept` says so, and the writer leaves it out.

use kafka::Offset;

use crate::command::Target;
use crate::timescale::{Kept, Stored};
use crate::timestamp::Timestamp;

/// What is known about one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) partition: i32,
    pub(crate) stored: Option<Stored>,
    /// The first offset that Kafka still keeps, and the one behind the last.
    pub(crate) log: (Offset, Offset),
    /// Where `--to` leads.
    pub(crate) wanted: Option<Offset>,
    /// The first record that Kafka got at the time of `--truncate-from` or later.
    pub(crate) cut: Option<Offset>,
}

/// A new offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) partition: i32,
    pub(crate) to: Offset,
    pub(crate) kept: Option<Kept>,
}

/// Decides over all partitions.
///
/// # Errors
/// Why it cannot be done, in one line.
pub(crate) fn plan(views: &[View], truncate_from: Option<Timestamp>) -> Result<Vec<Move>, String> {
    let moves = views.iter().map(|view| match truncate_from {
        None => view.set(),
        Some(time) => view.replay(time),
    });
    moves.filter_map(Result::transpose).collect()
}

impl View {
    fn set(&self) -> Result<Option<Move>, String> {
        let Some(to) = self.wanted else { return Ok(None) };
        let kept = self.stored.and_then(|stored| stored.kept);
        self.in_log(to).map(|to| Some(Move { partition: self.partition, to, kept }))
    }

    /// A partition of which nothing is stored has no rows and stays as it is.
    fn replay(&self, time: Timestamp) -> Result<Option<Move>, String> {
        let (Some(stored), Some(cut)) = (self.stored.filter(|stored| stored.next > Offset(0)), self.cut) else {
            return Ok(None);
        };
        let (partition, first) = (self.partition, self.log.0);
        if first > Offset(0) && cut <= first {
            return Err(format!(
                "--truncate-from {time}: Kafka's log of partition {partition} begins later, at offset {first}: rows that \
                 it cannot give back would be lost; give a later time"
            ));
        }
        let latest = cut.min(stored.next);
        let to = self.in_log(self.wanted.unwrap_or(latest))?;
        if to > latest {
            return Err(format!(
                "--truncate-from {time}: rows would be lost unless partition {partition} is read from offset {latest} or \
                 earlier, not from {to}"
            ));
        }
        let kept = self.kept(stored, to, time)?;
        Ok(Some(Move { partition, to, kept }))
    }

    fn kept(&self, stored: Stored, to: Offset, time: Timestamp) -> Result<Option<Kept>, String> {
        let under_way = stored.kept.filter(|kept| kept.until > stored.next);
        match under_way {
            _ if to == stored.next => Ok(stored.kept),
            None => Ok(Some(Kept { until: stored.next, before_ms: time.0 })),
            Some(kept) if time.0 <= kept.before_ms => Ok(Some(Kept { before_ms: time.0, ..kept })),
            Some(kept) => {
                let (partition, begun) = (self.partition, Timestamp(kept.before_ms));
                Err(format!(
                    "--truncate-from {time}: partition {partition} is still being read again from {begun} on, up to offset \
                     {}; let it finish, or give that time or an earlier one",
                    kept.until
                ))
            }
        }
    }

    fn in_log(&self, to: Offset) -> Result<Offset, String> {
        let (first, end) = self.log;
        if (first..=end).contains(&to) {
            return Ok(to);
        }
        Err(format!("offset {to} is not in Kafka's log of partition {}: give {first} to {end}", self.partition))
    }
}

/// Whether `target` stands for an offset of its own, without asking Kafka.
pub(crate) fn fixed(target: Target, log: (Offset, Offset)) -> Option<Offset> {
    match target {
        Target::Earliest => Some(log.0),
        Target::Latest => Some(log.1),
        Target::At(offset) => Some(offset),
        Target::Time(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timestamp = Timestamp(1_000);

    fn view(stored: i64, log: (i64, i64), cut: i64) -> View {
        View {
            partition: 0,
            stored: Some(Stored { next: Offset(stored), kept: None }),
            log: (Offset(log.0), Offset(log.1)),
            wanted: None,
            cut: Some(Offset(cut)),
        }
    }

    /// Where reading goes on, and the window of what was kept.
    type Replayed = Option<(i64, Option<(i64, i64)>)>;

    fn replayed(view: View) -> Result<Replayed, String> {
        let moves = plan(&[view], Some(TIME))?;
        Ok(moves.first().map(|one| (one.to.0, one.kept.map(|kept| (kept.until.0, kept.before_ms)))))
    }

    #[test]
    fn reading_goes_on_at_the_cut_and_knows_what_was_kept() {
        assert_eq!(replayed(view(50, (0, 80), 20)), Ok(Some((20, Some((50, 1_000))))));
        assert_eq!(replayed(view(50, (10, 80), 20)), Ok(Some((20, Some((50, 1_000))))));
        assert_eq!(replayed(view(50, (0, 80), 60)), Ok(Some((50, None))), "never forward");
        assert_eq!(replayed(View { stored: None, ..view(0, (0, 80), 20) }), Ok(None));
        assert_eq!(replayed(view(0, (30, 80), 30)), Ok(None), "no row was ever written");
        let earlier = View { wanted: Some(Offset(5)), ..view(50, (0, 80), 20) };
        assert_eq!(replayed(earlier), Ok(Some((5, Some((50, 1_000))))));
    }

    #[test]
    fn rows_that_would_not_come_back_are_not_removed() {
        for (view, part) in [
            (view(50, (20, 80), 20), "begins later, at offset 20"),
            (view(50, (80, 80), 80), "begins later, at offset 80"),
            (View { wanted: Some(Offset(21)), ..view(50, (0, 80), 20) }, "from offset 20 or earlier, not from 21"),
            (
                View { wanted: Some(Offset(3)), ..view(50, (4, 80), 20) },
                "offset 3 is not in Kafka's log of partition 0",
            ),
        ] {
            let line = replayed(view).unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_replay_within_a_replay_reaches_at_least_as_far_back() {
        let within = |before_ms| {
            let mut view = view(30, (0, 80), 20);
            view.stored = Some(Stored { next: Offset(30), kept: Some(Kept { until: Offset(50), before_ms }) });
            replayed(view)
        };
        assert_eq!(within(1_000), Ok(Some((20, Some((50, 1_000))))));
        assert_eq!(within(2_000), Ok(Some((20, Some((50, 1_000))))));
        assert!(within(999).unwrap_err().contains("still being read again"));
    }

    #[test]
    fn setting_alone_moves_what_is_asked_for() {
        let set = |wanted| {
            let moves = plan(&[View { wanted, ..view(50, (10, 80), 20) }], None)?;
            Ok::<_, String>(moves.first().map(|one| one.to.0))
        };
        assert_eq!(set(None), Ok(None));
        assert_eq!(set(Some(Offset(10))), Ok(Some(10)));
        assert_eq!(set(Some(Offset(80))), Ok(Some(80)), "forward as well");
        assert!(set(Some(Offset(81))).is_err());
        assert_eq!(fixed(Target::Latest, (Offset(1), Offset(9))), Some(Offset(9)));
        assert_eq!(fixed(Target::Time(TIME), (Offset(1), Offset(9))), None);
    }
}
