//! Which records belong to transactions that were aborted: the broker tells, leaving them out is the reader's part.

use std::collections::{HashSet, VecDeque};

use kafka_protocol::messages::fetch_response::AbortedTransaction;

use super::header::Header;

/// Which producers' transactions are known to end in an abort, along one fetch response.
pub(super) struct Aborted {
    upcoming: VecDeque<AbortedTransaction>,
    open: HashSet<i64>,
}

impl Aborted {
    pub(super) fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|transaction| transaction.first_offset);
        Self { upcoming: aborted.into(), open: HashSet::new() }
    }

    /// Whether the batch belongs to an aborted transaction; a marker ends its producer's transaction.
    pub(super) fn covers(&mut self, header: &Header<'_>) -> bool {
        while let Some(transaction) = self.upcoming.pop_front_if(|next| next.first_offset < header.next().0) {
            self.open.insert(*transaction.producer_id);
        }
        if header.is_control() {
            self.open.remove(&header.producer_id());
            return false;
        }
        header.is_transactional() && self.open.contains(&header.producer_id())
    }
}
