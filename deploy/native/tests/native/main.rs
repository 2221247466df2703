//! The stack on the real programs: it answers, it survives what it should, and nothing of it survives its owner.
//! One binary, so that the linker works once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod cli;
mod lifeline;
mod process;
mod stack;
mod support;
