//! A line of the result: one figure of ours beside one of something else, measured in the same run.

use serde::Serialize;

use crate::thresholds::{Bound, THRESHOLDS};

/// One line of `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// Its name; [`THRESHOLDS`] goes by it.
    pub(crate) name: String,
    /// What we reach or cost.
    pub(crate) ours: f64,
    /// What it is compared with.
    pub(crate) reference: f64,
    /// What that is.
    pub(crate) reference_what: String,
    /// `ours / reference`.
    pub(crate) ratio: f64,
    /// Unit of both figures.
    pub(crate) unit: &'static str,
}

impl Line {
    pub(crate) fn new(
        name: impl Into<String>,
        ours: f64,
        (reference_what, reference): (impl Into<String>, f64),
        unit: &'static str,
    ) -> Self {
        let (name, reference_what) = (name.into(), reference_what.into());
        Self { name, ours, reference, reference_what, ratio: ours / reference, unit }
    }

    /// The bounds that the line has to keep.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = Bound> {
        THRESHOLDS.iter().filter(|(name, _)| *name == self.name).map(|(_, bound)| *bound)
    }

    /// Whether it keeps all of them; a figure that is no number keeps none.
    pub(crate) fn passes(&self) -> bool {
        self.bounds().all(|bound| bound.holds(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, ours: f64, reference: f64) -> Line {
        Line::new(name, ours, ("something", reference), "µs")
    }

    #[test]
    fn a_line_beyond_its_bound_fails() {
        assert!(line("kafka-fetch-cpu", 0.6, 1.0).passes());
        assert!(!line("kafka-fetch-cpu", 0.61, 1.0).passes());
        assert!(line("kafka-produce-10ms-requests", 110.0, 100.0).passes());
        assert!(!line("kafka-produce-10ms-requests", 111.0, 100.0).passes());
        assert!(line("redis-writer-drain", 40.0, 100.0).passes());
        assert!(!line("redis-writer-drain", 39.9, 100.0).passes());
        assert!(line("poison-cost-p99", 0.99, 100.0).passes());
        assert!(!line("poison-cost-p99", 1.0, 100.0).passes());
    }

    #[test]
    fn a_figure_that_was_not_measured_passes_nowhere() {
        assert!(!line("kafka-fetch-cpu", f64::NAN, 1.0).passes());
        assert!(!line("kafka-produce-10ms-requests", 0.0, 0.0).passes());
        assert!(!line("redis-writer-drain", f64::NAN, 1.0).passes());
    }

    #[test]
    fn a_line_without_a_bound_is_for_information() {
        assert!(line("something-else", 9.0, 1.0).passes());
    }
}
