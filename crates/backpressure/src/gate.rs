//! A gate with hysteresis: it closes at a high mark and opens again only at a low mark.
//!
//! ```text
//!              level >= high
//!     ┌──────┐ ─────────────▶ ┌────────┐
//!     │ Open │                │ Closed │
//!     └──────┘ ◀───────────── └────────┘
//!              level <= low
//! ```
//!
//! Between the marks the state stays what it was. One mark instead of two would make a flow that sits at the mark
//! flap between the states with every record.

/// Whether the flow may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
    /// Traffic flows.
    Open,
    /// Traffic waits until the level has fallen to the low mark.
    Closed,
}

/// The two marks do not make a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the low mark {low} must be below the high mark {high}")]
pub struct MarksError {
    /// The high mark that was given.
    pub high: u64,
    /// The low mark that was given.
    pub low: u64,
}

/// Hysteresis over a level; the unit (records, bytes, …) is the caller's.
#[derive(Debug, Clone)]
pub struct Gate {
    high: u64,
    low: u64,
    state: GateState,
}

impl Gate {
    /// An open gate that closes at `high` and opens again at `low`.
    ///
    /// # Errors
    /// When `low` is not below `high`: such a gate would flap, or never open again.
    pub fn new(high: u64, low: u64) -> Result<Self, MarksError> {
        if low >= high {
            return Err(MarksError { high, low });
        }
        Ok(Self { high, low, state: GateState::Open })
    }

    /// Takes note of the current level and answers with the state that follows from it.
    pub fn observe(&mut self, level: u64) -> GateState {
        self.state = match self.state {
            // Open → Closed: the level has reached the high mark.
            GateState::Open if level >= self.high => GateState::Closed,
            // Closed → Open: the level has fallen to the low mark.
            GateState::Closed if level <= self.low => GateState::Open,
            unchanged => unchanged,
        };
        self.state
    }

    /// The state after the last observation.
    pub fn state(&self) -> GateState {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn closes_at_the_high_mark_and_opens_at_the_low_mark() {
        let mut gate = Gate::new(10, 3).unwrap();
        let table = [
            (0, GateState::Open),
            (9, GateState::Open),
            (10, GateState::Closed),
            (4, GateState::Closed),
            (9, GateState::Closed),
            (3, GateState::Open),
            (4, GateState::Open),
            (9, GateState::Open),
            (u64::MAX, GateState::Closed),
            (0, GateState::Open),
        ];
        for (level, expected) in table {
            assert_eq!(gate.observe(level), expected, "at level {level}");
            assert_eq!(gate.state(), expected);
        }
    }

    #[test]
    fn marks_in_the_wrong_order_are_refused() {
        assert_eq!(Gate::new(5, 5).unwrap_err(), MarksError { high: 5, low: 5 });
        assert_eq!(Gate::new(5, 6).unwrap_err().to_string(), "the low mark 6 must be below the high mark 5");
    }

    proptest! {
        #[test]
        fn changes_state_only_at_a_mark(high in 1..1000u64, span in 1..1000u64, levels in prop::collection::vec(0..2000u64, 0..200)) {
            let low = high.saturating_sub(span);
            let mut gate = Gate::new(high, low).unwrap();
            for level in levels {
                let before = gate.state();
                let after = gate.observe(level);
                match (before, after) {
                    (GateState::Open, GateState::Closed) => prop_assert!(level >= high),
                    (GateState::Closed, GateState::Open) => prop_assert!(level <= low),
                    (GateState::Open, GateState::Open) => prop_assert!(level < high),
                    (GateState::Closed, GateState::Closed) => prop_assert!(level > low),
                }
            }
        }
    }
}
