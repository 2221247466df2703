//! Which originals have been seen: a window of the last so many distinct ones. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use kafka::{Offset, PartitionId};

/// Where an original lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    topic: u32,
    partition: PartitionId,
    offset: Offset,
}

/// A window over distinct originals. Beyond its limit the one that was seen first is forgotten.
#[derive(Debug)]
pub(crate) struct Once {
    limit: usize,
    topics: HashMap<String, u32>,
    seen: HashSet<Place>,
    order: VecDeque<Place>,
}

impl Once {
    /// A window of `limit` originals, at least 1; one takes about 50 bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), topics: HashMap::new(), seen: HashSet::new(), order: VecDeque::new() }
    }

    /// Takes an original in; `false` when it is in the window already.
    pub(crate) fn is_first(&mut self, topic: &str, partition: PartitionId, offset: Offset) -> bool {
        let place = Place { topic: self.number(topic), partition, offset };
        if !self.seen.insert(place) {
            return false;
        }
        self.order.push_back(place);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    /// Topics are few, but their names come from strangers: beyond the limit the window begins anew.
    fn number(&mut self, topic: &str) -> u32 {
        if let Some(number) = self.topics.get(topic) {
            return *number;
        }
        if self.topics.len() >= self.limit {
            self.topics.clear();
            self.seen.clear();
            self.order.clear();
        }
        let number = u32::try_from(self.topics.len()).unwrap_or(u32::MAX);
        self.topics.insert(topic.to_owned(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(once: &mut Once, topic: &str, partition: i32, offset: i64) -> bool {
        once.is_first(topic, PartitionId(partition), Offset(offset))
    }

    #[test]
    fn an_original_is_new_once() {
        let mut once = Once::new(100);
        for (topic, partition, offset) in [("t", 0, 0), ("t", 0, 1), ("t", 1, 0), ("u", 0, 0)] {
            assert!(first(&mut once, topic, partition, offset), "{topic} {partition} {offset}");
            assert!(!first(&mut once, topic, partition, offset), "{topic} {partition} {offset}");
        }
    }

    #[test]
    fn the_window_is_bounded_and_forgets_the_oldest() {
        let mut once = Once::new(10);
        assert!((0..10_000).all(|offset| first(&mut once, "t", 0, offset)));
        assert_eq!((once.seen.len(), once.order.len()), (10, 10));
        assert!(!first(&mut once, "t", 0, 9_995) && first(&mut once, "t", 0, 5), "forgotten, so new again");
        for topic in 0..1_000 {
            first(&mut once, &topic.to_string(), 0, 0);
        }
        assert!(once.topics.len() <= 10 && once.seen.len() <= 10);
    }
}
