//! The comparison that decides on loss: rows against what the generator was told, as sets and not by totals.

use crate::ledger::{EventKey, Ledger, Outcome};

/// What the comparison of rows (or of records) with the ledgers shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Rows read.
    pub rows: u64,
    /// Different (driver, timestamp) among them.
    pub distinct: u64,
    /// Accepted events without a row.
    pub lost: u64,
    /// Rows of events whose outcome was unknown: allowed.
    pub of_unknown: u64,
    /// Rows of events that were refused: the server said no, and wrote it all the same.
    pub of_refused: u64,
    /// Rows of events that never left the generator, or that nobody sent.
    pub of_strangers: u64,
}

/// Everything that was told about a run's events, in the order of their keys.
#[derive(Debug)]
pub struct Claims(Vec<(EventKey, Outcome)>);

impl Claims {
    /// The claims of several ledgers.
    pub fn of<'a>(ledgers: impl Iterator<Item = &'a Ledger>) -> Self {
        ledgers.flat_map(Ledger::iter).collect()
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(EventKey, Outcome)> for Claims {
    fn from_iter<I: IntoIterator<Item = (EventKey, Outcome)>>(claims: I) -> Self {
        let mut claims: Vec<_> = claims.into_iter().collect();
        claims.sort_unstable_by_key(|(key, _)| *key);
        Self(claims)
    }
}

/// Compares everything told with everything found; `strangers` are rows that have no key at all.
#[must_use]
pub fn compare(claims: &Claims, mut found: Vec<EventKey>, strangers: u64) -> Comparison {
    found.sort_unstable();
    let rows = found.len() as u64 + strangers;
    found.dedup();
    let distinct = found.len() as u64 + strangers;
    let mut comparison = Comparison { rows, distinct, of_strangers: strangers, ..Comparison::default() };
    let mut found = found.into_iter().peekable();
    for (key, outcome) in &claims.0 {
        while found.next_if(|row| row < key).is_some() {
            comparison.of_strangers += 1;
        }
        comparison.note(*outcome, found.next_if_eq(key).is_some());
    }
    comparison.of_strangers += found.count() as u64;
    comparison
}

impl Comparison {
    fn note(&mut self, outcome: Outcome, has_row: bool) {
        match (outcome, has_row) {
            (Outcome::Accepted, false) => self.lost += 1,
            (Outcome::Unknown | Outcome::Pending, true) => self.of_unknown += 1,
            (Outcome::Refused, true) => self.of_refused += 1,
            (Outcome::NeverSent, true) => self.of_strangers += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::roster::DriverTag;

    fn key(driver: u32, at: u32) -> EventKey {
        EventKey::new(DriverTag::driver(driver), at)
    }

    #[test]
    fn a_duplicate_does_not_hide_a_loss() {
        let told = [(key(1, 1), Outcome::Accepted), (key(2, 1), Outcome::Accepted)];
        let comparison = compare(&told.into_iter().collect(), vec![key(2, 1), key(2, 1)], 0);
        assert_eq!((comparison.rows, comparison.distinct, comparison.lost), (2, 1, 1));
    }

    #[test]
    fn rows_are_told_apart_by_the_outcome_of_their_event() {
        let outcomes = [Outcome::Accepted, Outcome::Unknown, Outcome::Refused, Outcome::NeverSent, Outcome::Pending];
        let told: Vec<_> = (0u32..).zip(outcomes).map(|(at, outcome)| (key(1, at), outcome)).collect();
        let mut rows: Vec<_> = told.iter().map(|(key, _)| *key).collect();
        rows.push(key(9, 9));
        let comparison = compare(&told.into_iter().collect(), rows, 2);
        assert_eq!(comparison.lost, 0);
        assert_eq!(comparison.of_unknown, 2);
        assert_eq!(comparison.of_refused, 1);
        assert_eq!(comparison.of_strangers, 4);
        assert_eq!((comparison.rows, comparison.distinct), (8, 8));
    }

    proptest! {
        #[test]
        fn the_comparison_agrees_with_sets(told in prop::collection::btree_map((0u32..20, 0u32..5), 0usize..4, 0..60),
                                           rows in prop::collection::vec((0u32..20, 0u32..5), 0..60)) {
            let outcomes = [Outcome::Accepted, Outcome::Unknown, Outcome::Refused, Outcome::NeverSent];
            let found: std::collections::BTreeSet<_> = rows.iter().copied().collect();
            let lost = told.iter().filter(|(event, outcome)| **outcome == 0 && !found.contains(event)).count();
            let strangers = found.iter().filter(|row| told.get(row).is_none_or(|outcome| *outcome == 3)).count();
            let told = told.iter().map(|((driver, at), outcome)| (key(*driver, *at), outcomes[*outcome])).collect();
            let comparison = compare(&told, rows.iter().map(|(driver, at)| key(*driver, *at)).collect(), 0);
            prop_assert_eq!(comparison.lost, lost as u64);
            prop_assert_eq!(comparison.of_strangers, strangers as u64);
            prop_assert_eq!(comparison.distinct, found.len() as u64);
            prop_assert_eq!(comparison.rows, rows.len() as u64);
        }
    }
}
