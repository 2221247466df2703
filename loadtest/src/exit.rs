//! Exit codes.

/// Something did not hold.
pub const FAIL: u8 = 1;
/// The run could not be played to its end.
pub const BROKEN: u8 = 2;
/// Wrong flags (EX_USAGE of sysexits.h).
pub const USAGE: u8 = 64;
/// Ended by SIGINT or SIGTERM, as a shell reports the former.
pub const CUT_OFF: u8 = 130;
