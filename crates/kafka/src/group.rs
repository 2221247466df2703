//! Membership in a consumer group: the classic protocol with cooperative rebalancing (KIP-429).

pub(crate) mod assignor;
pub(crate) mod codec;
pub(crate) mod member;
