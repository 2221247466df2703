//! Reads a service's page of metrics: as much of the Prometheus text format as a histogram needs.

/// A histogram over cumulative buckets, summed over all its label sets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Upper bound and number of observations up to it, rising.
    cumulative: Vec<(f64, f64)>,
}

impl Buckets {
    /// Sums the buckets of histogram `name` on a page.
    #[must_use]
    pub fn parse(page: &str, name: &str) -> Self {
        let mut buckets = Self::default();
        for line in page.lines() {
            if let Some((bound, count)) = bucket(line, name) {
                buckets.add(bound, count);
            }
        }
        buckets
    }

    /// Adds the observations of another histogram with the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.cumulative {
            self.add(*bound, *count);
        }
    }

    fn add(&mut self, bound: f64, count: f64) {
        let at = self.cumulative.partition_point(|(other, _)| *other < bound);
        match self.cumulative.get_mut(at) {
            Some((same, sum)) if *same == bound => *sum += count,
            _ => self.cumulative.insert(at, (bound, count)),
        }
    }

    /// The quantile `q`, interpolated within its bucket as PromQL's `histogram_quantile` does.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.cumulative.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let rank = q * total;
        let at = self.cumulative.partition_point(|(_, count)| *count < rank);
        let (bound, count) = *self.cumulative.get(at)?;
        let (below, before) = at.checked_sub(1).map_or((0.0, 0.0), |previous| self.cumulative[previous]);
        // Nothing is known beyond the last finite bound but that it was passed.
        if bound.is_infinite() {
            return Some(below);
        }
        let share = if count > before { (rank - before) / (count - before) } else { 1.0 };
        Some(below + (bound - below) * share)
    }

    /// Observations altogether.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.cumulative.last().map_or(0.0, |(_, count)| *count)
    }
}

/// Bound and count of a line such as `name_bucket{group="g",le="0.001"} 7`.
fn bucket(line: &str, name: &str) -> Option<(f64, f64)> {
    let labels = line.strip_prefix(name)?.strip_prefix("_bucket{")?;
    let (labels, count) = labels.rsplit_once('}')?;
    let bound = labels.split(',').find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'))?;
    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
    Some((bound, count.split_ascii_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE cost_seconds histogram\n\
        cost_seconds_bucket{group=\"a\",le=\"0.0001\"} 40\n\
        cost_seconds_bucket{group=\"a\",le=\"0.001\"} 47\n\
        cost_seconds_bucket{group=\"a\",le=\"+Inf\"} 47\n\
        cost_seconds_bucket{group=\"b\",le=\"0.0001\"} 40\n\
        cost_seconds_bucket{group=\"b\",le=\"0.001\"} 46\n\
        cost_seconds_bucket{group=\"b\",le=\"+Inf\"} 47\n\
        cost_seconds_sum{group=\"a\"} 0.01\n\
        other_bucket{le=\"0.1\"} 5\n";

    #[test]
    fn label_sets_are_summed() {
        let buckets = Buckets::parse(PAGE, "cost_seconds");
        assert_eq!(buckets.count(), 94.0);
        assert_eq!(buckets.cumulative, [(0.0001, 80.0), (0.001, 93.0), (f64::INFINITY, 94.0)]);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = Buckets::parse(PAGE, "cost_seconds");
        let median = buckets.quantile(0.5).unwrap();
        assert!(median > 0.0 && median < 0.0001, "{median}");
        let high = buckets.quantile(0.95).unwrap();
        assert!(high > 0.0001 && high < 0.001, "{high}");
        assert_eq!(buckets.quantile(0.999), Some(0.001));
    }

    #[test]
    fn no_observation_has_no_quantile() {
        assert_eq!(Buckets::default().quantile(0.5), None);
        assert_eq!(Buckets::parse("cost_seconds_bucket{le=\"+Inf\"} 0\n", "cost_seconds").quantile(0.99), None);
    }
}
