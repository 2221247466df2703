//! Exit codes, after sysexits.h: what a supervisor or a script may rely on.

/// Wrong flags: nothing was started.
pub const USAGE: u8 = 64;
/// Something that the service needs is not there, or its port is taken.
pub const UNAVAILABLE: u8 = 69;
/// A fault of the program itself.
pub const SOFTWARE: u8 = 70;
/// The drain did not end within `--shutdown-timeout`.
pub const DRAIN_TIMED_OUT: u8 = 75;
/// The system forbids it, for example a port below 1024.
pub const NO_PERMISSION: u8 = 77;
/// Added to the signal's number when a second signal ends the process at once.
pub const SIGNAL_BASE: u8 = 128;
