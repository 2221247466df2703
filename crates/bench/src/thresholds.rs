//! What must hold: the one table of thresholds. A line may have several; one without any is for information.

use std::fmt;

use crate::line::Line;

/// A bound of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// Our figure, in the line's unit.
    OursAtMost(f64),
    /// The same, and not even that.
    OursBelow(f64),
    /// Ours against the reference.
    RatioAtMost(f64),
    /// The same, where more is better.
    RatioAtLeast(f64),
}

/// By name of the line.
pub(crate) const THRESHOLDS: &[(&str, Bound)] = &[
    ("kafka-fetch-cpu", Bound::OursAtMost(0.6)),
    ("kafka-produce-10ms-cpu", Bound::OursAtMost(3.5)),
    ("kafka-produce-10ms-requests", Bound::RatioAtMost(1.1)),
    ("kafka-produce-10ms-broker", Bound::RatioAtMost(1.1)),
    ("kafka-produce-25ms-cpu", Bound::OursAtMost(3.5)),
    ("kafka-produce-25ms-requests", Bound::RatioAtMost(1.1)),
    ("kafka-produce-25ms-broker", Bound::RatioAtMost(1.1)),
    ("kafka-consume-requests", Bound::RatioAtMost(1.1)),
    ("kafka-consume-broker", Bound::RatioAtMost(1.1)),
    ("redis-writer-drain", Bound::RatioAtLeast(0.40)),
    ("redis-writer-drain-cpu", Bound::OursAtMost(4.0)),
    ("redis-writer-drain-memory", Bound::OursAtMost(96.0)),
    ("redis-writer-catchup", Bound::RatioAtLeast(1.0)),
    ("redis-writer-catchup-cpu", Bound::OursAtMost(1.5)),
    ("timescale-writer-drain", Bound::RatioAtLeast(0.70)),
    ("timescale-writer-drain-cpu", Bound::OursAtMost(3.0)),
    ("poison-cost", Bound::RatioAtLeast(0.95)),
    ("poison-cost-p99", Bound::OursBelow(1.0)),
    ("poison-cost-visibility", Bound::OursBelow(1.0)),
    ("poison-cost-visibility-apart", Bound::OursBelow(1.0)),
    ("time-to-fresh", Bound::RatioAtMost(1.0)),
    ("lag-exporter-collection-cpu", Bound::OursAtMost(0.05)),
    ("lag-exporter-collection-broker", Bound::OursAtMost(0.1)),
    ("lag-exporter-scrape", Bound::OursAtMost(50.0)),
    ("lag-exporter-memory", Bound::OursAtMost(48.0)),
    ("lag-exporter-large-collection-cpu", Bound::OursAtMost(1.0)),
    ("lag-exporter-large-memory", Bound::OursAtMost(256.0)),
    ("lag-exporter-linear", Bound::RatioAtMost(1.5)),
];

impl Bound {
    /// Whether the line keeps it.
    pub(crate) fn holds(self, line: &Line) -> bool {
        match self {
            Self::OursAtMost(most) => line.ours <= most,
            Self::OursBelow(limit) => line.ours < limit,
            Self::RatioAtMost(most) => line.ratio <= most,
            Self::RatioAtLeast(least) => line.ratio >= least,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OursAtMost(most) => write!(f, "ours ≤ {most}"),
            Self::OursBelow(limit) => write!(f, "ours < {limit}"),
            Self::RatioAtMost(most) => write!(f, "ratio ≤ {most}"),
            Self::RatioAtLeast(least) => write!(f, "ratio ≥ {least}"),
        }
    }
}
