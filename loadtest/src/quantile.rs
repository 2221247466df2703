//! Quantiles by nearest rank: always a value that was measured, so that p99 of a few samples is their maximum.

/// The smallest value that at least the share `q` of `values` do not exceed; `None` of nothing.
#[must_use]
pub fn quantile<T: Copy + PartialOrd>(values: &[T], q: f64) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("measured values are numbers"));
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_of_fewer_than_a_hundred_is_the_maximum() {
        assert_eq!(quantile(&[3, 1, 2], 0.99), Some(3));
        assert_eq!(quantile(&(1..=100).collect::<Vec<_>>(), 0.99), Some(99));
        assert_eq!(quantile(&(1..=200).collect::<Vec<_>>(), 0.99), Some(198));
    }

    #[test]
    fn the_median_is_the_lower_of_two() {
        assert_eq!(quantile(&[4.0, 1.0], 0.5), Some(1.0));
        assert_eq!(quantile(&[7], 0.5), Some(7));
        assert_eq!(quantile::<u64>(&[], 0.5), None);
    }
}
