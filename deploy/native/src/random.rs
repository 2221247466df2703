//! The little randomness that a stack needs: ports, a cluster id, passwords.

use std::hash::{BuildHasher, RandomState};

/// Random bits from the standard library's hash keys, which the system seeds anew for each process.
fn bits() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A number below `limit`.
pub(crate) fn below(limit: u16) -> u16 {
    u16::try_from(bits() % u64::from(limit)).expect("a remainder is below its divisor")
}

/// 32 hexadecimal digits.
pub(crate) fn token() -> String {
    format!("{:016x}{:016x}", bits(), bits())
}

/// A Kafka cluster id: 16 bytes in URL-safe base64 without padding, of which hexadecimal digits are a part. The last
/// digit holds four bits that do not exist; `A` leaves them zero.
pub(crate) fn cluster_id() -> String {
    format!("{}A", &token()[..21])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ() {
        assert_eq!(token().len(), 32);
        assert_ne!(token(), token());
        assert_eq!(cluster_id().len(), 22);
    }
}
