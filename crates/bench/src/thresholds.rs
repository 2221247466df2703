//! What must hold: the one table of thresholds. A line may have several; one without any is for information.

use std::fmt;

use crate::line::Line;

/// A bound of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// Our figure, in the line's unit.
    OursAtMost(f64),
    /// Ours against the reference.
    RatioAtMost(f64),
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
];

impl Bound {
    /// Whether the line keeps it.
    pub(crate) fn holds(self, line: &Line) -> bool {
        match self {
            Self::OursAtMost(most) => line.ours <= most,
            Self::RatioAtMost(most) => line.ratio <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OursAtMost(most) => write!(f, "ours ≤ {most}"),
            Self::RatioAtMost(most) => write!(f, "ratio ≤ {most}"),
        }
    }
}
