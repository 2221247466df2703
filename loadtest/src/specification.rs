//! The table of the specification: what was claimed before, what was specified, and what is to be proven.

/// One row: a stage of the surge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Name of the stage in the report.
    pub name: &'static str,
    /// Events per second offered.
    pub rate: u32,
    /// Claimed lag of the system that this one replaces.
    pub lag_before: u64,
    /// Claimed p99 staleness of the system that this one replaces.
    pub staleness_before: &'static str,
    /// Lag that was specified.
    pub lag_specified: u64,
    /// p99 staleness to prove, in words.
    pub staleness_to_prove: &'static str,
    /// Seconds of the stage in a short surge.
    pub short_s: u64,
    /// Seconds of the stage in a full surge.
    pub full_s: u64,
}

/// The surge, stage by stage.
pub const SURGE: [Row; 5] = [
    row("base-5000", 5_000, (0, "< 1 s"), (0, "< 1 s"), 60),
    row("rise-15000", 15_000, (180_000, "12 s"), (0, "< 1 s"), 60),
    row("rise-30000", 30_000, (1_080_000, "72 s"), (0, "< 1 s"), 60),
    row("peak-50000", 50_000, (2_400_000, "240 s"), (850, "< 2 s"), 60),
    row("hold-50000", 50_000, (5_040_000, "420 s"), (1_200, "< 2 s"), 120),
];

/// Seconds of every stage in a short surge.
const SHORT_S: u64 = 15;

const fn row(
    name: &'static str,
    rate: u32,
    before: (u64, &'static str),
    specified: (u64, &'static str),
    full_s: u64,
) -> Row {
    Row {
        name,
        rate,
        lag_before: before.0,
        staleness_before: before.1,
        lag_specified: specified.0,
        staleness_to_prove: specified.1,
        short_s: SHORT_S,
        full_s,
    }
}

impl Row {
    /// The row of a stage by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SURGE.iter().find(|row| row.name == name)
    }
}

/// Events per second that the three threads of that system could write at 20 ms an event: its claims do not follow from it.
pub const RATE_BEFORE: u32 = 150;
/// Malformed records to be put in.
pub const POISON: usize = 47;
/// Recovery of the system that this one replaces, as claimed.
pub const RECOVERY_BEFORE: &str = "45 min";
