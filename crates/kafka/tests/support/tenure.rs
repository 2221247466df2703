//! The journals of all members held against each other: who owned what when, and what was processed.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

use crate::journal::{Entry, What};

/// A partition that nobody has taken from its owner yet.
const STILL: i64 = i64::MAX;

/// What one member wrote down.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) member: String,
    pub(crate) entries: Vec<Entry>,
    /// When it ended without a word, if it did.
    pub(crate) killed_us: Option<i64>,
}

/// One member's time with one partition.
#[derive(Debug, Clone)]
pub(crate) struct Tenure {
    pub(crate) member: String,
    pub(crate) partition: i32,
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    pub(crate) work: Vec<Work>,
}

/// The records `first` to `last` of a partition, processed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) begun_us: i64,
    pub(crate) done_us: i64,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Tenure {
    pub(crate) fn lasts(&self) -> bool {
        self.to_us == STILL
    }
}

/// Everybody's tenures, by partition and in order of their beginning.
///
/// # Panics
/// When a member processed what was not its own, was given what it had, or has failed.
pub(crate) fn tenures(told: &[Told]) -> BTreeMap<i32, Vec<Tenure>> {
    let mut by_partition = BTreeMap::<i32, Vec<Tenure>>::new();
    for tenure in told.iter().flat_map(of_member) {
        by_partition.entry(tenure.partition).or_default().push(tenure);
    }
    by_partition.values_mut().for_each(|tenures| tenures.sort_by_key(|tenure| tenure.from_us));
    by_partition
}

fn of_member(told: &Told) -> Vec<Tenure> {
    let Told { member, entries, killed_us } = told;
    let mut open = BTreeMap::<i32, Tenure>::new();
    let mut ended = Vec::new();
    for Entry { at_us, what } in entries {
        match what {
            What::Assigned { partition, .. } => {
                let tenure = Tenure {
                    member: member.clone(),
                    partition: *partition,
                    from_us: *at_us,
                    to_us: STILL,
                    work: Vec::new(),
                };
                assert!(open.insert(*partition, tenure).is_none(), "{member} was given {partition}, which it had");
            }
            What::Processed { partition, first, last, begun_us } => {
                let Some(tenure) = open.get_mut(partition) else {
                    panic!("{member} processed {first} to {last} of {partition}, which it did not own");
                };
                tenure.work.push(Work { begun_us: *begun_us, done_us: *at_us, first: *first, last: *last });
            }
            What::Revoked { partition } | What::Lost { partition } => {
                ended.extend(open.remove(partition).map(|tenure| Tenure { to_us: *at_us, ..tenure }));
            }
            What::Left => {
                let all = std::mem::take(&mut open).into_values();
                ended.extend(all.map(|tenure| Tenure { to_us: *at_us, ..tenure }));
            }
            What::Failed(text) => panic!("{member}: {text}"),
            What::Committed { .. } | What::NotCommitted { .. } | What::Trouble(_) => {}
        }
    }
    ended.extend(open.into_values().map(|tenure| Tenure { to_us: killed_us.unwrap_or(STILL), ..tenure }));
    ended
}

/// No partition had two owners at a time.
pub(crate) fn check_one_owner(tenures: &BTreeMap<i32, Vec<Tenure>>) {
    for (partition, tenures) in tenures {
        for pair in tenures.windows(2) {
            let [before, after] = pair else { continue };
            let overlap = before.to_us.saturating_sub(after.from_us);
            assert!(
                overlap <= 0,
                "partition {partition}: {} had it from {}, while {} kept it until {}",
                after.member,
                after.from_us,
                before.member,
                before.to_us
            );
        }
    }
}

/// Every record up to `ends` was processed, and none before the ones that it follows.
/// Returns how many were processed once more (by whoever came after a member that was killed).
pub(crate) fn check_every_record(tenures: &BTreeMap<i32, Vec<Tenure>>, ends: &BTreeMap<i32, i64>) -> i64 {
    let mut again = 0;
    for (partition, end) in ends {
        let mut next = 0;
        for work in in_order(tenures, *partition) {
            assert!(work.first <= next, "partition {partition}: {next} to {} were passed over", work.first - 1);
            again += next.min(work.last + 1) - work.first;
            next = next.max(work.last + 1);
        }
        assert_eq!(next, *end, "partition {partition}: processed up to the end of the log");
    }
    again
}

/// The position after the last record processed of each partition.
pub(crate) fn positions(tenures: &BTreeMap<i32, Vec<Tenure>>) -> BTreeMap<i32, i64> {
    let next = |tenures: &Vec<Tenure>| {
        tenures.iter().flat_map(|tenure| &tenure.work).map(|work| work.last + 1).max().unwrap_or(0)
    };
    tenures.iter().map(|(partition, tenures)| (*partition, next(tenures))).collect()
}

/// What was processed of a partition, by whomever, in the order of time.
pub(crate) fn in_order(tenures: &BTreeMap<i32, Vec<Tenure>>, partition: i32) -> Vec<Work> {
    let of_partition = tenures.get(&partition).into_iter().flatten();
    let mut work: Vec<Work> = of_partition.flat_map(|tenure| &tenure.work).copied().collect();
    work.sort_by_key(|work| work.done_us);
    work
}

/// How many members own each partition at the end.
pub(crate) fn owners(tenures: &BTreeMap<i32, Vec<Tenure>>) -> BTreeMap<i32, usize> {
    tenures.iter().map(|(partition, of)| (*partition, of.iter().filter(|tenure| tenure.lasts()).count())).collect()
}
