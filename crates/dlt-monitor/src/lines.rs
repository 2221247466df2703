//! How many lines about letters may be written: one for each, and under a flood one a second with counts. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Letters of one second that get a line each.
pub(crate) const LINES_PER_SECOND: u64 = 100;
/// Reasons that a line of counts names.
const MAX_REASONS: usize = 20;
const SECOND: Duration = Duration::from_secs(1);
const OTHER: &str = "other";

/// Letters that got no line of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) letters: u64,
    pub(crate) reasons: BTreeMap<String, u64>,
}

/// Counts the lines of each second.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    second: Option<Instant>,
    written: u64,
    unwritten: Summary,
}

impl Lines {
    /// Whether a letter gets a line of its own; if not, it is in a summary to come.
    pub(crate) fn admit(&mut self, now: Instant, reason: &str) -> bool {
        if self.second.is_none_or(|begun| now.saturating_duration_since(begun) >= SECOND) {
            self.second = Some(now);
            self.written = 0;
        }
        self.written += 1;
        if self.written <= LINES_PER_SECOND {
            return true;
        }
        self.unwritten.letters += 1;
        let reasons = &mut self.unwritten.reasons;
        let is_new = !reasons.contains_key(reason);
        let reason = if is_new && reasons.len() >= MAX_REASONS { OTHER } else { reason };
        *reasons.entry(reason.to_owned()).or_default() += 1;
        false
    }

    /// What was not written since the last summary; asked for once a second.
    pub(crate) fn summary(&mut self) -> Option<Summary> {
        (self.unwritten.letters > 0).then(|| std::mem::take(&mut self.unwritten))
    }
}

impl std::fmt::Display for Summary {
    /// `undecodable=17 missing_latitude=3`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.reasons.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
        f.write_str(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_bounded_number_of_lines_and_counts_of_the_rest() {
        let begun = Instant::now();
        let mut lines = Lines::default();
        let own = (0..1_000).filter(|n| lines.admit(begun, if n % 2 == 0 { "a" } else { "b" })).count();
        assert_eq!(own as u64, LINES_PER_SECOND);
        let summary = lines.summary().unwrap();
        assert_eq!((summary.letters, summary.to_string().as_str()), (900, "a=450 b=450"));
        assert_eq!(lines.summary(), None);
        assert!(!lines.admit(begun + SECOND / 2, "a"), "still the same second");
        assert!(lines.admit(begun + SECOND, "a"), "another one");
        assert_eq!(lines.summary().map(|summary| summary.letters), Some(1), "none is forgotten");
    }

    #[test]
    fn reasons_come_from_strangers_and_are_bounded() {
        let (begun, mut lines) = (Instant::now(), Lines::default());
        let own = (0..10_000).filter(|n| lines.admit(begun, &n.to_string())).count();
        assert_eq!(own as u64, LINES_PER_SECOND);
        let summary = lines.summary().unwrap();
        assert_eq!((summary.reasons.len(), summary.letters), (MAX_REASONS + 1, 10_000 - LINES_PER_SECOND));
    }
}
