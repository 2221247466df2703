//! What can happen to the pipeline.

pub mod surge;

use std::time::Duration;

use crate::error::RunError;
use crate::run::Run;
use crate::specification::Row;
use crate::thresholds::{self, Thresholds};

/// A course of load and faults with a verdict at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The surge of the specification, malformed records at its peak, and Redis away after it.
    Surge,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 1] = [Self::Surge];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Surge => "surge",
        }
    }

    /// What it must keep.
    #[must_use]
    pub fn thresholds(self) -> &'static Thresholds {
        match self {
            Self::Surge => &thresholds::SURGE,
        }
    }

    /// Plays it, from the start of the servers to the counting.
    pub async fn play(self, run: &mut Run, length: SurgeLength) -> Result<(), RunError> {
        match self {
            Self::Surge => surge::play(run, length).await,
        }
    }
}

/// How long the stages of the surge last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SurgeLength {
    /// As long as a person waits for a demo.
    Short,
    /// As specified.
    Full,
}

impl SurgeLength {
    /// How long a stage lasts.
    #[must_use]
    pub fn of(self, row: &Row) -> Duration {
        match self {
            Self::Short => Duration::from_secs(row.short_s),
            Self::Full => Duration::from_secs(row.full_s),
        }
    }
}
